"""Typed graphs, and the index arrays that kernels read of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from columba.ir.counts import Counts
from columba.ir.indices import IndexArray, Segments
from columba.ir.spaces import Space, index_map
from columba.runtime.eager.views import EdgeView, GraphView, NodeView, PairView
from columba.runtime.graphs.checks import checked_topology, with_further_ends
from columba.runtime.graphs.conversions import Conversions
from columba.runtime.graphs.index_arrays import IndexArrays
from columba.runtime.graphs.names import listed
from columba.runtime.graphs.tokens import new_token
from columba.runtime.modes import outside_modes, skipped_by_dynamo


class Graph(Conversions):
    """A directed graph whose edges, and optionally nodes, have types.

    Args:
        edge_index: ``[2, E]`` integer tensor; row 0 holds sources, row 1 destinations (as in PyG). It is copied, so that later
            changes to the tensor do not reach the graph.
        edge_type: ``[E]`` relation ids; None: all edges are of one relation.
        num_nodes: number of nodes; or a pair (sources, destinations), which makes the graph *bipartite*: sources and destinations are
            then different sets, as in a sampled block. None: one more than the largest id.
        num_relations: number of relations; None: as many as there are names, or one more than the largest id.
        node_type: ``[N]`` node type ids; for a bipartite graph a pair of such tensors. None: no types, or all of type 0.
        num_node_types: number of node types; None: as many as there are names, or one more than the largest id.
        relation_names, node_type_names: what the ids mean: a name for each. Layers compare them (:class:`columba.TypeNames`).
        node_slices: the range of ids of each named node type, where types are ranges of ids.
        batch: ``[N]`` graph ids, in any order, of a *batch*: several graphs side by side, between which no edge leads (PyG's ``batch``; see
            :func:`columba.batch`); for a bipartite graph a pair of such tensors. None: it is one graph.
        num_graphs: number of graphs of the batch; None: one more than the largest id. Graphs may have no nodes.

    Graphs are never changed: attributes cannot be assigned to, and ``edge_index``, ``edge_type``, ``node_type``, ``batch`` and
    :meth:`index` give new tensors at each access.

    Raises:
        ValueError: shapes do not fit, an id is negative or too large (the message names the first such edge), devices differ, a name
            stands twice, an edge leads from one graph of the batch to another.
        TypeError: a tensor does not hold integers.

    >>> graph = Graph(torch.tensor([[0, 1, 1], [1, 2, 2]]), torch.tensor([0, 1, 0]))
    >>> graph
    Graph(3 nodes, 3 edges, 2 relations)
    >>> graph.count(Space.SRC_REL)
    3
    """

    is_square: bool
    num_edges: int
    num_src: int
    num_dst: int
    num_relations: int
    num_node_types: int
    num_graphs: int
    relation_names: tuple[Any, ...] | None
    node_type_names: tuple[Any, ...] | None
    _arrays: IndexArrays
    _kept: dict[str, Any]
    _slices: dict[Any, slice] | None
    _token: Tensor

    def __init__(
        self,
        edge_index: Tensor,
        edge_type: Tensor | None = None,
        *,
        num_nodes: int | tuple[int, int] | None = None,
        num_relations: int | None = None,
        node_type: Tensor | tuple[Tensor, Tensor] | None = None,
        num_node_types: int | None = None,
        relation_names: Sequence[Any] | None = None,
        node_type_names: Sequence[Any] | None = None,
        node_slices: Mapping[Any, slice] | None = None,
        batch: Tensor | tuple[Tensor, Tensor] | None = None,
        num_graphs: int | None = None,
    ) -> None:
        if is_dynamo_compiling():
            torch._dynamo.graph_break(  # type: ignore[no-untyped-call]
                msg="columba: a columba.Graph is made inside of torch.compile, which reads ids of tensors; use "
                "columba.as_graph(edge_index, edge_type, num_nodes=..., num_relations=...), or make it outside"
            )
        relations, kinds = listed("relation_names", relation_names), listed("node_type_names", node_type_names)
        with outside_modes():  # a graph that is made under inference mode, say, may be trained on later
            topology = checked_topology(
                edge_index,
                edge_type,
                num_nodes,
                num_relations,
                node_type,
                num_node_types,
                relations,
                kinds,
                batch,
                num_graphs,
            )
        self._set(
            relation_names=relations,
            node_type_names=kinds,
            _slices=None if node_slices is None else dict(node_slices),
            _token=new_token(self),
            **_of_structure(IndexArrays(topology)),
        )

    # -------------------------------------------------------------------------------------------- never changed

    def _set(self, **attributes: Any) -> None:
        """Sets attributes, which from then on cannot be assigned to."""
        vars(self).update(attributes)

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_change(name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._refuse_change(name)
        super().__delattr__(name)

    def _refuse_change(self, name: str) -> None:
        if name in vars(self) or name in Graph.__annotations__ or hasattr(type(self), name):
            raise AttributeError(
                f"graph.{name} cannot be set: graphs are never changed, because index arrays, kernels and traces rely on them. Make a "
                "new one: columba.Graph(edge_index, edge_type, num_nodes=..., num_relations=..., node_type=...)"
            )

    # -------------------------------------------------------------------------------------------- edges and types

    @property
    def edge_index(self) -> Tensor:
        """Sources and destinations, ``[2, E]`` int64: a new tensor at each access, since the graph's own are never written."""
        topology = self._arrays.topology
        with outside_modes():
            return torch.stack([topology.source, topology.destination]).to(torch.int64)

    @property
    def edge_type(self) -> Tensor:
        """The relation of each edge, ``[E]`` int64: a new tensor at each access."""
        with outside_modes():
            return self._arrays.topology.relation.to(torch.int64, copy=True)

    @property
    def node_type(self) -> Any:
        """The type of each node, ``[N]`` int64, of a bipartite graph a pair of such tensors; new ones at each access. None: no types."""
        return _copies(self._arrays.topology.node_types)

    @property
    def batch(self) -> Any:
        """The graph of each node, ``[N]`` int64, of a bipartite graph a pair of such tensors; new ones at each access. None: one graph."""
        return _copies(self._arrays.topology.graphs)

    @property
    def ptr(self) -> Tensor:
        """Where the nodes of each graph of a batch begin, and end, ``[num_graphs + 1]`` int64: those of graph ``i`` are
        ``range(ptr[i], ptr[i + 1])``.

        Raises:
            ValueError: nodes are not sorted by graph, or the graph is bipartite.
        """
        if not self.is_square:
            raise ValueError(
                "a bipartite graph has no ptr: sources and destinations begin at different rows; use graph.batch"
            )
        batch = self._arrays.topology.graphs
        with outside_modes():
            if isinstance(batch, Tensor) and bool((batch.diff() < 0).any()):
                raise ValueError("the nodes are not sorted by graph, so that they are no ranges; use graph.batch")
            return self._arrays.index(Segments(index_map("graph", Space.NODE))).to(torch.int64, copy=True)

    @property
    def node_slices(self) -> Mapping[Any, slice] | None:
        """The range of ids of each named node type, where types are ranges of ids; it cannot be written."""
        return None if self._slices is None else MappingProxyType(self._slices)

    @property
    def structure(self) -> IndexArrays:
        """What kernels and the eager language read. Its tensors are the graph's own: never write to them."""
        return self._arrays

    # -------------------------------------------------------------------------------------------- sizes

    @property
    def device(self) -> torch.device:
        return self._arrays.device

    @property
    def num_nodes(self) -> int:
        """Nodes of a square graph."""
        if not self.is_square:
            raise ValueError("a bipartite graph has no num_nodes; it has num_src and num_dst")
        return self.num_src

    def count(self, space: Space) -> int:
        """Rows of a space."""
        return self._arrays.count(space)

    def counts(self) -> Counts:
        """Rows of every space that the graph has. Counting pairs builds them, on the first call."""

        def counted() -> Counts:
            self._arrays.count_pairs()
            return Counts({space: self._arrays.count(space) for space in _COUNTED[self.is_square]})

        return self.keep("counts", counted)

    def counts_and_degrees(self) -> Counts:
        """The same, with the largest degree, which is found on the first call: a GPU is waited for."""

        def found() -> Counts:
            largest = max(
                self._arrays.largest_degree(index_map(end, Space.EDGE, square=self.is_square)) for end in ("src", "dst")
            )
            return Counts(self.counts(), largest)

        return self.keep("counts and degrees", found)

    @property
    def index_dtype(self) -> torch.dtype:
        """int32 where every id and offset fits, else int64."""
        return self._arrays.dtype

    def index(self, array: IndexArray) -> Tensor:
        """A copy of an index array, as :mod:`columba.ir.indices` describes it: built on the first request, in linear time, then kept."""
        with outside_modes():
            return self._arrays.index(array).clone()

    def keep(self, key: str, make: Callable[[], Any]) -> Any:
        """What ``make`` returned on the first call with this key: something prepared for this graph, which lives as long as it."""
        found = self._kept.get(key)
        return self._kept.setdefault(key, make()) if found is None else found

    # -------------------------------------------------------------------------------------------- the language

    @property
    def edges(self) -> EdgeView:
        """Lifts to edges and reductions over them."""
        graph = substituted(self)
        return EdgeView(self) if graph is self else graph.edges

    @property
    def nodes(self) -> NodeView:
        """The nodes of a square graph."""
        if not self.is_square:
            raise ValueError("a bipartite graph has no .nodes; it has .src_nodes and .dst_nodes")
        return self._node_view(Space.NODE)

    @property
    def src_nodes(self) -> NodeView:
        """The source nodes."""
        return self._node_view(Space.NODE if self.is_square else Space.SRC)

    @property
    def dst_nodes(self) -> NodeView:
        """The destination nodes."""
        return self._node_view(Space.NODE if self.is_square else Space.DST)

    def _node_view(self, space: Space) -> NodeView:
        graph = substituted(self)
        return NodeView(self, space) if graph is self else graph._node_view(space)

    @property
    def src_rel(self) -> PairView:
        """The distinct (source, relation) pairs."""
        return self._pair_view(Space.SRC_REL)

    @property
    def dst_rel(self) -> PairView:
        """The distinct (destination, relation) pairs."""
        return self._pair_view(Space.DST_REL)

    def _pair_view(self, space: Space) -> PairView:
        graph = substituted(self)
        return PairView(self, space) if graph is self else graph._pair_view(space)

    @property
    def graphs(self) -> GraphView:
        """The graphs of a batch; one that is no batch is one graph."""
        graph = substituted(self)
        return GraphView(self) if graph is self else graph.graphs

    def split_nodes(self, x: Tensor) -> dict[Any, Tensor]:
        graph = substituted(self)
        return super().split_nodes(x) if graph is self else graph.split_nodes(x)

    def cat_nodes(self, parts: Mapping[Any, Tensor]) -> Tensor:
        graph = substituted(self)
        return super().cat_nodes(parts) if graph is self else graph.cat_nodes(parts)

    split_nodes.__doc__, cat_nodes.__doc__ = Conversions.split_nodes.__doc__, Conversions.cat_nodes.__doc__

    # -------------------------------------------------------------------------------------------- the rest

    def to(self, device: torch.device | str) -> Graph:
        """The graph on another device; itself if it is there."""
        if is_on(self.device, torch.device(device)):
            return self
        with outside_modes():
            moved = self._arrays.topology.to(device)
        other = self.__copy__()
        other._set(**_of_structure(IndexArrays(moved)))
        return other

    def with_further_ends(self, names: Sequence[str], ids: Tensor) -> Graph:
        """The same edges with further ends, ``ids`` ``[ends, E]``, each with one of :data:`columba.ir.spaces.FURTHER_ENDS` as name.

        Programs of traced code read them, which has rows chosen and summed by more than two tensors of integers; the views do not.

        Raises:
            ValueError: shapes do not fit, an id is out of range, an end is in another graph of the batch than the source is.
        """
        with outside_modes():
            topology = with_further_ends(self._arrays.topology, names, ids)
        other = self.__copy__()
        other._set(**_of_structure(IndexArrays(topology)))
        return other

    def __copy__(self) -> Graph:
        """Another object for the same edges: what has been prepared for them is shared, since neither can be changed."""
        other = object.__new__(type(self))
        other._set(**{**vars(self), "_token": new_token(other)})
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Graph:
        other = memo[id(self)] = self.__copy__()
        own = {name: value for name, value in vars(self).items() if name not in Graph.__annotations__}
        other._set(**copy.deepcopy(own, memo))
        return other

    def __getstate__(self) -> dict[str, Any]:
        topology = self._arrays.topology
        sizes = topology.num_src, topology.num_dst
        arguments = {
            # The graph's own tensors: a process that is spawned opens their memory after this call, when a temporary one would be gone.
            "edge_index": (topology.source, topology.destination),
            "edge_type": topology.relation,
            "num_nodes": sizes[0] if self.is_square else sizes,
            "num_relations": self.num_relations,
            "node_type": topology.node_types,
            "num_node_types": self.num_node_types,
            "relation_names": self.relation_names,
            "node_type_names": self.node_type_names,
            "node_slices": self._slices,
            "batch": topology.graphs,
            "num_graphs": self.num_graphs,
        }
        further = tuple(topology.further), tuple(topology.further.values())
        own = {name: value for name, value in vars(self).items() if name not in Graph.__annotations__}
        return {"arguments": arguments, "further": further, "own": own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arguments = dict(state["arguments"])
        with outside_modes():
            arguments["edge_index"] = torch.stack(arguments["edge_index"])
        Graph.__init__(self, **arguments)  # checked: what was read may be damaged
        names, ids = state.get("further", ((), ()))
        if names:
            with outside_modes():
                self._set(
                    **_of_structure(IndexArrays(with_further_ends(self._arrays.topology, names, torch.stack(ids))))
                )
        self._set(**state["own"])

    def __repr__(self) -> str:
        nodes = f"{self.num_src} nodes" if self.is_square else f"{self.num_src} -> {self.num_dst} nodes"
        parts = [nodes, f"{self.num_edges} edges", f"{self.num_relations} relation{'s' * (self.num_relations != 1)}"]
        if self.node_type is not None:
            parts.append(f"{self.num_node_types} node type{'s' * (self.num_node_types != 1)}")
        if self.batch is not None:
            parts.append(f"a batch of {self.num_graphs} graph{'s' * (self.num_graphs != 1)}")
        for space in (Space.SRC_REL, Space.DST_REL):
            pairs = self._arrays.known_pairs(space)
            if pairs is not None and self.num_edges:
                parts.append(f"{pairs} {space} pairs ({pairs / self.num_edges:.0%} of edges)")
        if self.device.type != "cpu":
            parts.append(f"device={self.device}")
        return f"Graph({', '.join(parts)})"


_COUNTED = {
    is_square: (
        *((Space.NODE,) if is_square else (Space.SRC, Space.DST)),
        *(Space.EDGE, Space.REL, Space.NTYPE, Space.SRC_REL, Space.DST_REL, Space.GRAPH, Space.ONE),
    )
    for is_square in (True, False)
}
"""The spaces that graphs have."""


def _copies(ids: Tensor | tuple[Tensor, Tensor] | None) -> Any:
    """A number for each node, in int64, of which nobody else has the memory."""
    with outside_modes():
        if isinstance(ids, tuple):
            return tuple(t.to(torch.int64, copy=True) for t in ids)
        return None if ids is None else ids.to(torch.int64, copy=True)


skipped_by_dynamo(Graph.__init__, recursive=True)


def is_on(device: torch.device, wanted: torch.device) -> bool:
    """Whether a tensor's device is the one that is wanted: ``cuda`` means the current one."""
    if device.type != wanted.type or wanted.index is not None or device.index is None:
        return device == wanted
    return bool(device.index == torch.get_device_module(device.type).current_device())


# ------------------------------------------------------------------------------------------------ tracing


def _of_structure(arrays: IndexArrays) -> dict[str, Any]:
    """The attributes of a graph that follow from its structure."""
    topology = arrays.topology
    sizes = ("is_square", "num_edges", "num_src", "num_dst", "num_relations", "num_node_types", "num_graphs")
    return {"_arrays": arrays, "_kept": {}, **{name: getattr(topology, name) for name in sizes}}


_substitute: ContextVar[Callable[[Graph], Graph] | None] = ContextVar("columba_substitute", default=None)


@contextmanager
def substituting(substitute: Callable[[Graph], Graph]) -> Iterator[None]:
    """Within, views of a graph are those of ``substitute(graph)``: how tracing sees graphs that are no arguments."""
    token = _substitute.set(substitute)
    try:
        yield
    finally:
        _substitute.reset(token)


def substituted(graph: Graph) -> Graph:
    substitute = _substitute.get()
    return graph if substitute is None else substitute(graph)
