"""Small graphs for the tests of the eager language: a random one, and every degenerate one.

Most are batches, in no order.
"""

from __future__ import annotations

import torch

from columba.runtime.graphs.graph import Graph

RELATIONS, NODE_TYPES = 5, 3


def _graph(
    edges: list[tuple[int, int, int]], nodes: int, batch: list[int] | None = None, graphs: int | None = None
) -> Graph:
    """A square graph from (source, relation, destination), with relations and node types that may not occur."""
    table = torch.tensor(edges, dtype=torch.long).reshape(-1, 3)
    return Graph(
        table[:, [0, 2]].t(),
        table[:, 1],
        num_nodes=nodes,
        num_relations=RELATIONS,
        node_type=torch.arange(nodes) * 7 % 2,
        num_node_types=NODE_TYPES,
        batch=None if batch is None else torch.tensor(batch, dtype=torch.long),
        num_graphs=graphs,
    )


def square_graphs() -> dict[str, Graph]:
    """By name; relation 3 has no edges in any of them, node type 2 no nodes; the last graph of a batch has no nodes."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 1000, (24, 3), generator=generator)
    random = [(s % 7, (0, 1, 2, 4)[r % 4], d % 7) for s, r, d in ids.tolist()]
    return {
        "random": _graph(random, 9, [1, 1, 1, 1, 1, 1, 1, 3, 0], 5),  # nodes 7 and 8 are isolated
        "no_edges": _graph([], 4, [2, 0, 2, 1], 4),
        "one_node": _graph([(0, 1, 0), (0, 2, 0)], 1),
        "one_node_no_edges": _graph([], 1, [1], 3),
        "no_nodes": _graph([], 0, [], 2),
        "duplicate_edges": _graph([(0, 1, 2)] * 3 + [(1, 1, 2), (0, 4, 2)], 4, [1, 1, 1, 0], 3),
        "hub": _graph([(i % 6, i % 2, 0) for i in range(15)] + [(0, 2, i) for i in range(1, 4)], 6),
    }


def _bipartite(
    edges: list[tuple[int, int, int]],
    sources: int,
    destinations: int,
    batch: tuple[list[int], list[int]] | None = None,
    graphs: int | None = None,
) -> Graph:
    """A bipartite graph from (source, relation, destination), with relations and node types that may not occur."""
    table = torch.tensor(edges, dtype=torch.long).reshape(-1, 3)
    return Graph(
        table[:, [0, 2]].t(),
        table[:, 1],
        num_nodes=(sources, destinations),
        num_relations=RELATIONS,
        node_type=(torch.tensor([0, 1, 1, 0, 0])[:sources], torch.tensor([1, 0, 1])[:destinations]),
        num_node_types=NODE_TYPES,
        batch=None if batch is None else tuple(torch.tensor(ids, dtype=torch.long) for ids in batch),
        num_graphs=graphs,
    )


def bipartite_graph() -> Graph:
    """Five sources, three destinations, of which the last has no edge."""
    return bipartite_graphs()["random"]


def bipartite_graphs() -> dict[str, Graph]:
    """By name; relation 3 has no edges in any of them, node type 2 no nodes."""
    ends = [(0, 2, 1), (1, 0, 0), (4, 0, 0), (4, 1, 1), (2, 2, 1), (0, 2, 1), (0, 4, 0)]
    return {
        "random": _bipartite(ends, 5, 3, ([1, 1, 1, 0, 1], [1, 1, 2]), 4),
        "no_edges": _bipartite([], 5, 3, ([1, 0, 1, 3, 0], [3, 1, 1]), 5),
        "no_destinations": _bipartite([], 5, 0),
        "one_of_each": _bipartite([(0, 1, 0), (0, 1, 0)], 1, 1),
    }
