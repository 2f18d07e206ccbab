"""A factor that all members of an owner share is applied to their sum."""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.interop import build as b
from columba.ir.interop.ops import (
    Cast,
    Constant,
    Degree,
    Expand,
    Lift,
    Permute,
    Pointwise,
    Reduce,
    Reshape,
    Slice,
    Value,
)
from columba.ir.interop.program import Program
from columba.ir.node import Node, rewrite, topological, users
from columba.ir.spaces import PAIR_SPACES, IndexMap, factor
from columba.pipeline import Pass

VIEWS = (Reshape, Permute, Expand, Slice)

FINITE = ("neg", "add", "sub", "mul", "maximum", "minimum", "square", "abs", "relu", "tanh", "sigmoid")
"""Functions of finite values that are finite."""


@dataclass(frozen=True)
class HoistFactors(Pass[Program]):
    """``reduce(x * lift(a, m), m) --> reduce(x, m) * a``: one multiplication an owner, not one a member.

    So too where the factor is lifted from farther away, through the owner, and for divisors and signs. It must not fire where the
    factor depends on the member, for extrema, or where an owner without members would multiply its empty sum by a factor that
    may be infinite (``rsqrt(degree)``): owners must be pairs, which occur, or be read by their members only, or the factor
    be finite by its form.
    """

    def run(self, program: Program) -> Program:
        readers = users(program.results)
        results = set(program.results)
        origins: dict[Node, Node] = {}

        def rule(node: Node) -> Node:
            if not isinstance(node, Reduce) or node.op != "sum":
                return node
            old = origins.get(node, node)
            occupied = node.space in PAIR_SPACES or (
                old not in results and all(isinstance(u, Lift) and u.via == node.via for u in readers[old])
            )
            return _hoist(node, occupied)

        return program.with_results(rewrite(program.results, rule, origins=origins))


def _hoist(node: Reduce, occupied: bool) -> Value:
    """``node`` with the factors of its owners taken out; ``occupied``: no owner that matters is without members."""
    if not isinstance(node.x, Pointwise) or node.x.function not in ("mul", "div", "neg"):
        return node
    args = node.x.args
    if node.x.function == "neg":
        return Pointwise((_hoist(Reduce(args[0], node.via, "sum"), occupied),), "neg")
    for n in (1, 0) if node.x.function == "mul" else (1,):
        at_owner = owner_value(args[n], node.via)
        if at_owner is None or not (occupied or (node.x.function == "mul" and is_finite(at_owner))):
            continue
        return Pointwise((_hoist(Reduce(args[1 - n], node.via, "sum"), occupied), at_owner), node.x.function)
    return node


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


def is_finite(value: Value) -> bool:
    """Whether a value is finite whatever the inputs are: degrees, constants, and quotients by what is at least a constant."""
    if isinstance(value, (Constant, Degree)):
        return True
    if isinstance(value, (Lift, Cast, *VIEWS)):
        return is_finite(value.x)
    if not isinstance(value, Pointwise):
        return False
    if value.function in FINITE:
        return all(map(is_finite, value.args))
    if value.function in ("sqrt", "log1p"):
        return all(map(is_finite, value.args)) and _is_nonnegative(value.args[0])
    if value.function in ("reciprocal", "rsqrt", "log", "div"):
        return all(map(is_finite, value.args)) and _is_positive(value.args[-1])
    return False


def divides_by_degree(value: Value) -> bool:
    """Whether a value follows from degrees and is not finite by its form, so that it may be infinite in a row without members.

    Inputs are taken to be finite.
    """
    return not is_finite(value) and any(isinstance(v, Degree) for v in topological((value,)))


def _is_positive(value: Value) -> bool:
    """Whether a value is bounded from below by a positive constant."""
    if isinstance(value, Constant):
        return value.value > 0
    if isinstance(value, (Lift, Cast, *VIEWS)):
        return _is_positive(value.x)
    if not isinstance(value, Pointwise):
        return False
    if value.function == "add":
        return any(map(_is_positive, value.args)) and all(map(_is_nonnegative, value.args))
    return value.function == "maximum" and any(map(_is_positive, value.args))


def _is_nonnegative(value: Value) -> bool:
    if isinstance(value, Degree):
        return True
    if isinstance(value, (Lift, Cast, *VIEWS)):
        return _is_nonnegative(value.x)
    return _is_positive(value) or (isinstance(value, Constant) and value.value == 0)
