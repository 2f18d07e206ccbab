"""Folding into weights: a factor that a relation determines is multiplied into the relation's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from columba.ir.node import Node
from columba.ir.program import build as b
from columba.ir.program.ops import FeatureReduce, Lift, Linear, Pointwise, Reshape, Value
from columba.ir.program.program import Program
from columba.ir.spaces import WEIGHT_SPACES, IndexMap, factor
from columba.passes.pipeline import Pass
from columba.passes.program.facts import may_be_infinite
from columba.passes.program.rewriting import rewrite_with_readers
from columba.passes.program.unite_masks import masked

Once = Callable[[Value], bool]


@dataclass(frozen=True)
class FoldFactors(Pass[Program]):
    """``linear(x, W) * lift(s) --> linear(x, W * s)``, also through lifts, reshapes, and one side of a dot product.

    The factor then costs a multiplication a weight, and its gradient comes from the gradient of the weights, without a pass over
    edges. It must not fire where anyone reads the unscaled product, where the factor is not determined by what selects the
    weight, for a bare constant, which is free where it stands, or for a factor that is infinite where a weight selects no rows
    (``rsqrt(degree)``), whose gradients would not be zero but undefined. ``to_differentiate`` masks the gradients of weights that
    nothing selects (:func:`masked`).
    """

    to_differentiate: bool = False

    def run(self, program: Program) -> Program:
        return rewrite_with_readers(program, lambda node, once: _rule(node, once, mask=self.to_differentiate))


def _rule(node: Node, once: Once, *, mask: bool) -> Node:
    if not isinstance(node, Pointwise) or node.function != "mul":
        return node
    for value, scale in (node.args, node.args[::-1]):
        if not isinstance(scale, Lift) or scale.via.coarse not in WEIGHT_SPACES or may_be_infinite(scale.x):
            continue
        if value.shape == node.shape:
            scaled = _push(value, scale.x, scale.via, once, mask=mask)
            if scaled is not None:
                return scaled
    return node


def _push(value: Value, scale: Value, via: IndexMap, once: Once, *, mask: bool) -> Value | None:
    """``value * lift(scale, via)`` with the factor inside the weight of a product, if there is one it can reach."""
    if not once(value):
        return None
    match value:
        case Linear():
            return (
                _into_weight(value, scale, mask=mask) if value.via == via and value.space not in WEIGHT_SPACES else None
            )
        case Lift():
            rest = factor(via, value.via)
            inner = None if rest is None else _push(value.x, scale, rest, once, mask=mask)
        case Reshape():
            wide = b.expand(scale, value.shape) if scale.type.size > 1 else b.reshape(scale, ())
            inner = _push(value.x, wide if wide.shape == () else b.reshape(wide, value.x.shape), via, once, mask=mask)
        case FeatureReduce(op="sum"):
            kept = tuple(1 if a in value.axes else n for a, n in enumerate(value.x.shape))
            wide = b.reshape(b.expand(scale, value.shape), kept)
            inner = _push(value.x, wide, via, once, mask=mask)
        case Pointwise(function="mul"):
            return _push_into_factor(value, scale, via, once, mask=mask)
        case _:
            return None
    return None if inner is None else value.with_children([inner])


def _push_into_factor(value: Pointwise, scale: Value, via: IndexMap, once: Once, *, mask: bool) -> Value | None:
    for n, arg in enumerate(value.args):
        if arg.shape != value.shape:
            continue
        inner = _push(arg, scale, via, once, mask=mask)
        if inner is not None:
            return value.with_children([inner if m == n else a for m, a in enumerate(value.args)])
    return None


def _into_weight(linear: Linear, scale: Value, *, mask: bool) -> Value | None:
    """The product with ``scale``, which broadcasts to its shape, multiplied into the columns of its weight."""
    if linear.shared and len(linear.shape) > 1 and any(n != 1 for n in scale.shape[:-1]):
        return None  # one matrix for all leading dimensions cannot hold a factor for each
    if linear.shared:
        columns = b.reshape(scale, scale.shape[-1:])
    else:
        columns = b.reshape(scale, (*scale.shape[:-1], 1, *scale.shape[-1:])) if scale.shape else scale
    if linear.transpose and columns.shape:
        columns = b.reshape(columns, (*columns.shape[: -1 if linear.shared else -2], columns.shape[-1], 1))
    weight = b.pointwise("mul", linear.w, columns)
    assert linear.via is not None
    return Linear(linear.x, masked(weight, linear.via) if mask else weight, linear.via, linear.transpose)
