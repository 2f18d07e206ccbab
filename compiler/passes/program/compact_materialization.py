"""Compact materialization: everything is computed in the coarsest space that determines it."""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.node import Node, rewrite
from columba.ir.program.build import lift
from columba.ir.program.ops import (
    ROW_WISE,
    Constant,
    Lift,
    Linear,
    Pointwise,
    Value,
)
from columba.ir.program.program import Program
from columba.ir.spaces import NODE_SPACES, PAIR_SPACES, IndexMap, factor, maps_from
from columba.passes.pipeline import Pass
from columba.passes.program.facts import is_finite, is_nonnegative, is_positive, is_square, may_be_infinite
from columba.passes.program.rewriting import settled
from columba.passes.program.unite_masks import masked

HOISTED = (*ROW_WISE, Linear)
"""Operations whose result in a row depends on nothing but the operands' same row (and a weight that the row selects)."""

STEEP = ("sqrt", "rsqrt", "log", "log1p", "reciprocal", "pow", "pow_scalar")
"""Functions whose derivative is infinite, or undefined, where the first operand is zero or less (-1 or less for ``log1p``)."""


@dataclass(frozen=True)
class CompactMaterialization(Pass[Program]):
    """``f(lift a, lift b) --> lift f(a', b')`` with ``a'``, ``b'`` in the join of their spaces.

    ``linear(lift(h, src), w, rel)`` per edge becomes a product per distinct (source, relation) pair, and what reads one
    endpoint only is computed at that endpoint (node hoisting). Lifts are thereby delayed to the last moment. It must not fire
    where an operand depends on both ends of an edge, nor move a computation to a space as fine as the one it is in, nor
    multiply by what is infinite in rows that nothing reads (``rsqrt(degree)`` of an isolated node), nor apply a function that is
    infinitely steep there (:data:`STEEP`): gradients would not be zero but undefined.
    ``pairs=False`` leaves the pair spaces out and hoists to nodes, relations and node types only. ``to_differentiate`` masks the gradients
    of rows that nothing reads (:func:`masked`).
    """

    pairs: bool = True
    to_differentiate: bool = False

    def run(self, program: Program) -> Program:
        square = is_square(program)

        def rule(node: Node) -> Node:
            return self.hoisted(node, square) if isinstance(node, HOISTED) else node

        return settled(program, lambda p: p.with_results(rewrite(p.results, rule)))

    def hoisted(self, node: Value, square: bool | None) -> Value:
        """A row-wise operation computed in the join of its operands' spaces, or as it is if that is where it stands."""
        via = self.join(node, square)
        if via is None or (via.coarse not in PAIR_SPACES and (_may_divide_by_zero(node) or _may_be_steep(node))):
            return node
        return _hoist(node, via, mask=self.to_differentiate)

    def join(self, node: Value, square: bool | None) -> IndexMap | None:
        """The coarsest map that every operand comes through, if any; none to nodes where nobody knows whether the graph is ``square``."""
        needed: list[IndexMap] = [node.via] if isinstance(node, Linear) and node.via is not None else []
        operands = node.children[:1] if isinstance(node, Linear) and node.via is not None else node.children
        for operand in operands:
            if isinstance(operand, Constant):
                continue
            if not isinstance(operand, Lift):
                return None
            needed.append(operand.via)
        if not needed:
            return None
        out = (*(() if self.pairs else PAIR_SPACES), *(NODE_SPACES if square is None else ()))
        coarsest_first = [
            m for m in reversed(maps_from(node.space, square=square is not False, further=True)) if m.coarse not in out
        ]
        return next((m for m in coarsest_first if all(via == m or factor(via, m) is not None for via in needed)), None)


def _may_divide_by_zero(node: Value) -> bool:
    """Whether an operand is scaled by what an owner without members cannot be scaled by."""
    if not isinstance(node, Pointwise) or len(node.args) < 2:
        return False
    if node.function == "div" and may_be_infinite(Pointwise(node.args[1:], "reciprocal")):
        return True
    return any(map(may_be_infinite, node.args))


def _may_be_steep(node: Value) -> bool:
    """Whether a function's gradient is infinite where its operand is zero, as it may be in the row of an owner without members.

    Degrees and constants want no gradient.
    """
    if not isinstance(node, Pointwise) or node.function not in STEEP:
        return False
    if node.function == "pow_scalar" and node.scalars[0] >= 1 and float(node.scalars[0]).is_integer():
        return False
    is_safe = is_nonnegative if node.function == "log1p" else is_positive
    return not (is_finite(node.args[0]) or is_safe(node.args[0]))


def _hoist(node: Value, via: IndexMap, *, mask: bool) -> Value:
    """``node`` computed in ``via.coarse``, then lifted."""

    def lower(operand: Value) -> Value:
        if isinstance(operand, Constant):
            return Constant(via.coarse, operand.value, operand.to)
        assert isinstance(operand, Lift)
        return _through(operand.x, operand.via, via)

    if isinstance(node, Linear) and node.via is not None:
        hoisted: Value = Linear(lower(node.x), node.w, _rest(node.via, via), node.transpose)
    else:
        hoisted = node.with_children([lower(c) for c in node.children])  # type: ignore[arg-type]
    return lift(masked(hoisted, via) if mask else hoisted, via)


def _through(x: Value, whole: IndexMap, first: IndexMap) -> Value:
    """``x``, which is lifted along ``whole``, lifted only as far as ``first`` starts."""
    rest = _rest(whole, first)
    return x if rest is None else lift(x, rest)


def _rest(whole: IndexMap, first: IndexMap) -> IndexMap | None:
    return None if whole == first else factor(whole, first)
