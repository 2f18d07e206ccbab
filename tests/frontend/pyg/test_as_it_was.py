"""What of PyG runs as it was, or is made in unusual ways, when it is compiled."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import RGCNConv, SAGEConv, to_hetero

import columba
from tests.compared import compare

COMPILE = functools.partial(columba.compile, backend="torch")
EDGES = torch.tensor([[0, 1, 2, 2, 3, 0], [1, 2, 0, 1, 3, 0]])


def features(rows: int = 5, size: int = 4) -> Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


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
