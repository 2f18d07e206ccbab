"""Functions that are compiled as several programs: over several graphs, and with torch functions between that the language lacks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compiled import assert_same, leaf, randomized, tensors_of
from torch import Tensor, nn

import columba
from columba.tuning.search import TuningError

pytestmark = pytest.mark.unoptimized

R = 3


def block(num_src: int, num_dst: int, edges: int, seed: int) -> columba.Graph:
    generator = torch.Generator().manual_seed(seed)
    ends = [torch.randint(n, (edges,), generator=generator) for n in (num_src, num_dst)]
    types = torch.randint(R, (edges,), generator=generator)
    return columba.Graph(torch.stack(ends), types, num_nodes=(num_src, num_dst), num_relations=R)


def blocks(seed: int) -> tuple[columba.Graph, columba.Graph]:
    return block(9 + seed, 5 + seed, 20 + seed, seed), block(5 + seed, 2 + seed, 9, seed + 1)


INCIDENCE = torch.tensor([[0, 1, 4, 5, 0, 3], [1, 0, 0, 2, 2, 1]])
TO_EDGES = columba.Graph(INCIDENCE, num_nodes=(6, 3))
TO_NODES = columba.Graph(INCIDENCE.flip(0), num_nodes=(3, 6))
SQUARE = columba.Graph(
    torch.tensor([[0, 1, 2, 2, 3], [2, 2, 0, 3, 0]]), torch.tensor([0, 1, 0, 0, 1]), num_nodes=5, num_relations=R
)


def traces_of(function: Any, module: nn.Module | None = None) -> list[Any]:
    return function._own if module is None else type(module).forward._of_modules[module]  # type: ignore[no-any-return]


class Sampled(nn.Module):
    """Two layers, each over a sampled block whose destinations are its first sources."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(6, 8)
        self.first = columba.nn.RGATConv(8, 4, num_relations=R)
        self.second = columba.nn.RGATConv(4, 3, num_relations=R)

    def forward(self, graphs: list[columba.Graph], x: Tensor) -> Tensor:
        h = self.lift(x)
        h = F.relu(self.first((h, h[: graphs[0].num_dst]), graphs[0]))
        return self.second((h, h[: graphs[1].num_dst]), graphs[1])  # type: ignore[no-any-return]


def test_sampled_blocks_are_traced_once() -> None:
    eager = randomized(Sampled(), torch.float64)
    model = columba.compile(eager, backend="torch")
    for seed in (0, 1, 2, 1):
        graphs = blocks(seed)
        x = leaf(graphs[0].num_src, 6, seed=seed)
        for _ in range(3):  # the last one by the shortcut
            assert_same(
                lambda g, h: model(g, h), lambda g, h: eager(g, h), (list(graphs), x), tuple(eager.parameters())
            )
    (only,) = traces_of(model, model)
    assert len(only.kernels) == 2


def test_a_list_of_graphs_is_looked_at() -> None:
    function = columba.compile(lambda graphs, h: graphs[0].edges.sum(graphs[0].edges.src(h)), backend="cpp")
    h, other = leaf(5, 2), columba.Graph(torch.tensor([[4], [4]]), num_nodes=5)
    for _ in range(4):
        function([SQUARE], h)
    assert torch.equal(function([other], h)[4], h[4])


@columba.compile
def hypergraph(to_edges: columba.Graph, to_nodes: columba.Graph, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes to hyperedges and back."""
    e, n = to_edges.edges, to_nodes.edges
    hyperedge = F.relu(e.mean(e.src(x @ w)))
    alpha = n.softmax((n.src(hyperedge) * n.dst(x)).sum(-1))
    return n.sum(alpha.unsqueeze(-1) * n.src(hyperedge)) + x, hyperedge


def test_nodes_to_hyperedges_and_back() -> None:
    args = (TO_EDGES, TO_NODES, leaf(6, 4), leaf(4, 4, seed=1))
    for _ in range(3):
        assert_same(hypergraph, hypergraph.fn, args)
    assert "compiled: hypergraph, program 1 of 2" in str(columba.explain(hypergraph, *args))
    (traced,) = traces_of(hypergraph)
    assert [part.program.name for part in traced.trace.parts] == ["hypergraph", "hypergraph"]
    torch.autograd.gradcheck(lambda x, w: hypergraph(TO_EDGES, TO_NODES, x, w), (leaf(6, 4), leaf(4, 4, seed=1)))


def test_the_same_graph_twice_is_one_graph() -> None:
    @columba.compile(backend="torch")
    def both(a: columba.Graph, b: columba.Graph, h: Tensor) -> Tensor:
        return a.edges.sum(a.edges.src(h)) + b.edges.sum(b.edges.dst(h))

    h, other = leaf(5, 2), columba.Graph(torch.tensor([[4, 1], [4, 0]]), num_nodes=5)
    for graphs in ((SQUARE, SQUARE), (SQUARE, other), (other, SQUARE), (SQUARE, SQUARE), (other, other)):
        for _ in range(3):
            assert_same(both, both.fn, (*graphs, h))
    assert [len(t.kernels) for t in traces_of(both)] in ([1, 2], [2, 1])


class Split(nn.Module):
    """What the language lacks, in the middle of a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.emb = nn.Embedding(7, 4)

    def forward(self, g: columba.Graph, ids: Tensor, order: Tensor) -> dict[str, Any]:
        e = g.edges
        h = e.sum(e.src(self.lin(self.emb(ids))))
        running = torch.cumsum(torch.tanh(h), 0)
        ranked = running[order].sort(0)
        again = e.mean(e.src(F.relu(running)))
        return {"h": h, "best": ranked.values[-2:], "again": again, "rows": again.shape[0]}


def test_torch_functions_between_programs(recwarn: pytest.WarningsRecorder) -> None:
    eager = randomized(Split(), torch.float64)
    model = columba.compile(eager, backend="torch")
    small = columba.Graph(torch.tensor([[0, 1, 2], [2, 2, 0]]), num_nodes=3)
    for graph in (SQUARE, small, SQUARE, SQUARE):
        n = graph.num_nodes
        args = (graph, torch.arange(n) % 7, torch.arange(n).flip(0))
        for _ in range(3):
            assert_same(model, eager, args, tuple(eager.parameters()))
        assert model(*args)["rows"] == n
    (only,) = traces_of(model, model)  # rows of plain tensors are not what a trace depends on
    assert len(only.kernels) == 2
    reasons = [one.reason for one in columba.explain(model, *args).breaks]
    assert ["cumsum" in r and "test_parts.py:" in r for r in reasons] == [True]
    with pytest.raises(columba.UnsupportedOperation, match="cumsum"):
        columba.compile(eager, backend="torch", fullgraph=True)(*args)
    with pytest.raises(columba.UnsupportedOperation, match="cumsum"):  # of functions, unless they may
        columba.compile(type(eager).forward, backend="torch")(eager, *args)
    assert not recwarn.list


class Transposed(nn.Module):
    """PyTorch makes features out of rows, between two programs."""

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        h = g.edges.sum(g.edges.src(h))
        alike = torch.tanh(h @ torch.cumsum(h, 0).t())
        return g.edges.mean(g.edges.src(alike)).sum(-1)


def test_features_that_were_rows() -> None:
    model = columba.compile(Transposed(), backend="torch")
    for n in (5, 4, 5, 6, 4):
        graph = columba.Graph(torch.stack([torch.arange(n), torch.arange(n).flip(0)]))
        assert_same(model, Transposed(), (graph, leaf(n, 3)))
    assert len(traces_of(model, model)) == 3


def test_kernels_and_gradients_of_several_programs() -> None:
    eager = randomized(Split(), torch.float64)
    model = columba.compile(eager, backend="cpp")
    args = (SQUARE, torch.arange(5), torch.arange(5).flip(0))
    for _ in range(3):
        assert_same(model, eager, args, tuple(eager.parameters()))
    with torch.no_grad():
        torch.testing.assert_close(tensors_of(model(*args)), tensors_of(eager(*args)))
    assert all(one.shortcut is not None for one in traces_of(model, model)[1:])


class PerType(nn.Module):
    """A table for each node type, of sizes of its own, joined for the graph and split again."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.ModuleDict({"paper": nn.Linear(3, 4), "author": nn.Linear(2, 4)})
        self.out = nn.ModuleDict({"paper": nn.Linear(4, 2), "author": nn.Linear(4, 5)})
        self.convs = nn.ModuleList(columba.nn.RGCNConv(4, 4, num_relations=R) for _ in range(2))

    def forward(self, x: dict[str, Tensor], g: columba.Graph) -> dict[str, Tensor]:
        for n, conv in enumerate(self.convs):
            h = torch.cat([self.into[t](x[t]) if n == 0 else x[t] for t in ("paper", "author")])
            h = F.relu(conv(h, g))
            count = x["paper"].shape[0]
            x = {"paper": h[:count], "author": h[count:]}
        return {t: self.out[t](v) for t, v in x.items()}


def test_tensors_by_type() -> None:
    eager = randomized(PerType(), torch.float64)
    model = columba.compile(eager, backend="torch")
    for seed, papers in enumerate((3, 2, 4, 4)):
        x = {"paper": leaf(papers, 3, seed=seed), "author": leaf(5 - papers, 2, seed=seed + 9)}
        for _ in range(3):
            assert_same(model, eager, (x, SQUARE), tuple(eager.parameters()))


class Joined(nn.Module):
    """The same, by the graph's own ranges of ids; types of its tables are in another order than the graph's."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.ModuleDict({"venue": nn.Linear(3, 4), "author": nn.Linear(2, 4), "paper": nn.Linear(5, 4)})
        self.convs = nn.ModuleList(columba.nn.RGCNConv(4, 4, num_relations=R) for _ in range(2))
        self.norm = nn.ModuleDict({t: nn.LayerNorm(4) for t in self.into})

    def forward(self, x: dict[str, Tensor], g: columba.Graph) -> dict[str, Tensor]:
        h = {t: layer(x[t]) for t, layer in self.into.items()}
        for conv in self.convs:
            h = {t: self.norm[t](v.relu()) for t, v in g.split_nodes(conv(g.cat_nodes(h), g)).items()}
        return h


def typed(papers: int, authors: int, venues: int) -> columba.Graph:
    bounds = torch.tensor([0, papers, authors, venues]).cumsum(0).tolist()
    slices = {t: slice(*bounds[n : n + 2]) for n, t in enumerate(("paper", "author", "venue"))}
    n = bounds[-1]
    ends = torch.stack([torch.arange(3 * n) % n, torch.arange(3 * n) * 5 % n])
    return columba.Graph(ends, torch.arange(3 * n) % R, num_nodes=n, num_relations=R, node_slices=slices)


def test_node_types_are_joined_and_taken_apart() -> None:
    eager = randomized(Joined(), torch.float64)
    model = columba.compile(eager, backend="torch", fullgraph=True)
    for sizes in ((4, 3, 2), (3, 5, 1), (2, 6, 4)):
        features = dict(zip(("author", "venue", "paper"), (2, 3, 5), strict=True))
        rows = dict(zip(("paper", "author", "venue"), sizes, strict=True))
        x = {t: leaf(rows[t], size) for t, size in features.items()}
        for _ in range(2):
            assert_same(model, eager, (x, typed(*sizes)), tuple(eager.parameters()))
    (only,) = traces_of(model, model)
    assert len(only.kernels) == 2
    with pytest.raises(ValueError, match=r"parts\['venue'\] must have one row for each of 4 nodes"):
        model({**x, "venue": leaf(3, 3)}, typed(*sizes))
    with pytest.raises(ValueError, match="not made from one with named node types"):
        model(x, SQUARE)


def test_failed_parts_leave_everything_usable() -> None:
    args = (TO_EDGES, TO_NODES, leaf(6, 4), leaf(4, 4, seed=1))
    before = hypergraph(*args)
    with pytest.raises(ValueError, match="space src"):
        hypergraph(TO_EDGES, TO_NODES, leaf(5, 4), args[3])
    with pytest.raises(ValueError, match=r"space (src|dst)"):
        hypergraph(TO_EDGES, SQUARE_PAIR, *args[2:])
    torch.testing.assert_close(hypergraph(*args), before)


SQUARE_PAIR = columba.Graph(INCIDENCE.flip(0), num_nodes=(4, 6))


def test_each_program_of_a_model_is_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, columba.Graph, float]] = []

    def measured(variants: Any, graph: columba.Graph, backend: str, budget: float, report: Any, *, again: bool) -> Any:
        seen.append((variants.program.name, graph, budget))
        return "measured"

    monkeypatch.setattr("columba.api.tune_variants", measured)
    args = (TO_EDGES, TO_NODES, leaf(6, 4), leaf(4, 4, seed=1))
    assert columba.tune(hypergraph, *args, budget=3, again=True) == ("measured", "measured")
    assert seen == [("hypergraph", TO_EDGES, 1.5), ("hypergraph", TO_NODES, 1.5)]
    seen.clear()
    model = columba.compile(randomized(Split(), torch.float64))
    state = {k: v.clone() for k, v in model.state_dict().items()}
    columba.tune(model, SQUARE, torch.arange(5), torch.arange(5), again=True)
    assert [graph for _, graph, _ in seen] == [SQUARE, SQUARE]
    torch.testing.assert_close(dict(model.state_dict()), state)
    with pytest.raises(TuningError, match="compiled as 2 programs"):
        columba.tune(hypergraph, *args, graph=TO_EDGES)
