"""Loop-invariant factors: a factor that all members of an owner share is applied to their sum."""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.node import Node
from columba.ir.program import build as b
from columba.ir.program.ops import (
    VIEWS,
    Constant,
    Lift,
    Pointwise,
    Reduce,
    Value,
)
from columba.ir.program.program import Program
from columba.ir.spaces import PAIR_SPACES, IndexMap, factor
from columba.passes.pipeline import Pass
from columba.passes.program.facts import is_finite, may_be_infinite
from columba.passes.program.rewriting import Rewriter


@dataclass(frozen=True)
class HoistFactors(Pass[Program]):
    """``reduce(x * lift(a, m), m) --> reduce(x, m) * a``: one multiplication an owner, not one a member.

    So too where the factor is lifted from farther away, through the owner, and for divisors and signs. It must not fire where the
    factor depends on the member, for extrema, or where an owner without members would multiply its empty sum by a factor that
    may be infinite (``rsqrt(degree)``): owners must be pairs, which occur, or the factor be finite by its form, or they must be
    read by their members only and the factor not be a quotient by what may be zero.
    """

    def run(self, program: Program) -> Program:
        rewriter = Rewriter(program)

        def rule(node: Node) -> Node:
            if not isinstance(node, Reduce) or node.op != "sum":
                return node
            readers = rewriter.readers(node)
            unread = not rewriter.is_result(node) and all(isinstance(u, Lift) and u.via == node.via for u in readers)
            return _hoist(node, unread)

        return rewriter.run(rule)


def _hoist(node: Reduce, unread: bool) -> Value:
    """``node`` with the factors of its owners taken out; ``unread``: nothing reads owners that are without members."""
    if not isinstance(node.x, Pointwise) or node.x.function not in ("mul", "div", "neg"):
        return node
    args = node.x.args
    if node.x.function == "neg":
        return Pointwise((_hoist(Reduce(args[0], node.via, "sum"), unread),), "neg")
    for n in (1, 0) if node.x.function == "mul" else (1,):
        at_owner = owner_value(args[n], node.via)
        if at_owner is None or not (node.space in PAIR_SPACES or _is_harmless(at_owner, node.x.function, unread)):
            continue
        return Pointwise((_hoist(Reduce(args[1 - n], node.via, "sum"), unread), at_owner), node.x.function)
    return node


def _is_harmless(factor: Value, function: str, unread: bool) -> bool:
    """Whether the empty sums of owners without members may be scaled.

    Not by what is infinite there, even if nothing reads the products: their gradients, which are 0, are scaled as well, and reach
    the other factors.
    """
    scale = factor if function == "mul" else Pointwise((factor,), "reciprocal")
    return is_finite(scale) or (unread and not may_be_infinite(scale))


def owner_value(value: Value, via: IndexMap) -> Value | None:
    """What the owner holds of a value that all of its members share; None if they do not share it."""
    if isinstance(value, Constant):
        return b.constant_at(via.coarse, value)
    if isinstance(value, VIEWS):
        inner = owner_value(value.x, via)
        return None if inner is None else value.with_children([inner])
    if not isinstance(value, Lift):
        return None
    if value.via == via:
        return value.x
    rest = factor(value.via, via)
    return None if rest is None else b.lift(value.x, rest)
