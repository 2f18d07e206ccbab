"""Legalization: matrix products that are no matrix products become sums of products."""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.node import Node, rewrite
from columba.ir.program import build as b
from columba.ir.program.ops import Linear, OuterReduce, Value
from columba.ir.program.program import Program
from columba.ir.spaces import WEIGHT_SPACES
from columba.passes.pipeline import Pass


@dataclass(frozen=True)
class LegalizeLinear(Pass[Program]):
    """``linear(x, w)`` with a matrix of its own in each row ``--> sum(x[..., :, None] * w)``; ``outer_reduce`` likewise.

    A GEMM wants many rows for each matrix. Where every node, pair or edge has its own, there is nothing to reuse, and the product
    is a dot product within the row. Products among weights stay: PyTorch runs them.
    """

    def run(self, program: Program) -> Program:
        return program.with_results(rewrite(program.results, _rule))


def _rule(node: Node) -> Node:
    if isinstance(node, (Linear, OuterReduce)) and node.children[0].space not in WEIGHT_SPACES:  # type: ignore[attr-defined]
        few = node.via is not None and node.via.coarse in WEIGHT_SPACES
        if not few:
            return _linear(node) if isinstance(node, Linear) else _outer_reduce(node)
    return node


def _linear(node: Linear) -> Value:
    w = node.w if node.via is None else b.lift(node.w, node.via)
    if node.transpose:
        return b.feature_sum(b.pointwise("mul", b.reshape(node.x, (*node.x.shape[:-1], 1, node.x.shape[-1])), w), [-1])
    return b.feature_sum(b.pointwise("mul", b.reshape(node.x, (*node.x.shape, 1)), w), [-2])


def _outer_reduce(node: OuterReduce) -> Value:
    product = b.outer(node.x, node.y)
    if node.shared:
        product = b.feature_sum(product, range(len(product.shape) - 2))
    return product if node.via is None else b.reduce_sum(product, node.via)
