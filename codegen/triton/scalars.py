"""Triton's element types, literals, and the spelling of every pointwise function."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from columba.ir.types import DType

STORED = {
    DType.F64: "tl.float64",
    DType.F32: "tl.float32",
    DType.BF16: "tl.bfloat16",
    DType.F16: "tl.float16",
    DType.I64: "tl.int64",
    DType.I32: "tl.int32",
    DType.BOOL: "tl.int1",
}
"""The type of a buffer's elements."""

HALVES = (DType.BF16, DType.F16)
"""Types that are only stored: kernels compute in float32."""


def computed(dtype: DType) -> str:
    """The type in which a kernel computes with values of ``dtype``."""
    return "tl.float32" if dtype in HALVES else STORED[dtype]


def literal(value: float, dtype: DType) -> str:
    """A constant of the given type.

    >>> literal(0.2, DType.F32), literal(float("-inf"), DType.F64), literal(1.0, DType.I64)
    ('0.2', "-float('inf')", '1')
    """
    if dtype is DType.BOOL:
        return "True" if value else "False"
    if not dtype.is_float:
        return str(dtype.number(value))
    if math.isnan(value):
        return "float('nan')"
    if math.isinf(value):
        return "float('inf')" if value > 0 else "-float('inf')"
    return repr(float(value))


def identifier(name: str) -> str:
    """``name`` with everything that Python does not allow in a name replaced.

    >>> identifier("conv.weight")
    'conv_weight'
    """
    return re.sub(r"\W", "_", name)


INFIX = {
    "add": "{0:a} + {1:a}",
    "sub": "{0:a} - {1:a}",
    "mul": "{0:a} * {1:a}",
    "div": "{0:a} / {1:a}",
    "eq": "{0:a} == {1:a}",
    "ne": "{0:a} != {1:a}",
    "lt": "{0:a} < {1:a}",
    "le": "{0:a} <= {1:a}",
    "gt": "{0:a} > {1:a}",
    "ge": "{0:a} >= {1:a}",
    "logical_and": "{0:a} & {1:a}",
    "logical_or": "{0:a} | {1:a}",
}
"""Functions that are operators; they take Python numbers as operands, in the type of the other operand."""

CALLS = {
    "neg": "{0:a} * -1",  # older versions of Triton take -x for 0 - x, which is not -0 where x is 0
    "logical_not": "{0:a} == 0",
    "abs": "tl.abs({0})",
    "square": "{0:a} * {0:a}",
    "exp": "tl.exp({0})",
    "log": "tl.log({0})",
    "sqrt": "tl.sqrt({0})",
    "rsqrt": "1 / tl.sqrt({0})",
    "reciprocal": "1 / {0:a}",
    "sin": "tl.sin({0})",
    "cos": "tl.cos({0})",
    "erf": "tl.erf({0})",
    "sigmoid": "1 / (1 + tl.exp(-{0:a}))",
    "silu": "{0:a} / (1 + tl.exp(-{0:a}))",
    "relu": "tl.where({0:a} < 0, 0, {0})",
    "leaky_relu": "tl.where({0:a} > 0, {0}, {0:a} * {negative_slope})",
    "gelu": "{0:a} * 0.5 * (1 + tl.erf({0:a} * 0.7071067811865476))",
    "maximum": "tl.maximum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)",
    "minimum": "tl.minimum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)",
    "where": "tl.where({0}, {1}, {2})",
    "sign": "sign({0})",
    "floor": "tl.floor({0})",
    "atan2": "atan2({0}, {1})",
    "tanh": "tanh({0})",
    "expm1": "expm1({0})",
    "log1p": "log1p({0})",
    "gelu_tanh": "gelu_tanh({0})",
    "elu": "tl.where({0:a} < 0, {alpha:a} * expm1({0}), {0})",
    "softplus": "softplus({0}, {beta}, {threshold})",
    "clamp": "clamp({0}, {min}, {max})",
    "pow": "power({0}, {1})",
}
"""All other functions: formulas, and functions of the prelude."""

READ_OFTEN = re.compile(r"\{(\d)")


def reads_twice(template: str) -> bool:
    """Whether an operand occurs more than once, so that it should have a name."""
    found = READ_OFTEN.findall(template)
    return len(found) != len(set(found))


def power_template(exponent: float) -> str:
    """``x`` to a constant power.

    >>> power_template(3.0), power_template(0.5)
    ('{0:a} * {0:a} * {0:a}', 'tl.sqrt({0})')
    """
    if exponent in (1.0, 2.0, 3.0, 4.0):
        return " * ".join(["{0:a}"] * int(exponent))
    if exponent == -1.0:
        return "1 / {0:a}"
    if exponent == -2.0:
        return "1 / ({0:a} * {0:a})"
    if exponent == 0.5:
        return "tl.sqrt({0})"
    if exponent == -0.5:
        return "1 / tl.sqrt({0})"
    return f"power({{0}}, {literal(exponent, DType.F64)})"


def scalar_fields(names: Sequence[str], scalars: Sequence[float]) -> dict[str, str]:
    """The compile-time parameters of a pointwise function by name."""
    return dict(zip(names, (literal(s, DType.F64) for s in scalars), strict=True))
