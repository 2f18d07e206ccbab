"""Rules that make what passes look for, and what looks like it but for one detail: another map, axis, shape or reader."""

from __future__ import annotations

from collections.abc import Callable

from columba.ir.interop import build as b
from columba.ir.interop.ops import (
    REDUCTIONS,
    Cast,
    Concat,
    Constant,
    Degree,
    Expand,
    FeatureReduce,
    Input,
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
from columba.ir.spaces import PAIR_SPACES, IndexMap, Space, compose, index_map, maps_from

from .grow import CONSTANTS, SIZES, WIDE, Grower, Rule, reshapes, rule
from .rules import linear_of

IDIOMS: dict[Rule, tuple[str, ...]] = {}
"""Every rule of this module, and the passes that it is for."""

EQUAL = (1, 2, 2, 3)
"""Sizes that are often the same, so that a transposed matrix or an exchanged axis still fits."""

WEIGHTS = (Space.REL, Space.NTYPE, Space.ONE)


def idiom(weight: float, *passes: str) -> Callable[[Rule], Rule]:
    """Registers a rule for the given passes."""

    def register(made: Rule) -> Rule:
        IDIOMS[made] = passes
        return rule(weight)(made)

    return register


# ------------------------------------------------------------------------------------------------ parts


def _many(g: Grower) -> Space:
    """A space of many rows."""
    return g.rng.choice((Space.EDGE, Space.EDGE, *PAIR_SPACES, *g.nodes))


def _select(g: Grower, space: Space) -> IndexMap:
    """A map that selects a weight."""
    while (found := _owner(g, space)).coarse not in WEIGHTS:
        pass
    return found


def _owner(g: Grower, space: Space) -> IndexMap:
    """A map to reduce along.

    Raises:
        TypeError: a plain value has none.
    """
    maps = maps_from(space, square=g.square)
    if not maps:
        raise TypeError(f"no map leaves {space}")
    return g.rng.choice(maps)


def _lead(g: Grower) -> tuple[int, ...]:
    """Heads, if any."""
    return g.rng.choice(((), (), (2,), (3,), (2, 2)))


def _other(g: Grower, via: IndexMap) -> IndexMap:
    """Mostly the same map, sometimes another one, sometimes one between the same spaces."""
    others = maps_from(via.fine, square=g.square)
    twins = [m for m in others if m.coarse is via.coarse]
    return via if g.chance(0.8) else g.rng.choice(twins if g.chance(0.5) else others)


def _stranger(g: Grower, via: IndexMap) -> IndexMap:
    """Any map from the same rows."""
    return _owner(g, via.fine)


def _message(g: Grower, space: Space, lead: tuple[int, ...], sizes: tuple[int, ...] = EQUAL) -> Value:
    """A product of rows with a weight per relation, type or graph; of compacted ones, lifted, where there are any."""
    shape = (*lead, g.rng.choice(sizes))
    lifts = [m for m in maps_from(space, square=g.square) if m.coarse not in WEIGHTS]
    if lifts and g.chance(0.4):
        via = g.rng.choice(lifts)
        return Lift(linear_of(g, g.fresh(via.coarse, shape), _select(g, via.coarse), g.rng.choice(sizes)), via)
    x = g.fresh(space, shape) if g.chance(0.7) else g.operand(space, shape)
    return linear_of(g, x, _select(g, space), g.rng.choice(sizes))


def _factors(g: Grower, x: Value, p: Value) -> Value:
    """A product of two, either first."""
    return Pointwise(tuple(g.rng.sample((x, p), 2)), "mul")


# ------------------------------------------------------------------------------------------------ sums of products


@idiom(1.5, "aggregate_first", "compact_materialization", "hoist_factors", "inline_thin_linear")
def _aggregated(g: Grower) -> Value:
    """reduce(s * linear(x, w)): messages of any kind, scaled, negated, in other shapes, to any owner."""
    space = g.rng.choice((Space.EDGE, Space.EDGE, Space.EDGE, *PAIR_SPACES))
    x = _message(g, space, _lead(g))
    detail = g.rng.randrange(4)
    if detail == 0:  # heads are scaled before they are seen in another shape, perhaps after it again
        x = b.pointwise("mul", x, g.factor(x.space, (*x.shape[:-1], 1)))
        x = b.reshape(x, g.rng.choice(reshapes(x.type.size)))
        x = b.pointwise("mul", x, g.operand(x.space, (*x.shape[:-1], 1))) if g.chance(0.5) else x
    elif detail == 1:
        x = b.pointwise("neg", g.between(x, 1))
    elif g.chance(0.2):
        x = b.pointwise("div", g.factor(x.space, x.shape), x)
    else:
        x = g.between(x)
    via = index_map(g.rng.choice(("src", "dst")), x.space, square=g.square) if x.space is Space.EDGE else None
    return Reduce(x, via or _owner(g, x.space), "sum" if g.chance(0.9) else g.rng.choice(REDUCTIONS))


@idiom(0.7, "aggregate_first")
def _by_head(g: Grower) -> Value:
    """reduce(s * reshape(linear(x, w), heads)), each head with a factor of its own."""
    end = g.rng.choice(("src", "dst"))
    lead, n = g.rng.choice(((2,), (3,), (2, 2), (2, 3))), g.rng.choice((1, 2))
    size = n
    for h in lead:
        size *= h
    y: Value = linear_of(g, g.fresh(Space.EDGE, (g.rng.choice(EQUAL),)), _select(g, Space.EDGE), size, shared=1.0)
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
    y: Value = linear_of(g, x, _select(g, Space.EDGE), n)
    y = b.pointwise("mul", *g.rng.sample((y, g.operand(Space.EDGE, (*lead, g.rng.choice((1, n))))), 2))
    y = b.reshape(y, g.rng.choice([*reshapes(y.type.size), (n, *lead), (*lead[::-1], n)]))
    y = b.pointwise("mul", *g.rng.sample((y, g.operand(Space.EDGE, (*y.shape[:-1], 1) if g.chance(0.5) else ())), 2))
    return b.reduce_sum(y, index_map("dst" if g.chance(0.8) else "src", Space.EDGE, square=g.square))


@idiom(1, "merge_reductions")
def _summed_twice(g: Grower) -> Value:
    """reduce(s * reduce(x)), with factors from anywhere and what is not linear between."""
    first = g.rng.choice([m for m in maps_from(Space.EDGE, square=g.square) if m.coarse in PAIR_SPACES])
    if g.chance(0.15):
        first = _owner(g, Space.EDGE)
    inner = Reduce(g.fresh(Space.EDGE, g.shape(0, 2)), first, "sum" if g.chance(0.65) else g.rng.choice(REDUCTIONS))
    middle: Value = g.between(inner, 2)
    if g.chance(0.2):
        middle = g.between(b.pointwise(g.rng.choice(("relu", "abs", "square")), middle), 1)
    elif g.chance(0.15):
        middle = b.pointwise(
            "div", g.factor(middle.space, middle.shape), b.pointwise("add", b.pointwise("square", middle), 1.0)
        )
    nodes = [m for m in maps_from(middle.space, square=g.square) if m.coarse in g.nodes]
    return Reduce(
        middle, nodes[0] if nodes and g.chance(0.7) else _owner(g, middle.space), "sum" if g.chance(0.9) else "max"
    )


@idiom(1, "hoist_factors")
def _owned_factor(g: Grower) -> Value:
    """reduce(x * lift(a)), read by owners or by their members only."""
    space = g.rng.choice((Space.EDGE, Space.EDGE, *PAIR_SPACES, *g.nodes))
    via = _owner(g, space)
    x = g.fresh(space, g.shape(0, 2))
    for _ in range(g.rng.randint(1, 2)):
        near = _other(g, via)
        a = g.factor(near.coarse, x.shape)
        if g.chance(0.4):
            degree: Value = Degree(g.rng.choice((via, near)), g.float)
            if g.chance(0.4):
                degree = b.pointwise("maximum", degree, 1.0)
            a = b.pointwise(g.rng.choice(("rsqrt", "reciprocal", "log")), degree)
        a = b.lift(a, near)
        if g.chance(0.2):
            a = Expand(a, x.shape) if a.shape != x.shape else b.reshape(a, g.rng.choice(reshapes(a.type.size)))
        x = b.pointwise("div", x, b.pointwise("exp", a)) if g.chance(0.25) else _factors(g, x, a)
        if g.chance(0.2):
            x = b.pointwise("neg", x)
    total = Reduce(x, via, "sum" if g.chance(0.75) else g.rng.choice(("max", "min", "logsumexp")))
    return Lift(total, _other(g, via)) if g.chance(0.4) else total


@idiom(1, "inline_thin_linear", "merge_linears")
def _thin(g: Grower) -> Value:
    """reduce(f(linear(x, w))) with few rows in w."""
    space = g.rng.choice((Space.EDGE, *PAIR_SPACES, *g.nodes))
    x = g.fresh(space, (*_lead(g), g.rng.choice((1, 2, 2, 3))))
    y = g.between(linear_of(g, x, _select(g, space), g.rng.choice((1, 2, 3, 5))), 1)
    return Reduce(y, _owner(g, y.space), g.rng.choice(REDUCTIONS))


@idiom(1, "reuse_weighted_sums", "expand_softmax", "factor_sums")
def _weighted_twice(g: Grower) -> Value:
    """reduce(p * v), and reduce(p * sum(lift(g) * v)), which follows from it."""
    via = _owner(g, g.rng.choice((Space.EDGE, Space.EDGE, *PAIR_SPACES)))
    lead, n = _lead(g), g.rng.choice((1, 2, 3))
    detail = g.rng.choice((None, None, None, "value", "map", "axes", "shape", "extremum", "weight", "owner"))
    lead = (n,) if detail == "axes" else lead
    v = g.fresh(via.fine, (*lead, n))
    p = g.fresh(via.fine, (*lead, n if detail == "weight" else 1))
    if g.chance(0.4):
        p = Softmax(p, via)
    g.keep(b.reduce_sum(_factors(g, p, g.fresh(via.fine, v.shape) if detail == "value" else v), via))
    near = _stranger(g, via) if detail == "map" else via
    product = _factors(g, Lift(g.operand(near.coarse, v.shape if g.chance(0.9) else (n,)), near), v)
    axes = (0,) if detail == "axes" else (len(lead),)
    dot: Value = FeatureReduce(product, "max" if detail == "extremum" else "sum", axes)
    weight = b.reshape(p, dot.shape) if p.type.size == dot.type.size else FeatureReduce(p, "sum", dot.axes)
    if detail == "shape":
        weight = b.reshape(weight, (1, *weight.shape))
    summed = Reduce(_factors(g, weight, dot), _stranger(g, via) if detail == "owner" else via, "sum")
    return Lift(summed, summed.via) if g.chance(0.8) else summed


@idiom(1, "merge_reductions", "compact_materialization", "aggregate_first")
def _linear_of_sum(g: Grower) -> Value:
    """linear(reduce(x), w), and reduce(linear(x)) the other way round."""
    x = g.some(lambda v: len(v.shape) > 0 and v.space in (Space.EDGE, *PAIR_SPACES))
    via = _owner(g, x.space)
    if g.chance(0.5):
        y: Value = b.reduce_sum(x, via)
        return linear_of(g, y, g.map_from(y.space), g.rng.choice(SIZES))
    y = linear_of(g, x, g.map_from(x.space), g.rng.choice(SIZES))
    if g.chance(0.4):
        y = b.pointwise("mul", y, g.operand(y.space, ()))
    return b.reduce_sum(y, via)


# ------------------------------------------------------------------------------------------------ products with weights


@idiom(1.5, "reorder_linear")
def _dot(g: Grower) -> Value:
    """sum(linear(x, w) * lift(a)) over any axes, in any shape, the factor selected by the same map or by another."""
    space = _many(g)
    via = _select(g, space)
    y: Value = linear_of(g, g.fresh(space, (*_lead(g), g.rng.choice(EQUAL))), via, g.rng.choice((*EQUAL, 4, 6)))
    if g.chance(0.35):
        y = b.reshape(y, g.rng.choice(reshapes(y.type.size)))
    near = _other(g, via)
    a: Value = Lift(g.operand(near.coarse, g.narrower(y.shape), depth=0), near)
    if g.chance(0.1):
        a = g.operand(space, a.shape)
    axes = tuple(n for n in range(len(y.shape)) if g.chance(0.5)) or tuple(range(len(y.shape)))[-1:]
    return FeatureReduce(_factors(g, y, a), "sum" if g.chance(0.9) else "max", axes)


@idiom(1.5, "reorder_linear")
def _chain(g: Grower) -> Value:
    """linear(linear(x, a), b): transposed or not, by heads or not, with or without something between."""
    space = _many(g)
    via = _select(g, space)
    lead = _lead(g)
    y: Value = linear_of(g, g.fresh(space, (*lead, g.rng.choice(EQUAL))), via, g.rng.choice((*EQUAL, 4)), shared=0.75)
    if g.chance(0.3):
        y = g.between(y, 1)
    return linear_of(
        g, y, _other(g, via) if y.space is space else _select(g, y.space), g.rng.choice(EQUAL), shared=0.75
    )


@idiom(1, "merge_linears", "merge_pads")
def _siblings(g: Grower) -> Value:
    """Several products of one value, with biases, joined again; a weight may come from another product."""
    space = _many(g)
    via, n = _select(g, space), g.rng.choice(EQUAL)
    x = g.fresh(space, (*_lead(g), n)) if g.chance(0.7) else g.operand(space, (*_lead(g), n))
    parts: list[Value] = []
    biased, detail = g.chance(0.5), g.chance(0.5)
    for _ in range(g.rng.randint(2, 3)):
        y: Value = linear_of(g, x, _other(g, via), n if g.chance(0.6) else g.rng.choice(SIZES), shared=0.8)
        if biased and g.chance(0.9):
            near = _stranger(g, via) if detail and g.chance(0.5) else via
            bias = g.operand(near.coarse, (y.shape[-1],) if g.chance(0.7) else g.narrower(y.shape), depth=0)
            y = Pointwise(tuple(g.rng.sample((y, Lift(bias, near)), 2)), "add")
        parts.append(g.keep(y))
    if g.chance(0.15):
        made = b.reduce_sum(b.outer(g.operand(space, (n,)), b.reshape(parts[0], (parts[0].type.size,))), via)
        parts.append(g.keep(Linear(x, made, via)))
    if g.chance(0.2):
        g.keep(OuterReduce(x, parts[0], via, True))
    if g.chance(0.5) and all(p.shape == parts[0].shape for p in parts):
        return Pointwise((parts[0], parts[-1]), g.rng.choice(("add", "mul", "sub")))
    return Concat(tuple(parts), len(x.shape) - 1)


@idiom(1, "fold_factors", "merge_linears")
def _scaled_product(g: Grower) -> Value:
    """linear(x, w) * lift(s): through lifts, reshapes, other factors and sums over features."""
    space = _many(g)
    via = _select(g, space)
    lead = _lead(g)
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
    near = _other(g, whole)
    s: Value = g.operand(near.coarse, g.narrower(y.shape), depth=0)
    if g.chance(0.15):
        s = b.pointwise("rsqrt", Degree(near, g.float))
    return _factors(g, y, Lift(s, near))


@idiom(1, "split_linear", "compact_materialization")
def _linear_of_concat(g: Grower) -> Value:
    """linear(concat(lift a, lift b), w), joined along any axis, the weight either way round."""
    space = g.rng.choice((Space.EDGE, *PAIR_SPACES))
    lead = _lead(g)
    axis = len(lead) if g.chance(0.8) else g.rng.randrange(len(lead) + 1)
    n = g.rng.choice(EQUAL)
    parts = []
    for _ in range(g.rng.randint(2, 3)):
        shape = [*lead, n]
        shape[axis] = g.rng.choice(EQUAL)
        parts.append(g.fresh(space, tuple(shape)) if g.chance(0.8) else g.operand(space, tuple(shape)))
    return linear_of(g, Concat(tuple(parts), axis), _select(g, space), g.rng.choice((*EQUAL, 4)), shared=0.8)


@idiom(0.7, "legalize_linear")
def _own_matrix(g: Grower) -> Value:
    """A matrix for each row, in linear and in outer_reduce."""
    space = _many(g)
    maps = [m for m in maps_from(space, square=g.square) if m.coarse not in WEIGHTS]
    via = g.rng.choice([None, *maps])
    n = g.rng.choice(EQUAL)
    lead = _lead(g)
    x = g.fresh(space, (*lead, n))
    if g.chance(0.4):
        return OuterReduce(x, g.fresh(space, (*lead, g.rng.choice(EQUAL))), via, g.chance(0.5))
    return linear_of(g, x, via, n if g.chance(0.5) else g.rng.choice(EQUAL))


# ------------------------------------------------------------------------------------------------ motion


@idiom(2, "compact_materialization")
def _typed_message(g: Grower) -> Value:
    """linear(lift(h), w, rel): what compact materialization is for."""
    via = index_map(g.rng.choice(("src", "dst")), Space.EDGE, square=g.square)
    x = Lift(g.operand(via.coarse, g.shape(1, 2), depth=0), via)
    selector = g.rng.choice([m for m in maps_from(Space.EDGE, square=g.square) if m.coarse in (Space.REL, Space.NTYPE)])
    made = linear_of(g, g.keep(x), selector, g.rng.choice(SIZES))
    return _reduce_to_node(g, g.keep(made)) if g.chance(0.5) else made


def _reduce_to_node(g: Grower, x: Value) -> Value:
    """Edge messages to nodes: at once, in two steps, as a mean, weighted by a softmax, scaled."""
    dst = index_map(g.rng.choice(("dst", "dst", "src")), Space.EDGE, square=g.square)
    kind = g.rng.randrange(5)
    if kind == 0:
        return b.reduce_sum(x, dst)
    if kind == 1:
        degree = b.pointwise("maximum", Degree(dst, g.float), 1.0)
        return b.pointwise("div", b.reduce_sum(x, dst), degree)
    if kind == 2:
        score = g.operand(Space.EDGE, () if g.chance(0.5) else x.shape)
        return b.reduce_sum(b.pointwise("mul", x, Softmax(score, dst)), dst)
    if kind == 3:
        return b.reduce_sum(b.pointwise("mul", x, g.operand(Space.EDGE, ())), dst)
    pair = index_map(f"{dst.name}_rel", Space.EDGE, square=g.square)
    inner: Value = b.reduce_sum(x, pair)
    scaling = g.rng.randrange(4)
    if scaling == 1:
        inner = b.pointwise("mul", inner, g.operand(pair.coarse, g.narrower(x.shape)))
    if scaling == 2:
        inner = b.pointwise("div", inner, b.pointwise("maximum", Degree(pair, g.float), 1.0))
    if scaling == 3:
        inner = b.pointwise("neg", inner)
    outer = index_map(dst.name, pair.coarse, square=g.square)
    return Reduce(inner, outer, "sum" if g.chance(0.9) else "max")


@idiom(2, "merge_reductions", "hoist_factors")
def _aggregate(g: Grower) -> Value:
    return _reduce_to_node(g, g.some(lambda v: v.space is Space.EDGE))


@idiom(1, "compact_materialization")
def _lifted_operands(g: Grower) -> Value:
    """A row-wise operation of rows that come from several spaces."""
    space = g.rng.choice((Space.EDGE, Space.EDGE, *PAIR_SPACES, *g.nodes))
    shape = g.shape(1, 2)
    args: list[Value] = []
    for _ in range(g.rng.randint(2, 3)):
        via = _owner(g, space)
        args.append(Lift(g.operand(via.coarse, shape, depth=0), via))
    if g.chance(0.15):
        args[0] = Constant(space, g.rng.choice(CONSTANTS), g.float)
    if g.chance(0.15):
        args[-1] = g.operand(space, shape)
    kind = g.rng.randrange(4)
    if kind == 0 and all(a.shape == shape for a in args):
        return Concat(tuple(args), g.rng.randrange(len(shape)))
    if kind == 1:
        return linear_of(g, args[-1], _owner(g, space), g.rng.choice(EQUAL))
    if kind == 2 and len(args) == 3:
        return Pointwise((Pointwise((args[0], args[1]), "gt"), args[1], args[2]), "where")
    return Pointwise((args[0], args[1]), g.rng.choice(("add", "mul", "sub")))


@idiom(1, "sink_lifts")
def _cheap_pair_row(g: Grower) -> Value:
    """lift(f(lift(wide), narrow)) through a pair space: what sink_lifts looks for."""
    pair = g.rng.choice([m for m in maps_from(Space.EDGE, square=g.square) if m.coarse in PAIR_SPACES])
    node = g.rng.choice([m for m in maps_from(pair.coarse, square=g.square) if m.coarse is not Space.ONE])
    wide = (g.rng.choice((2, *WIDE)),)
    row: Value = Lift(g.operand(node.coarse, wide, depth=0), node)
    for _ in range(g.rng.randint(1, 3)):
        kind = g.rng.randrange(7)
        if kind <= 2:
            args = (row, g.operand(pair.coarse, g.rng.choice(((), (1,), wide))))
            row = Pointwise(
                args if g.chance(0.6) else args[::-1],
                g.rng.choice(("mul", "sub", "add", "div") if g.chance(0.3) else ("mul", "sub")),
            )
        elif kind == 3:
            row = b.pointwise(g.rng.choice(("neg", "relu", "tanh")), row)
        elif kind == 4:
            row = b.reshape(row, (1, *wide) if row.shape == wide else wide)
        elif kind == 5:
            row = Pointwise((row, Uniform(g.input_seed(), pair.coarse, row.shape, g.rng.randrange(3), g.float)), "mul")
        else:
            row = Cast(Cast(row, g.float), g.float)
    if g.chance(0.15):
        g.keep(row)
    return b.lift(row, pair)


# ------------------------------------------------------------------------------------------------ arithmetic


@idiom(1, "factor_sums")
def _common_factor(g: Grower) -> Value:
    """a * p - b * p, in every order, and where(c, x, x * s)."""
    space, shape = g.space(), g.shape(0, 2)
    p = g.fresh(space, shape)
    x, y = g.fresh(space, g.narrower(shape)), g.fresh(space, g.narrower(shape))
    if g.chance(0.6):
        q = p if g.chance(0.85) else g.fresh(space, shape)
        return Pointwise((_factors(g, x, p), _factors(g, y, q)), g.rng.choice(("add", "sub", "mul")))
    test = Pointwise((g.fresh(space, g.narrower(shape)), p if g.chance(0.5) else y), "gt")
    branches = [p, _factors(g, p, Constant(space, 0.2, g.float) if g.chance(0.5) else y)]
    if g.chance(0.2):
        branches[1] = Pointwise((p, y), "add")
    return Pointwise((test, *g.rng.sample(branches, 2)), "where")


@idiom(1, "pull_negations")
def _negated(g: Grower) -> Value:
    """x + f(-y), for an f of which some parts are linear."""
    space = g.space()
    y: Value = b.pointwise("neg", g.fresh(space, g.shape(1, 2)))
    for _ in range(g.rng.randint(0, 2)):
        kind = g.rng.randrange(7)
        via = g.map_from(y.space)
        if kind == 0 and via is not None:
            y = Reduce(y, via, g.rng.choice(REDUCTIONS))
        elif kind == 1 and y.shape:
            y = FeatureReduce(y, g.rng.choice(("sum", "max", "min")), (len(y.shape) - 1,))
        elif kind == 2 and (up := g.map_to(y.space)) is not None:
            y = Lift(y, up)
        elif kind == 3 and y.shape:
            y = linear_of(g, y, via, g.rng.choice(EQUAL))
        elif kind == 4 and y.shape:
            y = Pad(y, 0, 1, y.shape[0] + 2)
        else:
            y = g.between(y, 1)
    args = (g.operand(y.space, y.shape), y)
    return Pointwise(args if g.chance(0.6) else args[::-1], g.rng.choice(("add", "sub")))


@idiom(1, "reassociate_products", "compact_materialization")
def _product_chain(g: Grower) -> Value:
    """(x * lift(a)) * lift(b), with constants, and sums or differences in place of one of the products."""
    space = g.rng.choice((Space.EDGE, Space.EDGE, *PAIR_SPACES, *g.nodes))
    shape = g.shape(0, 2)
    x = g.input(space, shape)
    made: Value = x if g.chance(0.7) else b.pointwise("tanh", x)
    for _ in range(g.rng.randint(2, 3)):
        if g.chance(0.2):
            a: Value = Constant(space, g.rng.choice(CONSTANTS), g.float)
        else:
            via = _owner(g, space)
            a = Lift(g.operand(via.coarse, g.narrower(shape), depth=0), via)
        made = Pointwise(
            tuple(g.rng.sample((made, a), 2)), "mul" if g.chance(0.8) else g.rng.choice(("add", "sub", "maximum"))
        )
    return made


@idiom(1, "merge_pads")
def _placed(g: Grower) -> Value:
    """A sum of parts each in its place: side by side, or with a gap, an overlap, a step, along another axis."""
    space, rank = g.space(), g.rng.randint(1, 2)
    axis, other = g.rng.randrange(rank), g.rng.choice(EQUAL)
    sizes = [g.rng.choice(EQUAL) for _ in range(g.rng.randint(2, 3))]
    whole = sum(sizes) + (g.rng.randrange(2) if g.chance(0.3) else 0)
    pads: list[Value] = []
    start = 0
    for n in sizes:
        shape = [other] * rank
        shape[axis] = n
        at, step = start, 1
        if g.chance(0.15):
            at = g.rng.randrange(whole - n + 1)
        if g.chance(0.15) and at + (n - 1) * 2 < whole:
            step = 2
        pads.append(Pad(g.fresh(space, tuple(shape)), axis, at, whole, step))
        start += n
    g.rng.shuffle(pads)
    total = pads[0]
    for p in pads[1:]:
        total = Pointwise((total, p), "add" if g.chance(0.9) else "sub")
    return total


@idiom(0.7, "canonicalize")
def _views(g: Grower) -> Value:
    """Views of views, neutral operands, constants of constants."""
    x = g.fresh(g.space(), g.rng.choice(((2,), (2, 3), (2, 2, 2), (1, 3), (3, 2, 4))))
    theme = g.rng.randrange(9) if g.chance(0.6) else None
    for _ in range(g.rng.randint(2, 4)):
        rank, kind = len(x.shape), g.rng.randrange(9) if theme is None else theme
        if kind <= 1 and rank > 1:
            x = Permute(x, tuple(g.rng.sample(range(rank), rank)))
        elif kind == 2:
            x = Reshape(x, g.rng.choice(reshapes(x.type.size)))
        elif kind == 3 and rank:
            axis = g.rng.randrange(rank)
            x = Slice(x, axis, 0, x.shape[axis], g.rng.choice((1, 2)))
        elif kind == 4 and rank:
            axis = g.rng.randrange(rank)
            x = Pad(x, axis, g.rng.choice((0, 0, 1)), x.shape[axis] + g.rng.randrange(1, 3))
        elif kind == 5:
            x = Expand(x, (g.rng.choice((1, 2)), *x.shape))
        elif kind <= 7:
            args = (x, b.expand(Constant(x.space, g.rng.choice((0.0, 1.0)), g.float), g.narrower(x.shape)))
            name = g.rng.choice(("add", "sub", "mul"))
            x = Pointwise(args if g.chance(0.5) else args[::-1], name)
        elif (via := g.map_to(x.space)) is not None:
            x = Lift(x, via)
    return x


@idiom(0.5, "merge_pads", "canonicalize")
def _parted(g: Grower) -> Value:
    """A row cut in two, each part used: the gradient puts the parts together again."""
    x = g.some(lambda v: len(v.shape) > 0 and v.shape[-1] > 1)
    axis, n = len(x.shape) - 1, x.shape[-1]
    at = g.rng.randrange(1, n)
    first, second = Slice(x, axis, 0, at), Slice(x, axis, at, n)
    parts = [b.pointwise("tanh", first), b.pointwise("mul", second, 2.0)]
    return Concat(tuple(g.rng.sample(parts, 2)), axis)


@idiom(0.5, "common_subexpressions")
def _twice(g: Grower) -> Value:
    """The same operation again: a common subexpression."""
    x = g.some(lambda v: not isinstance(v, (Input, Uniform)))
    again = type(x)(
        **{**x.data, **{f: getattr(x, f) for f in x.__dataclass_fields__ if x.__dataclass_fields__[f].init}}
    )
    return b.pointwise(g.rng.choice(("add", "mul")), x, again)


# ------------------------------------------------------------------------------------------------ layers


@idiom(0.8, "expand_softmax", "factor_sums", "reuse_weighted_sums")
def _attention(g: Grower) -> Value:
    """Scores from both ends, softmax, a weighted sum of messages: the shape of RGAT and HGT."""
    heads, n = g.rng.choice(((), (2,), (3,))), g.rng.choice((2, 4))
    src, dst, rel = (index_map(name, Space.EDGE, square=g.square) for name in ("src", "dst", "rel"))
    x = Lift(g.operand(src.coarse, (*heads, 3), depth=0), src)
    message = g.keep(linear_of(g, x, rel, n))
    other = g.rng.choice(
        (Lift(g.operand(rel.coarse, message.shape, depth=0), rel), g.operand(Space.EDGE, message.shape))
    )
    score = FeatureReduce(b.pointwise("mul", message, other), "sum", (len(heads),))
    if g.chance(0.5):
        score = Pointwise((score,), "leaky_relu", (0.2,))
    weight = b.reshape(Softmax(score, dst), (*heads, 1))
    return b.reduce_sum(b.pointwise("mul", weight, message), dst)
