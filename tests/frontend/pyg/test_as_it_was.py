"""What of PyG runs as it was, or is made in unusual ways, when it is compiled."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GraphConv, RGCNConv, SAGEConv, to_hetero
from torch_geometric.utils import to_torch_coo_tensor, to_torch_csc_tensor, to_torch_csr_tensor

import columba
from tests.compared import IN_PART, NOT_COMPILED, compare, what_runs

COMPILE = functools.partial(columba.compile, backend="torch")
EDGES = torch.tensor([[0, 1, 2, 2, 3, 0], [1, 2, 0, 1, 3, 0]])


def features(rows: int = 5, size: int = 4) -> Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Twice(nn.Module):
    """A layer on a sparse adjacency matrix, and one on ``edge_index``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = SAGEConv(4, 4), SAGEConv(4, 4)

    def forward(self, x: Tensor, adj_t: Tensor, edge_index: Tensor) -> Tensor:
        return self.second(self.first(x, adj_t).relu(), edge_index)


@pytest.mark.parametrize(
    "to_sparse",
    [
        to_torch_csc_tensor,
        pytest.param(to_torch_coo_tensor, marks=pytest.mark.slow),
        pytest.param(to_torch_csr_tensor, marks=pytest.mark.slow),
    ],
)
def test_sparse_matrices(to_sparse: Any) -> None:
    adj = to_sparse(EDGES, torch.rand(6, dtype=torch.float64), size=(5, 5))
    for conv in (SAGEConv(4, 3), GraphConv(4, 3, aggr="max"), GraphConv(4, 3)):
        compare(COMPILE, conv.double(), features(), adj.t())
    found = compare(COMPILE, Twice().double(), features(), adj.t(), EDGES)
    assert found.compiled is not None
    assert what_runs(found.compiled, found.args, found.kwargs)[0] in (IN_PART, NOT_COMPILED)
    layer = SAGEConv(4, 3).double()
    compiled = COMPILE(layer)  # one layer, given this and that
    for edges in (EDGES, adj.t(), EDGES, adj.t()):
        torch.testing.assert_close(compiled(features(), edges), layer(features(), edges))


@pytest.mark.parametrize("conv", [lambda: SAGEConv(4, 3), lambda: RGCNConv(4, 3, 2)])
@pytest.mark.parametrize("inner", [False, True])
def test_hooks_on_message_passing(conv: Any, inner: bool) -> None:
    """They run once for each call, before and after calls without them."""
    layer = conv().double()
    args = (features(), EDGES, torch.tensor([0, 1, 0, 0, 1, 1]))[: 3 if isinstance(layer, RGCNConv) else 2]

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, *args: Tensor) -> Tensor:
            return self.layer(*args).relu()

    model = Around() if inner else layer
    expected = model(*args)
    compiled = COMPILE(model)
    called: list[str] = []
    torch.testing.assert_close(compiled(*args), expected)
    for kind in ("propagate", "message", "aggregate"):
        pre = getattr(layer, f"register_{kind}_forward_pre_hook")(
            lambda m, i, kind=kind: called.append(f"before {kind}")
        )
        post = getattr(layer, f"register_{kind}_forward_hook")(
            lambda m, i, o, kind=kind: called.append(f"after {kind}")
        )
        for _ in range(2):
            called.clear()
            model(*args)
            wanted = list(called)
            assert wanted
            called.clear()
            torch.testing.assert_close(compiled(*args), expected)
            assert called == wanted
        pre.remove()
        post.remove()
        called.clear()
        torch.testing.assert_close(compiled(*args), expected)
        assert not called


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lin = SAGEConv((4, 4), 4), nn.Linear(4, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.lin(self.conv(x, edge_index).relu())


def test_models_made_by_to_hetero() -> None:
    """A ``GraphModule`` makes a class for each instance, and its ``__new__`` another one."""
    x = {"a": features(5), "b": features(3)}
    edges = {("a", "to", "b"): EDGES % 3, ("b", "to", "a"): EDGES % 3}
    model = to_hetero(Body(), (list(x), list(edges))).double()
    found = compare(COMPILE, model, x, edges)
    assert len(found.tensors) == 2 + 2 + 10  # results, inputs, parameters
    compiled = COMPILE(model)
    expected = model(x, edges)
    assert isinstance(compiled, type(model))
    for other in (compiled, copy.deepcopy(compiled), COMPILE(model)):
        torch.testing.assert_close(other(x, edges), expected)
    assert compiled.lin.a is model.lin.a
