"""Memory pools: memory of running programs, kept between calls.

The temporaries of a plan stand in one block, which the call borrows here and gives back when it is done; results, gradients and the values
that are saved for them stand in memory that comes back when the last tensor on it dies. Either finds what the other has left, and pages
that are mapped already: mapping fresh ones costs more than many a kernel. What is free beyond ``limit`` bytes is returned to the system.
"""

from __future__ import annotations

import bisect
import ctypes
import math
import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ALIGNMENT = 64


class Block:
    """A piece of memory that starts at the address ``base``, aligned to a page. Processes that are forked have their own copy."""

    __slots__ = ("_first", "_map", "base", "size")

    def __init__(self, size: int) -> None:
        if hasattr(mmap, "MAP_PRIVATE"):
            self._map = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            self._map = mmap.mmap(-1, max(size, 1))
        if hasattr(mmap, "MADV_HUGEPAGE") and size >= 2**21:
            self._map.madvise(mmap.MADV_HUGEPAGE)  # large pages: rows gathered from all over miss the TLB less
        self._first = ctypes.c_char.from_buffer(self._map)  # keeps the mapping from being closed
        self.base = ctypes.addressof(self._first)
        self.size = size

    def vacate(self, start: int, stop: int) -> None:
        """Returns the pages from one place up to another to the system; they are mapped again when they are written."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)


class Scratch:
    """Small blocks that nobody uses at the moment, the last one used on top; large ones are of ``large``, if given."""

    def __init__(self, limit: int, large: Pooled | None = None) -> None:
        self.limit = limit
        self.large = large
        self._free: list[Block | Piece] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> Block | Piece:
        """A block of at least ``size`` bytes. A free one that is too small is given up: one block soon serves all.

        A thread that finds no free block makes one, so calls from several threads do not wait for each other.
        """
        if self.large is not None and size >= Pooled.SMALL:
            return self.large.take(size)
        try:
            block = self._free.pop()
        except IndexError:
            return Block(size)
        if block.size >= size:
            return block
        del block  # before another is made
        return Block(size)

    def give(self, block: Block | Piece) -> None:
        """Takes a block back."""
        if isinstance(block, Piece):
            assert self.large is not None
            self.large.give(block)
            return
        with self._lock:
            if block.size + (sum(b.size for b in self._free) if self._free else 0) <= self.limit:
                self._free.append(block)

    @property
    def kept(self) -> int:
        """Bytes in free blocks."""
        with self._lock:
            return sum(b.size for b in self._free)

    def release(self) -> int:
        """Returns the free blocks to the system, and says how many bytes they were."""
        with self._lock:
            freed = sum(b.size for b in self._free)
            self._free.clear()
        return freed


@dataclass(eq=False)
class _Gap:
    """Free bytes of a region, from one place up to another; ``kept`` if there may be pages under them."""

    start: int
    stop: int
    kept: bool = True

    @property
    def size(self) -> int:
        return self.stop - self.start


class _Region:
    """A block that is cut into pieces, and its gaps in order."""

    def __init__(self, size: int) -> None:
        self.block = Block(size)
        self.gaps = [_Gap(0, size, kept=False)]

    @property
    def is_free(self) -> bool:
        return len(self.gaps) == 1 and self.gaps[0].size == self.block.size

    def cut(self, gap: _Gap, size: int) -> Piece:
        piece = Piece(self, gap.start, size)
        gap.start += size
        if not gap.size:
            self.gaps.remove(gap)
        return piece

    def join(self, piece: Piece) -> None:
        gap = _Gap(piece.start, piece.start + piece.size)
        n = bisect.bisect(self.gaps, gap.start, key=lambda other: other.start)
        self.gaps.insert(n, gap)
        for left, right in ((n, n + 1), (n - 1, n)):
            if left >= 0 and right < len(self.gaps) and self.gaps[left].stop == self.gaps[right].start:
                self.gaps[left].stop = self.gaps[right].stop
                self.gaps[left].kept |= self.gaps[right].kept
                del self.gaps[right]


class Piece:
    """Memory of ``size`` bytes at the address ``base``, aligned to a page; a part of a larger block."""

    __slots__ = ("base", "region", "size", "start")

    def __init__(self, region: _Region, start: int, size: int) -> None:
        self.region, self.start, self.size = region, start, size
        self.base = region.block.base + start


class Pooled:
    """Large memory: pieces of blocks, which come back here and are handed out again.

    A piece is cut from the smallest gap that has room for it, one with pages if there is one. Where none has, what stands free is
    returned to the system before a new block is mapped, so that a process holds no more than its programs need at one moment; the
    larger block then serves for what the smaller ones did, and soon no more are mapped.

    A large tensor has a piece of its own, which comes back when the last tensor on it dies (for a saved value, when autograd
    frees the graph). It cannot be resized beyond its memory.
    """

    SMALL = 2**18
    """Bytes below which PyTorch's own allocator is as good."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._regions: list[_Region] = []
        self._returned: deque[Piece] = deque()
        self._lock = threading.Lock()

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """An uninitialized tensor."""
        size = math.prod(shape) * dtype.itemsize
        if size < self.SMALL:
            return torch.empty(shape, dtype=dtype, device="cpu")
        piece = self.take(size)
        memory = (ctypes.c_char * size).from_address(piece.base)
        # The tensor's storage holds ``memory``, and nothing else does.
        weakref.finalize(memory, self.give, piece).atexit = False
        return torch.frombuffer(memory, dtype=dtype).view(*shape)

    def take(self, size: int) -> Piece:
        """A piece of at least ``size`` bytes."""
        size = -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        with self._lock:
            self._collect()
            found = self._fitting(size)
            if found is None:
                self._vacate()
                region = _Region(size)
                self._regions.append(region)
                found = region, region.gaps[0]
            return found[0].cut(found[1], size)

    def _fitting(self, size: int) -> tuple[_Region, _Gap] | None:
        """The smallest gap with room, one with pages if there is one. Dozens of tensors of a training step ask, with dozens of gaps."""
        found, best = None, (True, math.inf)
        for region in self._regions:
            for gap in region.gaps:
                room = gap.stop - gap.start
                if room >= size and (not gap.kept, room) < best:
                    found, best = (region, gap), (not gap.kept, room)
        return found

    def give(self, piece: Piece) -> None:
        """Takes a piece back. This may run at any moment, as a finalizer, even while this thread is in :meth:`take`."""
        self._returned.append(piece)
        if self._lock.acquire(blocking=False):
            try:
                self._collect()
                if sum(r.block.size for r in self._regions) > self.limit and self._kept() > self.limit:
                    self._vacate()
            finally:
                self._lock.release()

    @property
    def kept(self) -> int:
        """Bytes that are free and have not been returned to the system."""
        with self._lock:
            self._collect()
            return self._kept()

    @property
    def held(self) -> int:
        """Bytes that are in use, or kept."""
        with self._lock:
            self._collect()
            return sum(r.block.size - sum(g.size for g in r.gaps if not g.kept) for r in self._regions)

    def release(self) -> int:
        """Returns what is free to the system, and says how many bytes that was."""
        with self._lock:
            self._collect()
            freed = self._kept()
            self._vacate()
        return freed

    def _collect(self) -> None:
        while self._returned:
            piece = self._returned.popleft()
            piece.region.join(piece)

    def _kept(self) -> int:
        return sum(g.size for r in self._regions for g in r.gaps if g.kept)

    def _vacate(self) -> None:
        self._regions = [r for r in self._regions if not r.is_free]
        for region in self._regions:
            for gap in region.gaps:
                if gap.kept:
                    region.block.vacate(gap.start, gap.stop)
                    gap.kept = False


def _quarter_of_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (ValueError, OSError, AttributeError):
        return 2**30


pooled = Pooled(_quarter_of_memory())
"""The large memory of this process. ``pooled.release()`` frees what is not in use; ``pooled.limit`` bounds what is kept."""

scratch = Scratch(_quarter_of_memory(), pooled)
"""The memory of temporaries in this process; the large ones' is ``pooled``."""
