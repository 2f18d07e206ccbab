"""Columba: a compiler for relational graph neural networks written in PyTorch."""
