"""Triton for matrix products over the rows of a space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from columba.codegen.triton.index import Component, Digit, Index, flat, linear, regroup
from columba.codegen.triton.items import Axis, Item, Items, Layout, Text, Writer, below, below_unknown, count_readers
from columba.codegen.triton.launches import GridSize, Launch, Variant
from columba.codegen.triton.levels import ROW, Walk
from columba.codegen.triton.names import Names
from columba.codegen.triton.scalars import HALVES, STORED, computed
from columba.codegen.triton.schedule import ProductBlocks, product_blocks
from columba.codegen.triton.traversal import Function, write_statements
from columba.codegen.triton.values import Row, UnsupportedValue, Values, power_of_two, stored_shape
from columba.ir.indices import Tiles
from columba.ir.interop.ops import Value
from columba.ir.intraop.kernels import Buffer, Gemm, Load, Product, Store, product_of
from columba.ir.spaces import IndexMap, Space
from columba.ir.types import DType, Shape

LEAST = 16
"""The smallest side of a block that tensor cores multiply."""


def gemm_function(kernel: Gemm, name: str) -> Function:
    """The function of a matrix product.

    Raises:
        UnsupportedValue: a store needs the product at positions that no block of it has.
    """
    return _Gemm(kernel, name, by_matrix=one_matrix_at_a_time(kernel)).function()


def one_matrix_at_a_time(kernel: Gemm) -> bool:
    """Whether each program can work on one of the several matrices of a row."""
    product = product_of(kernel)
    if product.shared or product.x.type.size == product.x.shape[-1]:
        return False
    return _is_possible(kernel, by_matrix=True)


def fits(kernel: Gemm) -> bool:
    """Whether blocks of the product have all the positions that the stores need."""
    return one_matrix_at_a_time(kernel) or _is_possible(kernel, by_matrix=False)


def _is_possible(kernel: Gemm, *, by_matrix: bool) -> bool:
    try:
        _Gemm(kernel, kernel.name, by_matrix=by_matrix)
    except UnsupportedValue:
        return False
    return True


class ProductRows:
    """The rows of a tile: positions in the order of the map that selects the weight."""

    def __init__(self, items: Items, names: Names, via: IndexMap, row: Row, segment: Item) -> None:
        self.items = items
        self.rows = row
        self.via = via
        self.segment = segment
        self.walk = Walk(items, names, via, row)
        self.product: Callable[[Product, Index], Item] | None = None

    def row(self, at: Space) -> Row:
        return self.rows

    def number(self, at: Space) -> Item:
        return self.walk.number()

    def lookup(self, load: Load) -> Item:
        return self.walk.lookup(load)

    def special(self, v: Value, index: Index) -> Item:
        if not isinstance(v, Product) or self.product is None:
            raise UnsupportedValue(f"{v.op_name} has no place in a matrix product")
        return self.product(v, index)


def tile_items(items: Items, names: Names, via: IndexMap, rows: int) -> tuple[Item, Item, Item]:
    """The segment of this program's tile, its first position, and the position after its last."""
    if via.coarse is Space.ONE:
        begin = items(f"tl.program_id(0) * {rows}", name="begin")
        return items("0"), begin, items(f"tl.minimum({{0}} + {rows}, {names.count(via.fine)})", begin, name="end")
    tiles = Tiles(via, rows)
    table, n = items(names.array(tiles)), names.tiles(tiles)
    segment = items("tl.load({0} + tl.program_id(0)).to(tl.int64)", table, name=via.name)
    begin = items(f"tl.load({{0}} + {n} + tl.program_id(0))", table, name="begin")
    end = items(f"tl.load({{0}} + 2 * {n} + tl.program_id(0))", table, name="end")
    return segment, begin, end


def tile_count(via: IndexMap, rows: int) -> GridSize:
    return GridSize(via.fine, rows) if via.coarse is Space.ONE else GridSize(Tiles(via, rows))


@dataclass(frozen=True)
class _Dot:
    """A product at some index: the blocks that are multiplied, and the axes of the result."""

    item: Item
    left: Item
    right: Item
    lead: tuple[Axis, ...]
    columns: tuple[Axis, ...]
    batch: bool
    left_depth: Axis
    right_depth: Axis


class _Gemm:
    """One matrix product. ``by_matrix``: a program computes one of several matrices' products, not all of them side by side."""

    def __init__(self, kernel: Gemm, name: str, *, by_matrix: bool) -> None:
        self.kernel = kernel
        self.name = name
        self.product = product_of(kernel)
        if self.product.via is None:
            raise UnsupportedValue(f"gemm {kernel.name}: a matrix for each row is no matrix product")
        self.via = self.product.via
        self.by_matrix = by_matrix
        self.k, self.n = self.product.x.shape[-1], self.product.shape[-1]
        self.lead = self.product.x.shape[:-1]
        self.items, self.names = Items(), Names()
        self.dots: dict[Item, _Dot] = {}
        self.blocks = self._blocks()
        tile_rows = kernel.schedule.tile_rows
        segment, begin, end = tile_items(self.items, self.names, self.via, tile_rows)
        position = self.items("{0:a} + tl.arange(0, ROWS){at0}", begin, name="position", add=[ROW])
        valid = self.items("{0:a} < {1:a}", position, end, name="valid")
        self.level = ProductRows(self.items, self.names, self.via, Row(position, valid), segment)
        self.level.product = self._dot
        self.values = Values(self.items, self.names, 1, self.level, _parts(self.product.shape))
        self.stores = [self._store(s) for s in kernel.stores if s.buffer.type.size]

    def _blocks(self) -> ProductBlocks:
        side_by_side = 1 if self.by_matrix else math.prod(power_of_two(n) for n in self.lead)
        return product_blocks(self.k, power_of_two(self.n), side_by_side, self.product.dtype)

    # -------------------------------------------------------------------------------------------- products

    def _dot(self, product: Product, index: Index) -> Item:
        """The product at an index: rows and leading dimensions by one set of axes, columns by another."""
        lead, column = flat(index[:-1]), index[-1]
        lead_axes, column_axes = _axes(lead), _axes(column)
        if set(lead_axes) & set(column_axes):
            raise UnsupportedValue(f"gemm {self.name}: the product is read across its matrices")
        if self.by_matrix and lead_axes:
            raise UnsupportedValue(f"gemm {self.name}: the product of several matrices is needed at once")
        (slot,) = self.values.free_slots(index[:-1], [max([a.dim for a in lead_axes], default=0)])
        size, start = self.k if self._has_tail else None, "depth" if self.k > self.depth else ""
        left_depth = Axis(1 + slot, "DEPTH", size, start)
        right_depth = Axis(0, "DEPTH", size, start)
        left = self.values.value(product.x, (*index[:-1], (Digit(self.values.lanes(left_depth), self.k),)))
        left = self.values.block(left, product.x.dtype)
        left = self.values.restricted(left, self.values.masks([left_depth]), "0")
        right = self._weight(product, index[:-1], column, right_depth)
        batch = not product.shared and bool(lead_axes)
        item = self.items(
            f"product {len(self.dots)}", left, right, name="product", add=[ROW], drop=[left_depth, right_depth]
        )
        if item not in self.dots:
            self.dots[item] = _Dot(item, left, right, lead_axes, column_axes, batch, left_depth, right_depth)
        return item

    @property
    def _has_tail(self) -> bool:
        """Whether the last step in depth is not full."""
        return self.k % self.depth != 0

    @property
    def depth(self) -> int:
        return max(LEAST, power_of_two(min(self.k, self.blocks.depth)))

    def _weight(self, product: Product, lead: Index, column: Component, depth: Axis) -> Item:
        """The weights of this segment: depth along the first dimension, columns along theirs."""
        items = self.items
        k = Digit(self.values.lanes(depth), self.k)
        position = (*([] if product.shared else flat(lead)), *((*column, k) if product.transpose else (k, *column)))
        t = product.w.type
        row = None if t.space is Space.ONE else self.level.segment
        place = self.values.pointer(self.names.buffer(product.w), row, t.size, linear(items, position))
        inside = self.values.inside(depth)
        masks = [*([] if inside is None else [inside]), *self.values.masks(place.axes)]
        mask = items.all_of(masks)
        name = self.names.hint(product.w)
        if mask is None:
            return items("tl.load({0})", place, name=name)
        return items("tl.load({0}, mask={1}, other=0)", place, mask, name=name)

    # -------------------------------------------------------------------------------------------- stores

    def _store(self, store: Store) -> Item:
        value, shape = stored_shape(store.value)
        index = self._iteration(value, shape)
        row = self.level.number(store.buffer.type.space)
        place = self.values.pointer(
            self.names.buffer(store.buffer), row, store.buffer.type.size, linear(self.items, flat(index))
        )
        return self.values.store(Store(Buffer(store.buffer.name, value.type, store.buffer.role), value), index, place)

    def _iteration(self, value: Value, shape: Shape) -> Index:
        index = self.values.iteration(shape)
        if not self.by_matrix:
            return index
        if shape[: len(self.lead)] != self.lead:
            raise UnsupportedValue(f"gemm {self.name}: a store does not go over the leading dimensions")
        matrix = Digit(self.items("tl.program_id(1)", name="matrix"), math.prod(self.lead))
        return (*regroup(self.items, (matrix,), self.lead), *index[len(self.lead) :])

    # -------------------------------------------------------------------------------------------- text

    def function(self) -> Function:
        layout = Layout()
        layout.see(below(self.stores))
        taken = {*self.names.arguments, "depth"}
        writer = Writer(layout, taken, count_readers(self.stores))
        for dot in self.dots.values():
            _write_dot(self, dot, writer)
        write_statements(writer, self.stores)
        rows = self.kernel.schedule.tile_rows
        grid = [tile_count(self.via, rows)]
        if self.by_matrix:
            grid.append(GridSize(math.prod(self.lead)))
        constants = (("ROWS", rows), ("DEPTH", self.depth))
        variant = Variant(tuple(grid), constants, self.blocks.warps, self.blocks.stages)
        launch = Launch(self.name, tuple(self.names.arguments.items()), (variant,), dot=self.product.dtype)
        return Function(self.name, "rows.py.jinja", launch, {"body": writer.lines})


def _parts(shape: Shape) -> dict[int, Shape]:
    """How to go over dimensions that are several of ``shape`` in one: by each of them, so that matrices stay apart."""
    if len(shape) < 2:
        return {}
    parts: dict[int, Shape] = {}
    for first in range(len(shape)):
        for last in range(first + 2, len(shape) + 1):
            some = shape[first:last]
            if 1 not in some and 0 not in some:
                parts.setdefault(math.prod(some), some)
    return parts


def _axes(component: Component) -> tuple[Axis, ...]:
    """The axes along which a position varies, by dimension."""
    return tuple(sorted({a for d in component for a in d.value.axes}, key=lambda a: a.dim))


def operand(text: str, dtype: DType) -> str:
    """An operand of a matrix product in the type that the launch says, rounded to the stored type first."""
    rounded = f"{Text(text):a}.to({STORED[dtype]})" if dtype in HALVES else f"{Text(text):a}"
    return f"{rounded}.to(OPERAND)"


def arranged(writer: Writer, item: Item, groups: Sequence[Sequence[Axis]]) -> str:
    """An item as a block with one dimension for each group of axes, in this order."""
    axes = [a for group in groups for a in group]
    text = str(writer.read(item))
    if not set(axes) <= item.axes:
        text = f"tl.broadcast_to({text}, {writer.layout.shape(axes)})"
    stands = sorted(axes, key=lambda a: a.dim)
    if stands != axes:
        order = ", ".join(str(stands.index(a)) for a in axes)
        text = f"tl.permute(tl.reshape({text}, ({', '.join(a.block for a in stands)})), ({order}))"
        if all(len(group) == 1 for group in groups):
            return text
    return f"tl.reshape({text}, ({', '.join(lanes(group) for group in groups)}))"


def lanes(axes: Sequence[Axis]) -> str:
    """The product of blocks."""
    known = math.prod(int(a.block) for a in axes if a.block.isdigit())
    unknown = [a.block for a in axes if not a.block.isdigit()]
    return " * ".join([*unknown, *([str(known)] if known != 1 or not unknown else [])])


def _write_dot(gemm: _Gemm, dot: _Dot, writer: Writer) -> None:
    """The loop in depth, and the result put where its axes are."""
    dtype = gemm.product.dtype
    batches = [dot.lead] if dot.batch else []
    rows = [ROW] if dot.batch else [ROW, *dot.lead]
    shape = ", ".join(lanes(group) for group in [*batches, rows, dot.columns])
    for root in (dot.left, dot.right):
        for item in below_unknown(root, writer.known):
            if not {dot.left_depth, dot.right_depth} & item.axes and (item.name or item.args):
                writer.write([item])
    total = writer.fresh("total")
    writer.lines.append(f"{total} = tl.full(({shape}), 0, {computed(dtype)})")
    looped = gemm.k > gemm.depth
    inner = writer.inner() if looped else writer
    left = arranged(inner, dot.left, [*batches, rows, [dot.left_depth]])
    right = arranged(inner, dot.right, [*batches, [dot.right_depth], dot.columns])
    inner.lines.append(f"left = {operand(left, dtype)}")
    inner.lines.append(f"right = {operand(right, dtype)}")
    kind = ", out_dtype=tl.float64" if dtype is DType.F64 else ""
    inner.lines.append(f"{total} = tl.dot(left, right, {total}, input_precision=PRECISION{kind})")
    if looped:
        writer.lines.append(f"for depth in range(0, {gemm.k}, DEPTH):")
        writer.lines += [f"    {line}" for line in inner.lines]
    name = writer.fresh("product")
    writer.lines.append(f"{name} = {_placed(writer.layout, dot, total)}")
    writer.known[dot.item] = Text(name)


def _placed(layout: Layout, dot: _Dot, total: str) -> str:
    """The result with each axis in its own dimension."""
    axes = [*dot.lead, ROW, *dot.columns] if dot.batch else [ROW, *dot.lead, *dot.columns]
    belong = sorted(axes, key=lambda a: a.dim)
    if belong != axes:
        order = ", ".join(str(axes.index(a)) for a in belong)
        total = f"tl.permute(tl.reshape({total}, ({', '.join(a.block for a in axes)})), ({order}))"
    return f"tl.reshape({total}, {layout.shape(axes)})"
