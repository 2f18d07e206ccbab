"""Rules that make what passes look for, and what looks like it but for one detail: another map, axis, shape or reader."""

from __future__ import annotations

from . import products, rows, sums
from .parts import IDIOMS

__all__ = ["IDIOMS", "products", "rows", "sums"]
