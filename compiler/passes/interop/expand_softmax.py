"""A segment softmax is written with its log-sum-exp."""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.interop.build import lift, pointwise
from columba.ir.interop.ops import Cast, Reduce, Softmax
from columba.ir.interop.program import Program
from columba.ir.node import Node, rewrite
from columba.ir.types import DType
from columba.pipeline import Pass


@dataclass(frozen=True)
class ExpandSoftmax(Pass[Program]):
    """``softmax(x, via) --> exp(x - lift(reduce(x, via, logsumexp)))``.

    The log-sum-exp has a row per owner, not per member: saved for the backward program, it is all that is needed to compute
    the weights again (Dao et al. 2022, algorithm 2, does the same for attention). It is max-shifted, so it does not overflow.
    Scores of 16 bits are taken to 32 first: an error of a 16-bit log-sum-exp would be one of all weights of its owner.
    """

    def run(self, program: Program) -> Program:
        def rule(node: Node) -> Node:
            if not isinstance(node, Softmax):
                return node
            narrow = node.dtype in (DType.BF16, DType.F16)
            x = Cast(node.x, DType.F32) if narrow else node.x
            total = Reduce(x, node.via, "logsumexp")
            weights = pointwise("exp", pointwise("sub", x, lift(total, node.via)))
            return Cast(weights, node.dtype) if narrow else weights

        return program.with_results(rewrite(program.results, rule))
