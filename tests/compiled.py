"""Comparing compiled code with the same code run eagerly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}


def randomized(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """All parameters random, those too that start as zeros or ones."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / max(p.shape[-2:], default=1) ** 0.5)
    return module.to(dtype)


def leaf(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


def tensors_of(value: Any) -> list[Tensor]:
    return [t for t in tree_flatten(value)[0] if isinstance(t, Tensor)]


def assert_same(
    compiled: Callable[..., Any], eager: Callable[..., Any], args: Sequence[Any], parameters: Sequence[Tensor] = ()
) -> None:
    """Results and the gradients of every floating point argument and parameter agree."""
    wanted, got = tensors_of(eager(*args)), tensors_of(compiled(*args))
    assert len(wanted) == len(got)
    tolerance = TOLERANCE[wanted[0].dtype]
    for w, g in zip(wanted, got, strict=True):
        torch.testing.assert_close(g, w, atol=tolerance, rtol=tolerance)
    leaves = [t for t in (*tensors_of(list(args)), *parameters) if t.requires_grad]
    grads = [torch.randn(w.shape, generator=torch.Generator().manual_seed(1), dtype=w.dtype) for w in wanted]
    used = [(w, g, grad) for w, g, grad in zip(wanted, got, grads, strict=True) if w.requires_grad]
    if not used:
        assert not any(g.requires_grad for g in got)
        return
    first, second, directions = zip(*used, strict=True)
    expected = torch.autograd.grad(first, leaves, directions, allow_unused=True)
    found = torch.autograd.grad(second, leaves, directions, allow_unused=True)
    for e, f in zip(expected, found, strict=True):
        if e is None or f is None:
            assert all(t is None or not t.any() for t in (e, f))
        else:
            torch.testing.assert_close(
                f, e, atol=tolerance * max(1.0, float(e.abs().max()) if e.numel() else 1.0), rtol=tolerance
            )


PAIRS = "-aggregate_first,compact_materialization"
"""The ``passes`` of the first variant: tests that look at programs or plans must not depend on what a machine's rates make the cost
model choose."""
