"""Models as their users write them: what is compiled of them computes, trains and changes what the same code in PyTorch does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from compiled import randomized, tensors_of
from torch import Tensor, nn

import columba
from columba.runtime.graphs.graph import Graph

pytestmark = pytest.mark.unoptimized

Batch = tuple[Any, ...]


def ids(high: int, count: int, seed: int) -> Tensor:
    return torch.randint(high, (count,), generator=torch.Generator().manual_seed(seed))


def table(rows: int, features: int, seed: int) -> Tensor:
    return torch.randn(rows, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_graph(nodes: int | tuple[int, int], edges: int, relations: int, seed: int) -> Graph:
    src, dst = nodes if isinstance(nodes, tuple) else (nodes, nodes)
    ends = torch.stack([ids(src, edges, seed), ids(dst, edges, seed + 1)])
    return Graph(ends, ids(relations, edges, seed + 2), num_nodes=nodes, num_relations=relations)


# ------------------------------------------------------------------------------------------------ gated graphs


class GatedGraph(nn.Module):
    """GGNN (Li et al. 2016): messages by edge type, a GRU over the rounds, a gated sum."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, 6, 6))
        self.cell = nn.GRUCell(6, 6)
        self.gate, self.out = nn.Linear(12, 1), nn.Linear(6, 2)

    def forward(self, g: Graph, x: Tensor) -> Tensor:
        h = F.pad(x, (0, 2))
        start = h
        for _ in range(3):
            h = self.cell(g.edges.sum(columba.linear(g.edges.src(h), g.edges.rel(self.weight))), h)
        gate = torch.sigmoid(self.gate(torch.cat([h, start], -1)))
        return self.out(g.nodes.sum(gate * torch.tanh(h)))  # type: ignore[no-any-return]


def gated_batch(step: int) -> Batch:
    n = 8 + step
    return random_graph(n, 20 + step, 3, step), table(n, 4, step)


# ------------------------------------------------------------------------------------------------ link prediction


class LinkPrediction(nn.Module):
    """R-GCN over the known triples, DistMult over positive ones and samples of wrong ones (Schlichtkrull et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes = nn.Embedding(9, 6)
        self.convs = nn.ModuleList(columba.nn.RGCNConv(6, 6, 3, num_bases=2) for _ in range(2))
        self.decode = columba.nn.DistMult(6, 3)

    def forward(self, known: Graph, positive: Graph, negative: Graph) -> Tensor:
        h = self.nodes.weight
        for conv in self.convs:
            h = F.dropout(F.relu(conv(h, known)), 0.0, self.training)
        found = torch.cat([self.decode(h, positive), self.decode(h, negative)])
        wanted = torch.cat([torch.ones(positive.num_edges), torch.zeros(negative.num_edges)]).to(found)
        return F.binary_cross_entropy_with_logits(found, wanted)


def link_batch(step: int) -> Batch:
    return random_graph(9, 25, 3, 0), random_graph(9, 6 + step, 3, step + 3), random_graph(9, 12 + step, 3, step + 6)


# ------------------------------------------------------------------------------------------------ meta-paths


class HAN(nn.Module):
    """Heterogeneous attention (Wang et al. 2019): attention along each meta-path, then attention over the meta-paths."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Linear(5, 8) for _ in range(2))
        self.att = nn.Parameter(torch.empty(2, 2, 2, 4))
        self.semantic, self.query = nn.Linear(8, 6), nn.Parameter(torch.empty(6))
        self.out = nn.Linear(8, 3)

    def forward(self, paths: Sequence[Graph], x: Tensor) -> Tensor:
        found = []
        for n, g in enumerate(paths):
            h, e = self.project[n](x).view(-1, 2, 4), g.edges
            score = e.src((h * self.att[n, 0]).sum(-1)) + e.dst((h * self.att[n, 1]).sum(-1))
            alpha = e.softmax(F.leaky_relu(score, 0.2))
            found.append(F.elu(e.sum(alpha.unsqueeze(-1) * e.src(h)).flatten(1)))
        z = torch.stack(found, 1)  # [N, paths, 8]
        weight = (torch.tanh(self.semantic(z)) @ self.query).mean(0).softmax(0)
        return self.out((z * weight.view(-1, 1)).sum(1))  # type: ignore[no-any-return]


def han_batch(step: int) -> Batch:
    n = 7 + step
    return [random_graph(n, 18 + 2 * k, 1, step + 5 * k) for k in range(2)], table(n, 5, step)


# ------------------------------------------------------------------------------------------------ sampled blocks


class Sampled(nn.Module):
    """Two attention layers, each over a block of sampled neighbours whose destinations are its first sources."""

    def __init__(self) -> None:
        super().__init__()
        self.first = columba.nn.RGATConv(5, 4, 3, heads=2)
        self.second = columba.nn.RGATConv(8, 3, 3, heads=2, concat=False)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, blocks: Sequence[Graph], x: Tensor) -> Tensor:
        h = self.norm(F.elu(self.first((x, x[: blocks[0].num_dst]), blocks[0])))
        return self.second((h, h[: blocks[1].num_dst]), blocks[1]).log_softmax(-1)  # type: ignore[no-any-return]


def sampled_batch(step: int) -> Batch:
    sizes = 14 + step, 8 + step, 4 + step
    return [random_graph(sizes[k : k + 2], 30 - 10 * k + step, 3, step + k) for k in range(2)], table(sizes[0], 5, step)


# ------------------------------------------------------------------------------------------------ recommendation


class LightGCN(nn.Module):
    """He et al. 2020, with ratings as weights of edges: the mean of all depths; scores are dot products."""

    def __init__(self, users: int = 6, items: int = 8) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(users, 5), nn.Embedding(items, 5)

    def forward(self, ratings: Graph, stars: Tensor, liked: Graph, ignored: Graph) -> Tensor:
        e = ratings.edges
        scale = stars / (e.degree("src", stars.dtype) * e.degree("dst", stars.dtype)).sqrt()
        user, item = self.users.weight, self.items.weight
        all_users, all_items = [user], [item]
        for _ in range(2):
            user, item = (
                e.sum(scale.unsqueeze(-1) * e.dst(item), to="src"),
                e.sum(scale.unsqueeze(-1) * e.src(user)),
            )
            all_users.append(user)
            all_items.append(item)
        u, i = torch.stack(all_users, 1).mean(1), torch.stack(all_items, 1).mean(1)
        scores = [(g.edges.src(u) * g.edges.dst(i)).sum(-1).mean() for g in (liked, ignored)]
        return -F.logsigmoid(scores[0] - scores[1])


def light_batch(step: int) -> Batch:
    ratings = random_graph((6, 8), 20, 1, 0)
    return (
        ratings,
        table(20, 1, 1)[:, 0].abs(),
        random_graph((6, 8), 5 + step, 1, step),
        random_graph((6, 8), 7, 1, step + 9),
    )


# ------------------------------------------------------------------------------------------------ hypergraphs


class Hypergraph(nn.Module):
    """Nodes to hyperedges and back, degrees in between (Feng et al. 2019), with attention on the way back."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.att = nn.Parameter(torch.empty(8))

    def forward(self, to_edges: Graph, to_nodes: Graph, x: Tensor) -> Tensor:
        for layer in self.layers:
            hyperedge = to_edges.edges.mean(to_edges.edges.src(layer(x)))
            n = to_nodes.edges
            alpha = n.softmax(F.leaky_relu(torch.cat([n.src(hyperedge), n.dst(x)], -1) @ self.att))
            x = x + F.relu(n.sum(alpha.unsqueeze(-1) * n.src(hyperedge)))
        return x


def hypergraph_batch(step: int) -> Batch:
    nodes, hyperedges = 7 + step, 3 + step
    ends = torch.stack([ids(nodes, 15, step), ids(hyperedges, 15, step + 1)])
    return (
        Graph(ends, num_nodes=(nodes, hyperedges)),
        Graph(ends.flip(0), num_nodes=(hyperedges, nodes)),
        table(nodes, 4, step),
    )


# ------------------------------------------------------------------------------------------------ deep adaptive


class DAGNN(nn.Module):
    """Liu et al. 2020: an MLP, many propagations, and a learned gate for each depth."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 3))
        self.gate = nn.Linear(3, 1)

    def forward(self, g: Graph, x: Tensor) -> Tensor:
        e = g.edges
        norm = (e.degree("src", x.dtype) * e.degree("dst", x.dtype)).rsqrt().unsqueeze(-1)
        h = self.mlp(x)
        depths = [h]
        for _ in range(4):
            depths.append(e.sum(norm * e.src(depths[-1])))
        stacked = torch.stack(depths, 1)
        return (torch.sigmoid(self.gate(stacked)) * stacked).sum(1).log_softmax(-1)


def dagnn_batch(step: int) -> Batch:
    return random_graph(9 + step, 25 + step, 1, step), table(9 + step, 6, step)


# ------------------------------------------------------------------------------------------------ meshes


def mlp(size: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, 8), nn.SiLU(), nn.Linear(8, out), nn.LayerNorm(out))


class Mesh(nn.Module):
    """MeshGraphNets (Pfaff et al. 2021): encoders, a processor that updates edges and nodes, a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.node, self.edge = mlp(5, 6), mlp(3, 6)
        self.steps = nn.ModuleList(nn.ModuleDict({"edge": mlp(18, 6), "node": mlp(12, 6)}) for _ in range(2))
        self.decode = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))

    def forward(self, g: Graph, x: Tensor, position: Tensor) -> Tensor:
        e = g.edges
        offset = e.src(position) - e.dst(position)
        h, edge = self.node(x), self.edge(torch.cat([offset, offset.norm(dim=-1, keepdim=True)], -1))
        for step in self.steps:
            edge = edge + step["edge"](torch.cat([edge, e.src(h), e.dst(h)], -1))
            h = h + step["node"](torch.cat([h, e.sum(edge)], -1))
        return self.decode(h)  # type: ignore[no-any-return]


def mesh_batch(step: int) -> Batch:
    n = 8 + step
    return random_graph(n, 22 + step, 1, step), table(n, 5, step), table(n, 2, step + 1)


# ------------------------------------------------------------------------------------------------ node types


class Heterogeneous(nn.Module):
    """Tables of sizes of their own for each node type, in and out; relational convolutions and norms by type between."""

    SIZES: ClassVar = {"paper": 5, "author": 3, "venue": 2}

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.ModuleDict({t: nn.Linear(n, 6) for t, n in self.SIZES.items()})
        self.convs = nn.ModuleList(columba.nn.HGTConv(6, 6, 3, 3, heads=2) for _ in range(2))
        self.norm = nn.ModuleDict({t: nn.LayerNorm(6) for t in self.SIZES})
        self.out = nn.ModuleDict({"paper": nn.Linear(6, 4), "author": nn.Linear(6, 2)})

    def forward(self, x: dict[str, Tensor], g: Graph) -> dict[str, Tensor]:
        h = {t: F.relu(layer(x[t])) for t, layer in self.into.items()}
        for conv in self.convs:
            h = {t: self.norm[t](v) for t, v in g.split_nodes(conv(g.cat_nodes(h), g)).items()}
        return {t: layer(h[t]) for t, layer in self.out.items()}


def heterogeneous_batch(step: int) -> Batch:
    counts = {"paper": 5 + step, "author": 4, "venue": 2 + step % 2}
    bounds = torch.tensor([0, *counts.values()]).cumsum(0).tolist()
    slices = {t: slice(*bounds[n : n + 2]) for n, t in enumerate(counts)}
    n, edges = bounds[-1], 30 + step
    kinds = torch.repeat_interleave(torch.arange(3), torch.tensor(list(counts.values())))
    ends = torch.stack([ids(n, edges, step), ids(n, edges, step + 1)])
    graph = Graph(
        ends, ids(3, edges, step), num_nodes=n, num_relations=3, node_type=kinds, num_node_types=3, node_slices=slices
    )
    return {t: table(counts[t], size, step) for t, size in Heterogeneous.SIZES.items()}, graph


# ------------------------------------------------------------------------------------------------ snapshots


class Temporal(nn.Module):
    """A relational convolution over each snapshot, and an LSTM over time, whose state is a row per node."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = columba.nn.RGCNConv(4, 5, 2)
        self.cell = nn.LSTMCell(5, 5)
        self.out = nn.Linear(5, 1)

    def forward(self, snapshots: Sequence[Graph], x: Sequence[Tensor]) -> list[Tensor]:
        h = c = torch.zeros(x[0].shape[0], 5, dtype=x[0].dtype)
        found = []
        for graph, features in zip(snapshots, x, strict=True):
            h, c = self.cell(F.relu(self.conv(features, graph)), (h, c))
            found.append(self.out(h).squeeze(-1))
        return found


def temporal_batch(step: int) -> Batch:
    return [random_graph(7, 12 + k, 2, step + 10 * k) for k in range(3)], [table(7, 4, step + k) for k in range(3)]


# ------------------------------------------------------------------------------------------------ several tasks


class Tasks(nn.Module):
    """One body, a head for nodes, one for edges, one for the whole graph; a dict of what each gives."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList(columba.nn.RGATConv(6, 6, 2) for _ in range(2))
        self.norm = nn.BatchNorm1d(6)
        self.node, self.edge, self.whole = nn.Linear(6, 3), nn.Bilinear(6, 6, 1), nn.Linear(12, 2)

    def forward(self, g: Graph, x: Tensor) -> dict[str, Any]:
        h = x
        for conv in self.body:
            h = h + F.relu(self.norm(conv(h, g)))
        edge = torch.einsum("ei,oij,ej->eo", g.edges.src(h), self.edge.weight, g.edges.dst(h)) + self.edge.bias
        whole = torch.cat([g.nodes.mean(h), g.nodes.max(h)])
        return {"node": self.node(h), "edge": edge.squeeze(-1), "whole": self.whole(whole), "nodes": g.num_nodes}


def tasks_batch(step: int) -> Batch:
    return random_graph(8 + step, 20 + step, 2, step), table(8 + step, 6, step)


# ------------------------------------------------------------------------------------------------ the tests


@dataclass(frozen=True)
class Model:
    """A model, its inputs at each step, into how many programs it is compiled, and which functions stay PyTorch's, by their reasons."""

    make: Callable[[], nn.Module]
    batch: Callable[[int], Batch]
    programs: int = 1
    breaks: tuple[str, ...] = ()


MODELS = {
    "GGNN": Model(GatedGraph, gated_batch),
    "link prediction": Model(LinkPrediction, link_batch, 3, ("cat with a plain tensor mixes the rows",)),
    "HAN": Model(HAN, han_batch, 2),
    "sampled RGAT": Model(Sampled, sampled_batch, 2),
    "LightGCN": Model(LightGCN, light_batch, 3),
    "hypergraph": Model(Hypergraph, hypergraph_batch, 4),
    "DAGNN": Model(DAGNN, dagnn_batch),
    "mesh": Model(Mesh, mesh_batch),
    "heterogeneous": Model(Heterogeneous, heterogeneous_batch, 2),
    "temporal": Model(Temporal, temporal_batch, 3),
    "tasks": Model(Tasks, tasks_batch),
}


def loss_of(out: Any) -> Tensor:
    return sum(t.square().mean() for t in tensors_of(out) if t.is_floating_point())  # type: ignore[return-value]


@pytest.mark.parametrize("name", MODELS)
def test_training_is_as_in_pytorch(name: str) -> None:
    """Steps of training on other inputs at each: results, gradients and buffers, then parameters; it is traced once."""
    check_training(MODELS[name], backend="torch", steps=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_kernels_train_as_pytorch(name: str) -> None:
    check_training(MODELS[name], backend="cpp", steps=3)


def check_training(model: Model, backend: str, steps: int) -> None:
    eager = randomized(model.make(), torch.float64)
    compiled = columba.compile(copy.deepcopy(eager), backend=backend, fullgraph=not model.breaks)
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.01) for m in (compiled, eager)]
    for step in range(steps):
        batch = model.batch(step)
        for _ in range(2):
            outs = [m(*batch) for m in (compiled, eager)]
            torch.testing.assert_close(tensors_of(outs[0]), tensors_of(outs[1]), rtol=1e-9, atol=1e-9)
            for out, optimizer in zip(outs, optimizers, strict=True):
                optimizer.zero_grad()
                loss_of(out).backward()
            for one, other in zip(compiled.parameters(), eager.parameters(), strict=True):
                grad = torch.zeros_like(other) if other.grad is None else other.grad
                torch.testing.assert_close(one.grad, grad, rtol=1e-8, atol=1e-9)
            for optimizer in optimizers:
                optimizer.step()
        torch.testing.assert_close(dict(compiled.state_dict()), dict(eager.state_dict()), rtol=1e-7, atol=1e-7)
    (traced,) = type(compiled).forward._of_modules[compiled]  # type: ignore[attr-defined]
    assert len(traced.kernels) == model.programs
    compiled.eval(), eager.eval()
    with torch.no_grad():
        torch.testing.assert_close(tensors_of(compiled(*batch)), tensors_of(eager(*batch)), rtol=1e-6, atol=1e-6)
    reasons = [why for _, why in traced.trace.breaks]
    if backend == "cpp":  # to show the sources of all kernels takes a while
        explanation = columba.explain(compiled, *batch)
        assert len(explanation.regions) == model.programs
        reasons = [one.reason for one in explanation.breaks]
    assert len(reasons) == len(model.breaks)
    assert all(why in reason for why, reason in zip(model.breaks, reasons, strict=True))


def test_dropout_has_the_distribution_of_pytorch() -> None:
    class Dropped(DAGNN):
        def __init__(self) -> None:
            super().__init__()
            self.mlp[2].p = 0.4

    torch.manual_seed(0)
    eager = randomized(Dropped(), torch.float64)
    compiled = columba.compile(copy.deepcopy(eager), backend="torch", fullgraph=True)
    batch = dagnn_batch(0)
    with torch.no_grad():
        draws = [torch.stack([model(*batch) for _ in range(300)]) for model in (compiled, eager)]
    (mean, spread), (expected, wanted) = ((d.mean(0), d.std(0)) for d in draws)
    error = wanted / 300**0.5
    assert ((mean - expected).abs() < 6 * error + 1e-9).all()
    torch.testing.assert_close(spread, wanted, rtol=0.25, atol=1e-3)
    torch.manual_seed(1)
    first = compiled(*batch)
    torch.manual_seed(1)
    assert torch.equal(compiled(*batch), first)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_loss_falls(name: str) -> None:
    model = MODELS[name]
    torch.manual_seed(0)
    compiled = columba.compile(randomized(model.make(), torch.float64), backend="torch")
    optimizer = torch.optim.Adam(compiled.parameters(), lr=0.02)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = loss_of(compiled(*model.batch(0)))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
