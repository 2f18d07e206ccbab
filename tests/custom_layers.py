"""Layers that people might write in the language; none of them resembles a layer that Columba ships.

``CUSTOM_LAYERS`` lists them with what a test needs: ``custom.build(num_relations, num_node_types)`` gives a module,
``custom.inputs(graph, dtype)`` the tensors to call it with, ``module(graph, *inputs)``. All sizes are small and odd.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from columba.runtime.eager.views import linear
from columba.runtime.graphs.graph import Graph


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) / math.sqrt(shape[-2] if len(shape) > 1 else 1))


class GatedRelationalConv(nn.Module):
    """Messages gated, feature by feature, by both ends and an edge feature; a gated update of the nodes."""

    def __init__(self, size: int, edge_size: int, num_relations: int) -> None:
        super().__init__()
        self.weight = _parameter(num_relations, size, size)
        self.gate_src = _parameter(size, size)
        self.gate_dst = _parameter(size, size)
        self.gate_bias = _parameter(num_relations, size)
        self.edge = nn.Linear(edge_size, size)
        self.update = nn.Linear(2 * size, size)
        self.candidate = nn.Linear(2 * size, size)

    def forward(self, g: Graph, h: Tensor, f: Tensor) -> dict[str, Tensor]:
        e = g.edges
        gate = torch.sigmoid(e.src(h @ self.gate_src) + e.dst(h @ self.gate_dst) + self.edge(f) + e.rel(self.gate_bias))
        message = gate * linear(e.src(h), e.rel(self.weight))
        m = e.sum(message) / (e.sum(gate) + 1e-6)
        both = torch.cat([h, m], dim=-1)
        z = torch.sigmoid(self.update(both))
        return {"nodes": (1 - z) * h + z * torch.tanh(self.candidate(both)), "gates": gate}


class CompositionConv(nn.Module):
    """Messages are products with an embedding of the relation, both ways along each edge; relations are updated."""

    def __init__(self, size: int, out: int) -> None:
        super().__init__()
        self.w_in = _parameter(size, out)
        self.w_out = _parameter(size, out)
        self.w_loop = _parameter(size, out)
        self.w_rel = _parameter(size, out)
        self.loop = _parameter(size)

    def forward(self, g: Graph, h: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        e = g.edges
        norm = 1 / e.degree("dst", dtype=h.dtype).unsqueeze(-1)
        inwards = e.sum((e.src(h) * e.rel(z) * norm) @ self.w_in)
        outwards = e.sum(linear(e.dst(h) * e.rel(z), self.w_out), to="src")
        return torch.tanh(inwards + outwards + (h * self.loop) @ self.w_loop) / 3, z @ self.w_rel


class TwoHops(nn.Module):
    """Two propagations in one function, the first a normalized maximum, with dropout; all hops are concatenated."""

    def __init__(self, size: int, hidden: int, num_relations: int, p: float = 0.0) -> None:
        super().__init__()
        self.weight = _parameter(num_relations, size, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(size + 2 * hidden, size, bias=False)
        self.p = p

    def forward(self, g: Graph, h: Tensor) -> Tensor:
        e = g.edges
        one = self.norm(e.max(linear(e.src(h), e.rel(self.weight))))
        one = F.dropout(F.elu(one), self.p, self.training)
        two = e.mean(e.src(one) - 0.5 * e.dst(one))
        return self.out(torch.cat([h, one, two[:, : one.shape[-1]]], dim=1))


class SourceAttention(nn.Module):
    """Each source spreads itself over its outgoing edges: attention normalized by source, with a bias per edge."""

    def __init__(self, size: int, heads: int, num_relations: int) -> None:
        super().__init__()
        self.query = _parameter(size, heads * size)
        self.key = _parameter(num_relations, size, heads, size)
        self.scale = _parameter(num_relations, heads)
        self.heads = heads
        self.size = size

    def forward(self, g: Graph, h: Tensor, bias: Tensor) -> Tensor:
        e = g.edges
        q = (h @ self.query).view(h.shape[0], self.heads, self.size)
        k = linear(e.dst(h), e.rel(self.key))
        score = torch.einsum("ehd,ehd->eh", e.src(q), k) * e.rel(self.scale) + e(bias).unsqueeze(-1)
        score = torch.where(score > 0, score, 0.1 * score)
        alpha = e.softmax(score, by="src")
        return e.sum(alpha.unsqueeze(-1) * e.src(q)).reshape(h.shape[0], self.heads * self.size)


class RelationPooling(nn.Module):
    """Relations summarize their edges and scale them by it; pairs are combined by their minimum; a graph readout."""

    def __init__(self, size: int, num_node_types: int) -> None:
        super().__init__()
        self.summary = nn.Linear(size, size)
        self.typed = _parameter(num_node_types, size, size)
        self.typed_bias = _parameter(num_node_types, size)

    def forward(self, g: Graph, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        e, n, pairs = g.edges, g.nodes, g.dst_rel
        y = linear(h, n.type(self.typed)) + n.type(self.typed_bias)
        summary = torch.sigmoid(self.summary(e.mean(e.src(y), to="rel")))
        message = e.src(y) * e.rel(summary)
        out = pairs.sum(pairs.rel(summary) * e.min(message, to="dst_rel")) + h
        return out, n.max(out), e.sum(e.src(h) * e.dst(h), to="one")


class GraphReadout(nn.Module):
    """Nodes centred in their graph, an attention readout of each graph of a batch, which scales messages; the best graph."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.map = nn.Linear(size, size)
        self.score = nn.Linear(size, 1)
        self.back = nn.Linear(size, size)

    def forward(self, g: Graph, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        e, n = g.edges, g.nodes
        centred = h - n.graph(n.mean(h, to="graph"))
        m = torch.sigmoid(self.map(e.sum(e.src(centred)))) + h
        pooled = n.sum(n.softmax(self.score(m)) * m, to="graph")
        products = e.mean(e.src(m) * e.dst(m) * e.graph(pooled), to="graph")
        out = e.sum(e.src(m) * e.graph(torch.tanh(self.back(pooled)))) / n.degree("graph", m.dtype).unsqueeze(-1)
        return out, torch.cat([pooled, n.max(m, to="graph"), products], -1), g.graphs.max(pooled)


@dataclass(frozen=True)
class CustomLayer:
    """A layer and what to call it with."""

    name: str
    build: Callable[[int, int], nn.Module]
    inputs: Callable[[Graph, torch.dtype], tuple[Tensor, ...]]


def _rows(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, dtype=dtype)


CUSTOM_LAYERS = (
    CustomLayer(
        "gated",
        lambda relations, types: GatedRelationalConv(5, 3, relations),
        lambda g, dtype: (_rows(g.num_nodes, 5, dtype=dtype), _rows(g.num_edges, 3, dtype=dtype)),
    ),
    CustomLayer(
        "composition",
        lambda relations, types: CompositionConv(5, 3),
        lambda g, dtype: (_rows(g.num_nodes, 5, dtype=dtype), _rows(g.num_relations, 5, dtype=dtype)),
    ),
    CustomLayer(
        "two_hops",
        lambda relations, types: TwoHops(5, 3, relations),
        lambda g, dtype: (_rows(g.num_nodes, 5, dtype=dtype),),
    ),
    CustomLayer(
        "source_attention",
        lambda relations, types: SourceAttention(3, 2, relations),
        lambda g, dtype: (_rows(g.num_nodes, 3, dtype=dtype), _rows(g.num_edges, dtype=dtype)),
    ),
    CustomLayer(
        "relation_pooling",
        lambda relations, types: RelationPooling(3, types),
        lambda g, dtype: (_rows(g.num_nodes, 3, dtype=dtype),),
    ),
    CustomLayer(
        "graph_readout",
        lambda relations, types: GraphReadout(3),
        lambda g, dtype: (_rows(g.num_nodes, 3, dtype=dtype),),
    ),
)
