"""Models with compiled PyG layers in PyTorch's compilers, and on a new graph at every step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compiled import randomized
from torch import Tensor, nn

import columba

pytestmark = pytest.mark.unoptimized

pyg = pytest.importorskip("torch_geometric.nn")


class Around(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.layer(x, edge_index).relu() + 1


def calls() -> list[tuple[Tensor, Tensor]]:
    found = []
    for nodes, count in ((20, 60), (15, 40), (15, 41)):
        generator = torch.Generator().manual_seed(count)
        x = torch.randn(nodes, 4, generator=generator, dtype=torch.float64)
        found.append((x.requires_grad_(), torch.randint(nodes, (2, count), generator=generator)))
    return found


@pytest.fixture(autouse=True)
def _reset() -> Any:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_within_torch_compile() -> None:
    eager = randomized(pyg.GCN(4, 4, 2), torch.float64)
    model = torch.compile(Around(columba.compile(eager, backend="torch")), fullgraph=True, backend="aot_eager")
    for args in calls():
        wanted, got = Around(eager)(*args), model(*args)
        torch.testing.assert_close(got, wanted)
        torch.testing.assert_close(torch.autograd.grad(got.sum(), args[0]), torch.autograd.grad(wanted.sum(), args[0]))


def test_exported() -> None:
    eager = randomized(pyg.GATConv(4, 4), torch.float64)
    model = Around(columba.compile(eager, backend="torch")).eval()
    x, index = calls()[0]
    sizes = {"x": {0: torch.export.Dim("nodes")}, "edge_index": {1: torch.export.Dim("edges")}}
    exported = torch.export.export(model, (x.detach(), index), dynamic_shapes=sizes).module()
    for args in calls():
        torch.testing.assert_close(exported(*args), Around(eager)(*args))


class Classifier(nn.Module):
    """Layers with norms over all nodes, what is pooled of each graph of a batch, and the largest of all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = pyg.GIN(4, 4, 2, norm="layer"), nn.Linear(4, 2)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        h = self.layers(x, edge_index)
        return self.head(pyg.global_mean_pool(h / h.amax(), batch, 3)).log_softmax(-1)


def test_batches_in_pytorchs_compilers() -> None:
    def batch_of(sizes: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        batch = torch.arange(3).repeat_interleave(torch.tensor(sizes))
        index = torch.randint(len(batch), (2, 60), generator=torch.Generator().manual_seed(sizes[0]))
        x = torch.randn(len(batch), 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return x, index[:, batch[index[0]] == batch[index[1]]], batch

    eager = randomized(Classifier(), torch.float64).eval()
    model = columba.compile(eager, backend="torch")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    any_size = torch.export.Dim.DYNAMIC
    sizes = {"x": {0: any_size}, "edge_index": {1: any_size}, "batch": {0: any_size}}
    exported = torch.export.export(model, batch_of([3, 5, 2]), dynamic_shapes=sizes).module()
    for args in (batch_of([3, 5, 2]), batch_of([4, 4, 1]), batch_of([2, 0, 7])):
        for one in (model, compiled, exported):
            torch.testing.assert_close(one(*args), eager(*args))
    traces = type(model).forward._of_modules[model]  # type: ignore[attr-defined]
    assert {len(one.trace.parts) for one in traces} == {1}


@pytest.mark.parametrize("steps", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_a_new_graph_at_every_step_is_one_trace(steps: int) -> None:
    eager = randomized(pyg.GAT(4, 4, 2, out_channels=3), torch.float32)
    model = columba.compile(eager, backend="cpp", fullgraph=True)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        nodes, count = (int(torch.randint(5, 60, (), generator=generator)) for _ in range(2))
        x = torch.randn(nodes, 4, generator=generator)
        index = torch.randint(nodes, (2, count), generator=generator)
        torch.testing.assert_close(model(x, index), eager(x, index), atol=1e-5, rtol=1e-4)
    (only,) = type(model).forward._of_modules[model]  # type: ignore[attr-defined]
    assert len(only.kernels) == 1
