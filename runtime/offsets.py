"""Offsets of buffers that share a block of memory: those that never live together may stand at the same place."""

from __future__ import annotations

from collections.abc import Sequence

Life = tuple[int, int]
"""The first and the last kernel that touch a piece of memory."""

Taken = tuple[int, int, Life]
"""A piece of memory from a first byte up to another, and when it is used."""


def aligned(size: int, alignment: int) -> int:
    """Bytes that ``size`` take where everything begins at a multiple of ``alignment``; at least one such multiple."""
    return -(-max(1, size) // alignment) * alignment


def first_fit(taken: Sequence[Taken], size: int, life: Life) -> int:
    """The lowest place for ``size`` bytes beside what lives at the same time."""
    at = 0
    for start, stop, (first, last) in sorted(taken):
        if first <= life[1] and life[0] <= last and start < at + size and at < stop:
            at = stop
    return at


def offsets(sizes: Sequence[int], lives: Sequence[Life], alignment: int) -> tuple[list[int], int]:
    """A place for each buffer, and the bytes that all of them take: the largest first, each at the lowest place that is free.

    The greedy strategy by size of Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference" (2020).

    >>> offsets([100, 50, 100], [(0, 1), (1, 2), (2, 3)], 64)
    ([0, 128, 0], 192)
    """
    taken: list[Taken] = []
    found = [0] * len(sizes)
    for n in sorted(range(len(sizes)), key=lambda n: -sizes[n]):
        size = aligned(sizes[n], alignment)
        found[n] = first_fit(taken, size, lives[n])
        taken.append((found[n], found[n] + size, lives[n]))
    return found, max((stop for _, stop, _ in taken), default=0)
