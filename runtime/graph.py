"""Typed graphs, and the index arrays that kernels read of them."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from columba.ir.indices import IndexArray
from columba.ir.spaces import Space
from columba.runtime.conversions import Conversions
from columba.runtime.index_arrays import IndexArrays
from columba.runtime.names import TypeNames, listed

if TYPE_CHECKING:
    from columba.runtime.language import EdgeView, NodeView, PairView

Pair = tuple[Any, Any]


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

    Raises:
        ValueError: shapes do not fit, an id is negative or too large (the message names the first such edge), devices differ, a name
            stands twice.
        TypeError: a tensor does not hold integers.

    >>> graph = Graph(torch.tensor([[0, 1, 1], [1, 2, 2]]), torch.tensor([0, 1, 0]))
    >>> graph
    Graph(3 nodes, 3 edges, 2 relations)
    >>> graph.count(Space.SRC_REL)
    3
    """

    @torch.inference_mode(False)  # a graph that is made under inference mode may be trained on later
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
    ) -> None:
        _require_integers("edge_index", edge_index)
        if edge_index.dim() != 2 or edge_index.shape[0] != 2:
            raise ValueError(f"edge_index must have shape [2, E], got {list(edge_index.shape)}")
        self.edge_index = edge_index.detach().to(torch.int64, copy=True, memory_format=torch.contiguous_format)
        self.num_edges = self.edge_index.shape[1]
        self.edge_type = self._relations(edge_type)
        self.is_square = not isinstance(num_nodes, (tuple, list))
        self.num_src, self.num_dst = self._node_counts(num_nodes, node_type)
        self.relation_names = listed("relation_names", relation_names)
        self.node_type_names = listed("node_type_names", node_type_names)
        self.num_relations = _named_count(
            "relation_names",
            self.relation_names,
            num_relations,
            _checked_ids("edge_type", self.edge_type, num_relations, "num_relations", "edge"),
        )
        self.node_type = self._node_types(node_type)
        self.num_node_types = _named_count(
            "node_type_names", self.node_type_names, num_node_types, self._count_node_types(num_node_types)
        )
        self.node_slices: dict[Any, slice] | None = None
        self._arrays = IndexArrays(self)
        self._kept: dict[str, Any] = {}

    # -------------------------------------------------------------------------------------------- validation

    def _relations(self, edge_type: Tensor | None) -> Tensor:
        if edge_type is None:
            return torch.zeros(self.num_edges, dtype=torch.int64, device=self.edge_index.device)
        _require_integers("edge_type", edge_type)
        if edge_type.shape != (self.num_edges,):
            raise ValueError(
                f"edge_type must have shape [{self.num_edges}], one relation an edge, got {list(edge_type.shape)}"
            )
        _require_same_device("edge_type", edge_type, self.edge_index)
        return edge_type.detach().to(torch.int64, copy=True, memory_format=torch.contiguous_format)

    def _node_counts(self, num_nodes: int | Pair | None, node_type: Any) -> tuple[int, int]:
        if isinstance(num_nodes, (tuple, list)):
            if len(num_nodes) != 2:
                raise ValueError(f"num_nodes must be a number or a pair (sources, destinations), got {num_nodes}")
            counts = int(num_nodes[0]), int(num_nodes[1])
        else:
            if num_nodes is None and isinstance(node_type, Tensor):
                num_nodes = node_type.shape[0]
            low, high = _bounds(self.edge_index)
            num_nodes = high + 1 if num_nodes is None else int(num_nodes)
            counts = num_nodes, num_nodes
            if low >= 0 and high < num_nodes:  # one pass for both rows
                return counts
        for row, (end, n) in enumerate(zip(("source", "destination"), counts, strict=True)):
            _check_range(f"edge_index[{row}]", self.edge_index[row], n, f"there are {n} {end} nodes", "edge")
        return counts

    def _node_types(self, node_type: Any) -> Any:
        if node_type is None:
            return None
        if self.is_square:
            if isinstance(node_type, (tuple, list)):
                raise ValueError(
                    "node_type is a pair, but the graph has one set of nodes; give num_nodes as a pair as well"
                )
            return self._checked_types("node_type", node_type, self.num_src)
        if not isinstance(node_type, (tuple, list)) or len(node_type) != 2:
            raise ValueError("a bipartite graph needs node_type as a pair (of sources, of destinations)")
        return (
            self._checked_types("node_type[0]", node_type[0], self.num_src),
            self._checked_types("node_type[1]", node_type[1], self.num_dst),
        )

    def _checked_types(self, name: str, types: Tensor, rows: int) -> Tensor:
        _require_integers(name, types)
        if types.shape != (rows,):
            raise ValueError(f"{name} must have shape [{rows}], one type a node, got {list(types.shape)}")
        _require_same_device(name, types, self.edge_index)
        return types.detach().to(torch.int64, copy=True, memory_format=torch.contiguous_format)

    def _count_node_types(self, given: int | None) -> int:
        if self.node_type is None:
            return 1 if given is None else int(given)
        parts = (self.node_type,) if isinstance(self.node_type, Tensor) else self.node_type
        return _checked_ids("node_type", torch.cat(parts), given, "num_node_types", "node")

    # -------------------------------------------------------------------------------------------- sizes

    @property
    def device(self) -> torch.device:
        return self.edge_index.device

    @property
    def num_nodes(self) -> int:
        """Nodes of a square graph."""
        if not self.is_square:
            raise ValueError("a bipartite graph has no num_nodes; it has num_src and num_dst")
        return self.num_src

    def count(self, space: Space) -> int:
        """Rows of a space."""
        match space:
            case Space.SRC:
                return self.num_src
            case Space.DST:
                return self.num_dst
            case Space.NODE:
                return self.num_nodes
            case Space.EDGE:
                return self.num_edges
            case Space.REL:
                return self.num_relations
            case Space.NTYPE:
                return self.num_node_types
            case Space.ONE:
                return 1
            case Space.SRC_REL | Space.DST_REL:
                return self._arrays.pairs(space).count

    def counts(self) -> dict[Space, int]:
        """Rows of every space that the graph has. Counting pairs builds them, on the first call."""
        nodes = (Space.NODE,) if self.is_square else (Space.SRC, Space.DST)
        spaces = (*nodes, Space.EDGE, Space.REL, Space.NTYPE, Space.SRC_REL, Space.DST_REL, Space.ONE)
        return self.keep("counts", lambda: {space: self.count(space) for space in spaces})

    @property
    def index_dtype(self) -> torch.dtype:
        """int32 where every id and offset fits, else int64."""
        return self._arrays.dtype

    def index(self, array: IndexArray) -> Tensor:
        """An index array, as :mod:`columba.ir.indices` describes it: built on the first request, in linear time, then kept."""
        return self._arrays.get(array)

    def keep(self, key: str, make: Callable[[], Any]) -> Any:
        """What ``make`` returned on the first call with this key: something prepared for this graph, which lives as long as it."""
        found = self._kept.get(key)
        return self._kept.setdefault(key, make()) if found is None else found

    # -------------------------------------------------------------------------------------------- the language

    @property
    def edges(self) -> EdgeView:
        """Lifts to edges and reductions over them."""
        from columba.runtime.language import EdgeView

        graph = _substituted(self)
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
        from columba.runtime.language import NodeView

        graph = _substituted(self)
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
        from columba.runtime.language import PairView

        graph = _substituted(self)
        return PairView(self, space) if graph is self else graph._pair_view(space)

    # -------------------------------------------------------------------------------------------- the rest

    def to(self, device: torch.device | str) -> Graph:
        """The graph on another device; itself if it is there."""
        if torch.device(device) == self.device:
            return self
        types = self.node_type
        moved = Graph(
            self.edge_index.to(device),
            self.edge_type.to(device),
            num_nodes=self.num_src if self.is_square else (self.num_src, self.num_dst),
            num_relations=self.num_relations,
            node_type=tuple(t.to(device) for t in types)
            if isinstance(types, tuple)
            else types
            if types is None
            else types.to(device),
            num_node_types=self.num_node_types,
            relation_names=self.relation_names,
            node_type_names=self.node_type_names,
        )
        moved.node_slices = self.node_slices
        return moved

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_arrays", "_kept")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._arrays = IndexArrays(self)
        self._kept = {}

    def __repr__(self) -> str:
        nodes = f"{self.num_src} nodes" if self.is_square else f"{self.num_src} -> {self.num_dst} nodes"
        parts = [nodes, f"{self.num_edges} edges", f"{self.num_relations} relation{'s' * (self.num_relations != 1)}"]
        if self.node_type is not None:
            parts.append(f"{self.num_node_types} node type{'s' * (self.num_node_types != 1)}")
        for space in (Space.SRC_REL, Space.DST_REL):
            pairs = self._arrays.known_pairs(space)
            if pairs is not None and self.num_edges:
                parts.append(f"{pairs.count} {space} pairs ({pairs.count / self.num_edges:.0%} of edges)")
        if self.device.type != "cpu":
            parts.append(f"device={self.device}")
        return f"Graph({', '.join(parts)})"


# ------------------------------------------------------------------------------------------------ tracing


_substitute: ContextVar[Callable[[Graph], Graph] | None] = ContextVar("columba_substitute", default=None)


@contextmanager
def substituting(substitute: Callable[[Graph], Graph]) -> Iterator[None]:
    """Within, views of a graph are those of ``substitute(graph)``: how tracing sees graphs that are no arguments."""
    token = _substitute.set(substitute)
    try:
        yield
    finally:
        _substitute.reset(token)


def _substituted(graph: Graph) -> Graph:
    substitute = _substitute.get()
    return graph if substitute is None else substitute(graph)


# ------------------------------------------------------------------------------------------------ graphs of tensors


class _Seen:
    """A tensor that a graph was built from, and, where nothing counts its changes, what it held."""

    def __init__(self, tensor: Tensor) -> None:
        self.ref = weakref.ref(tensor)
        self.copy = tensor.clone() if tensor.is_inference() else None

    def is_still(self, tensor: Tensor) -> bool:
        return self.ref() is tensor and (self.copy is None or torch.equal(self.copy, tensor))


class _RecentGraphs:
    """The graphs last built from tensors, so that calling a layer again does not build index arrays again.

    A graph is found by the identity and version of the tensors it was built from; a tensor that was changed in place, or freed,
    is never matched. Tensors made under ``torch.inference_mode`` have no version: of those a copy is kept to compare with.
    """

    def __init__(self, capacity: int = 16) -> None:
        self.capacity = capacity
        self.lock = threading.Lock()
        self.graphs: OrderedDict[Any, tuple[list[_Seen], Graph]] = OrderedDict()

    def get(self, tensors: Sequence[Tensor], sizes: tuple[Any, ...], build: Any) -> Graph:
        key = (tuple((id(t), None if t.is_inference() else t._version) for t in tensors), sizes)
        with self.lock:
            found = self.graphs.get(key)
            if found is not None and all(seen.is_still(t) for seen, t in zip(found[0], tensors, strict=True)):
                self.graphs.move_to_end(key)
                return found[1]
        graph: Graph = build()
        with self.lock:
            self.graphs[key] = ([_Seen(t) for t in tensors], graph)
            while len(self.graphs) > self.capacity:
                self.graphs.popitem(last=False)
        return graph


_recent = _RecentGraphs()


def as_graph(
    edge_index: Graph | Tensor,
    edge_type: Tensor | None = None,
    node_type: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    num_nodes: int | tuple[int, int] | None = None,
    num_relations: int | None = None,
    num_node_types: int | None = None,
    names: TypeNames | None = None,
) -> Graph:
    """A graph from what PyG's layers take: ``edge_index`` with types, or a graph already, whose sizes and names are checked.

    The last few graphs are kept: the same tensors, unchanged, give the same graph.
    """
    is_graph = isinstance(edge_index, Graph)
    if is_graph and (edge_type is not None or node_type is not None):
        raise ValueError("a Graph holds its types; give edge_type and node_type only with an edge_index tensor")
    tensors = tuple(t for t in (edge_index, edge_type, *_flat(node_type)) if isinstance(t, Tensor))
    watched: tuple[Any, ...] = (
        (edge_index,) if is_graph else tensors
    )  # a trace wants to know what its graph is checked for
    if has_torch_function(watched):
        sizes: dict[str, Any] = {
            "num_nodes": num_nodes,
            "num_relations": num_relations,
            "num_node_types": num_node_types,
            "names": names,
        }
        return handle_torch_function(as_graph, watched, edge_index, edge_type, node_type, **sizes)  # type: ignore[no-any-return]
    if isinstance(edge_index, Graph):
        if names is not None:
            names.check(edge_index)
        _check_sizes(edge_index, num_relations, num_node_types)
        if names is not None:
            names.remember(edge_index)
        return edge_index
    if not isinstance(edge_index, Tensor):
        raise TypeError(f"expected a columba.Graph or an edge_index tensor, got {type(edge_index).__name__}")
    key = (num_nodes, num_relations, num_node_types, edge_type is None, node_type is None)

    def build() -> Graph:
        return Graph(
            edge_index,
            edge_type,
            num_nodes=num_nodes,
            num_relations=num_relations,
            node_type=node_type,
            num_node_types=num_node_types if node_type is not None else None,
        )

    return _recent.get(tensors, key, build)


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


# ------------------------------------------------------------------------------------------------ checks


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
