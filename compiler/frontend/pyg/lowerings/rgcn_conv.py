"""``RGCNConv`` and ``FastRGCNConv``: a mean (or another reduction) for each relation, and the sum of those.

Of ``RGCNConv`` it is the loop over relations that is lowered. (With ``pyg_lib`` PyG may reduce over all relations at once, which for
``aggr="mean"`` and ``"max"`` is another function.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from columba.frontend.pyg.cases import NotLowered, check_edges, check_messages, reduction
from columba.runtime.eager.views import linear
from columba.runtime.graphs.from_tensors import as_graph


def rgcn_conv(conv: Any, x: Any, edge_index: Any, edge_type: Any = None) -> Tensor:
    out = _relational(conv, x, edge_index, edge_type, reduction(conv))
    # PyG adds up in a tensor of the default dtype, so that a result of fewer bits is of that one.
    return out.to(torch.promote_types(out.dtype, torch.get_default_dtype()))


def fast_rgcn_conv(conv: Any, x: Any, edge_index: Any, edge_type: Any = None) -> Tensor:
    kind = reduction(conv)
    if kind not in ("sum", "mean"):
        raise NotLowered(f"aggr={conv.aggr!r}")
    source = x[0] if isinstance(x, tuple) else x
    if source is not None and not source.is_floating_point():
        raise NotLowered("ids as features, in whose place FastRGCNConv takes the positions of nodes")
    return _relational(conv, x, edge_index, edge_type, kind)


def _relational(conv: Any, x: Any, edge_index: Any, edge_type: Any, kind: str) -> Tensor:
    check_messages(conv)
    check_edges(edge_index, edge_type)
    x_src, x_dst = x if isinstance(x, tuple) else (x, x)
    has_features = x_src is not None and x_src.is_floating_point()
    if isinstance(x, tuple) and (x_dst is None or x_dst.is_floating_point() != has_features):
        raise NotLowered("one of x is features, and the other is ids")
    if not has_features and conv.num_blocks is not None:
        raise NotLowered("num_blocks without features")
    num_src, num_dst = (conv.in_channels_l if end is None else end.shape[0] for end in (x_src, x_dst))
    num_nodes = (num_src, num_dst) if isinstance(x, tuple) else num_src
    g = as_graph(edge_index, edge_type, num_nodes=num_nodes, num_relations=conv.num_relations)
    e, pairs = g.edges, g.dst_rel
    if has_features and kind in ("max", "min"):  # of the features, before the weights
        rows = getattr(e, kind)(e.src(x_src), to="dst_rel")
        out = pairs.sum(_transformed(conv, rows, pairs.rel(_weights(conv))))
    else:
        message = (
            _transformed(conv, e.src(x_src), e.rel(_weights(conv)))
            if has_features
            else _embedded(conv, e, x_src, edge_index, edge_type)
        )
        out = e.sum(message) if kind == "sum" else pairs.sum(getattr(e, kind)(message, to="dst_rel"))
    if conv.root is not None:
        out = out + (conv.root if x_dst is None else x_dst @ conv.root if has_features else conv.root[x_dst])
    return out if conv.bias is None else out + conv.bias


def _weights(conv: Any) -> Tensor:
    """A matrix, or its blocks, for each relation."""
    if conv.num_bases is None:
        weight: Tensor = conv.weight
        return weight
    combined = conv.comp @ conv.weight.flatten(1)
    return combined.view(conv.num_relations, conv.in_channels_l, conv.out_channels)  # type: ignore[no-any-return]


def _transformed(conv: Any, rows: Tensor, weight: Tensor) -> Tensor:
    """``rows [n, in]`` times one weight each: ``[n, out]``."""
    if conv.num_blocks is None:
        return linear(rows, weight)
    blocks = rows.view(rows.shape[0], conv.num_blocks, conv.in_channels_l // conv.num_blocks)
    return torch.einsum("nbi,nbij->nbj", blocks, weight).reshape(rows.shape[0], conv.out_channels)


def _embedded(conv: Any, e: Any, ids: Tensor | None, edge_index: Tensor, edge_type: Tensor) -> Tensor:
    """``[E, out]``: of each edge's relation, the row that its source's id says."""
    if conv.num_bases is not None:
        table = conv.weight.transpose(0, 1)  # [in, bases, out]: of each id, a row of every basis
        table = table if ids is None else table[ids]
        return torch.einsum("ebo,eb->eo", e.src(table), e.rel(conv.comp))
    source = edge_index[0] if ids is None else ids[edge_index[0]]
    rows = conv.weight.view(-1, conv.out_channels)[edge_type * conv.weight.shape[1] + source]
    return e(rows)  # type: ignore[no-any-return]
