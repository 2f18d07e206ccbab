"""Random graphs, degenerate ones among them, small enough to print."""

from __future__ import annotations

import functools
import random
import re
from dataclasses import dataclass, replace

import torch

from columba.runtime.graphs.graph import Graph

Edge = tuple[int, int, int]


@dataclass(frozen=True)
class GraphSpec:
    """A graph as plain numbers: ``edges`` are (source, relation, destination); square if there is no ``destinations``.

    ``source_types`` and ``destination_types`` hold the type of each node; the latter is empty in a square graph. So do ``source_graphs``
    and ``destination_graphs`` the graph of each, of a batch of ``graphs``; None: it is one graph.
    """

    sources: int
    destinations: int | None
    relations: int
    types: int
    edges: tuple[Edge, ...]
    source_types: tuple[int, ...]
    destination_types: tuple[int, ...] = ()
    graphs: int | None = None
    source_graphs: tuple[int, ...] = ()
    destination_graphs: tuple[int, ...] = ()

    @property
    def square(self) -> bool:
        return self.destinations is None

    @property
    def ends(self) -> tuple[int, int]:
        """How many sources and how many destinations there are."""
        return self.sources, self.sources if self.destinations is None else self.destinations

    def __str__(self) -> str:
        kind = "square" if self.square else f"destinations={self.destinations}"
        edges = " ".join(f"{s}-{r}-{d}" for s, r, d in self.edges)
        types = _both(self.source_types, self.destination_types)
        batch = "" if self.graphs is None else f"; graphs {_both(self.source_graphs, self.destination_graphs)}"
        graphs = "" if self.graphs is None else f" graphs={self.graphs}"
        return f"sources={self.sources} {kind} relations={self.relations} types={self.types}{graphs}; edges {edges}; types {types}{batch}"

    @classmethod
    def parse(cls, text: str) -> GraphSpec:
        """The inverse of ``str``."""
        sizes, edges, types, *batch = text.split(";")
        number = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", sizes)}
        source_types, destination_types = types.strip().removeprefix("types").split("|")
        source_graphs, destination_graphs = batch[0].strip().removeprefix("graphs").split("|") if batch else ("", "")
        return cls(
            number["sources"],
            number.get("destinations"),
            number["relations"],
            number["types"],
            tuple(_edge(e) for e in edges.split()[1:]),
            tuple(map(int, source_types.split())),
            tuple(map(int, destination_types.split())),
            number.get("graphs"),
            tuple(map(int, source_graphs.split())),
            tuple(map(int, destination_graphs.split())),
        )

    def smaller(self) -> list[GraphSpec]:
        """Graphs with an edge, a node, a relation, a type or a graph of the batch less; and one that is no batch."""
        found = [
            replace(self, edges=self.edges[:start] + self.edges[start + size :])
            for size in dict.fromkeys((len(self.edges), len(self.edges) // 2, 1))
            if size
            for start in range(0, len(self.edges), size)
        ]
        sources, destinations = self.ends
        used = [max((e[i] for e in self.edges), default=-1) + 1 for i in range(3)]
        if self.square and sources > max(used[0], used[2]):
            found.append(self._without_source())
        if not self.square and sources > used[0]:
            found.append(self._without_source())
        if not self.square and destinations > used[2]:
            types, graphs = self.destination_types[:-1], self.destination_graphs[:-1]
            found.append(
                replace(self, destinations=destinations - 1, destination_types=types, destination_graphs=graphs)
            )
        if self.relations > max(1, used[1]):
            found.append(replace(self, relations=self.relations - 1))
        if self.types > 1 + max((*self.source_types, *self.destination_types), default=0):
            found.append(replace(self, types=self.types - 1))
        if self.graphs is not None:
            found.append(replace(self, graphs=None, source_graphs=(), destination_graphs=()))
            if self.graphs > 1 + max((*self.source_graphs, *self.destination_graphs), default=0):
                found.append(replace(self, graphs=self.graphs - 1))
        return found

    def _without_source(self) -> GraphSpec:
        """Without the last one."""
        types, graphs = self.source_types[:-1], self.source_graphs[:-1]
        return replace(self, sources=self.sources - 1, source_types=types, source_graphs=graphs)


def _both(sources: tuple[int, ...], destinations: tuple[int, ...]) -> str:
    return " ".join(map(str, sources)) + " | " + " ".join(map(str, destinations))


def _edge(text: str) -> Edge:
    s, r, d = map(int, text.split("-"))
    return s, r, d


@functools.lru_cache(maxsize=512)
def build(spec: GraphSpec) -> Graph:
    """The graph, kept, so that its index arrays are built once."""
    table = torch.tensor(spec.edges, dtype=torch.int64).reshape(-1, 3)
    types = torch.tensor(spec.source_types, dtype=torch.int64)
    both = (types, torch.tensor(spec.destination_types, dtype=torch.int64))
    graphs = [torch.tensor(ids, dtype=torch.int64) for ids in (spec.source_graphs, spec.destination_graphs)]
    return Graph(
        table[:, [0, 2]].t(),
        table[:, 1],
        num_nodes=spec.sources if spec.destinations is None else (spec.sources, spec.destinations),
        num_relations=spec.relations,
        node_type=types if spec.square else both,
        num_node_types=spec.types,
        batch=None if spec.graphs is None else graphs[0] if spec.square else (graphs[0], graphs[1]),
        num_graphs=spec.graphs,
    )


KINDS = ("random", "random", "random", "dense", "duplicates", "hub", "one_node", "one_edge", "no_edges", "no_nodes")


def random_graph(rng: random.Random, square: bool) -> GraphSpec:
    """A graph of one of :data:`KINDS`, a batch every other time. Some relations and types usually have no rows, some nodes no edges, some
    pairs several."""
    kind = rng.choice(KINDS)
    few = kind in ("one_node", "one_edge")
    sources = 0 if kind == "no_nodes" else 1 if kind == "one_node" else rng.randint(2, 6)
    destinations = sources if square else 1 if few else max(0, sources + rng.randint(-1, 3))
    relations, types = rng.choice((1, 2, 2, 3, 5)), rng.randint(1, 3)
    wanted = {"no_edges": 0, "no_nodes": 0, "one_edge": 1, "dense": 40}.get(kind, rng.randint(1, 24))
    if not sources or not destinations:
        wanted = 0
    used = rng.sample(range(relations), rng.randint(1, relations))
    edges = [
        (rng.randrange(sources), rng.choice(used), 0 if kind == "hub" else rng.randrange(destinations))
        for _ in range(wanted)
    ]
    if kind == "duplicates":
        edges = [rng.choice(edges[:3]) for _ in edges]
    spec = GraphSpec(
        sources,
        None if square else destinations,
        relations,
        types,
        tuple(edges),
        tuple(rng.randrange(types) for _ in range(sources)),
        () if square else tuple(rng.randrange(types) for _ in range(destinations)),
    )
    return batched(rng, spec, rng.choice((1, 2, 3, 5))) if rng.random() < 0.5 else spec


def batched(rng: random.Random, spec: GraphSpec, graphs: int) -> GraphSpec:
    """The nodes spread over the graphs of a batch, some of which may get none, in order or not; edges between graphs are left out."""
    sources, destinations = spec.ends
    of_source, of_destination = ([rng.randrange(graphs) for _ in range(n)] for n in (sources, destinations))
    if rng.random() < 0.5:
        of_source.sort(), of_destination.sort()
    if spec.square:
        of_destination = of_source
    return replace(
        spec,
        edges=tuple(e for e in spec.edges if of_source[e[0]] == of_destination[e[2]]),
        graphs=graphs,
        source_graphs=tuple(of_source),
        destination_graphs=() if spec.square else tuple(of_destination),
    )


def large_graph(rng: random.Random, square: bool) -> GraphSpec:
    """A graph beyond the tile sizes of kernels: thousands of edges, most of them of one relation, many at one node."""
    nodes, edges = rng.choice((7, 300, 1500)), rng.choice((600, 2000, 9000))
    ends = [0, *range(nodes)]
    spec = GraphSpec(
        nodes,
        None if square else nodes + 1,
        3,
        2,
        tuple(
            (rng.choice(ends), rng.choice((0, 0, 0, 2)), 0 if rng.random() < 0.5 else rng.choice(ends))
            for _ in range(edges)
        ),
        tuple(rng.randrange(2) for _ in range(nodes)),
        () if square else tuple(rng.randrange(2) for _ in range(nodes + 1)),
    )
    return batched(rng, spec, rng.choice((2, 40))) if rng.random() < 0.3 else spec
