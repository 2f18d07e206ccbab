"""The layers as a good PyTorch programmer writes them for speed and memory on one graph.

Rows are sorted by relation beforehand, and each relation's are gathered into one small buffer, multiplied by its matrix straight into
the result (``mm(out=)``), and gathered anew in backward instead of saved. Weighted sums over a node's edges are ``embedding_bag``, the
fastest segment reduction that PyTorch has on a CPU; their gradients are ``embedding_bag`` over the transposed edges and
``sampled_addmm`` on them. Nothing of the size of edges times features exists but, in the plain version, the rows of the typed maps.
Attention heads are folded into the graph: node and row ids times the number of heads.

``plain`` applies the typed maps once per edge, ``compact`` once per distinct (endpoint, relation) pair. ``folded`` is compact, and RGAT's
scores are taken by the product of weights and attention vectors, which spares one of the two typed maps.
"""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from columba import Graph

BLOCK = 2**14
"""Most rows that are gathered at once: four megabytes of 64 features."""


class Rows:
    """Rows that carry a relation, sorted by it: the edges, or the distinct (endpoint, relation) pairs.

    ``blocks`` are ranges of rows, ``(start, stop, their nodes, relations, rows of each)``.
    """

    def __init__(self, node: Tensor, relation: Tensor, nodes: int) -> None:
        self.count = len(node)
        self.of_node = Bags(node, torch.arange(len(node)), nodes)
        self.blocks: list[tuple[int, int, Tensor, list[int], list[int]]] = []
        for block, kinds in zip(node.int().split(BLOCK), relation.split(BLOCK), strict=True):
            present, sizes = torch.unique_consecutive(kinds, return_counts=True)
            start = BLOCK * len(self.blocks)
            self.blocks.append((start, start + len(block), block, present.tolist(), sizes.tolist()))

    def buffer(self, like: Tensor, features: int) -> Tensor:
        return like.new_empty(min(self.count, BLOCK), features)


class TypedLinear(torch.autograd.Function):
    """``z[i] = x[node[i]] @ w[relation[i]]``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, rows: Rows) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.rows = rows
        z = x.new_empty(rows.count, w.shape[2])
        buffer = rows.buffer(x, w.shape[1])
        weights = w.unbind(0)
        for a, b, node, relations, sizes in rows.blocks:
            gathered = torch.index_select(x, 0, node, out=buffer[: b - a])
            for r, xr, zr in zip(relations, gathered.split(sizes), z[a:b].split(sizes), strict=True):
                torch.mm(xr, weights[r], out=zr)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gz: Tensor) -> tuple[Tensor, Tensor, None]:
        x, w = ctx.saved_tensors
        rows = ctx.rows
        gz = gz.contiguous()
        gx, gw = x.new_empty(rows.count, x.shape[1]), w.new_zeros(w.shape)
        buffer = rows.buffer(x, w.shape[1])
        weights, weight_gradients = w.transpose(1, 2).unbind(0), gw.unbind(0)
        for a, b, node, relations, sizes in rows.blocks:
            gathered = torch.index_select(x, 0, node, out=buffer[: b - a])
            parts = (gathered.split(sizes), gz[a:b].split(sizes), gx[a:b].split(sizes))
            for r, xr, gr, out in zip(relations, *parts, strict=True):
                weight_gradients[r].addmm_(xr.t(), gr)
                torch.mm(gr, weights[r], out=out)
        return rows.of_node.sum(gx), gw, None


class TypedScores(torch.autograd.Function):
    """``z`` as by :class:`TypedLinear`, and ``s[i] = z[i] @ a[relation[i]]``; ``z`` is not kept if only ``s`` is wanted."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, a: Tensor, rows: Rows, keep: bool) -> tuple[Tensor, Tensor | None]:
        z = x.new_empty(rows.count, w.shape[2]) if keep else rows.buffer(x, w.shape[2])
        s = x.new_empty(rows.count, a.shape[2])
        buffer = rows.buffer(x, w.shape[1])
        weights, vectors = w.unbind(0), a.unbind(0)
        for start, stop, node, relations, sizes in rows.blocks:
            n = stop - start
            gathered = torch.index_select(x, 0, node, out=buffer[:n])
            mapped = z[start:stop] if keep else z[:n]
            parts = (gathered.split(sizes), mapped.split(sizes), s[start:stop].split(sizes))
            for r, xr, zr, sr in zip(relations, *parts, strict=True):
                torch.mm(torch.mm(xr, weights[r], out=zr), vectors[r], out=sr)
        ctx.save_for_backward(x, w, a, *([z] if keep else []))
        ctx.rows = rows
        return s, z if keep else None

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gs: Tensor, gz: Tensor | None) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, w, a, *kept = ctx.saved_tensors
        rows = ctx.rows
        gs = gs.contiguous()
        gz = None if gz is None else gz.contiguous()
        gx, gw, ga = x.new_empty(rows.count, x.shape[1]), w.new_zeros(w.shape), a.new_zeros(a.shape)
        buffer = rows.buffer(x, w.shape[1])
        z_buffer, gz_buffer = rows.buffer(x, w.shape[2]), rows.buffer(x, w.shape[2])
        weights, transposed, vectors = w.unbind(0), w.transpose(1, 2).unbind(0), a.transpose(1, 2).unbind(0)
        gws, gas = gw.unbind(0), ga.unbind(0)
        for start, stop, node, relations, sizes in rows.blocks:
            n = stop - start
            gathered = torch.index_select(x, 0, node, out=buffer[:n])
            mapped = kept[0][start:stop] if kept else z_buffer[:n]
            from_z = gz_buffer[:n] if gz is None else gz[start:stop]
            parts = (gathered, mapped, gs[start:stop], from_z, gz_buffer[:n], gx[start:stop])
            for r, xr, zr, sr, fr, gr, out in zip(relations, *(p.split(sizes) for p in parts), strict=True):
                if not kept:
                    torch.mm(xr, weights[r], out=zr)
                gas[r].addmm_(zr.t(), sr)
                torch.mm(sr, vectors[r], out=gr) if gz is None else torch.addmm(fr, sr, vectors[r], out=gr)
                gws[r].addmm_(xr.t(), gr)
                torch.mm(gr, transposed[r], out=out)
        return rows.of_node.sum(gx), gw, ga, None, None


class Bags:
    """Edges sorted by owner: ``index[start[i]:start[i + 1]]`` are the members of owner ``i``; ``order`` brings edges there."""

    def __init__(self, owner: Tensor, member: Tensor, owners: int) -> None:
        self.order = torch.argsort(owner, stable=True)
        self.index = member[self.order].int()
        self.start = F.pad(torch.bincount(owner, minlength=owners).cumsum(0), (1, 0)).int()
        self.owner = owner[self.order].int()

    def sum(self, members: Tensor, weight: Tensor | None = None) -> Tensor:
        """``[owners, d]``: the weighted sum of each owner's rows of ``members [.., d]``; weights in this order."""
        return F.embedding_bag(
            self.index, members, self.start, mode="sum", per_sample_weights=weight, include_last_offset=True
        )


class Edges:
    """A bipartite graph from ``rows`` to ``nodes``, every head of both a vertex of its own, in both directions.

    Per-edge values are flat and sorted by destination (:attr:`into`).
    """

    def __init__(self, row: Tensor, node: Tensor, rows: int, nodes: int, heads: int = 1) -> None:
        head = torch.arange(heads)
        row, node = ((end.unsqueeze(-1) * heads + head).flatten() for end in (row, node))
        self.rows, self.nodes = rows * heads, nodes * heads
        first = Bags(row, node, self.rows)  # so that a node's edges are sorted by row
        self.into = Bags(node[first.order], row[first.order], self.nodes)
        self.edge = first.order[self.into.order] // heads
        """The edge that each value is of."""
        self.out_of = Bags(self.into.index.long(), self.into.owner.long(), self.rows)

    def products(self, at_nodes: Tensor, at_rows: Tensor) -> Tensor:
        """The dot product of both ends' vectors, for each edge."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sparse CSR is in beta
            pattern = torch.sparse_csr_tensor(
                self.into.start,
                self.into.index,
                _zeros(len(self.edge), at_rows.device),
                (self.nodes, self.rows),
                check_invariants=False,
            )
            return torch.sparse.sampled_addmm(pattern, at_nodes, at_rows.t(), beta=0.0).values()

    def sum_by_node(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.nodes).index_add_(0, self.into.owner, values)


@functools.lru_cache(1)
def _zeros(count: int, device: torch.device) -> Tensor:
    return torch.zeros(count, device=device)


class Aggregate(torch.autograd.Function):
    """``out[i] = sum of weight[e] * z[row e]`` over the edges ``e`` into node ``i``."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, z: Tensor, edges: Edges) -> Tensor:
        ctx.save_for_backward(weight, z)
        ctx.edges = edges
        return edges.into.sum(z, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weight, z = ctx.saved_tensors
        edges = ctx.edges
        g = g.contiguous()
        gw = edges.products(g, z) if ctx.needs_input_grad[0] else None
        gz = edges.out_of.sum(g, weight[edges.out_of.order]) if ctx.needs_input_grad[1] else None
        return gw, gz, None


class Products(torch.autograd.Function):
    """``out[e] = <q[node e], k[row e]>``."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, edges: Edges) -> Tensor:
        ctx.save_for_backward(q, k)
        ctx.edges = edges
        return edges.products(q, k)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        q, k = ctx.saved_tensors
        edges = ctx.edges
        return edges.into.sum(k, g), edges.out_of.sum(q, g[edges.out_of.order]), None


class Softmax(torch.autograd.Function):
    """Over the edges into each node, shifted by the largest score."""

    @staticmethod
    def forward(ctx: Any, score: Tensor, edges: Edges) -> Tensor:
        owner = edges.into.owner
        top = torch.segment_reduce(score, "max", offsets=edges.into.start)
        e = (score - top.index_select(0, owner)).exp_()
        alpha = e.div_(edges.sum_by_node(e).index_select(0, owner))
        ctx.save_for_backward(alpha)
        ctx.edges = edges
        return alpha

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (alpha,) = ctx.saved_tensors
        edges = ctx.edges
        weighted = alpha * g
        total = edges.sum_by_node(weighted).index_select(0, edges.into.owner)
        return weighted.sub_(total.mul_(alpha)), None


class Layout:
    """Where each edge finds its typed source row and its typed destination row."""

    def __init__(self, graph: Graph, *, compact: bool) -> None:
        order = torch.argsort(graph.edge_type, stable=True)
        self.src, self.dst = graph.edge_index[0][order], graph.edge_index[1][order]
        self.rel = graph.edge_type[order]
        self.nodes = graph.num_nodes
        self.compact = compact

    def rows(self, node: Tensor) -> tuple[Rows, Tensor]:
        """Rows for the typed maps of one end, and each edge's row."""
        if not self.compact:
            return Rows(node, self.rel, self.nodes), torch.arange(len(node))
        unique, inverse = torch.unique(self.rel * self.nodes + node, return_inverse=True)
        return Rows(unique % self.nodes, unique // self.nodes, self.nodes), inverse


def block_diagonal(w: Tensor) -> Tensor:
    """``[R, H, a, b]`` as ``[R, H * a, H * b]``: one matrix product maps all heads."""
    r, h, a, b = w.shape
    if h == 1:
        return w.view(r, a, b)
    return torch.einsum("rhab,hk->rhakb", w, torch.eye(h, device=w.device)).reshape(r, h * a, h * b)


class RGCN(nn.Module):
    def __init__(self, layer: nn.Module, graph: Graph, how: str) -> None:
        super().__init__()
        self.layer = layer
        at = Layout(graph, compact=how != "plain")
        self.rows, row = at.rows(at.src)
        self.edges = Edges(row, at.dst, self.rows.count, at.nodes)
        _, inverse, count = torch.unique(at.rel * at.nodes + at.dst, return_inverse=True, return_counts=True)
        self.norm = (1.0 / count[inverse].float())[self.edges.edge]

    def forward(self, x: Tensor) -> Tensor:
        p = self.layer
        z = TypedLinear.apply(x, p.weight, self.rows)
        return torch.addmm(p.bias, x, p.root).add_(Aggregate.apply(self.norm, z, self.edges))


class RGAT(nn.Module):
    def __init__(self, layer: nn.Module, graph: Graph, how: str) -> None:
        super().__init__()
        self.layer, self.folded = layer, how == "folded"
        at = Layout(graph, compact=how != "plain")
        self.src_rows, src_row = at.rows(at.src)
        self.dst_rows, dst_row = at.rows(at.dst)
        heads = layer.heads
        self.edges = Edges(src_row, at.dst, self.src_rows.count, at.nodes, heads)
        head = self.edges.into.owner % heads
        self.dst_value = dst_row[self.edges.edge].int() * heads + head

    def forward(self, x: Tensor) -> Tensor:
        p = self.layer
        heads, d = p.att_src.shape[1:]
        w = p.weight.flatten(2)
        att_src, att_dst = (block_diagonal(a.unsqueeze(-1)) for a in (p.att_src, p.att_dst))  # [R, H * d, H]
        at_src, z = TypedScores.apply(x, w, att_src, self.src_rows, True)
        if self.folded:
            at_dst = TypedLinear.apply(x, w @ att_dst, self.dst_rows)
        else:
            at_dst, _ = TypedScores.apply(x, w, att_dst, self.dst_rows, False)
        score = at_src.view(-1).index_select(0, self.edges.into.index) + at_dst.view(-1).index_select(0, self.dst_value)
        alpha = Softmax.apply(F.leaky_relu(score, p.negative_slope), self.edges)
        return Aggregate.apply(alpha, z.view(-1, d), self.edges).view(-1, heads * d) + p.bias


class HGT(nn.Module):
    def __init__(self, layer: nn.Module, graph: Graph, how: str) -> None:
        super().__init__()
        self.layer = layer
        at = Layout(graph, compact=how != "plain")
        self.rows, row = at.rows(at.src)
        self.edges = Edges(row, at.dst, self.rows.count, at.nodes, layer.heads)
        assert graph.node_type is not None
        if (graph.node_type.diff() < 0).any():
            raise ValueError("nodes have to be sorted by type")
        self.type_sizes = torch.bincount(graph.node_type, minlength=graph.num_node_types).tolist()
        self.node_type = graph.node_type

    def by_type(self, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        parts = zip(x.split(self.type_sizes), w.unbind(0), b.unbind(0), strict=True)
        return torch.cat([torch.addmm(*abc) for abc in ((bias, rows, weight) for rows, weight, bias in parts)])

    def forward(self, x: Tensor) -> Tensor:
        p = self.layer
        heads, d = p.heads, p.out_channels // p.heads
        weights = torch.cat([p.k_weight, p.q_weight, p.v_weight], -1)
        biases = torch.cat([p.k_bias, p.q_bias, p.v_bias], -1)
        k, q, v = self.by_type(x, weights, biases).chunk(3, -1)
        scale = p.prior / math.sqrt(d)
        key = TypedLinear.apply(k, block_diagonal(p.att * scale[..., None, None]), self.rows).view(-1, d)
        message = TypedLinear.apply(v, block_diagonal(p.msg), self.rows).view(-1, d)
        score = Products.apply(q.reshape(-1, d), key, self.edges)
        alpha = Softmax.apply(score, self.edges)
        h = Aggregate.apply(alpha, message, self.edges).view(-1, heads * d)
        out = self.by_type(F.gelu(h), p.out_weight, p.out_bias)
        gate = torch.sigmoid(p.skip)[self.node_type].unsqueeze(-1)
        return torch.lerp(x, out, gate)


LAYERS = {"rgcn": RGCN, "rgat": RGAT, "hgt": HGT}
