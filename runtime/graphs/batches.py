"""Several graphs side by side in one, and taken apart again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from columba.runtime.graphs.graph import Graph
from columba.runtime.modes import outside_modes


def batch(graphs: Iterable[Graph]) -> Graph:
    """Graphs side by side in one, as a batch: ``graph.batch`` says which one each node is of.

    Nodes and edges keep their order, those of the first graph come first. Batches among ``graphs`` join in with each of their graphs.

    Args:
        graphs: at least one; square ones on one device, that agree in their relations and node types: the names, or where there are none
            the numbers of them.

    Raises:
        ValueError: there are none, one is bipartite, or they do not agree.
        TypeError: something else than a graph is among them.

    >>> pair = Graph(torch.tensor([[0], [1]]))
    >>> joined = batch([pair, Graph(torch.tensor([[0, 2], [1, 0]])), pair])
    >>> joined
    Graph(7 nodes, 4 edges, 1 relation, a batch of 3 graphs)
    >>> joined.batch, joined.ptr
    (tensor([0, 0, 1, 1, 1, 2, 2]), tensor([0, 2, 5, 7]))
    >>> joined.nodes.mean(torch.arange(7.0), to="graph")
    tensor([0.5000, 3.0000, 5.5000])
    """
    parts = list(graphs)
    if not parts:
        raise ValueError("batch needs at least one graph: nothing says how many relations a batch of none has")
    for n, part in enumerate(parts):
        _check_fits(n, part, parts[0])
    first = parts[0]
    starts = [*accumulate((g.num_nodes for g in parts), initial=0)]
    numbers = [*accumulate((g.num_graphs for g in parts), initial=0)]
    with outside_modes():
        return Graph(
            torch.cat([g.edge_index + start for g, start in zip(parts, starts, strict=False)], dim=1),
            torch.cat([g.edge_type for g in parts]),
            num_nodes=starts[-1],
            num_relations=first.num_relations,
            node_type=None if first.node_type is None else torch.cat([g.node_type for g in parts]),
            num_node_types=first.num_node_types,
            relation_names=first.relation_names,
            node_type_names=first.node_type_names,
            batch=torch.cat([_graphs_of(g) + number for g, number in zip(parts, numbers, strict=False)]),
            num_graphs=numbers[-1],
        )


def unbatch(graph: Graph) -> list[Graph]:
    """The graphs of a batch, one by one: nodes and edges of each in their order, with the relations and node types of the batch.

    Raises:
        ValueError: the graph is bipartite.

    >>> joined = batch([Graph(torch.tensor([[0], [1]])), Graph(torch.tensor([[0, 2], [1, 0]]))])
    >>> [g.edge_index.tolist() for g in unbatch(joined)]
    [[[0], [1]], [[0, 2], [1, 0]]]
    """
    _check_square("unbatch", graph)
    with outside_modes():
        of_node, ends, relation, types = _graphs_of(graph), graph.edge_index, graph.edge_type, graph.node_type
        of_edge = of_node[ends[0]]
        nodes, edges = (_members(ids, graph.num_graphs) for ids in (of_node, of_edge))
        within = torch.empty_like(of_node)
        for own in nodes:
            within[own] = torch.arange(len(own), device=own.device)
        return [
            Graph(
                within[ends[:, own]],
                relation[own],
                num_nodes=len(members),
                num_relations=graph.num_relations,
                node_type=None if types is None else types[members],
                num_node_types=graph.num_node_types,
                relation_names=graph.relation_names,
                node_type_names=graph.node_type_names,
            )
            for members, own in zip(nodes, edges, strict=True)
        ]


def _graphs_of(graph: Graph) -> Tensor:
    """The graph of each node, also where there is one."""
    found: Tensor | None = graph.batch
    return torch.zeros(graph.num_nodes, dtype=torch.int64, device=graph.device) if found is None else found


def _members(ids: Tensor, count: int) -> Sequence[Tensor]:
    """The rows of each id, in their order."""
    return torch.sort(ids, stable=True).indices.split(torch.bincount(ids, minlength=count).tolist())


def _check_square(what: str, graph: Graph) -> None:
    if not graph.is_square:
        raise ValueError(
            f"{what} takes square graphs, and this one is bipartite; make a batch of bipartite graphs with "
            "columba.Graph(edge_index, num_nodes=(sources, destinations), batch=(of_sources, of_destinations))"
        )


def _check_fits(n: int, graph: Any, first: Graph) -> None:
    """Whether the weights of a layer mean the same to both."""
    if not isinstance(graph, Graph):
        raise TypeError(
            f"batch takes graphs, got {type(graph).__name__} at {n}; columba.Graph.from_pyg converts those of PyG"
        )
    _check_square("batch", graph)
    if graph.device != first.device:
        raise ValueError(f"graph {n} is on {graph.device}, graph 0 on {first.device}; move them to one device")
    if (graph.node_type is None) != (first.node_type is None):
        typed, untyped = (0, n) if graph.node_type is None else (n, 0)
        raise ValueError(f"graph {typed} has node types, graph {untyped} has none")
    for kind, fix in (("relation", "relations"), ("node_type", "node_types")):
        here, there = getattr(graph, f"{kind}_names"), getattr(first, f"{kind}_names")
        if here != there:
            raise ValueError(
                f"graph {n} has {fix} {_shown(here)}, graph 0 has {_shown(there)}; graph.with_names({fix}=...) gives both one list"
            )
        here, there = getattr(graph, f"num_{kind}s"), getattr(first, f"num_{kind}s")
        if here != there:
            raise ValueError(f"graph {n} has num_{kind}s={here}, graph 0 {there}; make both with the same num_{kind}s=")


def _shown(names: tuple[Any, ...] | None) -> str:
    return "without names" if names is None else str(list(names))
