"""The work model: what kernels compute, and the bytes they move by the way in which they are reached, from their text.

All of it is linear in the rows of spaces, but for where a table is gathered from, which is a question of its size. A plan is walked
once, into a :class:`WorkFormula`; what it takes on another graph is that formula evaluated, in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from columba.ir.counts import Counts
from columba.ir.indices import Lookup, Order, Segments
from columba.ir.plan.kernels import (
    GemmReduce,
    HostCall,
    Kernel,
    Load,
    Product,
    Traversal,
    values_of,
    writes,
)
from columba.ir.plan.plan import Plan, index_arrays
from columba.ir.pointwise import POINTWISE
from columba.ir.program.ops import FeatureReduce, Linear, OuterReduce, Pointwise, Reduce, Slice, Uniform, Value
from columba.ir.spaces import Space
from columba.ir.types import TensorType

INDEX_BYTES = 4

WRITE = 2
"""Bytes that move for a byte written: a line of memory is read before it is written."""


@dataclass(frozen=True)
class Work:
    """What kernels do: floating-point operations, and bytes by the way in which they are reached.

    ``near`` bytes are gathered from tables that fit the last cache, ``far`` bytes from larger ones.
    """

    products: float = 0.0
    pointwise: float = 0.0
    streamed: float = 0.0
    near: float = 0.0
    far: float = 0.0
    kernels: int = 0


Rows = dict[Space, float]
"""A number for each row of a space."""


@dataclass(frozen=True)
class WorkFormula:
    """The work of kernels on any graph.

    ``products``, ``pointwise`` and ``streamed`` are what there is for each row of a space. ``gathers`` are bytes for each row of a space,
    by the space of the table that they are gathered from and the bytes of one of its rows.
    """

    products: Rows = field(default_factory=dict)
    pointwise: Rows = field(default_factory=dict)
    streamed: Rows = field(default_factory=dict)
    gathers: dict[tuple[Space, int], Rows] = field(default_factory=dict)
    kernels: int = 0

    def at(self, counts: Counts, cache: float) -> Work:
        """On a graph with these counts; tables of up to ``cache`` bytes count as near."""
        near = far = 0.0
        known = counts.by_space  # asked some thirty times, for every graph that comes
        for (table, size), rows in self.gathers.items():
            moved = _total(rows, known)
            if known[table] * size <= cache:
                near += moved
            else:
                far += moved
        products, pointwise = _total(self.products, known), _total(self.pointwise, known)
        return Work(products, pointwise, _total(self.streamed, known), near, far, self.kernels)


def _total(rows: Rows, known: Mapping[Space, int]) -> float:
    total = 0.0
    for space, each in rows.items():
        total += known[space] * each
    return total


def united(formulas: Iterable[WorkFormula]) -> WorkFormula:
    """Of all the kernels together."""
    products, pointwise, streamed = Rows(), Rows(), Rows()
    gathers: dict[tuple[Space, int], Rows] = {}
    kernels = 0
    for f in formulas:
        _add(products, f.products)
        _add(pointwise, f.pointwise)
        _add(streamed, f.streamed)
        for table, rows in f.gathers.items():
            _add(gathers.setdefault(table, {}), rows)
        kernels += f.kernels
    return WorkFormula(products, pointwise, streamed, gathers, kernels)


def _add(to: Rows, rows: Rows) -> None:
    for space, each in rows.items():
        to[space] = to.get(space, 0.0) + each


def kernel_work(kernel: Kernel, counts: Counts, cache: float) -> Work:
    """The work of one kernel on a graph with these counts; tables of up to ``cache`` bytes count as near."""
    return kernel_formula(kernel).at(counts, cache)


def plan_formula(plan: Plan) -> WorkFormula:
    """The work of all kernels of a plan."""
    return united(map(kernel_formula, plan.kernels))


def kernel_formula(kernel: Kernel) -> WorkFormula:
    """The work of one kernel."""
    if isinstance(kernel, HostCall):
        return _host_formula(kernel)
    values = values_of(kernel)
    narrowed = narrowed_loads(values)
    count = _Count(kernel)
    for v in values:
        count.value(v, narrowed)
    for buffer in writes(kernel):
        count.streamed(buffer.type.space, WRITE * _row_bytes(buffer.type))
    if isinstance(kernel, GemmReduce):
        lead = kernel.x.type.size // kernel.x.shape[-1]
        count.products(kernel.x.space, 2.0 * lead * kernel.x.shape[-1] * kernel.y.shape[-1])
    for array in index_arrays(kernel):
        if isinstance(array, (Lookup, Order)):
            count.streamed(array.map.fine, INDEX_BYTES)
        elif isinstance(array, Segments):
            count.streamed(array.map.coarse, INDEX_BYTES)
    return count.formula


def _row_bytes(t: TensorType) -> int:
    return t.size * t.dtype.itemsize


class _Count:
    """Adds up the work of the values of a kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self.formula = WorkFormula(kernels=1)
        self.walk = kernel.via if isinstance(kernel, (Traversal, GemmReduce)) else None
        self.owner = kernel.owner if isinstance(kernel, Traversal) else None

    def products(self, space: Space, each: float) -> None:
        _add(self.formula.products, {space: each})

    def pointwise(self, space: Space, each: float) -> None:
        _add(self.formula.pointwise, {space: each})

    def streamed(self, space: Space, each: float) -> None:
        _add(self.formula.streamed, {space: each})

    def value(self, v: Value, narrowed: Mapping[Value, int]) -> None:
        match v:
            case Pointwise():
                self.pointwise(v.space, v.type.size * POINTWISE[v.function].flops)
            case FeatureReduce():
                self.pointwise(v.space, v.x.type.size)
            case Reduce():
                self.pointwise(v.x.space, v.x.type.size)
            case Uniform():
                self.pointwise(v.space, 10.0 * v.type.size)
            case Product():
                self.products(v.space, 2.0 * v.x.type.size * v.shape[-1])
                self.streamed(v.w.type.space, _row_bytes(v.w.type))
            case Load():
                self._load(v, narrowed.get(v, v.type.size))

    def _load(self, v: Load, size: int) -> None:
        moved, table = float(size * v.dtype.itemsize), v.buffer.type
        member = self.walk is not None and v.at is self.walk.fine and v.at is not self.owner
        if v.via is None and not member:
            self.streamed(v.space, moved)
        elif table.space is not Space.ONE:
            _add(self.formula.gathers.setdefault((table.space, _row_bytes(table)), {}), {v.space: moved})


def narrowed_loads(values: list[Value]) -> dict[Value, int]:
    """For loads of which only slices are read: the elements that are."""
    read: dict[Value, set[tuple[int, int, int, int]]] = {}
    whole: set[Value] = set()
    for v in values:
        for c in v.children:
            if isinstance(c, Load) and isinstance(v, Slice):
                read.setdefault(c, set()).add((v.axis, v.start, v.stop, v.type.size))
            elif isinstance(c, Load):
                whole.add(c)
    return {v: min(v.type.size, sum(s[-1] for s in slices)) for v, slices in read.items() if v not in whole}


def _host_formula(kernel: HostCall) -> WorkFormula:
    """PyTorch runs operation by operation."""
    found = WorkFormula(kernels=len(kernel.program.body))
    for v in kernel.program.body:
        _add(found.streamed, {v.space: 2.0 * _row_bytes(v.type)})
        if isinstance(v, Linear):
            _add(found.products, {v.space: 2.0 * v.x.type.size * v.shape[-1]})
        if isinstance(v, OuterReduce):
            _add(found.products, {v.x.space: 2.0 * v.x.type.size * v.y.shape[-1]})
    return found
