"""Numbers of members stand in the order in which they are computed."""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.intraop.kernels import Buffer, Kernel, Load, Traversal, reads, values_of, writes
from columba.ir.intraop.orders import reordered
from columba.ir.intraop.plan import Plan, is_sorted
from columba.ir.spaces import IndexMap
from columba.pipeline import Pass


@dataclass(frozen=True)
class SortRows(Pass[Plan]):
    """``temporary %x: edge[4]  -->  temporary %x: edge[4] sorted=dst_rel:edge->dst_rel``, if members of dst_rel's rows write it.

    A row of a few numbers fills a part of a memory line. Where members are walked in another order than the rows stand in, each row
    that is written costs a line read and a line written back, and each that is read a line. Sorted as they are written they cost what
    they are, and whoever reads them in another order pays once. It must not fire for results and saved values, which others know in the
    order of their space, nor where anything but members of traversals reads or writes the rows, or kernels of a group go over them.
    """

    def run(self, plan: Plan) -> Plan:
        orders: dict[Buffer, IndexMap | None] = {}
        for kernel in plan.kernels:
            if isinstance(kernel, Traversal) and kernel.via is not None and not is_sorted(kernel.via):
                for buffer in writes(kernel):
                    if buffer.role == "temporary" and buffer.order is None and buffer.type.space is kernel.via.fine:
                        orders[buffer] = kernel.via
        for kernel in plan.kernels:
            for buffer in _unsortable(kernel):
                orders.pop(buffer, None)
        for group, kernels in plan.units:
            for buffer in [b for k in kernels for b in (*reads(k), *writes(k))]:
                if group is not None and buffer.type.space is group.space:
                    orders.pop(buffer, None)
        return reordered(plan, orders)


def _unsortable(kernel: Kernel) -> list[Buffer]:
    """The buffers that a kernel uses otherwise than at its members, each at its own row."""
    if not isinstance(kernel, Traversal) or kernel.via is None:
        return [*reads(kernel), *writes(kernel)]
    member = kernel.via.fine
    loads = [v for v in values_of(kernel) if isinstance(v, Load)]
    return [v.buffer for v in loads if v.via is not None or v.at is not member]
