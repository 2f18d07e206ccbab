"""Reuse of reductions: a sum that follows from a weighted sum at hand is not gone through again."""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.node import Node, value_numbers
from columba.ir.program import build as b
from columba.ir.program.ops import Expand, FeatureReduce, Lift, Pointwise, Reduce, Reshape, Value
from columba.ir.program.program import Program
from columba.ir.spaces import PAIR_SPACES, IndexMap, compose, factor
from columba.passes.pipeline import Pass
from columba.passes.program.hoist_factors import owner_value
from columba.passes.program.rewriting import Rewriter


@dataclass(frozen=True)
class ReuseWeightedSums(Pass[Program]):
    """``reduce(p * sum(lift(g) * v)) --> sum(g * reduce(p * v))`` where the program has ``reduce(p * v)``.

    With ``p`` a softmax and ``v`` what it weighs, the left side is the correction term of the softmax's gradient, a pass over all
    edges, and ``reduce(p * v)`` is the layer's own result, with a row per destination (FlashAttention-2 computes its ``D`` so). The
    weighted sum may also be one per (destination, relation) pair, if ``g`` is lifted through the pairs. It must not fire where ``g``
    differs among the members of an owner, where the weighted sum would have to be computed for it, or where owners without members,
    whose empty sums would be multiplied by ``g``, are read.
    """

    def run(self, program: Program) -> Program:
        finder = _Finder(program)
        if not finder.sums:
            return program
        return finder.rewriter.run(finder.rule)


class _Finder:
    def __init__(self, program: Program) -> None:
        self.rewriter = Rewriter(program)
        self.number = value_numbers(program.results)
        self.sums: list[Reduce] = [
            v for v in program.body if isinstance(v, Reduce) and v.op == "sum" and _is_product(v.x) and v.shape
        ]

    def rule(self, node: Node) -> Node:
        old = self.rewriter.original(node)
        if not isinstance(old, Reduce) or old.op != "sum" or not self._read_by_members(old, old.via):
            return node
        for weight, dot in _products(old.x):
            found = self._match(old, weight, dot)
            if found is not None:
                return found
        return node

    def _read_by_members(self, node: Node, via: IndexMap) -> bool:
        """Whether every row that matters has members."""
        if via.coarse in PAIR_SPACES:
            return True
        readers = self.rewriter.readers(node)
        return not self.rewriter.is_result(node) and all(isinstance(u, Lift) and u.via == via for u in readers)

    def _match(self, node: Reduce, weight: Value, dot: Value) -> Value | None:
        dot = dot.x if isinstance(dot, Reshape) and dot.x.shape == dot.shape else dot
        if not isinstance(dot, FeatureReduce) or dot.op != "sum" or weight.shape != dot.shape:
            return None
        for lifted, v in _products(dot.x):
            if v.shape != dot.x.shape and lifted.shape != dot.x.shape:
                continue
            for known in self.sums:
                at_owner = owner_value(lifted, known.via)
                if at_owner is None or not self._weighs(known, weight, v, dot):
                    continue
                total = b.feature_sum(b.pointwise("mul", at_owner, known), dot.axes)
                return _onwards(total, known.via, node.via)
        return None

    def _weighs(self, known: Reduce, weight: Value, v: Value, dot: FeatureReduce) -> bool:
        """Whether ``known`` sums ``weight * v``, the weight being the same along the axes of the dot product."""
        kept = tuple(1 if a in dot.axes else n for a, n in enumerate(dot.x.shape))
        for p, u in _products(known.x):
            if self.number[u] != self.number[v] or known.shape != dot.x.shape:
                continue
            if (1,) * (len(kept) - len(p.shape)) + p.shape == kept and self._same_elements(p, weight):
                return True
        return False

    def _same_elements(self, p: Value, weight: Value) -> bool:
        """Whether two values differ by a reshape at most."""
        p, weight = _unshaped(p), _unshaped(weight)
        return self.number[p] == self.number[weight]


def _onwards(total: Value, first: IndexMap, whole: IndexMap) -> Value | None:
    """The sum over the owners of ``first``, each in its place of ``whole``."""
    if first == whole:
        return total
    rest = factor(whole, first)
    return None if rest is None or compose(first, rest) != whole else b.reduce_sum(total, rest)


def _is_product(value: Value) -> bool:
    return isinstance(value, Pointwise) and value.function == "mul"


def _products(value: Value) -> tuple[tuple[Value, Value], ...]:
    """The two factors of a product, either first."""
    if not isinstance(value, Pointwise) or value.function != "mul":
        return ()
    return (value.args, value.args[::-1])  # type: ignore[return-value]


def _unshaped(value: Value) -> Value:
    while isinstance(value, (Reshape, Expand)) and value.x.type.size == value.type.size:
        value = value.x
    return value
