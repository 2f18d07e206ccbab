"""``FiLMConv``: what each neighbour sends is scaled and shifted by what the destination says, relation by relation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from columba.frontend.pyg.cases import check_edges, check_floating, check_messages, is_plain, reduction
from columba.runtime.eager.views import linear
from columba.runtime.graphs.from_tensors import as_graph


def film_conv(conv: Any, x: Any, edge_index: Any, edge_type: Any = None) -> Tensor:
    check_messages(conv)
    kind = reduction(conv)
    x_src, x_dst = x if isinstance(x, tuple) else (x, x)
    check_floating(x=x_src, x_i=x_dst)
    types = (edge_type,) if conv.num_relations > 1 else ()
    check_edges(edge_index, *types)
    relations = range(conv.num_relations)
    lins, films = [conv.lins[n] for n in relations], [conv.films[n] for n in relations]
    out = _activated(conv, *_shift_and_scale(conv, conv.film_skip(x_dst)), conv.lin_skip(x_dst))
    num_nodes = (x_src.shape[0], x_dst.shape[0]) if isinstance(x, tuple) else x_src.shape[0]
    g = as_graph(edge_index, *types, num_nodes=num_nodes, num_relations=conv.num_relations)
    e, pairs = g.edges, g.dst_rel
    if all(map(is_plain, lins)):
        value = linear(e.src(x_src), e.rel(torch.stack([lin.weight.t() for lin in lins])))
    else:
        value = e.src_rel(_of_each(conv, g.src_rel, g.src_rel.src, [lin(x_src) for lin in lins]))
    if all(map(is_plain, films)):
        film = linear(pairs.dst(x_dst), pairs.rel(torch.stack([one.weight.t() for one in films])))
        if films[0].bias is not None:
            film = film + pairs.rel(torch.stack([one.bias for one in films]))
    else:
        film = _of_each(conv, pairs, pairs.dst, [one(x_dst) for one in films])
    film = e.dst_rel(film)
    message = _activated(conv, *_shift_and_scale(conv, film), value)
    return out + (e.sum(message) if kind == "sum" else pairs.sum(getattr(e, kind)(message, to="dst_rel")))


def _shift_and_scale(conv: Any, film: Tensor) -> tuple[Tensor, Tensor]:
    beta, gamma = film.split(conv.out_channels, dim=-1)
    return beta, gamma


def _activated(conv: Any, beta: Tensor, gamma: Tensor, value: Tensor) -> Tensor:
    found = gamma * value + beta
    return found if conv.act is None else conv.act(found)


def _of_each(conv: Any, pairs: Any, lift: Any, tables: list[Tensor]) -> Tensor:
    """For each pair, its node's row in the table of its relation: what the layer's networks, of whatever kind, make of all nodes."""
    rows = lift(torch.cat(tables, dim=-1)).view(-1, len(tables), tables[0].shape[-1])
    is_of = torch.eye(len(tables), dtype=torch.bool, device=conv.lin_skip.weight.device)
    return torch.where(pairs.rel(is_of).unsqueeze(-1), rows, 0).sum(1)
