"""Index arrays: what a kernel may ask of a graph beside the features.

They are names, not data: a plan lists the :class:`IndexArray`\\ s that its kernels read, and a graph builds each
one on demand, once. All of them are one-dimensional integer arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from columba.ir.hashing import hash_once
from columba.ir.spaces import IndexMap


@hash_once
@dataclass(frozen=True)
class Segments:
    """Offsets ``[coarse + 1]`` of the fine rows of each coarse row, when the fine rows are sorted along ``map``."""

    map: IndexMap

    def __str__(self) -> str:
        return f"segments({self.map})"


@hash_once
@dataclass(frozen=True)
class Order:
    """The permutation ``[fine]`` that sorts fine rows along ``map`` (stable): position -> fine row.

    With ``within``: position -> the position at which that fine row stands when they are sorted along ``within``.
    """

    map: IndexMap
    within: IndexMap | None = None

    def __post_init__(self) -> None:
        if self.within is not None and (self.within.fine is not self.map.fine or self.within == self.map):
            raise ValueError(f"rows sorted along {self.map} have no places of their own along {self.within}")

    def __str__(self) -> str:
        return f"order({self.map})" if self.within is None else f"order({self.map}, within={self.within})"


@hash_once
@dataclass(frozen=True)
class Lookup:
    """The coarse row ``[fine]`` of each fine row, the fine rows in their own order, or sorted along ``order``."""

    map: IndexMap
    order: IndexMap | None = None

    def __post_init__(self) -> None:
        if self.order is not None and self.order.fine is not self.map.fine:
            raise ValueError(f"cannot sort rows of {self.map.fine} along {self.order}")

    def __str__(self) -> str:
        return f"lookup({self.map})" if self.order is None else f"lookup({self.map}, by={self.order})"


WANTED_TILES = 512
"""Of how many tiles a table has at least, where it may choose: more than any GPU has multiprocessors, whichever will run the kernel,
so that sums are cut in the same places, and have the same bits, on all of them."""


@hash_once
@dataclass(frozen=True)
class Tiles:
    """A balanced cut of the fine rows, sorted along ``map``, into tiles of at most ``rows`` rows of one segment.

    ``[3, tiles]`` flattened: the coarse row of each tile, its first position, the position after its last. Empty
    segments have no tile; tiles are in the order of their positions. With ``least``, tiles are smaller where there are
    few rows: see :meth:`most`.
    """

    map: IndexMap
    rows: int
    least: int = 0

    columns: ClassVar[int] = 3

    def most(self, fine: int) -> int:
        """The most rows of a tile where there are ``fine`` in all: the power of two that makes :data:`WANTED_TILES`, within bounds.

        >>> from columba.ir.spaces import Space, index_map
        >>> to_one = index_map("one", Space.NODE)
        >>> [Tiles(to_one, 1024, least=32).most(n) for n in (100, 100_000, 10_000_000)], Tiles(to_one, 512).most(100)
        ([32, 128, 1024], 512)
        """
        if not self.least:
            return self.rows
        return max(self.least, min(self.rows, 1 << max(0, (fine // WANTED_TILES).bit_length() - 1)))

    def __str__(self) -> str:
        return f"tiles({self.map}, {self.rows})" if not self.least else f"tiles({self.map}, {self.least}..{self.rows})"


@hash_once
@dataclass(frozen=True)
class TileStarts:
    """Offsets ``[coarse + 1]`` of the tiles of each segment in a table of tiles."""

    tiles: Tiles

    @property
    def map(self) -> IndexMap:
        return self.tiles.map

    def __str__(self) -> str:
        return f"starts({self.tiles})"


@hash_once
@dataclass(frozen=True)
class Hubs:
    """The segments of ``map`` that have many rows, its *hubs*, cut into tiles; a table without tiles where there are none.

    ``[5, tiles]`` flattened: the coarse row of each tile, its first position, the position after its last; then the first tile of the
    same coarse row, and the tile after its last. ``limits``: up to how many rows a segment has on average, and the most rows of one
    that is no hub (the last one for all other averages).
    """

    map: IndexMap
    limits: tuple[tuple[float, int], ...]

    columns: ClassVar[int] = 5

    def most(self, fine: int, coarse: int) -> int:
        """The most rows of a segment that is no hub, where ``fine`` rows have ``coarse`` segments.

        >>> from columba.ir.spaces import Space, index_map
        >>> hubs = Hubs(index_map("dst", Space.EDGE), ((2, 64), (8, 128)))
        >>> hubs.most(fine=20, coarse=10), hubs.most(fine=21, coarse=10), hubs.most(fine=1000, coarse=10)
        (64, 128, 128)
        """
        average = fine / max(1, coarse)
        return next((most for limit, most in self.limits if average <= limit), self.limits[-1][1])

    def tile_rows(self, fine: int, coarse: int, largest: int) -> int:
        """The most rows of a tile, where the largest segment has ``largest`` rows.

        Parts of a hub are put together by one program, and where a later loop needs them by each of its tiles: with tiles of no fewer
        rows than the square root, there are no more of them than rows in each.
        """
        root = math.isqrt(max(0, largest - 1)) + 1
        return max(self.most(fine, coarse), 1 << (root - 1).bit_length())

    def __str__(self) -> str:
        return f"hubs({self.map}, {'/'.join(str(most) for _, most in self.limits)})"


IndexArray = Segments | Order | Lookup | Tiles | TileStarts | Hubs
