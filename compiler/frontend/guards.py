"""What a trace depends on, checked at every call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from columba.frontend.snapshot import Same, snapshot
from columba.frontend.sources import Arguments, Source

ARGUMENT_DEPTH = 8


@dataclass(frozen=True)
class TensorGuard:
    """A tensor's dtype and those of its sizes that matter (None: any)."""

    source: Source
    dtype: torch.dtype
    shape: tuple[int | None, ...] | None

    def mismatch(self, tensor: Any) -> str | None:
        if not isinstance(tensor, Tensor):
            return f"{self.source} is no tensor any more"
        if tensor.dtype != self.dtype:
            return f"{self.source} has dtype {tensor.dtype}, was traced with {self.dtype}"
        if self.shape is None:
            return None
        shape = tensor.shape
        if len(shape) != len(self.shape) or any(
            a is not None and a != n for a, n in zip(self.shape, shape, strict=True)
        ):
            return f"{self.source} has shape {list(shape)}, was traced with {[n if n is not None else '*' for n in self.shape]}"
        return None


def environment() -> tuple[Any, ...]:
    """The modes of PyTorch that a trace depends on."""
    autocast = torch._C._is_any_autocast_enabled() and torch.is_autocast_enabled("cpu")
    return (
        torch.is_grad_enabled(),
        autocast and torch.get_autocast_dtype("cpu"),
        torch.get_default_dtype(),
    )


_ENVIRONMENT = ("whether gradients are enabled", "autocast", "the default dtype")


@dataclass(frozen=True)
class Guards:
    """Everything beside tensors and graphs that a trace depends on."""

    arguments: Any
    environment: tuple[Any, ...]
    reads: tuple[tuple[Same, str, Any], ...]
    variables: tuple[tuple[Source, Any], ...]

    def mismatches(self, call: Arguments) -> Iterator[str]:
        """What has changed since the trace, in words."""
        if snapshot(call, ARGUMENT_DEPTH) != self.arguments:
            yield "the arguments differ in structure, or in a value that is no tensor"
        now = environment()
        if now != self.environment:
            yield from (what for what, a, b in zip(_ENVIRONMENT, now, self.environment, strict=True) if a != b)
        for same, name, seen in self.reads:
            module = same.value
            if snapshot(getattr(module, name, None)) != seen:
                yield f"{type(module).__name__}.{name} has changed"
        for source, seen in self.variables:
            if snapshot(source.fetch(call)) != seen:
                yield f"{source} has changed"


def widened(tensor: Tensor) -> Tensor:
    """Under autocast compiled parts run in float32: a half-precision tensor as float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
