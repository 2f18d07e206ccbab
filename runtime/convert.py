"""Graphs from PyG, networkx, DGL, and lists of triples."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from columba.runtime.graph import Graph


def from_pyg(data: Any) -> Graph:
    """See :meth:`columba.Graph.from_pyg`."""
    if hasattr(data, "edge_types") and hasattr(data, "node_types"):
        edges = {kind: data[kind].edge_index for kind in data.edge_types if "edge_index" in data[kind]}
        return heterogeneous({kind: data[kind].num_nodes for kind in data.node_types}, edges)
    edge_index = getattr(data, "edge_index", None)
    if edge_index is None:
        raise TypeError(f"expected PyG's Data or HeteroData with an edge_index, got {type(data).__name__}")
    return Graph(
        edge_index,
        getattr(data, "edge_type", None),
        num_nodes=data.num_nodes,
        node_type=getattr(data, "node_type", None),
    )


def heterogeneous(sizes: Mapping[Any, int], edges: Mapping[tuple[Any, Any, Any], Tensor]) -> Graph:
    """One graph of all node types, each a range of ids, and of all edge types, each a relation."""
    for kind, size in sizes.items():
        if size is None:
            raise ValueError(f"the number of {kind!r} nodes is not known; set data[{kind!r}].num_nodes")
    starts = dict(zip(sizes, accumulate(sizes.values(), initial=0), strict=False))
    names = list(edges)
    parts, types = [], []
    for relation, (source, _, target) in enumerate(names):
        index = edges[source, _, target]
        _check_ends(index, sizes[source], sizes[target], names[relation])
        parts.append(index + torch.tensor([[starts[source]], [starts[target]]], device=index.device))
        types.append(torch.full((index.shape[1],), relation, device=index.device))
    node_type = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(list(sizes.values()), dtype=torch.long))
    device = parts[0].device if parts else torch.device("cpu")
    graph = Graph(
        torch.cat(parts, dim=1) if parts else torch.empty(2, 0, dtype=torch.long),
        torch.cat(types) if types else None,
        num_nodes=sum(sizes.values()),
        num_relations=max(len(names), 1),
        node_type=node_type.to(device),
        num_node_types=max(len(sizes), 1),
        relation_names=names or None,
        node_type_names=list(sizes) or None,
    )
    graph.node_slices = {kind: slice(starts[kind], starts[kind] + size) for kind, size in sizes.items()}
    return graph


def _check_ends(index: Tensor, sources: int, targets: int, name: Any) -> None:
    """Before ids are shifted into ranges: an id too large would silently become a node of another type."""
    for row, (limit, end) in enumerate(((sources, "source"), (targets, "destination"))):
        ids = index[row]
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= limit):
            bad = int(((ids < 0) | (ids >= limit)).nonzero()[0])
            raise ValueError(
                f"edge_index[{row}] of {name} holds {int(ids[bad])} at edge {bad}, but there are {limit} {end} nodes"
            )


def from_networkx(graph: Any, relation: str = "relation", node_type: str | None = None) -> Graph:
    """See :meth:`columba.Graph.from_networkx`."""
    if not graph.is_directed():
        raise ValueError("the graph is undirected; graph.to_directed() gives each edge both directions")
    position = {node: n for n, node in enumerate(graph.nodes)}
    edges = list(graph.edges(data=True))
    missing = next(((u, v) for u, v, data in edges if relation not in data), None)
    if missing is not None:
        raise ValueError(
            f"edge {missing[0]!r} -> {missing[1]!r} has no attribute {relation!r}; name the attribute that holds the relation"
        )
    names = _in_order(data[relation] for _, _, data in edges)
    ends = [[position[u] for u, _, _ in edges], [position[v] for _, v, _ in edges]]
    types: dict[str, Any] = {}
    if node_type is not None:
        kinds = [graph.nodes[node].get(node_type) for node in graph.nodes]
        if None in kinds:
            node = next(n for n, k in zip(graph.nodes, kinds, strict=True) if k is None)
            raise ValueError(f"node {node!r} has no attribute {node_type!r}")
        known = _in_order(kinds)
        types = {
            "node_type": torch.tensor([known[k] for k in kinds], dtype=torch.long),
            "num_node_types": max(len(known), 1),
            "node_type_names": list(known) or None,
        }
    return Graph(
        torch.tensor(ends, dtype=torch.long).reshape(2, len(edges)),
        torch.tensor([names[data[relation]] for _, _, data in edges], dtype=torch.long),
        num_nodes=len(position),
        num_relations=max(len(names), 1),
        relation_names=list(names) or None,
        **types,
    )


def _in_order(values: Iterable[Any]) -> dict[Any, int]:
    """Ids of values, sorted where they can be, else in order of appearance."""
    distinct: Sequence[Any] = list(dict.fromkeys(values))
    with contextlib.suppress(TypeError):
        distinct = sorted(distinct)
    return {value: n for n, value in enumerate(distinct)}


def from_dgl(graph: Any) -> Graph:
    """See :meth:`columba.Graph.from_dgl`."""
    if not hasattr(graph, "canonical_etypes"):
        raise TypeError(f"expected a DGL graph, got {type(graph).__name__}")
    if len(graph.ntypes) == 1 and len(graph.canonical_etypes) == 1:
        source, target = graph.edges()
        return Graph(
            torch.stack([source, target]),
            graph.edata.get("_TYPE"),
            num_nodes=graph.num_nodes(),
            node_type=graph.ndata.get("_TYPE"),
        )
    sizes = {kind: graph.num_nodes(kind) for kind in graph.ntypes}
    return heterogeneous(sizes, {kind: torch.stack(graph.edges(etype=kind)) for kind in graph.canonical_etypes})


def from_triples(triples: Any, *, add_inverse: bool = False) -> Graph:
    """See :meth:`columba.Graph.from_triples`."""
    table = torch.as_tensor(triples)
    if table.dim() != 2 or table.shape[1] != 3:
        raise ValueError(f"triples must have shape [T, 3] (head, relation, tail), got {list(table.shape)}")
    head, relation, tail = table.unbind(1)
    graph = Graph(torch.stack([head, tail]), relation)
    return add_inverse_relations(graph) if add_inverse else graph


def add_inverse_relations(graph: Graph) -> Graph:
    """The square graph with, for every edge of relation r, one the other way of relation ``r + num_relations``.

    >>> graph = Graph(torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 1]))
    >>> add_inverse_relations(graph).edge_type
    tensor([0, 1, 2, 3])
    """
    if not graph.is_square:
        raise ValueError("a bipartite graph has no inverse relations: its sources are no destinations")
    names = graph.relation_names
    both = Graph(
        torch.cat([graph.edge_index, graph.edge_index.flip(0)], dim=1),
        torch.cat([graph.edge_type, graph.edge_type + graph.num_relations]),
        num_nodes=graph.num_nodes,
        num_relations=2 * graph.num_relations,
        node_type=graph.node_type,
        num_node_types=graph.num_node_types,
        relation_names=None if names is None else [*names, *((name, "inverse") for name in names)],
        node_type_names=graph.node_type_names,
    )
    both.node_slices = graph.node_slices
    return both
