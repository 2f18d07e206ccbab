"""Reassociation: of several factors, the ones that are known farthest away are multiplied first."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from columba.ir.node import Node
from columba.ir.program.ops import Constant, Lift, Pointwise, Value
from columba.ir.program.program import Program
from columba.ir.spaces import PAIR_SPACES
from columba.passes.pipeline import Pass
from columba.passes.program.compact_materialization import CompactMaterialization
from columba.passes.program.facts import is_square
from columba.passes.program.rewriting import rewrite_with_readers


@dataclass(frozen=True)
class ReassociateProducts(Pass[Program]):
    """``(x * lift(a)) * lift(b) --> x * lift(a * b)`` where ``a`` and ``b`` meet in a coarser space, constants meeting anyone.

    The product of the lifts is compacted on the spot. It must not fire where the first product has another reader, where the
    two factors are known together only where the product is, or where their product would be a row of more than ``small``
    elements for every (node, relation) pair.
    """

    small: int = 16
    to_differentiate: bool = False

    def run(self, program: Program) -> Program:
        square = is_square(program)
        compaction = CompactMaterialization(to_differentiate=self.to_differentiate)

        def product(x: Value, y: Value) -> Value:
            return _product(x, y, compaction, square)

        return rewrite_with_readers(program, lambda node, once: _rule(node, once, product, self.small))


def _rule(node: Node, once: Callable[[Value], bool], product: Callable[[Value, Value], Value], small: int) -> Node:
    if not isinstance(node, Pointwise) or node.function != "mul" or not node.dtype.is_float:
        return node
    for inner, outer in (node.args, node.args[::-1]):
        if not isinstance(outer, (Lift, Constant)) or not isinstance(inner, Pointwise) or inner.function != "mul":
            continue
        if not once(inner):
            continue
        for x, near in (inner.args, inner.args[::-1]):
            if not isinstance(near, (Lift, Constant)) or isinstance(x, (Lift, Constant)):
                continue
            both = product(near, outer)
            wide = isinstance(both, Lift) and both.x.space in PAIR_SPACES and both.type.size > small
            if isinstance(both, (Lift, Constant)) and not wide:
                return Pointwise((x, both), "mul")
    return node


def _product(a: Value, b: Value, compaction: CompactMaterialization, square: bool | None) -> Value:
    if isinstance(a, Constant) and isinstance(b, Constant) and math.isfinite(a.value * b.value):
        return Constant(a.at, a.value * b.value, a.to)
    return compaction.hoisted(Pointwise((a, b), "mul"), square)
