"""CUDA graphs of plans that come back, on a GPU that is not there: kernels run in the interpreter, on addresses."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import gpu_stand_in
import pytest
import torch
from torch import Tensor, nn

import columba
from columba.nn import HGTConv, RGATConv, RGCNConv
from columba.runtime.executable import kernel_times
from columba.runtime.graphs.graph import Graph
from columba.runtime.triton.replay import ReplayedPlan

pytest.importorskip("triton")

PASSES = "-aggregate_first,compact_materialization"


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "rgcn": lambda: RGCNConv(16, 16, 3),
    "rgat": lambda: RGATConv(16, 8, 3, heads=2),
    "hgt": lambda: HGTConv(16, 16, 2, 3, heads=2),
}


def random_graph(nodes: int, edges: int) -> Graph:
    generator = torch.Generator().manual_seed(0)
    return Graph(
        torch.randint(nodes, (2, edges), generator=generator),
        torch.randint(3, (edges,), generator=generator),
        num_nodes=nodes,
        num_relations=3,
        node_type=torch.arange(nodes) % 2,
        num_node_types=2,
    )


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    gpu_stand_in.install_interpreted(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The plans that were recorded, each time."""
    found: list[str] = []
    record = ReplayedPlan._record

    def noted(self: ReplayedPlan, *args: object) -> object:
        found.append(self.plan.plan.name)
        return record(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(ReplayedPlan, "_record", noted)
    return found


def check(compiled: nn.Module, layer: nn.Module, graph: Graph, x: Tensor, direction: Tensor) -> None:
    y, wanted = compiled(x, graph), layer(x, graph)
    torch.testing.assert_close(y, wanted, atol=1e-4, rtol=1e-4)
    leaves = [x, *layer.parameters()]
    found = torch.autograd.grad(y, leaves, direction)
    expected = torch.autograd.grad(wanted, leaves, direction, materialize_grads=True)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def compiled_of(layer: nn.Module) -> nn.Module:
    return columba.compile(layer, backend="triton", passes=PASSES, cuda_graphs=True)


@pytest.mark.parametrize(
    "name", ["rgcn", pytest.param("rgat", marks=pytest.mark.slow), pytest.param("hgt", marks=pytest.mark.slow)]
)
def test_inputs_and_parameters_change(interpreted: None, recorded: list[str], name: str) -> None:
    """Other values, at the same address and at others; parameters that are stepped, and that are replaced."""
    torch.manual_seed(0)
    layer, graph = LAYERS[name](), random_graph(9, 30)
    compiled, directions = compiled_of(layer), [torch.randn(9, 16) for _ in range(6)]
    for n in range(6):
        check(compiled, layer, graph, torch.randn(9, 16, requires_grad=True), directions[n])
        with torch.no_grad():
            for p in layer.parameters():
                p.add_(0.1 * torch.randn_like(p))
    assert {plan.removesuffix("_backward") for plan in recorded} == {type(layer).__name__}
    before = len(recorded)
    assert 2 <= before <= 4
    first = next(layer.parameters())
    kept = first.data
    first.data = kept + 1.0
    check(compiled, layer, graph, torch.randn(9, 16, requires_grad=True), directions[0])
    assert len(recorded) > before


def test_results_are_the_callers(interpreted: None, recorded: list[str]) -> None:
    """Several calls are under way; what one gave is as it was after others."""
    layer, graph = LAYERS["rgcn"](), random_graph(9, 30)
    compiled = compiled_of(layer)
    xs = [torch.randn(9, 16, requires_grad=True) for _ in range(5)]
    ys = [compiled(x, graph) for x in xs]
    assert recorded == ["RGCNConv"]
    copies = [y.detach().clone() for y in ys]
    for n in (4, 0, 3, 1, 2):
        ys[n].sum().backward()
    for x, y, copy in zip(xs, ys, copies, strict=True):
        torch.testing.assert_close(y, copy, atol=0, rtol=0)
        (wanted,) = torch.autograd.grad(layer(x, graph).sum(), x)
        torch.testing.assert_close(x.grad, wanted, atol=1e-3, rtol=1e-3)


def test_dropout_draws_anew(interpreted: None, recorded: list[str]) -> None:
    @columba.compile(backend="triton", cuda_graphs=True)
    def dropped(g: Graph, h: Tensor) -> Tensor:
        return g.edges.sum(torch.nn.functional.dropout(g.edges.src(h), 0.5))

    graph, x = random_graph(9, 30), torch.ones(9, 4)
    found = [dropped(graph, x) for _ in range(6)]
    assert recorded == ["dropped"]
    assert len({tuple(y.flatten().tolist()) for y in found}) == 6


def test_timed_kernels_are_not_replayed(monkeypatch: pytest.MonkeyPatch, recorded: list[str]) -> None:
    gpu_stand_in.install(monkeypatch)
    layer, graph = LAYERS["rgcn"]().requires_grad_(False), random_graph(9, 30)
    compiled, x = compiled_of(layer), torch.randn(9, 16)
    with kernel_times() as times:
        for _ in range(4):
            compiled(x, graph)
    assert not recorded
    assert all(len(seconds) == 4 for kernels in times.values() for seconds in kernels.values())


def test_other_graphs_have_recordings_of_their_own(interpreted: None, recorded: list[str]) -> None:
    layer = LAYERS["rgcn"]().requires_grad_(False)
    compiled = compiled_of(layer)
    for _ in range(4):
        for graph in (random_graph(9, 30), random_graph(5, 0)):
            x = torch.randn(graph.num_nodes, 16)
            torch.testing.assert_close(compiled(x, graph), layer(x, graph), atol=1e-4, rtol=1e-4)
    assert not recorded  # these were new graphs each time
    graphs = [(graph, torch.randn(graph.num_nodes, 16)) for graph in (random_graph(9, 30), random_graph(5, 0))]
    for _ in range(4):
        for graph, x in graphs:
            torch.testing.assert_close(compiled(x, graph), layer(x, graph), atol=1e-4, rtol=1e-4)
    assert recorded == ["RGCNConv"] * 2
