"""Memory planning: where the buffers of a plan live when the C++ backend runs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from columba.ir.counts import Counts
from columba.ir.plan.groups import Room, rooms
from columba.ir.plan.in_place import in_place
from columba.ir.plan.kernels import Buffer, HostCall, reads, writes
from columba.ir.plan.plan import Plan
from columba.ir.spaces import Space
from columba.runtime.cpp.memory import ALIGNMENT
from columba.runtime.offsets import Taken, aligned, first_fit

SMALLEST_SPARE = 2**18
"""Bytes from which a tensor's memory is worth reusing."""

MemoryPlace = tuple[int | None, int]
"""The tensor in whose memory a temporary stands, by its number, or None for the block; and the offset in bytes.

The plan's inputs come first among the numbers, then the tensors that the call allocates."""


@dataclass(frozen=True)
class MemoryLayout:
    """Where everything stands on one graph.

    ``places`` are those of the temporaries, in a block of ``size`` bytes or in tensors. ``reused`` maps outputs to the inputs whose
    memory they take over, both by their numbers.
    """

    places: tuple[MemoryPlace, ...]
    size: int
    reused: Mapping[int, int]


@dataclass(frozen=True)
class _Room:
    """The memory of a tensor, which temporaries may use from kernel ``first`` to kernel ``last``, both included."""

    tensor: int
    size: int
    first: int
    last: int


class _Wide(NamedTuple):
    """The memory of a buffer, on any graph: bytes of each row of a space, or where there is room for a part of the rows, of those."""

    space: Space
    row: int
    room: Room | None = None

    def bytes(self, counts: Counts) -> int:
        rows = 1 if self.space is Space.ONE else counts[self.space]
        return self.row * (rows if self.room is None else self.room.of(rows))


class Placement:
    """Tensors that a call allocates, tensors that host calls return, and temporaries, which share one block.

    What leaves the plan, or goes to a host call, is a tensor; every other buffer that a kernel writes is a temporary. One that is local
    to a group has memory for a part of its rows.

    A temporary may also stand in the memory of an input that is free once it has been read, or of an output that is not yet written; those
    of :func:`columba.ir.plan.in_place.in_place` always stand in that of their output, where it begins.
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
        self.in_place = in_place(plan)
        self.born = self._born()
        self.lifetimes = [self.lives[b] for b in self.temporaries]
        inputs = len(plan.inputs)
        self.standing = [
            inputs + self.tensors.index(self.in_place[b]) if b in self.in_place else None for b in self.temporaries
        ]
        self.wide = [_Wide(b.type.space, b.type.size * b.type.dtype.itemsize) for b in (*plan.inputs, *self.tensors)]
        self.last_read = {n: self._last_read(b) for n, b in enumerate(plan.inputs)}
        self.limits: dict[int, list[_Wide]] = {}

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

    def _born(self) -> dict[int, int]:
        """The first kernel that needs the memory of each output, by its number among tensors: for itself, or for what stands in it."""
        standing = {out: self.lives[b][0] for b, out in self.in_place.items()}
        written = {b: self.spans[n][0] for n, k in enumerate(self.plan.kernels) for b in writes(k)}
        inputs = len(self.plan.inputs)
        return {inputs + n: standing.get(b, written[b]) for n, b in enumerate(self.tensors) if b in self.plan.outputs}

    def roomy_layout(self, counts: Counts, threads: int) -> MemoryLayout:
        """Where the temporaries stand, all in the block or in place, on any graph that has no more rows of any space."""
        sizes = [aligned(room.bytes(counts), ALIGNMENT) for room in self._sizes(threads)]
        return self._fitted(sizes, {}, {}, {})

    def layout(self, counts: Counts, spare: Sequence[int] = (), threads: int | None = None) -> MemoryLayout:
        """Where the temporaries stand, how large a block they need, and which outputs take over the memory of inputs.

        Temporaries that never live together share memory. ``spare`` are positions of inputs whose memory is free once their last
        reader has run; an output of nearly that size that is born later may keep it, if that takes less memory in all.
        ``threads`` run the kernels; None: as many as PyTorch uses.
        """
        threads = torch.get_num_threads() if threads is None else threads
        sizes = [aligned(room.bytes(counts), ALIGNMENT) for room in self._sizes(threads)]
        wide = {n: size for n, tensor in enumerate(self.wide) if (size := tensor.bytes(counts)) >= SMALLEST_SPARE}
        free = {n: self.last_read[n] for n in spare if n in wide}
        best = self._fitted(sizes, wide, free, {})
        for out in sorted((n for n in self.born if n in wide), key=lambda n: -wide[n]):
            for giver in free:
                fits = wide[out] <= wide[giver] <= wide[out] + wide[out] // 4
                if not fits or giver in best.reused.values() or free[giver] >= self.born[out]:
                    continue
                found = self._fitted(sizes, wide, free, {**best.reused, out: giver})
                if found.size < best.size + (0 if out in best.reused else wide[out]):
                    best = found
        return best

    def size_of(self, buffer: Buffer, counts: Counts, threads: int) -> int:
        """Bytes of a temporary."""
        return self._sizes(threads)[self.temporaries.index(buffer)].bytes(counts)

    def _sizes(self, threads: int) -> list[_Wide]:
        """Of the temporaries, on any graph."""
        found = self.limits.get(threads)
        if found is None:
            found = self.limits[threads] = [self._size(b, threads) for b in self.temporaries]
        return found

    def _size(self, buffer: Buffer, threads: int) -> _Wide:
        row = buffer.type.size * buffer.type.dtype.itemsize
        group = self.group_of.get(buffer)
        if group is None:
            return _Wide(buffer.type.space, row)
        return _Wide(group.space, row, rooms(group, self.plan.kernels, threads)[buffer])

    def _last_read(self, buffer: Buffer) -> int:
        return max((self.spans[n][1] for n, k in enumerate(self.plan.kernels) if buffer in reads(k)), default=-1)

    def _fitted(
        self, sizes: Sequence[int], wide: Mapping[int, int], free: Mapping[int, int], reused: Mapping[int, int]
    ) -> MemoryLayout:
        """The layout with these reused. Buffers are placed by size, the largest first, or in order of first use, whichever takes less."""
        kernels = len(self.plan.kernels)
        until = {giver: self.born[out] - 1 for out, giver in reused.items()}
        found = [_Room(n, wide[n], last + 1, until.get(n, kernels)) for n, last in free.items()]
        found += [_Room(n, wide[n], 0, born - 1) for n, born in self.born.items() if n in wide and n not in reused]
        found.sort(key=lambda room: room.size)
        by_size = sorted(range(len(sizes)), key=lambda n: -sizes[n])
        placed = [self._place(order, sizes, found) for order in (by_size, range(len(sizes)))]
        places, size = min(placed, key=lambda one: one[1])
        return MemoryLayout(tuple(places), size, reused)

    def _place(
        self, order: Iterable[int], sizes: Sequence[int], rooms: Sequence[_Room]
    ) -> tuple[list[MemoryPlace], int]:
        taken: dict[int | None, list[Taken]] = {None: []}
        places: dict[int, MemoryPlace] = {}
        for n in order:
            life, standing = self.lifetimes[n], self.standing[n]
            if standing is not None:
                places[n] = (standing, 0)
                continue
            room: int | None
            for place in rooms:
                room, at = place.tensor, first_fit(taken.setdefault(place.tensor, []), sizes[n], life)
                if place.first <= life[0] and life[1] <= place.last and at + sizes[n] <= place.size:
                    break
            else:
                room, at = None, first_fit(taken[None], sizes[n], life)
            taken[room].append((at, at + sizes[n], life))
            places[n] = (room, at)
        return [places[n] for n in range(len(sizes))], max((stop for _, stop, _ in taken[None]), default=0)
