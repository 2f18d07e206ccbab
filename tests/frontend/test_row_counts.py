"""Rows of what PyTorch computes before a program: graphs have as many nodes in each call as that call gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pyg_layers import compare, floats
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, SAGEConv, global_add_pool, global_max_pool, global_mean_pool
from torch_geometric.utils import coalesce

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


class Calls(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def _summed(size: Any, index: Tensor, x: Tensor) -> Tensor:
    return torch.zeros(size, F, dtype=x.dtype).index_add(0, index, x)


def _rows(*counts: int) -> list[Tensor]:
    return [floats(n, F, seed=n) for n in counts]


def _edges(largest: int) -> Tensor:
    """As many edges as ever; the largest source and destination are given."""
    drawn = torch.randint(largest + 1, (2, 30), generator=torch.Generator().manual_seed(largest))
    return torch.cat([torch.tensor([[0, largest], [largest, 0]]), drawn], 1)


SEVERAL: dict[str, tuple[Callable[..., Any], list[tuple[Any, ...]]]] = {
    "summed into two sizes": (
        lambda x, y, e: (_summed(y.size(0), e[1], x[e[0]]), _summed(x.size(0), e[1], x[e[0]])),
        [(*_rows(a, b), _edges(14)) for a, b in ((20, 20), (20, 25), (25, 20), (20, 20))],
    ),
    "pooled into as many graphs as there are, and as are said": (
        lambda x, b, n: (global_add_pool(x, b, n), global_max_pool(x, b), global_mean_pool(x, b, n + 1)),
        [(*_rows(32), _edges(g - 1)[0].sort()[0], n) for g, n in ((6, 6), (4, 6), (6, 7), (3, 9), (6, 6))],
    ),
    "summed to the largest": (
        lambda x, e: (_summed(int(e[1].max()) + 1, e[1], x[e[0]]), _summed(x.size(0), e[1], x[e[0]])),
        [(*_rows(n), _edges(m - 1)) for n, m in ((20, 20), (20, 15), (25, 20), (20, 20))],
    ),
    "chosen from tables of two lengths": (
        lambda x, y, e: _summed(x.size(0), e[1], x.flip(0)[e[0]] + y.cumsum(0)[e[0]] * y[e[1]]),
        [(*_rows(a, b), _edges(14)) for a, b in ((20, 20), (20, 25), (25, 20), (20, 20))],
    ),
    "numbers that are returned": (
        lambda x, b: {"sum": global_add_pool(x, b), "graphs": b.max().item() + 1, "twice": 2 * b.size(0), "shape": x.shape},
        [(*_rows(32), _edges(g - 1)[0].sort()[0]) for g in (6, 4, 6)],
    ),
    "the row of a graph of one node with each of several": (
        lambda x, y, e: _summed(x.size(0), e[1] % x.size(0), x[e[0] % x.size(0)]) * y,
        [(*_rows(a, b), _edges(0)) for a, b in ((8, 8), (1, 8), (1, 1), (8, 1), (8, 8))],
    ),
    "merged edges": (
        lambda x, e: coalesce(e, x[e[0]], reduce="mean"),
        [(*_rows(n), _edges(m)) for n, m in ((20, 6), (21, 5), (20, 6))],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SEVERAL)
def test_the_same_integers_choose_among_several_numbers_of_rows(name: str) -> None:
    """Also where the first call has as many of all of them: then others are traced anew."""
    function, calls = SEVERAL[name]
    compare(Calls(function), *calls, fullgraph=False)
    for args in reversed(calls):
        compare(Calls(function), args, fullgraph=False)


def test_rows_of_what_nobody_needs_that_others_are_compared_with() -> None:
    """A piece of the edges whose length a call is asked for, of values that nothing returned is computed from."""

    def unused_sum(x: Tensor, e: Tensor, edge_index: Tensor) -> Tensor:
        source, destination = edge_index
        scaled = sum(c.sum(0, keepdim=True) for c in e.chunk(2, 0)) * e
        half = source.size(0) // 2
        x.new_zeros(x.size(0), F).index_add(0, destination[:half], scaled[:half])
        return x.new_zeros(x.size(0), F).index_add(0, source, scaled)

    def unused_features(x: Tensor, e: Tensor, edge_index: Tensor) -> Tensor:
        source, destination = edge_index
        half = source.size(0) // 2
        sums = x.new_zeros(x.size(0), F).index_add(0, destination[half:], e[half:])
        like = torch.zeros_like(torch.cat([x, sums], 0)[: x.size(0)] * 2)
        like = like.index_put((destination,), e, accumulate=True)
        return x.new_zeros(like.size(0), F).index_add(0, source, e * 2)

    for f in (unused_sum, unused_features):
        fast = columba.compile(f, backend="torch", fullgraph=False)
        for nodes, edges in ((9, 30), (12, 25), (30, 91), (7, 2)):
            x, e = floats(nodes, F), floats(edges, F)
            edge_index = torch.randint(nodes, (2, edges))
            torch.testing.assert_close(fast(x, e, edge_index), f(x, e, edge_index), rtol=1e-12, atol=1e-12)
