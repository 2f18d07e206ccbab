"""Scheduling for memory: kernels run in an order in which few bytes are alive at once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from columba.ir.counts import TYPICAL
from columba.ir.plan.dataflow import direct_needs
from columba.ir.plan.kernels import Buffer, HostCall, Kernel, reads, writes
from columba.ir.plan.plan import Plan
from columba.ir.spaces import PAIR_SPACES
from columba.passes.pipeline import Pass


@dataclass(frozen=True)
class OrderKernels(Pass[Plan]):
    """``A writes %x; B; C reads %x  -->  B; A; C``, if ``%x`` is larger than what B makes.

    Among the orders in which every kernel comes after those whose buffers it reads, one is searched for whose most bytes alive are few,
    on graphs of typical counts: at each step the ``width`` best beginnings (at least one) are carried on. A temporary lives until its
    last reader has run, and so does an input with a row a pair, which can only be a saved value. Host calls keep their places among the
    kernels, since what stands between two runs as one call. Kernels of a group stay together, and its local buffers count as nothing. It
    must not fire where the order at hand needs no more.
    """

    width: int = 32

    def run(self, plan: Plan) -> Plan:
        units = [kernels for _, kernels in plan.units]
        if len(units) < 2:
            return plan
        search = _Search(plan, units)
        order = search.best(self.width)
        if search.peak(order) >= search.peak(range(len(units))):
            return plan
        return replace(plan, kernels=tuple(k for n in order for k in units[n]))


@dataclass(frozen=True)
class _Beginning:
    """Kernels, or groups of them, that have run, the most bytes alive so far, and the bytes alive after the last."""

    order: tuple[int, ...]
    peak: int
    alive: int


class _Search:
    def __init__(self, plan: Plan, units: Sequence[tuple[Kernel, ...]]) -> None:
        local = {b for group in plan.groups for b in group.local}
        self.made = [[b for k in unit for b in writes(k) if b not in local] for unit in units]
        self.read = [
            [b for k in unit for b in dict.fromkeys(reads(k)) if b not in local and b not in made]
            for unit, made in zip(units, self.made, strict=True)
        ]
        self.readers: dict[Buffer, set[int]] = {}
        for n, read in enumerate(self.read):
            for b in read:
                self.readers.setdefault(b, set()).add(n)
        unit_of = {k.name: n for n, unit in enumerate(units) for k in unit}
        needs = direct_needs([k for unit in units for k in unit])
        self.needs = [{unit_of[name] for k in unit for name in needs[k.name]} - {n} for n, unit in enumerate(units)]
        self._keep_host_calls(units)
        saved = {b for b in plan.inputs if b.type.space in PAIR_SPACES}
        self.dies = saved | ({b for made in self.made for b in made} - set(plan.outputs))
        self.start = _Beginning((), 0, sum(map(_bytes, saved)))

    def _keep_host_calls(self, units: Sequence[tuple[Kernel, ...]]) -> None:
        for n, unit in enumerate(units):
            if any(isinstance(k, HostCall) for k in unit):
                self.needs[n] |= set(range(n))
                for later in range(n + 1, len(units)):
                    self.needs[later].add(n)

    def best(self, width: int) -> tuple[int, ...]:
        beginnings = [self.start]
        for _ in self.made:
            found: dict[frozenset[int], _Beginning] = {}
            for b in beginnings:
                for n in self._ready(b.order):
                    after = self._after(b, n)
                    ran = frozenset(after.order)
                    if ran not in found or _rank(after) < _rank(found[ran]):
                        found[ran] = after
            beginnings = sorted(found.values(), key=_rank)[: max(1, width)]
        return beginnings[0].order

    def peak(self, order: Sequence[int]) -> int:
        return functools.reduce(self._after, order, self.start).peak

    def _ready(self, order: tuple[int, ...]) -> list[int]:
        ran = set(order)
        return [n for n, needs in enumerate(self.needs) if n not in ran and needs <= ran]

    def _after(self, before: _Beginning, n: int) -> _Beginning:
        order = (*before.order, n)
        ran = set(order)
        full = before.alive + sum(map(_bytes, self.made[n]))
        touched = dict.fromkeys((*self.read[n], *self.made[n]))
        dead = [b for b in touched if b in self.dies and self.readers.get(b, set()) <= ran]
        return _Beginning(order, max(before.peak, full), full - sum(map(_bytes, dead)))


def _rank(b: _Beginning) -> tuple[int, int, tuple[int, ...]]:
    """The fewest bytes first; where equal, the order at hand."""
    return b.peak, b.alive, b.order


def _bytes(buffer: Buffer) -> int:
    return TYPICAL.bytes(buffer.type)
