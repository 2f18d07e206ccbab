"""``RGATConv``: attention whose scores the relation of an edge decides.

A query is ``x W_r q``: both matrices are multiplied first, so that nothing of the size of a message is computed at destinations.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from columba.frontend.pyg.cases import (
    NotLowered,
    check_edges,
    check_floating,
    check_messages,
    is_plain,
    reduction,
)
from columba.runtime.eager.views import linear
from columba.runtime.graphs.from_tensors import as_graph


def rgat_conv(
    conv: Any,
    x: Any,
    edge_index: Any,
    edge_type: Any = None,
    edge_attr: Any = None,
    size: Any = None,
    return_attention_weights: Any = None,
) -> Any:
    check_messages(conv)
    kind = reduction(conv)
    check_edges(edge_index, edge_type)
    if size is not None:
        raise NotLowered("size is given")
    x_src, x_dst = x if isinstance(x, tuple) else (x, x)
    check_floating(x=x_src, x_i=x_dst)
    num_nodes = (x_src.shape[0], x_dst.shape[0]) if isinstance(x, tuple) else x_src.shape[0]
    g = as_graph(edge_index, edge_type, num_nodes=num_nodes, num_relations=conv.num_relations)
    e = g.edges
    weight = _weights(conv)
    query = linear(e.dst(x_dst), e.rel(_times(conv, weight, conv.q)))  # [E, heads * dim]
    key = linear(e.src(x_src), e.rel(_times(conv, weight, conv.k)))
    of_edges = None if edge_attr is None else _of_edges(conv, e, edge_attr)
    if conv.attention_mode == "additive-self-attention":
        score = query + key if of_edges is None else query + key + of_edges
        score = F.leaky_relu(score, conv.negative_slope)
    else:
        score = query * key if of_edges is None else query * key * of_edges
    alpha = attention = e.softmax(score, by="dst_rel" if conv.attention_mechanism == "within-relation" else "dst")
    value = _transformed(conv, e.src(x_src), e.rel(weight))  # [E, heads * out]
    message = _messages(conv, e, alpha, value)
    out = getattr(e, kind)(message)
    if conv.concat:
        out = out.flatten(1)
    else:
        out = out.mean(1).flatten(1)
    if conv.bias is not None:
        out = out + conv.bias
    return (out, (edge_index, attention)) if isinstance(return_attention_weights, bool) else out


def _weights(conv: Any) -> Tensor:
    """A matrix, or its blocks, for each relation."""
    if conv.num_bases is None:
        weight: Tensor = conv.weight
        return weight
    return (conv.att @ conv.basis.flatten(1)).view(conv.num_relations, *conv.basis.shape[1:])  # type: ignore[no-any-return]


def _times(conv: Any, weight: Tensor, matrix: Tensor) -> Tensor:
    """``[R, in, heads * dim]``: each relation's matrix times another one."""
    if conv.num_blocks is None:
        return weight @ matrix
    parts = matrix.view(conv.num_blocks, -1, matrix.shape[1])
    return torch.einsum("rbij,bjk->rbik", weight, parts).reshape(weight.shape[0], conv.in_channels, matrix.shape[1])


def _transformed(conv: Any, rows: Tensor, weight: Tensor) -> Tensor:
    """``rows [n, in]`` times one weight each: ``[n, heads * out]``."""
    if conv.num_blocks is None:
        return linear(rows, weight)
    blocks = rows.view(rows.shape[0], conv.num_blocks, conv.in_channels // conv.num_blocks)
    return torch.einsum("nbi,nbij->nbj", blocks, weight).flatten(1)


def _of_edges(conv: Any, e: Any, edge_attr: Tensor) -> Tensor:
    """``[E, heads * dim]``: what the features of an edge add to its scores."""
    rows = e(edge_attr.unsqueeze(-1) if edge_attr.dim() == 1 else edge_attr)
    if is_plain(conv.lin_edge):
        return rows @ (conv.lin_edge.weight.t() @ conv.e)  # type: ignore[no-any-return]
    return conv.lin_edge(rows) @ conv.e  # type: ignore[no-any-return]


def _messages(conv: Any, e: Any, alpha: Tensor, value: Tensor) -> Tensor:
    """``[E, heads, out]``, or ``[E, heads, dim, out]`` for multiplicative attention."""
    heads, out = conv.heads, conv.out_channels
    if conv.mod == "f-additive":
        alpha = torch.where(alpha > 0, alpha + 1, alpha)
    elif conv.mod == "f-scaled":
        alpha = alpha * e.degree("dst", alpha.dtype).unsqueeze(-1)
    elif conv.mod is None and conv.training and conv.dropout > 0:
        alpha = F.dropout(alpha, p=conv.dropout, training=True)
    if conv.attention_mode == "additive-self-attention":
        alpha, value = alpha.view(-1, heads, 1), value.view(-1, heads, out)
    else:
        alpha, value = alpha.view(-1, heads, conv.dim, 1), value.view(-1, heads, 1, out)
    message = alpha * value
    if conv.mod == "additive":
        return message + conv.w * value
    if conv.mod != "scaled":
        return message
    scale = conv.activation(e.degree("dst", message.dtype).unsqueeze(-1) * conv.l1 + conv.b1) @ conv.l2 + conv.b2
    return message * (scale.view(-1, 1, out) if message.dim() == 3 else scale.view(-1, 1, 1, out))
