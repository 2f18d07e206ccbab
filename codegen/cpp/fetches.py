"""Prefetching: C++ that fetches rows before they are read or written: those of the member that comes some positions later.

An owner has few members as a rule, and each leads to rows that may stand anywhere. Without this a loop waits for memory most of its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from columba.codegen.cpp.places import RowPlaces
from columba.codegen.cpp.rows import Array
from columba.ir.plan.kernels import GemmSchedule, Load, Store, TraversalSchedule
from columba.ir.program.ops import Slice, Value
from columba.ir.spaces import Space

LINE = 64
"""Bytes that memory hands over at a time."""


def fetch_ahead(
    places: RowPlaces, schedule: TraversalSchedule | GemmSchedule, below: Sequence[Value], stores: Iterable[Store]
) -> list[str]:
    """Statements for the loop over members, or over a product's rows, that computes ``below`` and writes ``stores``; none where rows follow
    one another."""
    if not schedule.ahead or places.member is None:
        return []
    lines: list[str] = []
    for v in below:
        if isinstance(v, Load) and v.space is places.member and _is_gathered(v, places):
            lines += _fetch_parts(v, below, places.load(v, "ahead"), schedule)
    for store in stores:
        if not places.follows(store.buffer):
            lines += _fetch(places.target(store, "ahead"), 0, store.buffer.type.size, schedule.lines, write=True)
    return _ahead_of("k", places.member, places, schedule, lines)


def fetch_rows_ahead(places: RowPlaces, schedule: TraversalSchedule, below: Sequence[Value]) -> list[str]:
    """The same for the loop over the owners of a traversal without members, which find other rows through lookups."""
    if not schedule.ahead or places.owner is None:
        return []
    lines: list[str] = []
    for v in below:
        if isinstance(v, Load) and v.via is not None and v.buffer.type.space is not Space.ONE:
            lines += _fetch_parts(v, below, places.load(v, owner="ahead"), schedule)
    return _ahead_of("o", places.owner, places, schedule, lines)


def _ahead_of(
    row: str, space: Space, places: RowPlaces, schedule: TraversalSchedule | GemmSchedule, lines: list[str]
) -> list[str]:
    """Statements that fetch, after the one that says for which row: the last rows fetch their own."""
    if not lines:
        return []
    last = places.names.count(space)
    return [f"const int64_t ahead = {row} + {schedule.ahead} < {last} ? {row} + {schedule.ahead} : {row};", *lines]


def _is_gathered(v: Load, places: RowPlaces) -> bool:
    """Whether the rows that members read are somewhere in memory, not one after the other."""
    return v.buffer.type.space is not Space.ONE and (v.via is not None or not places.follows(v.buffer))


def _fetch_parts(v: Load, below: Sequence[Value], row: Array, schedule: TraversalSchedule | GemmSchedule) -> list[str]:
    return [text for first, size in _parts_read(v, below) for text in _fetch(row, first, size, schedule.lines)]


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
