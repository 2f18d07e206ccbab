"""What happens to rows on their way: motion, arithmetic, and layers as people write them."""

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
    Input,
    Lift,
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
from columba.ir.spaces import PAIR_SPACES, Space, index_map, maps_from

from ..grow import CONSTANTS, SIZES, WIDE, Grower, reshapes
from ..rules import linear_of
from .parts import (
    EQUAL,
    idiom,
    owner_map,
    product,
)

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
        via = owner_map(g, space)
        args.append(Lift(g.operand(via.coarse, shape, depth=0), via))
    if g.chance(0.15):
        args[0] = Constant(space, g.rng.choice(CONSTANTS), g.float)
    if g.chance(0.15):
        args[-1] = g.operand(space, shape)
    kind = g.rng.randrange(4)
    if kind == 0 and all(a.shape == shape for a in args):
        return Concat(tuple(args), g.rng.randrange(len(shape)))
    if kind == 1:
        return linear_of(g, args[-1], owner_map(g, space), g.rng.choice(EQUAL))
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
        return Pointwise((product(g, x, p), product(g, y, q)), g.rng.choice(("add", "sub", "mul")))
    test = Pointwise((g.fresh(space, g.narrower(shape)), p if g.chance(0.5) else y), "gt")
    branches = [p, product(g, p, Constant(space, 0.2, g.float) if g.chance(0.5) else y)]
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
            via = owner_map(g, space)
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
