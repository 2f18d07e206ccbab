"""Buffers that stand in one tensor."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from columba.ir.counts import Counts
from columba.ir.plan.kernels import Buffer
from columba.runtime.offsets import aligned


class Packing:
    """Buffers that stand in one tensor of bytes, each at its offset. None stands for that tensor among others."""

    def __init__(self, buffers: Sequence[Buffer], counts: Counts, alignment: int) -> None:
        self.offsets: dict[Buffer, int] = {}
        self.size = 0
        for b in buffers:
            self.offsets[b] = self.size
            self.size += aligned(counts.bytes(b.type), alignment)

    def first_of(self, buffer: Buffer | None) -> Buffer:
        """The buffer that begins where a tensor does."""
        return next(iter(self.offsets)) if buffer is None else buffer

    def unpacked(self, buffers: Collection[Buffer]) -> list[Buffer | None]:
        """The buffers that are not packed, and the tensor if any is."""
        found: list[Buffer | None] = [b for b in buffers if b not in self.offsets]
        return found if len(found) == len(buffers) else [*found, None]
