"""How far vectorized functions are from the exact results, in units in the last place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import columba
from columba import Graph


def exact_gelu(x: Tensor) -> Tensor:
    """Without the cancellation of ``1 + erf(x)``."""
    return 0.5 * x * torch.special.erfc(-x * 0.5**0.5)


def positive(count: int) -> Tensor:
    """Floats over the whole range, subnormal ones too, and around 1."""
    near_one = torch.linspace(0.5, 2.0, count // 4)
    return torch.cat([torch.logspace(-44, 38, count - len(near_one), dtype=torch.float64).float(), near_one])


def around_zero(count: int) -> Tensor:
    return torch.linspace(-5.0, 12.0, count)


CASES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Callable[[int], Tensor], float]] = {
    "log": (torch.log, torch.log, positive, 1.0),
    "gelu": (F.gelu, exact_gelu, around_zero, 16.0),
}


def computed(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function`` of all numbers as a compiled program computes it: each is a node with an edge to itself."""
    nodes = torch.arange(len(x))
    graph = Graph(torch.stack([nodes, nodes]), torch.zeros_like(nodes), num_nodes=len(x), num_relations=1)

    def layer(g: Graph, x: Tensor) -> Tensor:
        return g.edges.sum(function(g.edges.src(x)))

    result = columba.compile(layer, backend="cpp", passes="-compact_materialization,-aggregate_first")(graph, x)
    assert isinstance(result, Tensor)
    return result


@pytest.mark.parametrize("name", CASES)
def test_bounds(name: str) -> None:
    function, exact, numbers, bound = CASES[name]
    x = numbers(20_000)
    wanted, got = exact(x.double()), computed(function, x)
    size = wanted.abs().float()
    unit = (torch.nextafter(size, torch.tensor(torch.inf)) - size).double()
    assert ((got.double() - wanted).abs() <= bound * unit).all()


def test_log_at_the_ends_of_its_domain() -> None:
    x = torch.tensor([0.0, -0.0, -1.0, -torch.inf, torch.inf, torch.nan, 1.0])
    torch.testing.assert_close(computed(torch.log, x), torch.log(x), equal_nan=True, rtol=0, atol=0)


def test_gelu_at_the_ends_of_its_domain() -> None:
    x = torch.tensor([0.0, -100.0, -1e30, 1e30, torch.inf, torch.nan])
    wanted = F.gelu(x.double()).float()  # where PyTorch has AVX-512, that of infinity is NaN in float32
    torch.testing.assert_close(computed(F.gelu, x), wanted, equal_nan=True, rtol=0, atol=0)
