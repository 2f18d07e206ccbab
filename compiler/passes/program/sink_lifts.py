"""Rematerialization: what costs nothing to compute again is not stored in a pair space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from columba.ir.node import Node
from columba.ir.pointwise import POINTWISE
from columba.ir.program import build as b
from columba.ir.program.ops import VIEWS, Cast, Constant, Input, Lift, Pointwise, Value
from columba.ir.program.program import Program
from columba.ir.spaces import PAIR_SPACES
from columba.passes.pipeline import Pass
from columba.passes.program.rewriting import Rewriter


@dataclass(frozen=True)
class SinkLifts(Pass[Program]):
    """``lift(lift a * s, src_rel) --> lift a * lift s``: the counterpart of compact materialization, for cheap wide values.

    Scaling a node's row once for every (node, relation) pair costs a row of memory a pair, and reading that row again an edge;
    scaling it in flight costs a multiplication. It fires where a row of more than ``small`` elements in a pair space is
    computed by functions of at most ``flops`` operations an element from wide rows that are lifts themselves and from small ones,
    and only lifts read it. It must not fire where a product or reduction made the row: that is what pair spaces are for.
    """

    small: int = 16
    flops: int = 4

    def run(self, program: Program) -> Program:
        rewriter = Rewriter(program)
        sunk: dict[Value, bool] = {}

        def cheap(v: Value) -> bool:
            if v not in sunk:
                sunk[v] = self._cheap(v, cheap) and not rewriter.is_result(v)
            return sunk[v]

        def only_lifted(v: Value) -> bool:
            return all(
                isinstance(u, Lift) or (isinstance(u, Value) and cheap(u) and only_lifted(u))
                for u in rewriter.readers(v)
            )

        targets = {
            v
            for v in program.body
            if v.space in PAIR_SPACES and v.type.size > self.small and cheap(v) and only_lifted(v)
        }
        if not any(isinstance(v, Lift) and v.x in targets for v in program.body):
            return program

        def rule(node: Node) -> Node:
            if isinstance(node, Lift) and rewriter.original(node.x) in targets:
                return _sink(node, rewriter, targets)
            return node

        return rewriter.run(rule)

    def _cheap(self, v: Value, cheap: Callable[[Value], bool]) -> bool:
        if isinstance(v, Pointwise):
            if POINTWISE[v.function].flops > self.flops:
                return False
        elif not isinstance(v, (Cast, *VIEWS)):
            return False
        return all(
            isinstance(c, (Constant, Lift)) or c.type.size <= self.small or (not isinstance(c, Input) and cheap(c))
            for c in v.children
            if isinstance(c, Value)
        )


def _sink(node: Lift, rewriter: Rewriter, targets: set[Value]) -> Value:
    """The lift moved below the operations of its operand."""

    def move(value: Value) -> Value:
        if rewriter.original(value) in targets:
            return value.with_children([move(c) for c in value.children])  # type: ignore[arg-type]
        return b.lift(value, node.via)

    return move(node.x)
