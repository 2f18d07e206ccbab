"""Triton for traversals: owners, and the loops over their members."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from columba.codegen.triton.index import flat, linear
from columba.codegen.triton.items import Item, Items, Layout, Text, Writer, below, below_unknown, count_readers
from columba.codegen.triton.launches import GridSize, Launch, Variant, Workspace
from columba.codegen.triton.levels import MEMBER, OWNER, RowWise, WithMembers
from columba.codegen.triton.names import Names
from columba.codegen.triton.scalars import computed
from columba.codegen.triton.schedule import TraversalBlocks, member_blocks, row_blocks, tile_blocks
from columba.codegen.triton.values import Values, fold_of, start_of, stored_shape
from columba.ir.indices import Tiles
from columba.ir.interop.ops import Reduce
from columba.ir.intraop.kernels import Buffer, Store, Traversal
from columba.ir.spaces import Space
from columba.ir.types import DType


@dataclass(frozen=True)
class Function:
    """One function of the module: a template, what goes into it, and how it is launched."""

    name: str
    template: str
    launch: Launch
    fields: dict[str, Any] = field(default_factory=dict)


def traversal_functions(kernel: Traversal, name: str) -> list[Function]:
    """The functions of a traversal: one, or two where owners are cut into tiles."""
    if all(s.buffer.type.size == 0 for s in kernel.stores):
        return []
    return [_row_wise(kernel, name)] if kernel.via is None else _over_members(kernel, name)


def width_of(items: Items, layout: Layout, rows: int) -> int:
    """The lanes of the widest block beside its rows."""
    widest = 1
    for item in items.made.values():
        lanes = 1
        for axis in item.axes:
            if axis.dim >= rows:
                lanes *= int(axis.block)
        widest = max(widest, lanes)
    return widest


def _row_wise(kernel: Traversal, name: str) -> Function:
    items, names = Items(), Names()
    level = RowWise(items, names, kernel.owner)
    values = Values(items, names, 1, level)
    stores = [_store(values, s, level.rows.position) for s in kernel.stores if s.buffer.type.size]
    layout = Layout()
    layout.see(below(stores))
    writer = Writer(layout, set(names.arguments), count_readers(stores))
    write_statements(writer, stores)
    blocks = row_blocks(width_of(items, layout, 1))
    grid = (GridSize(_rows_of(kernel.owner), blocks.owners),)
    variant = Variant(grid, (("ROWS", blocks.owners),), blocks.warps, blocks.stages)
    launch = Launch(name, tuple(names.arguments.items()), (variant,))
    return Function(name, "rows.py.jinja", launch, {"body": writer.lines})


def _rows_of(space: Space) -> Space | int:
    return 1 if space is Space.ONE else space


def _store(values: Values, store: Store, row: Item) -> Item:
    """The statement of a store to row ``row``."""
    value, shape = stored_shape(store.value)
    index = values.iteration(shape)
    place = values.pointer(
        values.names.buffer(store.buffer),
        row,
        store.buffer.type.size,
        linear(values.items, flat(index)),
    )
    flattened = Store(Buffer(store.buffer.name, value.type, store.buffer.role), value)
    return values.store(flattened, index, place)


def write_statements(writer: Writer, statements: list[Item]) -> None:
    """Statements, with what they need before them."""
    for statement in statements:
        text = str(writer.read(statement))
        writer.lines.append(text)


def _variant(over: Space | Tiles | int, blocks: TraversalBlocks) -> Variant:
    constants = (("OWNERS", blocks.owners), ("MEMBERS", blocks.members))
    return Variant((GridSize(over, blocks.owners),), constants, blocks.warps, blocks.stages)


def _over_members(kernel: Traversal, name: str) -> list[Function]:
    return _Members(kernel, name).functions()


class _Members:
    """A traversal over the members of each owner, or of each tile of owners."""

    def __init__(self, kernel: Traversal, name: str) -> None:
        assert kernel.via is not None
        self.kernel = kernel
        self.name = name
        self.tiles = Tiles(kernel.via, kernel.schedule.split) if kernel.schedule.split else None
        self.items, self.names = Items(), Names()
        self.level = WithMembers(self.items, self.names, kernel.via, self.tiles)
        self.values = Values(self.items, self.names, 2, self.level)
        self.level.values = self.values
        self.own: list[Item] = []
        self.of_members: list[Item] = []
        self.workspaces: dict[Buffer, Workspace] = {}
        for store in kernel.stores:
            if store.buffer.type.size:
                self._add(store)

    def _add(self, store: Store) -> None:
        assert self.kernel.via is not None
        if store.value.space is self.kernel.via.fine:
            self.of_members.append(_store(self.values, store, self.level.number(store.value.space)))
        elif self.tiles is None:
            self.own.append(_store(self.values, store, self.level.owners.position))
        else:
            self.own.append(self._partial(store))

    def _partial(self, store: Store) -> Item:
        """A tile's part of a reduction goes to a workspace."""
        assert self.tiles is not None
        t = store.buffer.type
        dtype = DType.F64 if t.dtype is DType.F64 else DType.F32
        workspace = Workspace(f"{store.buffer.name}_parts", GridSize(self.tiles), t.size, dtype)
        self.workspaces[store.buffer] = workspace
        index = self.values.iteration(t.shape)
        row = self.level.outer
        place = self.values.pointer(
            self.names.workspace(workspace), row.position, t.size, linear(self.items, flat(index))
        )
        value = self.values.value(store.value, index)
        mask = self.items.all_of([row.valid, *self.values.masks(place.axes)])  # type: ignore[list-item]
        assert mask is not None
        return self.items("tl.store({0}, {1}, mask={2})", place, value, mask)

    def functions(self) -> list[Function]:
        roots = [*self.own, *self.of_members]
        layout = Layout()
        layout.see(below([*roots, self.level.present]))
        phases = max([f.phase for f in self.level.folds] + [s.phase + 1 for s in self.of_members] + [0])
        writer = Writer(layout, {*self.names.arguments, "start", "longest"}, count_readers(roots))
        looped = phases > 0
        if looped:
            begin, end = writer.named(self.level.begin), writer.named(self.level.end)
            writer.lines.append(f"longest = longest_of({begin}, {end}, OWNERS)")
        for phase in range(phases):
            self._loop(writer, phase)
        write_statements(writer, self.own)
        launch = self._launch(width_of(self.items, layout, 2), looped)
        return [
            Function(self.name, "rows.py.jinja", launch, {"body": writer.lines}),
            *(self._combination(s) for s in self.kernel.stores if s.buffer in self.workspaces),
        ]

    def _launch(self, width: int, looped: bool) -> Launch:
        assert self.kernel.via is not None
        arguments, parts = tuple(self.names.arguments.items()), tuple(self.workspaces.values())
        if self.tiles is not None:
            return Launch(self.name, arguments, (_variant(self.tiles, tile_blocks(width)),), workspaces=parts)
        over = _rows_of(self.kernel.owner)
        if not looped:
            return Launch(self.name, arguments, (_variant(over, replace(row_blocks(width), members=1)),))
        limits = member_blocks(width)
        return Launch(
            self.name,
            arguments,
            tuple(_variant(over, blocks) for _, blocks in limits),
            members_per_owner=(self.kernel.via.fine, over, tuple(limit for limit, _ in limits)),
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
        accumulators = [_Accumulator(f, self.level.folds[f], writer) for f in folds]
        for a in accumulators:
            writer.lines += a.start()
        inner = writer.inner()
        for a in accumulators:
            inner.lines += a.fold(inner)
        write_statements(inner, stores)
        writer.lines += ["for start in range(0, longest, MEMBERS):", *(f"    {line}" for line in inner.lines)]
        some = Text(f"{writer.known[self.level.end]} > {writer.known[self.level.begin]}")
        for a in accumulators:
            writer.lines += a.finish(some)
            writer.known[a.item] = Text(a.name)

    def _combination(self, store: Store) -> Function:
        assert self.tiles is not None
        assert isinstance(store.value, Reduce)
        name = f"{self.name}_{self.names.hint(store.buffer)}_of_parts"
        return combination(name, store.buffer, self.workspaces[store.buffer], self.tiles, store.value.op)


class _Accumulator:
    """A reduction of members in the making: each lane folds its own members, and the lanes are put together after the loop."""

    def __init__(self, item: Item, r: Reduce, writer: Writer) -> None:
        self.item = item
        self.r = r
        self.writer = writer
        self.name = writer.fresh({"sum": "total", "max": "largest", "min": "smallest"}.get(r.op, r.op))
        self.sum = writer.fresh("exponentials") if r.op == "logsumexp" else ""

    def start(self) -> list[str]:
        axes = self.item.args[0].axes | {OWNER, MEMBER}
        shape, kind = self.writer.layout.shape(axes), computed(self.r.dtype)
        lines = [f"{self.name} = tl.full({shape}, {start_of(self.r.op)}, {kind})"]
        if self.sum:
            lines.append(f"{self.sum} = tl.full({shape}, 0, {kind})")
        return lines

    def fold(self, inner: Writer) -> list[str]:
        x = inner.read(self.item.args[0])
        if self.r.op == "sum":
            return [f"{self.name} += {x}"]
        if self.r.op != "logsumexp":
            return [f"{self.name} = tl.{self.r.op}imum({self.name}, {x}, {NAN})"]
        x = inner.named(self.item.args[0])
        top, base = inner.fresh("top"), inner.fresh("base")
        return [
            f"{top} = tl.maximum({self.name}, {x}, {NAN})",
            f"{base} = tl.where({top} == -float('inf'), 0, {top})",
            f"{self.sum} = {self.sum} * tl.exp({self.name} - {base}) + tl.exp({x} - {base})",
            f"{self.name} = {top}",
        ]

    def finish(self, some: str) -> list[str]:
        """The lanes put together; an owner without members gets 0."""
        if self.r.op == "sum":
            return [f"{self.name} = sum_along({self.name}, 1)"]
        if self.r.op != "logsumexp":
            return [f"{self.name} = tl.where({some}, {fold_of(self.r.op)}({self.name}, 1), 0)"]
        top, base = self.writer.fresh("top"), self.writer.fresh("base")
        return [
            f"{top} = max_along({self.name}, 1)",
            f"{base} = tl.where({top} == -float('inf'), 0, {top})",
            f"{self.sum} = sum_along({self.sum} * tl.exp({self.name} - {base}), 1)",
            f"{self.name} = tl.where({some}, {base} + tl.log({self.sum}), 0)",
        ]


NAN = "propagate_nan=tl.PropagateNan.ALL"


def combination(name: str, out: Buffer, parts: Workspace, tiles: Tiles | None, op: str) -> Function:
    """A function that combines the parts of each owner in the order of its tiles."""
    names = Names()
    size = out.type.size
    lanes = min(1024, max(32, 1 << (size - 1).bit_length()))
    fields = {
        "parts": names.workspace(parts),
        "out": names.buffer(out),
        "tiles": None if tiles is None else names.array(tiles),
        "tile_count": None if tiles is None else names.tiles(tiles),
        "size": size,
        "op": op,
        "kind": computed(parts.dtype),
        "start": start_of(op),
        "rows": None if tiles is not None else parts.tiles,
    }
    if tiles is None:
        assert isinstance(parts.tiles.of, Space)
        fields["tile_count"] = f"(({names.count(parts.tiles.of)} + {parts.tiles.by - 1}) // {parts.tiles.by})"
    grid = (GridSize(_rows_of(out.type.space)), GridSize(size, lanes))
    variant = Variant(grid, (("LANES", lanes),), max(1, lanes // 256))
    launch = Launch(name, tuple(names.arguments.items()), (variant,))
    return Function(name, "combine.py.jinja", launch, fields)
