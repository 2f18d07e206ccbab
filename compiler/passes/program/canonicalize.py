"""Canonicalization: local simplification to one spelling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from columba.ir.node import Node, rewrite
from columba.ir.program import build as b
from columba.ir.program.ops import (
    Cast,
    Concat,
    Constant,
    Expand,
    Lift,
    Pad,
    Permute,
    Pointwise,
    Reshape,
    Slice,
    Value,
)
from columba.ir.program.program import Program
from columba.passes.pipeline import Pass
from columba.passes.program.rewriting import settled


@dataclass(frozen=True)
class Canonicalize(Pass[Program]):
    """Operations that do nothing disappear, chains of views and lifts become one, constants are folded.

    ``lift(lift(x)) --> lift(x)``, ``reshape(reshape(x)) --> reshape(x)``, ``x * 1 --> x``, ``x + 0 --> x``, ``1 * 2 --> 2``,
    ``row / scalar --> row * (1 / scalar)``, ``-(-x) --> x``, ``-(x - y) --> y - x``.
    ``x * 0`` stays: it is not 0 where x is infinite or NaN.
    """

    def run(self, program: Program) -> Program:
        return settled(program, lambda p: p.with_results(rewrite(p.results, _simplify)))


def _simplify(node: Node) -> Node:
    rule = _RULES.get(type(node))
    return node if rule is None else rule(node)


def _lift(node: Lift) -> Value:
    if isinstance(node.x, Expand):  # broadcasting is free on either side; do it last
        return b.expand(b.lift(node.x.x, node.via), node.x.to)
    return b.lift(node.x, node.via) if isinstance(node.x, (Lift, Constant)) else node


def _cast(node: Cast) -> Value:
    if isinstance(node.x, Constant):
        return Constant(node.x.at, node.x.value, node.to) if node.to.is_float else node
    x = node.x
    if isinstance(x, Cast) and x.loose and x.x.dtype is node.to:
        return x.x
    return x if x.dtype is node.to else node


def _reshape(node: Reshape) -> Value:
    if node.x.shape == node.to:
        return node.x
    return b.reshape(node.x, node.to) if isinstance(node.x, Reshape) else node


def _permute(node: Permute) -> Value:
    if list(node.order) == list(range(len(node.order))):
        return node.x
    if isinstance(node.x, Permute):
        return _permute(Permute(node.x.x, tuple(node.x.order[a] for a in node.order)))
    return node


def _expand(node: Expand) -> Value:
    if node.x.shape == node.to:
        return node.x
    return Expand(node.x.x, node.to) if isinstance(node.x, Expand) else node


def _slice(node: Slice) -> Value:
    return node.x if node.shape == node.x.shape and node.step == 1 else node


def _pad(node: Pad) -> Value:
    return node.x if node.shape == node.x.shape else node


def _concat(node: Concat) -> Value:
    return node.args[0] if len(node.args) == 1 else node


_NEUTRAL: dict[str, tuple[tuple[int, float], ...]] = {
    "add": ((0, 0.0), (1, 0.0)),
    "sub": ((1, 0.0),),
    "mul": ((0, 1.0), (1, 1.0)),
    "div": ((1, 1.0),),
}
"""Operands that leave the other one as it is: (position, value)."""

_FOLD: dict[str, Callable[..., float]] = {
    "neg": lambda x: -x,
    "square": lambda x: x * x,
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y if y else math.nan,
    "reciprocal": lambda x: 1.0 / x if x else math.nan,
    "maximum": max,
    "minimum": min,
}


def _pointwise(node: Pointwise) -> Value:
    args = tuple(_peel(a) for a in node.args)
    if node.function in _FOLD and node.dtype.is_float and all(isinstance(a, Constant) for a in args):
        folded = _FOLD[node.function](*(a.value for a in args if isinstance(a, Constant)))
        if math.isfinite(folded):
            return b.expand(b.constant_like(node, folded), node.shape)
    for position, neutral in _NEUTRAL.get(node.function, ()):
        constant = args[position]
        if isinstance(constant, Constant) and constant.value == neutral:
            return b.expand(node.args[1 - position], node.shape)
    if node.function == "div" and node.args[1].type.size < node.type.size:  # one division a row, not one an element
        return b.pointwise("mul", node.args[0], b.pointwise("reciprocal", node.args[1]))
    if node.function == "neg" and isinstance(node.args[0], Pointwise) and node.args[0].function in ("neg", "sub"):
        inner = node.args[0]
        return inner.args[0] if inner.function == "neg" else Pointwise(inner.args[::-1], "sub")
    peeled = Pointwise(args, node.function, node.scalars)
    if any(a is not c for a, c in zip(args, node.args, strict=True)) and peeled.shape == node.shape:
        return peeled  # pointwise functions broadcast by themselves
    return node


def _peel(value: Value) -> Value:
    """What an expansion expands."""
    return value.x if isinstance(value, Expand) else value


_RULES: dict[type[Node], Callable[..., Value]] = {
    Lift: _lift,
    Cast: _cast,
    Reshape: _reshape,
    Permute: _permute,
    Expand: _expand,
    Slice: _slice,
    Pad: _pad,
    Concat: _concat,
    Pointwise: _pointwise,
}
