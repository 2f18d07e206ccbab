"""Recorded values: what stands for a tensor while a function is traced, and in the trace."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from columba.frontend.sources import Source
from columba.frontend.trees import leaves


@dataclass(eq=False, repr=False)
class Record:
    """One recorded value: an input (with a ``source``), or the result of calling ``op`` on ``args``.

    ``meta`` is a meta tensor of its shape and dtype as they were when traced. ``function`` is what replays the call in plain PyTorch;
    None for what only a compiled program can do. ``graph`` is the number of the graph along which data moves, for what is of the language.
    """

    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    meta: Tensor
    where: str
    function: Callable[..., Any] | None = None
    source: Source | None = None
    number: int = 0
    graph: int | None = None

    @functools.cached_property
    def operands(self) -> tuple[Record, ...]:
        """The records among the arguments, in order."""
        return tuple(x for x in leaves((self.args, self.kwargs)) if isinstance(x, Record))

    def __str__(self) -> str:
        if self.source is not None:
            return str(self.source)
        return f"{self.op}({', '.join(_shown(a) for a in (*self.args, *self.kwargs.values()))})"


def _shown(value: Any) -> str:
    if isinstance(value, Record):
        return str(value.source) if value.source is not None else f"%{value.number}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return str(value)


def meta_tensor(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor without data; making it is not recorded."""
    with torch._C.DisableTorchFunction():
        return torch.empty(tuple(map(int.__int__, shape)), dtype=dtype, device="meta")


class Symbol(Tensor):
    """What stands for a tensor while a function is traced, as far as others need to know it."""

    record: Record


def is_symbol(value: Any) -> bool:
    return isinstance(value, Symbol)
