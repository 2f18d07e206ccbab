"""Good hand-written PyTorch: edges sorted by relation beforehand, one ``mm`` a relation, ``index_add``.

``compact`` applies the typed linear maps once per distinct (source, relation) pair instead of once per edge.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from columba import Graph


class Rows:
    """Rows that carry a relation, sorted by it: the edges, or the distinct (endpoint, relation) pairs."""

    def __init__(self, node: Tensor, relation: Tensor, relations: int) -> None:
        self.node = node
        self.relation = relation
        counts = torch.bincount(relation, minlength=relations)
        ends = counts.cumsum(0).tolist()
        self.ranges = [(r, e - c, e) for r, (c, e) in enumerate(zip(counts.tolist(), ends, strict=True)) if c]

    def linear(self, x: Tensor, w: Tensor) -> Tensor:
        """Each row of ``x`` (already gathered) times its relation's matrix."""
        return torch.cat([x[a:b] @ w[r] for r, a, b in self.ranges])

    def headwise(self, x: Tensor, w: Tensor) -> Tensor:
        """``x [rows, H, d]`` times ``w [R, H, d, d]``."""
        parts = [torch.bmm(x[a:b].transpose(0, 1), w[r]).transpose(0, 1) for r, a, b in self.ranges]
        return torch.cat(parts)


class Layout:
    """Edges sorted by relation, and where each edge finds its typed source and destination rows."""

    def __init__(self, graph: Graph, *, compact: bool) -> None:
        order = torch.argsort(graph.edge_type, stable=True)
        self.src, self.dst = graph.edge_index[0][order], graph.edge_index[1][order]
        self.rel = graph.edge_type[order]
        self.nodes, self.relations = graph.num_nodes, graph.num_relations
        self.types = graph.node_type
        if compact:
            self.src_rows, self.src_of_edge = self._pairs(self.src)
            self.dst_rows, self.dst_of_edge = self._pairs(self.dst)
        else:
            self.src_rows = Rows(self.src, self.rel, self.relations)
            self.dst_rows = Rows(self.dst, self.rel, self.relations)
            self.src_of_edge = self.dst_of_edge = None
        key = self.rel * self.nodes + self.dst
        _, inverse, count = torch.unique(key, return_inverse=True, return_counts=True)
        self.norm = 1.0 / count[inverse].float()

    def _pairs(self, node: Tensor) -> tuple[Rows, Tensor]:
        unique, inverse = torch.unique(self.rel * self.nodes + node, return_inverse=True)
        return Rows(unique % self.nodes, unique // self.nodes, self.relations), inverse

    def src_edges(self, rows: Tensor) -> Tensor:
        return rows if self.src_of_edge is None else rows.index_select(0, self.src_of_edge)

    def dst_edges(self, rows: Tensor) -> Tensor:
        return rows if self.dst_of_edge is None else rows.index_select(0, self.dst_of_edge)

    def softmax(self, score: Tensor) -> Tensor:
        index = self.dst.unsqueeze(-1).expand_as(score)
        top = score.new_full((self.nodes, score.shape[1]), float("-inf")).scatter_reduce(
            0, index, score.detach(), "amax"
        )
        e = (score - top.index_select(0, self.dst)).exp()
        total = e.new_zeros(self.nodes, score.shape[1]).index_add(0, self.dst, e)
        return e / total.index_select(0, self.dst)

    def sum(self, messages: Tensor) -> Tensor:
        return messages.new_zeros(self.nodes, *messages.shape[1:]).index_add(0, self.dst, messages)

    def by_type(self, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        """A linear map of each node's type; node types are contiguous or few."""
        if w.shape[0] == 1:
            return torch.addmm(b[0], x, w[0])
        out = x.new_empty(x.shape[0], w.shape[-1])
        for t in range(w.shape[0]):
            rows = (self.types == t).nonzero().squeeze(1)
            out = out.index_copy(0, rows, torch.addmm(b[t], x[rows], w[t]))
        return out


class RGCN(nn.Module):
    def __init__(self, layer: nn.Module, graph: Graph, *, compact: bool) -> None:
        super().__init__()
        self.layer, self.at = layer, Layout(graph, compact=compact)

    def forward(self, x: Tensor) -> Tensor:
        at, p = self.at, self.layer
        z = at.src_rows.linear(x.index_select(0, at.src_rows.node), p.weight)
        return at.sum(at.src_edges(z) * at.norm.unsqueeze(-1)) + x @ p.root + p.bias


class RGAT(nn.Module):
    def __init__(self, layer: nn.Module, graph: Graph, *, compact: bool) -> None:
        super().__init__()
        self.layer, self.at = layer, Layout(graph, compact=compact)

    def forward(self, x: Tensor) -> Tensor:
        at, p = self.at, self.layer
        w = p.weight.flatten(2)
        heads, d = p.att_src.shape[1:]
        zs = at.src_rows.linear(x.index_select(0, at.src_rows.node), w).view(-1, heads, d)
        zd = at.dst_rows.linear(x.index_select(0, at.dst_rows.node), w).view(-1, heads, d)
        ss = (zs * p.att_src.index_select(0, at.src_rows.relation)).sum(-1)
        sd = (zd * p.att_dst.index_select(0, at.dst_rows.relation)).sum(-1)
        alpha = at.softmax(F.leaky_relu(at.src_edges(ss) + at.dst_edges(sd), p.negative_slope))
        out = at.sum(alpha.unsqueeze(-1) * at.src_edges(zs)).flatten(1)
        return out + p.bias


class HGT(nn.Module):
    def __init__(self, layer: nn.Module, graph: Graph, *, compact: bool) -> None:
        super().__init__()
        self.layer, self.at = layer, Layout(graph, compact=compact)

    def forward(self, x: Tensor) -> Tensor:
        at, p = self.at, self.layer
        heads, d = p.heads, p.out_channels // p.heads
        maps = ((p.k_weight, p.k_bias), (p.q_weight, p.q_bias), (p.v_weight, p.v_bias))
        k, q, v = (at.by_type(x, w, b).view(-1, heads, d) for w, b in maps)
        rows = at.src_rows
        key = at.src_edges(rows.headwise(k.index_select(0, rows.node), p.att))
        message = at.src_edges(rows.headwise(v.index_select(0, rows.node), p.msg))
        score = (q.index_select(0, at.dst) * key).sum(-1) * (p.prior.index_select(0, at.rel) / d**0.5)
        h = at.sum(at.softmax(score).unsqueeze(-1) * message).flatten(1)
        out = at.by_type(F.gelu(h), p.out_weight, p.out_bias)
        gate = torch.sigmoid(p.skip)[at.types].unsqueeze(-1)
        return gate * out + (1 - gate) * x


LAYERS = {"rgcn": RGCN, "rgat": RGAT, "hgt": HGT}
