"""Triton for traversals: owners, and the loops over their members."""

from __future__ import annotations

from columba.codegen.triton.combine import combination
from columba.codegen.triton.functions import Function, row_stores, rows_of, width_of, write_statements
from columba.codegen.triton.hubs import HubTiles
from columba.codegen.triton.index import flat, linear
from columba.codegen.triton.items import BlockShape, Item, Items, Writer, below, count_readers
from columba.codegen.triton.launches import GridSize, Launch, Loop, Variant, Workspace
from columba.codegen.triton.levels import RowWise
from columba.codegen.triton.loops import finish, write_loop
from columba.codegen.triton.names import TritonNames
from columba.codegen.triton.owners import Owners, hubs_of, loops_of
from columba.codegen.triton.parts import Parts, cheapest, parts_of_reshapes
from columba.codegen.triton.scalars import HALVES
from columba.codegen.triton.schedule import (
    DegreeSchedule,
    IllegalSchedule,
    MemberSchedule,
    RowSchedule,
    Schedule,
    default_hubs,
    default_members,
    default_rows,
    default_split,
    power_of_two,
)
from columba.codegen.triton.values import Row, Values, pieces_of
from columba.ir.indices import Tiles, TileStarts
from columba.ir.plan.kernels import Buffer, Store, Traversal, values_of
from columba.ir.program.ops import Cast, Reduce
from columba.ir.spaces import Space
from columba.ir.types import DType


def traversal_functions(kernel: Traversal, name: str, schedule: Schedule | None = None) -> list[Function]:
    """The functions of a traversal: one, and more where owners are cut into tiles: all of them, as the schedule may say, or hubs.

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
    schedule = _made_members(kernel, kernel.name, None).schedule
    assert schedule is not None
    return schedule


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


def member_bytes_of(kernel: Traversal) -> int:
    """Bytes that a traversal loads of each member."""
    return _made_members(kernel, kernel.name, None).member_bytes


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
        self.stores = [i for s in kernel.stores if s.buffer.type.size for i in row_stores(self.values, s, row, pieces)]
        self.width = width_of(self.stores, 1)

    def function(self, name: str) -> Function:
        schedule = self.schedule
        layout = BlockShape()
        layout.see(below(self.stores))
        writer = Writer(layout, {*self.names.arguments, "piece"}, count_readers(self.stores))
        grid = [GridSize(rows_of(self.owner), schedule.rows)]
        if schedule.pieces > 1:
            grid.append(GridSize(schedule.pieces))
            writer.lines.append("piece = tl.program_id(1)")
        write_statements(writer, self.stores)
        variant = Variant(tuple(grid), (("ROWS", schedule.rows),), schedule.warps)
        launch = Launch(name, tuple(self.names.arguments.items()), (variant,))
        return Function(name, "rows.py.jinja", launch, {"body": writer.lines})


def _variant(over: Space | Tiles | int, schedule: MemberSchedule, *, staged: bool) -> Variant:
    constants = [("OWNERS", schedule.owners), ("MEMBERS", schedule.members)]
    if staged:
        constants.append(("STAGES", schedule.stages))
    return Variant((GridSize(over, schedule.owners),), tuple(constants), schedule.warps)


def _made_members(kernel: Traversal, name: str, schedule: Schedule | None) -> _Members:
    def make(parts: Parts) -> _Members:
        return _Members(kernel, name, schedule, parts)

    made = cheapest(make, lambda made: made.roots, _choices(kernel))
    return made if schedule is not None else _Members(kernel, name, made.default, made.parts)


class _Members(Owners):
    """A traversal over the members of each owner, or of each tile of owners."""

    def __init__(self, kernel: Traversal, name: str, schedule: Schedule | None, parts: Parts) -> None:
        assert kernel.via is not None
        self.name = name
        self.schedule = self._checked(kernel, schedule)
        some = self.schedule
        self.atomic = isinstance(some, MemberSchedule) and some.atomic
        self.tiles = (
            Tiles(kernel.via, some.split, some.least) if isinstance(some, MemberSchedule) and some.split else None
        )
        self.hubs = hubs_of(kernel, some) if some and not self.tiles else None
        self.workspaces: dict[Buffer, Workspace] = {}
        self.zeroed: list[Buffer] = []
        super().__init__(kernel, self.tiles, self.hubs, parts)

    @staticmethod
    def _checked(kernel: Traversal, schedule: Schedule | None) -> MemberSchedule | DegreeSchedule | None:
        if isinstance(schedule, RowSchedule) and not loops_of(kernel):
            return MemberSchedule(schedule.rows, 1, schedule.warps)
        if not isinstance(schedule, MemberSchedule | DegreeSchedule | None):
            raise IllegalSchedule(f"traversal {kernel.name} has members; {schedule} is for another kind of kernel")
        return schedule

    @property
    def default(self) -> MemberSchedule | DegreeSchedule:
        """What suits the width of the rows."""
        width = width_of(self.roots, 2)
        if self.kernel.schedule.split:
            return default_split(width, self.least_bytes)
        if self.phases:
            return default_members(width, self.least_bytes)
        rows = default_rows(width)
        return MemberSchedule(rows.rows, 1, rows.warps)

    def _add_own(self, store: Store) -> None:
        if self.tiles is None:
            super()._add_own(store)
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
            rows = GridSize(rows_of(self.kernel.owner))
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
        """What takes owners, or tiles of them; what puts tiles together; what takes the tiles of hubs."""
        layout = BlockShape()
        layout.see(below([*self.roots, self.level.present]))
        writer = Writer(layout, {*self.names.arguments, "start", "longest"}, count_readers(self.roots))
        if self.phases:
            begin, end = writer.named(self.level.begin), writer.named(self.level.end)
            writer.lines.append(f"longest = longest_of({begin}, {end}, OWNERS)")
        for phase in range(self.phases):
            stores = [s for s in self.of_members if s.phase == phase]
            finish(writer, self.level, write_loop(writer, self.level, phase, stores, "STAGES" if self._staged else ""))
        write_statements(writer, self.own)
        return [
            Function(self.name, "rows.py.jinja", self._launch(), {"body": writer.lines}),
            *(self._combination(s) for s in self.kernel.stores if s.buffer in self.workspaces),
            *self._hub_functions(),
        ]

    def _hub_functions(self) -> list[Function]:
        if self.hubs is None:
            return []
        least = min(most for _, most in self.hubs.limits)
        schedule = default_hubs(width_of(self.roots, 2), self.least_bytes, least)
        return HubTiles(self.kernel, self.name, self.hubs, schedule, self.parts).functions()

    @property
    def _cases(self) -> list[MemberSchedule]:
        assert self.schedule is not None
        return [case for _, case in self.schedule.by_degree]

    @property
    def _staged(self) -> bool:
        """Whether loads of several steps are under way in one of the cases."""
        return self.phases > 0 and any(case.stages > 1 for case in self._cases)

    def _launch(self) -> Launch:
        owners = rows_of(self.kernel.owner)
        over = owners if self.tiles is None else self.tiles
        by_degree = None
        if isinstance(self.schedule, DegreeSchedule):
            assert self.kernel.via is not None
            by_degree = self.kernel.via.fine, owners, tuple(limit for limit, _ in self.schedule.cases)
        return Launch(
            self.name,
            tuple(self.names.arguments.items()),
            tuple(_variant(over, case, staged=self._staged) for case in self._cases),
            members_per_owner=by_degree,
            workspaces=tuple(self.workspaces.values()),
            zeroed=tuple(self.zeroed),
            loops=self._loops(),
        )

    def _loops(self) -> tuple[Loop, ...]:
        if not self.phases:
            return ()
        table = self.tiles or self.hubs
        return (Loop("tile" if self.tiles else "owner", table, "MEMBERS", self.phases),)

    def _combination(self, store: Store) -> Function:
        name = f"{self.name}_{self.names.hint(store.buffer)}_of_parts"
        assert self.tiles is not None
        starts = None if self.atomic else TileStarts(self.tiles)
        return combination(name, store.buffer, self.workspaces[store.buffer], starts, reduction_of(store).op)


def reduction_of(store: Store) -> Reduce:
    """The reduction that a store to owners that are cut is of."""
    value = store.value
    while isinstance(value, Cast):
        value = value.x
    if not isinstance(value, Reduce):
        raise IllegalSchedule(f"split: the store to {store.buffer} is not a plain reduction")
    return value
