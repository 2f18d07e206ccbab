"""Index arrays: what a kernel may ask of a graph beside the features.

They are names, not data: a plan lists the :class:`IndexArray`\\ s that its kernels read, and a graph builds each
one on demand, once. All of them are one-dimensional integer arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.spaces import IndexMap


@dataclass(frozen=True)
class Segments:
    """Offsets ``[coarse + 1]`` of the fine rows of each coarse row, when the fine rows are sorted along ``map``."""

    map: IndexMap

    def __str__(self) -> str:
        return f"segments({self.map})"


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


@dataclass(frozen=True)
class Tiles:
    """A balanced cut of the fine rows, sorted along ``map``, into tiles of at most ``rows`` rows of one segment.

    ``[3, tiles]`` flattened: the coarse row of each tile, its first position, the position after its last. Empty
    segments have no tile; tiles are in the order of their positions.
    """

    map: IndexMap
    rows: int

    def __str__(self) -> str:
        return f"tiles({self.map}, {self.rows})"


IndexArray = Segments | Order | Lookup | Tiles
