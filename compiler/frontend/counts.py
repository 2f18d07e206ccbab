"""What stands, while a function is traced, for numbers of rows and for graphs: they are those of each call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from columba.ir.spaces import Space


@dataclass(frozen=True)
class Rows:
    """How many rows a space of a graph has."""

    space: Space
    graph: int


@dataclass(frozen=True)
class RealGraph:
    """Stands for a graph of a call, by its number."""

    number: int


@dataclass(frozen=True)
class Extent:
    """A size of a tensor that is not the first: of ``edge_index``, the number of edges."""

    record: Any
    dim: int


@dataclass(frozen=True)
class Scalar:
    """The number that a tensor of integers holds."""

    record: Any


class RowCount(int):
    """A number of rows. In views it stands for whatever the count is; in arithmetic it is the number, which is then guarded, but for
    what tensors of integers hold or have as sizes.

    ``of`` is what has so many: :class:`Rows`, a record, ``(record, "numel")`` for all numbers of one, :class:`Extent`, or :class:`Scalar`.
    Of a count that is compared with 0 the trace depends on whether there is any; of one that is compared with another, or with a number,
    on which is larger.
    """

    of: Any
    recorder: Any

    def __new__(cls, value: int, of: Any, recorder: Any) -> RowCount:
        made = super().__new__(cls, value)
        made.of = of
        made.recorder = recorder
        return made

    def __reduce__(self) -> Any:
        return int, (int(self),)


_COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
_ANY = {
    *(("__bool__", None), ("__gt__", 0), ("__ge__", 1), ("__eq__", 0), ("__ne__", 0)),
    *(("__lt__", 1), ("__le__", 0), ("__ge__", 0), ("__lt__", 0)),
}
"""Comparisons that only ask whether there are any rows."""


def _guarded(name: str) -> Callable[..., Any]:
    plain = getattr(int, name)

    def method(self: RowCount, *args: Any) -> Any:
        other = args[0] if args else None
        if isinstance(other, Tensor):  # which is asked then, and written down with the count
            return NotImplemented
        if isinstance(other, RowCount) and name in _COMPARISONS:
            self.recorder.compare_counts(self, other)
            return plain(int.__int__(self), int.__int__(other))
        if type(other) in (int, type(None)) and int.__gt__(self, 0) and (name, other) in _ANY:
            self.recorder.positive.add(self.of)
            return plain(self, *args)
        if name in _COMPARISONS and type(other) is int:
            self.recorder.compare_with(self, other)
            return plain(int.__int__(self), other)
        if (made := self.recorder.structure.arithmetic(self.recorder, name, self, other)) is not None:
            return made
        self.recorder.fix_count(self)
        for other in args:
            if isinstance(other, RowCount):
                self.recorder.fix_count(other)
        return plain(self, *args)

    return method


for _name in [
    "add",
    "radd",
    "sub",
    "rsub",
    "mul",
    "rmul",
    "floordiv",
    "rfloordiv",
    "truediv",
    "rtruediv",
    "mod",
    "rmod",
    "pow",
    "rpow",
    "neg",
    "lt",
    "le",
    "gt",
    "ge",
    "eq",
    "ne",
    "bool",
    "divmod",
    "rdivmod",
    "float",
    "str",
    "format",
]:
    if hasattr(int, f"__{_name}__"):
        setattr(RowCount, f"__{_name}__", _guarded(f"__{_name}__"))
RowCount.__hash__ = int.__hash__  # type: ignore[method-assign]


def holds_count(value: Any, depth: int = 3) -> bool:
    """Whether a value is a number of rows, or a container, or one in one, that holds such."""
    if isinstance(value, RowCount):
        return True
    if not depth or type(value) not in _CONTAINERS:
        return False
    parts = (*value, *value.values()) if isinstance(value, dict) else value
    return any(holds_count(part, depth - 1) for part in list(parts))


_CONTAINERS = (dict, list, tuple, set, frozenset)


def depend_on_parts(recorder: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], parts: int) -> None:
    """The trace depends on how many parts rows are split into, which Python has seen; not on how many rows there are."""
    dim = kwargs.get("dim", args[2] if len(args) > 2 else 0)
    size = args[1] if len(args) > 1 else None
    if name not in ("chunk", "split") or not isinstance(size, int) or type(dim) is not int:
        return
    x, structure = args[0], recorder.structure
    if dim % x.meta.dim() and x not in structure.values:
        return
    if x.source is None and x not in structure.values and structure.chosen_by(x, structure) is None:
        return
    rows = x.meta.shape[dim]
    count = RowCount(rows, Extent(x, dim % x.meta.dim()) if dim % x.meta.dim() else x, recorder)
    if name == "chunk" and rows >= size * size:  # so that each has as many as there must be, but for the last one
        recorder.compare_with(count, size * size - 1)
    elif name == "chunk" or not rows:
        recorder.fix_count(count)
    elif isinstance(size, RowCount):
        _ = (size * (parts - 1) < count, count <= size * parts)  # which the trace depends on from now on
    else:
        recorder.compare_with(count, size * (parts - 1))
        recorder.compare_with(count, size * parts + 1)
