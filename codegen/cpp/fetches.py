"""Prefetching: C++ that fetches rows before they are read or written: those of the member that comes some positions later.

An owner has few members as a rule, and each leads to rows that may stand anywhere. Without this a loop waits for memory most of its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from columba.codegen.cpp.places import RowPlaces
from columba.codegen.cpp.rows import Array
from columba.ir.plan.kernels import Load, Store, TraversalSchedule
from columba.ir.program.ops import Slice, Value
from columba.ir.spaces import Space

LINE = 64
"""Bytes that memory hands over at a time."""


def fetch_ahead(
    places: RowPlaces, schedule: TraversalSchedule, below: Sequence[Value], stores: Iterable[Store]
) -> list[str]:
    """Statements for the loop over members that computes ``below`` and writes ``stores``; none where rows follow one another."""
    if not schedule.ahead or places.member is None:
        return []
    lines: list[str] = []
    for v in below:
        if _is_gathered(v, places):
            assert isinstance(v, Load)
            row = places.load(v, "ahead")
            for first, size in _parts_read(v, below):
                lines += _fetch(row, first, size, schedule.lines)
    for store in stores:
        if not places.follows(store.buffer):
            lines += _fetch(places.target(store, "ahead"), 0, store.buffer.type.size, schedule.lines, write=True)
    if not lines:
        return []
    members = places.names.count(places.member)
    return [f"const int64_t ahead = k + {schedule.ahead} < {members} ? k + {schedule.ahead} : k;", *lines]


def _is_gathered(v: Value, places: RowPlaces) -> bool:
    """Whether the rows that members read are somewhere in memory, not one after the other."""
    if not isinstance(v, Load) or v.space is not places.member or v.buffer.type.space is Space.ONE:
        return False
    return v.via is not None or not places.follows(v.buffer)


def _parts_read(v: Load, below: Sequence[Value]) -> list[tuple[int, int]]:
    """First element and size of what is read of a row: its slices, or all of it."""
    readers = [u for u in below if any(c is v for c in u.children)]
    if readers and len(v.shape) == 1 and all(isinstance(u, Slice) for u in readers):
        return sorted({(u.start, u.stop - u.start) for u in readers if isinstance(u, Slice)})
    return [(0, v.type.size)]


def _fetch(row: Array, first: int, size: int, most: int, *, write: bool = False) -> list[str]:
    """Fetches ``size`` elements of a row from ``first`` on, but at most so many lines of memory."""
    start, length = first * row.dtype.itemsize, min(LINE * most, size * row.dtype.itemsize)
    intent = ", 1" if write else ""
    return [
        f"__builtin_prefetch((const char*)({row.base} + {row.offset}) + {at}{intent});"
        for at in range(start, start + length, LINE)
    ]
