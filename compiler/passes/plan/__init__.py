"""Passes on level-2 plans."""
