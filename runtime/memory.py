"""Memory of running programs, kept between calls.

The temporaries of a plan stand in one block, which the call borrows here and gives back when it is done: the next call, of whatever
program, finds pages that are mapped already. Mapping fresh ones costs more than many a kernel. A thread that finds no free block makes
one, so calls from several threads do not wait for each other; blocks beyond ``limit`` bytes in all are returned to the system.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import threading
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

ALIGNMENT = 64


class Block:
    """A piece of memory that starts at the address ``base``, aligned to a page."""

    __slots__ = ("_first", "_map", "base", "size")

    def __init__(self, size: int) -> None:
        self._map = mmap.mmap(-1, max(size, 1))
        if hasattr(mmap, "MADV_HUGEPAGE") and size >= 2**21:
            self._map.madvise(mmap.MADV_HUGEPAGE)  # large pages: rows gathered from all over miss the TLB less
        self._first = ctypes.c_char.from_buffer(self._map)  # keeps the mapping from being closed
        self.base = ctypes.addressof(self._first)
        self.size = size


class Scratch:
    """Blocks that nobody uses at the moment, the last one used on top."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._free: list[Block] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> Block:
        """A block of at least ``size`` bytes. A free one that is too small is given up: one block soon serves all."""
        try:
            block = self._free.pop()
        except IndexError:
            return Block(size)
        if block.size >= size:
            return block
        del block  # before another is made
        return Block(size)

    def give(self, block: Block) -> None:
        """Takes a block back."""
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


class Pooled:
    """Memory of the tensors that programs make: results, gradients, and the values that a forward program saves for its gradient.

    A large tensor lives in a block of its own, which comes back here when the last tensor on it dies (for a saved value, when autograd
    frees the graph), and is handed out to the next call: mapping fresh pages would cost more than many a kernel. Such a tensor cannot be
    resized beyond its memory. Blocks beyond ``limit`` bytes in all are returned to the system.
    """

    SMALL = 2**18
    """Bytes below which PyTorch's own allocator is as good."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._free: list[Block] = []

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """An uninitialized tensor."""
        size = math.prod(shape) * dtype.itemsize
        if size < self.SMALL:
            return torch.empty(shape, dtype=dtype, device="cpu")
        block = self._take(size)
        memory = (ctypes.c_char * size).from_address(block.base)
        # The tensor's storage holds ``memory``, and nothing else does.
        weakref.finalize(memory, self._give, block).atexit = False
        return torch.frombuffer(memory, dtype=dtype).view(*shape)

    def _take(self, size: int) -> Block:
        for block in reversed(self._free):
            if size <= block.size <= size + size // 4:
                try:
                    self._free.remove(block)
                except ValueError:  # another thread was faster
                    continue
                return block
        return Block(size)

    def _give(self, block: Block) -> None:  # may run at any moment, so it takes no lock
        if block.size + self.kept <= self.limit:
            self._free.append(block)

    @property
    def kept(self) -> int:
        """Bytes in free blocks."""
        return sum(b.size for b in tuple(self._free))

    def release(self) -> int:
        """Returns the free blocks to the system, and says how many bytes they were."""
        freed = self.kept
        self._free.clear()
        return freed


def _quarter_of_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (ValueError, OSError, AttributeError):
        return 2**30


scratch = Scratch(_quarter_of_memory())
"""The scratch memory of this process. ``scratch.release()`` frees what no running call uses; ``scratch.limit`` bounds what is kept."""

pooled = Pooled(_quarter_of_memory())
"""The memory of tensors that programs make in this process; ``pooled.release()`` frees what no tensor holds."""
