"""Composition of reductions: a sum of sums is one sum."""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.node import Node
from columba.ir.program import build as b
from columba.ir.program.ops import Constant, Expand, Permute, Pointwise, Reduce, Reshape, Value
from columba.ir.program.program import Program
from columba.ir.spaces import WEIGHT_SPACES, IndexMap, Space, compose
from columba.passes.pipeline import Pass
from columba.passes.program.rewriting import Rewriter

FEW = (*WEIGHT_SPACES, Space.GRAPH)
"""Spaces of whose rows each is a sum of many nodes."""


@dataclass(frozen=True)
class MergeReductions(Pass[Program]):
    """``reduce(s * reduce(x, edge->dst_rel), dst_rel->dst) --> reduce(lift(s) * x, edge->dst)``.

    Per-relation means are summed over relations without a row per (destination, relation) pair. Between the two sums only
    what is linear in the inner one may stand: factors, divisors, signs, views. It must not fire where the inner sum has another
    reader, which needs it anyway, or where the result is one row per relation or per graph, of which there are few: a sum in two
    steps is then the faster one, and wants no edges sorted by graph.
    """

    def run(self, program: Program) -> Program:
        rewriter = Rewriter(program)

        def rule(node: Node) -> Node:
            if not isinstance(node, Reduce) or node.op != "sum" or node.space in FEW:
                return node
            chain, inner = _linear_chain(node.x)
            if not isinstance(inner, Reduce) or inner.op != "sum" or inner.via.fine is not Space.EDGE:
                return node
            if not all(map(rewriter.once, (*chain, inner))):
                return node
            return b.reduce_sum(_replay(chain, inner), compose(inner.via, node.via))

        return rewriter.run(rule)


def _linear_chain(value: Value) -> tuple[list[Value], Value]:
    """The operations, outermost first, that are linear in one operand, and what is below them."""
    chain: list[Value] = []
    while True:
        operand = _linear_operand(value)
        if operand is None:
            return chain, value
        chain.append(value)
        value = operand


def _linear_operand(value: Value) -> Value | None:
    if isinstance(value, (Reshape, Permute)):
        return value.x
    if isinstance(value, Pointwise):
        if value.function in ("neg", "div") and value.args[0].shape == value.shape:
            return value.args[0]
        if value.function == "mul":
            return next((a for a in value.args if a.shape == value.shape and _holds_reduction(a)), None)
    return None


def _holds_reduction(value: Value) -> bool:
    return isinstance(_linear_chain(value)[1], Reduce)


def _replay(chain: list[Value], inner: Reduce) -> Value:
    """The chain on the members of ``inner`` instead of on its sums."""
    value = inner.x
    for step in reversed(chain):
        below = _linear_operand(step)
        value = step.with_children([value if c is below else _lifted(c, inner.via) for c in step.children])  # type: ignore[arg-type]
    return value


def _lifted(value: Value, via: IndexMap) -> Value:
    if isinstance(value, Constant):
        return b.lift(value, via)
    return b.expand(b.lift(value.x, via), value.to) if isinstance(value, Expand) else b.lift(value, via)
