"""Rows that nothing reads get no gradient, whatever they hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from columba.ir.node import Node, structurally_equal, topological
from columba.ir.program import build as b
from columba.ir.program.ops import (
    VIEWS,
    Cast,
    Concat,
    Constant,
    FeatureReduce,
    Linear,
    Pad,
    Pointwise,
    Value,
)
from columba.ir.program.program import Program
from columba.ir.spaces import PAIR_SPACES, IndexMap
from columba.passes.pipeline import Pass
from columba.passes.program.facts import is_finite

SELECTIVE = ("neg", "add", "sub", "sign", "relu", "leaky_relu", "clamp", "maximum", "minimum", "where", "detach")
"""Functions whose gradient is the one that comes in, times a finite constant, or 0."""


@dataclass(frozen=True)
class UniteMasks(Pass[Program]):
    """``f(mask_gradient(a, x)), f(mask_gradient(b, x)) --> y, y`` with ``y = f(mask_gradient(a or b, x))``.

    What edges compute is moved to nodes, relations and node types, also to those without edges. Eager code gives these a gradient of 0;
    there a gradient of 0 is multiplied by what ``f`` makes of their rows, and 0 times infinity is not 0. Passes that move ``f`` therefore
    mask its operands (:func:`masked`). Rows that are read from either end of an edge are then masked in two ways, and computed once
    nevertheless. Where the code itself computes ``f(x)`` for all rows, that is what all read, without a mask.
    """

    def run(self, program: Program) -> Program:
        if not any(_is_mask(v) for v in program.body):
            return program
        united = _United(program.results).results
        return program if structurally_equal(united, program.results) else program.with_results(united)


def masked(node: Value, via: IndexMap) -> Value:
    """``node``, which is read along ``via`` only, with operands whose gradients are masked in rows that ``via`` does not reach.

    Pairs occur, and some operations pass a gradient of 0 on as it is, whatever their operands are: these stay as they are.
    """
    if via.coarse in PAIR_SPACES or _keeps_zero(node):
        return node
    condition = b.occupied(via, node.dtype)

    def operand(x: Value) -> Value:
        return x if not x.dtype.is_float or is_finite(x) else Pointwise((condition, x), "mask_gradient")

    if isinstance(node, Linear) and node.via is not None:  # the weight's gradient is a sum over rows, see its rule
        return node.with_children([operand(node.x), node.w])
    return node.with_children([operand(c) for c in node.children])  # type: ignore[arg-type]


def _keeps_zero(node: Value) -> bool:
    """Whether gradients of operands are 0 where that of the result is, whatever numbers the operands are."""
    if not node.dtype.is_float or isinstance(node, (Constant, Cast, Pad, Concat, *VIEWS)):
        return True
    if isinstance(node, FeatureReduce):
        return node.op not in ("max", "min")  # which divide by the number of ties, 0 for NaN
    if not isinstance(node, Pointwise):
        return False
    if node.function == "mul":
        return any(map(is_finite, node.args))
    if node.function == "div":
        return is_finite(Pointwise(node.args[1:], "reciprocal"))
    return node.function in SELECTIVE and (node.function == "clamp" or all(map(math.isfinite, node.scalars)))


def _is_mask(node: Node) -> bool:
    return isinstance(node, Pointwise) and node.function == "mask_gradient"


@dataclass
class _Reading:
    """How the occurrences of an operation mask its operands: by which conditions, at which positions, if all of them do."""

    conditions: dict[Node, None] = field(default_factory=dict)
    positions: set[int] = field(default_factory=set)
    is_masked: bool = True


class _United:
    def __init__(self, results: Sequence[Value]) -> None:
        self.bare: dict[Node, Node] = {}
        self.readings: dict[Node, _Reading] = {}
        self._strip(results)
        self.results = self._rebuilt([self.bare[r] for r in results])

    def _strip(self, results: Sequence[Value]) -> None:
        """Takes the masks off; what then says the same is one operation, of which it is kept how it was masked."""
        first: dict[Any, Node] = {}
        for node in topological(results):
            if _is_mask(node):
                self.bare[node] = self.bare[node.children[1]]
                continue
            bare = node.with_children([self.bare[c] for c in node.children])
            key = (type(node), tuple(map(id, bare.children)), tuple(node.data.items()))
            one = self.bare[node] = first.setdefault(key, bare) if node.children else bare
            reading = self.readings.setdefault(one, _Reading())
            masks = {n: c for n, c in enumerate(node.children) if _is_mask(c)}
            reading.positions.update(masks)
            reading.conditions.update((self.bare[c.children[0]], None) for c in masks.values())
            reading.is_masked &= bool(masks)

    def _rebuilt(self, results: Sequence[Node]) -> tuple[Any, ...]:
        done: dict[Node, Node] = {}
        for node in topological([*results, *(c for r in self.readings.values() for c in r.conditions)]):
            reading, children = self.readings[node], [done[c] for c in node.children]
            if reading.is_masked:
                condition, *others = [done.get(c, c) for c in reading.conditions]
                for other in others:
                    condition = Pointwise((condition, other), "logical_or")  # type: ignore[arg-type]
                for n in reading.positions:
                    children[n] = Pointwise((condition, children[n]), "mask_gradient")  # type: ignore[arg-type]
            done[node] = node.with_children(children)
        return tuple(done[r] for r in results)
