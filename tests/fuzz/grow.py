"""Random well-typed values, grown one on the other."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from columba.ir.node import topological
from columba.ir.program import build as b
from columba.ir.program.ops import REDUCTIONS, Constant, Degree, Expand, FeatureReduce, Input, Lift, Reduce, Value
from columba.ir.spaces import PAIR_SPACES, IndexMap, Space, maps_from
from columba.ir.types import DType, Shape, TensorType

SIZES = (1, 1, 2, 2, 3, 4, 4, 5, 8)
WIDE = (17, 20, 33)  # beyond the thresholds of sink_lifts and of lowering
LARGEST_ROW = 160
CONSTANTS = (0.0, 1.0, -1.0, 0.5, 2.0, -0.25)
NAMES = tuple(f"{letter}{n or ''}" for n in range(40) for letter in "abcdefghjkmnpqstuvwxyz")
SPACES = (
    Space.EDGE,
    Space.EDGE,
    Space.EDGE,
    Space.SRC_REL,
    Space.DST_REL,
    Space.REL,
    Space.NTYPE,
    Space.GRAPH,
    Space.ONE,
)

Rule = Callable[["Grower"], "Value | None"]
RULES: dict[Rule, float] = {}
"""Ways to make one more value, and how often each is taken. They raise TypeError or IndexError or give None where they do not fit."""


def rule(weight: float) -> Callable[[Rule], Rule]:
    """Registers a way to make a value."""

    def register(made: Rule) -> Rule:
        RULES[made] = weight
        return made

    return register


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
            for fine in (Space.EDGE, *PAIR_SPACES, *self.nodes, Space.REL, Space.NTYPE, Space.GRAPH)
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

    def input_seed(self) -> Value:
        """A seed of random numbers."""
        return self.known(Space.ONE, (), DType.I64) or self.input(Space.ONE, (), DType.I64)

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

    def fresh(self, space: Space, shape: Shape) -> Value:
        """A floating value that nothing else reads, so that a pass is free to change how it is computed."""
        via = self.map_from(space)
        if via is None or self.chance(0.3):
            return self.input(space, shape)
        return Lift(self.input(via.coarse, shape), via)

    def factor(self, space: Space, shape: Shape) -> Value:
        """A value to scale rows by, which broadcasts to them: it may come from afar, be expanded, or follow from degrees."""
        narrow = self.narrower(shape)
        via = self.map_from(space)
        if via is None or self.chance(0.3):
            made: Value = self.operand(space, narrow)
        elif self.chance(0.25):
            degree: Value = Degree(via, self.float)
            if self.chance(0.6):
                degree = b.pointwise("maximum", degree, 1.0)
            made = Lift(b.pointwise(self.rng.choice(("reciprocal", "rsqrt", "sqrt")), degree), via)
        else:
            made = Lift(self.operand(via.coarse, narrow, depth=0), via)
        return Expand(made, shape) if self.chance(0.15) and made.shape != shape else made

    def between(self, x: Value, most: int = 3) -> Value:
        """``x`` after a few operations such as stand between products and sums; most, not all, are linear."""
        for _ in range(self.rng.randint(0, most)):
            kind, rank = self.rng.randrange(12), len(x.shape)
            if kind == 0:
                x = b.pointwise("neg", x)
            elif kind <= 4:
                x = b.pointwise("mul", *self.rng.sample((x, self.factor(x.space, x.shape)), 2))
            elif kind <= 6:
                divisor = self.factor(x.space, x.shape)
                x = b.pointwise("div", x, b.pointwise("add", b.pointwise("square", divisor), 0.5))
            elif kind == 7:
                x = b.reshape(x, self.rng.choice(reshapes(x.type.size)))
            elif kind == 8 and rank > 1:
                x = b.permute(x, self.rng.sample(range(rank), rank))
            elif kind == 9:
                x = b.pointwise(self.rng.choice(("relu", "abs", "tanh", "square")), x)
            elif kind == 10:
                x = b.pointwise("add", x, self.factor(x.space, x.shape))
            elif kind == 11 and (via := self.map_to(x.space)) is not None:
                x = b.lift(x, via)
        return x

    # -------------------------------------------------------------------------------------------- growing

    def step(self) -> Value:
        """One more value (and what it needs)."""
        for _ in range(50):
            made = self.by(self.rng.choices(tuple(RULES), tuple(RULES.values()))[0])
            if made is not None:
                return made
        return self.keep(b.pointwise("neg", self.some()))

    def by(self, rule: Rule) -> Value | None:
        """What a rule makes, if it fits."""
        try:
            made = rule(self)
            if made is not None and any(isinstance(v, FeatureReduce) and not v.axes for v in topological((made,))):
                return None
        except (TypeError, IndexError):  # not these operands: ill-typed, or nothing to choose from
            return None
        return None if made is None or made.type.size > LARGEST_ROW else self.keep(made)

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


def reshapes(size: int) -> list[Shape]:
    """Shapes of so many elements."""
    pairs = [(n, size // n) for n in range(1, size + 1) if size % n == 0]
    return [(size,), *pairs, *((1, *p) for p in pairs), *([()] if size == 1 else [])]
