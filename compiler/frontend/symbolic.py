"""The language on symbolic values: the graph that a traced function sees, and its views."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from columba.frontend.batch_norm import OPERATIONS
from columba.frontend.counts import RealGraph, RowCount, Rows
from columba.frontend.errors import fail, location
from columba.frontend.infer import origin_of_rows
from columba.frontend.record import Record, Recorder, SymbolicTensor, meta_tensor
from columba.frontend.sources import Source
from columba.frontend.trees import mapped
from columba.ir.spaces import NODE_SPACES, IndexMap, Space, index_map
from columba.runtime.eager.lifted import Lifted
from columba.runtime.eager.views import EdgeView, GraphView, NodeView, linear, only_end
from columba.runtime.graphs.convert import cat_nodes, nodes_of_type, slices_of
from columba.runtime.graphs.from_tensors import as_graph
from columba.runtime.graphs.graph import Graph, substituted


@dataclass(frozen=True)
class BuiltGraph:
    """A graph that is built from tensors at every call, as :func:`columba.as_graph` does.

    ``is_implied``: nobody has asked for a graph, so that ids out of range are an error of what the code does with them.
    """

    tensors: tuple[Any, ...]
    sizes: tuple[tuple[str, Any], ...]
    make: Callable[..., Graph] = as_graph
    is_implied: bool = False

    def __str__(self) -> str:
        return "as_graph(...)"


GraphSource = Source | BuiltGraph


_NOT_TRACED = (
    "edge_index",
    "edge_type",
    "node_type",
    "node_slices",
    "batch",
    "ptr",
    "structure",
    "index",
    "index_dtype",
)
"""Attributes of graphs that depend on the edges."""


class TracedGraph(Graph):
    """A graph whose structure is known (square or not, typed or not) and whose sizes are not."""

    number: int

    def __init__(self, real: Graph, source: GraphSource, recorder: Recorder) -> None:
        number = recorder.number(real)
        self._set(_real=real, _source=source, _recorder=recorder, is_square=real.is_square, number=number)

    def _count(self, space: Space) -> RowCount:
        return RowCount(self._real_count(space), Rows(space, self.number), self._recorder)

    def _real_count(self, space: Space) -> int:
        with torch._C.DisableTorchFunction():
            return self._real.count(space)

    num_src = property(lambda self: self._count(Space.SRC))  # type: ignore[assignment]
    num_dst = property(lambda self: self._count(Space.DST))  # type: ignore[assignment]
    num_edges = property(lambda self: self._count(Space.EDGE))  # type: ignore[assignment]
    num_relations = property(lambda self: self._count(Space.REL))  # type: ignore[assignment]
    num_node_types = property(lambda self: self._count(Space.NTYPE))  # type: ignore[assignment]

    num_graphs = property(lambda self: self._count(Space.GRAPH))  # type: ignore[assignment]

    @property
    def num_nodes(self) -> int:
        if not self.is_square:
            raise ValueError("a bipartite graph has no num_nodes; it has num_src and num_dst")
        return self._count(Space.NODE)

    def count(self, space: Space) -> int:
        return self._count(space)

    @property
    def device(self) -> torch.device:
        return self._real.device

    def split_nodes(self, x: Tensor) -> dict[Any, Tensor]:  # type: ignore[override]
        names = self._node_types()
        record = self._recorder.operand(x)
        return {name: self._by_type("nodes_of_type", nodes_of_type, (record, name)) for name in names}

    def cat_nodes(self, parts: Mapping[Any, Tensor]) -> Tensor:  # type: ignore[override]
        self._node_types()
        records = {name: self._recorder.operand(x) for name, x in parts.items()}
        return self._by_type("cat_nodes", cat_nodes, (records,))

    def _node_types(self) -> tuple[Any, ...]:
        """The names of the node types, which the trace then depends on."""
        names = tuple(slices_of(self._real))
        self._recorder.node_types.append((self.number, names))
        return names

    def _by_type(self, op: str, function: Callable[..., Tensor], args: tuple[Any, ...]) -> Tensor:
        """What PyTorch makes of rows by node type: no kernel computes it."""
        metas = mapped(lambda x: x.meta if isinstance(x, Record) else x, args)
        with torch._C.DisableTorchFunction():
            meta = function(self._real, *metas)
        return self._recorder.add(Record(op, (RealGraph(self.number), *args), {}, meta, location(), function))

    def __getattr__(self, name: str) -> Any:
        raise fail(
            f"graph.{name} is not available inside a compiled function; use the views (g.edges, g.nodes, ...), or compute with it outside"
        )

    def __getattribute__(self, name: str) -> Any:
        return self.__getattr__(name) if name in _NOT_TRACED else super().__getattribute__(name)

    @property
    def edges(self) -> Any:
        return TracedEdges(self)

    def _pair_view(self, space: Space) -> Any:
        return TracedPairs(self, space)

    def _node_view(self, space: Space) -> Any:
        return TracedNodes(self, space)

    @property
    def graphs(self) -> Any:
        return TracedGraphs(self)

    def __repr__(self) -> str:
        return f"<traced {self._real!r}>"


def traced(graph: Graph) -> TracedGraph:
    """What stands for a graph in the trace that runs."""
    found = graph if isinstance(graph, TracedGraph) else substituted(graph)
    assert isinstance(found, TracedGraph)
    return found


class TracedView:
    """Rows of one space of a traced graph."""

    _name: str
    _TARGETS: tuple[str, ...]
    _GROUPS: tuple[str, ...] = ()

    def __init__(self, graph: TracedGraph, space: Space) -> None:
        self._graph = graph
        self.space = space
        self._recorder = graph._recorder

    def _map(self, name: str) -> IndexMap:
        return index_map(name, self.space, square=self._graph.is_square)

    def _rows(self, space: Space) -> tuple[int, ...]:
        return () if space is Space.ONE else (self._graph._real_count(space),)

    def _operand(self, what: str, x: Any) -> Record:
        if not isinstance(x, Tensor):
            raise TypeError(f"{location()}: {what} expects a tensor, got {type(x).__name__}")
        record: Record = self._recorder.operand(x)
        if not record.meta.dim():
            raise ValueError(f"{location()}: {what} expects a tensor with one row per row of a space, got a number")
        return record

    def _add(
        self, op: str, args: tuple[Any, ...], shape: tuple[int, ...], dtype: torch.dtype, **data: Any
    ) -> SymbolicTensor:
        meta = meta_tensor(shape, dtype)
        return self._recorder.add(Record(op, args, data, meta, location(), graph=self._graph.number))

    def __call__(self, x: Tensor) -> Tensor:
        """Declares ``x`` to have one row per row of this view."""
        record = self._operand(f"declaring a tensor of {self.space} rows", x)
        data, number = {"space": self.space}, self._graph.number
        return self._recorder.add(Record("declare", (record,), data, record.meta, location(), _itself, graph=number))

    def _lift(self, name: str, x: Tensor) -> Tensor:
        via = self._map(name)
        record = self._operand(f"lifting along {name}", x)
        shape = (*self._rows(self.space), *record.meta.shape[1:])
        return self._add("lift", (record,), shape, record.meta.dtype, via=via)

    def _reduce(self, kind: str, x: Tensor, to: str) -> Tensor:
        if to not in self._TARGETS:
            targets = ", ".join(map(repr, self._TARGETS))
            raise ValueError(f"{location()}: {self._name}.{kind} reduces to one of {targets}, not to {to!r}")
        via = self._map(to)
        record = self._recorder.autocast_operand(self._operand(kind, x), kind)
        if kind != "mean" and (counted := _COUNTED.get((record.meta.dtype, kind == "sum"))) is not None:
            # In numbers that are exact for as many rows as there can be.
            return self._reduce(kind, SymbolicTensor(record).double(), to).long().to(counted)
        if not record.meta.dtype.is_floating_point:
            raise TypeError(
                f"{location()}: {kind} expects floating point numbers inside a compiled function, got {record.meta.dtype}; convert them "
                "first (x.float(), exact for integers up to 2**24; x.double() up to 2**53; x.int()), or reduce outside"
            )
        shape = (*self._rows(via.coarse), *record.meta.shape[1:])
        return self._add("reduce", (record,), shape, record.meta.dtype, via=via, kind=kind)

    def _group(self, function: str, argument: str, name: str) -> IndexMap:
        if name not in self._GROUPS:
            groups = ", ".join(map(repr, self._GROUPS))
            raise ValueError(
                f"{location()}: {self._name}.{function}(..., {argument}=...) expects one of {groups}, not {name!r}"
            )
        return self._map(name)

    def _softmax(self, x: Tensor, by: str) -> Tensor:
        via = self._group("softmax", "by", by)
        record = self._recorder.autocast_operand(self._operand("softmax", x), "softmax")
        return self._add("segment_softmax", (record,), tuple(record.meta.shape), record.meta.dtype, via=via)

    def _degree(self, of: str, dtype: torch.dtype | None) -> Tensor:
        via = self._group("degree", "of", of)
        return self._add("degree", (), self._rows(self.space), dtype or torch.get_default_dtype(), via=via)


_COUNTED = {
    (torch.bool, True): torch.int64,
    (torch.bool, False): torch.bool,
    (torch.int32, True): torch.int32,
    (torch.int32, False): torch.int32,
}
"""Dtypes of what is no floating point number when it has been reduced: by the dtype, and whether it was summed."""


def _itself(x: Tensor, space: Space) -> Tensor:
    return x


class TracedEdges(TracedView):
    """``g.edges``."""

    _name = "e"
    _TARGETS, _GROUPS = EdgeView._TARGETS, EdgeView._GROUPS

    def __init__(self, graph: TracedGraph) -> None:
        super().__init__(graph, Space.EDGE)

    def src(self, x: Tensor) -> Tensor:
        return self._lift("src", x)

    def dst(self, x: Tensor) -> Tensor:
        return self._lift("dst", x)

    def rel(self, w: Tensor) -> Tensor:
        return self._lift("rel", w)

    def src_rel(self, x: Tensor) -> Tensor:
        return self._lift("src_rel", x)

    def dst_rel(self, x: Tensor) -> Tensor:
        return self._lift("dst_rel", x)

    def graph(self, x: Tensor) -> Tensor:
        return self._lift("graph", x)

    def sum(self, x: Tensor, to: str = "dst") -> Tensor:
        return self._reduce("sum", x, to)

    def mean(self, x: Tensor, to: str = "dst") -> Tensor:
        return self._reduce("mean", x, to)

    def max(self, x: Tensor, to: str = "dst") -> Tensor:
        return self._reduce("max", x, to)

    def min(self, x: Tensor, to: str = "dst") -> Tensor:
        return self._reduce("min", x, to)

    def softmax(self, x: Tensor, by: str = "dst") -> Tensor:
        return self._softmax(x, by)

    def degree(self, of: str = "dst", dtype: torch.dtype | None = None) -> Tensor:
        return self._degree(of, dtype)


class TracedNodes(TracedView):
    """``g.nodes``, ``g.src_nodes``, ``g.dst_nodes``."""

    _name = "n"
    _TARGETS, _GROUPS = NodeView._TARGETS, NodeView._GROUPS

    def type(self, w: Tensor) -> Tensor:
        return self._lift("ntype", w)

    def graph(self, x: Tensor) -> Tensor:
        return self._lift("graph", x)

    def sum(self, x: Tensor, to: str = "one") -> Tensor:
        return self._reduce("sum", x, to)

    def mean(self, x: Tensor, to: str = "one") -> Tensor:
        return self._reduce("mean", x, to)

    def max(self, x: Tensor, to: str = "one") -> Tensor:
        return self._reduce("max", x, to)

    def min(self, x: Tensor, to: str = "one") -> Tensor:
        return self._reduce("min", x, to)

    def softmax(self, x: Tensor, by: str = "graph") -> Tensor:
        return self._softmax(x, by)

    def degree(self, of: str = "graph", dtype: torch.dtype | None = None) -> Tensor:
        return self._degree(of, dtype)


class TracedGraphs(TracedView):
    """``g.graphs``."""

    _name = "g.graphs"
    _TARGETS = GraphView._TARGETS

    def __init__(self, graph: TracedGraph) -> None:
        super().__init__(graph, Space.GRAPH)

    def sum(self, x: Tensor) -> Tensor:
        return self._reduce("sum", x, "one")

    def mean(self, x: Tensor) -> Tensor:
        return self._reduce("mean", x, "one")

    def max(self, x: Tensor) -> Tensor:
        return self._reduce("max", x, "one")

    def min(self, x: Tensor) -> Tensor:
        return self._reduce("min", x, "one")


class TracedPairs(TracedView):
    """``g.src_rel``, ``g.dst_rel``."""

    def __init__(self, graph: TracedGraph, space: Space) -> None:
        super().__init__(graph, space)
        self._name, self._end = space.value, space.value[:3]
        self._TARGETS = (self._end, "rel", "graph", "one")

    def src(self, x: Tensor) -> Tensor:
        return self._lift_end("src", x)

    def dst(self, x: Tensor) -> Tensor:
        return self._lift_end("dst", x)

    def _lift_end(self, end: str, x: Tensor) -> Tensor:
        try:
            only_end(self.space, end)
        except ValueError as e:
            raise ValueError(f"{location()}: {e}") from None
        return self._lift(end, x)

    def graph(self, x: Tensor) -> Tensor:
        return self._lift("graph", x)

    def rel(self, w: Tensor) -> Tensor:
        return self._lift("rel", w)

    def sum(self, x: Tensor, to: str | None = None) -> Tensor:
        return self._reduce("sum", x, to or self._end)

    def mean(self, x: Tensor, to: str | None = None) -> Tensor:
        return self._reduce("mean", x, to or self._end)

    def max(self, x: Tensor, to: str | None = None) -> Tensor:
        return self._reduce("max", x, to or self._end)

    def min(self, x: Tensor, to: str | None = None) -> Tensor:
        return self._reduce("min", x, to or self._end)


# ------------------------------------------------------------------------------------------------ functions of the language


def has_rows(record: Record) -> bool:
    """Whether a value has one row per row of a space because of what it was computed from (not because of how it is used)."""
    if record.op in ("lift", "declare", "segment_softmax", "degree"):
        return True
    if record.op == "reduce":
        return record.kwargs["via"].coarse is not Space.ONE
    return any(has_rows(o) for o in record.operands)


def _trace_linear(recorder: Recorder, x: Any, w: Any) -> Tensor:
    x, w = recorder.operand(x), recorder.operand(w)
    lifted = has_rows(w)
    features = tuple(w.meta.shape[1:]) if lifted else tuple(w.meta.shape)
    if x.meta.dim() < 2 or not features or x.meta.shape[-1] != features[0]:
        raise ValueError(
            f"{location()}: linear(x, w) contracts the last feature dimension of x {list(x.meta.shape[1:])} with the first of w "
            f"{list(features)}: both must exist and be equal"
        )
    x, w = (recorder.autocast_operand(operand, "typed_linear") for operand in (x, w))
    if x.meta.dtype != w.meta.dtype:
        raise TypeError(
            f"{location()}: linear(x, w) expects one dtype, got x: {x.meta.dtype} and w: {w.meta.dtype}; convert one with .to(...)"
        )
    meta = meta_tensor((*x.meta.shape[:-1], *features[1:]), x.meta.dtype)
    return recorder.add(Record("typed_linear", (x, w), {}, meta, location(), _linear_of_rows if lifted else linear))


def _linear_of_rows(x: Tensor, w: Tensor) -> Tensor:
    """The product of each row ``[r, *lead, i]`` with a matrix of its own, ``[r, i, *out]``, in plain PyTorch."""
    if isinstance(w, Lifted):
        return linear(x, w)
    lead, out = x.shape[1:-1], w.shape[2:]
    rows = x.reshape(x.shape[0], lead.numel(), x.shape[-1]) @ w.reshape(*w.shape[:2], out.numel())
    return rows.reshape(x.shape[0], *lead, *out)


def _trace_as_graph(
    recorder: Recorder, edge_index: Any, edge_type: Any = None, node_type: Any = None, batch: Any = None, **sizes: Any
) -> Graph:
    """Builds the real graph of this call, and remembers how."""
    if isinstance(edge_index, Graph):
        _check_layer_sizes(recorder, edge_index, sizes)
        return edge_index
    sizes.pop("names", None)  # tensors have none

    def met(t: Any) -> Any:
        if t is None or isinstance(t, (tuple, list)):
            return None if t is None else tuple(map(met, t))
        record = recorder.operand(t)
        if record.source is None:
            raise fail(
                "the tensors that a graph is built from must be arguments or attributes, not computed inside the compiled function"
            )
        return record

    records = tuple(map(met, (edge_index, edge_type, node_type, batch)))

    def number(n: Any) -> Any:
        if isinstance(n, tuple):
            return tuple(map(number, n))
        return int.__int__(n) if isinstance(n, RowCount) else n

    plain = {k: number(v) for k, v in sizes.items()}
    sizes = {k: size_of_inputs(recorder, v) for k, v in sizes.items()}
    with torch._C.DisableTorchFunction():
        graph = as_graph(*_each(lambda r: recorder.real[r], records), **plain)
    source = BuiltGraph(_each(lambda r: r.source, records), tuple(sorted(sizes.items())))
    before = [known for known in recorder.graphs if known._real is graph]
    traced = TracedGraph(graph, source, recorder)
    if not any(known._source == source for known in before):
        recorder.graphs.append(traced)
    return before[0] if before else traced


def _each(f: Callable[[Record], Any], records: tuple[Any, ...]) -> tuple[Any, ...]:
    """A function of each record of tuples; None stays None."""
    return tuple(None if r is None else _each(f, r) if isinstance(r, tuple) else f(r) for r in records)


def size_of_inputs(recorder: Recorder, n: Any) -> Any:
    """A size as rows of what is passed in, where it is rows of what is computed from that, or on a graph that is built so."""
    if isinstance(n, tuple):
        return tuple(size_of_inputs(recorder, part) for part in n)
    if not isinstance(n, RowCount) or not isinstance(n.of, Record):
        return n
    origin = origin_of_rows(n.of)
    if origin.source is not None:
        return RowCount(int.__int__(n), origin, recorder)
    space = _space_of(origin)
    if space not in NODE_SPACES:
        return n
    for known in recorder.graphs:
        if known.number == origin.graph and isinstance(known._source, BuiltGraph):
            nodes = dict(known._source.sizes).get("num_nodes")
            nodes = nodes[space is Space.DST] if isinstance(nodes, tuple) else nodes
            return n if nodes is None else nodes
    return n


def _space_of(record: Record) -> Space | None:
    """Where what an operation of the language gives has its rows."""
    match record.op:
        case "lift" | "segment_softmax":
            return record.kwargs["via"].fine
        case "reduce":
            return record.kwargs["via"].coarse
        case "declare":
            return record.kwargs["space"]
    return None


def _check_layer_sizes(recorder: Recorder, graph: Graph, sizes: dict[str, Any]) -> None:
    graph = traced(graph)
    kept: dict[str, Any] = {
        k: int.__int__(v) for k, v in sizes.items() if k in ("num_relations", "num_node_types") and v is not None
    }
    if sizes.get("names") is not None:
        kept["names"] = sizes["names"]
    as_graph(graph._real, **kept)
    found = graph.number, kept
    if kept and found not in recorder.layer_sizes:
        recorder.layer_sizes.append(found)


LANGUAGE: dict[Any, Callable[..., Any]] = {linear: _trace_linear, as_graph: _trace_as_graph, **OPERATIONS}
"""Functions of the language that go through PyTorch's protocol."""
