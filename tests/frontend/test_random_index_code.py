"""Random code that gathers and scatters by integer tensors, on graphs of several sizes: what PyTorch computes, values and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from index_code import arguments, function, source
from torch import Tensor

import columba

pytest.importorskip("torch_geometric")

SIZES = ((9, 30, 3), (12, 25, 4), (1, 3, 1), (7, 0, 2), (30, 90, 3))
"""Nodes, edges and graphs."""


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def computed(f: Callable[..., tuple[Tensor, ...]], args: tuple[Any, ...]) -> list[Tensor]:
    """Results, and gradients of a sum of them with random weights."""
    results = f(*args)
    leaves = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
    g = torch.Generator().manual_seed(0)
    loss = sum((r * torch.randn(r.shape, generator=g)).sum() for r in results)
    grads = (
        torch.autograd.grad(loss, leaves, allow_unused=True) if isinstance(loss, Tensor) and loss.requires_grad else ()
    )
    return [
        *(r.detach() for r in results),
        *(torch.zeros_like(x) if d is None else d for x, d in zip(leaves, grads, strict=False)),
    ]


def check(seed: int, backend: str) -> int:
    """On how many sizes PyTorch computes finite numbers, and Columba the same."""
    compared = 0
    text = source(seed)
    f = function(text)
    compiled = columba.compile(f, backend=backend, fullgraph=False)
    for number, size in enumerate(SIZES):
        args = arguments(number, *size)
        before = [a.detach().clone() if isinstance(a, Tensor) else a for a in args]
        try:
            expected = computed(f, args)
        except (RuntimeError, IndexError, ValueError):  # as the greatest of nothing
            continue
        if not all(t.isfinite().all() for t in expected):
            continue
        for _ in range(2):
            for one, other in zip(computed(compiled, args), expected, strict=True):
                scale = float(other.abs().max()) if other.numel() else 1.0
                torch.testing.assert_close(
                    one, other, rtol=1e-8, atol=1e-9 * max(1.0, scale), msg=lambda m, size=size: f"{m}\n{size}\n{text}"
                )
        torch.testing.assert_close(list(args), before, rtol=0, atol=0)
        compared += 1
    return compared


@pytest.mark.parametrize("seed", range(3))
def test_in_pytorch(seed: int) -> None:
    assert check(seed, "torch") >= 3


@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 600, 50))
def test_many_in_pytorch(first: int) -> None:
    assert sum(check(seed, "torch") for seed in range(first, first + 50)) >= 150


@pytest.mark.slow
@pytest.mark.unoptimized
@pytest.mark.parametrize("first", range(1_000, 1_100, 10))
def test_kernels(first: int) -> None:
    assert sum(check(seed, "cpp") for seed in range(first, first + 10)) >= 30
