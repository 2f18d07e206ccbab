"""Graphs on which kernels are checked: any program for square graphs, or for bipartite ones, runs on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from columba.runtime.graphs.graph import Graph

NODE_TYPES = 3
"""Of which the last has no nodes."""

GRAPHS = torch.tensor([0, 1, 2, 3, 3, 3, 3, 3])
"""The graph of a batch that a node is of, by the remainder of its number: not in order, one much larger than the others."""

ISOLATED = 5
"""Nodes at the end that no edge meets."""


@dataclass(frozen=True)
class Sample:
    """The sizes of a random graph.

    ``hub`` edges end in one node, and as many others begin in one. Half of the edges are of relation 0, so that it is several tiles, or,
    if they are ``spread``, relations take turns; one edge at least is of relation 1; the third of the relations that come last have none.
    """

    name: str
    nodes: int
    edges: int
    hub: int
    relations: int
    spread: bool = False

    def with_edges(self, edges: int) -> Sample:
        """As dense, and as uneven."""
        return replace(self, nodes=self.nodes * edges // self.edges, edges=edges, hub=self.hub * edges // self.edges)

    def build(self, *, square: bool, batch: bool = False, device: torch.device | str = "cpu") -> Graph:
        """The graph, the same every time; as a ``batch`` of several of which the last has no nodes."""
        generator = torch.Generator().manual_seed(self.edges)

        def drawn(below: int) -> torch.Tensor:
            return torch.randint(below, (self.edges,), generator=generator)

        sources, destinations = self.nodes, self.nodes if square else self.nodes + 7
        source, destination = drawn(sources - ISOLATED), drawn(destinations - ISOLATED)
        destination[: self.hub] = 3
        source[self.hub : 2 * self.hub] = 4
        if batch:
            self._within_graphs(source, destination, destinations)
        graphs = [GRAPHS[torch.arange(n) % len(GRAPHS)] for n in (sources, destinations)]
        used = self.relations - self.relations // 3
        relation = (
            torch.arange(self.edges) % used if self.spread else torch.where(drawn(2) == 0, 0, 2 + drawn(used - 2))
        )
        relation[-1] = 1
        types = [torch.arange(n) * 7 % 5 % (NODE_TYPES - 1) for n in (sources, destinations)]
        graph = Graph(
            torch.stack([source, destination]),
            relation,
            num_nodes=sources if square else (sources, destinations),
            num_relations=self.relations,
            node_type=types[0] if square else (types[0], types[1]),
            num_node_types=NODE_TYPES,
            batch=None if not batch else graphs[0] if square else (graphs[0], graphs[1]),
            num_graphs=int(GRAPHS.max()) + 2 if batch else None,
        )
        return graph.to(device)

    def _within_graphs(self, source: torch.Tensor, destination: torch.Tensor, destinations: int) -> None:
        """Moves the end of each edge that makes no hub, so that both numbers have the same remainder."""
        out = slice(self.hub, 2 * self.hub)  # edges of the hub among the sources
        moved = source // len(GRAPHS) * len(GRAPHS) + destination % len(GRAPHS)
        moved_out = destination[out] // len(GRAPHS) * len(GRAPHS) + source[out] % len(GRAPHS)
        moved[out] = source[out]
        source.copy_(torch.where(moved < self.nodes - ISOLATED, moved, moved - len(GRAPHS)))
        destination[out] = torch.where(moved_out < destinations - ISOLATED, moved_out, moved_out - len(GRAPHS))


SMALL = (
    Sample("a graph with hubs", nodes=150, edges=1500, hub=540, relations=7),
    Sample("a graph of many relations", nodes=220, edges=400, hub=90, relations=150, spread=True),
    Sample("a small graph", nodes=90, edges=200, hub=0, relations=6),
)
"""On the first one default schedules make several tiles of everything; the second one has nodes in so many (node, relation) pairs that they
are hubs among these, too; on the third one no row is a sum of many, so that an error of one member is not small beside it."""

LARGE = Sample("a large graph", nodes=20_000, edges=100_000, hub=5_000, relations=40)

MOST_ELEMENTS = 1 << 23
"""Of the widest tensor on the large graph: 64 MiB in float64."""

LEAST_EDGES = 4_000


def large(width: int) -> Sample:
    """The large graph, with fewer edges for a program that has ``width`` elements an edge."""
    return LARGE.with_edges(max(LEAST_EDGES, min(LARGE.edges, MOST_ELEMENTS // max(1, width))))
