"""Softmax expansion: a segment softmax is written with its maximum and its sum."""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.node import Node, rewrite
from columba.ir.program import build as b
from columba.ir.program.ops import VIEWS, Pointwise, Reduce, Softmax, Value
from columba.ir.program.program import Program
from columba.ir.spaces import IndexMap
from columba.ir.types import DType
from columba.passes.pipeline import Pass
from columba.passes.program.hoist_factors import owner_value


@dataclass(frozen=True)
class ExpandSoftmax(Pass[Program]):
    """``softmax(x, via) --> e * lift(1 / reduce(e, sum))`` with ``e = exp(x - lift(reduce(x, max)))``, and
    ``reduce(softmax(x, via) * v, via) --> reduce(e * v, via) / reduce(e, sum)``.

    Maximum and sum have a row per owner, not per member: saved for the backward program, they are all that is needed to compute the
    weights again. They stay two numbers, since their logarithmic sum ``maximum + log(sum)`` would be off by half a unit in the last place
    of the maximum, which every weight of the owner would be multiplied by the exponential of. Sums that softmax weighs are divided
    after, not before (Dao et al. 2022, algorithm 1). Scores of 16 bits are taken to 32 first; what is weighed by weights of 16 bits is
    not divided after, since these are rounded when they have been divided.

    A softmax is differentiated before it is expanded: nothing has to find out that the gradient of the maximum is zero.
    """

    def run(self, program: Program) -> Program:
        expanded: dict[Value, _Weights] = {}

        def rule(node: Node) -> Node:
            if isinstance(node, Softmax):
                weights = _Weights.of(node)
                if weights.product.dtype is node.dtype:
                    expanded[weights.product] = weights
                return b.loosely(weights.product, node.dtype)
            if isinstance(node, Reduce) and node.op == "sum" and expanded:
                return _divided_after(node, expanded)
            return node

        return program.with_results(rewrite(program.results, rule))


@dataclass(frozen=True)
class _Weights:
    """``product`` are the weights: exponentials, multiplied by what the owner has one over the sum of them."""

    product: Value
    exponentials: Value
    inverse: Value
    via: IndexMap

    @staticmethod
    def of(node: Softmax) -> _Weights:
        narrow = node.dtype in (DType.BF16, DType.F16)
        via, x = node.via, b.cast(node.x, DType.F32) if narrow else node.x
        exponentials = b.pointwise("exp", b.pointwise("sub", x, b.lift(Reduce(x, via, "max"), via)))
        total = Reduce(exponentials, via, "sum")
        empty = b.pointwise("le", total, 0.0)  # an owner without members: elsewhere the maximum alone contributes 1
        inverse = b.pointwise("reciprocal", Pointwise((empty, b.constant_like(total, 1.0), total), "where"))
        return _Weights(b.pointwise("mul", exponentials, b.lift(inverse, via)), exponentials, inverse, via)


def _divided_after(node: Reduce, expanded: dict[Value, _Weights]) -> Value:
    """A sum of weighted values as a sum of products with exponentials, divided by their sum."""
    if not isinstance(node.x, Pointwise) or node.x.function != "mul":
        return node
    for factor, other in (node.x.args, node.x.args[::-1]):
        views: list[Value] = []
        inner = factor
        while isinstance(inner, VIEWS):
            views.append(inner)
            inner = inner.x
        weights = expanded.get(inner)
        inverse = None if weights is None else owner_value(b.lift(weights.inverse, weights.via), node.via)
        if weights is None or inverse is None:
            continue
        total = b.reduce_sum(b.pointwise("mul", _seen(weights.exponentials, views), other), node.via)
        return b.pointwise("mul", total, _seen(inverse, views))
    return node


def _seen(value: Value, views: list[Value]) -> Value:
    """A value through views, given outermost first."""
    for view in reversed(views):
        value = view.with_children([value])  # type: ignore[assignment]
    return value
