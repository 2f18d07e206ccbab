"""Launch parameters of Triton kernels: how many rows a program works on, with how many warps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from columba.ir.types import DType

WARP = 32


@dataclass(frozen=True)
class TraversalBlocks:
    """A program works on ``owners`` owners at a time, and on ``members`` members of each."""

    owners: int
    members: int
    warps: int
    stages: int = 2


@dataclass(frozen=True)
class ProductBlocks:
    """A program computes ``rows`` by ``columns`` elements of a product in steps of ``depth``."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int = 3


ELEMENTS = 2048
"""Elements that a program of a traversal holds of its widest block."""

PRODUCT_ROWS = 64
"""Rows of a tile of a matrix product; segments shorter than this leave lanes idle."""

REDUCED_ROWS = 32
"""Rows that a step of a sum of outer products takes."""

SUMMED_ROWS = 1024
"""Rows of a tile of a sum of outer products: its partial sum is written and read once."""


def row_blocks(width: int) -> TraversalBlocks:
    """For rows of ``width`` lanes that have no members."""
    rows = _clamp(ELEMENTS // width, 1, 128)
    return TraversalBlocks(rows, 1, warps_for(rows * width))


def member_blocks(width: int) -> list[tuple[float, TraversalBlocks]]:
    """For members of ``width`` lanes: by how many an owner has on average.

    Where owners have few members, a program takes several owners; where they have many, several members of one at a time.
    """
    found = []
    for most, owners, members in ((2, 16, 2), (8, 4, 4), (48, 1, 16), (math.inf, 1, 32)):
        members = _clamp(2 * ELEMENTS // width, 1, members)
        owners = _clamp(2 * ELEMENTS // (width * members), 1, owners)
        found.append((most, TraversalBlocks(owners, members, warps_for(owners * members * width, most=8))))
    return found


def tile_blocks(width: int) -> TraversalBlocks:
    """For tiles of heavy owners."""
    members = _clamp(2 * ELEMENTS // width, 1, 64)
    return TraversalBlocks(1, members, warps_for(members * width))


def product_blocks(depth: int, columns: int, lead: int, dtype: DType) -> ProductBlocks:
    """For a product of ``columns`` columns with ``lead`` vectors a row side by side in a block."""
    rows = _clamp(16384 // max(1, columns * lead), 16, PRODUCT_ROWS)
    if dtype is DType.F64:
        rows = min(rows, 32)
    steps = min(depth, 64 if dtype in (DType.BF16, DType.F16) else 32)
    return ProductBlocks(rows, columns, steps, 8 if rows * columns * lead > 8192 else 4)


def outer_blocks(depth: int, columns: int) -> ProductBlocks:
    """For a sum of outer products, ``depth`` by ``columns`` elements a program."""
    return ProductBlocks(REDUCED_ROWS, min(columns, 64), min(depth, 64), 4)


def warps_for(elements: int, most: int = 16) -> int:
    """Warps so that a thread holds about eight elements of a block."""
    return _clamp(elements // (8 * WARP), 1, most)


def _clamp(n: int, low: int, high: int) -> int:
    """The power of two not above ``n``, between powers of two."""
    return max(low, min(high, 1 << max(0, n.bit_length() - 1)))
