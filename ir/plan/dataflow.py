"""Dependence analysis of kernels: what needs what among the kernels of a plan, and the orders in which they can run."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from columba.ir.plan.groups import Group
from columba.ir.plan.kernels import Buffer, HostCall, Kernel, reads, writes

Needs = dict[str, set[str]]
"""By the name of a kernel, the names of kernels whose results it reads."""


def writers(kernels: Sequence[Kernel]) -> dict[Buffer, str]:
    """By buffer, the name of the kernel that writes it."""
    return {buffer: k.name for k in kernels for buffer in writes(k)}


def direct_needs(kernels: Sequence[Kernel]) -> Needs:
    """The kernels whose results each one reads itself."""
    writer = writers(kernels)
    return {k.name: {writer[b] for b in reads(k) if b in writer} for k in kernels}


def all_needs(kernels: Sequence[Kernel]) -> Needs:
    """The kernels whose results each one needs, directly or not; for kernels in an order in which they can run."""
    needs: Needs = {}
    for name, sources in direct_needs(kernels).items():
        needs[name] = sources.union(*(needs[s] for s in sources))
    return needs


def passes_between(needs: Needs, first: str, second: str) -> bool:
    """Whether a third kernel needs the first and is needed by the second; ``needs`` are :func:`all_needs`."""
    return any(first in needs[middle] for middle in needs[second])


def schedule_order(kernels: Sequence[Kernel]) -> list[Kernel]:
    """A reproducible order in which every kernel comes after those whose buffers it reads.

    Among the kernels that can run, host calls go first if none has run yet, and last otherwise, so that the runs of compiled
    kernels between them are long.
    """
    needs = direct_needs(kernels)
    missing = {k.name: len(needs[k.name]) for k in kernels}
    users: dict[str, list[int]] = {k.name: [] for k in kernels}
    ready: tuple[list[int], list[int]] = [], []  # by their places: others, and host calls
    for place, kernel in enumerate(kernels):
        for source in needs[kernel.name]:
            users[source].append(place)
        if not needs[kernel.name]:
            ready[isinstance(kernel, HostCall)].append(place)
    order: list[Kernel] = []
    started = False
    while ready[0] or ready[1]:
        kernel = kernels[heapq.heappop((ready[0] or ready[1]) if started else (ready[1] or ready[0]))]
        started |= not isinstance(kernel, HostCall)
        order.append(kernel)
        for place in users[kernel.name]:
            missing[kernels[place].name] -= 1
            if not missing[kernels[place].name]:
                heapq.heappush(ready[isinstance(kernels[place], HostCall)], place)
    if len(order) < len(kernels):
        raise ValueError(f"kernels wait for each other: {', '.join(k.name for k in kernels if missing[k.name])}")
    return order


def grouped_order(kernels: Sequence[Kernel], groups: Sequence[Group]) -> list[Kernel]:
    """An order in which every kernel comes after those whose buffers it reads, and the kernels of a group stand together."""
    of = {name: group.kernels for group in groups for name in group.kernels}
    by_name = {k.name: k for k in kernels}
    waiting = list(dict.fromkeys(of.get(k.name, (k.name,)) for k in kernels))
    direct = direct_needs(kernels)
    needs = {unit: set[str]().union(*(direct[name] for name in unit)) - set(unit) for unit in waiting}
    order: list[str] = []
    while waiting:
        unit = next(u for u in waiting if needs[u] <= set(order))
        order += unit
        waiting.remove(unit)
    return [by_name[name] for name in order]
