"""Sums of products and sums of sums."""

from __future__ import annotations

from columba.ir.program import build as b
from columba.ir.program.ops import (
    REDUCTIONS,
    Degree,
    Expand,
    FeatureReduce,
    Lift,
    Reduce,
    Softmax,
    Value,
)
from columba.ir.spaces import PAIR_SPACES, Space, index_map, maps_from

from ..grow import SIZES, Grower, reshapes
from ..rules import linear_of
from .parts import (
    EQUAL,
    another,
    idiom,
    leading,
    message_of,
    other_map,
    owner_map,
    product,
    selector,
)


@idiom(1.5, "aggregate_first", "compact_materialization", "hoist_factors", "inline_thin_linear")
def _aggregated(g: Grower) -> Value:
    """reduce(s * linear(x, w)): messages of any kind, scaled, negated, in other shapes, to any owner."""
    space = g.rng.choice((Space.EDGE, Space.EDGE, Space.EDGE, *PAIR_SPACES))
    x = message_of(g, space, leading(g))
    detail = g.rng.randrange(4)
    if detail == 0:  # heads are scaled before they are seen in another shape, perhaps after it again
        x = b.pointwise("mul", x, g.factor(x.space, (*x.shape[:-1], 1)))
        x = b.reshape(x, g.rng.choice(reshapes(x.type.size)))
        x = b.pointwise("mul", x, g.operand(x.space, (*x.shape[:-1], 1))) if g.chance(0.5) else x
    elif detail == 1:
        x = b.pointwise("neg", g.between(x, 1))
    elif g.chance(0.4):
        x = b.pointwise("div", g.factor(x.space, x.shape), x)
    else:
        x = g.between(x)
    via = index_map(g.rng.choice(("src", "dst")), x.space, square=g.square) if x.space is Space.EDGE else None
    return Reduce(x, via or owner_map(g, x.space), "sum" if g.chance(0.9) else g.rng.choice(REDUCTIONS))


@idiom(0.7, "aggregate_first")
def _by_head(g: Grower) -> Value:
    """reduce(s * reshape(linear(x, w), heads)), each head with a factor of its own."""
    end = g.rng.choice(("src", "dst"))
    lead, n = g.rng.choice(((2,), (3,), (2, 2), (2, 3))), g.rng.choice((1, 2))
    size = n
    for h in lead:
        size *= h
    y: Value = linear_of(g, g.fresh(Space.EDGE, (g.rng.choice(EQUAL),)), selector(g, Space.EDGE), size, shared=1.0)
    if g.chance(0.2):
        y = b.pointwise("mul", y, g.operand(Space.EDGE, (size,)))
    y = b.reshape(y, (*lead, n))
    if g.chance(0.3):
        y = b.pointwise("neg", y)
    scales = tuple(h if g.chance(0.8) else 1 for h in lead)
    factor = b.pointwise("exp", g.operand(Space.EDGE, (*scales, g.rng.choice((1, 1, 1, n)))))
    y = b.pointwise(g.rng.choice(("mul", "div")), y, factor)
    return b.reduce_sum(y, index_map(end, Space.EDGE, square=g.square))


@idiom(0.7, "aggregate_first")
def _scaled_twice(g: Grower) -> Value:
    """reduce(t * reshape(s * linear(x, w))), where s differs among the elements of a row, which then stand elsewhere."""
    lead, n = g.rng.choice(((2,), (3,), (2, 2))), g.rng.choice(EQUAL)
    x = g.fresh(Space.EDGE, (*lead, g.rng.choice(EQUAL)))
    y: Value = linear_of(g, x, selector(g, Space.EDGE), n)
    y = b.pointwise("mul", *g.rng.sample((y, g.operand(Space.EDGE, (*lead, g.rng.choice((1, n))))), 2))
    y = b.reshape(y, g.rng.choice([*reshapes(y.type.size), (n, *lead), (*lead[::-1], n)]))
    y = b.pointwise("mul", *g.rng.sample((y, g.operand(Space.EDGE, (*y.shape[:-1], 1) if g.chance(0.5) else ())), 2))
    return b.reduce_sum(y, index_map("dst" if g.chance(0.8) else "src", Space.EDGE, square=g.square))


@idiom(1, "merge_reductions")
def _summed_twice(g: Grower) -> Value:
    """reduce(s * reduce(x)), with factors from anywhere and what is not linear between."""
    first = g.rng.choice([m for m in maps_from(Space.EDGE, square=g.square) if m.coarse in PAIR_SPACES])
    if g.chance(0.15):
        first = owner_map(g, Space.EDGE)
    inner = Reduce(g.fresh(Space.EDGE, g.shape(0, 2)), first, "sum" if g.chance(0.65) else g.rng.choice(REDUCTIONS))
    middle: Value = g.between(inner, 2)
    if g.chance(0.3):
        middle = g.between(b.pointwise(g.rng.choice(("relu", "relu", "abs")), middle), 1)
    elif g.chance(0.15):
        middle = b.pointwise(
            "div", g.factor(middle.space, middle.shape), b.pointwise("add", b.pointwise("square", middle), 1.0)
        )
    nodes = [m for m in maps_from(middle.space, square=g.square) if m.coarse in g.nodes]
    return Reduce(
        middle, nodes[0] if nodes and g.chance(0.7) else owner_map(g, middle.space), "sum" if g.chance(0.9) else "max"
    )


@idiom(1, "hoist_factors")
def _owned_factor(g: Grower) -> Value:
    """reduce(x * lift(a)), read by owners or by their members only."""
    space = g.rng.choice((Space.EDGE, Space.EDGE, *PAIR_SPACES, *g.nodes))
    via = owner_map(g, space)
    x = g.fresh(space, g.shape(0, 2))
    for _ in range(g.rng.randint(1, 2)):
        near = another(g, via)
        a = g.factor(near.coarse, x.shape)
        if g.chance(0.4):
            degree: Value = Degree(g.rng.choice((via, near)), g.float)
            if g.chance(0.4):
                degree = b.pointwise("maximum", degree, 1.0)
            a = b.pointwise(g.rng.choice(("rsqrt", "reciprocal", "log")), degree)
        a = b.lift(a, near)
        if g.chance(0.2):
            a = Expand(a, x.shape) if a.shape != x.shape else b.reshape(a, g.rng.choice(reshapes(a.type.size)))
        x = b.pointwise("div", x, b.pointwise("exp", a)) if g.chance(0.25) else product(g, x, a)
        if g.chance(0.2):
            x = b.pointwise("neg", x)
    total = Reduce(x, via, "sum" if g.chance(0.75) else g.rng.choice(("max", "min")))
    return Lift(total, another(g, via)) if g.chance(0.4) else total


@idiom(1, "inline_thin_linear", "merge_linears")
def _thin(g: Grower) -> Value:
    """reduce(f(linear(x, w))) with few rows in w."""
    space = g.rng.choice((Space.EDGE, *PAIR_SPACES, *g.nodes))
    x = g.fresh(space, (*leading(g), g.rng.choice((1, 2, 2, 3))))
    y = g.between(linear_of(g, x, selector(g, space), g.rng.choice((1, 2, 3, 5))), 1)
    return Reduce(y, owner_map(g, y.space), g.rng.choice(REDUCTIONS))


@idiom(1, "reuse_weighted_sums", "expand_softmax", "factor_sums")
def _weighted_twice(g: Grower) -> Value:
    """reduce(p * v), and reduce(p * sum(lift(g) * v)), which follows from it."""
    via = owner_map(g, g.rng.choice((Space.EDGE, Space.EDGE, *PAIR_SPACES)))
    lead, n = leading(g), g.rng.choice((1, 2, 3))
    detail = g.rng.choice((None, None, None, "value", "map", "axes", "shape", "extremum", "weight", "owner"))
    lead = (n,) if detail == "axes" else lead
    v = g.fresh(via.fine, (*lead, n))
    p = g.fresh(via.fine, (*lead, n if detail == "weight" else 1))
    if g.chance(0.4):
        p = Softmax(p, via)
    g.keep(b.reduce_sum(product(g, p, g.fresh(via.fine, v.shape) if detail == "value" else v), via))
    near = other_map(g, via) if detail == "map" else via
    weighed = product(g, Lift(g.operand(near.coarse, v.shape if g.chance(0.9) else (n,)), near), v)
    axes = (0,) if detail == "axes" else (len(lead),)
    dot: Value = FeatureReduce(weighed, "max" if detail == "extremum" else "sum", axes)
    weight = b.reshape(p, dot.shape) if p.type.size == dot.type.size else FeatureReduce(p, "sum", dot.axes)
    if detail == "shape":
        weight = b.reshape(weight, (1, *weight.shape))
    summed = Reduce(product(g, weight, dot), other_map(g, via) if detail == "owner" else via, "sum")
    return Lift(summed, summed.via) if g.chance(0.8) else summed


@idiom(1, "merge_reductions", "compact_materialization", "aggregate_first")
def _linear_of_sum(g: Grower) -> Value:
    """linear(reduce(x), w), and reduce(linear(x)) the other way round."""
    x = g.some(lambda v: len(v.shape) > 0 and v.space in (Space.EDGE, *PAIR_SPACES))
    via = owner_map(g, x.space)
    if g.chance(0.5):
        y: Value = b.reduce_sum(x, via)
        return linear_of(g, y, g.map_from(y.space), g.rng.choice(SIZES))
    y = linear_of(g, x, g.map_from(x.space), g.rng.choice(SIZES))
    if g.chance(0.4):
        y = b.pointwise("mul", y, g.operand(y.space, ()))
    return b.reduce_sum(y, via)
