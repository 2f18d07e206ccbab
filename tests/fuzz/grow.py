"""Random well-typed programs, grown a value at a time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

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
from columba.ir.interop.program import Program
from columba.ir.node import topological, users
from columba.ir.spaces import PAIR_SPACES, IndexMap, Space, index_map, maps_from
from columba.ir.types import DType, Shape, TensorType

SIZES = (1, 1, 2, 2, 3, 4, 4, 5, 8)
WIDE = (17, 20, 33)  # beyond the thresholds of sink_lifts and of lowering
LARGEST_ROW = 160
CONSTANTS = (0.0, 1.0, -1.0, 0.5, 2.0, -0.25)
SMOOTH = ("neg", "square", "sin", "cos", "erf", "tanh", "sigmoid", "silu", "gelu", "gelu_tanh", "softplus", "elu")
KINKED = ("abs", "sign", "relu", "leaky_relu", "clamp")
NAMES = tuple(f"{letter}{n or ''}" for n in range(40) for letter in "abcdefghjkmnpqstuvwxyz")
SPACES = (Space.EDGE, Space.EDGE, Space.EDGE, Space.SRC_REL, Space.DST_REL, Space.REL, Space.NTYPE, Space.ONE)


class Grower:
    """Values to build on, and the ways to build on them."""

    def __init__(self, rng: random.Random, square: bool, float_type: DType, values: Sequence[Value] = ()) -> None:
        self.rng = rng
        self.square = square
        self.float = float_type
        self.nodes = (Space.NODE,) if square else (Space.SRC, Space.DST)
        self.values: list[Value] = []
        self.names: set[str] = set()
        for v in values:
            self.keep(v)

    def keep(self, value: Value) -> Value:
        if isinstance(value, Input):
            self.names.add(value.name)
        if value not in self.values:
            self.values.append(value)
        return value

    # -------------------------------------------------------------------------------------------- random data

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def shape(self, low: int = 0, high: int = 3) -> Shape:
        rank = self.rng.randint(low, high)
        if rank == 1 and self.chance(0.15):
            return (self.rng.choice(WIDE),)
        return tuple(self.rng.choice(SIZES) for _ in range(rank))

    def space(self) -> Space:
        return self.rng.choice((*SPACES, *self.nodes, *self.nodes))

    def map_from(self, fine: Space) -> IndexMap | None:
        maps = maps_from(fine, square=self.square)
        return self.rng.choice(maps) if maps else None

    def map_to(self, coarse: Space) -> IndexMap | None:
        """A map that arrives at ``coarse``."""
        maps = [
            m
            for fine in (Space.EDGE, *PAIR_SPACES, *self.nodes, Space.REL, Space.NTYPE)
            for m in maps_from(fine, square=self.square)
            if m.coarse is coarse
        ]
        return self.rng.choice(maps) if maps else None

    # -------------------------------------------------------------------------------------------- operands

    def input(self, space: Space, shape: Shape, dtype: DType | None = None) -> Input:
        name = next(n for n in NAMES if n not in self.names)
        made = Input(name, TensorType(space, shape, dtype or self.float))
        self.keep(made)
        return made

    def known(self, space: Space, shape: Shape, dtype: DType | None = None) -> Value | None:
        dtype = dtype or self.float
        found = [v for v in self.values if v.space is space and v.shape == shape and v.dtype is dtype]
        return self.rng.choice(found) if found else None

    def operand(self, space: Space, shape: Shape, depth: int = 2) -> Value:
        """A floating value of a type: an old one, a lifted one, a constant, or a new input."""
        old = self.known(space, shape)
        if old is not None and self.chance(0.6):
            return old
        if depth and self.chance(0.6):
            via = self.map_from(space)
            if via is not None:
                return self.keep(Lift(self.operand(via.coarse, shape, depth - 1), via))
        if self.chance(0.07):
            return b.expand(Constant(space, self.rng.choice(CONSTANTS), self.float), shape)
        return self.input(space, shape)

    def some(self, test: Callable[[Value], bool] = lambda v: True) -> Value:
        """A floating value that passes ``test``; recent ones are likelier."""
        found = [v for v in self.values if v.dtype is self.float and test(v)]
        if found and self.chance(0.85):
            return found[max(self.rng.randrange(len(found)), self.rng.randrange(len(found)))]
        for _ in range(20):
            made = self.input(self.space(), self.shape())
            if test(made):
                return made
            self.values.remove(made)
            self.names.remove(made.name)
        return self.input(Space.EDGE, (4,))

    def narrower(self, shape: Shape) -> Shape:
        """A shape that broadcasts to ``shape``."""
        if self.chance(0.6):
            return shape
        kept = tuple(n if self.chance(0.6) else 1 for n in shape)
        return kept[self.rng.randint(0, len(kept)) :] if self.chance(0.5) else kept

    def like(self, x: Value) -> Value:
        """An operand that broadcasts to ``x``."""
        return self.operand(x.space, self.narrower(x.shape))

    # -------------------------------------------------------------------------------------------- growing

    def step(self) -> Value:
        """One more value (and what it needs)."""
        for _ in range(50):
            rule = self.rng.choices(_RULES, _WEIGHTS)[0]
            try:
                made = rule(self)
            except TypeError:  # this rule does not fit these operands
                continue
            if made is not None and made.type.size <= LARGEST_ROW:
                return self.keep(made)
        return self.keep(b.pointwise("neg", self.some()))

    def replacement(self, wanted: TensorType) -> Value:
        """A floating value of the given type that is not a leaf if that can be helped."""
        for _ in range(6):
            made = self.step()
            if made.type == wanted:
                return made
        via = self.map_from(wanted.space) if self.chance(0.5) else None
        if via is not None:
            return Lift(self.operand(via.coarse, wanted.shape), via)
        via = self.map_to(wanted.space)
        if via is not None and self.chance(0.6):
            return Reduce(self.operand(via.fine, wanted.shape), via, self.rng.choice(REDUCTIONS))
        return b.pointwise("mul", self.operand(wanted.space, wanted.shape), self.operand(wanted.space, wanted.shape))


def random_program(rng: random.Random, square: bool) -> Program:
    """A program of about 3 to 15 operations."""
    grower = Grower(rng, square, DType.F32 if rng.random() < 0.08 else DType.F64)
    for _ in range(rng.randint(1, 3)):
        grower.input(grower.space(), grower.shape())
    for _ in range(rng.randint(1, 9)):
        grower.step()
    return assemble(rng, grower.values)


def assemble(rng: random.Random, values: Sequence[Value], wanted: Sequence[Value] = ()) -> Program:
    """A program of ``wanted`` results, or of some of ``values``: what nobody reads, mostly."""
    if not wanted:
        readers = users(values)
        unread = [v for v in values if not readers[v] and not isinstance(v, Input)] or list(values[-1:])
        wanted = unread[-rng.randint(1, 4) :]
        if rng.random() < 0.25:
            wanted = [*wanted, rng.choice(values)]
    return with_inputs(wanted)


def with_inputs(results: Sequence[Value]) -> Program:
    """The program of some results, whose inputs are those that they need."""
    inputs = [v for v in topological(results) if isinstance(v, Input)]
    return Program("fuzz", tuple(inputs), tuple(results), tuple(f"r{n}" for n in range(len(results))))


# ------------------------------------------------------------------------------------------------ rules: one operation


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


def _binary(g: Grower) -> Value:
    x = g.some()
    name = g.rng.choice(("add", "sub", "mul", "mul", "maximum", "minimum"))
    args = [x, g.like(x)]
    if g.chance(0.15):
        args[1] = Constant(x.space, g.rng.choice(CONSTANTS), g.float)
    g.rng.shuffle(args)
    return Pointwise(tuple(args), name)


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


def _cast(g: Grower) -> Value:
    if g.chance(0.3):
        via = g.map_from(g.some().space)
        counted = None if via is None else Degree(via, DType.I64)
        return b.pointwise("neg", g.some()) if counted is None else Cast(counted, g.float)
    x = g.some()
    if g.float is DType.F64 and g.chance(0.3):
        return Cast(Cast(x, DType.F32), DType.F64)
    return Cast(x, g.float)


def _leaf(g: Grower) -> Value:
    if g.chance(0.5):
        via = g.map_from(g.space())
        return g.input(g.space(), g.shape()) if via is None else Degree(via, g.float)
    seed = g.known(Space.ONE, (), DType.I64) or g.input(Space.ONE, (), DType.I64)
    return Uniform(seed, g.space(), g.shape(0, 2), g.rng.randrange(3), g.float)


def _feature_reduce(g: Grower) -> Value:
    x = g.some(lambda v: len(v.shape) > 0)
    axes = [a for a in range(len(x.shape)) if g.chance(0.5)] or [len(x.shape) - 1]
    return FeatureReduce(x, g.rng.choice(("sum", "sum", "max", "min")), tuple(axes))


def _reshape(g: Grower) -> Value:
    x = g.some()
    return Reshape(x, g.rng.choice(_reshapes(x.type.size)))


def _reshapes(size: int) -> list[Shape]:
    pairs = [(n, size // n) for n in range(1, size + 1) if size % n == 0]
    return [(size,), *pairs, *((1, *p) for p in pairs), *([()] if size == 1 else [])]


def _permute(g: Grower) -> Value:
    x = g.some(lambda v: len(v.shape) > 1)
    return Permute(x, tuple(g.rng.sample(range(len(x.shape)), len(x.shape))))


def _expand(g: Grower) -> Value:
    x = g.some()
    wide = tuple(g.rng.choice(SIZES) if n == 1 else n for n in x.shape)
    return Expand(x, (g.rng.choice(SIZES), *wide) if g.chance(0.4) and len(wide) < 3 else wide)


def _slice(g: Grower) -> Value:
    x = g.some(lambda v: len(v.shape) > 0)
    axis = g.rng.randrange(len(x.shape))
    n = x.shape[axis]
    start = g.rng.randrange(n)
    stop = g.rng.randint(start + 1, n)
    return Slice(x, axis, start, stop, g.rng.choice((1, 1, 1, 2, 3)))


def _pad(g: Grower) -> Value:
    x = g.some(lambda v: len(v.shape) > 0)
    axis, start, step = g.rng.randrange(len(x.shape)), g.rng.randrange(3), g.rng.choice((1, 1, 2))
    return Pad(x, axis, start, start + (x.shape[axis] - 1) * step + 1 + g.rng.randrange(3), step)


def _concat(g: Grower) -> Value:
    x = g.some(lambda v: len(v.shape) > 0)
    axis = g.rng.randrange(len(x.shape))
    other = (*x.shape[:axis], g.rng.choice(SIZES), *x.shape[axis + 1 :])
    args = [x] if g.chance(0.05) else [x, g.operand(x.space, other)]
    if g.chance(0.2):
        args.append(g.operand(x.space, x.shape))
    g.rng.shuffle(args)
    return Concat(tuple(args), axis)


def _lift(g: Grower) -> Value | None:
    x = g.some()
    via = g.map_to(x.space)
    return None if via is None else Lift(x, via)


def _reduce(g: Grower) -> Value | None:
    x = g.some(lambda v: v.space is not Space.ONE)
    via = g.map_from(x.space)
    return None if via is None else Reduce(x, via, g.rng.choice(("sum", "sum", *REDUCTIONS)))


def _softmax(g: Grower) -> Value | None:
    x = g.some(lambda v: v.space is not Space.ONE)
    via = g.map_from(x.space)
    return None if via is None else Softmax(x, via)


def _linear(g: Grower) -> Value:
    x = g.some(lambda v: len(v.shape) > 0)
    via = g.map_from(x.space) if g.chance(0.85) else None
    return _linear_of(g, x, via, g.rng.choice(SIZES))


def _linear_of(g: Grower, x: Value, via: IndexMap | None, n: int, shared: float = 0.5) -> Value:
    transpose = g.chance(0.3)
    lead = () if g.chance(shared) else x.shape[:-1]
    matrix = (n, x.shape[-1]) if transpose else (x.shape[-1], n)
    w = g.operand(x.space if via is None else via.coarse, (*lead, *matrix), depth=1)
    return Linear(x, w, via, transpose)


def _outer_reduce(g: Grower) -> Value:
    x = g.some(lambda v: len(v.shape) > 0)
    y = g.operand(x.space, (*x.shape[:-1], g.rng.choice(SIZES)))
    return OuterReduce(x, y, g.map_from(x.space) if g.chance(0.9) else None, g.chance(0.5))


# ------------------------------------------------------------------------------------------------ rules: what passes look for


def _typed_message(g: Grower) -> Value:
    """linear(lift(h), w, rel): what compact materialization is for."""
    via = index_map(g.rng.choice(("src", "dst")), Space.EDGE, square=g.square)
    x = Lift(g.operand(via.coarse, g.shape(1, 2), depth=0), via)
    selector = g.rng.choice([m for m in maps_from(Space.EDGE, square=g.square) if m.coarse in (Space.REL, Space.NTYPE)])
    made = _linear_of(g, g.keep(x), selector, g.rng.choice(SIZES))
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


def _aggregate(g: Grower) -> Value:
    x = g.some(lambda v: v.space is Space.EDGE)
    return _reduce_to_node(g, x)


def _dot(g: Grower) -> Value:
    """sum(linear(x, w) * a), heads and reshapes included."""
    x = g.some(lambda v: len(v.shape) in (1, 2) and v.space is not Space.ONE)
    via = g.map_from(x.space)
    y = _linear_of(g, x, via, g.rng.choice((2, 4, 6, 8)))
    if len(y.shape) == 1 and g.chance(0.5):
        y = b.reshape(y, (2, y.shape[0] // 2))
    a = g.operand(y.space if via is None else via.coarse, g.narrower(y.shape), depth=0)
    args = [y, a if via is None else Lift(a, via)]
    g.rng.shuffle(args)
    axes = (len(y.shape) - 1,) if g.chance(0.7) else tuple(range(len(y.shape)))
    return FeatureReduce(Pointwise(tuple(args), "mul"), "sum", axes)


def _chain(g: Grower) -> Value:
    """linear(linear(x, a), b), with or without something between."""
    x = g.some(lambda v: len(v.shape) > 0 and v.space is not Space.ONE)
    via = g.map_from(x.space)
    y = _linear_of(g, x, via, g.rng.choice(SIZES))
    if g.chance(0.3):
        y = g.rng.choice((b.pointwise("neg", y), b.pointwise("mul", y, g.operand(y.space, ())), b.pointwise("relu", y)))
    return _linear_of(g, y, via, g.rng.choice(SIZES))


def _siblings(g: Grower) -> Value:
    """Several linears of one value, joined again."""
    x = g.some(lambda v: len(v.shape) > 0 and v.space is not Space.ONE)
    via = g.map_from(x.space)
    n = g.rng.choice(SIZES)
    parts = [g.keep(_linear_of(g, x, via, n, shared=0.9)) for _ in range(g.rng.randint(2, 3))]
    if via is not None and g.chance(0.3):
        parts = [b.pointwise("add", y, Lift(g.operand(via.coarse, (n,), depth=0), via)) for y in parts]
    if g.chance(0.5):
        return Concat(tuple(parts), len(x.shape) - 1)
    return Pointwise((parts[0], parts[1]), g.rng.choice(("add", "mul", "sub")))


def _linear_of_concat(g: Grower) -> Value:
    """linear(concat(lift a, lift b), w)."""
    via = g.map_from(g.rng.choice((Space.EDGE, *PAIR_SPACES)))
    assert via is not None
    parts = [g.operand(via.fine, (g.rng.choice(SIZES),)) for _ in range(g.rng.randint(2, 3))]
    return _linear_of(g, Concat(tuple(parts), 0), via, g.rng.choice(SIZES))


def _linear_of_sum(g: Grower) -> Value:
    """linear(reduce(x), w), and reduce(linear(x)) the other way round."""
    x = g.some(lambda v: len(v.shape) > 0 and v.space in (Space.EDGE, *PAIR_SPACES))
    via = g.map_from(x.space)
    assert via is not None
    if g.chance(0.5):
        y: Value = b.reduce_sum(x, via)
        return _linear_of(g, y, g.map_from(y.space), g.rng.choice(SIZES))
    y = _linear_of(g, x, g.map_from(x.space), g.rng.choice(SIZES))
    if g.chance(0.4):
        y = b.pointwise("mul", y, g.operand(y.space, ()))
    return b.reduce_sum(y, via)


def _cheap_pair_row(g: Grower) -> Value:
    """lift(lift(wide) * narrow) through a pair space: what sink_lifts looks for."""
    pair = g.rng.choice([m for m in maps_from(Space.EDGE, square=g.square) if m.coarse in PAIR_SPACES])
    node = g.rng.choice([m for m in maps_from(pair.coarse, square=g.square) if m.coarse is not Space.ONE])
    wide = (g.rng.choice((2, *WIDE)),)
    row = b.pointwise("mul", Lift(g.operand(node.coarse, wide, depth=0), node), g.operand(pair.coarse, ()))
    if g.chance(0.4):
        row = b.pointwise(g.rng.choice(("neg", "relu", "tanh")), row)
    return b.lift(row, pair)


def _attention(g: Grower) -> Value:
    """Scores from both ends, softmax, a weighted sum of messages: the shape of RGAT and HGT."""
    heads, n = g.rng.choice(((), (2,), (3,))), g.rng.choice((2, 4))
    src, dst, rel = (index_map(name, Space.EDGE, square=g.square) for name in ("src", "dst", "rel"))
    x = Lift(g.operand(src.coarse, (*heads, 3), depth=0), src)
    message = g.keep(_linear_of(g, x, rel, n))
    other = g.rng.choice(
        (Lift(g.operand(rel.coarse, message.shape, depth=0), rel), g.operand(Space.EDGE, message.shape))
    )
    score = FeatureReduce(b.pointwise("mul", message, other), "sum", (len(heads),))
    if g.chance(0.5):
        score = Pointwise((score,), "leaky_relu", (0.2,))
    weight = b.reshape(Softmax(score, dst), (*heads, 1))
    return b.reduce_sum(b.pointwise("mul", weight, message), dst)


def _parted(g: Grower) -> Value:
    """A row cut in two, each part used: the gradient puts the parts together again."""
    x = g.some(lambda v: len(v.shape) > 0 and v.shape[-1] > 1)
    axis, n = len(x.shape) - 1, x.shape[-1]
    at = g.rng.randrange(1, n)
    first, second = Slice(x, axis, 0, at), Slice(x, axis, at, n)
    parts = [b.pointwise("tanh", first), b.pointwise("mul", second, 2.0)]
    return Concat(tuple(g.rng.sample(parts, 2)), axis)


def _twice(g: Grower) -> Value:
    """The same operation again: a common subexpression."""
    x = g.some(lambda v: not isinstance(v, (Input, Uniform)))
    again = type(x)(
        **{**x.data, **{f: getattr(x, f) for f in x.__dataclass_fields__ if x.__dataclass_fields__[f].init}}
    )
    return b.pointwise(g.rng.choice(("add", "mul")), x, again)


_TABLE: dict[Callable[[Grower], Value | None], float] = {
    _unary: 3,
    _guarded: 1.5,
    _binary: 4,
    _where: 1,
    _cast: 0.5,
    _leaf: 0.5,
    _feature_reduce: 1.5,
    _reshape: 1,
    _permute: 1,
    _expand: 1,
    _slice: 1,
    _pad: 0.4,
    _concat: 1,
    _lift: 3,
    _reduce: 3,
    _softmax: 0.7,
    _linear: 3,
    _outer_reduce: 0.6,
    _typed_message: 2,
    _aggregate: 2,
    _dot: 1,
    _chain: 1,
    _siblings: 0.7,
    _linear_of_concat: 0.7,
    _linear_of_sum: 1,
    _cheap_pair_row: 0.7,
    _attention: 0.8,
    _parted: 0.5,
    _twice: 0.3,
}
_RULES, _WEIGHTS = tuple(_TABLE), tuple(_TABLE.values())
