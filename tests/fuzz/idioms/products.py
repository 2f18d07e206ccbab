"""Products with weights."""

from __future__ import annotations

from columba.ir.program import build as b
from columba.ir.program.ops import (
    Concat,
    Degree,
    FeatureReduce,
    Lift,
    Linear,
    OuterReduce,
    Pointwise,
    Value,
)
from columba.ir.spaces import PAIR_SPACES, Space, compose, maps_from

from ..grow import SIZES, Grower, reshapes
from ..rules import linear_of
from .parts import (
    EQUAL,
    WEIGHTS,
    another,
    idiom,
    leading,
    many,
    other_map,
    product,
    selector,
)


@idiom(1.5, "reorder_linear")
def _dot(g: Grower) -> Value:
    """sum(linear(x, w) * lift(a)) over any axes, in any shape, the factor selected by the same map or by another."""
    space = many(g)
    via = selector(g, space)
    y: Value = linear_of(g, g.fresh(space, (*leading(g), g.rng.choice(EQUAL))), via, g.rng.choice((*EQUAL, 4, 6)))
    if g.chance(0.35):
        y = b.reshape(y, g.rng.choice(reshapes(y.type.size)))
    near = another(g, via)
    a: Value = Lift(g.operand(near.coarse, g.narrower(y.shape), depth=0), near)
    if g.chance(0.1):
        a = g.operand(space, a.shape)
    axes = tuple(n for n in range(len(y.shape)) if g.chance(0.5)) or tuple(range(len(y.shape)))[-1:]
    return FeatureReduce(product(g, y, a), "sum" if g.chance(0.9) else "max", axes)


@idiom(1.5, "reorder_linear")
def _chain(g: Grower) -> Value:
    """linear(linear(x, a), b): transposed or not, by heads or not, with or without something between."""
    space = many(g)
    via = selector(g, space)
    lead = leading(g)
    y: Value = linear_of(g, g.fresh(space, (*lead, g.rng.choice(EQUAL))), via, g.rng.choice((*EQUAL, 4)), shared=0.75)
    if g.chance(0.3):
        y = g.between(y, 1)
    return linear_of(
        g, y, another(g, via) if y.space is space else selector(g, y.space), g.rng.choice(EQUAL), shared=0.75
    )


@idiom(1, "merge_linears", "merge_pads")
def _siblings(g: Grower) -> Value:
    """Several products of one value, with biases, joined again; a weight may come from another product."""
    space = many(g)
    via, n = selector(g, space), g.rng.choice(EQUAL)
    x = g.fresh(space, (*leading(g), n)) if g.chance(0.7) else g.operand(space, (*leading(g), n))
    parts: list[Value] = []
    biased, detail = g.chance(0.5), g.chance(0.5)
    for _ in range(g.rng.randint(2, 3)):
        y: Value = linear_of(g, x, another(g, via), n if g.chance(0.6) else g.rng.choice(SIZES), shared=0.8)
        if biased and g.chance(0.9):
            near = other_map(g, via) if detail and g.chance(0.5) else via
            bias = g.operand(near.coarse, (y.shape[-1],) if g.chance(0.7) else g.narrower(y.shape), depth=0)
            y = Pointwise(tuple(g.rng.sample((y, Lift(bias, near)), 2)), "add")
        parts.append(g.keep(y))
    if g.chance(0.15):
        made = b.reduce_sum(b.outer(g.operand(space, (n,)), b.reshape(parts[0], (parts[0].type.size,))), via)
        parts.append(g.keep(Linear(x, made, via)))
    if g.chance(0.4):  # whose gradient is a product of the same rows with a gradient
        g.keep(OuterReduce(x, parts[0], via, True))
    if g.chance(0.5) and all(p.shape == parts[0].shape for p in parts):
        return Pointwise((parts[0], parts[-1]), g.rng.choice(("add", "mul", "sub")))
    return Concat(tuple(parts), len(x.shape) - 1)


@idiom(1, "fold_factors", "merge_linears")
def _scaled_product(g: Grower) -> Value:
    """linear(x, w) * lift(s): through lifts, reshapes, other factors and sums over features."""
    space = many(g)
    via = selector(g, space)
    lead = leading(g)
    y: Value = linear_of(g, g.fresh(space, (*lead, g.rng.choice(EQUAL))), via, g.rng.choice(EQUAL))
    if g.chance(0.3):
        y = b.pointwise("mul", *g.rng.sample((y, g.operand(y.space, y.shape)), 2))
    whole = via
    finer = [m for m in maps_from(Space.EDGE, square=g.square) if m.coarse is space]
    if finer and g.chance(0.4):
        up = g.rng.choice(finer)
        y, whole = Lift(y, up), compose(up, via)
    if g.chance(0.35):
        y = b.reshape(y, g.rng.choice(reshapes(y.type.size)))
    if g.chance(0.35) and y.shape:
        y = FeatureReduce(y, "sum" if g.chance(0.6) else "max", (g.rng.randrange(len(y.shape)),))
    near = another(g, whole)
    s: Value = g.operand(near.coarse, g.narrower(y.shape), depth=0)
    if g.chance(0.15):
        s = b.pointwise("rsqrt", Degree(near, g.float))
    return product(g, y, Lift(s, near))


@idiom(1, "split_linear", "compact_materialization")
def _linear_of_concat(g: Grower) -> Value:
    """linear(concat(lift a, lift b), w), joined along any axis, the weight either way round."""
    space = g.rng.choice((Space.EDGE, *PAIR_SPACES))
    lead = leading(g)
    axis = len(lead) if g.chance(0.8) else g.rng.randrange(len(lead) + 1)
    n = g.rng.choice(EQUAL)
    parts = []
    for _ in range(g.rng.randint(2, 3)):
        shape = [*lead, n]
        shape[axis] = g.rng.choice(EQUAL)
        parts.append(g.fresh(space, tuple(shape)) if g.chance(0.8) else g.operand(space, tuple(shape)))
    return linear_of(g, Concat(tuple(parts), axis), selector(g, space), g.rng.choice((*EQUAL, 4)), shared=0.8)


@idiom(0.7, "legalize_linear")
def _own_matrix(g: Grower) -> Value:
    """A matrix for each row, in linear and in outer_reduce."""
    space = many(g)
    maps = [m for m in maps_from(space, square=g.square) if m.coarse not in WEIGHTS]
    via = g.rng.choice([None, *maps])
    n = g.rng.choice(EQUAL)
    lead = leading(g)
    x = g.fresh(space, (*lead, n))
    if g.chance(0.4):
        return OuterReduce(x, g.fresh(space, (*lead, g.rng.choice(EQUAL))), via, g.chance(0.5))
    return linear_of(g, x, via, n if g.chance(0.5) else g.rng.choice(EQUAL))
