"""Where the buffers of a plan live when the C++ backend runs it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from columba.ir.intraop.kernels import Buffer, HostCall, reads, writes
from columba.ir.intraop.plan import Plan
from columba.ir.spaces import Space
from columba.ir.types import TensorType
from columba.runtime.memory import ALIGNMENT

SPACES = tuple(Space)


class Placement:
    """Tensors that a call allocates, tensors that host calls return, and temporaries, which share one block.

    What leaves the plan, or goes to a host call, is a tensor; every other buffer that a kernel writes is a temporary.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        for_host = {b for k in plan.kernels if isinstance(k, HostCall) for b in k.args}
        self.from_host = [b for k in plan.kernels if isinstance(k, HostCall) for b in k.results]
        own = {b for k in plan.kernels for b in writes(k)}.difference(self.from_host)
        self.tensors = [b for b in plan.buffers if b in own and (b in for_host or b in plan.outputs)]
        self.temporaries = [b for b in plan.buffers if b in own and b not in self.tensors]
        self.lives = {b: self._life(b) for b in self.temporaries}

    def _life(self, buffer: Buffer) -> tuple[int, int]:
        """The first and the last kernel that touch a buffer."""
        touching = [n for n, k in enumerate(self.plan.kernels) if buffer in writes(k) or buffer in reads(k)]
        return touching[0], touching[-1]

    def place_temporaries(self, counts: Sequence[int]) -> tuple[list[int], int]:
        """Where the temporaries stand in a block, and its size. First fit over lifetimes: those that never live together share memory."""
        placed: list[tuple[int, int, tuple[int, int]]] = []
        offsets = []
        for buffer in self.temporaries:
            size = math.prod(shape_of(buffer.type, counts)) * buffer.type.dtype.itemsize
            size = -(-max(1, size) // ALIGNMENT) * ALIGNMENT
            first, last = self.lives[buffer]
            at = 0
            for start, stop, (a, b) in sorted(placed):
                if a <= last and first <= b and start < at + size and at < stop:
                    at = stop
            placed.append((at, at + size, (first, last)))
            offsets.append(at)
        return offsets, max((stop for _, stop, _ in placed), default=0)


def shape_of(t: TensorType, counts: Sequence[int]) -> tuple[int, ...]:
    """The tensor shape of a value: rows of its space, then features; a plain value has no rows."""
    return t.shape if t.space is Space.ONE else (counts[SPACES.index(t.space)], *t.shape)
