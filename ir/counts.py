"""How many rows the spaces of a graph have, and what values take on it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from columba.ir.spaces import PAIR_SPACES, WEIGHT_SPACES, IndexMap, Space
from columba.ir.types import TensorType

SPACES = tuple(Space)
"""All spaces, in the order in which kernels are given their numbers of rows."""


UNKNOWN = 100
"""How many times the average the largest degree is taken to be where nothing says. An assumption: of the graphs whose degrees were counted
(``statistics.json``), it is 150 to 1,200 times."""


class _Rows(dict[Space, int]):
    def __missing__(self, space: Space) -> int:
        raise KeyError(f"the number of {space} rows is not given")


class Counts(Mapping[Space, int]):
    """Rows of the spaces of a graph.

    Args:
        rows: numbers of rows by space; or a number for every space, in the order of :data:`SPACES`. Space ``one`` has one row.
        largest_degree: the most edges that lead to, or leave from, one node; None: not known, and taken to be :data:`UNKNOWN` times the
            average.
        largest_relation: the most edges of one relation; None: not known, and taken to be all.

    >>> from columba.ir.types import DType
    >>> counts = Counts({Space.EDGE: 10, Space.NODE: 4})
    >>> counts.shape(TensorType(Space.NODE, (3,), DType.F32)), counts.bytes(TensorType(Space.ONE, (2, 2), DType.F64))
    ((4, 3), 32)
    """

    __slots__ = ("_rows", "largest_degree", "largest_relation")

    def __init__(
        self,
        rows: Mapping[Space, int] | Sequence[int],
        largest_degree: int | None = None,
        largest_relation: int | None = None,
    ) -> None:
        self.largest_degree = largest_degree
        self.largest_relation = largest_relation
        given = rows if isinstance(rows, Mapping) else dict(zip(SPACES, rows, strict=True))
        self._rows = _Rows(given)
        self._rows[Space.ONE] = 1

    @property
    def by_space(self) -> Mapping[Space, int]:
        """The rows by space, as a dictionary, which is asked faster."""
        return self._rows

    def __getitem__(self, space: Space) -> int:
        return self._rows[space]

    def __contains__(self, space: object) -> bool:
        return space in self._rows

    def __iter__(self) -> Iterator[Space]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __hash__(self) -> int:
        return hash(frozenset(self._rows.items()))

    def __repr__(self) -> str:
        return f"Counts({', '.join(f'{space}={n}' for space, n in self._rows.items())})"

    @property
    def in_order(self) -> tuple[int, ...]:
        """A number for every space, in the order of :data:`SPACES`; 0 where none is given."""
        return tuple(self._rows.get(space, 0) for space in SPACES)

    def shape(self, t: TensorType) -> tuple[int, ...]:
        """The shape of a value's tensor: rows of its space, then features; a plain value has no rows."""
        return t.shape if t.space is Space.ONE else (self[t.space], *t.shape)

    def bytes(self, t: TensorType) -> int:
        """Bytes of a value's tensor."""
        return math.prod(self.shape(t)) * t.dtype.itemsize

    def largest(self, map: IndexMap) -> int:
        """The most rows that lead to one row along a map, as far as counts tell: no fewer than there are, if the degree is right, but
        for graphs of a batch, whose largest nobody counts: it is taken to be :data:`UNKNOWN` times the average.

        >>> from columba.ir.spaces import index_map
        >>> counts = Counts({Space.NODE: 10, Space.EDGE: 50, Space.REL: 3, Space.SRC_REL: 20}, largest_degree=30)
        >>> counts.largest(index_map("dst", Space.EDGE)), counts.largest(index_map("src", Space.SRC_REL))
        (30, 3)
        """
        fine, coarse = self[map.fine], self[map.coarse]
        bounds = [fine]
        if map.coarse is Space.GRAPH:
            return min(fine, UNKNOWN * fine // max(1, coarse))
        if map.coarse is Space.REL and self.largest_relation is not None:
            bounds.append(self.largest_relation)
        if map.fine in PAIR_SPACES:
            bounds.append(self[Space.REL] if map.coarse not in WEIGHT_SPACES else fine)
            if map.coarse is Space.REL:
                bounds.append(self.get(Space.NODE, fine))
        elif map.coarse not in WEIGHT_SPACES:
            degree = self.largest_degree
            bounds.append(UNKNOWN * fine // max(1, coarse) if degree is None else degree)
        return min(bounds)

    def total(self, types: Iterable[TensorType]) -> int:
        """Bytes of the tensors of several values."""
        return sum(map(self.bytes, types))


TYPICAL = Counts(
    {
        Space.NTYPE: 4,
        Space.REL: 64,
        Space.NODE: 1 << 15,
        Space.SRC: 1 << 15,
        Space.DST: 1 << 15,
        Space.SRC_REL: 1 << 17,
        Space.DST_REL: 1 << 17,
        Space.EDGE: 1 << 19,
        Space.GRAPH: 1 << 10,
    }
)
"""Rows of the spaces where no graph is at hand, in the proportions of knowledge graphs, and of batches of molecules."""
