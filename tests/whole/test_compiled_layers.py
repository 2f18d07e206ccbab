"""Shipped layers and layers that users might write, compiled to C++ kernels, against the same layers run eagerly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compiled import PAIRS, assert_same, leaf, randomized, tensors_of
from custom_layers import CUSTOM_LAYERS, CustomLayer
from eager_graphs import NODE_TYPES, RELATIONS, bipartite_graph, square_graphs
from torch import Tensor

import columba
from columba import nn
from columba.runtime.graphs.graph import Graph

SIZES = (1, 7, 16, 64, 100)
GRAPHS = square_graphs()

Build = Callable[[], torch.nn.Module]


def rgcn(size: int, **options: Any) -> Build:
    return lambda: nn.RGCNConv(size, size, RELATIONS, **options)


def rgat(size: int, heads: int, **options: Any) -> Build:
    return lambda: nn.RGATConv(size, size, RELATIONS, heads=heads, **options)


def hgt(size: int, heads: int) -> Build:
    return lambda: nn.HGTConv(size, size * heads, NODE_TYPES, RELATIONS, heads=heads)


def _matrix() -> tuple[dict[str, tuple[Build, int]], dict[str, tuple[Build, int]]]:
    """The layers of the default run, and the rest of the whole matrix."""
    everything: dict[str, tuple[Build, int]] = {}
    default: set[str] = set()

    def add(name: str, build: Build, size: int, *, quick: bool) -> None:
        everything[name] = build, size
        if quick:
            default.add(name)

    for size in SIZES:
        for aggr in ("mean", "sum"):
            add(f"rgcn {aggr} {size}", rgcn(size, aggr=aggr), size, quick=(aggr, size) == ("mean", 7))
            add(f"rgcn {aggr} bases {size}", rgcn(size, aggr=aggr, num_bases=3), size, quick=False)
            for blocks in {1: (1,), 7: (7,), 16: (4,), 64: (2,), 100: (5,)}[size]:
                add(
                    f"rgcn {aggr} blocks {size}",
                    rgcn(size, aggr=aggr, num_blocks=blocks),
                    size,
                    quick=(aggr, size) == ("sum", 16),
                )
        for heads in (1, 3, 4):  # widths: one number, less than a vector, whole vectors, and many with a rest
            add(f"rgat {heads}x{size}", rgat(size, heads), size, quick=(heads, size) == (3, 7))
            add(f"hgt {heads}x{size}", hgt(size, heads), size, quick=(heads, size) == (3, 7))
    add("rgcn max", rgcn(7, aggr="max"), 7, quick=True)
    add("rgcn without root", rgcn(7, root_weight=False, bias=False), 7, quick=False)
    add("rgat mean of heads", rgat(7, 3, concat=False), 7, quick=True)
    add("hgt skip", lambda: nn.HGTConv(6, 6, NODE_TYPES, RELATIONS, heads=2), 6, quick=False)
    return {k: v for k, v in everything.items() if k in default}, {
        k: v for k, v in everything.items() if k not in default
    }


DEFAULT, REST = _matrix()
MATRIX = {**DEFAULT, **REST}


def check_on_all_graphs(name: str, dtype: torch.dtype) -> None:
    build, size = MATRIX[name]
    torch.manual_seed(0)
    eager = randomized(build(), dtype)
    compiled = columba.compile(eager, backend="cpp")
    for graph in GRAPHS.values():
        assert_same(compiled, eager, [leaf(graph.num_nodes, size, dtype=dtype), graph], list(eager.parameters()))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.unoptimized)
        if n == "rgat mean of heads"
        else pytest.param(n, marks=pytest.mark.slow)
        if n == "hgt 3x7"
        else n
        for n in DEFAULT
    ],
)
def test_layers_in_float64(name: str) -> None:
    check_on_all_graphs(name, torch.float64)


@pytest.mark.parametrize("name", ["rgcn mean 64", "rgat 1x100", pytest.param("hgt 4x16", marks=pytest.mark.slow)])
def test_layers_in_float32(name: str) -> None:
    check_on_all_graphs(name, torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", REST)
def test_more_layers_in_float64(name: str) -> None:
    check_on_all_graphs(name, torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("name", MATRIX)
def test_more_layers_in_float32(name: str) -> None:
    check_on_all_graphs(name, torch.float32)


@pytest.mark.unoptimized
@pytest.mark.parametrize(
    "name",
    ["rgcn mean 7", "hgt 3x7", *(pytest.param(n, marks=pytest.mark.slow) for n in ("rgcn mean bases 7", "rgat 3x7"))],
)
def test_bipartite_graphs(name: str) -> None:
    build, size = MATRIX[name]
    eager = randomized(build(), torch.float64)
    compiled = columba.compile(eager, backend="cpp")
    graph = bipartite_graph()

    def run(layer: torch.nn.Module) -> Callable[..., Tensor]:
        return lambda src, dst: layer((src, dst), graph)

    args = [leaf(graph.num_src, size), leaf(graph.num_dst, size, seed=1)]
    assert_same(run(compiled), run(eager), args, list(eager.parameters()))


@pytest.mark.parametrize(
    "name",
    [
        "rgcn mean 7",
        pytest.param("rgat 3x7", marks=pytest.mark.slow),
        pytest.param("hgt skip", marks=pytest.mark.unoptimized),
    ],
)
def test_edge_index_tensors(name: str) -> None:
    build, size = MATRIX[name]
    eager = randomized(build(), torch.float64)
    compiled = columba.compile(eager, backend="cpp")
    for graph in (GRAPHS["random"], GRAPHS["hub"]):
        types = [graph.node_type] if name.startswith("hgt") else []
        args = [leaf(graph.num_nodes, size), graph.edge_index, graph.edge_type, *types]
        assert_same(compiled, eager, args, list(eager.parameters()))


@pytest.mark.parametrize(
    "name",
    [
        "rgcn mean 7",
        pytest.param("rgcn sum 7", marks=pytest.mark.slow),
        *(
            pytest.param(n, marks=pytest.mark.unoptimized)
            for n in ("rgcn mean bases 7", "rgcn mean blocks 16", "hgt skip")
        ),
        "rgat 3x7",
    ],
)
def test_gradcheck(name: str) -> None:
    build, size = MATRIX[name]
    compiled = columba.compile(randomized(build(), torch.float64), backend="cpp")
    graph = GRAPHS["random"]
    parameters = dict(compiled.named_parameters())

    def run(x: Tensor, *values: Tensor) -> Any:
        return torch.func.functional_call(compiled, dict(zip(parameters, values, strict=True)), (x, graph))

    values = [p.detach().clone().requires_grad_() for p in parameters.values()]
    assert torch.autograd.gradcheck(run, (leaf(graph.num_nodes, size), *values), fast_mode=True)


@pytest.mark.parametrize(
    "custom",
    [
        pytest.param(
            c,
            marks=pytest.mark.unoptimized if c.name in ("gated", "composition", "relation_pooling", "two_hops") else (),
        )
        for c in CUSTOM_LAYERS
    ],
    ids=lambda s: s.name,
)
def test_custom_layers(custom: CustomLayer) -> None:
    torch.manual_seed(0)
    eager = custom.build(RELATIONS, NODE_TYPES).double()
    compiled = columba.compile(eager, backend="cpp")
    for graph in GRAPHS.values():
        inputs = [t.requires_grad_() for t in custom.inputs(graph, torch.float64)]
        assert_same(compiled, eager, [graph, *inputs], list(eager.parameters()))


@pytest.mark.unoptimized
@pytest.mark.parametrize(
    "custom",
    [pytest.param(c, marks=() if c.name == "source_attention" else pytest.mark.slow) for c in CUSTOM_LAYERS],
    ids=lambda s: s.name,
)
def test_custom_layers_train(custom: CustomLayer) -> None:
    torch.manual_seed(0)
    graph = GRAPHS["random"]
    model = columba.compile(custom.build(RELATIONS, NODE_TYPES), backend="cpp")
    inputs = custom.inputs(graph, torch.float32)
    targets = [torch.randn_like(t) for t in tensors_of(model(graph, *inputs))]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        outputs = tensors_of(model(graph, *inputs))
        loss = sum(((o - t) ** 2).mean() for o, t in zip(outputs, targets, strict=True) if o.requires_grad)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.unoptimized
@pytest.mark.parametrize(
    "options",
    [*(pytest.param(o, marks=pytest.mark.slow) for o in ({}, {"aggr": "sum"})), {"num_bases": 3}, {"num_blocks": 2}],
    ids=str,
)
def test_rgcn_equals_pyg(options: dict[str, Any]) -> None:
    pyg = pytest.importorskip("torch_geometric.nn")
    theirs = pyg.RGCNConv(6, 4, RELATIONS, **options).double()
    ours = nn.RGCNConv(6, 4, RELATIONS, **options).double()
    ours.load_state_dict(theirs.state_dict())
    compiled = columba.compile(ours, backend="cpp")
    graph = GRAPHS["random"]
    x = leaf(graph.num_nodes, 6)
    names = dict(theirs.named_parameters())
    y = theirs(x, graph.edge_index, graph.edge_type)
    z = compiled(x, graph.edge_index, graph.edge_type)
    torch.testing.assert_close(z, y, atol=1e-10, rtol=1e-10)
    direction = torch.randn_like(y)
    expected = torch.autograd.grad(y, [x, *names.values()], direction)
    mine = dict(compiled.named_parameters())
    found = torch.autograd.grad(z, [x, *(mine[n] for n in names)], direction)
    for e, f in zip(expected, found, strict=True):
        torch.testing.assert_close(f, e, atol=1e-10, rtol=1e-10)


class TwoLayers(torch.nn.Module):
    """A whole model in one program."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.RGATConv(5, 4, RELATIONS, heads=2)
        self.second = nn.RGCNConv(8, 3, RELATIONS)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        return self.second(torch.relu(self.first(x, graph)), graph).log_softmax(-1)


@pytest.mark.unoptimized
def test_a_model_is_one_program() -> None:
    eager = randomized(TwoLayers(), torch.float64)
    compiled = columba.compile(eager, backend="cpp")
    for graph in GRAPHS.values():
        assert_same(compiled, eager, [leaf(graph.num_nodes, 5), graph], list(eager.parameters()))


def test_gradients_of_large_logits_cancel() -> None:
    """A softmax does not change if its logits are all moved by one amount: that sum of their gradients is 0, however large they are."""

    @columba.compile(passes=PAIRS)
    def attention(g: Graph, logits: Tensor, values: Tensor) -> Tensor:
        e = g.edges
        return e.sum(e.softmax(e(logits), by="src") * e.src(values))

    graph = GRAPHS["random"]
    logits = 300 + 0.1 * leaf(graph.num_edges, dtype=torch.float32).detach()
    logits.requires_grad_()
    values = leaf(graph.num_nodes, dtype=torch.float32, seed=1)
    (grad,) = torch.autograd.grad(attention(graph, logits, values).sum(), logits)
    sums = torch.zeros(graph.num_nodes).index_add_(0, graph.edge_index[0], grad)
    assert values.abs().max() > 1
    torch.testing.assert_close(sums, torch.zeros_like(sums), atol=2e-6, rtol=0)
