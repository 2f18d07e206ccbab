"""Layers of ``torch.nn`` that combine or normalize the features of a row."""

from __future__ import annotations

from typing import Any

from columba.frontend.operands import aligned, cast_to, feature_axis, on_weights, pointwise
from columba.frontend.rules.features import mean_over, moments, norm_over, reduced
from columba.frontend.rules.registry import Call, rule
from columba.frontend.rules.shapes import sliced
from columba.ir.pointwise import broadcast_shapes
from columba.ir.program import build as b
from columba.ir.program.ops import Degree, Value
from columba.ir.spaces import IndexMap, Space


@rule("glu")
def _glu(call: Call, input: Any, dim: int = -1) -> Value:
    x = call.value(input)
    axis = feature_axis(input, dim, call.name, call.where)
    half = x.shape[axis] // 2
    gate = pointwise("sigmoid", (sliced(x, axis, half, 2 * half),))
    return pointwise("mul", (sliced(x, axis, 0, half), gate))


@rule("cosine_similarity")
def _cosine_similarity(call: Call, x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Value:
    """Norms are clamped where their gradients pass the clamp by, as in torch."""
    values = [cast_to(v, call.dtype) for v in aligned((x1, x2), call.where, call.name)]
    wider = x1 if x1.rank >= x2.rank else x2
    axis = feature_axis(wider, dim, call.name, call.where)
    shape = broadcast_shapes(tuple(v.shape for v in values))
    parts = []
    for value in values:
        wide = on_weights(lambda v: b.expand(v, shape), value)
        norm = norm_over(call, wide, 2, (axis,), keepdim=True)
        short = pointwise("sub", (b.constant_like(norm, eps), norm))
        added = pointwise(
            "where", (pointwise("lt", (norm, b.constant_like(norm, eps))), short, b.constant_like(norm, 0.0))
        )
        parts.append(pointwise("div", (wide, pointwise("add", (norm, pointwise("detach", (added,)))))))
    return reduced(pointwise("mul", parts), "sum", (axis,), keepdim=False)


@rule("group_norm")
def _group_norm(
    call: Call, input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Value:
    x = call.value(input)
    shape = x.shape
    grouped = on_weights(lambda v: b.reshape(v, (num_groups, v.type.size // num_groups)), x)
    _, centred = moments(grouped, (1,))
    variance = mean_over(pointwise("square", (centred,)), (1,), keepdim=True)
    scale = pointwise("rsqrt", (pointwise("add", (variance, b.constant_like(variance, eps))),))
    result = on_weights(lambda v: b.reshape(v, shape), pointwise("mul", (centred, scale)))
    return by_channel(result, weight, bias)


def by_channel(x: Value, weight: Any, bias: Any) -> Value:
    """``x [C, *rest]`` scaled and shifted channel by channel."""
    for function, parameter in (("mul", weight), ("add", bias)):
        if parameter is not None:
            wide = b.reshape(parameter.value, (x.shape[0], *(1,) * (len(x.shape) - 1)))
            x = b.pointwise(function, x, b.to_space(wide, x.space))
    return x


@rule("_row_count")
def _row_count(call: Call, input: Any) -> Value:
    x = call.value(input)
    if not input.has_rows:
        return b.cast(b.constant_like(x, x.shape[0]), call.dtype)
    return Degree(IndexMap("one", x.space, Space.ONE), call.dtype)


@rule("_constant")
def _constant(call: Call, input: Any) -> Value:
    return pointwise("detach", (call.value(input),))
