"""``HGTConv``: attention across all edge types, on one graph of all node types.

Whose weights are whose is a matter of names: relation r is the r-th edge type of the layer's metadata, in whatever order
``edge_index_dict`` comes. (PyG takes weights by position where the two orders differ, so that its results then depend on the order.)
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from columba.frontend.pyg.cases import NotLowered, check_edges, check_messages, reduction
from columba.runtime.graphs.from_tensors import typed_graph


def hgt_conv(conv: Any, x_dict: dict[Any, Tensor], edge_index_dict: dict[Any, Any]) -> dict[Any, Tensor]:
    check_messages(conv)
    if reduction(conv) != "sum":
        raise NotLowered(f"aggr={conv.aggr!r}")
    edge_types = [tuple(name) for name in conv.edge_types]
    _check_edges(edge_types, x_dict, edge_index_dict)
    heads, size = conv.heads, conv.out_channels // conv.heads
    tables = conv.kqv_lin(x_dict)  # by PyTorch: types have features of their own
    g = typed_graph(edge_index_dict, {kind: x.shape[0] for kind, x in tables.items()}, relations=edge_types)
    e = g.edges
    joined = g.cat_nodes(tables)
    k, q, v = (part.view(-1, heads, size) for part in joined.split(conv.out_channels, dim=1))
    key = torch.einsum("ehi,ehij->ehj", e.src(k), e.rel(_of_relations(conv, conv.k_rel.weight)))
    message = torch.einsum("ehi,ehij->ehj", e.src(v), e.rel(_of_relations(conv, conv.v_rel.weight)))
    priors = zip(edge_types, _parameters(conv.p_rel, ["__".join(name) for name in edge_types]), strict=True)
    # One of edges that the call lacks has no gradient, as in PyG: one of zeros would be an optimizer's.
    prior = torch.cat([p if name in edge_index_dict else p.detach() for name, p in priors])  # [R, heads]
    score = (key * e.dst(q)).sum(-1) * e.rel(prior) / math.sqrt(size)
    alpha = e.softmax(score)
    hidden = F.gelu(e.sum(alpha.unsqueeze(-1) * message).flatten(1))
    parts = g.split_nodes(hidden)
    reached = {name[-1] for name in edge_types}
    mapped = conv.out_lin({kind: parts[kind] for kind in tables if kind in reached})
    gates = dict(zip(conv.node_types, _parameters(conv.skip, conv.node_types), strict=True))
    return {kind: _skipped(gates[kind], out, x_dict[kind]) for kind, out in mapped.items()}


def _check_edges(edge_types: list[Any], x_dict: dict[Any, Tensor], edge_index_dict: dict[Any, Any]) -> None:
    if not edge_index_dict:
        raise NotLowered("there is no edge type")
    for name, edges in edge_index_dict.items():
        if name not in edge_types or name[0] not in x_dict or name[-1] not in x_dict:
            raise NotLowered(f"the edge type {name} is not of the layer, or lacks nodes")
        check_edges(edges)


def _of_relations(conv: Any, weight: Tensor) -> Tensor:
    """``[R, heads, d, d]``, of a table that has all relations of one head after each other."""
    return weight.view(conv.heads, -1, *weight.shape[1:]).transpose(0, 1)


def _parameters(table: Any, names: list[Any]) -> list[Tensor]:
    """Those of a PyG dictionary with these names. Looking up goes through much of PyG's that a trace would depend on."""
    plain = dict(table.named_parameters())
    return [plain[name] if name in plain else table[name] for name in names]


def _skipped(skip: Tensor, out: Tensor, x: Tensor) -> Tensor:
    """Mixed with what a node had before, where that has as many features."""
    if out.shape[-1] != x.shape[-1]:
        return out
    gate = skip.sigmoid()
    return gate * out + (1 - gate) * x
