"""The shipped layers and those that users might write, run eagerly, against loops over edges and against PyTorch Geometric."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from custom_layers import (
    CUSTOM_LAYERS,
    CompositionConv,
    CustomLayer,
    GatedRelationalConv,
    GraphReadout,
    RelationPooling,
    SourceAttention,
    TwoHops,
)
from eager_graphs import NODE_TYPES, RELATIONS, bipartite_graph, square_graphs
from torch import Tensor, nn

from columba.nn import HGTConv, RGATConv, RGCNConv
from columba.runtime.graphs.graph import Graph

GRAPHS = {**square_graphs(), "bipartite": bipartite_graph()}


def edges_of(graph: Graph) -> list[tuple[int, int, int]]:
    """(source, relation, destination) of every edge."""
    src, dst = graph.edge_index.tolist()
    return list(zip(src, graph.edge_type.tolist(), dst, strict=True))


def stacked(rows: Sequence[Tensor], *features: int) -> Tensor:
    return torch.stack(list(rows)) if rows else torch.zeros(0, *features, dtype=torch.float64)


def randomize(module: nn.Module) -> None:
    """Float64, and no parameter left at a value (zero, one) that hides its role."""
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()


def features(graph: Graph, size: int) -> tuple[Any, Tensor, Tensor]:
    """What to call a layer with, and the features of sources and of destinations."""
    x_src = torch.randn(graph.num_src, size, dtype=torch.float64, requires_grad=True)
    if graph.is_square:
        return x_src, x_src, x_src
    x_dst = torch.randn(graph.num_dst, size, dtype=torch.float64, requires_grad=True)
    return (x_src, x_dst), x_src, x_dst


def same_with_gradients(got: Tensor, expected: Tensor, inputs: Sequence[Tensor]) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    weight = torch.randn_like(expected)
    grads = [
        torch.autograd.grad(
            (out * weight).sum() + sum((0 * i).sum() for i in inputs), inputs, allow_unused=True, retain_graph=True
        )
        for out in (got, expected)
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


# ---- the shipped layers ----------------------------------------------------------------------------------------


def rgcn_by_hand(conv: RGCNConv, graph: Graph, x_src: Tensor, x_dst: Tensor) -> Tensor:
    weights = conv.weight
    if conv.num_bases is not None:
        weights = torch.einsum("rb,bio->rio", conv.comp, conv.weight)
    if conv.num_blocks is not None:
        weights = torch.stack([torch.block_diag(*blocks) for blocks in conv.weight])
    rows = []
    for i in range(graph.num_dst):
        row = conv.bias + x_dst[i] @ conv.root
        for r in range(RELATIONS):
            neighbours = [x_src[s] for s, rel, d in edges_of(graph) if (rel, d) == (r, i)]
            if not neighbours:
                continue
            if conv.aggr == "max":
                row = row + torch.stack(neighbours).amax(0) @ weights[r]
            else:
                row = row + sum(neighbours) @ weights[r] / (len(neighbours) if conv.aggr == "mean" else 1)
        rows.append(row)
    return stacked(rows, conv.out_channels)


def rgat_by_hand(conv: RGATConv, graph: Graph, x_src: Tensor, x_dst: Tensor) -> Tensor:
    rows = []
    for i in range(graph.num_dst):
        incoming = [(s, r) for s, r, d in edges_of(graph) if d == i]
        messages = [torch.einsum("i,iho->ho", x_src[s], conv.weight[r]) for s, r in incoming]
        scores = []
        for (_, r), z in zip(incoming, messages, strict=True):
            z_dst = torch.einsum("i,iho->ho", x_dst[i], conv.weight[r])
            score = (conv.att_src[r] * z).sum(-1) + (conv.att_dst[r] * z_dst).sum(-1)
            scores.append(torch.where(score > 0, score, conv.negative_slope * score))
        row = torch.zeros(conv.heads, conv.out_channels, dtype=x_src.dtype)
        if incoming:
            row = (torch.stack(scores).softmax(0).unsqueeze(-1) * torch.stack(messages)).sum(0)
        rows.append((row.flatten() if conv.concat else row.mean(0)) + conv.bias)
    return stacked(rows, conv.bias.shape[0])


def hgt_by_hand(conv: HGTConv, graph: Graph, x_src: Tensor, x_dst: Tensor) -> Tensor:
    types = (graph.node_type, graph.node_type) if graph.is_square else graph.node_type
    d = conv.out_channels // conv.heads

    def typed(x: Tensor, node_type: int, name: str) -> Tensor:
        return x @ getattr(conv, f"{name}_weight")[node_type] + getattr(conv, f"{name}_bias")[node_type]

    rows = []
    for i in range(graph.num_dst):
        tau = int(types[1][i])
        q = typed(x_dst[i], tau, "q").view(conv.heads, d)
        scores, messages = [], []
        for s, r, dst in edges_of(graph):
            if dst != i:
                continue
            k, v = (typed(x_src[s], int(types[0][s]), name).view(conv.heads, d) for name in ("k", "v"))
            heads = range(conv.heads)
            scores.append(torch.stack([k[h] @ conv.att[r, h] @ q[h] * conv.prior[r, h] / math.sqrt(d) for h in heads]))
            messages.append(torch.stack([v[h] @ conv.msg[r, h] for h in heads]))
        h = torch.zeros(conv.heads, d, dtype=x_src.dtype)
        if scores:
            h = (torch.stack(scores).softmax(0).unsqueeze(-1) * torch.stack(messages)).sum(0)
        out = typed(F.gelu(h.flatten()), tau, "out")
        if conv.skip is not None:
            gate = torch.sigmoid(conv.skip[tau])
            out = gate * out + (1 - gate) * x_dst[i]
        rows.append(out)
    return stacked(rows, conv.out_channels)


def rgcn(**options: Any) -> Callable[[], RGCNConv]:
    return lambda: RGCNConv(4, 6, RELATIONS, **options)


LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[..., Tensor]]] = {
    **{f"rgcn_{aggr}": (rgcn(aggr=aggr), rgcn_by_hand) for aggr in ("mean", "sum", "add", "max")},
    **{f"rgcn_bases_{aggr}": (rgcn(aggr=aggr, num_bases=3), rgcn_by_hand) for aggr in ("mean", "sum", "max")},
    **{f"rgcn_blocks_{aggr}": (rgcn(aggr=aggr, num_blocks=2), rgcn_by_hand) for aggr in ("mean", "sum", "max")},
    "rgat": (lambda: RGATConv(4, 3, RELATIONS), rgat_by_hand),
    "rgat_heads": (lambda: RGATConv(4, 3, RELATIONS, heads=3, negative_slope=0.1), rgat_by_hand),
    "rgat_mean": (lambda: RGATConv(4, 3, RELATIONS, heads=2, concat=False), rgat_by_hand),
    "hgt": (lambda: HGTConv(4, 6, NODE_TYPES, RELATIONS), hgt_by_hand),
    "hgt_heads": (lambda: HGTConv(4, 6, NODE_TYPES, RELATIONS, heads=3), hgt_by_hand),
    "hgt_skip": (lambda: HGTConv(4, 4, NODE_TYPES, RELATIONS, heads=2), hgt_by_hand),
}


@pytest.mark.parametrize("which", GRAPHS)
@pytest.mark.parametrize("layer", LAYERS)
def test_layers_compute_their_equations(layer: str, which: str) -> None:
    torch.manual_seed(0)
    build, by_hand = LAYERS[layer]
    conv, graph = build(), GRAPHS[which]
    randomize(conv)
    x, x_src, x_dst = features(graph, 4)
    inputs = [x_src, *([] if x_dst is x_src else [x_dst]), *conv.parameters()]
    same_with_gradients(conv(x, graph), by_hand(conv, graph, x_src, x_dst), inputs)


@pytest.mark.parametrize("which", ["random", "bipartite"])
@pytest.mark.parametrize("layer", LAYERS)
def test_gradcheck(layer: str, which: str) -> None:
    torch.manual_seed(0)
    conv, graph = LAYERS[layer][0](), GRAPHS[which]
    randomize(conv)
    _, x_src, x_dst = features(graph, 4)
    names = [name for name, _ in conv.named_parameters()]

    def call(x_src: Tensor, x_dst: Tensor, *parameters: Tensor) -> Tensor:
        args = (x_src if graph.is_square else (x_src, x_dst), graph)
        result: Tensor = torch.func.functional_call(conv, dict(zip(names, parameters, strict=True)), args)
        return result

    assert torch.autograd.gradcheck(
        call, (x_src, x_dst.detach() if graph.is_square else x_dst, *conv.parameters()), fast_mode=True
    )


@pytest.mark.parametrize("layer", ["rgcn_mean", "rgat_heads", "hgt_skip"])
@pytest.mark.parametrize("which", ["random", "bipartite"])
def test_a_graph_or_its_tensors(layer: str, which: str) -> None:
    torch.manual_seed(0)
    conv, graph = LAYERS[layer][0]().double(), GRAPHS[which]
    x, _, _ = features(graph, 4)
    tensors = [graph.edge_index, graph.edge_type, *([graph.node_type] if layer == "hgt_skip" else [])]
    assert torch.equal(conv(x, graph), conv(x, *tensors))


@pytest.mark.parametrize("layer", LAYERS)
def test_autocast_and_copies(layer: str) -> None:
    torch.manual_seed(0)
    conv, graph = LAYERS[layer][0](), GRAPHS["random"]
    x = torch.randn(graph.num_nodes, 4, requires_grad=True)
    expected = conv(x, graph)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x, graph)
    out.sum().backward()
    torch.testing.assert_close(out, expected, rtol=0.05, atol=0.05)
    assert all(torch.isfinite(parameter.grad).all() for parameter in conv.parameters())
    assert torch.equal(pickle.loads(pickle.dumps(conv))(x, graph), expected)
    assert torch.equal(copy.deepcopy(conv)(x, graph), expected)


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_do_not_hold_a_weight_per_edge(layer: str) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for value in result if isinstance(result, list | tuple) else [result]:
                largest = max(largest, value.numel() if isinstance(value, Tensor) else 0)
            return result

    torch.manual_seed(0)
    size, edges, nodes = 12, 500, 40
    layer_class = type(LAYERS[layer][0]())
    options = {"heads": 2} if layer_class is not RGCNConv else {"aggr": layer.rsplit("_", 1)[-1]}
    options |= {"num_bases": 3} if "bases" in layer else {"num_blocks": 2} if "blocks" in layer else {}
    types = (NODE_TYPES, RELATIONS) if layer_class is HGTConv else (RELATIONS,)
    conv = layer_class(size, size, *types, **options)
    graph = Graph(
        torch.randint(0, nodes, (2, edges)),
        torch.randint(0, RELATIONS, (edges,)),
        num_nodes=nodes,
        num_relations=RELATIONS,
        node_type=torch.randint(0, NODE_TYPES, (nodes,)),
        num_node_types=NODE_TYPES,
    )
    x = torch.randn(nodes, size, requires_grad=True)
    with Largest():
        conv(x, graph).sum().backward()
    assert largest <= edges * (2 * size)  # two heads of RGAT; a matrix per edge would be edges * size * size


@pytest.mark.parametrize("aggr", ["mean", "sum", "max"])
@pytest.mark.parametrize("ids", ["none", "ids", "pair", "none_and_ids"])
def test_rgcn_without_features(aggr: str, ids: str) -> None:
    torch.manual_seed(0)
    graph = GRAPHS["random" if ids in ("none", "ids") else "bipartite"]
    conv = RGCNConv(graph.num_src, 4, RELATIONS, num_bases=3, aggr=aggr)
    randomize(conv)
    x_src = torch.arange(graph.num_src) if "none" in ids else torch.randint(0, graph.num_src, (graph.num_src,))
    x_dst = x_src if graph.is_square else torch.tensor([2, 0, 2])
    x = {"none": None, "ids": x_src, "pair": (x_src, x_dst), "none_and_ids": (None, x_dst)}[ids]
    weights = torch.einsum("rb,bio->rio", conv.comp, conv.weight)
    rows = []
    for i in range(graph.num_dst):
        row = conv.root[x_dst[i]] + conv.bias
        for r in range(RELATIONS):
            found = [weights[r, x_src[s]] for s, rel, d in edges_of(graph) if (rel, d) == (r, i)]
            if found:
                values = torch.stack(found)
                row = row + {"mean": values.mean, "sum": values.sum, "max": values.amax}[aggr](0)
        rows.append(row)
    same_with_gradients(conv(x, graph), torch.stack(rows), list(conv.parameters()))


def test_layers_describe_themselves() -> None:
    assert repr(RGCNConv(4, 6, 5, num_bases=2)) == "RGCNConv(4, 6, num_relations=5, num_bases=2, aggr='mean')"
    assert repr(RGATConv(4, 6, 5, heads=3)) == "RGATConv(4, 6, num_relations=5, heads=3, concat=True)"
    assert repr(HGTConv(4, 6, 3, 5, heads=3)) == "HGTConv(4, 6, num_node_types=3, num_relations=5, heads=3)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RGCNConv(4, 6, 5, num_bases=2, num_blocks=2), "give num_bases or num_blocks"),
        (lambda: RGCNConv(4, 6, 5, num_blocks=4), "num_blocks=4 must divide in_channels=4, out_channels=6"),
        (lambda: RGCNConv(4, 6, 5, aggr="median"), 'aggr must be "mean", "sum" .* got \'median\''),
        (lambda: HGTConv(4, 6, 3, 5, heads=4), "heads=4 must divide out_channels=6"),
        (lambda: RGCNConv(9, 6, RELATIONS)(None, GRAPHS["random"]), "needs node features: .* give num_bases"),
        (lambda: RGCNConv(4, 6, RELATIONS)(torch.zeros(8, 4), GRAPHS["random"]), "e.src expects one row per source"),
        (lambda: RGCNConv(4, 6, RELATIONS)(torch.zeros(9, 5), GRAPHS["random"]), r"x \[5\] .* w \[4, 6\]"),
    ],
)
def test_errors_say_what_to_do(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# ---- PyTorch Geometric -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggr", ["mean", "sum", "add", "max"])
@pytest.mark.parametrize("options", [{}, {"num_bases": 3}, {"num_blocks": 2}, {"root_weight": False, "bias": False}])
@pytest.mark.parametrize("which", ["random", "no_edges", "one_node", "duplicate_edges", "hub", "bipartite"])
def test_rgcn_equals_pyg(aggr: str, options: dict[str, Any], which: str) -> None:
    pyg = pytest.importorskip("torch_geometric.nn", reason="needs torch_geometric")
    torch.manual_seed(0)
    graph = GRAPHS[which]
    theirs = pyg.RGCNConv(4, 6, RELATIONS, aggr=aggr, **options).double()
    ours = RGCNConv(4, 6, RELATIONS, aggr=aggr, **options).double()
    randomize(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x, x_src, x_dst = features(graph, 4)
    out, expected = ours(x, graph), theirs(x, graph.edge_index, graph.edge_type)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10, check_dtype=True)
    weight = torch.randn_like(out)
    ours_grads, theirs_grads = (
        torch.autograd.grad(
            (y * weight).sum(),
            [x_src, *([] if x_dst is x_src else [x_dst]), *layer.parameters()],
            allow_unused=True,
            materialize_grads=True,
        )
        for y, layer in ((out, ours), (expected, theirs))
    )
    for a, b in zip(ours_grads, theirs_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("aggr", ["mean", "sum"])
@pytest.mark.parametrize("with_ids", [False, True])
def test_rgcn_without_features_equals_pyg(aggr: str, with_ids: bool) -> None:
    pyg = pytest.importorskip("torch_geometric.nn", reason="needs torch_geometric")
    torch.manual_seed(0)
    graph = GRAPHS["random"]
    theirs = pyg.RGCNConv(graph.num_nodes, 6, RELATIONS, num_bases=2, aggr=aggr)
    ours = RGCNConv(graph.num_nodes, 6, RELATIONS, num_bases=2, aggr=aggr)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randperm(graph.num_nodes) if with_ids else None
    out, expected = ours(x, graph), theirs(x, graph.edge_index, graph.edge_type)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    grads = [torch.autograd.grad(y.square().sum(), list(c.parameters())) for y, c in ((out, ours), (expected, theirs))]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("out", [6, 9])
def test_hgt_equals_pyg(heads: int, out: int) -> None:
    pyg = pytest.importorskip("torch_geometric.nn", reason="needs torch_geometric")
    torch.manual_seed(0)
    size = 6
    counts = {"a": 5, "b": 4}
    edge_types = [("a", "x", "b"), ("b", "y", "a"), ("a", "z", "a")]
    theirs = pyg.HGTConv(size, out, (list(counts), edge_types), heads=heads).double()
    randomize(theirs)
    ours = HGTConv(size, out, num_node_types=2, num_relations=3, heads=heads).double()
    d, state = out // heads, {}
    lins = [theirs.kqv_lin.lins[t] for t in counts]
    for i, name in enumerate("kqv"):
        state[f"{name}_weight"] = torch.stack([lin.weight[i * out : (i + 1) * out].t() for lin in lins])
        state[f"{name}_bias"] = torch.stack([lin.bias[i * out : (i + 1) * out] for lin in lins])
    state["out_weight"] = torch.stack([theirs.out_lin.lins[t].weight.t() for t in counts])
    state["out_bias"] = torch.stack([theirs.out_lin.lins[t].bias for t in counts])
    state["att"] = theirs.k_rel.weight.view(heads, 3, d, d).transpose(0, 1)
    state["msg"] = theirs.v_rel.weight.view(heads, 3, d, d).transpose(0, 1)
    state["prior"] = torch.cat([theirs.p_rel["__".join(t)] for t in edge_types])
    if size == out:
        state["skip"] = torch.cat([theirs.skip[t] for t in counts])
    ours.load_state_dict(state)
    x = {t: torch.randn(n, size, dtype=torch.float64) for t, n in counts.items()}
    index = {t: torch.stack([torch.randint(0, counts[t[i]], (8,)) for i in (0, 2)]) for t in edge_types}
    offset = torch.tensor([[0], [0]]), torch.tensor([[0], [5]]), torch.tensor([[5], [0]])
    moved = torch.cat([index[edge_types[0]] + offset[1], index[edge_types[1]] + offset[2], index[edge_types[2]]], dim=1)
    got = ours(
        torch.cat([x["a"], x["b"]]), moved, torch.arange(3).repeat_interleave(8), torch.tensor([0] * 5 + [1] * 4)
    )
    expected = theirs(x, index)
    torch.testing.assert_close(got, torch.cat([expected["a"], expected["b"]]), rtol=1e-10, atol=1e-10)


# ---- custom layers ---------------------------------------------------------------------------------------


def gated_by_hand(m: GatedRelationalConv, g: Graph, h: Tensor, f: Tensor) -> tuple[Tensor, ...]:
    gates = [
        torch.sigmoid(h[s] @ m.gate_src + h[d] @ m.gate_dst + m.edge(f[i]) + m.gate_bias[r])
        for i, (s, r, d) in enumerate(edges_of(g))
    ]
    rows = []
    for node in range(g.num_nodes):
        incoming = [(gates[i], h[s] @ m.weight[r]) for i, (s, r, d) in enumerate(edges_of(g)) if d == node]
        zero = torch.zeros_like(h[node])
        message = sum((a * b for a, b in incoming), zero) / (sum((a for a, _ in incoming), zero) + 1e-6)
        both = torch.cat([h[node], message])
        z = torch.sigmoid(m.update(both))
        rows.append((1 - z) * h[node] + z * torch.tanh(m.candidate(both)))
    return stacked(rows, h.shape[1]), stacked(gates, h.shape[1])


def composition_by_hand(m: CompositionConv, g: Graph, h: Tensor, z: Tensor) -> tuple[Tensor, ...]:
    rows = []
    for node in range(g.num_nodes):
        row = (h[node] * m.loop) @ m.w_loop
        incoming = [(s, r) for s, r, d in edges_of(g) if d == node]
        for s, r in incoming:
            row = row + (h[s] * z[r]) @ m.w_in / len(incoming)
        for s, r, d in edges_of(g):
            if s == node:
                row = row + (h[d] * z[r]) @ m.w_out
        rows.append(torch.tanh(row) / 3)
    return stacked(rows, m.w_in.shape[1]), z @ m.w_rel


def two_hops_by_hand(m: TwoHops, g: Graph, h: Tensor) -> tuple[Tensor, ...]:
    hidden = m.weight.shape[-1]
    one = []
    for node in range(g.num_nodes):
        found = [h[s] @ m.weight[r] for s, r, d in edges_of(g) if d == node]
        best = torch.stack(found).amax(0) if found else torch.zeros(hidden, dtype=h.dtype)
        one.append(F.elu(m.norm(best)))
    rows = []
    for node in range(g.num_nodes):
        found = [one[s] - 0.5 * one[node] for s, _, d in edges_of(g) if d == node]
        mean = torch.stack(found).mean(0) if found else torch.zeros(hidden, dtype=h.dtype)
        rows.append(m.out(torch.cat([h[node], one[node], mean])))
    return (stacked(rows, h.shape[1]),)


def source_attention_by_hand(m: SourceAttention, g: Graph, h: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    q = [(row @ m.query).view(m.heads, m.size) for row in h]
    edges, scores = edges_of(g), []
    for i, (s, r, d) in enumerate(edges):
        k = torch.einsum("i,iho->ho", h[d], m.key[r])
        scores.append(F.leaky_relu((q[s] * k).sum(-1) * m.scale[r] + bias[i], 0.1).exp())
    rows = [torch.zeros(m.heads, m.size, dtype=h.dtype) for _ in range(g.num_nodes)]
    for i, (s, _, d) in enumerate(edges):
        total = sum(scores[j] for j, edge in enumerate(edges) if edge[0] == s)
        rows[d] = rows[d] + (scores[i] / total).unsqueeze(-1) * q[s]
    return (stacked([row.flatten() for row in rows], m.heads * m.size),)


def relation_pooling_by_hand(m: RelationPooling, g: Graph, h: Tensor) -> tuple[Tensor, ...]:
    edges, size = edges_of(g), h.shape[1]
    y = [h[i] @ m.typed[t] + m.typed_bias[t] for i, t in enumerate(g.node_type.tolist())]
    summary = []
    for relation in range(g.num_relations):
        found = [y[s] for s, r, _ in edges if r == relation]
        mean = torch.stack(found).mean(0) if found else torch.zeros(size, dtype=h.dtype)
        summary.append(torch.sigmoid(m.summary(mean)))
    rows = []
    for node in range(g.num_nodes):
        row = h[node]
        for relation in range(g.num_relations):
            found = [y[s] * summary[r] for s, r, d in edges if (r, d) == (relation, node)]
            if found:
                row = row + summary[relation] * torch.stack(found).amin(0)
        rows.append(row)
    out = stacked(rows, size)
    zero = torch.zeros(size, dtype=h.dtype)
    return out, out.amax(0) if rows else zero, sum((h[s] * h[d] for s, _, d in edges), zero)


def graph_readout_by_hand(m: GraphReadout, g: Graph, h: Tensor) -> tuple[Tensor, ...]:
    edges, size = edges_of(g), h.shape[1]
    zero = torch.zeros(size, dtype=h.dtype)
    batch = [0] * g.num_nodes if g.batch is None else g.batch.tolist()
    nodes = [[i for i, graph in enumerate(batch) if graph == n] for n in range(g.num_graphs)]
    means = [torch.stack([h[i] for i in own]).mean(0) if own else zero for own in nodes]
    y = []
    for i in range(g.num_nodes):
        gathered = sum((h[s] - means[batch[s]] for s, _, d in edges if d == i), zero)
        y.append(torch.sigmoid(m.map(gathered)) + h[i])
    pooled, readout = [], []
    for n, own in enumerate(nodes):
        scores = [m.score(y[i]).exp() for i in own]
        pooled.append(sum((y[i] * s / sum(scores) for i, s in zip(own, scores, strict=True)), zero))
        largest = torch.stack([y[i] for i in own]).amax(0) if own else zero
        products = [y[s] * y[d] * pooled[n] for s, _, d in edges if batch[s] == n]
        readout.append(torch.cat([pooled[n], largest, torch.stack(products).mean(0) if products else zero]))
    rows = []
    for i in range(g.num_nodes):
        sent = sum((y[s] * torch.tanh(m.back(pooled[batch[i]])) for s, _, d in edges if d == i), zero)
        rows.append(sent / batch.count(batch[i]))
    return stacked(rows, size), stacked(readout, 3 * size), torch.stack(pooled).amax(0)


BY_HAND: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "gated": gated_by_hand,
    "composition": composition_by_hand,
    "two_hops": two_hops_by_hand,
    "source_attention": source_attention_by_hand,
    "relation_pooling": relation_pooling_by_hand,
    "graph_readout": graph_readout_by_hand,
}


def results(value: Any) -> tuple[Tensor, ...]:
    return tuple(value.values()) if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize("which", square_graphs())
@pytest.mark.parametrize("custom", CUSTOM_LAYERS, ids=lambda s: s.name)
def test_custom_layers_compute_what_they_say(custom: CustomLayer, which: str) -> None:
    torch.manual_seed(0)
    graph = GRAPHS[which]
    module = custom.build(RELATIONS, NODE_TYPES).double()
    inputs = [x.requires_grad_() for x in custom.inputs(graph, torch.float64)]
    got = results(module(graph, *inputs))
    expected = BY_HAND[custom.name](module, graph, *inputs)
    for a, b in zip(got, expected, strict=True):
        same_with_gradients(a, b, [*inputs, *module.parameters()])


@pytest.mark.parametrize("custom", CUSTOM_LAYERS, ids=lambda s: s.name)
def test_custom_layers_gradcheck(custom: CustomLayer) -> None:
    torch.manual_seed(0)
    graph = GRAPHS["duplicate_edges"]
    module = custom.build(RELATIONS, NODE_TYPES).double()
    inputs = [x.requires_grad_() for x in custom.inputs(graph, torch.float64)]
    assert torch.autograd.gradcheck(lambda *x: results(module(graph, *x)), inputs)


def test_dropout_follows_the_mode() -> None:
    torch.manual_seed(0)
    graph = GRAPHS["random"]
    module, h = TwoHops(5, 3, RELATIONS, p=0.5), torch.randn(graph.num_nodes, 5)
    assert not torch.equal(module(graph, h), module(graph, h))
    module.eval()
    assert torch.equal(module(graph, h), module(graph, h))
