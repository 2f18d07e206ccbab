"""What has the same rows: a partition of values, numbers of rows, and the integers by which rows are chosen."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from columba.frontend.copies import plain
from columba.frontend.recorded import Record


class RowClasses:
    """Which values have the same rows: a partition of records, of counts, and of index matrices."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}
        self._ages: dict[Hashable, int] = {}

    def find(self, x: Hashable) -> Hashable:
        """What stands for the class of ``x``: the first that was asked for."""
        self._age(x)
        root = x
        while (parent := self._parent.get(root, root)) != root:
            root = parent
        while (parent := self._parent.get(x, x)) != root:
            self._parent[x] = root
            x = parent
        return root

    def unite(self, a: Hashable, b: Hashable) -> None:
        a, b = sorted((self.find(a), self.find(b)), key=self._age)
        if a != b:
            self._parent[b] = a

    def _age(self, x: Hashable) -> int:
        return self._ages.setdefault(x, len(self._ages))


@dataclass(frozen=True)
class RowOf:
    """The integers that a record of structure is: a row of a matrix, or itself; and how many rows they choose among, or put others into.

    The same integers may choose among tables of several lengths, and be summed by into several: each is an end of its own.
    """

    record: Record
    row: int | None
    rows: int | None = None

    @property
    def key(self) -> Hashable:
        return ("edges", self.record)


def row_of(index: Record) -> RowOf:
    """Where integers stand: in a matrix with two rows, or by themselves."""
    record = plain(index)
    if record.op in ("__getitem__", "select", "part") and record.operands:
        base, place = record.operands[0], record.args[-1]
        if record.op == "part":
            base = base.operands[0] if base.op == "unbind" and base.args[1:] in ((), (0,)) and not base.kwargs else base
        if record.op == "select" and record.args[1:2] != (0,):
            return RowOf(record, None)
        if isinstance(place, int) and base.meta.dim() == 2 and base.meta.shape[0] == 2:
            base = plain(base)
            rows = base.args[0] if base.op == "stack" and len(base.args) == 1 and not base.kwargs.get("dim") else None
            return row_of(rows[place % 2]) if isinstance(rows, (tuple, list)) else RowOf(base, place % 2)
    return RowOf(record, None)
