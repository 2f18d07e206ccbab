"""PyG's layers. ``RGCNConv`` and ``FastRGCNConv`` share Columba's parameters and ``HGTConv`` gets copies, so that their outputs can be
compared. ``RGATConv`` has attention vectors that all relations share: the same sizes, other outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn import FastRGCNConv, HGTConv, RGATConv, RGCNConv

from benchmarks.cases import Case
from benchmarks.peers import Built
from benchmarks.typed_edges import TypedEdges
from columba import Graph


def build(case: Case, layer: nn.Module, graph: Graph, *, fast: bool) -> Built:
    match case.layer:
        case "rgcn":
            return _rgcn(layer, graph, FastRGCNConv if fast else RGCNConv)
        case "rgat":
            return _rgat(layer, graph)
        case "hgt":
            return _hgt(layer, graph)
        case _:
            raise ValueError(f"PyG has no layer for {case.layer!r}")


def _sorted(graph: Graph) -> tuple[Tensor, Tensor]:
    order = torch.argsort(graph.edge_type, stable=True)
    return graph.edge_index[:, order], graph.edge_type[order]


def _rgcn(layer: nn.Module, graph: Graph, cls: type[RGCNConv]) -> Built:
    conv = cls(layer.in_channels, layer.out_channels, graph.num_relations, aggr="mean", is_sorted=True)
    conv.weight, conv.root, conv.bias = layer.weight, layer.root, layer.bias
    edge_index, edge_type = _sorted(graph)
    return Built(lambda x: conv(x, edge_index, edge_type), list(conv.parameters()))


def _rgat(layer: nn.Module, graph: Graph) -> Built:
    conv = RGATConv(layer.in_channels, layer.out_channels, graph.num_relations, heads=layer.heads)
    edge_index, edge_type = _sorted(graph)
    return Built(lambda x: conv(x, edge_index, edge_type), list(conv.parameters()), comparable=False)


def _hgt(layer: nn.Module, graph: Graph) -> Built:
    kinds = TypedEdges(graph)
    triples = [kinds.triple(r) for r in kinds.relations]
    conv = HGTConv(layer.in_channels, layer.out_channels, (list(kinds.names), triples), heads=layer.heads)
    with torch.no_grad():
        for t, name in enumerate(kinds.names):
            lin, out = conv.kqv_lin.lins[name], conv.out_lin.lins[name]
            lin.weight.copy_(torch.cat([w[t] for w in (layer.k_weight, layer.q_weight, layer.v_weight)], 1).t())
            lin.bias.copy_(torch.cat([b[t] for b in (layer.k_bias, layer.q_bias, layer.v_bias)]))
            out.weight.copy_(layer.out_weight[t].t())
            out.bias.copy_(layer.out_bias[t])
            conv.skip[name].fill_(layer.skip[t])
        for ours, theirs in ((layer.att, conv.k_rel), (layer.msg, conv.v_rel)):
            theirs.weight.copy_(ours[kinds.relations].transpose(0, 1).flatten(0, 1))
        for r, triple in zip(kinds.relations, triples, strict=True):
            conv.p_rel["__".join(triple)].copy_(layer.prior[r].unsqueeze(0))
    edges = dict(zip(triples, kinds.edges, strict=True))
    reached = {triple[-1] for triple in triples}

    def call(x: Tensor) -> Tensor:
        out = conv(dict(zip(kinds.names, x.split(kinds.sizes), strict=True)), edges)
        return torch.cat(
            [
                out.get(name, x.new_zeros(n, layer.out_channels))
                for name, n in zip(kinds.names, kinds.sizes, strict=True)
            ]
        )

    return Built(call, list(conv.parameters()), comparable=reached == set(kinds.names))
