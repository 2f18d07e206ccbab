"""The table of pointwise functions: one line each, read by type rules, gradients, evaluators and emitters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from columba.ir.types import DType, Shape

Result = Literal["float", "same", "bool"]


@dataclass(frozen=True)
class PointwiseFunction:
    """A scalar function applied element by element.

    ``scalars`` names its compile-time parameters. ``result`` says what dtype comes out: that of the operands
    (``same``; ``float`` moreover demands that they are floating) or ``bool``. ``flops`` is its cost in the cost
    model, an exponential counting as ten. ``internal`` are functions that torch has not, or not under this name.
    """

    name: str
    arity: int
    result: Result = "float"
    scalars: tuple[str, ...] = ()
    flops: int = 1
    commutative: bool = False
    internal: bool = False


_TABLE = (
    PointwiseFunction("neg", 1, "same"),
    PointwiseFunction("detach", 1, "same", flops=0, internal=True),
    PointwiseFunction("mask_gradient", 2, "same", flops=0, internal=True),
    PointwiseFunction("abs", 1, "same"),
    PointwiseFunction("sign", 1, "same"),
    PointwiseFunction("square", 1, "same"),
    PointwiseFunction("exp", 1, flops=10),
    PointwiseFunction("expm1", 1, flops=12),
    PointwiseFunction("log", 1, flops=10),
    PointwiseFunction("log1p", 1, flops=12),
    PointwiseFunction("sqrt", 1, flops=4),
    PointwiseFunction("rsqrt", 1, flops=5),
    PointwiseFunction("reciprocal", 1, flops=4),
    PointwiseFunction("sin", 1, flops=15),
    PointwiseFunction("cos", 1, flops=15),
    PointwiseFunction("floor", 1),
    PointwiseFunction("atan2", 2, flops=30),
    PointwiseFunction("erf", 1, flops=20),
    PointwiseFunction("tanh", 1, flops=14),
    PointwiseFunction("sigmoid", 1, flops=12),
    PointwiseFunction("relu", 1, "same"),
    PointwiseFunction("leaky_relu", 1, scalars=("negative_slope",)),
    PointwiseFunction("elu", 1, scalars=("alpha",), flops=11),
    PointwiseFunction("silu", 1, flops=13),
    PointwiseFunction("gelu", 1, flops=24),
    PointwiseFunction("gelu_tanh", 1, flops=20, internal=True),
    PointwiseFunction("softplus", 1, scalars=("beta", "threshold"), flops=24),
    PointwiseFunction("pow_scalar", 1, scalars=("exponent",), flops=20, internal=True),
    PointwiseFunction("clamp", 1, "same", scalars=("min", "max"), flops=2),
    PointwiseFunction("add", 2, "same", commutative=True),
    PointwiseFunction("sub", 2, "same"),
    PointwiseFunction("mul", 2, "same", commutative=True),
    PointwiseFunction("div", 2, flops=4),
    PointwiseFunction("pow", 2, flops=30),
    PointwiseFunction("maximum", 2, "same", commutative=True),
    PointwiseFunction("minimum", 2, "same", commutative=True),
    PointwiseFunction("eq", 2, "bool", commutative=True),
    PointwiseFunction("ne", 2, "bool", commutative=True),
    PointwiseFunction("lt", 2, "bool"),
    PointwiseFunction("le", 2, "bool"),
    PointwiseFunction("gt", 2, "bool"),
    PointwiseFunction("ge", 2, "bool"),
    PointwiseFunction("logical_and", 2, "bool", commutative=True),
    PointwiseFunction("logical_or", 2, "bool", commutative=True),
    PointwiseFunction("logical_not", 1, "bool"),
    PointwiseFunction("where", 3, "same"),
)

POINTWISE = {f.name: f for f in _TABLE}


def pointwise_dtype(function: PointwiseFunction, dtypes: tuple[DType, ...]) -> DType:
    """The dtype that ``function`` gives on operands of ``dtypes``; TypeError if it takes none such."""
    name = function.name
    chooses = name in ("where", "mask_gradient")
    values = dtypes[1:] if chooses else dtypes
    if chooses and dtypes[0] is not DType.BOOL:
        raise TypeError(f"{name}: the condition must be bool, got {dtypes[0]}")
    if len(set(values)) != 1:
        raise TypeError(f"{name}: operands must share one dtype, got {', '.join(map(str, values))}")
    if name.startswith("logical") and values[0] is not DType.BOOL:
        raise TypeError(f"{name}: operands must be bool, got {values[0]}")
    if function.result == "float" and not values[0].is_float:
        raise TypeError(f"{name}: operands must be floating, got {values[0]}")
    return DType.BOOL if function.result == "bool" else values[0]


def broadcast_shapes(shapes: tuple[Shape, ...]) -> Shape:
    """Feature shapes broadcast as in NumPy, aligned at the last dimension.

    >>> broadcast_shapes(((4, 1), (16,), ()))
    (4, 16)
    """
    rank = max((len(s) for s in shapes), default=0)
    result: list[int] = []
    for sizes in zip(*((1,) * (rank - len(s)) + s for s in shapes), strict=True):
        wide = {n for n in sizes if n != 1}
        if len(wide) > 1:
            raise TypeError(f"feature shapes {' and '.join(map(str, shapes))} do not broadcast")
        result.append(wide.pop() if wide else 1)
    return tuple(result)
