"""Scratch memory of running programs, kept between calls.

The temporaries of a plan stand in one block, which the call borrows here and gives back when it is done: the next call, of whatever
program, finds pages that are mapped already. Mapping fresh ones costs more than many a kernel. A thread that finds no free block makes
one, so calls from several threads do not wait for each other; blocks beyond ``limit`` bytes in all are returned to the system.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading

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
        return block if block.size >= size else Block(size)

    def give(self, block: Block) -> None:
        """Takes a block back."""
        with self._lock:
            if block.size + sum(b.size for b in self._free) <= self.limit:
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


def _quarter_of_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (ValueError, OSError, AttributeError):
        return 2**30


scratch = Scratch(_quarter_of_memory())
"""The scratch memory of this process. ``scratch.release()`` frees what no running call uses; ``scratch.limit`` bounds what is kept."""
