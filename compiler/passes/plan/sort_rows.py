"""Buffer layouts: edge buffers are stored in their producer's traversal order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from columba.ir.plan.kernels import Buffer, Kernel, Load, Traversal, reads, values_of, writes
from columba.ir.plan.orders import reordered
from columba.ir.plan.plan import Plan, is_sorted
from columba.ir.spaces import IndexMap
from columba.passes.pipeline import Pass


@dataclass(frozen=True)
class SortRows(Pass[Plan]):
    """``temporary %x: edge[4]  -->  temporary %x: edge[4] sorted=dst_rel:edge->dst_rel``, if members of dst_rel's rows write it.

    A row of a few numbers fills a part of a memory line. Where members are walked in another order than the rows stand in, each row
    that is written costs a line read and a line written back, and each that is read a line. Sorted as they are written they cost what
    they are, and whoever reads them in another order pays once. It must not fire for results, which others know in the order of their
    space, nor where anything but members of traversals reads or writes the rows, or kernels of a group go over them.
    """

    def run(self, plan: Plan) -> Plan:
        return reordered(plan, _orders_of_writers(plan, [b for b in plan.buffers if b.role == "temporary"]))

    def run_pair(self, forward: Plan, backward: Plan, saved: Sequence[tuple[int, int]]) -> tuple[Plan, Plan]:
        return sort_saved(forward, backward, [(forward.outputs[n], backward.inputs[m]) for n, m in saved])


def sort_saved(forward: Plan, backward: Plan, saved: Iterable[tuple[Buffer, Buffer]]) -> tuple[Plan, Plan]:
    """The same for values that only ``backward`` reads: pairs of an output of ``forward`` and the input that it is there.

    ``@saved_0: edge[4]  -->  @saved_0: edge[4] sorted=dst:edge->node`` in both plans, if members of nodes write it. It must not fire for
    what anybody else sees, nor where either plan uses the rows otherwise than at members.
    """
    inputs = {output: input for output, input in saved if output.role == "output"}
    barred = _barred(backward)
    orders = {
        output: order for output, order in _orders_of_writers(forward, inputs).items() if inputs[output] not in barred
    }
    return reordered(forward, orders), reordered(backward, {inputs[b]: order for b, order in orders.items()})


def _orders_of_writers(plan: Plan, buffers: Iterable[Buffer]) -> dict[Buffer, IndexMap | None]:
    """The order in which members write the rows of each of the buffers, if it is not that of their space and rows may stand in it."""
    barred = _barred(plan)
    wanted = {b for b in buffers if b.order is None and b not in barred}
    orders: dict[Buffer, IndexMap | None] = {}
    for kernel in plan.kernels:
        if isinstance(kernel, Traversal) and kernel.via is not None and not is_sorted(kernel.via):
            for buffer in writes(kernel):
                if buffer in wanted and buffer.type.space is kernel.via.fine:
                    orders[buffer] = kernel.via
    return orders


def _barred(plan: Plan) -> set[Buffer]:
    """The buffers whose rows must stand in the order of their space."""
    barred = {b for kernel in plan.kernels for b in _unsortable(kernel)}
    for group, kernels in plan.units:
        if group is not None:
            barred.update(b for k in kernels for b in (*reads(k), *writes(k)) if b.type.space is group.space)
    return barred


def _unsortable(kernel: Kernel) -> list[Buffer]:
    """The buffers that a kernel uses otherwise than at its members, each at its own row."""
    if not isinstance(kernel, Traversal) or kernel.via is None:
        return [*reads(kernel), *writes(kernel)]
    member = kernel.via.fine
    loads = [v for v in values_of(kernel) if isinstance(v, Load)]
    return [v.buffer for v in loads if v.via is not None or v.at is not member]
