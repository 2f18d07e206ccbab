"""C++ for traversals: owners, and the loops over their members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from columba.codegen.cpp.fetches import fetch_ahead, fetch_rows_ahead
from columba.codegen.cpp.names import CppNames
from columba.codegen.cpp.places import RowPlaces
from columba.codegen.cpp.reductions import Accumulator, fold_scratch
from columba.codegen.cpp.rows import Array, Rows, Scalar
from columba.codegen.cpp.scalars import computed, stored, widened
from columba.codegen.cpp.slots import Slots, unknown_below
from columba.codegen.cpp.small_rows import common_size, repeated, step_of, steps
from columba.ir.indices import Segments, Tiles
from columba.ir.plan.kernels import GemmSchedule, Load, Store, Traversal, TraversalSchedule, values_of
from columba.ir.program.ops import Degree, Lift, Reduce, Reshape, Slice, Value


@dataclass(frozen=True)
class KernelText:
    """A template and what goes into it."""

    template: str
    fields: dict[str, Any] = field(default_factory=dict)


def threads_of(schedule: TraversalSchedule | GemmSchedule) -> str:
    """The threads of a kernel, in terms of those that it is offered."""
    most = schedule.threads
    return f"(threads < {most} ? threads : {most})" if most else "threads"


def traversal_text(kernel: Traversal, names: CppNames) -> KernelText:
    """The text of a traversal's body."""
    return _RowWise(kernel, names).text() if kernel.via is None else _OverMembers(kernel, names).text()


def know_views(rows: Rows, below: Sequence[Value]) -> None:
    """Views of rows in memory whose elements lie side by side are rows in memory: they need no copy."""
    for v in below:
        if v in rows.known or not isinstance(v, (Slice, Reshape, Lift)):
            continue
        whole = rows.known.get(v.x)
        if isinstance(v, Lift) and whole is not None:
            rows.known[v] = whole
        elif isinstance(v, Reshape) and isinstance(whole, Array):
            rows.known[v] = Array(whole.base, whole.offset, v.shape, v.dtype)
        elif isinstance(v, Slice) and v.step == 1 and len(v.shape) == 1 and isinstance(whole, Array):
            offset = str(v.start) if whole.offset == "0" else f"{whole.offset} + {v.start}"
            rows.known[v] = Array(whole.base, offset, v.shape, v.dtype)


class _RowWise:
    """A traversal without members: rows one after the other."""

    def __init__(self, kernel: Traversal, names: CppNames) -> None:
        self.kernel = kernel
        self.places = RowPlaces(names, kernel.owner, None)

    def text(self) -> KernelText:
        rows = self.places.rows()
        for v in values_of(self.kernel):
            if isinstance(v, Load):
                rows.known[v] = self.places.load(v)
        know_views(rows, values_of(self.kernel))
        rows.prepare([s.value for s in self.kernel.stores])
        for store in self.kernel.stores:
            self.places.store(rows, store)
        body = [*fetch_rows_ahead(self.places, self.kernel.schedule, values_of(self.kernel)), *rows.lines]
        owners = self.places.names.count(self.kernel.owner)
        threads = threads_of(self.kernel.schedule)
        return KernelText("row_wise.cpp.jinja", {"rows": owners, "body": body, "threads": threads})


class _OverMembers:
    """A traversal over the members of each owner."""

    def __init__(self, kernel: Traversal, names: CppNames) -> None:
        assert kernel.via is not None
        self.kernel = kernel
        self.names = names
        self.via = kernel.via
        self.places = RowPlaces(names, kernel.owner, kernel.via)
        self.slots = Slots(kernel)
        self.outer = self.places.rows()
        self.accumulators: dict[Reduce, Accumulator] = {}
        self.more: list[tuple[str, str, int]] = []
        self.scratch = {
            v: Array(
                f"scratch_{n}", "(k - begin)" if v.type.size == 1 else f"(k - begin) * {v.type.size}", v.shape, v.dtype
            )
            for n, v in enumerate(self.slots.scratch)
        }

    def text(self) -> KernelText:
        segments = self.names.index(Segments(self.via))
        for v in self.slots.values:
            if isinstance(v, Load) and v.space is not self.slots.member:
                self.outer.known[v] = self._own_row(v)
            if isinstance(v, Degree):
                self.outer.known[v] = Scalar(f"(({computed(v.dtype)})({segments}[o + 1] - {segments}[o]))")
        know_views(self.outer, self.slots.values)
        slots = self.slots.all()
        for slot in slots:
            self._owner_values(slot)
            self._slot(slot)
        own = [s for s in self.kernel.stores if s not in self.slots.stores]
        common = {
            "owners": self.names.count(self.kernel.owner),
            "segments": segments,
            "members": self.names.count(self.via.fine),
            "threads": threads_of(self.kernel.schedule),
            "scratch": [
                *(
                    (a.base, computed(v.dtype), v.type.size * widened(v.dtype).itemsize)
                    for v, a in self.scratch.items()
                ),
                *self.more,
            ],
        }
        if self.kernel.schedule.split:
            return self._cut(own, common)
        self.outer.prepare([s.value for s in own])
        for store in own:
            self.places.store(self.outer, store)
        return KernelText(
            "traversal.cpp.jinja",
            {**common, "rows": common["owners"], "body": self.outer.lines, "pieces": self.kernel.schedule.pieces},
        )

    def _own_row(self, v: Load) -> Array:
        """A row that is read for the owner: where it is found through a lookup, that is done once."""
        place = self.places.load(v)
        if v.via is None or v.type.size == 1 or place.offset == "0":
            return place
        name = self.places.fresh("own")
        self.outer.lines.append(f"const {stored(v.dtype)}* __restrict {name} = {place.base} + {place.offset};")
        return Array(name, "0", v.shape, v.dtype)

    def _owner_values(self, slot: int) -> None:
        """Owner values that members read from this slot on."""
        for v in self.slots.values:
            if isinstance(v, Lift) and self.slots.of[v.x] <= slot:
                self.outer.materialize(v.x)

    def _slot(self, slot: int) -> None:
        """The loop over members of one slot, and the reductions that it feeds."""
        wide_folds = self.slots.folds(slot, small=False)
        for r in wide_folds:
            self.accumulators[r] = Accumulator(r, self.places.fresh("total"))
            self.accumulators[r].start(self.outer)
        if not self._small_rows(slot):
            self._loop(slot, wide_folds)
        for r in wide_folds:
            self.accumulators[r].finish(self.outer)
        for r in self.slots.folds(slot, small=True):
            fold_scratch(self.outer, r, self.scratch[r.x], self.places.fresh(r.op))

    def _more_scratch(self, v: Value, name: str) -> Array:
        """A scratch array for a row of ``v`` a member, beside those of the slots."""
        name = self.places.fresh(name)
        self.more.append((name, computed(v.dtype), v.type.size * widened(v.dtype).itemsize))
        offset = "(k - begin)" if v.type.size == 1 else f"(k - begin) * {v.type.size}"
        return Array(name, offset, v.shape, v.dtype)

    def _small_rows(self, slot: int) -> bool:
        """Computes a small slot number by number, where that can be done."""
        kept = self.slots.kept_in(slot)
        stores = self.slots.stores_in(slot)
        roots = [*kept, *(s.value for s in stores)]
        if slot % 2 == 1 or not roots:
            return False
        before = {v: a for v, a in self.scratch.items() if self.slots.of[v] < slot}
        numbers = self.outer.child()
        numbers.known = {v: a for v, a in numbers.known.items() if v.space is not self.slots.member}
        numbers.known.update({v: Array(a.base, "j", v.shape, v.dtype) for v, a in before.items()})
        below = unknown_below(roots, numbers.known)
        size = common_size(roots, below, self.slots.member)
        step = None if size is None else step_of(size)
        if size is None or step is None or any(c.type.size != size for v in below for c in v.children if c in before):
            return False
        gather: list[str] = []
        for v in below:
            if isinstance(v, Lift):
                numbers.known[v] = repeated(self.outer, v.x, step, self.places.fresh("own"))
            elif isinstance(v, Load) and v.space is self.slots.member:
                side = self.scratch.get(v) or self._more_scratch(v, "side")
                row = self.places.load(v)
                gather.append(f"for (int i = 0; i < {size}; ++i) {side.place('i')} = {row.place('i')};")
                numbers.known[v] = Array(side.base, "j", v.shape, v.dtype)
        if gather:
            self._over_members([*self._ahead(below, ()), *self._own_number(below, ()), *gather])
        statements, scatter = [], []
        for v in dict.fromkeys(roots):
            if v not in numbers.known or isinstance(v, Lift):  # an owner's value has no place among its members yet
                place = self.scratch.get(v) or self._more_scratch(v, v.op_name)
                statements.append(f"{place.base}[j + i] = {numbers.flat_expression(v, 'i')};")
                numbers.known[v] = Array(place.base, "j", v.shape, v.dtype)
        for store in stores:
            source = numbers.known[store.value]
            assert isinstance(source, Array)
            target = self.places.target(store)
            scatter.append(
                f"for (int i = 0; i < {size}; ++i) {target.place('i')} = {source.base}[(k - begin) * {size} + i];"
            )
        self.outer.lines += steps(size, statements) if statements else []
        if scatter:
            self._over_members([*self._ahead((), stores), *self._own_number((), stores), *scatter])
        return True

    def _over_members(self, lines: Sequence[str], *pragma: str) -> None:
        self.outer.lines += [*pragma, "for (int64_t k = begin; k < end; ++k) {", *(f"  {x}" for x in lines), "}"]

    def _own_number(self, below: Sequence[Value], stores: Sequence[Store]) -> list[str]:
        """The member's own number, for a loop that needs it."""
        needed = any(map(self.places.reads_own_number, below)) or any(s.buffer.order is None for s in stores)
        return self.places.own_number() if needed else []

    def _ahead(self, below: Sequence[Value], stores: Sequence[Store]) -> list[str]:
        return fetch_ahead(self.places, self.kernel.schedule, below, stores)

    def _loop(self, slot: int, wide_folds: list[Reduce]) -> None:
        """One loop in which a member is worked on after the other."""
        inner = self.outer.child()
        inner.known.update({v: a for v, a in self.scratch.items() if self.slots.of[v] < slot})
        kept = self.slots.kept_in(slot)
        stores = self.slots.stores_in(slot)
        wide_roots = [*(r.x for r in wide_folds), *(s.value for s in stores)]
        below = unknown_below([*kept, *wide_roots], inner.known)
        head = self._know_loads(inner, below, pointers=slot % 2 == 1)
        head = [*self._own_number(below, stores), *head]
        inner.prepare([*kept, *wide_roots])
        for v in kept:
            if v.type.size == 1:
                inner.materialize(v)
                inner.lines.append(f"{self.scratch[v].place('0')} = {inner.known[v].flat('0')};")
            else:
                inner.assign(self.scratch[v], v)
                inner.known[v] = self.scratch[v]
        for r in wide_folds:
            self.accumulators[r].fold(inner)
        for store in stores:
            self.places.store(inner, store)
        if not inner.lines:
            return
        lines = [*head, *inner.lines]
        if slot % 2 == 0 and not stores and not any("for (" in line for line in lines):
            self._over_members(lines, "#pragma omp simd")  # without inner loops it vectorizes over members
        else:
            self._over_members([*self._ahead(below, stores), *lines])

    def _know_loads(self, inner: Rows, below: list[Value], *, pointers: bool) -> list[str]:
        """Makes the members' loads known: wide rows through a pointer."""
        lines: list[str] = []
        for v in below:
            if not isinstance(v, Load) or v.space is not self.slots.member:
                continue
            place = self.places.load(v)
            inner.known[v] = place
            if not pointers or self.slots.is_small(v):
                continue
            name = self.places.fresh("row")
            lines.append(f"const {stored(v.dtype)}* __restrict {name} = {place.base} + {place.offset};")
            inner.known[v] = Array(name, "0", v.shape, v.dtype)
        know_views(inner, below)
        return lines

    def _cut(self, own: list[Store], common: dict[str, Any]) -> KernelText:
        """Owners cut into tiles: each leaves partial results, which are combined in order."""
        tiles = Tiles(self.via, self.kernel.schedule.split)
        offset, parts = 0, []
        for store in own:
            r = store.value
            assert isinstance(r, Reduce)
            t = r.type
            parts.append((self.names.buffer(store.buffer), computed(t.dtype), t.size, offset, r.op))
            partial = Array(f"(({computed(t.dtype)}*)(partial + {offset}))", "0", t.shape, t.dtype)
            self.outer.assign(partial, r)
            offset += -(-t.size * widened(t.dtype).itemsize // 64) * 64
        fields = {
            "tiles_array": self.names.index(tiles),
            "tile_count": self.names.tiles(tiles),
            "parts": parts,
            "partial_bytes": offset,
        }
        return KernelText("cut_traversal.cpp.jinja", {**common, **fields, "body": self.outer.lines})
