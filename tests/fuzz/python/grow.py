"""A random program that grows a line at a time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from .kinds import Kind, Value

Rule = Callable[["Grower"], "Value | None"]
R = TypeVar("R", bound=Rule)

RULES: dict[str, tuple[Rule, float]] = {}
"""What may come next, with how often it is tried."""

MAX_SIZE = 64
"""Feature elements that a row may have."""


def rule(weight: float = 1.0) -> Callable[[R], R]:
    """Registers a rule: it adds lines to a program and returns the last value, or None if it finds nothing to work on."""

    def register(function: R) -> R:
        RULES[function.__name__.strip("_")] = (function, weight)
        return function

    return register


class Grower:
    """The lines so far, the values that they define, and the inputs that they need."""

    def __init__(self, rng: random.Random, square: bool) -> None:
        self.rng = rng
        self.square = square
        self.sizes = rng.sample((1, 2, 3, 4, 5, 8, 16), 2) if rng.random() < 0.8 else [4, 4]
        self.inputs: list[Value] = []
        self.values: list[Value] = []
        self.lines: list[str] = []
        self.used: list[str] = []
        self.has_graph = False

    # -------------------------------------------------------------------------------------------- spaces

    @property
    def ends(self) -> tuple[str, str]:
        """The spaces of sources and destinations."""
        return ("node", "node") if self.square else ("src", "dst")

    @property
    def spaces(self) -> tuple[str, ...]:
        """Spaces whose rows the language works on, common ones more often."""
        return (*self.ends, *self.ends, "edge", "edge", "edge", "src_rel", "dst_rel", "graph")

    def view(self, space: str) -> str:
        """An expression for the view of a space."""
        if space == "node":
            return self.rng.choice(("g.nodes", "g.nodes", "g.src_nodes", "g.dst_nodes"))
        views = {"edge": "g.edges", "src": "g.src_nodes", "dst": "g.dst_nodes", "graph": "g.graphs"}
        return views.get(space, f"g.{space}")

    # -------------------------------------------------------------------------------------------- choices

    def size(self) -> int:
        return self.rng.choice(self.sizes)

    def shape(self) -> tuple[int, ...]:
        rank = self.rng.choice((0, 1, 1, 1, 1, 2, 2))
        return tuple(self.size() for _ in range(rank))

    def pick(self, accept: Callable[[Value], bool] = lambda v: True) -> Value | None:
        """One of the values, late ones more often."""
        found = [v for v in self.values if accept(v)]
        if not found:
            return None
        return self.rng.choice(found[-4:]) if self.rng.random() < 0.6 else self.rng.choice(found)

    def numbers(self, accept: Callable[[Value], bool] = lambda v: True) -> Value | None:
        """A value of numbers with rows."""
        return self.pick(lambda v: v.kind.has_rows and not v.kind.is_bool and not v.is_weight and accept(v))

    def rows(self, min_rank: int = 0, max_rank: int = 4) -> Value | None:
        return self.numbers(lambda v: min_rank <= v.kind.rank <= max_rank)

    def input(self, kind: Kind, *, weight: bool = False) -> Value:
        """A new input."""
        letter = "w" if weight else "h" if kind.has_rows else "p"
        made = Value(f"{letter}{len(self.inputs)}", kind, is_input=True, is_weight=weight)
        self.inputs.append(made)
        self.values.append(made)
        return made

    def need(self, kind: Kind) -> Value:
        """A value of this kind: one that is there, or a new input."""
        found = self.pick(lambda v: v.kind == kind and v.is_weight == (kind.space in ("rel", "ntype", "one")))
        return found if found is not None and self.rng.random() < 0.7 else self.input(kind)

    def weight(self, kind: Kind) -> Value:
        """A plain tensor of weights, with a row per relation or type, or none."""
        found = self.pick(lambda v: v.is_weight and v.kind == kind)
        return found if found is not None and self.rng.random() < 0.6 else self.input(kind, weight=True)

    # -------------------------------------------------------------------------------------------- lines

    def emit(self, expression: str, kind: Kind, *, weight: bool = False) -> Value | None:
        """A line that defines a new value; None if it would be too large."""
        size = 1
        for n in kind.shape:
            size *= n
        if size > MAX_SIZE or kind.rank > 4:
            return None
        made = Value(f"v{len(self.lines)}", kind, is_weight=weight)
        self.lines.append(f"{made} = {expression}")
        self.values.append(made)
        return made

    def emit_parts(self, expression: str, kinds: Sequence[Kind]) -> list[Value]:
        """A line that defines several values."""
        made = [Value(f"v{len(self.lines)}_{n}", kind) for n, kind in enumerate(kinds)]
        self.lines.append(f"{', '.join(map(str, made))}{',' if len(made) == 1 else ''} = {expression}")
        self.values += made
        return made

    def by(self, name: str) -> Value | None:
        """Tries one rule."""
        before = len(self.lines)
        found = RULES[name][0](self)
        if len(self.lines) > before:
            self.used.append(name)
        return found

    def step(self) -> None:
        """Adds lines by a random rule."""
        names = list(RULES)
        for name in self.rng.choices(names, [RULES[n][1] for n in names], k=8):
            if self.by(name) is not None:
                return
