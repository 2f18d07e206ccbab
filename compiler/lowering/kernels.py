"""From level 1 to level 2: the one kernel that fills each buffer.

    linear        --> gemm           reduce    --> traversal over the owners' members
    outer_reduce  --> gemm_reduce    row-wise  --> traversal over the rows
    products with vectors  --> traversals, of dot products or of weighted sums
    products of weights --> host call

Every kernel computes its value from buffers; what has no buffer is computed again where it is needed. Kernels that could be
one are fused afterwards, on the plan (:mod:`columba.passes.plan.fuse_traversals`), which makes most of these buffers
disappear again.
"""

from __future__ import annotations

from collections.abc import Sequence

from columba.gradient.differentiate import without_gradients
from columba.ir.node import Node, rewrite, topological
from columba.ir.plan.dataflow import schedule_order
from columba.ir.plan.kernels import (
    Buffer,
    Gemm,
    GemmReduce,
    HostCall,
    Kernel,
    Load,
    Product,
    Store,
    Traversal,
    TraversalSchedule,
)
from columba.ir.plan.plan import Plan
from columba.ir.program import build
from columba.ir.program.ops import (
    VIEWS,
    Constant,
    Degree,
    Input,
    Lift,
    Linear,
    OuterReduce,
    Reduce,
    Value,
)
from columba.ir.program.program import Program
from columba.ir.spaces import WEIGHT_SPACES, IndexMap, factor
from columba.ir.types import DType
from columba.lowering.buffers import Buffers, rounding_of, weight_of

SPLIT_MEMBERS = 4096
"""Members a tile, where owners are few and their members many."""


def lower(program: Program) -> Plan:
    """The plan of a program: one kernel for each value that gets a buffer, in an order in which they can run.

    Results must be distinct and not inputs; softmax and per-row matrices must have been rewritten before.
    """
    return _Lowering(without_gradients(program)).plan()


class _Lowering:
    def __init__(self, program: Program) -> None:
        self.program = program
        found = Buffers(program)
        self.order, self.host, self.anchored, self.buffers = found.order, found.host, found.anchored, found.named
        self.widened = {cast: outer for outer, cast in found.widened.items()}

    def plan(self) -> Plan:
        kernels = [self._kernel(v) for v in self.order if v in self.anchored and v not in self.host]
        kernels += self._host_calls()
        inputs = tuple(self.buffers[i] for i in self.program.inputs)
        outputs = tuple(self.buffers[r] for r in self.program.results)
        return Plan(self.program.name, inputs, outputs, tuple(schedule_order(kernels)))

    def _kernel(self, v: Value) -> Kernel:
        out = self.buffers[v]
        name = f"{out.name}_kernel"
        v = self.widened.get(v, v)  # type: ignore[call-overload]
        match v:
            case Linear() if v.shape[-1] == 1:
                return Traversal(name, v.space, None, (Store(out, self._dot_product(v)),))
            case OuterReduce() if 1 in (v.x.shape[-1], v.y.shape[-1]):
                schedule = TraversalSchedule(split=SPLIT_MEMBERS)
                return Traversal(name, v.space, v.via, (Store(out, self._weighted(v, out.type.dtype)),), schedule)
            case Linear():
                assert v.via is not None
                product = self._product(v)
                return Gemm(name, (Store(out, product),))
            case OuterReduce():
                assert v.via is not None
                x, y = (self._row(operand, None, top=False) for operand in (v.x, v.y))
                return GemmReduce(name, x, y, v.via, v.shared, out)
            case Reduce():
                schedule = TraversalSchedule(split=SPLIT_MEMBERS if v.space in WEIGHT_SPACES else 0)
                stores = (Store(out, Reduce(self._row(v.x, v.via, top=False), v.via, v.op)),)
                return Traversal(name, v.space, v.via, stores, schedule)
            case Degree():
                return Traversal(name, v.space, v.via, (Store(out, v),))
            case _:
                return Traversal(name, v.space, None, (Store(out, self._row(v, None, top=True)),))

    def _product(self, v: Linear) -> Product:
        """A product with the weight in its buffer, read as a matrix whatever its shape."""
        weight = self.buffers[weight_of(v.w)]
        matrix = None if weight.type.shape == v.w.shape else v.w.shape
        return Product(self._row(v.x, None, top=False), weight, v.via, v.transpose, matrix, rounding_of(v.w))

    def _dot_product(self, v: Linear) -> Value:
        """A product with matrices of one column: a dot product in each row."""
        assert v.via is not None
        w = load(self.buffers[weight_of(v.w)], v.via, None)
        w = build.cast(build.cast(w, rounding_of(v.w) or w.dtype), v.w.dtype)
        w = build.reshape(w, (*v.w.shape[:-2], v.x.shape[-1]))
        x = self._row(v.x, None, top=False)
        return build.reshape(build.feature_sum(build.pointwise("mul", x, w), [-1]), v.shape)

    def _weighted(self, v: OuterReduce, dtype: DType) -> Value:
        """A sum of outer products with vectors of one element: a sum of rows with a weight each, in ``dtype``."""
        assert v.via is not None
        x, y = (self._row(operand, v.via, top=False) for operand in (v.x, v.y))
        rows = build.pointwise("mul", x, y)  # one of the two is broadcast over the other's last axis
        if v.shared:
            rows = build.feature_sum(rows, range(len(rows.shape) - 1))
        return Reduce(build.cast(build.reshape(rows, v.shape), dtype), v.via, "sum")

    def _row(self, value: Value, along: IndexMap | None, *, top: bool) -> Value:
        """``value`` written with loads; ``top``: although it has a buffer, since this is what fills it."""
        leaves: dict[Node, Node] = {}
        root = value if top else None
        stack, seen = [value], set()
        while stack:
            v = stack.pop()
            if v in seen:
                continue
            seen.add(v)
            if isinstance(v, Lift):
                leaves[v] = self._lifted(v, along)
            elif v is not root and v in self.buffers:
                leaves[v] = Load(self.buffers[v], None, v.space)
            else:
                stack.extend(c for c in v.children if isinstance(c, Value))
        return rewrite((value,), lambda node: node, leaves)[0]

    def _lifted(self, v: Lift, along: IndexMap | None) -> Value:
        """A lift as a load, with the views that lay below it done above."""
        views: list[Value] = []
        base = v.x
        while base not in self.buffers and isinstance(base, VIEWS):
            views.append(base)
            base = base.x
        value: Value
        if isinstance(base, Constant):
            value = Constant(v.via.fine, base.value, base.to)
        else:
            value = load(self.buffers[base], v.via, along)
        for view in reversed(views):
            value = view.with_children([value])
        return value

    def _host_calls(self) -> list[HostCall]:
        """One call for all host values between the same kernels."""
        stage: dict[Value, int] = {}
        for v in self.order:
            below = [stage[c] + (v not in self.host and c in self.host) for c in v.children if isinstance(c, Value)]
            stage[v] = max(below, default=0)
        groups: dict[int, list[Value]] = {}
        for v in self.order:
            if v in self.anchored and v in self.host:
                groups.setdefault(stage[v], []).append(v)
        return [self._host_call(n, values) for n, values in sorted(groups.items())]

    def _host_call(self, n: int, values: Sequence[Value]) -> HostCall:
        edge: dict[Value, Input] = {}
        for v in topological(values):
            assert isinstance(v, Value)
            if v not in self.host and v in self.buffers and v not in edge:
                edge[v] = Input(self.buffers[v].name, v.type)
        stack, reached = list(values), dict[Value, None]()
        while stack:
            v = stack.pop()
            if v in edge:
                reached[v] = None
            else:
                stack.extend(c for c in v.children if isinstance(c, Value))
        used = [v for v in edge if v in reached]
        results = rewrite(values, lambda node: node, dict(edge.items()))
        names = tuple(self.buffers[v].name for v in values)
        program = Program(f"host_{n}", tuple(edge[v] for v in used), results, names)
        return HostCall(
            f"host_{n}", program, tuple(self.buffers[v] for v in used), tuple(self.buffers[v] for v in values)
        )


def load(buffer: Buffer, via: IndexMap | None, along: IndexMap | None) -> Value:
    """A row of ``buffer`` for a member: read once an owner where the owner determines it."""
    if via is None or along is None or via.fine is not along.fine:
        return Load(buffer, via, buffer.type.space if via is None else via.fine)
    if via == along:
        return Lift(Load(buffer, None, along.coarse), along)
    rest = factor(via, along)
    return Load(buffer, via, via.fine) if rest is None else Lift(Load(buffer, rest, along.coarse), along)
