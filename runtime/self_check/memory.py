"""Memory in which it is seen who writes past the end, and what nobody wrote."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

GUARD = 4096
"""Bytes before and after every tensor."""

ALIGNMENT = 256
"""Bytes to which the end of a tensor is rounded up."""

POISON = 255
"""What new memory is full of: NaN in every floating point type, -1 in every integer."""


class GuardedMemory:
    """Tensors with guards before and after each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.guards: list[Tensor] = []

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A new tensor, of which nothing has been written."""
        size = math.prod(shape) * dtype.itemsize
        whole = torch.full(
            (2 * GUARD + -(-size // ALIGNMENT) * ALIGNMENT,), POISON, dtype=torch.uint8, device=self.device
        )
        self.guards += [whole[:GUARD], whole[GUARD + size :]]
        return whole[GUARD : GUARD + size].view(dtype).view(tuple(shape))

    def copy(self, t: Tensor) -> Tensor:
        """The same numbers in guarded memory."""
        return self.empty(t.shape, t.dtype).copy_(t)

    def is_intact(self) -> bool:
        """Whether nobody wrote to a guard. Guards that were looked at are forgotten."""
        found = [(g == POISON).all() for g in self.guards]
        self.guards.clear()
        return bool(torch.stack(found).all()) if found else True
