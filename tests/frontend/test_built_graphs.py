"""Models that are called with tensors in place of a graph: one trace serves graphs of all sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import columba

pytestmark = pytest.mark.unoptimized

RELATIONS = 3


class Model(nn.Module):
    """Layers that make a graph of tensors, with as many nodes as what was computed before has rows."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.before = nn.Linear(4, 4)
        self.layers = nn.ModuleList(columba.nn.RGCNConv(4, 4, RELATIONS) for _ in range(layers))
        self.double()

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        h = self.before(x).relu()
        for n, layer in enumerate(self.layers):
            h = layer(h, edge_index, edge_type).relu().cumsum(0) + n
        return h


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_rows_of_what_is_computed(layers: int) -> None:
    plain = Model(layers)
    model = columba.compile(plain, backend="torch")
    for nodes in (5, 8, 3, 40):
        args: Any = (
            torch.randn(nodes, 4, dtype=torch.float64),
            torch.randint(nodes, (2, 3 * nodes)),
            torch.randint(RELATIONS, (3 * nodes,)),
        )
        torch.testing.assert_close(model(*args), plain(*args))
    assert len(type(model).forward._of_modules[model]) == 1


def test_rows_of_another_graph() -> None:
    """The second graph has the nodes of the first."""
    layer = columba.nn.RGCNConv(4, 4, RELATIONS).double()

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor, first: Tensor, second: Tensor, edge_type: Tensor) -> Tensor:
            return self.layer(self.layer(x, first, edge_type).relu(), second, edge_type)

    model = columba.compile(Two(), backend="torch")
    for nodes in (5, 8, 3):
        x, kinds = torch.randn(nodes, 4, dtype=torch.float64), torch.randint(RELATIONS, (2 * nodes,))
        first, second = torch.randint(nodes, (2, 2, 2 * nodes))
        torch.testing.assert_close(model(x, first, second, kinds), Two()(x, first, second, kinds))
    assert len(type(model).forward._of_modules[model]) == 1
