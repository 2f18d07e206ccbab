"""Models with compiled PyG layers in PyTorch's compilers, and on a new graph at every step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compiled import randomized
from torch import Tensor, nn

import columba

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
