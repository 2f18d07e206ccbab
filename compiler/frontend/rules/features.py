"""Reductions and normalizations over feature dimensions; reductions over all rows, alone or with them, are one of the graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from columba.frontend.operands import Operand, aligned, cast_to, feature_axis, mixes, on_weights, pointwise
from columba.frontend.rules.registry import Call, rule
from columba.ir.program import build as b
from columba.ir.program.ops import Degree, Reduce, Softmax, Value
from columba.ir.spaces import IndexMap, Space
from columba.ir.types import DType

Dims = int | Sequence[int] | None

ROWS = -1
"""Stands among feature axes for the rows."""


def axes_of(call: Call, x: Operand, dim: Dims, *, rows: bool = False) -> tuple[int, ...]:
    """The feature axes that ``dim`` names, and :data:`ROWS` for dimension 0 of what has rows, where these may be combined."""
    if dim is None or (not isinstance(dim, int) and not len(dim)):
        if x.has_rows and not rows:
            raise mixes(f"{call.name} over all dimensions", x, call.where)
        return tuple(range(ROWS if x.has_rows else 0, len(x.value.shape)))
    dims = (dim,) if isinstance(dim, int) else dim

    def axis(d: int) -> int:
        first = rows and x.has_rows and d in (0, -x.rank)
        return ROWS if first else feature_axis(x, d, call.name, call.where)

    return tuple(sorted({axis(d) for d in dims}))


def reduced(x: Value, op: str, axes: Sequence[int], *, keepdim: bool) -> Value:
    """The reduction over axes. Over rows the result is plain: with ``keepdim`` its first dimension is what is left of them."""
    if ROWS not in axes:
        return on_weights(lambda v: b.feature_reduce(v, op, axes, keepdims=keepdim), x)
    row = b.feature_reduce(x, op, [a for a in axes if a != ROWS], keepdims=keepdim)
    total = Reduce(row, _to_one(x), op)
    return b.reshape(total, (1, *total.shape)) if keepdim else total


def _to_one(x: Value) -> IndexMap:
    return IndexMap("one", x.space, Space.ONE)


def beside(value: Value, x: Value) -> Value:
    """What a reduction of ``x`` that kept its dimensions is beside each row of ``x``."""
    if value.space is x.space:
        return value
    return b.to_space(b.reshape(value, value.shape[1:]), x.space)


def count_over(x: Value, axes: Sequence[int], less: float = 0) -> Value:
    """How many elements are reduced, less a number, and no fewer than 0: of rows as many as there are in each call."""
    features = math.prod(x.shape[a] for a in axes if a != ROWS)
    if ROWS not in axes:
        return b.constant_like(x, max(features - less, 0))
    count: Value = Degree(_to_one(x), x.dtype)
    if features != 1:
        count = b.pointwise("mul", count, float(features))
    return b.pointwise("maximum", b.pointwise("sub", count, float(less)), 0.0) if less else count


def mean_over(x: Value, axes: Sequence[int], *, keepdim: bool) -> Value:
    total = reduced(x, "sum", axes, keepdim=keepdim)
    return pointwise("div", (total, count_over(x, axes)))


def exactly(x: Value, axes: Sequence[int], dtype: DType) -> Value:
    """What is summed up: over rows, of which there may be any number, in a wider dtype than that of the result."""
    if ROWS not in axes:
        return cast_to(x, dtype)
    return b.cast(x, DType.F32 if dtype.is_half else DType.F64)


def _operand(call: Call, x: Any) -> Operand:
    call.value(x)
    return x  # type: ignore[no-any-return]


@rule("sum")
def _sum(
    call: Call, input: Any, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None, axis: Dims = None
) -> Value:
    x = _operand(call, input)
    axes = axes_of(call, x, dim if axis is None else axis, rows=_is_exact_in_64_bits(x))
    return b.cast(reduced(exactly(x.value, axes, call.dtype), "sum", axes, keepdim=keepdim), call.dtype)


def _is_exact_in_64_bits(x: Operand) -> bool:
    """Whether sums of as many elements as there can be are those of floating point numbers of 64 bits."""
    return x.value.dtype.is_float or x.value.dtype in (DType.BOOL, DType.I32)


@rule("mean")
def _mean(
    call: Call, input: Any, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None, axis: Dims = None
) -> Value:
    x = _operand(call, input)
    axes = axes_of(call, x, dim if axis is None else axis, rows=True)
    return b.cast(mean_over(exactly(x.value, axes, call.dtype), axes, keepdim=keepdim), call.dtype)


@rule("amax", "amin")
def _extremum(call: Call, input: Any, dim: Dims = None, keepdim: bool = False) -> Value:
    x = _operand(call, input)
    return reduced(x.value, call.name[1:], axes_of(call, x, dim, rows=x.value.dtype.is_float), keepdim=keepdim)


def places_along(x: Value, axis: int) -> Value:
    """The place of each element along an axis, in float32, in which it is exact."""
    sizes = tuple(n if a == axis else 1 for a, n in enumerate(x.shape))
    return b.expand(b.reshape(b.places(x.space, x.shape[axis]), sizes), x.shape)


def first_place(condition: Value, places: Value, axis: int) -> Value:
    """The first place of an axis, which stays with size 1, where a condition holds; inf if there is none."""
    held = b.pointwise("where", condition, places, b.constant_like(places, math.inf))
    return b.feature_reduce(held, "min", [axis], keepdims=True)


def not_a_number(x: Value) -> Value:
    return b.pointwise("ne", x, x)


def place_of_extremum(x: Value, op: str, axis: int, *, keepdim: bool) -> Value:
    """Where the first maximum or minimum of an axis is; a NaN counts as one, as in torch."""

    def find(v: Value) -> Value:
        extremum = b.feature_reduce(v, op, [axis], keepdims=True)
        attains = b.pointwise("logical_or", b.pointwise("eq", v, extremum), not_a_number(v))
        place = b.cast(first_place(attains, places_along(v, axis), axis), DType.I64)
        return place if keepdim else b.reshape(place, (*v.shape[:axis], *v.shape[axis + 1 :]))

    return on_weights(find, x)


@rule("max", "min")
def _max(call: Call, input: Any, dim: Any = None, keepdim: bool = False) -> Value | list[Value | None]:
    if isinstance(dim, Operand):
        first, second = (cast_to(v, call.dtype) for v in aligned([_operand(call, input), dim], call.where, call.name))
        return pointwise(f"{call.name}imum", (first, second))
    x = _operand(call, input)
    axes = axes_of(call, x, dim, rows=dim is None and x.value.dtype.is_float)
    if ROWS in axes:
        return _extremum_of_all(x.value, call.name, axes)
    if dim is None:
        return reduced(x.value, call.name, axes, keepdim=keepdim)
    return [
        reduced(x.value, f"first_{call.name}", axes, keepdim=keepdim),
        place_of_extremum(x.value, call.name, axes[0], keepdim=keepdim),
    ]


def _extremum_of_all(x: Value, op: str, axes: Sequence[int]) -> Value:
    """NaN where there is one: those that are then share the gradient, as in torch, unlike ``amax``."""
    unknown = pointwise("ne", (x, x))
    known = pointwise("where", (unknown, b.constant_like(x, -math.inf if op == "max" else math.inf), x))
    unknowns = pointwise("where", (unknown, x, b.constant_like(x, 0.0)))
    wide = DType.F64 if x.dtype is DType.F64 else DType.F32
    count = b.cast(reduced(b.cast(unknown, wide), "sum", axes, keepdim=False), x.dtype)
    share = pointwise("div", (reduced(unknowns, "sum", axes, keepdim=False), b.pointwise("maximum", count, 1.0)))
    return pointwise("where", (b.pointwise("gt", count, 0.0), share, reduced(known, op, axes, keepdim=False)))


def moments(x: Value, axes: Sequence[int]) -> tuple[Value, Value]:
    """The mean, and what is left without it; reduced axes stay with size 1."""
    mean = mean_over(x, axes, keepdim=True)
    return mean, pointwise("sub", (x, beside(mean, x)))


@rule("var", "std", "var_mean", "std_mean")
def _var(
    call: Call, input: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None
) -> Value | list[Value]:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    x = _operand(call, input)
    axes = axes_of(call, x, dim, rows=True)
    dtype = x.value.dtype
    # As in torch: squares of tiny rows do not vanish.
    wide = cast_to(x.value, DType.F64) if dtype is DType.F32 else exactly(x.value, axes, dtype)
    mean, centred = moments(wide, axes)
    total = reduced(pointwise("square", (centred,)), "sum", axes, keepdim=keepdim)
    less = int(unbiased) if correction is None else correction
    variance = pointwise("div", (total, count_over(wide, axes, less)))
    found = cast_to(_rooted(variance, 0.5) if call.name.startswith("std") else variance, dtype)
    if not call.name.endswith("_mean"):
        return found
    return [found, on_weights(lambda v: b.reshape(v, found.shape), cast_to(mean, dtype))]


def _rooted(x: Value, exponent: float) -> Value:
    """``x`` to a power below one, 0 where ``x`` is 0, with a gradient of 0 there, in place of an infinite one, as norms have in torch."""
    zero, one = b.constant_like(x, 0.0), b.constant_like(x, 1.0)
    at_zero = pointwise("eq", (x, zero))
    safe = pointwise("where", (at_zero, one, x))
    root = pointwise("sqrt", (safe,)) if exponent == 0.5 else pointwise("pow_scalar", (safe,), (exponent,))
    return pointwise("where", (at_zero, zero, root))


def norm_over(call: Call, x: Value, p: Any, axes: Sequence[int], *, keepdim: bool) -> Value:
    if p is None or p == "fro":
        p = 2
    if p == 2 and any(a == ROWS or x.shape[a] != 1 for a in axes):
        # A product, not a square: the gradient of that, g (2 x), overflows before it meets a g of 0.
        return _rooted(reduced(pointwise("mul", (x, x)), "sum", axes, keepdim=keepdim), 0.5)
    if not isinstance(p, (int, float)) or math.isnan(p):
        raise call.unsupported(f"the norm of order {p!r}")
    if p == 0:
        nonzero = pointwise("ne", (x, b.constant_like(x, 0.0)))
        return reduced(cast_to(nonzero, x.dtype), "sum", axes, keepdim=keepdim)
    size = pointwise("abs", (x,))
    if p == 1 or (p != 0 and all(a != ROWS and x.shape[a] == 1 for a in axes)):
        return reduced(size, "sum", axes, keepdim=keepdim)
    if math.isinf(p):
        return _extreme_size(size, "max" if p > 0 else "min", axes, keepdim=keepdim)
    if p > 1:
        total = reduced(pointwise("pow_scalar", (size,), (float(p),)), "sum", axes, keepdim=keepdim)
        return _rooted(total, 1 / float(p))
    # The slope at 0 is infinite; torch takes it for 0, element by element.
    at_zero = pointwise("eq", (size, b.constant_like(size, 0.0)))
    safe = pointwise("where", (at_zero, b.constant_like(size, 1.0), size))
    power = pointwise("pow_scalar", (safe,), (float(p),))
    power = pointwise("where", (at_zero, b.constant_like(size, 0.0 if p > 0 else math.inf), power))
    return pointwise("pow_scalar", (reduced(power, "sum", axes, keepdim=keepdim),), (1 / float(p),))


def _extreme_size(size: Value, op: str, axes: Sequence[int], *, keepdim: bool) -> Value:
    """The norm of order inf or -inf. Where it is NaN it has a gradient of 0, in torch, unlike ``amax``."""
    extreme = reduced(size, op, axes, keepdim=True)
    unknown = pointwise("ne", (extreme, extreme))
    known = reduced(
        pointwise("where", (beside(unknown, size), b.constant_like(size, 0.0), size)), op, axes, keepdim=keepdim
    )
    unknown = unknown if keepdim else on_weights(lambda v: b.reshape(v, known.shape), unknown)
    return pointwise("where", (unknown, b.constant_like(known, math.nan), known))


@rule("norm")
def _norm(
    call: Call, input: Any, p: Any = "fro", dim: Dims = None, keepdim: bool = False, out: Any = None, dtype: Any = None
) -> Value:
    return _norm_of(call, input, p, dim, keepdim=keepdim)


def _norm_of(call: Call, input: Any, p: Any, dim: Dims, *, keepdim: bool) -> Value:
    x = _operand(call, input)
    axes = axes_of(call, x, dim, rows=True)
    return b.cast(norm_over(call, exactly(x.value, axes, call.dtype), p, axes, keepdim=keepdim), call.dtype)


@rule("vector_norm", "linalg_vector_norm")
def _vector_norm(
    call: Call, x: Any, ord: Any = 2, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None
) -> Value:
    return _norm_of(call, x, ord, dim, keepdim=keepdim)


@rule("normalize")
def _normalize(call: Call, input: Any, p: Any = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Value:
    x = _operand(call, input)
    norm = norm_over(call, x.value, p, axes_of(call, x, dim), keepdim=True)
    return pointwise("div", (x.value, pointwise("clamp", (norm,), (float(eps), math.inf))))


def _largest(x: Value, axes: Sequence[int]) -> Value:
    """The maximum, which is subtracted and has no part in the result."""
    return pointwise("detach", (reduced(x, "max", axes, keepdim=True),))


def _shifted_exp(x: Value, axes: Sequence[int]) -> tuple[Value, Value, Value]:
    """``x`` less its maximum, the exponential of that, and its sum."""
    shifted = pointwise("sub", (x, beside(_largest(x, axes), x)))
    power = pointwise("exp", (shifted,))
    return shifted, power, beside(reduced(power, "sum", axes, keepdim=True), x)


@rule("softmax", "log_softmax")
def _softmax(call: Call, input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Value:
    x = _operand(call, input)
    if dim is None:
        raise call.unsupported("dim is not given", "name the feature dimension: dim=-1")
    axes = axes_of(call, x, dim, rows=True)
    value = cast_to(x.value, call.dtype)
    if axes == (ROWS,) and call.name == "softmax":
        return Softmax(value, _to_one(value))
    shifted, power, total = _shifted_exp(value, axes)
    if call.name == "softmax":
        return pointwise("div", (power, total))
    return pointwise("sub", (shifted, pointwise("log", (total,))))


@rule("logsumexp")
def _logsumexp(call: Call, input: Any, dim: Dims = None, keepdim: bool = False) -> Value:
    x = _operand(call, input)
    axes = axes_of(call, x, dim)
    largest = _largest(x.value, axes)
    infinite = pointwise("eq", (pointwise("abs", (largest,)), b.constant_like(largest, math.inf)))
    # Beside an infinite number all finite ones count for nothing, so that neither they nor their gradients overflow.
    bound = pointwise("where", (infinite, largest, b.constant_like(largest, -math.inf)))
    counted = pointwise("where", (pointwise("lt", (x.value, bound)), b.constant_like(x.value, -math.inf), x.value))
    shift = pointwise("where", (infinite, b.constant_like(largest, 0.0), largest))
    power = pointwise("exp", (pointwise("sub", (counted, shift)),))
    result = pointwise("add", (pointwise("log", (reduced(power, "sum", axes, keepdim=True),)), shift))
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
    _, centred = moments(x.value, axes)
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
