"""Scatter loops: C++ for traversals whose members are walked as they are stored, and added to their owners."""

from __future__ import annotations

from columba.codegen.cpp.names import CppNames
from columba.codegen.cpp.places import RowPlaces
from columba.codegen.cpp.rows import Array, Scalar
from columba.codegen.cpp.scalars import computed
from columba.codegen.cpp.slots import unknown_below
from columba.codegen.cpp.traversal import KernelText, know_views, threads_of
from columba.ir.indices import Lookup, Segments
from columba.ir.plan.groups import scattered_sums
from columba.ir.plan.in_place import starts_sum
from columba.ir.plan.kernels import Load, Store, Traversal
from columba.ir.program.ops import Degree, Reduce


def scatter_text(kernel: Traversal, names: CppNames) -> KernelText:
    """The text of such a traversal. Sums are kept where the stores write, and what is made of them is computed at the end.

    A sum that is added to what its memory holds already starts there.
    """
    assert kernel.via is not None
    places = RowPlaces(names, kernel.owner, kernel.via, as_stored=True)
    sums = scattered_sums(kernel)
    begun = {s for b, out in names.in_place.items() for s in sums if s.buffer is out and starts_sum(s, b) is not None}
    owner_of = names.index(Lookup(kernel.via))
    ahead = kernel.schedule.ahead
    return KernelText(
        "scatter.cpp.jinja",
        {
            "owners": names.count(kernel.owner),
            "rows": names.count(kernel.via.fine),
            "threads": threads_of(kernel.schedule),
            "owner_of": owner_of,
            "sums": [(names.buffer(s.buffer), r.type.size) for s, r in sums.items() if s not in begun],
            "body": _members(sums, places),
            "ahead": ahead,
            "fetch": [
                line for s, r in sums.items() for line in _fetch(names.buffer(s.buffer), r, kernel.schedule.lines)
            ],
            "finish": _finish({s: r for s, r in sums.items() if s not in begun}, places),
        },
    )


def _sum_of(store: Store, r: Reduce, places: RowPlaces) -> Array:
    """Where the sum of owner ``o`` is kept."""
    return Array(places.names.buffer(store.buffer), f"(int64_t)o * {r.type.size}", r.shape, r.dtype)


def _members(sums: dict[Store, Reduce], places: RowPlaces) -> list[str]:
    rows = places.rows()
    below = unknown_below([r.x for r in sums.values()], ())
    for v in below:
        if isinstance(v, Load):
            rows.known[v] = places.load(v)
    know_views(rows, below)
    rows.prepare([r.x for r in sums.values()])
    for store, r in sums.items():
        rows.assign(_sum_of(store, r, places), r.x, "+=")
    return rows.lines


def _fetch(buffer: str, r: Reduce, lines: int) -> list[str]:
    """Prefetches of the sum of owner ``next``."""
    size = r.type.size * r.dtype.itemsize
    return [
        f"__builtin_prefetch((const char*)({buffer} + next * {r.type.size}) + {at}, 1);"
        for at in range(0, min(size, 64 * lines), 64)
    ]


def _finish(sums: dict[Store, Reduce], places: RowPlaces) -> list[str]:
    """What is done to the row of an owner when all members have been added; a sum that is stored as it is needs nothing."""
    pending = [s for s, r in sums.items() if s.value is not r]
    if not pending:
        return []
    rows = places.rows()
    for store, r in sums.items():
        name = places.fresh("total")
        rows.declare(name, r)  # a copy, since the store may write elements in another order than it reads them
        rows.known[r] = _sum_of(store, r, places)
        rows.assign(Array(name, "0", r.shape, r.dtype), r)
        rows.known[r] = Array(name, "0", r.shape, r.dtype)
    values = unknown_below([s.value for s in pending], rows.known)
    for v in values:
        if isinstance(v, Load):
            rows.known[v] = places.load(v)
        if isinstance(v, Degree):
            segments = places.names.index(Segments(v.via))
            rows.known[v] = Scalar(f"(({computed(v.dtype)})({segments}[o + 1] - {segments}[o]))")
    know_views(rows, values)
    rows.prepare([s.value for s in pending])
    for store in pending:
        places.store(rows, store)
    return rows.lines
