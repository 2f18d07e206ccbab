"""Row values of level 2 as items: which number stands in which lane.

``value(v, index)`` is ``v`` at positions ``index`` of the row: views are arithmetic on the index, and loads are gathers at what comes
out. The values of a kernel that are not computed element by element (a reduction over members, a matrix product) are asked for at
an index too, and made as often as they are asked for differently.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from columba.codegen.triton.index import Component, Digit, Index, broadcast, flat, linear, moved, regroup, unpadded
from columba.codegen.triton.items import Axis, Item, Items
from columba.codegen.triton.names import TritonNames
from columba.codegen.triton.parts import Parts
from columba.codegen.triton.scalars import (
    CALLS,
    HALVES,
    INFIX,
    STORED,
    computed,
    literal,
    power_template,
    scalar_fields,
)
from columba.codegen.triton.schedule import power_of_two
from columba.ir.plan.kernels import Load, Product, Store
from columba.ir.pointwise import POINTWISE
from columba.ir.program.ops import (
    Cast,
    Concat,
    Constant,
    Degree,
    Expand,
    FeatureReduce,
    Lift,
    Pad,
    Permute,
    Pointwise,
    Reduce,
    Reshape,
    Slice,
    Uniform,
    Value,
)
from columba.ir.spaces import Space
from columba.ir.types import DType, Shape

GOLDEN = 0x9E3779B97F4A7C15


class UnsupportedValue(TypeError):
    """The Triton backend has no code for a value where it stands."""


@dataclass(frozen=True)
class Row:
    """The rows of one level that a block works on: positions in the kernel's walk, and which of them count.

    ``stored``: for which of these results are stored (None: for all).
    """

    position: Item
    valid: Item | None
    stored: Item | None = None


class Level(Protocol):
    """What a kind of kernel knows of its rows, and the values that only it can have."""

    def row(self, at: Space) -> Row: ...

    def number(self, at: Space) -> Item:
        """The rows' own numbers."""
        ...

    def lookup(self, load: Load) -> Item:
        """The rows that a load's map leads to."""
        ...

    def special(self, v: Value, index: Index) -> Item:
        """A reduction over members, a degree, or a product."""
        ...


class Values:
    """Makes items for the values of one kernel. Feature axes come after the first ``rows`` dimensions of its blocks.

    ``parts`` says of sizes that a dimension of this size is gone over along several axes.
    """

    def __init__(self, items: Items, names: TritonNames, rows: int, level: Level, parts: Parts | None = None) -> None:
        self.items = items
        self.names = names
        self.rows = rows
        self.level = level
        self.parts = parts or {}
        self.known: dict[tuple[Value, Index], Item] = {}
        self.row_bytes: dict[Item, int] = {}  # of loads, how much of a row they read

    # -------------------------------------------------------------------------------------------- axes

    def axis(self, slot: int, size: int) -> Axis:
        return Axis(self.rows + slot, str(power_of_two(size)), size)

    def lanes(self, axis: Axis) -> Item:
        """The positions along a feature axis."""
        name = {"DEPTH": "k", "COLUMNS": "n"}.get(axis.block, f"f{axis.dim - self.rows}")
        start = f"{axis.start} + " if axis.start else ""
        return self.items(f"{start}tl.arange(0, {axis.block}){{at{axis.dim}}}", name=name, add=[axis])

    def digit(self, slot: int, size: int) -> Digit:
        return Digit(self.lanes(self.axis(slot, size)), size)

    def inside(self, axis: Axis) -> Item | None:
        """Which lanes of a feature axis count; None if all do."""
        if axis.size is None or (axis.block.isdigit() and int(axis.block) == axis.size):
            return None
        return self.items(f"{{0:a}} < {axis.size}", self.lanes(axis), name="mask", nested=True)

    def masks(self, axes: Sequence[Axis] | frozenset[Axis]) -> list[Item]:
        found = [self.inside(a) for a in sorted(axes, key=lambda a: (a.dim, a.block)) if a.dim >= self.rows]
        return [m for m in found if m is not None]

    def free_slots(self, index: Index, wanted: Sequence[int]) -> list[int]:
        """Slots for new axes beside those that an index varies along, the wanted ones where they are free."""
        used = {a.dim - self.rows for d in flat(index) for x in (d.value, *d.guards) for a in x.axes}
        found: list[int] = []
        for slot in wanted:
            while slot in used:
                slot += 1
            used.add(slot)
            found.append(slot)
        return found

    # -------------------------------------------------------------------------------------------- values

    def value(self, v: Value, index: Index) -> Item:
        """``v`` at ``index``."""
        key = (v, index)
        if key not in self.known:
            self.known[key] = self._value(v, index)
        return self.known[key]

    def _value(self, v: Value, index: Index) -> Item:
        items = self.items
        match v:
            case Load():
                return self._load(v, flat(index))
            case Constant():
                return items(literal(v.value, v.dtype))
            case Pointwise():
                return self._pointwise(v, [self.value(a, broadcast(index, a.shape)) for a in v.args])
            case Cast():
                return self._cast(v, self.value(v.x, index))
            case FeatureReduce():
                return self._feature_reduce(v, index)
            case Lift():
                return self.value(v.x, index)
            case Expand():
                return self.value(v.x, broadcast(index, v.x.shape))
            case Permute():
                inner = dict(zip(v.order, index, strict=True))
                return self.value(v.x, tuple(inner[a] for a in range(len(index))))
            case Slice():
                component = moved(items, index[v.axis], v.step, v.start, v.x.shape[v.axis])
                return self.value(v.x, _replaced(index, v.axis, component))
            case Pad():
                component, inside = unpadded(items, index[v.axis], v.step, v.start, v.x.shape[v.axis])
                x = self.block(self.value(v.x, _replaced(index, v.axis, component)), v.dtype)
                return items("tl.where({0}, {1}, 0)", inside, x, name="pad")
            case Reshape():
                return self.value(v.x, regroup(items, flat(index), v.x.shape))
            case Concat():
                return self._concat(v, index)
            case Uniform():
                return self._uniform(v, index)
            case Reduce() | Degree() | Product():
                return self.level.special(v, index)
        raise UnsupportedValue(f"the Triton backend has no code for {v.op_name}")

    def block(self, item: Item, dtype: DType) -> Item:
        """An item that may be a Python number as a block."""
        if item.name or item.args:
            return item
        return self.items(f"tl.full({{ones}}, {item.text}, {computed(dtype)})", name="constant")

    def pointer(self, buffer_name: str, row: Item | None, size: int, element: Item | None) -> Item:
        """The address of elements of rows."""
        items = self.items
        at = items(buffer_name)
        if row is not None:
            name = f"{buffer_name.removesuffix('_ptr')}_row"
            at = items(f"{{0}} + {{1:a}} * {size}" if size != 1 else "{0} + {1:a}", at, row, name=name, nested=True)
        if element is not None:
            at = items("{0} + {1:a}", at, element, name="place", nested=True)
        return at

    def _load(self, v: Load, digits: Component) -> Item:
        items = self.items
        t = v.buffer.type
        row: Item | None = None
        masks: list[Item] = []
        if t.space is not Space.ONE:
            row = self.level.number(v.at) if v.via is None else self.level.lookup(v)
            valid = self.level.row(v.at).valid
            is_of_rows = valid is not None and bool(
                valid.axes & row.axes
            )  # else all of them lead to one row, which there is
            masks += [valid] if valid is not None and is_of_rows else []
        element = linear(items, digits)
        if row is None and element is None:
            element = items("tl.full({ones}, 0, tl.int32)")  # so that scalars are blocks, too
        guards = [g for d in digits for g in d.guards]
        masks += [*self.masks(frozenset() if element is None else element.axes), *guards]
        mask = items.all_of(masks)
        place = self.pointer(self.names.buffer(v.buffer), row, t.size, element)
        name = self.names.hint(v.buffer) + (f"_{v.via.name}" if v.via is not None and row is not None else "")
        convert = ".to(tl.float32)" if t.dtype in HALVES else ""
        if mask is None:
            loaded = items(f"tl.load({{0}}){convert}", place, name=name)
        else:
            text = f"tl.load({{0}}, mask={{1}}, other={literal(0, v.dtype)}){convert}"
            loaded = items(text, place, mask, name=name, masks=frozenset(masks))
        lanes = math.prod(int(a.block) for a in loaded.axes if a.dim >= self.rows and a.block.isdigit())
        self.row_bytes[loaded] = lanes * t.dtype.itemsize
        return loaded

    def _pointwise(self, v: Pointwise, args: list[Item]) -> Item:
        infix = INFIX.get(v.function)
        plain = [not (a.name or a.args) for a in args]
        if infix is None or all(plain):
            keep = infix is not None
            args = [
                a if keep and n else self.block(a, of.dtype) for n, (a, of) in enumerate(zip(args, v.args, strict=True))
            ]
        if infix is not None:
            return self.items(infix, *args, name=v.function, nested=True)
        if v.function == "pow_scalar":
            return self.items(power_template(v.scalars[0]), *args, name="power", nested=True)
        fields = scalar_fields(POINTWISE[v.function].scalars, v.scalars)
        text = CALLS[v.function]
        for name, value in fields.items():
            shown = f"({value})" if value.startswith("-") else value
            text = text.replace(f"{{{name}:a}}", shown).replace(f"{{{name}}}", value)
        return self.items(text, *args, name=v.function, nested=True)

    def _cast(self, v: Cast, x: Item) -> Item:
        source, target = v.x.dtype, v.to
        x = self.block(x, source)
        if target is DType.BOOL:
            return self.items("{0:a} != 0", x, name="cast", nested=True)
        if target in HALVES and not v.loose:
            rounded = f"{{0:a}}.to({STORED[target]}).to(tl.float32)"
            return x if source is target else self.items(rounded, x, name="rounded", nested=True)
        if computed(source) == computed(target):
            return x
        return self.items(f"{{0:a}}.to({computed(target)})", x, name="cast", nested=True)

    def _feature_reduce(self, v: FeatureReduce, index: Index) -> Item:
        sizes = [v.x.shape[a] for a in v.axes]
        if 0 in sizes:
            if v.op != "sum":
                raise UnsupportedValue(f"feature_reduce: {v.op} over no elements")
            return self.items(literal(0, v.dtype))
        new = self._new_components(index, v)
        kept = iter(index)
        inner = tuple(new[a] if a in new else next(kept) for a in range(len(v.x.shape)))
        x = self.block(self.value(v.x, inner), v.dtype)
        axes = {a for component in new.values() for d in component for a in d.value.axes}
        spread = sorted(axes & x.axes, key=lambda a: -a.dim)
        x = self.restricted(x, self.masks(frozenset(spread)), _start(v.op))
        for axis in spread:
            x = self.items(f"{_FOLDS[v.op]}({{0}}, {axis.dim})", x, name=v.op, drop=[axis], nested=True)
        times = math.prod(a.size or 1 for a in axes - set(spread))
        if v.op == "sum" and times != 1:
            x = self.items(f"{{0:a}} * {times}", x, name="sum", nested=True)
        return x

    def _new_components(self, index: Index, v: FeatureReduce) -> dict[int, Component]:
        """Axes for what is reduced, beside those of the index; where there are no parts, in the dimensions' own slots if free."""
        radices = {a: self._radices(v.x.shape[a]) for a in v.axes}
        wanted = [a + n for a, some in radices.items() for n in range(len(some))]
        slots = iter(self.free_slots(index, wanted))
        return {a: tuple(self.digit(next(slots), n) for n in some) for a, some in radices.items()}

    def _radices(self, n: int) -> Shape:
        """The axes along which a dimension of ``n`` is gone over."""
        return () if n == 1 else self.parts.get(n, (n,))

    def restricted(self, x: Item, masks: Sequence[Item], otherwise: str) -> Item:
        """``x``, and a neutral number where the masks do not hold."""
        if otherwise == "0":
            masks = [m for m in masks if m not in x.masks]
        mask = self.items.all_of(masks)
        if mask is None:
            return x
        return self.items(f"tl.where({{0}}, {{1}}, {otherwise})", mask, x, name="counted", nested=True)

    def _concat(self, v: Concat, index: Index) -> Item:
        parts = []
        start = 0
        for part in v.args:
            size = part.shape[v.axis]
            if size:
                component, inside = unpadded(self.items, index[v.axis], 1, start, size)
                parts.append((inside, self.block(self.value(part, _replaced(index, v.axis, component)), v.dtype)))
            start += size
        if not parts:
            return self.items(literal(0, v.dtype))
        found = parts[-1][1]
        for inside, x in reversed(parts[:-1]):
            found = self.items("tl.where({0}, {1}, {2})", inside, x, found, name="concat")
        return found

    def _uniform(self, v: Uniform, index: Index) -> Item:
        seed = self.value(v.seed, ())
        number = self.level.number(v.space)
        element = linear(self.items, flat(index))
        text = f"{{0:a}} * {v.type.size}" if v.type.size != 1 else "{0}"
        number = self.items(text, number, name="number", nested=True)
        if element is not None:
            number = self.items("{0} + {1:a}", number, element, name="number", nested=True)
        function = "uniform_double" if v.to is DType.F64 else "uniform_float"
        item = self.items(f"{function}({{0}}, {v.salt * GOLDEN % 2**64}, {{1}})", seed, number, name="uniform")
        if v.to in HALVES:
            item = self.items(f"{{0}}.to({STORED[v.to]}).to(tl.float32)", item, name="uniform", nested=True)
        return item

    # -------------------------------------------------------------------------------------------- stores

    def iteration(self, shape: Shape) -> Index:
        """An index over a whole row, each dimension along an axis of its own."""
        found: list[Component] = []
        slot = 0
        for n in shape:
            some = self._radices(n)
            found.append(tuple(self.digit(slot + k, radix) for k, radix in enumerate(some)))
            slot += max(1, len(some))
        return tuple(found)

    def store(self, store: Store, index: Index, place: Item) -> Item:
        """The statement that writes a row: ``store.value`` at ``index`` to ``place``, which is where that is."""
        masks = self.masks(place.axes)
        row = self.level.row(store.value.space)
        valid = row.stored or row.valid
        mask = self.items.all_of([*([] if valid is None else [valid]), *masks])
        value = self.value(store.value, index)
        if mask is None:
            return self.items("tl.store({0}, {1})", place, value)
        return self.items("tl.store({0}, {1}, mask={2})", place, value, mask)


_FOLDS = {"sum": "sum_along", "max": "max_along", "min": "min_along"}


def _start(op: str) -> str:
    return {"sum": "0", "max": "-float('inf')", "min": "float('inf')"}[op]


start_of = _start


def fold_of(op: str) -> str:
    """The function of the prelude that reduces a block along a dimension."""
    return _FOLDS[op]


def _replaced(index: Index, axis: int, component: Component) -> Index:
    return (*index[:axis], component, *index[axis + 1 :])


def pieces_of(items: Items, v: Value) -> list[tuple[Value, Callable[[Index], Index]]]:
    """What a store is made of, and where a piece's index is in the whole: the operands of a concatenation are stored each on its own."""
    while isinstance(v, Reshape):  # a row is stored flat, so that reshaping last is nothing
        v = v.x
    if not isinstance(v, Concat):
        return [(v, lambda index: index)]
    found: list[tuple[Value, Callable[[Index], Index]]] = []
    start = 0
    for part in v.args:
        if part.type.size:
            found.append((part, functools.partial(_in_whole, items, v, start)))
        start += part.shape[v.axis]
    return found


def _in_whole(items: Items, whole: Concat, start: int, index: Index) -> Index:
    component = moved(items, index[whole.axis], 1, start, whole.shape[whole.axis])
    return _replaced(index, whole.axis, component)
