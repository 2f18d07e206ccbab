"""Random graphs with the statistics of published ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from columba.datasets.dataset import Dataset
from columba.datasets.statistics import published
from columba.ir.spaces import Space
from columba.runtime.graphs.graph import Graph

NODE_EXPONENT = 0.8
RELATION_EXPONENT = 1.1


@dataclass(frozen=True)
class Statistics:
    """How many nodes, edges (inverse ones included), relations and node types a graph has."""

    nodes: int
    edges: int
    relations: int
    node_types: int

    def scaled(self, scale: float) -> Statistics:
        """With ``scale`` times the nodes and edges; types stay."""
        return Statistics(
            max(round(self.nodes * scale), self.node_types),
            max(round(self.edges * scale), self.relations),
            self.relations,
            self.node_types,
        )


PUBLISHED = {
    name: Statistics(*(found.rows[s] for s in (Space.NODE, Space.EDGE, Space.REL, Space.NTYPE)))
    for name, found in published().items()
    if name not in ("fb15k237", "mag10")
}
"""Statistics of the heterogeneous graphs on which relational GNN systems are usually compared."""


def synthetic(statistics: str | Statistics, *, scale: float = 1.0, seed: int = 0) -> Dataset:
    """A random graph: Zipf-distributed sizes of relations and node types, power-law degrees.

    Every relation leads from one node type to one node type, and has at least one edge.

    Args:
        statistics: counts, or the name of a published dataset (:data:`PUBLISHED`).
        scale: a factor for nodes and edges.
        seed: the same seed gives the same graph.

    >>> synthetic(Statistics(nodes=50, edges=300, relations=7, node_types=3)).graph
    Graph(50 nodes, 300 edges, 7 relations, 3 node types)
    """
    if isinstance(statistics, str):
        if statistics not in PUBLISHED:
            raise ValueError(f"no published dataset {statistics!r} is known; one of {', '.join(PUBLISHED)}")
        name, counts = statistics, PUBLISHED[statistics]
    else:
        name, counts = "synthetic", statistics
    if scale <= 0:
        raise ValueError(f"scale must be positive, got {scale}")
    counts = counts.scaled(scale)
    if (
        counts.nodes < counts.node_types
        or counts.edges < counts.relations
        or min(counts.relations, counts.node_types) < 1
    ):
        raise ValueError(f"every relation needs an edge and every node type a node: {counts}")
    generator = torch.Generator().manual_seed(seed)
    type_sizes = _zipf_sizes(counts.nodes, counts.node_types, RELATION_EXPONENT)
    starts = type_sizes.cumsum(0) - type_sizes
    relation_sizes = _zipf_sizes(counts.edges, counts.relations, RELATION_EXPONENT)
    edge_type = torch.repeat_interleave(torch.arange(counts.relations), relation_sizes)
    ends = []
    for _ in range(2):
        types = torch.randint(counts.node_types, (counts.relations,), generator=generator)[edge_type]
        ends.append(starts[types] + _power_law(type_sizes[types], generator))
    order = torch.randperm(counts.edges, generator=generator)
    shuffled = _shuffled_within(type_sizes, starts, generator)
    graph = Graph(
        shuffled[torch.stack(ends)][:, order],
        edge_type[order],
        num_nodes=counts.nodes,
        num_relations=counts.relations,
        node_type=torch.repeat_interleave(torch.arange(counts.node_types), type_sizes),
        num_node_types=counts.node_types,
    )
    return Dataset(name, graph)


def _zipf_sizes(total: int, parts: int, exponent: float) -> Tensor:
    """``parts`` positive integers that sum to ``total``, the n-th about proportional to ``n ** -exponent``."""
    weights = torch.arange(1, parts + 1, dtype=torch.float64) ** -exponent
    sizes = 1 + ((total - parts) * weights / weights.sum()).floor().long()
    sizes[0] += total - sizes.sum()
    return sizes


def _power_law(limits: Tensor, generator: torch.Generator) -> Tensor:
    """For each limit n a number below n, k with a probability about proportional to ``(k + 1) ** -NODE_EXPONENT``."""
    u = torch.rand(len(limits), generator=generator, dtype=torch.float64)
    power = 1 - NODE_EXPONENT
    drawn = ((u * ((limits + 1.0) ** power - 1) + 1) ** (1 / power) - 1).long()
    return torch.minimum(drawn, limits - 1)


def _shuffled_within(sizes: Tensor, starts: Tensor, generator: torch.Generator) -> Tensor:
    """A permutation of all nodes that keeps each type's range, so that ids say nothing about degrees."""
    return torch.cat(
        [
            start + torch.randperm(size, generator=generator)
            for size, start in zip(sizes.tolist(), starts.tolist(), strict=True)
        ]
    )
