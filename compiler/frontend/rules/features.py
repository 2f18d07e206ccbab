"""Reductions and normalizations over feature dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from columba.frontend.operands import Operand, aligned, cast_to, feature_axis, mixes, on_weights, pointwise
from columba.frontend.rules.registry import Call, rule
from columba.ir.interop import build as b
from columba.ir.interop.ops import Value

Dims = int | Sequence[int] | None


def axes_of(call: Call, x: Operand, dim: Dims) -> tuple[int, ...]:
    """The feature axes that ``dim`` names."""
    if dim is None or (not isinstance(dim, int) and not len(dim)):
        if x.has_rows:
            raise mixes(f"{call.name} over all dimensions", x, call.where)
        return tuple(range(len(x.value.shape)))
    dims = (dim,) if isinstance(dim, int) else dim
    return tuple(sorted({feature_axis(x, d, call.name, call.where) for d in dims}))


def reduced(x: Value, op: str, axes: Sequence[int], *, keepdim: bool) -> Value:
    return on_weights(lambda v: b.feature_reduce(v, op, axes, keepdims=keepdim), x)


def mean_over(x: Value, axes: Sequence[int], *, keepdim: bool) -> Value:
    total = reduced(x, "sum", axes, keepdim=keepdim)
    count = math.prod(x.shape[a] for a in axes)
    return pointwise("div", (total, b.constant_like(total, count)))


def _operand(call: Call, x: Any) -> Operand:
    call.value(x)
    return x  # type: ignore[no-any-return]


@rule("sum")
def _sum(
    call: Call, input: Any, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None, axis: Dims = None
) -> Value:
    x = _operand(call, input)
    axes = axes_of(call, x, dim if axis is None else axis)
    return reduced(cast_to(x.value, call.dtype), "sum", axes, keepdim=keepdim)


@rule("mean")
def _mean(
    call: Call, input: Any, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None, axis: Dims = None
) -> Value:
    x = _operand(call, input)
    return mean_over(cast_to(x.value, call.dtype), axes_of(call, x, dim if axis is None else axis), keepdim=keepdim)


@rule("amax", "amin")
def _extremum(call: Call, input: Any, dim: Dims = None, keepdim: bool = False) -> Value:
    x = _operand(call, input)
    return reduced(x.value, call.name[1:], axes_of(call, x, dim), keepdim=keepdim)


@rule("max", "min")
def _max(call: Call, input: Any, dim: Any = None, keepdim: bool = False) -> Value | list[Value | None]:
    if isinstance(dim, Operand):
        first, second = (cast_to(v, call.dtype) for v in aligned([_operand(call, input), dim], call.where, call.name))
        return pointwise(f"{call.name}imum", (first, second))
    x = _operand(call, input)
    axes = axes_of(call, x, dim)
    values = reduced(x.value, call.name, axes, keepdim=keepdim)
    return values if dim is None else [values, None]


def _moments(x: Value, axes: Sequence[int]) -> tuple[Value, Value]:
    """The mean, and what is left without it; reduced axes stay with size 1."""
    mean = mean_over(x, axes, keepdim=True)
    return mean, pointwise("sub", (x, mean))


@rule("var", "std")
def _var(
    call: Call, input: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None
) -> Value:
    x = _operand(call, input)
    axes = axes_of(call, x, dim)
    _, centred = _moments(x.value, axes)
    total = reduced(pointwise("square", (centred,)), "sum", axes, keepdim=keepdim)
    correction = int(unbiased) if correction is None else correction
    count = max(math.prod(x.value.shape[a] for a in axes) - correction, 0)
    variance = pointwise("div", (total, b.constant_like(total, count)))
    return pointwise("sqrt", (variance,)) if call.name == "std" else variance


def _norm_over(call: Call, x: Value, p: Any, axes: Sequence[int], *, keepdim: bool) -> Value:
    if p in (2, 2.0, None, "fro"):
        return pointwise("sqrt", (reduced(pointwise("square", (x,)), "sum", axes, keepdim=keepdim),))
    size = pointwise("abs", (x,))
    if p == 1:
        return reduced(size, "sum", axes, keepdim=keepdim)
    if p == math.inf:
        return reduced(size, "max", axes, keepdim=keepdim)
    if isinstance(p, (int, float)) and p > 0:
        total = reduced(pointwise("pow_scalar", (size,), (float(p),)), "sum", axes, keepdim=keepdim)
        return pointwise("pow_scalar", (total,), (1 / float(p),))
    raise call.unsupported(f"the norm of order {p!r}")


@rule("norm")
def _norm(
    call: Call, input: Any, p: Any = "fro", dim: Dims = None, keepdim: bool = False, out: Any = None, dtype: Any = None
) -> Value:
    x = _operand(call, input)
    return _norm_over(call, cast_to(x.value, call.dtype), p, axes_of(call, x, dim), keepdim=keepdim)


@rule("vector_norm", "linalg_vector_norm")
def _vector_norm(
    call: Call, x: Any, ord: Any = 2, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None
) -> Value:
    operand = _operand(call, x)
    return _norm_over(call, cast_to(operand.value, call.dtype), ord, axes_of(call, operand, dim), keepdim=keepdim)


@rule("normalize")
def _normalize(call: Call, input: Any, p: Any = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Value:
    x = _operand(call, input)
    norm = _norm_over(call, x.value, p, axes_of(call, x, dim), keepdim=True)
    return pointwise("div", (x.value, pointwise("maximum", (norm, b.constant_like(norm, eps)))))


def _shifted_exp(x: Value, axes: Sequence[int]) -> tuple[Value, Value, Value]:
    """``x`` less its maximum, the exponential of that, and its sum."""
    shifted = pointwise("sub", (x, reduced(x, "max", axes, keepdim=True)))
    power = pointwise("exp", (shifted,))
    return shifted, power, reduced(power, "sum", axes, keepdim=True)


@rule("softmax", "log_softmax")
def _softmax(call: Call, input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Value:
    x = _operand(call, input)
    if dim is None:
        raise call.unsupported("dim is not given", "name the feature dimension: dim=-1")
    axes = axes_of(call, x, dim)
    shifted, power, total = _shifted_exp(cast_to(x.value, call.dtype), axes)
    if call.name == "softmax":
        return pointwise("div", (power, total))
    return pointwise("sub", (shifted, pointwise("log", (total,))))


@rule("logsumexp")
def _logsumexp(call: Call, input: Any, dim: Dims = None, keepdim: bool = False) -> Value:
    x = _operand(call, input)
    axes = axes_of(call, x, dim)
    largest = reduced(x.value, "max", axes, keepdim=True)
    _, _, total = _shifted_exp(x.value, axes)
    result = pointwise("add", (pointwise("log", (total,)), largest))
    shape = tuple(n for a, n in enumerate(result.shape) if a not in axes)
    return result if keepdim else on_weights(lambda v: b.reshape(v, shape), result)


def _normalized_axes(call: Call, x: Operand, shape: Sequence[int]) -> tuple[int, ...]:
    rank = len(x.value.shape)
    if len(shape) > rank or tuple(x.value.shape[rank - len(shape) :]) != tuple(shape):
        raise mixes(f"{call.name} over {list(shape)}", x, call.where)
    return tuple(range(rank - len(shape), rank))


def _scaled(x: Value, weight: Any, bias: Any) -> Value:
    if weight is not None:
        x = b.pointwise("mul", x, b.to_space(weight.value, x.space))
    return x if bias is None else b.pointwise("add", x, b.to_space(bias.value, x.space))


@rule("layer_norm")
def _layer_norm(
    call: Call, input: Any, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Value:
    x = _operand(call, input)
    axes = _normalized_axes(call, x, normalized_shape)
    _, centred = _moments(x.value, axes)
    variance = mean_over(pointwise("square", (centred,)), axes, keepdim=True)
    scale = pointwise("rsqrt", (pointwise("add", (variance, b.constant_like(variance, eps))),))
    return _scaled(pointwise("mul", (centred, scale)), weight, bias)


@rule("rms_norm")
def _rms_norm(
    call: Call, input: Any, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None
) -> Value:
    x = _operand(call, input)
    axes = _normalized_axes(call, x, normalized_shape)
    power = mean_over(pointwise("square", (x.value,)), axes, keepdim=True)
    if eps is None:
        eps = {"f64": 2.220446049250313e-16, "f32": 1.1920928955078125e-07}.get(str(power.dtype), 1e-6)
    scale = pointwise("rsqrt", (pointwise("add", (power, b.constant_like(power, eps))),))
    return _scaled(pointwise("mul", (x.value, scale)), weight, None)
