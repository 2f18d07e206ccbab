"""Splitting of products: a product of joined rows is the sum of the products of their parts."""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.node import Node, rewrite
from columba.ir.program.ops import Concat, Constant, Lift, Linear, Pointwise, Slice, Value
from columba.ir.program.program import Program
from columba.passes.pipeline import Pass
from columba.passes.program.compact_materialization import CompactMaterialization, is_square


@dataclass(frozen=True)
class SplitLinear(Pass[Program]):
    """``linear(concat(a, b), W) --> linear(a, W[:k]) + linear(b, W[k:])`` where ``a`` or ``b`` can be multiplied in a coarser space.

    ``cat([source, target])`` is different for every edge, but neither half is. It must not fire where the joined rows can be
    computed in a coarser space as a whole, or where no part can.
    """

    def run(self, program: Program) -> Program:
        square = is_square(program)

        def rule(node: Node) -> Node:
            return _split(node, square) if isinstance(node, Linear) else node

        return program.with_results(rewrite(program.results, rule))


def _split(node: Linear, square: bool | None) -> Value:
    joined = node.x
    if not isinstance(joined, Concat) or node.via is None or joined.axis != len(joined.shape) - 1:
        return node
    compaction = CompactMaterialization()
    if compaction.join(joined, square) is not None:
        return node
    axis = len(node.w.shape) - (1 if node.transpose else 2)
    parts: list[Linear] = []
    start = 0
    for part in joined.args:
        stop = start + part.shape[-1]
        parts.append(Linear(part, Slice(node.w, axis, start, stop), node.via, node.transpose))
        start = stop
    if not any(compaction.join(p, square) is not None for p in parts if isinstance(p.x, (Lift, Constant))):
        return node
    total: Value = parts[0]
    for part_ in parts[1:]:
        total = Pointwise((total, part_), "add")
    return total
