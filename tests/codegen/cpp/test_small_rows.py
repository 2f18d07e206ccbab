"""A few numbers a member, such as the scores of heads, which kernels work on for several members at once."""

from __future__ import annotations

import pytest
import torch
from compiled import PAIRS, assert_same, leaf
from torch import Tensor

import columba
from columba import Graph
from columba.codegen.cpp.small_rows import step_of

NODES, RELATIONS = 40, 3


def graph() -> Graph:
    """Owners with no member, one, a few, and a hub with more than any step takes."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(NODES, (150,), generator=generator)
    target = torch.cat([torch.zeros(90, dtype=torch.long), torch.randint(NODES - 5, (60,), generator=generator)])
    relation = torch.randint(RELATIONS, (150,), generator=generator)
    return Graph(torch.stack([source, target]), relation, num_nodes=NODES, num_relations=RELATIONS)


def attention(g: Graph, a: Tensor, b: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of heads, by lookups at both ends and a number a head and edge; the weights themselves are a result, too."""
    e = g.edges
    score = torch.nn.functional.leaky_relu(e.src(a) + e.dst(b), 0.2) * w
    weights = e.softmax(score)
    return e.sum(weights.unsqueeze(-1) * e.src(v)), weights


def dots(g: Graph, q: Tensor, k: Tensor) -> Tensor:
    """A dot product a head and edge."""
    e = g.edges
    return e.sum(e.softmax((e.dst(q) * e.src(k)).sum(-1)))


def _slow(*case: object) -> object:
    return pytest.param(*case, marks=pytest.mark.slow)


HEADS = {torch.float32: (1, 4, 17), torch.float64: (2, 5)}
"""Some that divide a step, and of those that do not one of each side of it."""


@pytest.mark.parametrize(
    ("heads", "dtype"),
    [
        (heads, dtype) if heads in quick else _slow(heads, dtype)
        for dtype, quick in HEADS.items()
        for heads in (1, 2, 3, 4, 5, 8, 12, 16, 17)
    ],
)
def test_attention(heads: int, dtype: torch.dtype) -> None:
    g = graph()
    args = [leaf(NODES, heads, dtype=dtype, seed=n) for n in range(2)]
    args += [leaf(NODES, heads, 6, dtype=dtype, seed=2), leaf(150, heads, dtype=dtype, seed=3)]
    compiled = columba.compile(attention, backend="cpp", passes=PAIRS)
    assert_same(lambda *a: compiled(g, *a), lambda *a: attention(g, *a), args)


@pytest.mark.parametrize(
    ("heads", "size"),
    [
        (heads, size) if (heads, size) in ((2, 24), (4, 7), (8, 16)) else _slow(heads, size)
        for heads in (2, 4, 8)
        for size in (4, 7, 8, 16, 24)
    ],
)
def test_dots(heads: int, size: int) -> None:
    g = graph()
    args = [leaf(NODES, heads, size, dtype=torch.float32, seed=n) for n in range(2)]
    compiled = columba.compile(dots, backend="cpp", passes=PAIRS)
    assert_same(lambda *a: compiled(g, *a), lambda *a: dots(g, *a), args)


def gated(g: Graph, s: Tensor, a: Tensor) -> Tensor:
    """A number an edge, kept from an earlier loop, beside a few."""
    e = g.edges
    gate = e.softmax(e.src(s))
    once = e.softmax(e.src(a))
    return e.sum(gate.unsqueeze(-1) * e.softmax(once * e.dst(a)))


@pytest.mark.parametrize(
    "heads", [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow), 8]
)
def test_rows_of_two_sizes(heads: int) -> None:
    g = graph()
    args = [leaf(NODES, dtype=torch.float32), leaf(NODES, heads, dtype=torch.float32, seed=1)]
    compiled = columba.compile(gated, backend="cpp", passes=PAIRS)
    assert_same(lambda *a: compiled(g, *a), lambda *a: gated(g, *a), args)


@pytest.mark.parametrize("heads", [1, 4, 5])
def test_scores_without_bounds(heads: int) -> None:
    """Infinite scores, and large ones, do what they do in PyTorch; what stands in the room behind an owner's members does no harm."""
    g = graph()
    a, b = torch.zeros(NODES, heads), torch.zeros(NODES, heads)
    w = torch.linspace(-300, 300, 150 * heads).view(150, heads)
    w[::7] = -torch.inf
    a += 1
    v = leaf(NODES, heads, 6, dtype=torch.float32).detach()
    wanted = attention(g, a, b, v, w)
    got = columba.compile(attention, backend="cpp", passes=PAIRS)(g, a, b, v, w)
    for x, y in zip(got, wanted, strict=True):
        torch.testing.assert_close(x, y, atol=2e-5, rtol=2e-5, equal_nan=True)


@pytest.mark.parametrize("heads", [4, 5])
def test_several_members_are_taken_at_once(heads: int) -> None:
    g = graph()
    args = [torch.zeros(NODES, heads), torch.zeros(NODES, heads), torch.zeros(NODES, heads, 6), torch.zeros(150, heads)]
    source = columba.explain(columba.compile(attention, backend="cpp", passes=PAIRS), g, *args).source
    assert (f"j < (end - begin) * {heads}; j += 16" in source) == (step_of(heads) is not None)


@pytest.mark.parametrize("heads", [3, 4])
def test_small_rows_are_fetched_ahead(heads: int) -> None:
    g = graph()
    args = [torch.zeros(NODES, heads), torch.zeros(NODES, heads), torch.zeros(NODES, heads, 6), torch.zeros(150, heads)]
    source = columba.explain(columba.compile(attention, backend="cpp", passes=PAIRS), g, *args).source
    fetched = [line for line in source.splitlines() if "__builtin_prefetch" in line]
    order = "order_edge_by_dst[ahead]"
    assert [line for line in fetched if order in line and ", 1)" not in line], "the edges' own numbers, to be read"
    assert [line for line in fetched if order in line and ", 1)" in line], "the weights' rows, to be written"
    assert [line for line in fetched if f"src_of_edge_by_dst[ahead] * {heads})" in line], "rows of the sources"
