"""Rules that add one operation, with operands and data at random."""

from __future__ import annotations

from columba.ir.program import build as b
from columba.ir.program.ops import (
    REDUCTIONS,
    Cast,
    Concat,
    Constant,
    Degree,
    Expand,
    FeatureReduce,
    Lift,
    Linear,
    OuterReduce,
    Pad,
    Permute,
    Pointwise,
    Reduce,
    Reshape,
    Slice,
    Softmax,
    Uniform,
    Value,
)
from columba.ir.spaces import IndexMap, Space
from columba.ir.types import DType

from .grow import CONSTANTS, SIZES, Grower, reshapes, rule

SMOOTH = ("neg", "square", "sin", "cos", "erf", "tanh", "sigmoid", "silu", "gelu", "gelu_tanh", "softplus", "elu")
KINKED = ("abs", "sign", "relu", "leaky_relu", "clamp")


@rule(3)
def _unary(g: Grower) -> Value:
    x = g.some()
    name = g.rng.choice(SMOOTH if g.chance(0.7) else KINKED)
    scalars = {
        "leaky_relu": (g.rng.choice((0.2, 0.01)),),
        "elu": (g.rng.choice((1.0, 0.5)),),
        "softplus": (g.rng.choice((1.0, 2.0)), 20.0),
        "clamp": (-0.7, 0.8),
    }.get(name, ())
    return Pointwise((x,), name, scalars)


@rule(1.5)
def _guarded(g: Grower) -> Value:
    """Functions that are steep or undefined somewhere, kept away from there."""
    x = g.some()
    positive = b.pointwise("add", b.pointwise("square", x), 0.5)
    bounded = b.pointwise(g.rng.choice(("tanh", "sin")), x)
    choice = g.rng.randrange(8)
    match choice:
        case 0:
            return b.pointwise("exp", bounded)
        case 1:
            return b.pointwise(g.rng.choice(("expm1", "exp")), bounded)
        case 2:
            return b.pointwise(g.rng.choice(("log", "log1p", "sqrt", "rsqrt", "reciprocal")), positive)
        case 3:
            return b.pointwise("pow_scalar", x, scalars=(g.rng.choice((0.0, 1.0, 2.0, 3.0)),))
        case 4:
            return b.pointwise("pow_scalar", positive, scalars=(g.rng.choice((0.5, -1.0, 1.5)),))
        case 5:
            return b.pointwise("pow", positive, b.pointwise("tanh", g.like(x)))
        case _:
            numerator = g.operand(x.space, x.shape if g.chance(0.6) else (2, *x.shape))
            return b.pointwise("div", numerator, positive)


@rule(4)
def _binary(g: Grower) -> Value:
    x = g.some()
    name = g.rng.choice(("add", "sub", "mul", "mul", "maximum", "minimum"))
    args = [x, g.like(x)]
    if g.chance(0.15):
        args[1] = Constant(x.space, g.rng.choice(CONSTANTS), g.float)
    g.rng.shuffle(args)
    return Pointwise(tuple(args), name)


@rule(1)
def _where(g: Grower) -> Value:
    x = g.some()
    test = Pointwise((x, g.like(x)), g.rng.choice(("lt", "le", "gt", "ge", "eq", "ne")))
    if g.chance(0.3):
        other = g.known(x.space, x.shape, DType.BOOL) or g.input(x.space, g.narrower(x.shape), DType.BOOL)
        test = Pointwise((test, other), g.rng.choice(("logical_and", "logical_or")))
    if g.chance(0.2):
        test = b.pointwise("logical_not", test)
    if g.chance(0.2):
        return Cast(test, g.float)
    if g.chance(0.05):
        return test
    return Pointwise((test, g.like(x), g.like(x)), "where")


@rule(0.5)
def _cast(g: Grower) -> Value:
    if g.chance(0.3):
        via = g.map_from(g.some().space)
        counted = None if via is None else Degree(via, DType.I64)
        return b.pointwise("neg", g.some()) if counted is None else Cast(counted, g.float)
    x = g.some()
    if g.float is DType.F64 and g.chance(0.3):
        return Cast(Cast(x, DType.F32), DType.F64)
    return Cast(x, g.float)


@rule(0.5)
def _leaf(g: Grower) -> Value:
    if g.chance(0.5):
        via = g.map_from(g.space())
        return g.input(g.space(), g.shape()) if via is None else Degree(via, g.float)
    return Uniform(g.input_seed(), g.space(), g.shape(0, 2), g.rng.randrange(3), g.float)


@rule(1.5)
def _feature_reduce(g: Grower) -> Value:
    x = g.some(lambda v: len(v.shape) > 0)
    axes = [a for a in range(len(x.shape)) if g.chance(0.5)] or [len(x.shape) - 1]
    return FeatureReduce(x, g.rng.choice(("sum", "sum", "max", "min")), tuple(axes))


@rule(1)
def _reshape(g: Grower) -> Value:
    x = g.some()
    return Reshape(x, g.rng.choice(reshapes(x.type.size)))


@rule(1)
def _permute(g: Grower) -> Value:
    x = g.some(lambda v: len(v.shape) > 1)
    return Permute(x, tuple(g.rng.sample(range(len(x.shape)), len(x.shape))))


@rule(1)
def _expand(g: Grower) -> Value:
    x = g.some()
    wide = tuple(g.rng.choice(SIZES) if n == 1 else n for n in x.shape)
    return Expand(x, (g.rng.choice(SIZES), *wide) if g.chance(0.4) and len(wide) < 3 else wide)


@rule(1)
def _slice(g: Grower) -> Value:
    x = g.some(lambda v: len(v.shape) > 0)
    axis = g.rng.randrange(len(x.shape))
    n = x.shape[axis]
    start = g.rng.randrange(n)
    stop = g.rng.randint(start + 1, n)
    return Slice(x, axis, start, stop, g.rng.choice((1, 1, 1, 2, 3)))


@rule(0.4)
def _pad(g: Grower) -> Value:
    x = g.some(lambda v: len(v.shape) > 0)
    axis, start, step = g.rng.randrange(len(x.shape)), g.rng.randrange(3), g.rng.choice((1, 1, 2))
    return Pad(x, axis, start, start + (x.shape[axis] - 1) * step + 1 + g.rng.randrange(3), step)


@rule(1)
def _concat(g: Grower) -> Value:
    x = g.some(lambda v: len(v.shape) > 0)
    axis = g.rng.randrange(len(x.shape))
    other = (*x.shape[:axis], g.rng.choice(SIZES), *x.shape[axis + 1 :])
    args = [x] if g.chance(0.05) else [x, g.operand(x.space, other)]
    if g.chance(0.2):
        args.append(g.operand(x.space, x.shape))
    g.rng.shuffle(args)
    return Concat(tuple(args), axis)


@rule(3)
def _lift(g: Grower) -> Value | None:
    x = g.some()
    via = g.map_to(x.space)
    return None if via is None else Lift(x, via)


@rule(3)
def _reduce(g: Grower) -> Value | None:
    x = g.some(lambda v: v.space is not Space.ONE)
    via = g.map_from(x.space)
    return None if via is None else Reduce(x, via, g.rng.choice(("sum", "sum", *REDUCTIONS)))


@rule(0.7)
def _softmax(g: Grower) -> Value | None:
    x = g.some(lambda v: v.space is not Space.ONE)
    via = g.map_from(x.space)
    return None if via is None else Softmax(x, via)


@rule(3)
def _linear(g: Grower) -> Value:
    x = g.some(lambda v: len(v.shape) > 0)
    via = g.map_from(x.space) if g.chance(0.85) else None
    return linear_of(g, x, via, g.rng.choice(SIZES))


def linear_of(g: Grower, x: Value, via: IndexMap | None, n: int, shared: float = 0.5) -> Value:
    transpose = g.chance(0.3)
    lead = () if g.chance(shared) else x.shape[:-1]
    matrix = (n, x.shape[-1]) if transpose else (x.shape[-1], n)
    w = g.operand(x.space if via is None else via.coarse, (*lead, *matrix), depth=1)
    return Linear(x, w, via, transpose)


@rule(0.6)
def _outer_reduce(g: Grower) -> Value:
    x = g.some(lambda v: len(v.shape) > 0)
    y = g.operand(x.space, (*x.shape[:-1], g.rng.choice(SIZES)))
    return OuterReduce(x, y, g.map_from(x.space) if g.chance(0.9) else None, g.chance(0.5))
