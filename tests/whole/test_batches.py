"""Readouts, norms and softmax of the graphs of a batch, and the way back: every backend as eager code, which is as PyTorch Geometric."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from compiled import assert_same, leaf
from eager_graphs import bipartite_graphs
from torch import Tensor, nn

import columba
from columba import Graph
from columba.ir.plan.plan import Plan
from columba.nn import GraphNorm, GraphSizeNorm, PairNorm, global_add_pool, global_max_pool, global_mean_pool

pytestmark = pytest.mark.unoptimized

SIZES = (5, 0, 1, 30, 7, 0)


def graph_of(sizes: tuple[int, ...], *, shuffle: bool = False, seed: int = 0) -> Graph:
    """Graphs of so many nodes and three times as many edges, side by side, the nodes in order or not."""
    generator = torch.Generator().manual_seed(seed)
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    starts = torch.tensor([0, *sizes]).cumsum(0)[:-1]
    parts = [
        s + torch.randint(n, (2, 3 * n), generator=generator) for s, n in zip(starts.tolist(), sizes, strict=True) if n
    ]
    edges = torch.cat([torch.empty(2, 0, dtype=torch.long), *parts], dim=1)
    if shuffle:
        order = torch.randperm(len(batch), generator=generator)
        batch, edges = batch[order.argsort()], order[edges]
    types = torch.randint(3, (edges.shape[1],), generator=generator)
    return Graph(edges, types, num_nodes=len(batch), num_relations=3, batch=batch, num_graphs=len(sizes))


GRAPHS = {
    "a batch": graph_of(SIZES),
    "in no order": graph_of(SIZES, shuffle=True),
    "one graph": graph_of((6,)),
    "no batch": Graph(torch.tensor([[0, 2, 1], [1, 2, 2]]), num_relations=3),
    "nodes of none": graph_of((0, 0)),
    "no edges": Graph(torch.empty(2, 0, dtype=torch.long), num_nodes=3, num_relations=3, batch=torch.tensor([1, 1, 0])),
    "many graphs": graph_of((3, 1, 0, 2) * 100),
}


def everything(g: Graph, h: Tensor, y: Tensor, w: Tensor) -> list[Tensor]:
    """All that leads to graphs and back, in one program."""
    e, n = g.edges, g.nodes
    m = torch.tanh(e.sum(e.src(h) * e.graph(y)) @ w + n.graph(y))
    by_relation = e.mean(e.src(h), to="dst_rel")
    return [
        *(getattr(n, kind)(m, to="graph") for kind in ("sum", "mean", "max", "min")),
        *(getattr(e, kind)(e.dst(m), to="graph") for kind in ("sum", "mean", "max", "min")),
        h - n.graph(n.mean(h, to="graph")),
        n.softmax(3 * m),
        e.softmax(e.src(h) - e.graph(y), by="graph"),
        g.dst_rel.sum(by_relation * g.dst_rel.graph(y), to="graph"),
        n.degree() + e.sum(e.degree("graph")),
        n.sum(h > 0, to="graph").double(),
        g.graphs.max(g.graphs(y)) + g.graphs.mean(n.sum(h, to="graph")),
        y.view(g.num_graphs, 2, 2).sum(1),
    ]


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_the_language_of_graphs(backend: str) -> None:
    compiled = columba.compile(everything, backend=backend)
    for graph in GRAPHS.values():
        args = [leaf(graph.num_nodes, 4), leaf(graph.num_graphs, 4, seed=1), leaf(4, 4, seed=2)]
        assert_same(compiled, everything, [graph, *args])


def test_bipartite_batches() -> None:
    def both(g: Graph, x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
        e, s, d = g.edges, g.src_nodes, g.dst_nodes
        out = e.sum(e.src(x) * e.graph(z)) + d.graph(s.mean(x, to="graph")) * y
        return [out, d.softmax(out), s.sum(x, to="graph") - d.max(y, to="graph"), e.min(e.dst(y), to="graph")]

    for backend in ("cpp", "torch"):
        compiled = columba.compile(both, backend=backend)
        for graph in bipartite_graphs().values():
            args = [leaf(graph.num_src, 3), leaf(graph.num_dst, 3, seed=1), leaf(graph.num_graphs, 3, seed=2)]
            assert_same(compiled, both, [graph, *args])


# What stands between a type and a graph of edges is computed where nobody knows of nodes.
def test_types_and_graphs_of_edges_alone() -> None:
    def on_edges(g: Graph, w: Tensor, y: Tensor) -> Tensor:
        e = g.edges
        return e.dst(g.dst_nodes.type(w)) * e.graph(y)

    compiled = columba.compile(on_edges, backend="cpp")
    for graph in bipartite_graphs().values():
        assert_same(compiled, on_edges, [graph, leaf(3, 2), leaf(graph.num_graphs, 2, seed=1)])


EXTREMES = torch.tensor(
    [0.0, -0.0, 1.0, math.inf, -math.inf, math.nan, 1e308, -1e308, 5e-324, 1.0], dtype=torch.float64
)


@pytest.mark.parametrize("backend", ["eager", "torch", "cpp"])
def test_extremes_stay_in_their_graph(backend: str) -> None:
    def readout(g: Graph, x: Tensor) -> list[Tensor]:
        n = g.nodes
        return [n.sum(x, to="graph"), n.mean(x, to="graph"), n.max(x, to="graph"), n.min(x, to="graph"), n.softmax(x)]

    x = torch.cat([EXTREMES, torch.tensor([2.0, 2.0, 1.0])])
    batch = torch.tensor([*range(10), 11, 11, 11])  # one each; graph 10 has none; ties in the last
    g = Graph(torch.empty(2, 0, dtype=torch.long), num_nodes=13, batch=batch)
    x.requires_grad_()
    total, mean, largest, smallest, share = (
        readout if backend == "eager" else columba.compile(readout, backend=backend)
    )(g, x)
    for found in (total, mean, largest, smallest):
        torch.testing.assert_close(found[:10], EXTREMES, equal_nan=True, atol=0, rtol=0)
        assert found[10] == 0
    assert [t[11].item() for t in (total, largest, smallest)] == [5.0, 2.0, 1.0]
    expected = [1.0, 1.0, 1.0, math.nan, math.nan, math.nan, 1.0, 1.0, 1.0, 1.0]
    torch.testing.assert_close(share[:10], torch.tensor(expected).double(), equal_nan=True)
    torch.testing.assert_close(share[10:], torch.softmax(torch.tensor([2.0, 2.0, 1.0]).double(), 0))
    (gradient,) = torch.autograd.grad(largest[[2, 11]].sum(), x)
    assert gradient[[0, 2, 9, 10, 11, 12]].tolist() == [0, 1, 0, 0.5, 0.5, 0]


class Norms(nn.Module):
    """The norms and pools one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third, self.last = (
            GraphNorm(4),
            PairNorm(0.7),
            PairNorm(1.5, True),
            GraphSizeNorm(),
        )

    def forward(self, x: Tensor, g: Graph) -> list[Tensor]:
        out = [self.first(x, g), self.second(x, g), self.third(x, g), self.last(x, g)]
        pools = (global_add_pool, global_mean_pool, global_max_pool)
        return [*out, *(pool(torch.sin(x), g) for pool in pools)]


def test_norms_and_pools_are_those_of_pyg() -> None:
    import torch_geometric.nn as pyg

    ours, theirs = Norms().double(), [pyg.GraphNorm(4), pyg.PairNorm(0.7), pyg.PairNorm(1.5, True), pyg.GraphSizeNorm()]
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    theirs[0].double().load_state_dict(ours.first.state_dict())
    pools = (pyg.global_add_pool, pyg.global_mean_pool, pyg.global_max_pool)

    def by_pyg(x: Tensor, g: Graph) -> list[Tensor]:
        batch = torch.zeros(g.num_nodes, dtype=torch.long) if g.batch is None else g.batch
        out = [norm(x, batch, batch_size=g.num_graphs) for norm in theirs[:3]] + [theirs[3](x, batch, g.num_graphs)]
        return [*out, *(pool(torch.sin(x), batch, g.num_graphs) for pool in pools)]

    compiled = columba.compile(Norms().double(), backend="cpp")
    compiled.load_state_dict(ours.state_dict())
    runs: list[Callable[..., list[Tensor]]] = [ours, compiled]
    for name in ("a batch", "in no order", "no batch"):
        graph = GRAPHS[name]
        for run in runs:
            assert_same(run, by_pyg, [leaf(graph.num_nodes, 4), graph])
    torch.manual_seed(0)
    assert ours.first.state_dict().keys() == theirs[0].state_dict().keys() == {"weight", "bias", "mean_scale"}
    assert all((a == b).all() for a, b in zip(GraphNorm(3).parameters(), pyg.GraphNorm(3).parameters(), strict=True))


def test_readouts_are_not_materialized() -> None:
    """Nodes are read once where they are summed; what flows back to them is read where it is used, and a norm is one kernel."""

    def readout(g: Graph, h: Tensor, w: Tensor) -> Tensor:
        n = g.nodes
        x = torch.relu(g.edges.sum(g.edges.src(h)) @ w)
        return global_add_pool(x * n.graph(torch.sigmoid(n.mean(x, to="graph"))), g)

    g = GRAPHS["a batch"]
    compilation = columba.explain(
        columba.compile(readout, backend="cpp"), g, leaf(g.num_nodes, 8), leaf(8, 8)
    ).compilation
    assert _stored(compilation.plans[0]) == []
    assert len(compilation.plans[0].kernels) == 3  # sums of neighbours, the product, the readout
    norm = columba.explain(columba.compile(GraphNorm(4).double(), backend="cpp"), leaf(g.num_nodes, 4), g).compilation
    assert len(norm.plans[0].kernels) == 1
    assert set(_stored(norm.plans[1])) <= {"graph"}


def _stored(plan: Plan) -> list[str]:
    """The spaces of what one kernel writes for another."""
    return [b.type.space.value for b in plan.buffers if b.role == "temporary"]
