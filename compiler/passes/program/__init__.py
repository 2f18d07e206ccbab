"""Passes on level-1 programs."""
