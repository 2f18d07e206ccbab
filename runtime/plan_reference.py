"""What level 2 means, in plain PyTorch: kernel by kernel, whatever the schedules. The oracle of lowering, passes on plans, and backends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from torch import Tensor

from columba.ir.indices import IndexArray, Lookup, Order, Segments
from columba.ir.node import topological
from columba.ir.plan.kernels import Buffer, GemmReduce, HostCall, Load, Product, roots_of, writes
from columba.ir.plan.plan import Plan
from columba.ir.program.ops import Cast, Input, Lift, Linear, OuterReduce, Value
from columba.runtime.reference import Compute, compute, evaluate
from columba.runtime.structure import Structure

Held = dict[Buffer, Tensor]


def run_plan(plan: Plan, inputs: Sequence[Tensor], graph: Structure) -> list[Tensor]:
    """The outputs of a plan for its inputs, of whose kernels each computes all rows at once.

    Schedules, groups and the orders in which rows are stored change nothing here: buffers have the rows of their space in its order.
    ``graph`` is asked for the arrays that the maps of ``plan.index_arrays`` have in the order of their own rows: see
    :func:`arrays_of`.
    """
    held = run_kernels(plan, inputs, graph)
    return [held[b] for b in plan.outputs]


def run_kernels(
    plan: Plan,
    inputs: Sequence[Tensor],
    graph: Structure,
    computed: Compute = compute,
    stored: Callable[[Buffer, Tensor], Tensor] = lambda buffer, rows: rows,
) -> Held:
    """All buffers of a plan, as :func:`run_plan` computes them.

    ``computed`` may say otherwise what operations mean, ``stored`` what is kept of the rows that a kernel computes for a buffer.
    """
    held: Held = dict(zip(plan.inputs, inputs, strict=True))
    for kernel in plan.kernels:
        if isinstance(kernel, HostCall):
            found = evaluate(kernel.program, [held[b] for b in kernel.args], graph, computed)
        else:
            found = _rows(roots_of(kernel), held, graph, computed)
        if isinstance(kernel, GemmReduce):
            x, y = (Input("operand", v.type) for v in (kernel.x, kernel.y))
            found = [computed(OuterReduce(x, y, kernel.via, kernel.shared), graph, found)]
        held.update((b, stored(b, rows)) for b, rows in zip(writes(kernel), found, strict=True))
    return held


def arrays_of(plan: Plan) -> tuple[IndexArray, ...]:
    """The index arrays that :func:`run_plan` may ask for."""
    maps = dict.fromkeys(array.map for array in plan.index_arrays)
    return tuple(array for m in maps for array in (Lookup(m), Segments(m), Order(m)))


def _rows(roots: Sequence[Value], held: Held, graph: Structure, computed: Compute) -> list[Tensor]:
    values: dict[Value, Tensor] = {}
    order = [v for v in topological(roots) if isinstance(v, Value)]
    readers = Counter(c for v in order for c in v.children)
    readers.update(roots)
    for v in order:
        operands = [values[c] for c in v.children]  # type: ignore[index]
        match v:
            case Load():
                row = held[v.buffer]
                lifted = None if v.via is None else Lift(Input("row", v.buffer.type), v.via)
                values[v] = row if lifted is None else computed(lifted, graph, [row])
            case Product():
                matrix = Input("weight", v.w.type.with_shape(v.weight_shape))
                weight = held[v.w]
                if v.rounded is not None:
                    weight = computed(Cast(Input("stored", v.w.type), v.rounded), graph, [weight])
                if matrix.dtype is not v.dtype:
                    weight = computed(Cast(Input("stored", v.w.type), v.dtype), graph, [weight])
                    matrix = Input("weight", matrix.type.with_dtype(v.dtype))
                product = Linear(v.x, matrix, v.via, v.transpose)
                rows = weight.shape[: weight.dim() - len(v.w.type.shape)]
                values[v] = computed(product, graph, [*operands, weight.reshape(rows + v.weight_shape)])
            case _:
                values[v] = computed(v, graph, operands)
        for c in v.children:  # what nobody reads any more is freed: rows of edges are many
            readers[c] -= 1
            if not readers[c]:
                del values[c]  # type: ignore[arg-type]
    return [values[root] for root in roots]
