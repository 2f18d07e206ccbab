"""Checks what a graph is made of, and copies it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from columba.runtime.graphs.sorts import native_function
from columba.runtime.modes import obstacle, required_real
from columba.runtime.structure import Topology

Pair = tuple[Any, Any]


def checked_topology(
    edge_index: Tensor,
    edge_type: Tensor | None,
    num_nodes: int | tuple[int, int] | None,
    num_relations: int | None,
    node_type: Tensor | tuple[Tensor, Tensor] | None,
    num_node_types: int | None,
    relation_names: tuple[Any, ...] | None,
    node_type_names: tuple[Any, ...] | None,
    batch: Tensor | tuple[Tensor, Tensor] | None = None,
    num_graphs: int | None = None,
) -> Topology:
    """The topology that the arguments of :class:`columba.Graph` describe; ValueError or TypeError where they do not fit.

    Everything is copied before it is checked: what others write to their tensors meanwhile goes unseen.
    """
    if node_type is batch is relation_names is node_type_names is None and num_graphs in (None, 1):
        topology = _narrow_topology(edge_index, edge_type, num_nodes, num_relations, num_node_types)
        if topology is not None:
            return topology
    _require_integers("edge_index", edge_index)
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        raise ValueError(f"edge_index must have shape [2, E], got {list(edge_index.shape)}")
    ends = _copied("edge_index", edge_index)
    relation = _relations(edge_type, ends)
    is_square = not isinstance(num_nodes, (tuple, list))
    num_src, num_dst = _node_counts(ends, num_nodes, node_type)
    relations = _checked_ids("edge_type", relation, num_relations, "num_relations", "edge")
    relations = _named_count("relation_names", relation_names, num_relations, relations)
    types = _ids_of_nodes("node_type", "type", node_type, num_src, num_dst, ends, is_square=is_square)
    node_types = _count_node_types(types, num_node_types)
    node_types = _named_count("node_type_names", node_type_names, num_node_types, node_types)
    graphs = _ids_of_nodes("batch", "graph", batch, num_src, num_dst, ends, is_square=is_square)
    num_graphs = _count_graphs(graphs, num_graphs, ends)
    topology = Topology(
        ends[0], ends[1], relation, types, is_square, num_src, num_dst, relations, node_types, graphs, num_graphs
    )
    counts = (num_src, num_dst, ends.shape[1], relations, node_types, num_graphs)
    return topology.to(torch.int32 if max(counts) < 2**31 - 1 else torch.int64)


LARGEST = 2**31 - 1
"""What offsets of 32 bits reach."""


def _narrow_topology(
    edge_index: Any, edge_type: Any, num_nodes: Any, num_relations: int | None, num_node_types: int | None
) -> Topology | None:
    """The topology of most graphs: copied, narrowed and checked in one pass of C++. None where that is not built, or anything is unusual:
    the long way then says what."""
    narrow_ids = native_function("narrow_ids")
    is_pair = isinstance(num_nodes, (tuple, list))
    counts = (num_nodes if len(num_nodes) == 2 else ()) if is_pair else (num_nodes,)
    if (
        narrow_ids is None
        or not counts
        or not all(type(n) is int and n < LARGEST for n in (*counts, num_relations or 0, num_node_types or 0))
    ):
        return None
    if not _is_int64(edge_index, 2) or edge_index.shape[0] != 2 or not 0 < edge_index.shape[1] < LARGEST:
        return None
    edges = edge_index.shape[1]
    if edge_type is not None and (not _is_int64(edge_type, 1) or edge_type.shape[0] != edges):
        return None

    def narrowed(ids: Tensor) -> tuple[Tensor, tuple[int, int]]:
        narrow, bounds = torch.empty(ids.shape, dtype=torch.int32), (ctypes.c_int64 * 2)()
        narrow_ids(ids.data_ptr(), ids.numel(), narrow.data_ptr(), ctypes.addressof(bounds))
        return narrow, (bounds[0], bounds[1])

    if is_pair:
        (source, *found), (destination, *others) = map(narrowed, edge_index)
        found += others
    else:
        (source, destination), *found = narrowed(edge_index)
    if not all(low >= 0 and high < n for (low, high), n in zip(found, counts, strict=True)):
        return None
    relations = 1 if num_relations is None else num_relations
    if relations < 1:
        return None
    if edge_type is None:
        relation = torch.zeros(edges, dtype=torch.int32)
    else:
        relation, (low, high) = narrowed(edge_type)
        relations = high + 1 if num_relations is None else relations
        if low < 0 or high >= relations or relations >= LARGEST:
            return None
    node_types = 1 if num_node_types is None else num_node_types
    return Topology(source, destination, relation, None, not is_pair, counts[0], counts[-1], relations, node_types)


def _is_int64(ids: Any, dims: int) -> bool:
    """Whether it is a plain tensor of integers in one piece of memory."""
    if (
        type(ids) is not Tensor
        or ids.dtype is not torch.int64
        or ids.dim() != dims
        or not ids.is_cpu
        or ids.layout is not torch.strided
    ):
        return False
    return obstacle(ids) is None and ids.is_contiguous()


def with_further_ends(topology: Topology, names: Sequence[str], ids: Tensor) -> Topology:
    """The same edges with further ends, ``ids`` ``[ends, E]``, each with the name of its map; ValueError where they do not fit."""
    _require_integers("edge_index", ids)
    if ids.shape != (len(names), topology.num_edges):
        raise ValueError(f"edges have ends of shape {list(ids.shape)}, wanted {[len(names), topology.num_edges]}")
    ids, further = _copied("edge_index", ids).to(topology.device), {}
    graphs: Any = topology.graphs if isinstance(topology.graphs, tuple) else (topology.graphs, topology.graphs)
    for name, end in zip(names, ids, strict=True):
        is_destination = name.startswith("dst")
        nodes = topology.num_dst if is_destination else topology.num_src
        _check_range(f"edge_index ({name})", end, nodes, f"there are {nodes} nodes", "edge")
        of_source, of_node = graphs[0], graphs[is_destination]
        if of_source is not None and not torch.equal(of_node[end], of_source[topology.source.long()]):
            raise ValueError(f"batch puts the ends of an edge into different graphs ({name})")
        further[name] = end.to(topology.dtype)
    return replace(topology, further=further)


def _copied(name: str, ids: Tensor) -> Tensor:
    """An int64 copy that nobody else holds, of the class Tensor."""
    required_real(name, ids)
    copied = ids.detach().to(torch.int64, copy=True, memory_format=torch.contiguous_format)
    if type(copied) is not Tensor:  # of a subclass: its data, whatever it adds to them
        copied = torch.tensor(copied.tolist(), dtype=torch.int64, device=ids.device).reshape(ids.shape)
    return copied


def _relations(edge_type: Tensor | None, ends: Tensor) -> Tensor:
    edges = ends.shape[1]
    if edge_type is None:
        return torch.zeros(edges, dtype=torch.int64, device=ends.device)
    _require_integers("edge_type", edge_type)
    if edge_type.shape != (edges,):
        raise ValueError(f"edge_type must have shape [{edges}], one relation an edge, got {list(edge_type.shape)}")
    _require_same_device("edge_type", edge_type, ends)
    return _copied("edge_type", edge_type)


def _node_counts(ends: Tensor, num_nodes: int | Pair | None, node_type: Any) -> tuple[int, int]:
    if isinstance(num_nodes, (tuple, list)):
        if len(num_nodes) != 2:
            raise ValueError(f"num_nodes must be a number or a pair (sources, destinations), got {num_nodes}")
        counts = int(num_nodes[0]), int(num_nodes[1])
    else:
        if num_nodes is None and isinstance(node_type, Tensor):
            num_nodes = node_type.shape[0]
        low, high = _bounds(ends)
        num_nodes = high + 1 if num_nodes is None else int(num_nodes)
        counts = num_nodes, num_nodes
        if low >= 0 and high < num_nodes:  # one pass for both rows
            return counts
    for row, (end, n) in enumerate(zip(("source", "destination"), counts, strict=True)):
        _check_range(f"edge_index[{row}]", ends[row], n, f"there are {n} {end} nodes", "edge")
    return counts


def _ids_of_nodes(name: str, what: str, ids: Any, num_src: int, num_dst: int, ends: Tensor, *, is_square: bool) -> Any:
    """The type, or the graph, of each node, copied; of a bipartite graph a pair."""
    if ids is None:
        return None
    if is_square:
        if isinstance(ids, (tuple, list)) and all(isinstance(t, Tensor) for t in ids):
            raise ValueError(f"{name} is a pair, but the graph has one set of nodes; give num_nodes as a pair as well")
        return _copied_ids(name, what, ids, num_src, ends)
    if not isinstance(ids, (tuple, list)) or len(ids) != 2:
        raise ValueError(f"a bipartite graph needs {name} as a pair (of sources, of destinations)")
    return (
        _copied_ids(f"{name}[0]", what, ids[0], num_src, ends),
        _copied_ids(f"{name}[1]", what, ids[1], num_dst, ends),
    )


def _copied_ids(name: str, what: str, ids: Tensor, rows: int, ends: Tensor) -> Tensor:
    _require_integers(name, ids)
    if ids.shape != (rows,):
        raise ValueError(f"{name} must have shape [{rows}], one {what} a node, got {list(ids.shape)}")
    _require_same_device(name, ids, ends)
    return _copied(name, ids)


def _count_graphs(graphs: Any, given: int | None, ends: Tensor) -> int:
    """How many graphs there are side by side; no edge leads from one to another."""
    if graphs is None:
        if given not in (None, 1):
            raise ValueError(f"num_graphs is {given}, but batch, the graph of each node, is not given")
        return 1
    of_source, of_destination = graphs if isinstance(graphs, tuple) else (graphs, graphs)
    named = (
        {"batch": graphs} if isinstance(graphs, Tensor) else dict(zip(("batch[0]", "batch[1]"), graphs, strict=True))
    )
    count = max(_checked_ids(name, ids, given, "num_graphs", "node") for name, ids in named.items())
    crossing = of_source[ends[0]] != of_destination[ends[1]]
    if bool(crossing.any()):
        edge = int(crossing.nonzero()[0])
        source, destination = ends[:, edge].tolist()
        raise ValueError(
            f"edge {edge} leads from node {source} of graph {int(of_source[source])} to node {destination} of graph "
            f"{int(of_destination[destination])}: batch puts its ends into different graphs"
        )
    return count


def _count_node_types(types: Any, given: int | None) -> int:
    if types is None:
        return 1 if given is None else int(given)
    parts = (types,) if isinstance(types, Tensor) else types
    return _checked_ids("node_type", torch.cat(parts), given, "num_node_types", "node")


def _require_integers(name: str, t: Any) -> None:
    if not isinstance(t, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(t).__name__}")
    if t.dtype.is_floating_point or t.dtype.is_complex or t.dtype is torch.bool:
        raise TypeError(f"{name} must hold integer ids, got {t.dtype}")


def _require_same_device(name: str, t: Tensor, reference: Tensor) -> None:
    if t.device != reference.device:
        raise ValueError(f"{name} is on {t.device}, edge_index on {reference.device}; move them to one device")


def _bounds(ids: Tensor) -> tuple[int, int]:
    """The smallest and the largest id; (0, -1) if there are none."""
    if not ids.numel():
        return 0, -1
    low, high = torch.stack(torch.aminmax(ids)).tolist()
    return low, high


def _check_range(name: str, ids: Tensor, limit: int, reason: str, what: str) -> None:
    low, high = _bounds(ids)
    _check_bounds(name, ids, low, high, limit, reason, what)


def _check_bounds(name: str, ids: Tensor, low: int, high: int, limit: int, reason: str, what: str) -> None:
    if low >= 0 and high < limit:
        return
    bad = int(((ids < 0) | (ids >= limit)).nonzero()[0])
    raise ValueError(f"{name} holds {int(ids[bad])} at {what} {bad}, but {reason} (ids 0 to {limit - 1})")


def _checked_ids(name: str, ids: Tensor, given: int | None, count: str, what: str) -> int:
    """The number of different ids that there may be."""
    low, high = _bounds(ids)
    limit = max(high + 1, 1) if given is None else int(given)
    _check_bounds(name, ids, low, high, limit, f"{count} is {limit}", what)
    return limit


def _named_count(kind: str, names: tuple[Any, ...] | None, given: int | None, count: int) -> int:
    """The number of ids, of which each has a name if there are names."""
    if names is None or len(names) == count:
        return count
    if given is None and len(names) > count:  # the last ids do not occur
        return len(names)
    raise ValueError(f"{kind} has {len(names)} names for {count} ids")
