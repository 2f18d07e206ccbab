"""A typed graph as libraries of heterogeneous graphs want it: by node type and by (type, relation, type)."""

from __future__ import annotations

import torch

from columba import Graph


class TypedEdges:
    """Node types ``n0, n1, ...`` with contiguous ids, and the relations that have edges, in the ids of their types.

    Attributes:
        names, sizes: of each node type.
        relations: ids of the relations that have edges.
        edges: for each of them ``[2, E]``, local to the types of its ends.
    """

    def __init__(self, graph: Graph) -> None:
        types = graph.node_type
        if types is None or (types.diff() < 0).any():
            raise ValueError("nodes have to be sorted by type")
        self.names = tuple(f"n{t}" for t in range(graph.num_node_types))
        self.sizes = torch.bincount(types, minlength=graph.num_node_types).tolist()
        starts = torch.tensor(self.sizes).cumsum(0) - torch.tensor(self.sizes)
        order = torch.argsort(graph.edge_type, stable=True)
        self.relations, counts = (t.tolist() for t in torch.unique(graph.edge_type, return_counts=True))
        ends = types[graph.edge_index[:, order]]
        local = (graph.edge_index[:, order] - starts[ends]).split(counts, 1)
        self.edges = [edges.contiguous() for edges in local]
        self._ends = {}
        for r, of_relation in zip(self.relations, ends.split(counts, 1), strict=True):
            (kinds, *others) = torch.unique(of_relation, dim=1).t().tolist()
            if others:
                raise ValueError(f"relation {r} leads from or to several node types")
            self._ends[r] = kinds

    def triple(self, relation: int) -> tuple[str, str, str]:
        source, target = self._ends[relation]
        return self.names[source], f"r{relation}", self.names[target]
