"""Tiling across kernels: kernels over the same rows run together, part by part, so that what passes between them stays in cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from columba.ir.plan.dataflow import direct_needs, grouped_order, schedule_order
from columba.ir.plan.groups import Group, GroupSchedule, NoGroup, check, rows_of, scattered_sums
from columba.ir.plan.kernels import Buffer, Kernel, Traversal, reads, writes
from columba.ir.plan.plan import Plan
from columba.ir.spaces import NODE_SPACES, PAIR_SPACES, WEIGHT_SPACES, Space
from columba.passes.pipeline import Pass

PART_BYTES = 2**17
"""Of a part of the widest local buffer: several of them fit a second-level cache."""

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True)
class GroupKernels(Pass[Plan]):
    """``A writes %x; B reads the same row of %x --> group { A; B }`` with ``%x`` local: it has memory for some of its rows only.

    Products, sums of outer products and traversals over the rows of one pair space are grouped, as long as no other kernel stands
    between them and a temporary of at least ``least`` bytes a row passes between them and goes nowhere else. A sum of such rows at
    nodes is taken in (``scatter``) as a traversal that adds the rows of each chunk to its owners. Where a traversal of weights stands
    between two kernels because it does two things, one before and one after, it is cut in two. Threads take ``rows`` rows at a time,
    0 standing for as many as suit their width, and a chunk has ``parts`` such parts for each thread. It must not fire where a kernel
    reads other rows than its own, where rows are not stored in the order in which a product walks them, or in a plan that has groups.
    """

    least: int = 64
    rows: int = 0
    parts: int = 16
    scatter: bool = True

    def run(self, plan: Plan) -> Plan:
        if plan.groups:
            return plan
        kernels, groups = list(plan.kernels), list[Group]()
        for space in PAIR_SPACES:
            for seed in [k.name for k in kernels]:
                if any(seed in g.kernels for g in groups) or all(k.name != seed for k in kernels):
                    continue
                grown = _Growth(self, kernels, plan.outputs, space, groups).from_seed(seed)
                if grown is not None:
                    kernels, group = grown
                    groups.append(group)
        if not groups:
            return plan
        return replace(plan, kernels=tuple(grouped_order(kernels, groups)), groups=tuple(groups))


class _Growth:
    """A group that grows from one kernel as far as it can."""

    def __init__(
        self,
        options: GroupKernels,
        kernels: Sequence[Kernel],
        outputs: Sequence[Buffer],
        space: Space,
        groups: Sequence[Group],
    ) -> None:
        self.options, self.outputs, self.space, self.groups = options, outputs, space, groups
        self.kernels = list(kernels)
        self.taken = {name for g in groups for name in g.kernels}
        self.members: set[str] = set()

    def from_seed(self, seed: str) -> tuple[list[Kernel], Group] | None:
        """The kernels, some of them changed, and the group; None if there is none with this kernel."""
        first = self._named(seed)
        if rows_of(first) is not self.space or not any(self._is_worth_it(b) for b in writes(first)):
            return None
        self.members.add(seed)
        while any(self._add(k) for k in list(self.kernels) if k.name not in self.members):
            pass
        group = self._group(self._of_members())
        if len(group.kernels) < 2 or not any(self._is_worth_it(b) for b in group.local):
            return None
        return self.kernels, group

    def _named(self, name: str) -> Kernel:
        return next(k for k in self.kernels if k.name == name)

    def _of_members(self) -> list[Kernel]:
        return [k for k in self.kernels if k.name in self.members]

    def _is_worth_it(self, buffer: Buffer) -> bool:
        bytes_of_row = buffer.type.size * buffer.type.dtype.itemsize
        return buffer.type.space is self.space and buffer not in self.outputs and bytes_of_row >= self.options.least

    def _add(self, kernel: Kernel) -> bool:
        """Takes a kernel in, if it shares a buffer with the members and may."""
        passing = (b for other in self._of_members() for b in _passing(kernel, other))
        if kernel.name in self.taken or not any(b.type.space is self.space for b in passing):
            return False
        kernel = self._scattered(kernel)
        kernels = [kernel if k.name == kernel.name else k for k in self.kernels]
        members = self.members | {kernel.name}
        together = [k for k in kernels if k.name in members]
        try:
            check(self._group(together), together, (), ())
        except NoGroup:
            return False
        found = self._without_between(kernels, members)
        if found is None:
            return False
        self.kernels, self.members = found, members
        return True

    def _scattered(self, kernel: Kernel) -> Kernel:
        """A sum of the space's rows at nodes, as one whose members are walked as they are stored, if it can be."""
        if not isinstance(kernel, Traversal) or kernel.via is None or kernel.schedule.split or not self.options.scatter:
            return kernel
        if kernel.via.fine is not self.space or kernel.owner not in NODE_SPACES:
            return kernel
        try:
            scattered_sums(kernel)
        except NoGroup:
            return kernel
        return replace(kernel, schedule=replace(kernel.schedule, scatter=1))

    def _without_between(self, kernels: list[Kernel], members: set[str]) -> list[Kernel] | None:
        """The kernels with no other between members; None if that takes more than cutting traversals of weights."""
        while between := _between(kernels, members, self.groups):
            flow = _flow(kernels)
            after = _reached(flow, members)
            late = {b for k in kernels if k.name in after | members for b in writes(k)}
            needed = {b for k in kernels if k.name in between | members for b in reads(k)}
            cuts = (_cut(k, late, needed, kernels) for k in kernels if k.name in between)
            parts = next((c for c in cuts if c is not None), None)
            if parts is None:
                return None
            kernels = [p for k in kernels for p in (parts if k.name == parts[1].name else (k,))]
        return kernels

    def _group(self, members: Sequence[Kernel]) -> Group:
        names = {k.name for k in members}
        beyond = {*self.outputs, *(b for k in self.kernels if k.name not in names for b in reads(k))}
        made = [b for k in members for b in writes(k)]
        local = tuple(b for b in made if b.type.space is self.space and b not in beyond)
        ordered = schedule_order(members)
        return Group(
            self.space,
            tuple(k.name for k in ordered),
            local,
            GroupSchedule(self._rows(local), max(1, self.options.parts)),
        )

    def _rows(self, local: Iterable[Buffer]) -> int:
        widest = max((b.type.size * b.type.dtype.itemsize for b in local), default=1)
        return self.options.rows or 1 << max(8, min(12, (PART_BYTES // max(1, widest)).bit_length() - 1))


def _passing(a: Kernel, b: Kernel) -> Iterator[Buffer]:
    """The buffers that one of two kernels writes and the other reads."""
    yield from (x for x in writes(a) if x in reads(b))
    yield from (x for x in writes(b) if x in reads(a))


def _reached(flow: nx.DiGraph, members: Iterable[str]) -> set[str]:
    """What can be reached from one of the kernels."""
    import networkx as nx

    return {name for m in members for name in nx.descendants(flow, m)}


def _flow(kernels: Sequence[Kernel]) -> nx.DiGraph:
    """Kernel names, and an edge from the writer of a buffer to each reader."""
    import networkx as nx  # takes long to import, and plans that are cached need none of it

    graph = nx.DiGraph()
    graph.add_nodes_from(k.name for k in kernels)
    graph.add_edges_from((source, name) for name, sources in direct_needs(kernels).items() for source in sources)
    return graph


def _between(kernels: Sequence[Kernel], members: set[str], groups: Sequence[Group]) -> set[str]:
    """The kernels that need a member, and that a member needs. Those of another group need what any of them needs."""
    flow = _flow(kernels)
    for group in groups:
        first, *rest = group.kernels
        flow.add_edges_from((first, name) for name in rest)
        flow.add_edges_from((name, first) for name in rest)
    after, before = _reached(flow, members), _reached(flow.reverse(copy=False), members)
    return (after & before) - members


def _cut(
    kernel: Kernel, late: set[Buffer], needed: set[Buffer], kernels: Sequence[Kernel]
) -> tuple[Kernel, Kernel] | None:
    """A row-wise traversal of weights as two: the ``needed`` buffers that can be computed without ``late`` ones, and the rest."""
    if not isinstance(kernel, Traversal) or kernel.via is not None or kernel.owner not in WEIGHT_SPACES:
        return None
    alone = [replace(kernel, stores=(s,)) for s in kernel.stores]
    early = tuple(
        s for s, k in zip(kernel.stores, alone, strict=True) if s.buffer in needed and not late.intersection(reads(k))
    )
    rest = tuple(s for s in kernel.stores if s not in early)
    if not early or not rest:
        return None
    name = f"{early[-1].buffer.name}_kernel"
    if any(k.name == name for k in kernels):
        name = f"{name}_first"
    return replace(kernel, name=name, stores=early), replace(kernel, stores=rest)
