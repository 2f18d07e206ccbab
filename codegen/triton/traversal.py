"""Triton for traversals: owners, and the loops over their members."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from columba.codegen.triton.index import Digit, flat, linear
from columba.codegen.triton.items import (
    Axis,
    BlockShape,
    Item,
    Items,
    Text,
    Writer,
    below,
    below_unknown,
    count_readers,
)
from columba.codegen.triton.launches import GridSize, Launch, Variant, Workspace
from columba.codegen.triton.levels import MEMBER, OWNER, RowWise, WithMembers
from columba.codegen.triton.names import TritonNames
from columba.codegen.triton.parts import Parts, cheapest, parts_of_reshapes
from columba.codegen.triton.scalars import HALVES, computed
from columba.codegen.triton.schedule import (
    DegreeSchedule,
    IllegalSchedule,
    MemberSchedule,
    RowSchedule,
    Schedule,
    clamp,
    default_members,
    default_rows,
    default_split,
    power_of_two,
)
from columba.codegen.triton.values import Row, Values, fold_of, pieces_of, start_of
from columba.ir.indices import Tiles
from columba.ir.plan.kernels import Buffer, Store, Traversal, values_of
from columba.ir.program.ops import Cast, Reduce
from columba.ir.spaces import WEIGHT_SPACES, Space
from columba.ir.types import DType


@dataclass(frozen=True)
class Function:
    """One function of the module: a template, what goes into it, and how it is launched."""

    name: str
    template: str
    launch: Launch
    fields: dict[str, Any] = field(default_factory=dict)


def traversal_functions(kernel: Traversal, name: str, schedule: Schedule | None = None) -> list[Function]:
    """The functions of a traversal: one, or two where owners are cut into tiles, as ``kernel.schedule.split`` says.

    Without a ``schedule``, the blocks that suit the width of its rows.

    Raises:
        IllegalSchedule: a traversal of this kind cannot have this schedule.
    """
    if all(s.buffer.type.size == 0 for s in kernel.stores):
        return []
    if kernel.via is None:
        if not isinstance(schedule, RowSchedule | None):
            raise IllegalSchedule(f"traversal {kernel.name} has no members; it takes a RowSchedule")
        return [_made_rows(kernel, schedule).function(name)]
    made = _made_members(kernel, name, schedule)
    return made.functions()


def schedule_of_traversal(kernel: Traversal) -> Schedule:
    """How a traversal runs where nobody says."""
    if kernel.via is None:
        return _made_rows(kernel, None).schedule
    return _made_members(kernel, kernel.name, None).schedule


def width_of_traversal(kernel: Traversal) -> int:
    """The lanes of the widest block of a traversal, beside its rows."""
    if all(s.buffer.type.size == 0 for s in kernel.stores):
        return 1
    if kernel.via is None:
        return _made_rows(kernel, RowSchedule(1)).width
    return width_of(_made_members(kernel, kernel.name, None).roots, 2)


def least_bytes_of(kernel: Traversal) -> int:
    """Bytes of the narrowest rows of features that a traversal loads of members."""
    return _made_members(kernel, kernel.name, None).least_bytes


def width_of(roots: Iterable[Item], rows: int) -> int:
    """The lanes of the widest block beside its rows."""
    widest = 1
    for item in below(roots):
        lanes = 1
        for axis in item.axes:
            if axis.dim >= rows:
                lanes *= int(axis.block)
        widest = max(widest, lanes)
    return widest


def _choices(kernel: Traversal) -> list[Parts]:
    found = parts_of_reshapes(values_of(kernel))
    return [{}, found] if found else [{}]


def _made_rows(kernel: Traversal, schedule: RowSchedule | None) -> _Rows:
    def make(schedule: RowSchedule) -> _Rows:
        return cheapest(lambda parts: _Rows(kernel, schedule, parts), lambda made: made.stores, _choices(kernel))

    if schedule is not None:
        return make(schedule)
    whole = make(RowSchedule(1))
    schedule = default_rows(whole.width, most_pieces(kernel))
    if schedule.pieces == 1:
        whole.schedule = schedule
        return whole
    return make(schedule)


def most_pieces(kernel: Traversal) -> int:
    """Into how many pieces the rows of a traversal without members can be cut: along a dimension that comes first in all stores."""
    items = Items()
    pieces = [v for s in kernel.stores if s.buffer.type.size for v, _ in pieces_of(items, s.value)]
    first = {v.shape[0] if v.shape else 1 for v in pieces}
    return power_of_two(first.pop()) if len(first) == 1 else 1


class _Rows:
    """A traversal without members."""

    def __init__(self, kernel: Traversal, schedule: RowSchedule, parts: Parts) -> None:
        self.owner = kernel.owner
        self.schedule = schedule
        if schedule.pieces > most_pieces(kernel):
            raise IllegalSchedule(f"traversal {kernel.name}: rows cannot be cut into {schedule.pieces} pieces")
        items, self.names = Items(), TritonNames()
        level = RowWise(items, self.names, kernel.owner)
        self.values = Values(items, self.names, 1, level, parts)
        row, pieces = level.rows.position, schedule.pieces
        self.stores = [i for s in kernel.stores if s.buffer.type.size for i in _stores(self.values, s, row, pieces)]
        self.width = width_of(self.stores, 1)

    def function(self, name: str) -> Function:
        schedule = self.schedule
        layout = BlockShape()
        layout.see(below(self.stores))
        writer = Writer(layout, {*self.names.arguments, "piece"}, count_readers(self.stores))
        grid = [GridSize(_rows_of(self.owner), schedule.rows)]
        if schedule.pieces > 1:
            grid.append(GridSize(schedule.pieces))
            writer.lines.append("piece = tl.program_id(1)")
        write_statements(writer, self.stores)
        variant = Variant(tuple(grid), (("ROWS", schedule.rows),), schedule.warps)
        launch = Launch(name, tuple(self.names.arguments.items()), (variant,))
        return Function(name, "rows.py.jinja", launch, {"body": writer.lines})


def _rows_of(space: Space) -> Space | int:
    return 1 if space is Space.ONE else space


def _stores(values: Values, store: Store, row: Item, pieces: int = 1) -> Iterator[Item]:
    """The statements of a store to row ``row``, or to a piece of it."""
    for value, whole in pieces_of(values.items, store.value):
        index = values.iteration(value.shape)
        if pieces > 1:
            n = value.shape[0]
            block = power_of_two(n) // pieces
            axis = Axis(values.rows, str(block), None if n == block * pieces else n, f"piece * {block}")
            index = ((Digit(values.lanes(axis), n),), *index[1:])
        at = linear(values.items, flat(whole(index)))
        place = values.pointer(values.names.buffer(store.buffer), row, store.buffer.type.size, at)
        yield values.store(Store(Buffer(store.buffer.name, value.type, store.buffer.role), value), index, place)


def write_statements(writer: Writer, statements: list[Item]) -> None:
    """Statements, with what they need before them."""
    for statement in statements:
        text = str(writer.read(statement))
        writer.lines.append(text)


SECTOR = 32
"""Bytes that a GPU's memory gives at once."""


def _variant(over: Space | Tiles | int, schedule: MemberSchedule) -> Variant:
    constants = (("OWNERS", schedule.owners), ("MEMBERS", schedule.members))
    return Variant((GridSize(over, schedule.owners),), constants, schedule.warps)


def _made_members(kernel: Traversal, name: str, schedule: Schedule | None) -> _Members:
    def make(parts: Parts) -> _Members:
        return _Members(kernel, name, schedule, parts)

    return cheapest(make, lambda made: made.roots, _choices(kernel))


class _Members:
    """A traversal over the members of each owner, or of each tile of owners."""

    def __init__(self, kernel: Traversal, name: str, schedule: Schedule | None, parts: Parts) -> None:
        assert kernel.via is not None
        self.kernel = kernel
        self.name = name
        self.atomic = isinstance(schedule, MemberSchedule) and schedule.atomic
        self.tiles = Tiles(kernel.via, kernel.schedule.split) if kernel.schedule.split else None
        self.items, self.names = Items(), TritonNames()
        self.level = WithMembers(self.items, self.names, kernel.via, self.tiles)
        self.values = Values(self.items, self.names, 2, self.level, parts)
        self.level.values = self.values
        self.own: list[Item] = []
        self.of_members: list[Item] = []
        self.workspaces: dict[Buffer, Workspace] = {}
        self.zeroed: list[Buffer] = []
        for store in kernel.stores:
            if store.buffer.type.size:
                self._add(store)
        self.schedule = self._scheduled(schedule)

    @property
    def roots(self) -> list[Item]:
        return [*self.own, *self.of_members]

    @property
    def phases(self) -> int:
        """Loops over the members."""
        return max([f.phase for f in self.level.folds] + [s.phase + 1 for s in self.of_members] + [0])

    @property
    def least_bytes(self) -> int:
        """Bytes of the narrowest rows of features that are loaded of members. What is less than a sector is a handful of scalars."""
        found = [n for item, n in self.values.row_bytes.items() if MEMBER in item.axes and n >= SECTOR]
        return min(found, default=SECTOR)

    def _scheduled(self, schedule: Schedule | None) -> MemberSchedule | DegreeSchedule:
        if isinstance(schedule, RowSchedule) and not self.phases:
            schedule = MemberSchedule(schedule.rows, 1, schedule.warps)
        if schedule is None:
            width = width_of(self.roots, 2)
            if self.tiles is not None:
                return default_split(width, self.least_bytes, self.tiles.rows)
            if self.phases:
                return default_members(width, self.least_bytes)
            rows = default_rows(width)
            return MemberSchedule(rows.rows, 1, rows.warps)
        if not isinstance(schedule, MemberSchedule | DegreeSchedule):
            raise IllegalSchedule(f"traversal {self.kernel.name} has members; {schedule} is for another kind of kernel")
        return schedule

    def _add(self, store: Store) -> None:
        assert self.kernel.via is not None
        if store.value.space is self.kernel.via.fine:
            self.of_members += _stores(self.values, store, self.level.number(store.value.space))
        elif self.tiles is None:
            self.own += _stores(self.values, store, self.level.owners.position)
        elif not self.atomic:
            self.own.append(self._partial(store))
        else:
            self.own.append(self._added(store))

    def _partial(self, store: Store) -> Item:
        """A tile's part of a reduction goes to a workspace."""
        assert self.tiles is not None
        row = self.level.outer
        workspace = self._workspace(store, GridSize(self.tiles))
        place, value, mask = self._reduced(store, self.names.workspace(workspace), row)
        return self.items("tl.store({0}, {1}, mask={2})", place, value, mask)

    def _added(self, store: Store) -> Item:
        """A tile's part of a sum is added to the owner's, in the buffer itself or, if that has 16 bits, in a workspace."""
        if reduction_of(store).op != "sum":
            raise IllegalSchedule(f"traversal {self.kernel.name}: only sums are added by atomic operations")
        if store.buffer.type.dtype in HALVES:
            rows = GridSize(_rows_of(self.kernel.owner))
            pointer = self.names.workspace(self._workspace(store, rows, zeroed=True))
        else:
            pointer = self.names.buffer(store.buffer)
            self.zeroed.append(store.buffer)
        place, value, mask = self._reduced(store, pointer, self.level.owners)
        return self.items('tl.atomic_add({0}, {1}, mask={2}, sem="relaxed")', place, value, mask)

    def _workspace(self, store: Store, rows: GridSize, *, zeroed: bool = False) -> Workspace:
        t = store.buffer.type
        dtype = DType.F32 if t.dtype in HALVES else t.dtype
        made = self.workspaces[store.buffer] = Workspace(f"{store.buffer.name}_parts", rows, t.size, dtype, zeroed)
        return made

    def _reduced(self, store: Store, pointer: str, row: Row) -> tuple[Item, Item, Item]:
        """Where a reduction goes, what it is, and for which lanes."""
        t = store.buffer.type
        index = self.values.iteration(t.shape)
        place = self.values.pointer(pointer, row.position, t.size, linear(self.items, flat(index)))
        value = self.values.value(reduction_of(store), index)
        assert row.valid is not None
        mask = self.items.all_of([row.valid, *self.values.masks(place.axes)])
        assert mask is not None
        return place, value, mask

    def functions(self) -> list[Function]:
        layout = BlockShape()
        layout.see(below([*self.roots, self.level.present]))
        writer = Writer(layout, {*self.names.arguments, "start", "longest"}, count_readers(self.roots))
        if self.phases:
            begin, end = writer.named(self.level.begin), writer.named(self.level.end)
            writer.lines.append(f"longest = longest_of({begin}, {end}, OWNERS)")
        for phase in range(self.phases):
            self._loop(writer, phase)
        write_statements(writer, self.own)
        return [
            Function(self.name, "rows.py.jinja", self._launch(), {"body": writer.lines}),
            *(self._combination(s) for s in self.kernel.stores if s.buffer in self.workspaces),
        ]

    def _launch(self) -> Launch:
        assert self.kernel.via is not None
        owners = _rows_of(self.kernel.owner)
        over = owners if self.tiles is None else self.tiles
        if isinstance(self.schedule, DegreeSchedule):
            schedules = [case for _, case in self.schedule.cases]
            by_degree = self.kernel.via.fine, owners, self.schedule.limits
        else:
            schedules, by_degree = [self.schedule], None
        return Launch(
            self.name,
            tuple(self.names.arguments.items()),
            tuple(_variant(over, s) for s in schedules),
            members_per_owner=by_degree,
            workspaces=tuple(self.workspaces.values()),
            zeroed=tuple(self.zeroed),
        )

    def _loop(self, writer: Writer, phase: int) -> None:
        """One loop over the members: what it folds, and what it stores."""
        folds = [f for f in self.level.folds if f.phase == phase + 1]
        stores = [s for s in self.of_members if s.phase == phase]
        roots = [*(f.args[0] for f in folds), *(a for s in stores for a in s.args)]
        for root in roots:
            for item in below_unknown(root, writer.known):
                if MEMBER not in item.axes and (item.name or item.args):
                    writer.write([item])
        accumulators: dict[Item, _Accumulator] = {}
        for f in folds:  # a weighted sum comes after the maximum that its weights are below
            of = self.level.weighted.get(f)
            if of is not None:
                accumulators[of].weighs = True
            accumulators[f] = _Accumulator(f, self.level.folds[f], writer, None if of is None else accumulators[of])
        for a in accumulators.values():
            writer.lines += a.start()
        inner = writer.inner()
        for a in accumulators.values():
            inner.lines += a.fold(inner)
        write_statements(inner, stores)
        writer.lines.append(f"# {self._loop_comment(accumulators.values(), stores)}")
        writer.lines += ["for start in range(0, longest, MEMBERS):", *(f"    {line}" for line in inner.lines)]
        some = Text(f"{writer.known[self.level.end]} > {writer.known[self.level.begin]}")
        for a in accumulators.values():
            writer.lines += a.finish(some)
            writer.known[a.item] = Text(a.name)

    def _loop_comment(self, accumulators: Iterable[_Accumulator], stores: list[Item]) -> str:
        """What a loop is for."""
        assert self.kernel.via is not None
        done = list(dict.fromkeys(a.what for a in accumulators)) + (["what each member stores"] if stores else [])
        return f"Over the rows of {self.kernel.via.fine}, MEMBERS of each owner at a time: {', '.join(done)}."

    def _combination(self, store: Store) -> Function:
        name = f"{self.name}_{self.names.hint(store.buffer)}_of_parts"
        return combination(name, store.buffer, self.workspaces[store.buffer], self.tiles, reduction_of(store).op)


def reduction_of(store: Store) -> Reduce:
    """The reduction that a store to owners that are cut is of."""
    value = store.value
    while isinstance(value, Cast):
        value = value.x
    if not isinstance(value, Reduce):
        raise IllegalSchedule(f"split: the store to {store.buffer} is not a plain reduction")
    return value


class _Accumulator:
    """A reduction of members in the making: each lane folds its own members, and the lanes are put together after the loop.

    ``below``: the members are weighted by exponentials of logits less their maximum, which is in the making in the same loop and
    ``weighs``. The sum is kept relative to the largest logit so far, and scaled down whenever there is a larger one.
    """

    def __init__(self, item: Item, r: Reduce, writer: Writer, below: _Accumulator | None = None) -> None:
        self.item = item
        self.r = r
        self.writer = writer
        self.below = below
        self.name = writer.fresh({"sum": "total", "max": "largest", "min": "smallest"}.get(r.op, r.op))
        self.weighs = False
        self.scale = self.weight = self.rescale = ""

    @property
    def what(self) -> str:
        if self.below is not None:
            weighted = "of products with" if len(self.item.args) > 1 else "of"
            return f"the sum {weighted} an online softmax's exponentials"
        return f"their {self.r.op}"

    def start(self) -> list[str]:
        axes = frozenset({OWNER, MEMBER}).union(*(a.axes for a in self.item.args))
        shape, kind = self.writer.layout.shape(axes), computed(self.r.dtype)
        return [f"{self.name} = tl.full({shape}, {start_of(self.r.op)}, {kind})"]

    def fold(self, inner: Writer) -> list[str]:
        if self.below is not None:
            *value, _ = self.item.args
            more = "".join(f" * {inner.read(v):a}" for v in value)
            return [
                "# What is summed so far shrinks where there is a new largest logit.",
                f"{self.name} = {self.name} * {self.below.scale} + {self.below.weight}{more}",
            ]
        if self.weighs:
            return self._fold_online(inner)
        x = inner.read(self.item.args[0])
        if self.r.op == "sum":
            return [f"{self.name} += {x}"]
        return [f"{self.name} = tl.{self.r.op}imum({self.name}, {x}, {NAN})"]

    def _fold_online(self, inner: Writer) -> list[str]:
        x = inner.named(self.item.args[0])
        top, base = inner.fresh("top"), inner.fresh("base")
        self.scale, self.weight = inner.fresh("scale"), inner.fresh("weight")
        return [
            f"{top} = tl.maximum({self.name}, {x}, {NAN})",
            f"{base} = tl.where({top} == -float('inf'), 0, {top})",
            f"{self.scale} = tl.exp({self.name} - {base})",
            f"{self.weight} = tl.exp({x} - {base})",
            f"{self.name} = {top}",
        ]

    def finish(self, some: str) -> list[str]:
        """The lanes put together; an owner without members gets 0."""
        if self.below is not None:
            return [f"{self.name} = sum_along({self.name} * {self.below.rescale}, 1)"]
        if self.r.op == "sum":
            return [f"{self.name} = sum_along({self.name}, 1)"]
        if not self.weighs:
            return [f"{self.name} = tl.where({some}, {fold_of(self.r.op)}({self.name}, 1), 0)"]
        top = self.writer.fresh("top")
        self.rescale = self.writer.fresh("rescale")
        return [
            f"{top} = tl.where({some}, max_along({self.name}, 1), 0)",
            f"{self.rescale} = tl.exp({self.name} - {top})",
            f"{self.name} = {top}",
        ]


NAN = "propagate_nan=tl.PropagateNan.ALL"


def combination(name: str, out: Buffer, parts: Workspace, tiles: Tiles | None, op: str) -> Function:
    """A function that combines the parts of each owner in the order of its tiles.

    Without a table of tiles all parts are one owner's, and where a workspace has a row for each owner that row is its only part.
    """
    names = TritonNames()
    size = out.type.size
    lanes = min(1024, max(32, power_of_two(size)))
    has_many = out.type.space in WEIGHT_SPACES and not parts.zeroed
    at_once = clamp(8192 // lanes, 1, 32) if has_many else 1
    fields = {
        "parts": names.workspace(parts),
        "out": names.buffer(out),
        "first": "first_tile({0}, {1}, owner)",
        "last": "first_tile({0}, {1}, owner + 1)",
        "size": size,
        "op": op,
        "kind": computed(parts.dtype),
        "start": start_of(op),
    }
    if parts.zeroed:
        fields |= {"first": "owner", "last": "owner + 1"}
    elif tiles is None:
        assert isinstance(parts.tiles.of, Space)
        fields |= {
            "first": "owner * 0",
            "last": f"({names.count(parts.tiles.of)} + {parts.tiles.by - 1}) // {parts.tiles.by}",
        }
    else:
        table = names.array(tiles), names.tiles(tiles)
        fields |= {key: str(fields[key]).format(*table) for key in ("first", "last")}
    grid = (GridSize(_rows_of(out.type.space)), GridSize(size, lanes))
    constants = (("PARTS", at_once), ("LANES", lanes))
    variant = Variant(grid, constants, clamp(at_once * lanes // 256, 1, 8))
    launch = Launch(name, tuple(names.arguments.items()), (variant,))
    return Function(name, "combine.py.jinja", launch, fields)
