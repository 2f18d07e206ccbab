"""Where the buffers of a plan live when the C++ backend runs it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from columba.ir.intraop.groups import rooms
from columba.ir.intraop.kernels import Buffer, HostCall, reads, writes
from columba.ir.intraop.plan import Plan
from columba.ir.spaces import Space
from columba.ir.types import TensorType
from columba.runtime.memory import ALIGNMENT

SPACES = tuple(Space)

SMALLEST_SPARE = 2**18
"""Bytes from which an input's memory is worth reusing."""

Place = tuple[int | None, int]
"""The input in whose memory a temporary stands, by position, or None for the block; and the offset in bytes."""


class Placement:
    """Tensors that a call allocates, tensors that host calls return, and temporaries, which share one block.

    What leaves the plan, or goes to a host call, is a tensor; every other buffer that a kernel writes is a temporary. One that is local
    to a group has memory for a part of its rows.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        for_host = {b for k in plan.kernels if isinstance(k, HostCall) for b in k.args}
        self.from_host = [b for k in plan.kernels if isinstance(k, HostCall) for b in k.results]
        own = {b for k in plan.kernels for b in writes(k)}.difference(self.from_host)
        self.tensors = [b for b in plan.buffers if b in own and (b in for_host or b in plan.outputs)]
        self.temporaries = [b for b in plan.buffers if b in own and b not in self.tensors]
        self.group_of = {b: group for group in plan.groups for b in group.local}
        self.spans = self._spans()
        self.lives = {b: self._life(b) for b in self.temporaries}

    def _spans(self) -> list[tuple[int, int]]:
        """For every kernel, the first and the last one of its group: all of them run while one buffer beyond the group is used."""
        spans: list[tuple[int, int]] = []
        for _, kernels in self.plan.units:
            spans += [(len(spans), len(spans) + len(kernels) - 1)] * len(kernels)
        return spans

    def _life(self, buffer: Buffer) -> tuple[int, int]:
        """The first and the last kernel that touch a buffer, or run between those that do."""
        touching = [n for n, k in enumerate(self.plan.kernels) if buffer in writes(k) or buffer in reads(k)]
        first, last = touching[0], touching[-1]
        return (first, last) if buffer in self.group_of else (self.spans[first][0], self.spans[last][1])

    def place_temporaries(
        self, counts: Sequence[int], spare: Sequence[int] = (), threads: int | None = None
    ) -> tuple[list[Place], int]:
        """Where the temporaries stand, and the size of the block that is needed for them.

        Temporaries that never live together share memory. ``spare`` are positions of inputs whose memory is free once their last
        reader has run. Buffers are placed by size, the largest first, or in order of first use, whichever takes the smaller block.
        ``threads`` run the kernels; None: as many as PyTorch uses.
        """
        threads = torch.get_num_threads() if threads is None else threads
        sizes = [_aligned(self.size_of(b, counts, threads)) for b in self.temporaries]
        rooms = [(n, bytes_of(self.plan.inputs[n].type, counts), self._last_read(self.plan.inputs[n])) for n in spare]
        rooms = sorted((r for r in rooms if r[1] >= SMALLEST_SPARE), key=lambda room: room[1])
        by_size = sorted(range(len(sizes)), key=lambda n: -sizes[n])
        found = [self._place(order, sizes, rooms) for order in (by_size, range(len(sizes)))]
        return min(found, key=lambda layout: layout[1])

    def size_of(self, buffer: Buffer, counts: Sequence[int], threads: int) -> int:
        """Bytes of a temporary."""
        group = self.group_of.get(buffer)
        if group is None:
            return bytes_of(buffer.type, counts)
        room = rooms(group, self.plan.kernels, threads)[buffer]
        return room.of(counts[SPACES.index(group.space)]) * buffer.type.size * buffer.type.dtype.itemsize

    def _last_read(self, buffer: Buffer) -> int:
        return max((self.spans[n][1] for n, k in enumerate(self.plan.kernels) if buffer in reads(k)), default=-1)

    def _place(
        self, order: Iterable[int], sizes: Sequence[int], rooms: Sequence[tuple[int, int, int]]
    ) -> tuple[list[Place], int]:
        taken: dict[int | None, list[_Taken]] = {None: []}
        places: dict[int, Place] = {}
        for n in order:
            life = self.lives[self.temporaries[n]]
            for room, capacity, last_read in rooms:
                at = _first_fit(taken.setdefault(room, []), sizes[n], life)
                if life[0] > last_read and at + sizes[n] <= capacity:
                    break
            else:
                room, at = None, _first_fit(taken[None], sizes[n], life)
            taken[room].append((at, at + sizes[n], life))
            places[n] = (room, at)
        return [places[n] for n in range(len(sizes))], max((stop for _, stop, _ in taken[None]), default=0)


_Taken = tuple[int, int, tuple[int, int]]
"""A piece of memory from a first byte up to another, and the first and the last kernel that touch it."""


def _first_fit(taken: Sequence[_Taken], size: int, life: tuple[int, int]) -> int:
    """The lowest place for ``size`` bytes beside what lives at the same time."""
    at = 0
    for start, stop, (first, last) in sorted(taken):
        if first <= life[1] and life[0] <= last and start < at + size and at < stop:
            at = stop
    return at


def _aligned(size: int) -> int:
    return -(-max(1, size) // ALIGNMENT) * ALIGNMENT


def bytes_of(t: TensorType, counts: Sequence[int]) -> int:
    """Bytes of a buffer."""
    return math.prod(shape_of(t, counts)) * t.dtype.itemsize


def shape_of(t: TensorType, counts: Sequence[int]) -> tuple[int, ...]:
    """The tensor shape of a value: rows of its space, then features; a plain value has no rows."""
    return t.shape if t.space is Space.ONE else (counts[SPACES.index(t.space)], *t.shape)
