"""Buffer layouts: plans whose buffers stand in other orders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from columba.ir.node import Node, rewrite
from columba.ir.plan.kernels import Buffer, Kernel, Load, Store, Traversal, roots_of
from columba.ir.plan.plan import Plan
from columba.ir.spaces import IndexMap


def reordered(plan: Plan, orders: Mapping[Buffer, IndexMap | None]) -> Plan:
    """``plan`` with the rows of the buffers ``orders`` stored in these orders; only members of traversals may use them.

    Whoever hands the plan an input, or reads an output of it, must know its order.
    """
    if not orders:
        return plan
    placed = {b: replace(b, order=order) for b, order in orders.items()}

    def moved(node: Node) -> Node:
        if isinstance(node, Load) and node.buffer in placed:
            return Load(placed[node.buffer], node.via, node.at)
        return node

    def rebuilt(kernel: Kernel) -> Kernel:
        if not isinstance(kernel, Traversal):
            return kernel
        values = rewrite(roots_of(kernel), moved)
        stores = tuple(Store(placed.get(s.buffer, s.buffer), v) for s, v in zip(kernel.stores, values, strict=True))
        return replace(kernel, stores=stores)

    return replace(
        plan,
        inputs=tuple(placed.get(b, b) for b in plan.inputs),
        outputs=tuple(placed.get(b, b) for b in plan.outputs),
        kernels=tuple(map(rebuilt, plan.kernels)),
    )


def in_own_order(plan: Plan) -> Plan:
    """``plan`` with all rows in the order of their spaces."""
    return reordered(plan, {b: None for b in plan.buffers if b.order is not None})
