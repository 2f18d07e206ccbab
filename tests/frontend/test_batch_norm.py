"""Batch norm over the rows of a space: values, gradients and running statistics are PyTorch's, and are stored by calls that succeed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from compiled import leaf
from eager_graphs import square_graphs
from torch import Tensor, nn

import columba

pytestmark = pytest.mark.unoptimized

GRAPH = square_graphs()["random"]
N = GRAPH.num_nodes


class Normalized(nn.Module):
    """One layer on edges and on nodes, another on what has two feature dimensions, and a counter."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm1d(4, **options), nn.BatchNorm1d(2, **options)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, g: columba.Graph, x: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.add_(2)
        h = self.first(g.edges.sum(self.first(g.edges.src(x))))
        return h, self.second(h.view(-1, 2, 2)) * self.calls


@pytest.mark.parametrize(
    ("options", "backend"),
    [
        ({}, "cpp"),
        ({"affine": False}, "torch"),
        ({"track_running_stats": False}, "torch"),
        ({"momentum": 0.3, "eps": 0.1}, "torch"),
    ],
)
def test_training_and_evaluation(options: dict[str, Any], backend: str) -> None:
    module = Normalized(**options).double()
    eager = copy.deepcopy(module)
    compiled = columba.compile(module, backend=backend, fullgraph=True)
    x = leaf(N, 4)
    for training in (True, True) if backend == "cpp" else (True, True, False):
        module.train(training)
        eager.train(training)
        got, wanted = compiled(GRAPH, x), eager(GRAPH, x)
        torch.testing.assert_close(got, wanted)
        drawn = [torch.randn(w.shape, dtype=w.dtype, generator=torch.Generator().manual_seed(1)) for w in wanted]
        found = torch.autograd.grad(got, [x, *module.parameters()], drawn)
        torch.testing.assert_close(found, torch.autograd.grad(wanted, [x, *eager.parameters()], drawn))
        for name, state in eager.state_dict().items():
            torch.testing.assert_close(module.state_dict()[name], state, msg=name)
    if "track_running_stats" not in options:
        assert module.first.num_batches_tracked == 4
    assert module.calls == eager.calls >= 4


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}])
def test_of_no_rows_there_are_no_statistics(options: dict[str, Any]) -> None:
    """A call on a graph without edges, or without nodes, leaves running statistics as they are, and gradients are 0, not NaN."""
    eager = Normalized(**options).double()
    compiled = columba.compile(copy.deepcopy(eager), backend="torch", fullgraph=True)
    for nodes, edges in (
        (N, GRAPH.edge_index),
        (N, GRAPH.edge_index[:, :0]),
        (0, GRAPH.edge_index[:, :0]),
        (N, GRAPH.edge_index),
    ):
        graph, x = columba.Graph(edges, num_nodes=nodes), leaf(nodes, 4)
        got, wanted = compiled(graph, x), eager(graph, x)
        torch.testing.assert_close(got, wanted)
        found, expected = (
            torch.autograd.grad(sum(t.sum() for t in out), [x, *module.parameters()], allow_unused=True)
            for out, module in ((got, compiled), (wanted, eager))
        )
        torch.testing.assert_close(found, expected)
        assert compiled.state_dict().keys() == eager.state_dict().keys()
        for name, state in eager.state_dict().items():
            torch.testing.assert_close(compiled.state_dict()[name], state, msg=name)
            assert state.isfinite().all()


def test_what_fails_stores_nothing() -> None:
    module = Normalized()
    compiled = columba.compile(module, backend="torch", fullgraph=True)
    x = torch.arange(4.0 * N).view(N, 4)
    compiled(GRAPH, x)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match="one row per row of space node"):
        compiled(GRAPH, x[:-1])
    one = columba.Graph(torch.tensor([[0], [0]]), num_nodes=1)
    with pytest.raises(ValueError, match=r"test_batch_norm.*Expected more than 1 value per channel when training"):
        compiled(one, x[:1])
    for name, state in module.state_dict().items():
        assert torch.equal(state, before[name]), name
    module.eval()
    assert compiled(one, x[:1])[0].shape == (1, 4)


def test_what_is_refused_or_runs_outside() -> None:
    """A cumulative average needs the value of the counter; an argument is nobody's buffer."""
    module = Normalized(momentum=None)
    eager = copy.deepcopy(module)
    x = torch.arange(4.0 * N).view(N, 4) ** 2
    with pytest.raises(columba.TraceError, match=r"float\(x\) needs the values of a tensor"):
        columba.compile(module, backend="torch", fullgraph=True)(GRAPH, x)
    torch.testing.assert_close(columba.compile(module, backend="torch")(GRAPH, x), eager(GRAPH, x))
    torch.testing.assert_close(module.state_dict(), eager.state_dict())

    @columba.compile(backend="torch")
    def counting(g: columba.Graph, x: Tensor, t: Tensor) -> Tensor:
        t.add_(1)
        return g.nodes(x) * t

    with pytest.raises(columba.TraceError, match="add_ changes a tensor in place"):
        counting(GRAPH, x, torch.zeros(()))


def test_sixteen_bits_and_no_gradient() -> None:
    module = Normalized().bfloat16()
    eager = copy.deepcopy(module)
    compiled = columba.compile(module, backend="torch")
    x = leaf(N, 4).detach().bfloat16()
    with torch.no_grad():
        torch.testing.assert_close(compiled(GRAPH, x), eager(GRAPH, x), atol=0.05, rtol=0.05)
    for name, state in eager.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], state, atol=0.05, rtol=0.05, msg=name)
