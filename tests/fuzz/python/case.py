"""One case: source text, the graphs and inputs that it is called with, and how it is compiled. Its text form round-trips."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from ..graphs import GraphSpec, random_graph
from .assemble import random_source
from .kinds import Kind, Value
from .values import SPECIAL

VARIANTS = ("compact_materialization", "aggregate_first,compact_materialization", "plain")
"""Recipes among which the cost model chooses; a case fixes one, or leaves the choice to it (an empty name)."""

PHASES = ("again", "changed", "second", "no_grad")
"""Calls after the first: the same once more, other inputs on the same graph, another graph, and without gradients."""

BACKENDS = ("plans", "cpp", "torch", "triton")
"""What runs the program: plans by the reference, or a backend."""


@dataclass(frozen=True)
class Case:
    """What is checked.

    ``inputs`` are the program's inputs in order, ``parameters`` those that belong to the module that it is, ``grad`` those that want
    gradients. ``seed`` makes the numbers, ``special`` says which of them are special: a name of :data:`SPECIAL` and the inputs, or nothing.
    With ``twin`` the graph is a pair of graphs with the same edges, which the program uses in turn, and PyTorch may run between.
    """

    source: str
    inputs: tuple[Value, ...]
    parameters: tuple[str, ...]
    grad: tuple[str, ...]
    graph: GraphSpec
    second: GraphSpec
    dtype: str
    seed: int
    special: str = ""
    variant: str = ""
    phases: tuple[str, ...] = ()
    backend: str = "plans"
    twin: bool = False

    def __str__(self) -> str:
        lines = [
            f"inputs: {'; '.join(f'{v} {v.kind}' for v in self.inputs)}",
            f"parameters: {' '.join(self.parameters)}",
            f"grad: {' '.join(self.grad)}",
            f"graph: {self.graph}",
            f"second: {self.second}",
            f"dtype: {self.dtype}",
            f"seed: {self.seed}",
            f"special: {self.special}",
            f"variant: {self.variant}",
            f"phases: {' '.join(self.phases)}",
            f"backend: {self.backend}",
            *(["twin: yes"] if self.twin else []),
        ]
        return "\n".join(line.rstrip() for line in lines) + f"\n---\n{self.source}"

    @classmethod
    def parse(cls, text: str) -> Case:
        """The inverse of ``str``; lines before ``---`` that start with # are comments."""
        head, source = text.split("---\n", 1)
        pairs = (line.split(":", 1) for line in head.splitlines() if not line.startswith("#"))
        of = {name: value.strip() for name, value in pairs}
        named = [item.split() for item in of["inputs"].split(";") if item.strip()]
        return cls(
            source,
            tuple(Value(name, Kind.parse(kind), is_input=True) for name, kind in named),
            tuple(of["parameters"].split()),
            tuple(of["grad"].split()),
            GraphSpec.parse(of["graph"]),
            GraphSpec.parse(of["second"]),
            of["dtype"],
            int(of["seed"]),
            of["special"],
            of["variant"],
            tuple(of["phases"].split()),
            of["backend"],
            of.get("twin") == "yes",
        )


def random_case(rng: random.Random) -> tuple[Case, list[str]]:
    """A case, and the names of the rules that made its source."""
    square = rng.random() < 0.75
    twin = rng.random() < 0.15
    source, inputs, parameters, used = random_source(rng, square, twin)
    graph = random_graph(rng, square)
    names = [v.name for v in inputs]
    grad = [n for n in names if rng.random() < 0.9] if rng.random() < 0.3 else names
    special = ""
    if rng.random() < 0.2:
        special = rng.choice(SPECIAL)
        special += " " + " ".join(names if special in ("zeros", "ties") else rng.sample(names, 1))
    case = Case(
        source,
        inputs,
        parameters,
        tuple(grad) if rng.random() < 0.95 else (),
        graph,
        _like(rng, graph),
        rng.choice(("f32", "f32", "f32", "f64", "f64", "f64", "f64", "f64", "f64", "mixed")),
        rng.randrange(2**31),
        special,
        rng.choice(VARIANTS) if rng.random() < 0.95 else "",
        tuple(p for p in PHASES if rng.random() < 0.35),
        twin=twin,
    )
    return case, used


def _like(rng: random.Random, graph: GraphSpec) -> GraphSpec:
    """Another graph with as many relations and types."""
    other = random_graph(rng, graph.square)
    return replace(
        other,
        relations=graph.relations,
        types=graph.types,
        edges=tuple((s, r % graph.relations, d) for s, r, d in other.edges),
        source_types=tuple(t % graph.types for t in other.source_types),
        destination_types=tuple(t % graph.types for t in other.destination_types),
    )
