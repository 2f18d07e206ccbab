"""Linear operator reordering: a dot product with the result of a linear map is a dot product with its argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from columba.ir.node import Node
from columba.ir.program import build as b
from columba.ir.program.ops import Cast, FeatureReduce, Lift, Linear, Pointwise, Reshape, Value
from columba.ir.program.program import Program
from columba.ir.spaces import WEIGHT_SPACES
from columba.ir.types import DType
from columba.passes.pipeline import Pass
from columba.passes.program.rewriting import rewrite_with_readers
from columba.passes.program.unite_masks import masked


@dataclass(frozen=True)
class ReorderLinear(Pass[Program]):
    """``sum(linear(x, W) * a) --> linear(x, W a)``, and ``linear(linear(x, A), B) --> linear(x, A B)``.

    The weight product has a row per relation, not per node or edge, and gradients go through it. It needs both weights selected by
    the same map with nothing but a reshape between, or a cast from 16 bits to 32, in which the product is then as well. It must not
    fire where the inner linear map is read by anyone else, who needs it computed anyway; nor, for two maps, where the way through the
    middle is the narrower one. ``to_differentiate`` masks the
    gradients of weights that nothing selects (:func:`masked`).
    """

    to_differentiate: bool = False

    def run(self, program: Program) -> Program:
        def rule(node: Node, once: Callable[[Value], bool]) -> Node:
            if isinstance(node, FeatureReduce) and node.op == "sum":
                return _dot(node, once, mask=self.to_differentiate)
            if isinstance(node, Linear):
                return _chain(node, once, mask=self.to_differentiate)
            return node

        return rewrite_with_readers(program, rule)


def _dot(node: FeatureReduce, once: Callable[[Value], bool], *, mask: bool) -> Value:
    product = node.x
    if not isinstance(product, Pointwise) or product.function != "mul" or not once(product):
        return node
    for value, factor in (product.args, product.args[::-1]):
        inner = _below_views(value, once)
        if not isinstance(inner, Linear) or inner.via is None or inner.space in WEIGHT_SPACES:
            continue
        if not isinstance(factor, Lift) or factor.via != inner.via or not once(inner) or not once(value):
            continue
        if inner.dtype is not node.dtype:
            inner = Linear(b.cast(inner.x, node.dtype), b.cast(inner.w, node.dtype), inner.via, inner.transpose)
        if value.shape != node.x.shape or not _may_fold(inner, node):
            continue
        return _folded(node, value, inner, factor.x, mask=mask)
    return node


def _below_views(value: Value, once: Callable[[Value], bool]) -> Value:
    """What a reshape shows, and a cast from 16 bits to 32."""
    for _ in range(2):
        is_widened = isinstance(value, Cast) and value.to is DType.F32 and value.x.dtype.is_half
        if not once(value) or not (is_widened or isinstance(value, Reshape)):
            break
        value = value.x  # type: ignore[attr-defined]
    return value


def _may_fold(inner: Linear, node: FeatureReduce) -> bool:
    """Whether what is summed over is (part of) the linear map's own output, not its leading dimensions."""
    if len(inner.shape) == 1:
        return True
    return not inner.shared and node.x.shape == inner.shape and node.axes == (len(inner.shape) - 1,)


def _folded(node: FeatureReduce, value: Value, inner: Linear, a: Value, *, mask: bool) -> Value:
    assert inner.via is not None
    via = inner.via

    def product(w: Value, factor: Value) -> Value:
        found = b.pointwise("mul", w, factor)
        return masked(found, via) if mask else found

    w = b.swap_last(inner.w) if inner.transpose else inner.w
    if len(inner.shape) == 1:  # w [K, N]: sum over part of N, split as the reshape says
        k = w.shape[0]
        wide = b.reshape(w, (k, *value.shape))
        factor = b.reshape(a, (1,) * (len(value.shape) - len(a.shape)) + a.shape)
        folded = b.feature_sum(product(wide, factor), [axis + 1 for axis in node.axes])
        result = Linear(inner.x, b.reshape(folded, (k, node.type.size)), inner.via)
        return b.reshape(result, node.shape)
    factor = b.reshape(a, (*a.shape[:-1], 1, a.shape[-1])) if a.shape else a
    folded = b.feature_sum(product(w, factor), [-1], keepdims=True)
    return b.reshape(Linear(inner.x, folded, inner.via), node.shape)


def _chain(node: Linear, once: Callable[[Value], bool], *, mask: bool) -> Value:
    inner = node.x
    if not isinstance(inner, Linear) or inner.via != node.via or node.via is None or not once(inner):
        return node
    if node.space in WEIGHT_SPACES or not (inner.shared and node.shared):
        return node
    k, middle, n = inner.x.shape[-1], inner.shape[-1], node.shape[-1]
    if k * n > k * middle + middle * n:
        return node
    a = b.swap_last(inner.w) if inner.transpose else inner.w
    weight: Value = Linear(a, node.w, None, node.transpose)
    return Linear(inner.x, masked(weight, node.via) if mask else weight, node.via)
