"""Rows of what PyTorch computes before a program: graphs have as many nodes in each call as that call gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, SAGEConv

import columba

F = 4
ROW, TABLE = torch.randn(1, F, dtype=torch.float64), torch.randn(40, F, dtype=torch.float64)

FEATURES: dict[str, Callable[[Tensor], Tensor]] = {
    "permuted": lambda x: x[torch.randperm(x.size(0))],
    "drawn": lambda x: torch.rand(x.size(0), F, dtype=x.dtype),
    "normal": lambda x: torch.normal(0.0, 1.0, (x.size(0), F), dtype=x.dtype),
    "drawn as a list says": lambda x: torch.randn([x.shape[0], F], dtype=x.dtype),
    "zeros and a row": lambda x: torch.zeros(x.size(0), F, dtype=x.dtype) + ROW,
    "one row": lambda x: ROW.expand(x.size(0), -1),
    "one row repeated": lambda x: ROW.repeat(x.size(0), 1),
    "one row times ones": lambda x: torch.ones(x.size(0), 1, dtype=x.dtype) * ROW,
    "narrowed": lambda x: TABLE.narrow(0, 0, x.size(0)),
    "numbered": lambda x: TABLE[torch.arange(x.size(0))],
    "drawn from": lambda x: TABLE[torch.multinomial(torch.ones(x.size(0)), x.size(0))],
    "half of two": lambda x: torch.cat([x, x.t().t().flip(0)]).chunk(2)[1],
    "viewed": lambda x: torch.stack([x, x + 1], 1).view(-1, F)[::2],
}


class Of(nn.Module):
    def __init__(self, features: Callable[[Tensor], Tensor], conv: nn.Module) -> None:
        super().__init__()
        self.features, self.conv = features, conv

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(self.features(x), edge_index)


@pytest.mark.parametrize("name", FEATURES)
def test_rows_that_only_pytorch_knows(name: str) -> None:
    for conv in (GCNConv(F, 3), SAGEConv(F, 3)):
        model = Of(FEATURES[name], conv).double()
        fast = columba.compile(Of(FEATURES[name], conv), backend="torch", fullgraph=True)
        for nodes in (20, 21, 17, 20):
            x, edge_index = torch.randn(nodes, F, dtype=torch.float64), torch.randint(0, 15, (2, 50))
            torch.manual_seed(nodes)
            expected, state = model(x, edge_index), torch.get_rng_state()
            torch.manual_seed(nodes)
            torch.testing.assert_close(fast(x, edge_index), expected, rtol=1e-12, atol=1e-12)
            assert torch.equal(torch.get_rng_state(), state)
