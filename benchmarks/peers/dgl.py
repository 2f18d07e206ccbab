"""DGL's layers: ``RelGraphConv`` on sorted edges shares Columba's parameters. ``HeteroGraphConv`` of ``GATConv`` has a softmax for each
relation, and ``HGTConv`` neither biases nor gelu: the same sizes, other outputs.
"""

from __future__ import annotations

import torch  # before dgl

import dgl  # isort: skip
from dgl.nn.pytorch import GATConv, HeteroGraphConv, HGTConv, RelGraphConv
from torch import Tensor, nn

from benchmarks.cases import Case
from benchmarks.peers import Built
from benchmarks.typed_edges import TypedEdges
from columba import Graph


def build(case: Case, layer: nn.Module, graph: Graph) -> Built:
    match case.layer:
        case "rgcn":
            return _rgcn(layer, graph)
        case "rgat":
            return _rgat(layer, graph)
        case "hgt":
            return _hgt(layer, graph)
        case _:
            raise ValueError(f"DGL has no layer for {case.layer!r}")


def _sorted(graph: Graph) -> tuple[dgl.DGLGraph, Tensor]:
    order = torch.argsort(graph.edge_type, stable=True)
    src, dst = graph.edge_index[:, order]
    return dgl.graph((src, dst), num_nodes=graph.num_nodes), graph.edge_type[order]


def _rgcn(layer: nn.Module, graph: Graph) -> Built:
    g, types = _sorted(graph)
    conv = RelGraphConv(layer.in_channels, layer.out_channels, graph.num_relations)
    conv.linear_r.W, conv.loop_weight, conv.h_bias = layer.weight, layer.root, layer.bias
    _, inverse, count = torch.unique(types * graph.num_nodes + g.edges()[1], return_inverse=True, return_counts=True)
    norm = (1.0 / count[inverse].float()).unsqueeze(-1)
    return Built(lambda x: conv(g, x, types, norm, presorted=True), list(conv.parameters()))


def _rgat(layer: nn.Module, graph: Graph) -> Built:
    kinds = TypedEdges(graph)
    triples = [kinds.triple(r) for r in kinds.relations]
    sizes = dict(zip(kinds.names, kinds.sizes, strict=True))
    g = dgl.heterograph({t: tuple(e) for t, e in zip(triples, kinds.edges, strict=True)}, sizes)
    convs = {
        t[1]: GATConv(layer.in_channels, layer.out_channels, layer.heads, allow_zero_in_degree=True) for t in triples
    }
    conv = HeteroGraphConv(convs, aggregate="sum")

    def call(x: Tensor) -> Tensor:
        out = conv(g, dict(zip(kinds.names, x.split(kinds.sizes), strict=True)))
        empty = (layer.heads, layer.out_channels)
        return torch.cat([out[n] if n in out else x.new_zeros(sizes[n], *empty) for n in kinds.names]).flatten(1)

    return Built(call, list(conv.parameters()), comparable=False)


def _hgt(layer: nn.Module, graph: Graph) -> Built:
    g, types = _sorted(graph)
    size = layer.out_channels // layer.heads
    conv = HGTConv(layer.in_channels, size, layer.heads, graph.num_node_types, graph.num_relations)
    return Built(
        lambda x: conv(g, x, graph.node_type, types, presorted=True), list(conv.parameters()), comparable=False
    )
