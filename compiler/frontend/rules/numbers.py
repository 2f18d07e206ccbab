"""Pointwise functions that are formulas of others: rounding, kinds of numbers, angles, and activations that torch computes by cases."""

from __future__ import annotations

import math
from typing import Any

import torch

from columba.frontend.infer import ROW_WISE
from columba.frontend.operands import pointwise
from columba.frontend.rules.pointwise import apply, operands
from columba.frontend.rules.registry import RULES, Call, rule
from columba.ir.program import build as b
from columba.ir.program.ops import Value
from columba.runtime.dtypes import torch_dtype

_OTHERS = frozenset(RULES)


def _number(x: Value, value: float) -> Value:
    return b.constant_like(x, value)


def _where(condition: Value, yes: Value, no: Value) -> Value:
    return pointwise("where", (condition, yes, no))


def _both(a: Value, c: Value) -> Value:
    return pointwise("logical_and", (a, c))


# ------------------------------------------------------------------------------------------------ rounding


def _truncated(x: Value) -> Value:
    up = pointwise("neg", (pointwise("floor", (pointwise("neg", (x,)),)),))
    return _where(pointwise("lt", (x, _number(x, 0.0))), up, pointwise("floor", (x,)))


def _rounded(x: Value) -> Value:
    """To the nearest whole number, the even one of two that are as near: of the absolute value, whose fraction is exact."""
    size = pointwise("abs", (x,))
    below = pointwise("floor", (size,))
    fraction = pointwise("sub", (size, below))
    half = pointwise("mul", (below, _number(x, 0.5)))
    odd = pointwise("ne", (half, pointwise("floor", (half,))))
    tie = _both(pointwise("eq", (fraction, _number(x, 0.5))), odd)
    up = pointwise("logical_or", (pointwise("gt", (fraction, _number(x, 0.5))), tie))
    nearest = _where(up, pointwise("add", (below, _number(x, 1.0))), below)
    signed = _where(pointwise("lt", (x, _number(x, 0.0))), pointwise("neg", (nearest,)), nearest)
    return pointwise("detach", (_where(pointwise("eq", (size, below)), x, signed),))


@rule("floor", "ceil", "trunc", "fix", "round")
def _rounding(call: Call, input: Any, *, decimals: int = 0) -> Value:
    (x,) = operands(call, (input,), call.dtype)
    if decimals:
        raise call.unsupported("decimals are not 0", "write torch.round(x * 10**n) / 10**n")
    if not x.dtype.is_float:
        return x
    if call.name == "ceil":
        return pointwise("neg", (pointwise("floor", (pointwise("neg", (x,)),)),))
    if call.name == "floor":
        return pointwise("floor", (x,))
    return _rounded(x) if call.name == "round" else _truncated(x)


@rule("frac")
def _frac(call: Call, input: Any) -> Value:
    (x,) = operands(call, (input,), call.dtype)
    return pointwise("sub", (x, _truncated(x)))


# ------------------------------------------------------------------------------------------------ kinds of numbers


@rule("isinf", "isfinite", "isposinf", "isneginf")
def _kind(call: Call, input: Any) -> Value:
    x = call.value(input)
    if not x.dtype.is_float:
        same = pointwise("eq", (x, x))
        return same if call.name == "isfinite" else pointwise("logical_not", (same,))
    if call.name in ("isposinf", "isneginf"):
        return pointwise("eq", (x, _number(x, math.inf if call.name == "isposinf" else -math.inf)))
    size = pointwise("abs", (x,))
    return pointwise("lt" if call.name == "isfinite" else "eq", (size, _number(x, math.inf)))


@rule("nan_to_num")
def _nan_to_num(
    call: Call, input: Any, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Value:
    (x,) = operands(call, (input,), call.dtype)
    if not x.dtype.is_float:
        return x
    largest = torch.finfo(torch_dtype(x.dtype)).max
    result = _where(pointwise("ne", (x, x)), _number(x, nan or 0.0), x)
    for infinite, given, default in ((math.inf, posinf, largest), (-math.inf, neginf, -largest)):
        at = pointwise("eq", (x, _number(x, infinite)))
        result = _where(at, _number(x, default if given is None else given), result)
    return result


# ------------------------------------------------------------------------------------------------ angles


@rule("atan2", "arctan2")
def _atan2(call: Call, input: Any, other: Any) -> Value:
    return apply(call, "atan2", input, other)


@rule("atan", "arctan")
def _atan(call: Call, input: Any) -> Value:
    return apply(call, "atan2", input, 1.0)


@rule("tan")
def _tan(call: Call, input: Any) -> Value:
    (x,) = operands(call, (input,), call.dtype)
    return pointwise("div", (pointwise("sin", (x,)), pointwise("cos", (x,))))


def _power_of_e(x: Value, factor: float) -> Value:
    """Half of ``exp(2 factor x)``, also where that overflows and its half does not."""
    root = pointwise("exp", (pointwise("mul", (x, _number(x, factor))),))
    return pointwise("mul", (pointwise("mul", (root, _number(x, 0.5))), root))


def _small(x: Value) -> tuple[Value, Value]:
    """Whether a number is below 1, and the number where it is."""
    small = pointwise("lt", (pointwise("abs", (x,)), _number(x, 1.0)))
    return small, _where(small, x, _number(x, 0.0))


def _sinh_near_0(x: Value) -> Value:
    less = pointwise("expm1", (x,))  # exp(x) - 1, which is exact near 0
    beside = pointwise("div", (less, pointwise("add", (less, _number(x, 1.0)))))
    return pointwise("mul", (pointwise("add", (less, beside)), _number(x, 0.5)))


@rule("cosh")
def _cosh(call: Call, input: Any) -> Value:
    """Near 0 ``1 + 2 sinh(x / 2) ** 2``, whose gradient is no difference of numbers around 1."""
    (x,) = operands(call, (input,), call.dtype)
    small, within = _small(x)
    half = _sinh_near_0(pointwise("mul", (within, _number(x, 0.5))))
    twice = pointwise("mul", (pointwise("mul", (half, half)), _number(x, 2.0)))
    far = pointwise("add", (_power_of_e(x, 0.5), _power_of_e(x, -0.5)))
    return _where(small, pointwise("add", (twice, _number(x, 1.0))), far)


@rule("sinh")
def _sinh(call: Call, input: Any) -> Value:
    (x,) = operands(call, (input,), call.dtype)
    small, within = _small(x)
    return _where(small, _sinh_near_0(within), pointwise("sub", (_power_of_e(x, 0.5), _power_of_e(x, -0.5))))


# ------------------------------------------------------------------------------------------------ activations by cases


def _sixth(x: Value) -> Value:
    """``relu6(x + 3) / 6``, without a gradient where it is 0 or 1."""
    shifted = pointwise("add", (x, _number(x, 3.0)))
    return pointwise("div", (pointwise("clamp", (shifted,), (0.0, 6.0)), _number(x, 6.0)))


def _within(x: Value, bound: float) -> Value:
    return _both(pointwise("gt", (x, _number(x, -bound))), pointwise("lt", (x, _number(x, bound))))


@rule("hardsigmoid")
def _hardsigmoid(call: Call, input: Any, inplace: bool = False) -> Value:
    (x,) = operands(call, (input,), call.dtype)
    line = pointwise("div", (pointwise("add", (x, _number(x, 3.0))), _number(x, 6.0)))
    return _where(_within(x, 3.0), line, pointwise("detach", (_sixth(x),)))


@rule("hardswish")
def _hardswish(call: Call, input: Any, inplace: bool = False) -> Value:
    """The gradient is 0 up to -3, that of ``x (x + 3) / 6`` up to 3, and 1 from there."""
    (x,) = operands(call, (input,), call.dtype)
    above, below = pointwise("ge", (x, _number(x, 3.0))), pointwise("le", (x, _number(x, -3.0)))
    within = _where(pointwise("logical_or", (above, below)), _number(x, 0.0), x)
    share = pointwise("div", (pointwise("add", (within, _number(x, 3.0))), _number(x, 6.0)))
    outside = pointwise("detach", (pointwise("mul", (x, _sixth(x))),))
    return _where(above, x, _where(below, outside, pointwise("mul", (within, share))))


@rule("celu")
def _celu(call: Call, input: Any, alpha: float = 1.0, inplace: bool = False) -> Value:
    (x,) = operands(call, (input,), call.dtype)
    positive = pointwise("gt", (x, _number(x, 0.0)))
    negative = _where(positive, _number(x, 0.0), x)
    scaled = pointwise("div", (negative, _number(x, alpha)))
    power = pointwise("elu", (scaled,), (1.0,)) if alpha > 0 else pointwise("expm1", (scaled,))
    return _where(positive, x, pointwise("mul", (power, _number(x, alpha))))


@rule("threshold", "_threshold")
def _threshold(call: Call, input: Any, threshold: float, value: float, inplace: bool = False) -> Value:
    (x,) = operands(call, (input,), call.dtype)
    return _where(pointwise("le", (x, _number(x, threshold))), _number(x, value), x)


@rule("hardshrink")
def _hardshrink(call: Call, input: Any, lambd: float = 0.5) -> Value:
    (x,) = operands(call, (input,), call.dtype)
    outside = pointwise(
        "logical_or", (pointwise("lt", (x, _number(x, -lambd))), pointwise("gt", (x, _number(x, lambd))))
    )
    unknown = _where(pointwise("ne", (x, x)), x, _number(x, 0.0))  # has no gradient
    return _where(outside, x, pointwise("detach", (unknown,)))


@rule("tanhshrink")
def _tanhshrink(call: Call, input: Any) -> Value:
    (x,) = operands(call, (input,), call.dtype)
    return pointwise("sub", (x, pointwise("tanh", (x,))))


ROW_WISE.update(RULES.keys() - _OTHERS)
