"""PyG's layers on sparse adjacency matrices: their own code for those, traced as it stands."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compiled import assert_same, leaf, randomized
from torch import Tensor, nn
from torch_geometric.utils import to_torch_coo_tensor, to_torch_csc_tensor, to_torch_csr_tensor

import columba

pyg = pytest.importorskip("torch_geometric.nn")
pytestmark = pytest.mark.filterwarnings("ignore:.*[sS]parse.*:UserWarning")

MAKE: dict[str, Callable[..., Tensor]] = {
    "coo": to_torch_coo_tensor,
    "csr": to_torch_csr_tensor,
    "csc": to_torch_csc_tensor,
}


def edges(nodes: int, count: int) -> Tensor:
    """Distinct, without loops."""
    index = torch.randint(nodes, (2, count), generator=torch.Generator().manual_seed(count))
    return index[:, index[0] != index[1]].unique(dim=1)


def traces_of(model: nn.Module) -> list[Any]:
    return type(model).forward._of_modules[model]  # type: ignore[attr-defined, no-any-return]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4))


SLOW = pytest.mark.slow
LAYERS = [
    pytest.param("csr", lambda: pyg.GCNConv(4, 3), id="GCNConv"),
    pytest.param("coo", lambda: pyg.GCN(4, 6, 2, dropout=0.0), id="GCN"),
    pytest.param("csr", lambda: pyg.GATConv(4, 3, heads=2), id="GATConv"),
    pytest.param("csr", lambda: pyg.SAGEConv((4, 4), 3, aggr="max"), id="SAGEConv"),
    pytest.param("csc", lambda: pyg.GraphConv(4, 3, aggr="mean"), id="GraphConv"),
    pytest.param("coo", lambda: pyg.TAGConv(4, 3, K=2), id="TAGConv"),
    pytest.param("csr", lambda: pyg.GINConv(mlp()), id="GINConv", marks=SLOW),
    pytest.param("csr", lambda: pyg.GATv2Conv(4, 3), id="GATv2Conv", marks=SLOW),
    pytest.param("coo", lambda: pyg.GAT(4, 6, 2, dropout=0.0), id="GAT", marks=SLOW),
    pytest.param("csr", lambda: pyg.SGConv(4, 3, K=2), id="SGConv", marks=SLOW),
    pytest.param("coo", lambda: pyg.APPNP(2, 0.1), id="APPNP", marks=SLOW),
    pytest.param("csr", lambda: pyg.TransformerConv(4, 3, heads=2), id="TransformerConv", marks=SLOW),
    pytest.param("csr", lambda: pyg.GatedGraphConv(4, 2), id="GatedGraphConv", marks=SLOW),
    pytest.param("coo", lambda: pyg.EGConv(4, 4, num_heads=2, num_bases=2), id="EGConv", marks=SLOW),
    pytest.param("csr", lambda: pyg.GraphSAGE(4, 6, 2), id="GraphSAGE", marks=SLOW),
]


@pytest.mark.parametrize(("kind", "make"), LAYERS)
def test_layers(kind: str, make: Callable[[], nn.Module]) -> None:
    """One trace of one program for graphs of any size; gradients of features, of values where PyTorch has these, and of parameters."""
    eager = randomized(make(), torch.float64)
    model = columba.compile(copy.deepcopy(eager), backend="torch", fullgraph=True)
    for nodes, count in ((6, 14), (6, 14), (9, 31)):
        index = edges(nodes, count)
        weights = torch.rand(index.shape[1], dtype=torch.float64) + 0.1
        if kind == "csr":  # PyTorch cannot differentiate the others
            weights.requires_grad_()

        def call(model: nn.Module, x: Tensor, values: Tensor, index: Tensor = index, n: int = nodes) -> Any:
            return model(x, MAKE[kind](index.flip(0), values, size=(n, n)))

        assert_same(
            lambda *a, call=call: call(model, *a), lambda *a, call=call: call(eager, *a), (leaf(nodes, 4), weights)
        )
        adj = MAKE[kind](index.flip(0), weights.detach(), size=(nodes, nodes))
        x = leaf(nodes, 4, seed=2)
        ours, theirs = (torch.autograd.grad(m(x, adj).square().sum(), (x, *m.parameters())) for m in (model, eager))
        torch.testing.assert_close(ours, theirs)
    (only,) = traces_of(model)
    assert len(only.trace.parts) == 1


def test_loops_that_a_graph_has() -> None:
    """Where self-loops are added, they and what is there at the same places become one."""
    eager = randomized(pyg.GCNConv(4, 3), torch.float64)
    model = columba.compile(copy.deepcopy(eager), backend="torch", fullgraph=True)
    index = torch.tensor([[0, 1, 2, 2, 3, 0], [1, 1, 0, 2, 1, 3]])
    for n in range(2):
        values = torch.arange(1.0, 7.0, dtype=torch.float64) * (n + 1)
        adj = to_torch_csr_tensor(index, values, size=(4, 4))
        assert_same(model, eager, (leaf(4, 4), adj))


def test_the_same_layer_on_edges_and_on_matrices() -> None:
    layer = pyg.SAGEConv(4, 3).double()
    compiled = columba.compile(layer, backend="torch", fullgraph=True)
    index = edges(5, 12)
    found = [index, *(make(index, torch.ones(index.shape[1]).double(), size=(5, 5)).t() for make in MAKE.values())]
    for edges_ in (*found, *found):
        x = leaf(5, 4)
        torch.testing.assert_close(compiled(x, edges_), layer(x, index))


@pytest.mark.unoptimized
def test_bipartite_matrices_and_kernels() -> None:
    """With C++ kernels, and by the shortcut of calls that come again."""
    layer = randomized(pyg.SAGEConv((4, 3), 5), torch.float64)
    compiled = columba.compile(layer, backend="cpp", fullgraph=True)
    index = torch.stack([torch.randint(7, (15,)), torch.randint(5, (15,))]).unique(dim=1)
    adj = to_torch_csr_tensor(index.flip(0), torch.rand(index.shape[1]).double(), size=(5, 7))
    for _ in range(3):
        assert_same(compiled, layer, ((leaf(7, 4), leaf(5, 3, seed=1)), adj))
    (only,) = traces_of(compiled)
    assert only.shortcut is not None


def test_two_matrices_of_the_same_size() -> None:
    """What follows from the sizes of one follows from those of the other."""
    eager = randomized(pyg.SignedConv(4, 3, first_aggr=True), torch.float64)
    model = columba.compile(copy.deepcopy(eager), backend="torch", fullgraph=True)
    for nodes, count in ((6, 14), (6, 14), (9, 31)):
        first, second = (
            to_torch_csc_tensor(edges(nodes, n), size=(nodes, nodes)).to(torch.float64).t() for n in (count, count + 5)
        )
        for args in ((first, second), (first, first), (second, first)):
            x = leaf(nodes, 4)
            torch.testing.assert_close(model(x, *args), eager(x, *args))
