"""Factoring (the distributive law): a factor that both terms of a sum share is multiplied once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from columba.ir.node import Node
from columba.ir.program import build as b
from columba.ir.program.ops import Pointwise, Value
from columba.ir.program.program import Program
from columba.passes.pipeline import Pass
from columba.passes.program.rewriting import rewrite_with_readers


@dataclass(frozen=True)
class FactorSums(Pass[Program]):
    """``a * p - b * p --> (a - b) * p``, and ``where(c, x, x * s) --> x * where(c, 1, s)``.

    The gradient of a softmax, ``p * g - p * sum(p * g)``, and that of a leaky ReLU are of these forms. It must not fire
    where both products have another reader, which needs them anyway.
    """

    def run(self, program: Program) -> Program:
        return rewrite_with_readers(program, _rule)


def _rule(node: Node, once: Callable[[Value], bool]) -> Node:
    if not isinstance(node, Pointwise) or not node.dtype.is_float:
        return node
    if node.function in ("add", "sub"):
        return _sum(node, once)
    return _where(node, once) if node.function == "where" else node


def _sum(node: Pointwise, once: Callable[[Value], bool]) -> Value:
    left, right = (_factors(a) for a in node.args)
    if not left or not right or not any(once(a) for a in node.args):
        return node
    for x, p in (left, left[::-1]):
        for y, q in (right, right[::-1]):
            if p is q:
                terms = Pointwise((x, y), node.function)
                return Pointwise((terms, p), "mul")
    return node


def _factors(value: Value) -> tuple[Value, ...]:
    return value.args if isinstance(value, Pointwise) and value.function == "mul" else ()


def _where(node: Pointwise, once: Callable[[Value], bool]) -> Value:
    condition, yes, no = node.args
    for plain, scaled in ((yes, no), (no, yes)):
        factors = _factors(scaled)
        if not any(f is plain for f in factors) or not once(scaled):
            continue
        slope = factors[1] if factors[0] is plain else factors[0]
        if slope.type.size > 1:
            continue
        one = b.constant_like(plain, 1.0)
        chosen = Pointwise((condition, one, slope) if plain is yes else (condition, slope, one), "where")
        product = Pointwise((plain, chosen), "mul")
        return product if product.shape == node.shape else node
    return node
