"""Graphs from the tensors that layers are called with, and the recognition of tensors that a graph was built from before."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.overrides import handle_torch_function, has_torch_function

from columba.runtime.graphs.convert import heterogeneous
from columba.runtime.graphs.graph import Graph
from columba.runtime.graphs.names import TypeNames
from columba.runtime.graphs.sorts import checksum_of
from columba.runtime.modes import outside_modes, required_real

SMALL = 1 << 13
"""Bytes up to which comparing with a copy takes less time than calling a kernel."""


class Seen:
    """A tensor that a graph is built from, and what it holds at that time.

    A version counter does not see every write: not one through NumPy, ``.data``, DLPack, or another process. On a CPU the contents are
    compared instead, all of them: small ones with a copy, others by a checksum of 64 bits, or where that is not built yet with a copy. On
    a GPU that would wait for the device: what counts there is the version, but for inference tensors, which have none.
    """

    def __init__(self, tensor: Tensor, dies: Callable[[Any], None] | None = None) -> None:
        self.ref = weakref.ref(tensor, dies)
        self.version = None if tensor.is_inference() else tensor._version
        self.shape, self.dtype = tensor.shape, tensor.dtype
        self.address = 0
        self.bytes: Any = None
        self.copy: Any = None
        self.checksum: int | None = None
        if (not tensor.is_cpu or _OWN in vars(tensor)) and self.version is not None:
            return
        size = tensor.numel() * tensor.element_size()
        if tensor.is_cpu and _is_dense(tensor) and size:
            self.address = tensor.data_ptr()
            if size <= SMALL:
                self.bytes = (ctypes.c_char * size).from_address(self.address)
                self.copy = self.bytes.raw
                return
            self.checksum = checksum_of(self.address, size)
        if self.checksum is None:
            self.copy = tensor.detach().clone()

    def is_still(self, tensor: Tensor) -> bool:
        """Whether a tensor is the one that was seen, and holds what it held."""
        if self.ref() is not tensor or tensor.shape != self.shape:
            return False
        if self.bytes is not None:
            return tensor.data_ptr() == self.address and bool(self.bytes.raw == self.copy)
        if tensor.dtype is not self.dtype:
            return False
        if self.copy is None and self.checksum is None:
            return tensor._version == self.version
        return self._has_same_contents(tensor)

    def _has_same_contents(self, tensor: Tensor) -> bool:
        checksum = None
        if self.address and tensor.data_ptr() == self.address and _is_dense(tensor):
            checksum = checksum_of(self.address, tensor.numel() * tensor.element_size())
        if self.checksum is not None:
            return checksum == self.checksum
        with outside_modes():
            same = torch.equal(self.copy, tensor)
        if same and checksum is not None:  # which was taken before: had somebody written since, the copy would differ
            self.checksum, self.copy = checksum, None
        return same


_OWN = "_columba_own"


def own(tensor: Tensor) -> Tensor:
    """Marks a tensor that is never written to: it was computed here, and is given to nobody."""
    vars(tensor)[_OWN] = True
    return tensor


def _is_dense(tensor: Tensor) -> bool:
    """Whether a tensor's numbers are its memory from ``data_ptr`` on."""
    own = type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__
    return own and tensor.layout is torch.strided and tensor.is_contiguous()


class _RecentGraphs:
    """The graphs last built from tensors, so that calling a layer again does not build index arrays again.

    A graph is found by the tensors that it was built from, as long as they hold what they held, and forgotten when one of them dies.
    """

    def __init__(self, capacity: int = 16) -> None:
        self.capacity = capacity
        self.lock = threading.Lock()
        self.graphs: OrderedDict[Any, tuple[list[Seen], Graph]] = OrderedDict()
        self.died: deque[Any] = deque()

    def get(self, tensors: Sequence[Tensor], sizes: tuple[Any, ...], build: Callable[[], Graph]) -> Graph:
        key = (tuple(map(id, tensors)), sizes)
        found = self.graphs.get(key)
        if found is not None and all(seen.is_still(t) for seen, t in zip(found[0], tensors, strict=True)):
            with self.lock, contextlib.suppress(KeyError):  # another thread may have put it out meanwhile
                self.graphs.move_to_end(key)
            return found[1]
        # First what the tensors hold, then the graph, which copies them: what is written in between is seen at the next call.
        seen = [Seen(t, lambda _: self._forget(key)) for t in tensors]
        graph = build()
        with self.lock:
            self._bury()
            self.graphs[key] = (seen, graph)
            self.graphs.move_to_end(key)
            while len(self.graphs) > self.capacity:
                self.graphs.popitem(last=False)
        return graph

    def seen(self, tensors: Sequence[Tensor], graph: Graph) -> list[Seen] | None:
        """What ``graph``, built from ``tensors``, was seen to be built from; None if that is forgotten."""
        with self.lock:
            for seen, known in self.graphs.values():
                if known is graph and len(seen) == len(tensors):
                    return seen if all(s.ref() is t for s, t in zip(seen, tensors, strict=True)) else None
        return None

    def _forget(self, key: Any) -> None:
        """A tensor has died. This may run at any moment, even while this thread holds the lock."""
        self.died.append(key)
        if self.lock.acquire(blocking=False):
            try:
                self._bury()
            finally:
                self.lock.release()

    def _bury(self) -> None:
        while self.died:
            key = self.died.popleft()
            entry = self.graphs.get(key)
            if entry is not None and any(seen.ref() is None for seen in entry[0]):
                del self.graphs[key]


_recent = _RecentGraphs()


def seen_tensors(tensors: Sequence[Tensor], graph: Graph) -> list[Seen] | None:
    """For each tensor that :func:`as_graph` built ``graph`` from, what recognizes it; None if that is forgotten."""
    return _recent.seen(tensors, graph)


class TensorGraph:
    """What :func:`as_graph` gives while Dynamo reads it: tensors, of which the operator that the call becomes makes the graph."""

    TENSORS = ("edge_index", "edge_type", "node_type", "batch")
    FIELDS = (*TENSORS, "num_nodes", "num_relations", "num_node_types", "num_graphs", "names")

    def __init__(
        self,
        edge_index: Any,
        edge_type: Any,
        node_type: Any,
        batch: Any,
        num_nodes: Any,
        num_relations: Any,
        num_node_types: Any,
        num_graphs: Any,
        names: Any,
    ) -> None:
        self.edge_index, self.edge_type, self.node_type, self.batch = edge_index, edge_type, node_type, batch
        self.num_nodes, self.num_relations, self.num_node_types = num_nodes, num_relations, num_node_types
        self.num_graphs, self.names = num_graphs, names

    def parts(self) -> tuple[tuple[Any, ...], tuple[tuple[str, Any], ...]]:
        """The tensors, and the sizes by their names."""
        tensors = tuple(getattr(self, name) for name in self.TENSORS)
        return tensors, tuple((name, getattr(self, name)) for name in self.FIELDS[len(tensors) :])


def as_graph(
    edge_index: Graph | Tensor,
    edge_type: Tensor | None = None,
    node_type: Tensor | tuple[Tensor, Tensor] | None = None,
    batch: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    num_nodes: int | tuple[int, int] | None = None,
    num_relations: int | None = None,
    num_node_types: int | None = None,
    num_graphs: int | None = None,
    names: TypeNames | None = None,
) -> Graph:
    """A graph from what PyG's layers take: ``edge_index`` with types, or a graph already, whose sizes and names are checked.

    ``batch`` says which graph of a batch each node is of; ``num_graphs``, how many there are, defaults to what its ids need.

    The last few graphs are kept while their tensors live: the same tensors, unchanged, give the same graph. On a CPU their contents are
    compared at each call, so that writes which PyTorch does not count (through NumPy, ``.data``, shared memory) are seen, at the cost of
    reading them once; a :class:`columba.Graph` needs no such check. On a GPU, where a comparison would wait for the device, tensors are
    recognized by their version alone.
    """
    if is_dynamo_compiling() and not isinstance(edge_index, Graph):
        given = (edge_index, edge_type, node_type, batch, num_nodes, num_relations, num_node_types, num_graphs, names)
        return TensorGraph(*given)  # type: ignore[return-value]
    is_graph = isinstance(edge_index, Graph)
    if is_graph and not edge_type is node_type is batch is num_graphs is None:
        raise ValueError("a Graph holds its types and its batch; give them only with an edge_index tensor")
    named = (("edge_index", edge_index), ("edge_type", edge_type))
    named += tuple(("node_type", t) for t in _flat(node_type)) + tuple(("batch", t) for t in _flat(batch))
    tensors = tuple(t for _, t in named if isinstance(t, Tensor))
    watched: tuple[Any, ...] = (
        (edge_index,) if is_graph else tensors
    )  # a trace wants to know what its graph is checked for
    if has_torch_function(watched):
        sizes: dict[str, Any] = {
            "num_nodes": num_nodes,
            "num_relations": num_relations,
            "num_node_types": num_node_types,
            "num_graphs": num_graphs,
            "names": names,
        }
        return handle_torch_function(as_graph, watched, edge_index, edge_type, node_type, batch, **sizes)  # type: ignore[no-any-return]
    if isinstance(edge_index, Graph):
        if names is not None:
            names.check(edge_index)
        _check_sizes(edge_index, num_relations, num_node_types)
        if names is not None:
            names.remember(edge_index)
        return edge_index
    if not isinstance(edge_index, Tensor):
        raise TypeError(f"expected a columba.Graph or an edge_index tensor, got {type(edge_index).__name__}")
    key = (num_nodes, num_relations, num_node_types, num_graphs, edge_type is None, node_type is None, batch is None)

    def build() -> Graph:
        return Graph(
            edge_index,
            edge_type,
            num_nodes=num_nodes,
            num_relations=num_relations,
            node_type=node_type,
            num_node_types=num_node_types if node_type is not None else None,
            batch=batch,
            num_graphs=num_graphs,
        )

    for name, tensor in named:
        if isinstance(tensor, Tensor):
            required_real(name, tensor)
    return _recent.get(tensors, key, build)


def hypergraph(
    edge_index: Tensor,
    edge_type: Tensor | None = None,
    node_type: Tensor | None = None,
    batch: Tensor | None = None,
    *,
    ends: tuple[str, ...],
    **sizes: Any,
) -> Graph:
    """As :func:`as_graph`, with more than two ends an edge.

    Args:
        edge_index: ``[len(ends), E]``: sources and destinations, then further ends.
        ends: the names of their maps: ``src``, ``dst``, and some of :data:`columba.ir.spaces.FURTHER_ENDS`.
        edge_type, node_type, batch, sizes: as of :class:`columba.Graph`.
    """
    tensors = tuple(t for t in (edge_index, edge_type, node_type, batch) if t is not None)
    given = {"edge_type": edge_type, "node_type": node_type, "batch": batch, **sizes}

    def build() -> Graph:
        graph = Graph(edge_index[:2], **given)
        return graph.with_further_ends(ends[2:], edge_index[2:])

    for tensor in tensors:
        required_real("edge_index", tensor)
    key = (ends, edge_type is None, node_type is None, batch is None, *sizes.items())
    return _recent.get(tensors, key, build)


def typed_graph(
    edges: Mapping[Any, Tensor],
    num_nodes: Mapping[Any, int],
    *,
    relations: Sequence[Any],
) -> Graph:
    """One graph of all node types from what PyG's heterogeneous layers take: an ``edge_index`` for each (source, relation, destination).

    Nodes of a type are a range of ids, types in the order of ``num_nodes``. As with :func:`as_graph` the same tensors give the same graph.

    Args:
        edges: ``[2, E]`` each, with ids within the types of both ends.
        num_nodes: of each type.
        relations: the names of all relations, by id; those that have no edges may be missing in ``edges``.
    """
    tensors = tuple(edges.values())
    if has_torch_function(tensors):
        return handle_torch_function(typed_graph, tensors, edges, num_nodes, relations=relations)  # type: ignore[no-any-return]
    counts = tuple(num_nodes.values())
    return typed_graph_of(
        tensors, edge_types=tuple(edges), node_types=tuple(num_nodes), num_nodes=counts, relations=tuple(relations)
    )


def typed_graph_of(
    tensors: tuple[Tensor, ...],
    *,
    edge_types: tuple[Any, ...],
    node_types: tuple[Any, ...],
    num_nodes: tuple[int, ...],
    relations: tuple[Any, ...],
) -> Graph:
    """As :func:`typed_graph`, of tables that are taken apart."""
    sizes, edges = dict(zip(node_types, num_nodes, strict=True)), dict(zip(edge_types, tensors, strict=True))
    for name, tensor in edges.items():
        required_real(f"edge_index of {name}", tensor)

    def build() -> Graph:
        return heterogeneous(Graph, sizes, edges, relations=relations, node_types=node_types)

    return _recent.get(tensors, ("typed", edge_types, node_types, num_nodes, relations), build)


def _flat(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _check_sizes(graph: Graph, num_relations: int | None, num_node_types: int | None) -> None:
    if num_relations is not None and graph.num_relations > num_relations:
        raise ValueError(f"the graph has {graph.num_relations} relations, the layer has weights for {num_relations}")
    if num_node_types is not None and graph.num_node_types > num_node_types:
        raise ValueError(f"the graph has {graph.num_node_types} node types, the layer has weights for {num_node_types}")
    for kind, have, want in (
        ("num_relations", graph.num_relations, num_relations),
        ("num_node_types", graph.num_node_types, num_node_types),
    ):
        if want is not None and have < want:
            raise ValueError(f"the graph has {kind}={have}, the layer {want}; make the graph with {kind}={want}")
