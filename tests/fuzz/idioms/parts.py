"""What the rules of this package are made of."""

from __future__ import annotations

from collections.abc import Callable

from columba.ir.program.ops import (
    Lift,
    Pointwise,
    Value,
)
from columba.ir.spaces import PAIR_SPACES, IndexMap, Space, maps_from

from ..grow import Grower, Rule, rule
from ..rules import linear_of

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


def many(g: Grower) -> Space:
    """A space of many rows."""
    return g.rng.choice((Space.EDGE, Space.EDGE, *PAIR_SPACES, *g.nodes))


def selector(g: Grower, space: Space) -> IndexMap:
    """A map that selects a weight."""
    while (found := owner_map(g, space)).coarse not in WEIGHTS:
        pass
    return found


def owner_map(g: Grower, space: Space) -> IndexMap:
    """A map to reduce along.

    Raises:
        TypeError: a plain value has none.
    """
    maps = maps_from(space, square=g.square)
    if not maps:
        raise TypeError(f"no map leaves {space}")
    return g.rng.choice(maps)


def leading(g: Grower) -> tuple[int, ...]:
    """Heads, if any."""
    return g.rng.choice(((), (), (2,), (3,), (2, 2)))


def another(g: Grower, via: IndexMap) -> IndexMap:
    """Mostly the same map, sometimes another one, sometimes one between the same spaces."""
    others = maps_from(via.fine, square=g.square)
    twins = [m for m in others if m.coarse is via.coarse]
    return via if g.chance(0.8) else g.rng.choice(twins if g.chance(0.5) else others)


def other_map(g: Grower, via: IndexMap) -> IndexMap:
    """Any map from the same rows."""
    return owner_map(g, via.fine)


def message_of(g: Grower, space: Space, lead: tuple[int, ...], sizes: tuple[int, ...] = EQUAL) -> Value:
    """A product of rows with a weight per relation, type or graph; of compacted ones, lifted, where there are any."""
    shape = (*lead, g.rng.choice(sizes))
    lifts = [m for m in maps_from(space, square=g.square) if m.coarse not in WEIGHTS]
    if lifts and g.chance(0.4):
        via = g.rng.choice(lifts)
        return Lift(linear_of(g, g.fresh(via.coarse, shape), selector(g, via.coarse), g.rng.choice(sizes)), via)
    x = g.fresh(space, shape) if g.chance(0.7) else g.operand(space, shape)
    return linear_of(g, x, selector(g, space), g.rng.choice(sizes))


def product(g: Grower, x: Value, p: Value) -> Value:
    """A product of two, either first."""
    return Pointwise(tuple(g.rng.sample((x, p), 2)), "mul")
