"""What is made in a call is written into, not copied first; whatever is used otherwise, too, keeps its value."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import columba

pytestmark = pytest.mark.unoptimized

G = columba.Graph(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]), num_nodes=4)


def pairs(g: columba.Graph, h: Tensor) -> Tensor:
    """As MeshCNN: every other edge is computed differently."""
    e = g.edges.src(h)
    m = torch.empty(e.shape)
    m[0::2] = torch.abs(e[0::2] - e[1::2])
    m[1::2] = e[0::2] * e[1::2]
    return g.edges.sum(m)


def read_between(g: columba.Graph, h: Tensor) -> Tensor:
    e = g.edges.src(h)
    m = torch.zeros(e.shape)
    m[0::2] = e[0::2] * 2
    seen = m.clone() * e
    m[1::2] = e[0::2] * e[1::2]
    return g.edges.sum(m + seen)


def returned_between(g: columba.Graph, h: Tensor) -> tuple[Tensor, Tensor]:
    e = g.edges.src(h)
    m = torch.zeros(e.shape)
    m[0::2] = e[0::2] * 2
    first = m + 0
    m[1::2] = e[0::2] * e[1::2]
    return g.edges.sum(m), first


def with_itself(g: columba.Graph, h: Tensor) -> Tensor:
    e = g.edges.src(h)
    m = torch.ones_like(e)
    m[0::2] = m[1::2].clone() * e[0::2]
    m[1::2] = m[0::2] + m[1::2]
    return g.edges.sum(m)


def of_a_copy(g: columba.Graph, h: Tensor) -> Tensor:
    e = torch.exp(g.edges.src(h))  # whose gradient reads what it gave
    m = torch.cumsum(e, 0)
    n = torch.exp(m * 0.1).clone()
    n[0::2] = e[0::2]
    return g.edges.sum(n * m)


@pytest.mark.parametrize("function", [pairs, read_between, returned_between, with_itself, of_a_copy])
def test_values_and_gradients(function: Callable[..., Tensor | tuple[Tensor, Tensor]]) -> None:
    compiled = columba.compile(function, fullgraph=False)
    for seed in range(3):  # the same trace, and memory that is new each time
        h = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        mine, theirs = h.clone().requires_grad_(), h.clone().requires_grad_()
        found, wanted = compiled(G, mine), function(G, theirs)
        kept = [t.detach().clone() for t in _all(found)]
        compiled(G, torch.full_like(h, 7.0))
        for a, before, b in zip(_all(found), kept, _all(wanted), strict=True):
            torch.testing.assert_close(a, b)
            assert torch.equal(a, before)
        for results in (found, wanted):
            torch.stack([t.sin().sum() for t in _all(results)]).sum().backward()
        torch.testing.assert_close(mine.grad, theirs.grad)


def _all(x: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    return x if isinstance(x, tuple) else (x,)


@pytest.mark.parametrize(("function", "copies"), [(pairs, 0), (read_between, 1), (of_a_copy, 1)])
def test_what_is_copied(function: Callable[..., Tensor], copies: int) -> None:
    h = torch.randn(4, 3)
    compiled = columba.compile(function, fullgraph=False)
    compiled(G, h)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        compiled(G, h)
    assert sum(one.count for one in seen.key_averages() if one.key == "aten::clone") == copies
