"""Products of the same rows in one sum are one product, where nobody sees them apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compiled import assert_same, leaf
from torch import Tensor

import columba

pytestmark = pytest.mark.unoptimized

GRAPHS = tuple(
    columba.Graph(torch.tensor([[0, 1, 2, n, 3], [2, 2, 0, 3, 0]]), num_nodes=5) for n in range(2)
)  # two graphs on the same nodes
Function = Callable[..., Any]


def products(function: Any) -> list[int]:
    """How many products each program of the only trace has."""
    (traced,) = function._own
    return [str(part.program).count("= linear(") for part in traced.trace.parts]


def arrives(g: columba.Graph, h: Tensor) -> Tensor:
    return g.edges.sum(g.edges.src(h))


def shared(a: columba.Graph, b: columba.Graph, h: Tensor, v: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    return (arrives(a, h) + F.linear(h, v, bias)) + (F.linear(h, w) + arrives(b, h)) + F.linear(h, v + w, bias)


def alone(a: columba.Graph, b: columba.Graph, h: Tensor, v: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    h = arrives(a, h)
    return torch.relu(F.linear(h, v, bias) + F.linear(h, w, bias)) + arrives(b, h)


def computed_rows(a: columba.Graph, b: columba.Graph, h: Tensor, v: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    x = torch.relu(arrives(a, h))
    return arrives(a, F.linear(x, v) + arrives(b, x) + F.linear(x, w, bias) + F.linear(x, w.t()))


@pytest.mark.parametrize("function", [shared, alone, computed_rows])
def test_they_are_one(function: Function) -> None:
    compiled = columba.compile(function, backend="torch")
    for graphs in (GRAPHS, GRAPHS[::-1], GRAPHS):
        for seed in range(3):
            h, v, w, bias = leaf(5, 4, seed=seed), leaf(4, 4, seed=1), leaf(4, 4, seed=2), leaf(4, seed=3)
            assert_same(compiled, function, (*graphs, h, v, w, bias))
    assert sum(products(compiled)) == 1


def wanted(a: columba.Graph, b: columba.Graph, h: Tensor, v: Tensor, w: Tensor, bias: Tensor) -> Any:
    one = F.linear(h, v, bias)
    return arrives(a, h) + one + F.linear(h, w) + arrives(b, h), one


def read_twice(a: columba.Graph, b: columba.Graph, h: Tensor, v: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    one = F.linear(h, v, bias)
    return arrives(a, torch.tanh(one)) + one + F.linear(h, w) + arrives(b, h)


def half_sums(a: columba.Graph, b: columba.Graph, h: Tensor, v: Tensor, w: Tensor, bias: Tensor) -> Any:
    one = arrives(a, h) + F.linear(h, v, bias)
    return one + (F.linear(h, w) + arrives(b, h)), arrives(b, one)


def other_rows(a: columba.Graph, b: columba.Graph, h: Tensor, v: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    return arrives(a, h) + F.linear(h, v, bias) + F.linear(torch.relu(h), w) + arrives(b, h)


def of_rows(a: columba.Graph, b: columba.Graph, h: Tensor, v: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    matrix = w * a.edges.mean(a.edges.src(h), to="one")  # for the whole graph, and a value of the program's
    return arrives(b, h) + F.linear(h, v, bias) + F.linear(h, matrix)


def factored(a: columba.Graph, b: columba.Graph, h: Tensor, v: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    return arrives(a, h) + F.linear(h, v, bias) + torch.add(F.linear(h, w), arrives(b, h), alpha=2)


@pytest.mark.parametrize("function", [wanted, read_twice, half_sums, other_rows, of_rows, factored])
def test_they_stay_apart(function: Function) -> None:
    compiled = columba.compile(function, backend="torch")
    args = (*GRAPHS, leaf(5, 4), leaf(4, 4, seed=1), leaf(4, 4, seed=2), leaf(4, seed=3))
    for _ in range(3):
        assert_same(compiled, function, args)
    (traced,) = compiled._own
    plain = sum(record.op == "linear" for record in traced.trace.replayed)
    assert sum(products(compiled)) + plain == 2


def test_infinities() -> None:
    """Of infinite rows it is what one product gives: NaN, or an infinity, where the products' are opposite."""
    compiled = columba.compile(shared, backend="torch")
    h = torch.full((5, 4), torch.inf, dtype=torch.float64)
    v = torch.ones(4, 4, dtype=torch.float64)
    same = compiled(*GRAPHS, h, v, v, v[0])
    assert torch.equal(same, shared(*GRAPHS, h, v, v, v[0]))
