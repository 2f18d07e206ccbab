"""FiLMConv of PyTorch Geometric, lowered, against itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyg_layers import compare, drawn, floats, relational_graphs, traces
from torch import nn
from torch_geometric.nn import FiLMConv

import columba

N, R = 7, 4
GRAPHS = relational_graphs(N, R)
CALLS = [(floats(N, 6, seed=n), *graph) for n, graph in enumerate(GRAPHS)]


@pytest.mark.parametrize("aggr", ["mean", "add", "max"])
def test_relations(aggr: str) -> None:
    """Each relation is reduced for itself."""
    assert len(traces(compare(drawn(FiLMConv(6, 4, R, aggr=aggr)), *CALLS))) == 1


@pytest.mark.parametrize("act", [None, torch.tanh, nn.ELU()], ids=["none", "function", "module"])
def test_activations(act: Any) -> None:
    compare(drawn(FiLMConv(6, 4, R, act=act)), *CALLS[:2])


def test_networks() -> None:
    """Networks of one's own, one for each relation; what one of them overflows to is no business of the others."""
    conv = drawn(FiLMConv(6, 4, R, nn=nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 8))))
    compare(conv, *CALLS)
    with torch.no_grad():
        conv.films[R - 1][0].weight.fill_(torch.inf)  # relation R - 1 has no edges in the first graph
    compiled = columba.compile(conv, backend="torch")
    torch.testing.assert_close(compiled(*CALLS[0]), conv(*CALLS[0]))
    assert compiled(*CALLS[0]).isfinite().all()


def test_hook_on_a_linear() -> None:
    conv = drawn(FiLMConv(6, 4, R))
    conv.lins[1].register_forward_hook(lambda module, args, out: out * 2)
    compiled = columba.compile(conv, backend="torch")
    for call in (CALLS[0], CALLS[0], CALLS[2]):
        torch.testing.assert_close(compiled(*call), conv(*call))


def test_one_relation_and_pairs() -> None:
    """Without edge types; sources and destinations that are different nodes."""
    edges = torch.tensor([[0, 6, 3, 3], [1, 2, 0, 1]])
    compare(drawn(FiLMConv(6, 4)), (floats(N, 6), edges))
    compare(drawn(FiLMConv((6, 5), 4, R)), ((floats(N, 6), floats(3, 5)), edges, torch.tensor([3, 0, 0, 3])))


def test_lazy_sizes() -> None:
    conv = FiLMConv(-1, 4, R)
    compiled = columba.compile(conv, backend="torch")
    x, edges, types = CALLS[0]
    for _ in range(3):
        torch.testing.assert_close(compiled(x.float(), edges, types), conv(x.float(), edges, types))
    assert len(traces(compiled)) == 1


@pytest.mark.slow
@pytest.mark.unoptimized
def test_kernels() -> None:
    compare(drawn(FiLMConv(6, 4, R)), *CALLS[:2], backend="cpp")
