"""``HANConv``: attention along each meta-path, which is a graph of its own, and attention among the meta-paths of a node type."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from columba.frontend.pyg.cases import NotLowered, check_edges, check_messages, reduction
from columba.runtime.graphs.from_tensors import as_graph


def han_conv(
    conv: Any,
    x_dict: dict[Any, Tensor],
    edge_index_dict: dict[Any, Any],
    return_semantic_attention_weights: bool = False,
) -> Any:
    check_messages(conv)
    if reduction(conv) != "sum":
        raise NotLowered(f"aggr={conv.aggr!r}")
    for name, edges in edge_index_dict.items():
        if "__".join(name) not in conv.lin_src or name[0] not in x_dict or name[-1] not in x_dict:
            raise NotLowered(f"the edge type {name} is not of the layer, or lacks nodes")
        check_edges(edges)
    heads, size = conv.heads, conv.out_channels // conv.heads
    mapped = {kind: conv.proj[kind](x).view(-1, heads, size) for kind, x in x_dict.items()}
    paths: dict[Any, list[tuple[Tensor, Tensor]]] = {kind: [] for kind in mapped}
    for name, edges in edge_index_dict.items():
        paths[name[-1]].append(
            _along(conv, "__".join(name), mapped[name[0]], mapped[name[-1]], name[0] == name[-1], edges)
        )
    joined = {kind: _joined(found) for kind, found in paths.items()}
    out = {kind: found for kind, (found, _) in joined.items()}
    if not return_semantic_attention_weights:
        return out
    return out, {kind: None if mapped[kind].shape[0] == 0 else attention for kind, (_, attention) in joined.items()}


def _along(
    conv: Any, name: str, x_src: Tensor, x_dst: Tensor, is_square: bool, edge_index: Tensor
) -> tuple[Tensor, Tensor]:
    """What arrives along a meta-path, and how much the destinations as a whole attend to it."""
    g = as_graph(edge_index, num_nodes=x_src.shape[0] if is_square else (x_src.shape[0], x_dst.shape[0]))
    e, n = g.edges, g.nodes if is_square else g.dst_nodes
    score = e.src((x_src * conv.lin_src[name]).sum(-1)) + e.dst((x_dst * conv.lin_dst[name]).sum(-1))
    alpha = e.softmax(F.leaky_relu(score, conv.negative_slope))
    alpha = F.dropout(alpha, p=conv.dropout, training=conv.training)
    out = torch.relu(e.sum(alpha.unsqueeze(-1) * e.src(x_src)).flatten(1))
    attended = (conv.q * n.mean(torch.tanh(conv.k_lin(out)))).sum(-1)  # [1]
    return out, attended


def _joined(paths: list[tuple[Tensor, Tensor]]) -> tuple[Tensor | None, Tensor | None]:
    """The sum of what has arrived, weighted, and the weights: of no meta-path, nothing."""
    if not paths:
        return None, None
    attention = F.softmax(torch.cat([attended for _, attended in paths]), dim=0)
    parts = [attention[n] * out for n, (out, _) in enumerate(paths)]
    return sum(parts[1:], parts[0]), attention
