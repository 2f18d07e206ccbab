"""PyG's ``Sequential``: a ``forward`` is generated for each module, and set on it and, of the last one, on the class."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, GraphConv, Sequential, global_mean_pool

import columba
from columba.frontend.errors import TraceError

pytestmark = pytest.mark.unoptimized

X = torch.randn(6, 4, dtype=torch.float64)
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0], [1, 2, 3, 4, 5, 0, 3]])
BATCH = torch.tensor([0, 0, 0, 1, 1, 1])


def two_layers() -> Sequential:
    return Sequential(
        "x, edge_index, batch",
        [
            (GCNConv(4, 8), "x, edge_index -> h"),
            nn.ReLU(inplace=True),
            (GCNConv(8, 4), "h, edge_index -> x"),
            (global_mean_pool, "x, batch -> x"),
        ],
    ).double()


def one_layer() -> Sequential:
    return Sequential("x, edge_index", [(GraphConv(4, 4), "x, edge_index -> x"), nn.Tanh()]).double()


def test_each_has_its_own() -> None:
    first = two_layers()
    compiled = columba.compile(first, backend="torch", strict=True)
    second = one_layer()  # whose forward the class has from now on
    of_second = columba.compile(second, backend="torch", strict=True)
    for _ in range(2):
        torch.testing.assert_close(compiled(X, EDGES, BATCH), first(X, EDGES, BATCH))
        torch.testing.assert_close(of_second(X, EDGES), second(X, EDGES))
    compiled(X, EDGES, BATCH).square().sum().backward()
    found = [p.grad for p in first.parameters()]
    first.zero_grad()
    first(X, EDGES, BATCH).square().sum().backward()
    for a, p in zip(found, first.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad)
    assert [layer.kind for layer in columba.explain(compiled, X, EDGES, BATCH).layers][:2] == ["GCNConv", "ReLU"]


def test_copies_run_compiled() -> None:
    compiled = columba.compile(two_layers(), backend="torch")
    wanted = compiled(X, EDGES, BATCH)
    for made in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
        other = one_layer()
        assert type(made) is type(compiled)
        torch.testing.assert_close(made(X, EDGES, BATCH), wanted)
        assert len(columba.explain(made, X, EDGES, BATCH).regions) >= 1
        with torch.no_grad():
            next(made.parameters()).add_(1)
        assert not torch.allclose(made(X, EDGES, BATCH), wanted)
        torch.testing.assert_close(compiled(X, EDGES, BATCH), wanted)
        assert other(X, EDGES).shape == (6, 4)
    assert compiled.state_dict().keys() == two_layers().state_dict().keys()


def test_within_a_model_that_runs_in_regions() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = one_layer(), two_layers()

        def forward(self, x: Tensor, edges: Tensor, batch: Tensor) -> Tensor:
            x = self.first(x, edges)
            print(end="")
            return self.second(x, edges, batch)

    model = Model()
    compiled = columba.compile(copy.deepcopy(model), backend="torch")
    torch.testing.assert_close(compiled(X, EDGES, BATCH), model(X, EDGES, BATCH))
    found = columba.explain(model, X, EDGES, BATCH)
    assert {region.name for region in found.regions} == {"first", "second"}


def test_another_forward() -> None:
    compiled = columba.compile(one_layer(), backend="torch")
    before = compiled(X, EDGES)
    compiled.forward = (lambda self, x, edge_index: self.module_0(x, edge_index)).__get__(compiled)
    after = compiled(X, EDGES)
    torch.testing.assert_close(after.tanh(), before)
    other = nn.Linear(2, 2)
    other.forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(TypeError, match="forward of its own"):
        columba.compile(other)


def test_a_class_derived_from_it() -> None:
    class Squared(Sequential):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.module_0(x, edge_index).square()

    layer = Squared("x, edge_index", [(GraphConv(4, 4), "x, edge_index -> x")]).double()
    wanted = layer(X, EDGES)
    torch.testing.assert_close(columba.compile(layer, backend="torch", fullgraph=True)(X, EDGES), wanted)


def test_an_error_names_a_line() -> None:
    layer = Sequential(
        "x, edge_index", [(GraphConv(4, 4), "x, edge_index -> x"), lambda x: x * x.sum().item()]
    ).double()
    compiled = columba.compile(layer, backend="torch", fullgraph=True)
    with pytest.raises(TraceError, match=r"test_sequential.py:\d+: item"):
        compiled(X, EDGES)
