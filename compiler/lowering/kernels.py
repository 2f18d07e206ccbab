"""From level 1 to level 2: which values get a buffer, and the one kernel that fills each.

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
from columba.ir.node import Node, rewrite, topological, users
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
from columba.ir.pointwise import POINTWISE
from columba.ir.program import build
from columba.ir.program.ops import (
    ROW_FUNCTIONS,
    VIEWS,
    Constant,
    Degree,
    FeatureReduce,
    Input,
    Lift,
    Linear,
    OuterReduce,
    Permute,
    Pointwise,
    Reduce,
    Reshape,
    Slice,
    Softmax,
    Uniform,
    Value,
)
from columba.ir.program.program import Program
from columba.ir.spaces import WEIGHT_SPACES, IndexMap, Space, factor

EXPENSIVE_FLOPS = 8
"""A value that takes this many operations an element is worth a buffer when several kernels need it."""

SMALL_ROW = 16
"""Elements an edge may hold in a buffer; wider values are computed again rather than stored per edge."""

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
        self.order = program.body
        self.users = users(program.results)
        self.host = {v for v in self.order if _is_host(v)}
        self.anchored = self._anchors()
        self.buffers = self._name_buffers()

    # -------------------------------------------------------------------------------------------- which values get a buffer

    def _anchors(self) -> set[Value]:
        found = {v for v in self.program.results if not isinstance(v, Input)}
        for v in self.order:
            if isinstance(v, Softmax):
                raise TypeError("lowering: softmax must be expanded before")
            if v not in self.host and isinstance(v, (Linear, OuterReduce, Reduce, Degree)):
                found.add(v)
            if not isinstance(v, (Input, Constant)) and any(
                (u in self.host) != (v in self.host) for u in self.users[v]
            ):
                found.add(v)  # a value that crosses between PyTorch and kernels
        for v in self.order:
            if v in self.host:
                continue
            if isinstance(v, Lift):
                self._anchor_base(found, v.x)
            if isinstance(v, Linear):
                self._anchor_operand(found, v.x)
                self._anchor_weight(found, v.w)
            if isinstance(v, OuterReduce):
                self._anchor_operand(found, v.x)
                self._anchor_operand(found, v.y)
            if self._worth_sharing(v):
                found.add(v)
        return found

    def _anchor_base(self, found: set[Value], value: Value) -> None:
        """Gives a buffer to what is left of ``value`` when its views are peeled off."""
        base = _base(value)
        if not isinstance(base, (Input, Constant)):
            found.add(base)

    def _anchor_operand(self, found: set[Value], value: Value) -> None:
        """Gives a buffer to what a product reads, but for wide rows of edges, which its kernel computes as it reads them."""
        base = _base(value)
        if isinstance(base, ROW_FUNCTIONS) and base.space is Space.EDGE and base.type.size > SMALL_ROW:
            return
        self._anchor_base(found, _unlifted(value))

    def _anchor_weight(self, found: set[Value], w: Value) -> None:
        if not isinstance(_reshaped(w), Input):
            found.add(_reshaped(w))

    def _worth_sharing(self, v: Value) -> bool:
        """Whether a row-wise value has several readers and costs more to compute again than to keep."""
        if isinstance(v, (Input, Constant, Lift, Uniform, *VIEWS)) or len(self._readers(v)) < 2:
            return False
        if v.space is Space.EDGE and v.type.size > SMALL_ROW:
            return False
        flops = 0.0
        stack: list[Value] = [v]
        while stack:
            node = stack.pop()
            if isinstance(node, Pointwise):
                flops += POINTWISE[node.function].flops
            if isinstance(node, FeatureReduce):
                flops += node.x.type.size / max(1, node.type.size)
            if not isinstance(node, (Lift, Reduce, Linear, OuterReduce, Input)):
                stack.extend(c for c in node.children if isinstance(c, Value))
            if flops >= EXPENSIVE_FLOPS:
                return True
        return False

    def _readers(self, v: Value) -> set[Node]:
        """Who reads a row-wise value, directly or through views; of its slices, which hold different elements, the most read."""
        found: set[Node] = set()
        of_a_slice: set[Node] = set()
        for u in self.users[v]:
            if not isinstance(u, VIEWS) or u in self.program.results:
                found.add(u)
            elif isinstance(u, Slice):
                of_a_slice = max(of_a_slice, self._readers(u), key=len)
            else:
                found |= self._readers(u)
        return found | of_a_slice

    def _name_buffers(self) -> dict[Value, Buffer]:
        named: dict[Value, Buffer] = {i: Buffer(i.name, i.type, "input") for i in self.program.inputs}
        taken = {i.name for i in self.program.inputs}
        for name, result in zip(self.program.result_names, self.program.results, strict=True):
            if result in named:
                raise ValueError(f"lowering: result {name} is an input or another result")
            named[result] = Buffer(_fresh(name, taken), result.type, "output")
        for v in self.order:
            if v in self.anchored and v not in named:
                named[v] = Buffer(_fresh(f"{v.op_name}_{len(named)}", taken), v.type, "temporary")
        return named

    # -------------------------------------------------------------------------------------------- kernels

    def plan(self) -> Plan:
        kernels = [self._kernel(v) for v in self.order if v in self.anchored and v not in self.host]
        kernels += self._host_calls()
        inputs = tuple(self.buffers[i] for i in self.program.inputs)
        outputs = tuple(self.buffers[r] for r in self.program.results)
        return Plan(self.program.name, inputs, outputs, tuple(schedule_order(kernels)))

    def _kernel(self, v: Value) -> Kernel:
        out = self.buffers[v]
        name = f"{out.name}_kernel"
        match v:
            case Linear() if v.shape[-1] == 1:
                return Traversal(name, v.space, None, (Store(out, self._dot_product(v)),))
            case OuterReduce() if 1 in (v.x.shape[-1], v.y.shape[-1]):
                schedule = TraversalSchedule(split=SPLIT_MEMBERS)
                return Traversal(name, v.space, v.via, (Store(out, self._weighted(v)),), schedule)
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
        weight = self.buffers[_reshaped(v.w)]
        matrix = None if weight.type.shape == v.w.shape else v.w.shape
        return Product(self._row(v.x, None, top=False), weight, v.via, v.transpose, matrix)

    def _dot_product(self, v: Linear) -> Value:
        """A product with matrices of one column: a dot product in each row."""
        assert v.via is not None
        w = build.reshape(load(self.buffers[_reshaped(v.w)], v.via, None), (*v.w.shape[:-2], v.x.shape[-1]))
        x = self._row(v.x, None, top=False)
        return build.reshape(build.feature_sum(build.pointwise("mul", x, w), [-1]), v.shape)

    def _weighted(self, v: OuterReduce) -> Value:
        """A sum of outer products with vectors of one element: a sum of rows with a weight each."""
        assert v.via is not None
        x, y = (self._row(operand, v.via, top=False) for operand in (v.x, v.y))
        rows = build.pointwise("mul", x, y)  # one of the two is broadcast over the other's last axis
        if v.shared:
            rows = build.feature_sum(rows, range(len(rows.shape) - 1))
        return Reduce(build.reshape(rows, v.shape), v.via, "sum")

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


def _is_host(v: Value) -> bool:
    """Whether PyTorch computes it: a matrix product of weights alone."""
    return isinstance(v, (Linear, OuterReduce)) and v.children[0].space in WEIGHT_SPACES  # type: ignore[attr-defined]


def _unlifted(value: Value) -> Value:
    """What is below the views and the one lift of a product's operand: its rows can be read in place."""
    inner = _base(value)
    return inner.x if isinstance(inner, Lift) else value


def _reshaped(w: Value) -> Value:
    """The weight whose elements ``w`` shows, in the same order, under another shape."""
    while isinstance(w, Reshape):
        w = w.x
    return w


def _base(value: Value) -> Value:
    """What views show; a weight shown with its axes exchanged is a matrix of its own, whose rows are then contiguous."""
    while isinstance(value, VIEWS) and not (isinstance(value, Permute) and value.space in WEIGHT_SPACES):
        value = value.x
    return value


def _fresh(name: str, taken: set[str]) -> str:
    fresh, n = name, 1
    while fresh in taken:
        fresh, n = f"{name}_{n}", n + 1
    taken.add(fresh)
    return fresh


def load(buffer: Buffer, via: IndexMap | None, along: IndexMap | None) -> Value:
    """A row of ``buffer`` for a member: read once an owner where the owner determines it."""
    if via is None or along is None or via.fine is not along.fine:
        return Load(buffer, via, buffer.type.space if via is None else via.fine)
    if via == along:
        return Lift(Load(buffer, None, along.coarse), along)
    rest = factor(via, along)
    return Load(buffer, via, via.fine) if rest is None else Lift(Load(buffer, rest, along.coarse), along)
