"""Graphs from PyG, networkx, DGL, and lists of triples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import Tensor

from columba.runtime.graphs.names import listed, numbered, selected
from columba.runtime.structure import NamedGraph

G = TypeVar("G", bound=NamedGraph)

Make = Callable[..., G]
"""Makes a graph, with the arguments of :class:`columba.Graph`."""

List = Sequence[Any] | None
"""Names by id, if they are given."""


def from_pyg(
    make: Make[G],
    data: Any,
    *,
    relations: List = None,
    node_types: List = None,
    num_relations: int | None = None,
    num_node_types: int | None = None,
) -> G:
    """See :meth:`columba.Graph.from_pyg`."""
    if hasattr(data, "edge_types") and hasattr(data, "node_types"):
        _refuse_counts("HeteroData", num_relations, num_node_types)
        edges = {kind: _edges_of(data[kind], f"edge type {kind}") for kind in data.edge_types}
        sizes = {kind: data[kind].num_nodes for kind in data.node_types}
        sizes.update(_of_edges_alone(sizes, edges))
        batches = {kind: data[kind].batch for kind in data.node_types if "batch" in data[kind]}
        return heterogeneous(
            make,
            sizes,
            edges,
            relations=relations,
            node_types=node_types,
            batches=batches,
            num_graphs=_num_graphs(data),
        )
    if getattr(data, "edge_index", None) is None and getattr(data, "adj_t", None) is None:
        raise TypeError(f"expected PyG's Data or HeteroData with an edge_index, got {type(data).__name__}")
    graph = make(
        _edges_of(data, "the data"),
        getattr(data, "edge_type", None),
        num_nodes=data.num_nodes,
        num_relations=num_relations,
        node_type=getattr(data, "node_type", None),
        num_node_types=num_node_types,
        relation_names=getattr(data, "_edge_type_names", None),  # of HeteroData.to_homogeneous
        node_type_names=getattr(data, "_node_type_names", None),
        batch=getattr(data, "batch", None),
        num_graphs=_num_graphs(data),
    )
    return with_names(graph, relations, node_types)


def _of_edges_alone(known: Mapping[Any, int], edges: Mapping[Any, Tensor]) -> dict[Any, int]:
    """The numbers of nodes of types that edges alone name: as many as their ids need."""
    found: dict[Any, int] = {}
    for (source, _, target), index in edges.items():
        for kind, ids in zip((source, target), index, strict=True):
            if kind not in known:
                found[kind] = max(found.get(kind, 0), int(ids.max()) + 1 if ids.numel() else 0)
    return found


def _num_graphs(data: Any) -> int | None:
    """Of PyG's ``Batch``; None of what is no batch, and of one that does not say."""
    stored = getattr(data, "_num_graphs", None)  # num_graphs raises where nothing is known
    return None if stored is None else int(stored)


def _edges_of(store: Any, what: str) -> Tensor:
    """``[2, E]`` sources and destinations of PyG's storage of one edge type."""
    index = store.edge_index if "edge_index" in store else None
    if index is None and "adj_t" in store:
        index = _transposed_edges(store.adj_t, what)
    if not isinstance(index, Tensor):
        raise ValueError(
            f"{what} has no edge_index; if it has no edges, set it to torch.empty(2, 0, dtype=torch.long), or leave the type out and "
            "list it in relations="
        )
    return index.as_subclass(Tensor)


def _transposed_edges(adj_t: Any, what: str) -> Tensor:
    """The edges of a sparse matrix with a row for each destination, in its own order, which edge attributes beside it have too."""
    if isinstance(adj_t, Tensor) and adj_t.layout is torch.sparse_coo:
        rows, columns = adj_t._indices()
    elif isinstance(adj_t, Tensor) and adj_t.layout is torch.sparse_csr:
        rows, columns = adj_t.to_sparse_coo().indices()
    elif hasattr(adj_t, "coo"):  # torch_sparse.SparseTensor
        rows, columns, _ = adj_t.coo()
    else:
        raise ValueError(
            f"{what} has an adj_t that is neither sparse COO, sparse CSR nor a SparseTensor; set edge_index"
        )
    return torch.stack([columns, rows])


def _refuse_counts(what: str, num_relations: int | None, num_node_types: int | None) -> None:
    if num_relations is not None or num_node_types is not None:
        raise ValueError(f"{what} has names of relations and node types: list them in relations= and node_types=")


def heterogeneous(
    make: Make[G],
    sizes: Mapping[Any, int],
    edges: Mapping[tuple[Any, Any, Any], Tensor],
    *,
    relations: List = None,
    node_types: List = None,
    batches: Mapping[Any, Tensor] | None = None,
    num_graphs: int | None = None,
) -> G:
    """One graph of all node types, each a range of ids, and of all edge types, each a relation.

    Args:
        sizes: the number of nodes of each type.
        edges: ``[2, E]`` ids within the types of both ends, for each (source, relation, destination).
        relations, node_types: names by id, which may be more than there are; None: as in ``edges`` and ``sizes``.
        batches, num_graphs: the graph of each node of a type, where there are several graphs side by side.
    """
    kinds = selected("node_types", sizes, node_types)
    names = selected("relations", edges, relations)
    for name in names:
        if not isinstance(name, tuple) or len(name) != 3:
            raise ValueError(f"relations of typed nodes are triples (source, relation, destination), got {name!r}")
    for kind, size in sizes.items():
        if size is None:
            raise ValueError(f"the number of {kind!r} nodes is not known; set data[{kind!r}].num_nodes")
    counts = {kind: int(sizes.get(kind, 0)) for kind in kinds}
    starts = dict(zip(counts, accumulate(counts.values(), initial=0), strict=False))
    parts, types = [], []
    for relation, name in enumerate(names):
        if name not in edges:
            continue
        index, (source, _, target) = edges[name], name
        for end in (source, target):
            if end not in sizes:
                raise ValueError(f"the number of {end!r} nodes, between which {name} leads, is not known")
        if index.dim() != 2 or index.shape[0] != 2:
            raise ValueError(f"edge_index of {name} must have shape [2, E], got {list(index.shape)}")
        _check_ends(index, counts[source], counts[target], name)
        parts.append(index + torch.tensor([[starts[source]], [starts[target]]], device=index.device))
        types.append(torch.full((index.shape[1],), relation, device=index.device))
    node_type = torch.repeat_interleave(torch.arange(len(kinds)), torch.tensor(list(counts.values()), dtype=torch.long))
    device = parts[0].device if parts else torch.device("cpu")
    return make(
        torch.cat(parts, dim=1) if parts else torch.empty(2, 0, dtype=torch.long),
        torch.cat(types) if types else None,
        num_nodes=sum(counts.values()),
        num_relations=max(len(names), 1),
        node_type=node_type.to(device),
        num_node_types=max(len(kinds), 1),
        relation_names=names or None,
        node_type_names=kinds or None,
        node_slices={kind: slice(starts[kind], starts[kind] + size) for kind, size in counts.items()},
        batch=_batch_of_types(counts, batches, device),
        num_graphs=num_graphs if batches else None,
    )


def _batch_of_types(
    counts: Mapping[Any, int], batches: Mapping[Any, Tensor] | None, device: torch.device
) -> Tensor | None:
    """The graph of each node, types after each other."""
    if not batches:
        return None
    for kind, size in counts.items():
        if size and kind not in batches:
            raise ValueError(f"nodes of other types have a batch, those of type {kind!r} have none")
    return torch.cat([batches[kind] for kind, size in counts.items() if size] or [torch.empty(0, dtype=torch.long)]).to(
        device
    )


def _check_ends(index: Tensor, sources: int, targets: int, name: Any) -> None:
    """Before ids are shifted into ranges: an id too large would silently become a node of another type."""
    if not index.numel():
        return
    lowest, highest = (found.tolist() for found in index.aminmax(dim=1))
    for row, (limit, end) in enumerate(((sources, "source"), (targets, "destination"))):
        if lowest[row] < 0 or highest[row] >= limit:
            ids = index[row]
            bad = int(((ids < 0) | (ids >= limit)).nonzero()[0])
            raise ValueError(
                f"edge_index[{row}] of {name} holds {int(ids[bad])} at edge {bad}, but there are {limit} {end} nodes"
            )


def from_networkx(
    make: Make[G],
    graph: Any,
    relation: str = "relation",
    node_type: str | None = None,
    *,
    relations: List = None,
    node_types: List = None,
) -> G:
    """See :meth:`columba.Graph.from_networkx`."""
    if not graph.is_directed():
        raise ValueError("the graph is undirected; graph.to_directed() gives each edge both directions")
    if node_types is not None and node_type is None:
        raise ValueError("node_types lists names; node_type says which attribute of nodes holds them")
    position = {node: n for n, node in enumerate(graph.nodes)}
    edges = _labelled_edges(graph, relation)

    def edge(n: int) -> str:
        return f"{relation!r} of edge {edges[n][0]!r} -> {edges[n][1]!r}"

    names, found = numbered("relations", [label for _, _, label in edges], edge, relations)
    types: dict[str, Any] = {}
    if node_type is not None:
        types = _networkx_types(graph, node_type, node_types)
    ends = [[position[u] for u, _, _ in edges], [position[v] for _, v, _ in edges]]
    return make(
        torch.tensor(ends, dtype=torch.long).reshape(2, len(edges)),
        torch.tensor(found, dtype=torch.long),
        num_nodes=len(position),
        num_relations=max(len(names), 1),
        relation_names=names or None,
        **types,
    )


def _networkx_types(graph: Any, node_type: str, node_types: List) -> dict[str, Any]:
    nodes, labels = list(graph.nodes), [attributes.get(node_type) for _, attributes in graph.nodes(data=True)]
    missing = next((node for node, label in zip(nodes, labels, strict=True) if label is None), None)
    if missing is not None:
        raise ValueError(f"node {missing!r} has no attribute {node_type!r}")
    names, found = numbered("node_types", labels, lambda n: f"{node_type!r} of node {nodes[n]!r}", node_types)
    return {
        "node_type": torch.tensor(found, dtype=torch.long),
        "num_node_types": max(len(names), 1),
        "node_type_names": names or None,
    }


def _labelled_edges(graph: Any, relation: str) -> list[tuple[Any, Any, Any]]:
    """Source, destination and relation of each edge: an attribute's value, or the key of a multigraph's edge."""
    if relation == "key" and graph.is_multigraph():
        for u, v, attributes in graph.edges(data=True):
            if "key" in attributes:
                raise ValueError(
                    f"edge {u!r} -> {v!r} has an attribute that is called 'key' beside its key, and relation='key' means the latter; "
                    "rename the attribute"
                )
        return list(graph.edges(keys=True))
    edges = list(graph.edges(data=relation, default=None))
    missing = next(((u, v) for u, v, label in edges if label is None), None)
    if missing is not None:
        keys = ", or relation='key' for the keys of edges" if graph.is_multigraph() else ""
        raise ValueError(
            f"edge {missing[0]!r} -> {missing[1]!r} has no attribute {relation!r}; name the attribute that holds the relation{keys}"
        )
    return edges


def from_dgl(
    make: Make[G],
    graph: Any,
    *,
    relations: List = None,
    node_types: List = None,
    num_relations: int | None = None,
    num_node_types: int | None = None,
) -> G:
    """See :meth:`columba.Graph.from_dgl`."""
    if not hasattr(graph, "canonical_etypes"):
        raise TypeError(f"expected a DGL graph, got {type(graph).__name__}")
    if getattr(graph, "is_block", False):
        raise ValueError(
            "a DGL block has destinations that are sources too; make a bipartite graph of it: columba.Graph(torch.stack(block.edges()), "
            "num_nodes=(block.num_src_nodes(), block.num_dst_nodes()), num_relations=...)"
        )
    if list(graph.canonical_etypes) == [("_N", "_E", "_N")]:  # DGL's names for what has none
        source, target = graph.edges()
        made = make(
            torch.stack([source, target]),
            graph.edata.get("_TYPE"),
            num_nodes=graph.num_nodes(),
            num_relations=num_relations,
            node_type=graph.ndata.get("_TYPE"),
            num_node_types=num_node_types,
        )
        return with_names(made, relations, node_types)
    _refuse_counts("a heterogeneous graph", num_relations, num_node_types)
    sizes = {kind: graph.num_nodes(kind) for kind in graph.ntypes}
    edges = {kind: torch.stack(graph.edges(etype=kind)) for kind in graph.canonical_etypes}
    return heterogeneous(make, sizes, edges, relations=relations, node_types=node_types)


def from_triples(
    make: Make[G],
    triples: Any,
    *,
    num_nodes: int | None = None,
    num_relations: int | None = None,
    relations: List = None,
    add_inverse: bool = False,
) -> G:
    """See :meth:`columba.Graph.from_triples`."""
    try:
        table = torch.as_tensor(triples)
    except (TypeError, ValueError) as e:
        raise ValueError(f"triples must be integers, ids of head, relation and tail ({e})") from None
    if not table.numel() and table.dim() < 2:
        table = torch.empty(0, 3, dtype=torch.long)
    if table.dim() != 2 or table.shape[1] != 3:
        raise ValueError(f"triples must have shape [T, 3] (head, relation, tail), got {list(table.shape)}")
    head, relation, tail = table.unbind(1)
    graph = make(
        torch.stack([head, tail]), relation, num_nodes=num_nodes, num_relations=num_relations, relation_names=relations
    )
    return add_inverse_relations(graph) if add_inverse else graph


def with_names(graph: G, relations: List, node_types: List) -> G:
    """See :meth:`columba.Graph.with_names`."""
    if relations is None and node_types is None:
        return graph
    names, ids = _renumbering("relations", graph.relation_names, relations, graph.num_relations)
    kinds, type_ids = _renumbering("node_types", graph.node_type_names, node_types, graph.num_node_types)
    types = graph.node_type
    if types is not None and type_ids is not None:
        renumbered = [type_ids.to(t.device)[t] for t in (types if isinstance(types, tuple) else (types,))]
        types = tuple(renumbered) if isinstance(types, tuple) else renumbered[0]
    make: Make[G] = type(graph)
    return make(
        graph.edge_index,
        graph.edge_type if ids is None else ids.to(graph.device)[graph.edge_type],
        num_nodes=graph.num_nodes if graph.is_square else (graph.num_src, graph.num_dst),
        num_relations=graph.num_relations if names is None else len(names),
        node_type=types,
        num_node_types=graph.num_node_types if kinds is None else len(kinds),
        relation_names=names,
        node_type_names=kinds,
        node_slices=graph.node_slices,
        batch=graph.batch,
        num_graphs=graph.num_graphs,
    )


def _renumbering(
    kind: str, found: tuple[Any, ...] | None, given: List, count: int
) -> tuple[tuple[Any, ...] | None, Tensor | None]:
    """The names that a graph gets, and, where ids change, the new one of each."""
    if given is None:
        return found, None
    if found is not None:
        names = selected(kind, found, given)
        position = {name: n for n, name in enumerate(names)}
        return names, torch.tensor([position[name] for name in found], dtype=torch.long)
    wanted = listed(kind, given)
    assert wanted is not None
    if len(wanted) < count:
        raise ValueError(f"{kind} lists {len(wanted)} names, and the graph, which has none, has {count} ids")
    return wanted, None


def split_nodes(graph: NamedGraph, x: Tensor) -> dict[Any, Tensor]:
    """See :meth:`columba.Graph.split_nodes`."""
    return {name: nodes_of_type(graph, x, name) for name in slices_of(graph)}


def nodes_of_type(graph: NamedGraph, x: Tensor, name: Any) -> Tensor:
    """The rows of a node tensor that belong to nodes of one type."""
    if x.shape[:1] != (graph.num_nodes,):
        raise ValueError(f"x must have one row for each of {graph.num_nodes} nodes, got shape {list(x.shape)}")
    return x[slices_of(graph)[name]]


def cat_nodes(graph: NamedGraph, parts: Mapping[Any, Tensor]) -> Tensor:
    """See :meth:`columba.Graph.cat_nodes`."""
    slices = slices_of(graph)
    unknown = [name for name in parts if name not in slices]
    if unknown:
        raise ValueError(f"the graph has no node type {unknown[0]!r}; it has {', '.join(map(repr, slices))}")
    for name, rows in slices.items():
        size = rows.stop - rows.start
        if name not in parts and size:
            raise ValueError(f"parts has no rows for the {size} nodes of type {name!r}")
        if name in parts and parts[name].shape[:1] != (size,):
            raise ValueError(
                f"parts[{name!r}] must have one row for each of {size} nodes, got shape {list(parts[name].shape)}"
            )
    return torch.cat([parts[name] for name in slices if name in parts])


def slices_of(graph: NamedGraph) -> Mapping[Any, slice]:
    """The range of ids of each named node type."""
    if graph.node_slices is None:
        raise ValueError(
            "this graph was not made from one with named node types (HeteroData, DGL); it has no node_slices"
        )
    return graph.node_slices


def add_inverse_relations(graph: G) -> G:
    """The square graph with, for every edge of relation r, one the other way of relation ``r + num_relations``.

    The inverse of a relation with a name is called ``(name, "inverse")``.

    >>> from columba import Graph
    >>> graph = Graph(torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 1]))
    >>> add_inverse_relations(graph).edge_type
    tensor([0, 1, 2, 3])
    """
    if not graph.is_square:
        raise ValueError("a bipartite graph has no inverse relations: its sources are no destinations")
    names = graph.relation_names
    make: Make[G] = type(graph)
    return make(
        torch.cat([graph.edge_index, graph.edge_index.flip(0)], dim=1),
        torch.cat([graph.edge_type, graph.edge_type + graph.num_relations]),
        num_nodes=graph.num_nodes,
        num_relations=2 * graph.num_relations,
        node_type=graph.node_type,
        num_node_types=graph.num_node_types,
        relation_names=None if names is None else [*names, *((name, "inverse") for name in names)],
        node_type_names=graph.node_type_names,
        node_slices=graph.node_slices,
        batch=graph.batch,
        num_graphs=graph.num_graphs,
    )
