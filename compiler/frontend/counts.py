"""What stands, while a function is traced, for numbers of rows and for graphs: they are those of each call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


class RowCount(int):
    """A number of rows. In views it stands for whatever the count is; in arithmetic it is the number, which is then guarded.

    ``of`` is what has so many: :class:`Rows`, a record, or ``(record, "numel")`` for all numbers of one.
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


def _guarded(name: str) -> Callable[..., Any]:
    plain = getattr(int, name)

    def method(self: RowCount, *args: Any) -> Any:
        if args and isinstance(args[0], RowCount) and args[0].of is self.of and name in ("__eq__", "__ne__"):
            return plain(self, *args)
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
