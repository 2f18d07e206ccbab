"""Sign propagation: signs that meet a sum vanish in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from columba.ir.node import Node
from columba.ir.program.ops import (
    MOVES,
    FeatureReduce,
    Linear,
    Pointwise,
    Reduce,
    Value,
)
from columba.ir.program.program import Program
from columba.passes.pipeline import Pass
from columba.passes.program.rewriting import rewrite_with_readers

SUMS = (Reduce, FeatureReduce, Linear)


@dataclass(frozen=True)
class PullNegations(Pass[Program]):
    """``x + f(-y) --> x - f(y)`` and ``x - f(-y) --> x + f(y)``, for an ``f`` made of factors, views, lifts, sums and products.

    Only changes signs, so the result is the same to the last bit. It must not fire where a sum or a product on the way has another
    reader, for which it would have to be computed with the other sign too, nor where something on the way is not linear.
    """

    def run(self, program: Program) -> Program:
        return rewrite_with_readers(program, _rule)


def _rule(node: Node, once: Callable[[Value], bool]) -> Node:
    if not isinstance(node, Pointwise) or node.function not in ("add", "sub") or not node.dtype.is_float:
        return node
    x, y = node.args
    if (positive := _positive(y, once)) is not None:
        return Pointwise((x, positive), "sub" if node.function == "add" else "add")
    if node.function == "add" and (positive := _positive(x, once)) is not None:
        return Pointwise((y, positive), "sub")
    return node


def _positive(value: Value, once: Callable[[Value], bool]) -> Value | None:
    """``-value`` with a negation less, if there is one to be dropped."""
    if isinstance(value, Pointwise):
        return _positive_pointwise(value, once)
    linear = isinstance(value, MOVES) or (isinstance(value, SUMS) and getattr(value, "op", "sum") == "sum")
    if not linear or (isinstance(value, SUMS) and not once(value)):
        return None
    inner = _positive(value.x, once)  # type: ignore[attr-defined]
    return None if inner is None else value.with_children([inner, *value.children[1:]])


def _positive_pointwise(value: Pointwise, once: Callable[[Value], bool]) -> Value | None:
    if value.function == "neg":
        return value.args[0] if value.dtype.is_float else None
    if value.function not in ("mul", "div") or not once(value):
        return None
    for n, arg in enumerate(value.args):
        if (inner := _positive(arg, once)) is not None:
            return value.with_children([inner if m == n else a for m, a in enumerate(value.args)])
    return None
