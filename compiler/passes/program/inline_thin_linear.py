"""Inlining: products with so few terms that they are cheaper to compute where they are summed than to store."""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.node import Node
from columba.ir.program import build as b
from columba.ir.program.ops import (
    ROW_WISE,
    Linear,
    OuterReduce,
    Reduce,
    Slice,
    Value,
)
from columba.ir.program.program import Program
from columba.ir.spaces import WEIGHT_SPACES, Space
from columba.passes.pipeline import Pass
from columba.passes.program.rewriting import Rewriter


@dataclass(frozen=True)
class InlineThinLinear(Pass[Program]):
    """``linear(x, W) --> x[0] * lift(W[0]) + x[1] * lift(W[1])`` where ``W`` has at most ``thin`` rows and only sums read the product.

    Such a product is as good as free, but as a kernel of its own it writes wide rows, which the sum reads again; inside the
    traversal that sums them they need no memory. So it is with gradients of attention scores, of which a head has one, and with narrow
    edge features. It must not fire among products of weights, nor where the rows are needed in memory or more than once: where
    the product is a result, where anything but row-wise operations stands between it and the reductions, such as a lift to finer
    rows, or where nothing reduces it. Edges have no finer rows, and their wide rows are kept out of memory at any price: there the
    operand of another product, or a result computed from the product, may be the reader as well.
    """

    thin: int = 4

    def run(self, program: Program) -> Program:
        rewriter = Rewriter(program)
        targets: set[Node] = {
            v
            for v in program.body
            if isinstance(v, Linear)
            and v.via is not None
            and v.space not in WEIGHT_SPACES
            and 0 < v.x.shape[-1] <= self.thin
            and _only_summed(v, rewriter)
        }
        if not targets:
            return program

        def rule(node: Node) -> Node:
            if isinstance(node, Linear) and rewriter.original(node) in targets:
                return _sum_of_products(node)
            return node

        return rewriter.run(rule)


def _only_summed(linear: Linear, rewriter: Rewriter) -> bool:
    """Whether reductions alone, and on edges computations of other rows, read what follows from a product row by row."""
    if rewriter.is_result(linear):
        return False
    on_edges = linear.space is Space.EDGE
    summed = False
    stack: list[Node] = [linear]
    seen: set[Node] = set()
    while stack:
        value = stack.pop()
        if rewriter.is_result(value):
            if not on_edges:
                return False
            summed = True
        for reader in rewriter.readers(value):
            if reader in seen:
                continue
            seen.add(reader)
            if isinstance(reader, ROW_WISE):
                stack.append(reader)
            elif isinstance(reader, Reduce) or (on_edges and isinstance(reader, (Linear, OuterReduce))):
                summed = True
            else:
                return False
    return summed


def _sum_of_products(linear: Linear) -> Value:
    """One term for each row of the weight, which is lifted to the rows of the operand."""
    assert linear.via is not None
    x, w = linear.x, _stored_by_rows(linear)
    axis = len(w.shape) - 2
    total: Value | None = None
    for k in range(x.shape[-1]):
        row = b.reshape(_part(w, axis, k), (*w.shape[:axis], w.shape[-1]))
        term = b.pointwise("mul", _part(x, len(x.shape) - 1, k), b.lift(row, linear.via))
        total = term if total is None else b.pointwise("add", total, term)
    assert total is not None
    return total


def _stored_by_rows(linear: Linear) -> Value:
    """The weight as ``[..., K, N]``."""
    w = linear.w
    if not linear.transpose:
        return w
    *lead, n, k = w.shape
    return b.reshape(w, (*lead, k, n)) if 1 in (n, k) else b.swap_last(w)


def _part(value: Value, axis: int, n: int) -> Value:
    return value if value.shape[axis] == 1 else Slice(value, axis, n, n + 1)
