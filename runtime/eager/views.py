"""The language in which relational GNN layers are written, with its eager meaning in plain PyTorch.

Data changes space in two ways only: a *lift* copies each row to every finer row that belongs to it, a *reduction*
combines the finer rows of each row. A graph offers them through views, one for each space that has finer or coarser
ones: ``g.edges``, ``g.nodes`` (``g.src_nodes`` and ``g.dst_nodes`` of a bipartite graph), ``g.src_rel`` and
``g.dst_rel``, the distinct pairs of an endpoint and a relation that occur, and ``g.graphs``, those of a batch.
Whatever stands between lifts and reductions is ordinary PyTorch that acts on the features of each row.

Code in this language needs no compiler: run undecorated, it computes what the compiled program computes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from columba.ir.indices import Lookup, Segments
from columba.ir.spaces import NODE_SPACES, PAIR_SPACES, IndexMap, Space, compose, index_map
from columba.runtime.autocast import as_operand
from columba.runtime.eager import reductions
from columba.runtime.eager.contractions import linear
from columba.runtime.eager.lifted import Lifted
from columba.runtime.structure import GraphLike

__all__ = ["EdgeView", "GraphView", "Lifted", "NodeView", "PairView", "linear"]

_NOUNS = {
    Space.SRC: "source node",
    Space.DST: "destination node",
    Space.NODE: "node",
    Space.EDGE: "edge",
    Space.REL: "relation",
    Space.NTYPE: "node type",
    Space.SRC_REL: "(source, relation) pair",
    Space.DST_REL: "(destination, relation) pair",
    Space.GRAPH: "graph of the batch",
}
_SYMBOLS = {
    Space.SRC: "num_src",
    Space.DST: "num_dst",
    Space.NODE: "N",
    Space.EDGE: "E",
    Space.REL: "R",
    Space.NTYPE: "T",
    Space.SRC_REL: "num_src_rel",
    Space.DST_REL: "num_dst_rel",
    Space.GRAPH: "num_graphs",
}


class View:
    """The rows of one space of a graph: what lifts to them, and what they reduce to."""

    def __init__(self, graph: GraphLike, space: Space, name: str) -> None:
        self._graph = graph
        self._space = space
        self._name = name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._graph!r}, {self._space})"

    def __call__(self, x: Tensor) -> Tensor:
        """Declares that ``x`` has one row per row of this view: checks that, and returns ``x``."""
        self._check(self._name, x, self._space, "lift a tensor of a coarser space first, as in e.src(h)")
        return x

    def _map(self, name: str) -> IndexMap:
        return index_map(name, self._space, square=self._graph.is_square)

    def _lift(self, name: str, x: Tensor, *, lazy: bool = False, spelled: str | None = None) -> Tensor:
        """``x`` copied to every row of this view that the map ``name`` sends to it."""
        step = self._map(name)
        where = f"{self._name}.{spelled or name}"
        hint = f"{_NOUNS[self._space]} tensors need no lift"
        self._check(where, x, step.coarse, hint, role=_NOUNS[Space(name)] if name in ("src", "dst") else None)
        if isinstance(x, Lifted):
            return Lifted(x.base, compose(step, x.map), self._graph)
        return Lifted(x, step, self._graph) if lazy else x.index_select(0, self._graph.structure.index(Lookup(step)))

    def _reduce(self, kind: str, x: Tensor, to: str, targets: tuple[str, ...]) -> Tensor:
        where = f"{self._name}.{kind}"
        if to not in targets:
            raise ValueError(f"{where} reduces to one of {', '.join(map(repr, targets))}, not to {to!r}")
        self._check(where, x, self._space, "lift a tensor of a coarser space first, as in e.src(h)")
        if x.dtype is torch.bool and kind != "mean":  # how many hold; whether any, or all, do
            counted = self._reduce(kind, (x.materialize() if isinstance(x, Lifted) else x).long(), to, targets)
            return counted if kind == "sum" else counted.bool()
        if x.is_complex() or (kind == "mean" and not x.is_floating_point()):
            wanted = "floating point numbers" if kind == "mean" else "real numbers"
            raise TypeError(f"{where} expects {wanted}, got {x.dtype}; convert with .to(torch.get_default_dtype())")
        x = as_operand(x.materialize() if isinstance(x, Lifted) else x, kind)
        if to == "one":
            return reductions.reduce_all(x, kind)
        step = self._map(to)
        index, rows = self._graph.structure.index(Lookup(step)), self._graph.count(step.coarse)
        if kind == "sum":
            return reductions.segment_sum(x, index, rows)
        if kind == "mean":
            return reductions.segment_mean(x, index, self._graph.structure.index(Segments(step)).diff())
        return reductions.segment_extremum(x, index, rows, kind)

    def _softmax(self, x: Tensor, by: str, groups: tuple[str, ...]) -> Tensor:
        step = self._group("softmax", "by", by, groups)
        where = f"{self._name}.softmax"
        self._check(where, x, self._space, "lift a tensor of a coarser space first, as in e.src(h)")
        if not x.is_floating_point():
            raise TypeError(f"{where} expects floating point numbers, got {x.dtype}; convert with .to(...)")
        x = as_operand(x.materialize() if isinstance(x, Lifted) else x, "softmax")
        return reductions.segment_softmax(x, self._graph.structure.index(Lookup(step)), self._graph.count(step.coarse))

    def _degree(self, of: str, dtype: torch.dtype | None, groups: tuple[str, ...]) -> Tensor:
        step = self._group("degree", "of", of, groups)
        counts = self._graph.structure.index(Segments(step)).diff().to(dtype or torch.get_default_dtype())
        return counts.index_select(0, self._graph.structure.index(Lookup(step)))

    def _group(self, function: str, argument: str, name: str, groups: tuple[str, ...]) -> IndexMap:
        if name not in groups:
            wanted = ", ".join(map(repr, groups))
            raise ValueError(f"{self._name}.{function}(..., {argument}=...) expects one of {wanted}, not {name!r}")
        return self._map(name)

    def _check(self, where: str, x: Tensor, space: Space, hint: str, role: str | None = None) -> None:
        noun, rows = role or _NOUNS[space], self._graph.count(space)
        expected = f"{where} expects one row per {noun} ({_SYMBOLS[space]}={rows})"
        if not isinstance(x, Tensor):
            raise TypeError(f"{expected}, got {type(x).__name__}, which is no tensor")
        if x.dim() == 0 or x.shape[0] != rows:
            raise ValueError(f"{expected}, got a tensor of shape {list(x.shape)}; {hint}")
        if isinstance(x, Lifted) and (x.space is not space or x.graph is not self._graph):
            of = "this graph" if x.graph is self._graph else "another graph"
            raise ValueError(f"{expected}, got one row per {_NOUNS[x.space]} of {of}; {hint}")
        if x.device != self._graph.device:
            raise ValueError(
                f"{where} got a tensor on {x.device} for a graph on {self._graph.device}; move one of them: "
                f"graph.to({str(x.device)!r})"
            )


class EdgeView(View):
    """The edges of a graph, ``g.edges``, in the order in which the user listed them.

    >>> from columba.runtime.graphs.graph import Graph
    >>> g = Graph(torch.tensor([[0, 0, 1], [1, 2, 2]]))
    >>> e, x = g.edges, torch.tensor([1.0, 10.0, 100.0])
    >>> e.src(x), e.dst(x)
    (tensor([ 1.,  1., 10.]), tensor([ 10., 100., 100.]))
    >>> e.sum(e.src(x)), e.mean(e.src(x))
    (tensor([ 0.,  1., 11.]), tensor([0.0000, 1.0000, 5.5000]))
    """

    _TARGETS = ("dst", "src", "dst_rel", "src_rel", "rel", "graph", "one")
    _GROUPS = ("dst", "src", "dst_rel", "src_rel", "graph")

    def __init__(self, graph: GraphLike) -> None:
        super().__init__(graph, Space.EDGE, "e")

    def src(self, x: Tensor) -> Tensor:
        """Each edge's source: ``[num_src, *features]`` to ``[E, *features]``."""
        return self._lift("src", x)

    def dst(self, x: Tensor) -> Tensor:
        """Each edge's destination: ``[num_dst, *features]`` to ``[E, *features]``."""
        return self._lift("dst", x)

    def rel(self, w: Tensor) -> Tensor:
        """Each edge's relation: ``[R, *features]`` to ``[E, *features]``, lazily (see :class:`Lifted`)."""
        return self._lift("rel", w, lazy=True)

    def src_rel(self, x: Tensor) -> Tensor:
        """Each edge's (source, relation) pair: ``[num_src_rel, *features]`` to ``[E, *features]``."""
        return self._lift("src_rel", x)

    def dst_rel(self, x: Tensor) -> Tensor:
        """Each edge's (destination, relation) pair: ``[num_dst_rel, *features]`` to ``[E, *features]``."""
        return self._lift("dst_rel", x)

    def graph(self, x: Tensor) -> Tensor:
        """Each edge's graph, of a batch: ``[num_graphs, *features]`` to ``[E, *features]``."""
        return self._lift("graph", x)

    def sum(self, x: Tensor, to: str = "dst") -> Tensor:
        """Sum of the edges of each row of ``to``: ``[E, *features]`` to ``[rows, *features]``.

        Args:
            x: one row per edge.
            to: ``"dst"``, ``"src"``, ``"dst_rel"``, ``"src_rel"``, ``"rel"``, ``"graph"``, or ``"one"`` for a single sum over
                all edges, ``[*features]``. Rows without edges get 0, in every reduction.

        Raises:
            TypeError: ``x`` is no tensor of numbers. ValueError: wrong rows, device or ``to``.
        """
        return self._reduce("sum", x, to, self._TARGETS)

    def mean(self, x: Tensor, to: str = "dst") -> Tensor:
        """Mean of the edges of each row of ``to``; as :meth:`sum`, floating point only."""
        return self._reduce("mean", x, to, self._TARGETS)

    def max(self, x: Tensor, to: str = "dst") -> Tensor:
        """Elementwise maximum; as :meth:`sum`. Ties share the gradient evenly."""
        return self._reduce("max", x, to, self._TARGETS)

    def min(self, x: Tensor, to: str = "dst") -> Tensor:
        """Elementwise minimum; as :meth:`sum`. Ties share the gradient evenly."""
        return self._reduce("min", x, to, self._TARGETS)

    def softmax(self, x: Tensor, by: str = "dst") -> Tensor:
        """Softmax over the edges that share a row of ``by``, feature by feature: ``[E, *features]`` to the same.

        Args:
            x: one row per edge, floating point. The maximum of each group is subtracted first.
            by: ``"dst"`` (all incoming edges), ``"src"``, ``"dst_rel"``, ``"src_rel"`` or ``"graph"``.

        >>> from columba.runtime.graphs.graph import Graph
        >>> g = Graph(torch.tensor([[0, 1, 0], [1, 1, 0]]))
        >>> g.edges.softmax(torch.tensor([3.0, 3.0, 9.0]))
        tensor([0.5000, 0.5000, 1.0000])
        """
        return self._softmax(x, by, self._GROUPS)

    def degree(self, of: str = "dst", dtype: torch.dtype | None = None) -> Tensor:
        """For each edge, how many edges share its ``of``: ``[E]``.

        Args:
            of: ``"dst"``, ``"src"``, ``"dst_rel"``, ``"src_rel"`` or ``"graph"``.
            dtype: default ``torch.get_default_dtype()``.
        """
        return self._degree(of, dtype, self._GROUPS)


class NodeView(View):
    """The nodes of a square graph, ``g.nodes``, or of one side of a bipartite one, ``g.src_nodes``, ``g.dst_nodes``.

    >>> from columba.runtime.graphs.graph import Graph
    >>> g = Graph(torch.tensor([[0, 1], [1, 2]]), node_type=torch.tensor([0, 1, 1]))
    >>> weight = torch.stack([torch.eye(2), 3 * torch.eye(2)])
    >>> linear(torch.ones(3, 2), g.nodes.type(weight))
    tensor([[1., 1.],
            [3., 3.],
            [3., 3.]])
    """

    _TARGETS = ("graph", "one")
    _GROUPS = ("graph",)

    def __init__(self, graph: GraphLike, space: Space) -> None:
        if space not in NODE_SPACES:
            raise ValueError(f"{space} is no space of nodes")
        super().__init__(graph, Space.NODE if graph.is_square else space, "n")

    def type(self, w: Tensor) -> Tensor:
        """Each node's type: ``[T, *features]`` to ``[N, *features]``, lazily (see :class:`Lifted`)."""
        return self._lift("ntype", w, lazy=True, spelled="type")

    def graph(self, x: Tensor) -> Tensor:
        """Each node's graph, of a batch: ``[num_graphs, *features]`` to ``[N, *features]``."""
        return self._lift("graph", x)

    def sum(self, x: Tensor, to: str = "one") -> Tensor:
        """Sum over all nodes, ``[N, *features]`` to ``[*features]``; or, with ``to="graph"``, over those of each graph of a batch, to
        ``[num_graphs, *features]``. Graphs without nodes get 0, in every reduction."""
        return self._reduce("sum", x, to, self._TARGETS)

    def mean(self, x: Tensor, to: str = "one") -> Tensor:
        """Mean over all nodes, or those of each graph, 0 if there are none; as :meth:`sum`."""
        return self._reduce("mean", x, to, self._TARGETS)

    def max(self, x: Tensor, to: str = "one") -> Tensor:
        """Elementwise maximum over all nodes, or those of each graph, 0 if there are none. Ties share the gradient evenly."""
        return self._reduce("max", x, to, self._TARGETS)

    def min(self, x: Tensor, to: str = "one") -> Tensor:
        """Elementwise minimum over all nodes, or those of each graph, 0 if there are none. Ties share the gradient evenly."""
        return self._reduce("min", x, to, self._TARGETS)

    def softmax(self, x: Tensor, by: str = "graph") -> Tensor:
        """Softmax over the nodes of each graph of a batch, feature by feature: ``[N, *features]`` to the same.

        >>> from columba.runtime.graphs.graph import Graph
        >>> g = Graph(torch.empty(2, 0, dtype=torch.long), batch=torch.tensor([0, 0, 1]), num_nodes=3)
        >>> g.nodes.softmax(torch.tensor([3.0, 3.0, 9.0]))
        tensor([0.5000, 0.5000, 1.0000])
        """
        return self._softmax(x, by, self._GROUPS)

    def degree(self, of: str = "graph", dtype: torch.dtype | None = None) -> Tensor:
        """For each node, how many nodes its graph has, of a batch: ``[N]``."""
        return self._degree(of, dtype, self._GROUPS)


class PairView(View):
    """The distinct pairs of an endpoint and a relation that occur: ``g.src_rel`` or ``g.dst_rel``.

    The pairs are sorted by relation, then by node. Here is the mean of each relation's messages, summed over the
    relations:

    >>> from columba.runtime.graphs.graph import Graph
    >>> g = Graph(torch.tensor([[0, 1, 2], [3, 3, 3]]), torch.tensor([0, 0, 1]))
    >>> x = torch.tensor([2.0, 4.0, 10.0, 0.0])
    >>> g.dst_rel.sum(g.edges.mean(g.edges.src(x), to="dst_rel"))
    tensor([ 0.,  0.,  0., 13.])
    """

    def __init__(self, graph: GraphLike, space: Space) -> None:
        if space not in PAIR_SPACES:
            raise ValueError(f"{space} is no space of pairs")
        super().__init__(graph, space, space.value)
        self._end = space.value.removesuffix("_rel")

    def src(self, x: Tensor) -> Tensor:
        """Each pair's source node, ``[num_src, *features]`` to ``[pairs, *features]``; of ``g.src_rel`` only."""
        return self._lift_end("src", x)

    def dst(self, x: Tensor) -> Tensor:
        """Each pair's destination node, ``[num_dst, *features]`` to ``[pairs, *features]``; of ``g.dst_rel`` only."""
        return self._lift_end("dst", x)

    def rel(self, w: Tensor) -> Tensor:
        """Each pair's relation: ``[R, *features]`` to ``[pairs, *features]``, lazily (see :class:`Lifted`)."""
        return self._lift("rel", w, lazy=True)

    def graph(self, x: Tensor) -> Tensor:
        """Each pair's graph, of a batch: ``[num_graphs, *features]`` to ``[pairs, *features]``."""
        return self._lift("graph", x)

    def sum(self, x: Tensor, to: str | None = None) -> Tensor:
        """Sum of the pairs of each row of ``to``: ``[pairs, *features]`` to ``[rows, *features]``.

        Args:
            x: one row per pair.
            to: the pairs' endpoint (the default: ``"src"`` of ``g.src_rel``, ``"dst"`` of ``g.dst_rel``), ``"rel"``,
                ``"graph"``, or ``"one"`` for a single sum over all pairs, ``[*features]``.
        """
        return self._reduce("sum", x, to or self._end, self._targets)

    def mean(self, x: Tensor, to: str | None = None) -> Tensor:
        """Mean of the pairs of each row of ``to``; as :meth:`sum`, floating point only."""
        return self._reduce("mean", x, to or self._end, self._targets)

    def max(self, x: Tensor, to: str | None = None) -> Tensor:
        """Elementwise maximum; as :meth:`sum`. Ties share the gradient evenly."""
        return self._reduce("max", x, to or self._end, self._targets)

    def min(self, x: Tensor, to: str | None = None) -> Tensor:
        """Elementwise minimum; as :meth:`sum`. Ties share the gradient evenly."""
        return self._reduce("min", x, to or self._end, self._targets)

    @property
    def _targets(self) -> tuple[str, ...]:
        return (self._end, "rel", "graph", "one")

    def _lift_end(self, end: str, x: Tensor) -> Tensor:
        only_end(self._space, end)
        return self._lift(end, x)


def only_end(space: Space, end: str) -> None:
    """ValueError if pairs of ``space`` are of the other end and a relation."""
    own = space.value.removesuffix("_rel")
    if end != own:
        raise ValueError(
            f"{space}.{end}: a pair of a {_NOUNS[Space(own)]} and a relation has no single {_NOUNS[Space(end)]}; use "
            f"g.{end}_rel.{end}, or work on g.edges"
        )


class GraphView(View):
    """The graphs of a batch, ``g.graphs``; one that is no batch is one graph.

    >>> from columba.runtime.graphs.graph import Graph
    >>> g = Graph(torch.tensor([[0, 2], [1, 2]]), batch=torch.tensor([0, 0, 1]))
    >>> x = torch.tensor([1.0, 10.0, 100.0])
    >>> g.nodes.sum(x, to="graph"), g.nodes.graph(g.nodes.sum(x, to="graph")), g.graphs.sum(g.nodes.max(x, to="graph"))
    (tensor([ 11., 100.]), tensor([ 11.,  11., 100.]), tensor(110.))
    """

    _TARGETS = ("one",)

    def __init__(self, graph: GraphLike) -> None:
        super().__init__(graph, Space.GRAPH, "g.graphs")

    def sum(self, x: Tensor) -> Tensor:
        """Sum over all graphs: ``[num_graphs, *features]`` to ``[*features]``."""
        return self._reduce("sum", x, "one", self._TARGETS)

    def mean(self, x: Tensor) -> Tensor:
        """Mean over all graphs, 0 if there are none: ``[num_graphs, *features]`` to ``[*features]``."""
        return self._reduce("mean", x, "one", self._TARGETS)

    def max(self, x: Tensor) -> Tensor:
        """Elementwise maximum over all graphs, 0 if there are none. Ties share the gradient evenly."""
        return self._reduce("max", x, "one", self._TARGETS)

    def min(self, x: Tensor) -> Tensor:
        """Elementwise minimum over all graphs, 0 if there are none. Ties share the gradient evenly."""
        return self._reduce("min", x, "one", self._TARGETS)
