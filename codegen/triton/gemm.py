"""Triton for matrix products over the rows of a space."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from columba.codegen.triton.dots import Descriptor, Dot, write_dot
from columba.codegen.triton.functions import Function, write_statements
from columba.codegen.triton.index import Component, Digit, Index, flat, linear, regroup
from columba.codegen.triton.items import Axis, BlockShape, Item, Items, Writer, below, count_readers
from columba.codegen.triton.launches import GridSize, Launch, Loop, Variant
from columba.codegen.triton.levels import ROW, Walk
from columba.codegen.triton.names import TritonNames
from columba.codegen.triton.parts import Parts, cheapest, parts_of_reshapes
from columba.codegen.triton.schedule import IllegalSchedule, ProductSchedule, default_product, power_of_two
from columba.codegen.triton.values import Row, UnsupportedValue, Values, pieces_of
from columba.ir.indices import Tiles
from columba.ir.plan.kernels import Buffer, Gemm, GemmSchedule, Load, Product, Store, product_of, values_of
from columba.ir.plan.plan import is_sorted
from columba.ir.program.ops import Reshape, Value
from columba.ir.spaces import IndexMap, Space
from columba.ir.types import DType, Shape


def gemm_function(kernel: Gemm, name: str, schedule: ProductSchedule) -> Function:
    """The function of a matrix product, whose tiles are those of ``kernel.schedule``.

    Raises:
        UnsupportedValue: a store needs the product at positions that no block of it has.
        IllegalSchedule: no program computes what a store needs, or there is no operand that a descriptor could load.
    """
    return _made(kernel, name, schedule).function()


def schedule_of_product(kernel: Gemm) -> ProductSchedule:
    """How a product runs where nobody says."""
    product = product_of(kernel)
    by_matrix = one_matrix_at_a_time(kernel)
    lead = 1 if by_matrix else math.prod(power_of_two(n) for n in product.x.shape[:-1])
    n = product.shape[-1]
    default = default_product(product.x.shape[-1], n, lead, product.factors)
    if by_matrix:
        default = replace(default, matrices=_side_by_side(product, default.depth))
    factor = n & -n  # the largest power of two that divides it
    if LEAST_COLUMNS <= factor < n:  # no lane of a block of so many columns is idle
        by_columns = default_product(product.x.shape[-1], factor, lead, product.factors)
        with contextlib.suppress(IllegalSchedule, UnsupportedValue):
            by_columns = replace(by_columns, columns=factor)
            _made(replace(kernel, schedule=GemmSchedule(by_columns.rows)), kernel.name, by_columns)
            return by_columns
    return default


def _side_by_side(product: Product, depth: int) -> int:
    """How many of a row's matrices a program multiplies by, one after the other: as many as give it columns enough."""
    k, n = product.x.shape[-1], product.shape[-1]
    if k > depth:
        return 1
    matrices = math.prod(product.x.shape[:-1])
    return max(m for m in range(1, matrices + 1) if matrices % m == 0 and (m == 1 or m * n <= ENOUGH_COLUMNS))


ENOUGH_COLUMNS = 64
"""Of a program, in all matrices together: fewer leave most threads without work."""

LEAST_COLUMNS = 32
"""Narrower blocks of columns read the rows too often."""


def one_matrix_at_a_time(kernel: Gemm) -> bool:
    """Whether each program can work on one of the several matrices of a row."""
    product = product_of(kernel)
    if product.shared or product.x.type.size == product.x.shape[-1]:
        return False
    return _is_possible(kernel, by_matrix=True)


def fits(kernel: Gemm) -> bool:
    """Whether blocks of the product have all the positions that the stores need."""
    return one_matrix_at_a_time(kernel) or _is_possible(kernel, by_matrix=False)


_ANY = ProductSchedule(16, 16)


def _is_possible(kernel: Gemm, *, by_matrix: bool) -> bool:
    try:
        _Gemm(kernel, kernel.name, _ANY, by_matrix=by_matrix)
    except UnsupportedValue:
        return False
    return True


def _made(kernel: Gemm, name: str, schedule: ProductSchedule) -> _Gemm:
    by_matrix = one_matrix_at_a_time(kernel)
    product = product_of(kernel)
    n = product.shape[-1]
    if schedule.columns >= power_of_two(n):
        schedule = replace(schedule, columns=0)
    apart = _parts(product.shape)
    choices = [apart] if schedule.columns else [apart, parts_of_reshapes(values_of(kernel)) | apart]
    make = functools.partial(_Gemm, kernel, name, schedule, by_matrix=by_matrix)
    try:
        made = cheapest(make, lambda g: [*g.stores, *(x for d in g.dots.values() for x in (d.left, d.right))], choices)
    except UnsupportedValue as e:
        if schedule.columns:
            raise IllegalSchedule(f"gemm {kernel.name}: stores need more than {schedule.columns} columns ({e})") from e
        raise
    if schedule.matrices > 1 and not made.takes_several:
        raise IllegalSchedule(
            f"gemm {kernel.name}: {schedule.matrices} matrices a program do not divide those of a row, or have several steps in depth"
        )
    if schedule.descriptors and not made.descriptors:
        raise IllegalSchedule(f"gemm {kernel.name}: no operand is dense, aligned, and a multiple of the steps in depth")
    return made


class ProductRows:
    """The rows of a tile: positions in the order of the map that selects the weight. ``segment``: where that leads, from all of them."""

    def __init__(self, items: Items, names: TritonNames, via: IndexMap, row: Row, segment: Item | None = None) -> None:
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
        if self.segment is not None and load.via == self.via:
            return self.segment
        return self.walk.lookup(load)

    def special(self, v: Value, index: Index) -> Item:
        if not isinstance(v, Product) or self.product is None:
            raise UnsupportedValue(f"{v.op_name} has no place in a matrix product")
        return self.product(v, index)


def tile_items(items: Items, names: TritonNames, via: IndexMap, rows: int) -> tuple[Item, Item, Item]:
    """The segment of tile ``tile``, its first position, and the position after its last."""
    if via.coarse is Space.ONE:
        begin = items(f"tile * {rows}", name="begin")
        return items("0"), begin, items(f"tl.minimum({{0}} + {rows}, {names.count(via.fine)})", begin, name="end")
    return table_items(items, names, Tiles(via, rows))


def table_items(items: Items, names: TritonNames, tiles: Tiles) -> tuple[Item, Item, Item]:
    """The same of a tile that stands in a table."""
    table, n = items(names.array(tiles)), names.tiles(tiles)
    segment = items("tl.load({0} + tile).to(tl.int64)", table, name=tiles.map.name)
    begin = items(f"tl.load({{0}} + {n} + tile)", table, name="begin")
    end = items(f"tl.load({{0}} + 2 * {n} + tile)", table, name="end")
    return segment, begin, end


def tile_count(via: IndexMap, rows: int) -> GridSize:
    return GridSize(via.fine, rows) if via.coarse is Space.ONE else GridSize(Tiles(via, rows))


class _Gemm:
    """One matrix product. ``by_matrix``: a program computes one of several matrices' products, not all of them side by side."""

    def __init__(
        self, kernel: Gemm, name: str, schedule: ProductSchedule, parts: Parts | None = None, *, by_matrix: bool
    ) -> None:
        self.kernel = kernel
        self.name = name
        self.schedule = schedule
        self.product = product_of(kernel)
        if self.product.via is None:
            raise UnsupportedValue(f"gemm {kernel.name}: a matrix for each row is no matrix product")
        self.via = self.product.via
        self.by_matrix = by_matrix
        self.k, self.n = self.product.x.shape[-1], self.product.shape[-1]
        self.lead = self.product.x.shape[:-1]
        self.depth = min(schedule.depth, max(16, power_of_two(self.k)))
        self.items, self.names = Items(), TritonNames()
        self.dots: dict[Item, Dot] = {}
        self.descriptors: dict[str, Descriptor] = {}
        self.described: dict[Buffer, None] = {}
        self.rows = kernel.schedule.tile_rows
        self.segment, self.begin, end = tile_items(self.items, self.names, self.via, self.rows)
        position = self.items("{0:a} + tl.arange(0, ROWS){at0}", self.begin, name="position", add=[ROW])
        valid = self.items("{0:a} < {1:a}", position, end, name="valid")
        self.level = ProductRows(self.items, self.names, self.via, Row(position, valid), self.segment)
        self.level.product = self._dot
        parts = _parts(self.product.shape) if parts is None else parts
        self.values = Values(self.items, self.names, 1, self.level, parts)
        self.stores = [item for s in kernel.stores if s.buffer.type.size for item in self._stores(s)]

    @property
    def matrices(self) -> int:
        return math.prod(self.lead) if self.by_matrix else 1

    @property
    def takes_several(self) -> bool:
        """Whether a program can work on several matrices of a row, one after the other."""
        divides = self.matrices % self.schedule.matrices == 0
        return divides and self.k <= self.depth and self.column_blocks == 1 and not self.descriptors

    @property
    def column_blocks(self) -> int:
        return -(-self.n // self.schedule.columns) if self.schedule.columns else 1

    # -------------------------------------------------------------------------------------------- products

    def _dot(self, product: Product, index: Index) -> Item:
        """The product at an index: rows and leading dimensions by one set of axes, columns by another."""
        lead, column = flat(index[:-1]), index[-1]
        lead_axes, column_axes = _axes(lead), _axes(column)
        if set(lead_axes) & set(column_axes):
            raise UnsupportedValue(f"gemm {self.name}: the product is read across its matrices")
        if self.by_matrix and lead_axes:
            raise UnsupportedValue(f"gemm {self.name}: the product of several matrices is needed at once")
        if self.schedule.columns and [a.block for a in column_axes] != ["COLUMNS"]:
            raise UnsupportedValue(f"gemm {self.name}: all columns of the product are needed at once")
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
            by = self._left_descriptor(product, lead), self._right_descriptor(product, lead, column)
            self.dots[item] = Dot(item, left, right, lead_axes, column_axes, batch, left_depth, right_depth, *by)
        return item

    @property
    def _has_tail(self) -> bool:
        """Whether the last step in depth is not full."""
        return self.k % self.depth != 0

    def _weight(self, product: Product, lead: Index, column: Component, depth: Axis) -> Item:
        """The weights of this segment: depth along the first dimension, columns along theirs."""
        items = self.items
        k = Digit(self.values.lanes(depth), self.k)
        position = (*([] if product.shared else flat(lead)), *((*column, k) if product.transpose else (k, *column)))
        t = product.w.type
        row = None if t.space is Space.ONE else self.segment
        place = self.values.pointer(self.names.buffer(product.w), row, t.size, linear(items, position))
        inside = self.values.inside(depth)
        masks = [*([] if inside is None else [inside]), *self.values.masks(place.axes)]
        mask = items.all_of(masks)
        name = self.names.hint(product.w)
        if mask is None:
            return items("tl.load({0})", place, name=name)
        return items("tl.load({0}, mask={1}, other=0)", place, mask, name=name)

    # -------------------------------------------------------------------------------------------- descriptors

    def _left_descriptor(self, product: Product, lead: Component) -> Descriptor | None:
        """Rows that stand in memory as the tile has them. What is read past the end of the tile is in rows that nobody stores."""
        x: Value = product.x
        while isinstance(x, Reshape):
            x = x.x
        if not isinstance(x, Load) or x.via is not None or not is_sorted(self.via) or x.at is Space.ONE:
            return None
        t = x.buffer.type
        if (self.lead and not self.by_matrix) or not self._loads_whole_steps(t.dtype, t.size):
            return None
        rows = self.names.count(t.space)
        start = f"matrix * {self.k} + {{depth}}" if self.matrices > 1 else "{depth}"
        made = f"{self.names.buffer(x.buffer)}, [{rows}, {t.size}], [{t.size}, 1], [ROWS, DEPTH]"
        return self._descriptor(x.buffer, made, f"[{self._begin}, {start}]", "")

    @property
    def _begin(self) -> str:
        return f"tile * {self.rows}" if self.via.coarse is Space.ONE else "begin"

    def _right_descriptor(self, product: Product, lead: Component, column: Component) -> Descriptor | None:
        """The weights of a segment, all segments below each other."""
        t, axes = product.w.type, _axes(column)
        width = self.k if product.transpose else self.n
        if (lead and not (self.by_matrix or product.shared)) or not self._loads_whole_steps(t.dtype, width):
            return None
        if [d.value for d in column] != [self.values.lanes(a) for a in axes]:
            return None
        blocks = math.prod(self.schedule.columns if a.block == "COLUMNS" else int(a.block) for a in axes)
        is_full = self.n % blocks == 0
        if blocks * t.dtype.itemsize < 16 or not (is_full or (len(axes) == 1 and not product.transpose)):
            return None
        matrices = 1 if product.shared else math.prod(self.lead)
        height = matrices * (self.n if product.transpose else self.k)
        rows = f"{self.names.count(t.space)} * {height}" if t.space is not Space.ONE else str(height)
        begins = [] if t.space is Space.ONE else [f"{self.via.name} * {height}"]
        if self.matrices > 1 and not product.shared:
            begins.append(f"matrix * {height // matrices}")
        columns = "column * COLUMNS" if self.column_blocks > 1 else "0"
        first, second = (columns, "{depth}") if product.transpose else ("{depth}", columns)
        row = " + ".join([b for b in (*begins, first) if b != "0"] or ["0"])
        if t.space is not Space.ONE:
            row = f"({row}).to(tl.int32)"
        block = f"[{blocks}, DEPTH]" if product.transpose else f"[DEPTH, {blocks}]"
        made = f"{self.names.buffer(product.w)}, [{rows}, {width}], [{width}, 1], {block}"
        return self._descriptor(product.w, made, f"[{row}, {second}]", ".T" if product.transpose else "")

    def _loads_whole_steps(self, dtype: DType, width: int) -> bool:
        """Whether a descriptor can load blocks of rows of ``width`` elements, and none reaches into what is not its own."""
        aligned = dtype in (DType.F32, DType.BF16, DType.F16) and width * dtype.itemsize % 16 == 0
        return self.schedule.descriptors and aligned and not self._has_tail

    def _descriptor(self, buffer: Buffer, made: str, at: str, after: str) -> Descriptor:
        name = f"{self.names.hint(buffer)}_descriptor"
        found = Descriptor(f"tl.make_tensor_descriptor({made})", name, f"{name}.load({at}){after}")
        if self.descriptors.setdefault(name, found).made != found.made:
            raise IllegalSchedule(
                f"gemm {self.name}: {buffer} is read in blocks of two shapes, which have two descriptors"
            )
        self.described[buffer] = None
        return found

    # -------------------------------------------------------------------------------------------- stores

    def _stores(self, store: Store) -> Iterator[Item]:
        row = self.level.number(store.buffer.type.space)
        for value, whole in pieces_of(self.items, store.value):
            index = self._iteration(value.shape)
            place = self.values.pointer(
                self.names.buffer(store.buffer), row, store.buffer.type.size, linear(self.items, flat(whole(index)))
            )
            yield self.values.store(
                Store(Buffer(store.buffer.name, value.type, store.buffer.role), value), index, place
            )

    def _iteration(self, shape: Shape) -> Index:
        index = self.values.iteration(shape)
        if self.schedule.columns:
            if shape != self.product.shape:
                raise UnsupportedValue(f"gemm {self.name}: a store is not of the product's columns")
            tail = self.n if self.n % self.schedule.columns else None
            column = self.values.lanes(Axis(len(shape), "COLUMNS", tail, "column * COLUMNS"))
            index = (*index[:-1], (Digit(column, self.n),))
        if not self.by_matrix:
            return index
        if shape[: len(self.lead)] != self.lead:
            raise UnsupportedValue(f"gemm {self.name}: a store does not go over the leading dimensions")
        matrix = Digit(self.items("matrix"), math.prod(self.lead))
        return (*regroup(self.items, (matrix,), self.lead), *index[len(self.lead) :])

    # -------------------------------------------------------------------------------------------- text

    def function(self) -> Function:
        layout = BlockShape()
        layout.see(below(self.stores))
        schedule = self.schedule
        pieces = self.matrices // schedule.matrices * self.column_blocks
        outer = Writer(layout, {*self.names.arguments, *_TAKEN, *self.descriptors}, count_readers(self.stores))
        writer = outer
        if schedule.matrices > 1:
            self._write_shared(outer)
            writer = outer.inner()
            writer.lines.append("matrix = head" if pieces == 1 else f"matrix = group * {schedule.matrices} + head")
        for dot in self.dots.values():
            if dot.right_descriptor or dot.left_descriptor:
                for item in (self.begin, self.segment):
                    writer.read(item)
            write_dot(dot, self.product.factors, self.k, self.depth, writer)
        write_statements(writer, self.stores)
        if writer is not outer:
            outer.lines.append("# The row's matrices one after the other.")
            outer.lines.append(f"for head in tl.static_range({schedule.matrices}):")
            outer.lines += [f"    {line}" for line in writer.lines]
        constants = {"ROWS": self.rows, "DEPTH": self.depth}
        if schedule.columns:
            constants["COLUMNS"] = schedule.columns
        if pieces > 1:
            constants["GROUP"] = schedule.group
        tiles = tile_count(self.via, self.rows)
        grid = replace(tiles, times=pieces, per_processor=schedule.persistent)
        variant = Variant((grid,), tuple(constants.items()), schedule.warps, schedule.stages)
        fields = {
            "body": outer.lines,
            "piece": self._piece,
            "pieces": pieces,
            "descriptors": list(self.descriptors.values()),
            "persistent": bool(schedule.persistent),
            "tiles": self._tiles(pieces),
            "matrices": self.matrices,
            "column_blocks": self.column_blocks,
        }
        launch = Launch(
            self.name,
            tuple(self.names.arguments.items()),
            (variant,),
            dot=self.product.factors,
            described=tuple(self.described),
            loops=(Loop(self.k, None, "DEPTH"),),
        )
        return Function(self.name, "gemm.py.jinja", launch, fields)

    def _write_shared(self, writer: Writer) -> None:
        """What all matrices of a row need: where it is, and what its index maps lead to."""
        of_matrix = {self.items("matrix"), *self.dots}
        for item in below([*self.stores, *(x for d in self.dots.values() for x in (d.left, d.right))]):
            if of_matrix.isdisjoint(item.args) and item not in of_matrix:
                if item.name and item not in self.stores:
                    writer.write([item])
            else:
                of_matrix.add(item)

    @property
    def _piece(self) -> str:
        """What a program's piece of a tile is called."""
        if self.schedule.matrices > 1:
            return "group"
        return "matrix" if self.column_blocks == 1 else "column" if self.matrices == 1 else "piece"

    def _tiles(self, pieces: int) -> str:
        """The number of tiles, if the function needs it."""
        if pieces == 1 and not self.schedule.persistent:
            return ""
        if self.via.coarse is Space.ONE:
            return f"({self.names.count(self.via.fine)} + {self.rows - 1}) // {self.rows}"
        return self.names.tiles(Tiles(self.via, self.rows))


_TAKEN = ("depth", "tile", "piece", "program", "matrix", "column", "group", "head")


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
