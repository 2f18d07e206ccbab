"""``cached=True``: what the first call keeps, and later calls use whatever they are given."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compiled import leaf, randomized
from torch import Tensor, nn

import columba

pytestmark = pytest.mark.unoptimized

pyg = pytest.importorskip("torch_geometric.nn")

FIRST = torch.tensor([[0, 1, 2, 2, 3, 4], [1, 2, 0, 1, 3, 0]])
SECOND = torch.tensor([[4, 3, 2, 1], [0, 0, 1, 1]])


def traces_of(model: nn.Module) -> list[Any]:
    return type(model).forward._of_modules.get(model, [])  # type: ignore[attr-defined, no-any-return]


def same(compiled: nn.Module, eager: nn.Module, *args: Any, wrt: tuple[Tensor, ...] = ()) -> None:
    """Results and gradients; what was kept is differentiated again by later calls."""
    ours, theirs = compiled(*args), eager(*args)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        *(
            torch.autograd.grad(out.square().sum(), (*wrt, *m.parameters()), retain_graph=True, allow_unused=True)
            for out, m in ((ours, compiled), (theirs, eager))
        ),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


LAYERS = [
    pytest.param(lambda: pyg.GCNConv(3, 3, cached=True), id="GCNConv"),
    pytest.param(lambda: pyg.GCN(3, 4, 2, cached=True), id="GCN"),
    pytest.param(lambda: pyg.APPNP(2, 0.1, cached=True), id="APPNP", marks=pytest.mark.slow),
    pytest.param(lambda: pyg.EGConv(3, 4, num_heads=2, num_bases=2, cached=True), id="EGConv", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("make", LAYERS)
def test_normalizations_are_kept(make: Callable[[], nn.Module]) -> None:
    eager = randomized(make(), torch.float64)
    layer = copy.deepcopy(eager)
    compiled = columba.compile(layer, backend="torch", fullgraph=True, strict=True)
    for n, edge_index in enumerate((FIRST, FIRST, SECOND, SECOND)):
        x = leaf(5, 3, seed=n)
        same(compiled, eager, x, edge_index, wrt=(x,))
    assert len(traces_of(compiled)) == 1
    for ours, theirs in zip(layer.modules(), eager.modules(), strict=True):
        kept = getattr(theirs, "_cached_edge_index", None)
        if kept is not None:
            torch.testing.assert_close(ours._cached_edge_index, kept)
            assert [t.requires_grad for t in ours._cached_edge_index] == [False, False]
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(columba.compile(copied, backend="torch")(x, SECOND), eager(x, FIRST))
    if hasattr(eager, "reset_parameters") and list(eager.parameters()):
        for m in (layer, eager):
            m.reset_parameters()
        layer.load_state_dict(eager.state_dict())
        for _ in range(2):
            same(compiled, eager, x, SECOND, wrt=(x,))
            same(compiled, eager, x, FIRST, wrt=(x,))


def test_a_normalization_of_weights_keeps_their_gradient(caplog: pytest.LogCaptureFixture) -> None:
    """The call that makes it runs in Python, and says nothing; those that follow are compiled, and lead back to the same weights."""
    eager = randomized(pyg.GCNConv(3, 2, cached=True), torch.float64)
    layer = copy.deepcopy(eager)
    compiled = columba.compile(layer, backend="torch", strict=True)
    weight = leaf(6).detach().exp().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in range(3):
            x = leaf(5, 3, seed=n)
            same(compiled, eager, x, FIRST, weight, wrt=(x, weight))
    assert len(traces_of(compiled)) == 1
    assert not caplog.records
    with pytest.raises(
        columba.TraceError, match="_cached_edge_index is empty, and this call keeps what it computes there"
    ):
        columba.compile(pyg.GCNConv(3, 2, cached=True).double(), fullgraph=True)(x, FIRST, weight)


def test_results_are_kept() -> None:
    """A layer that keeps what its message passing gave has nothing left to compile, which is no error, strict or not."""
    eager = randomized(pyg.SGConv(3, 2, K=2, cached=True), torch.float64)
    compiled = columba.compile(copy.deepcopy(eager), backend="torch", strict=True)
    for edge_index in (FIRST, SECOND, FIRST):
        x = leaf(5, 3)
        same(compiled, eager, x, edge_index)


class Last(nn.Module):
    """Keeps something of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = pyg.GraphConv(3, 2)
        self.last: Tensor | None = None

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.last = edge_index + 1
        return self.conv(x, edge_index)


def test_what_each_call_keeps_is_no_cache() -> None:
    eager = randomized(Last(), torch.float64)
    layer = copy.deepcopy(eager)
    compiled = columba.compile(layer, backend="torch")
    for edge_index in (FIRST, FIRST, SECOND, FIRST):
        torch.testing.assert_close(compiled(leaf(5, 3), edge_index), eager(leaf(5, 3), edge_index))
        torch.testing.assert_close(layer.last, edge_index + 1)
