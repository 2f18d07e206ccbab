"""A plan: the kernels of one compiled program in the order in which they run, and what they need of the graph."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

from columba.ir.indices import IndexArray, Lookup, Order, Segments, Tiles
from columba.ir.node import value_numbers
from columba.ir.plan.exact import exact_values
from columba.ir.plan.groups import Group
from columba.ir.plan.groups import is_sorted as is_sorted
from columba.ir.plan.kernels import (
    Buffer,
    Gemm,
    GemmReduce,
    HostCall,
    Kernel,
    Load,
    Traversal,
    product_of,
    roots_of,
    values_of,
    writes,
)
from columba.ir.plan.printing import indented, print_declaration, print_group, print_kernel
from columba.ir.program.ops import Degree, Uniform, Value
from columba.ir.spaces import IndexMap, Space


@dataclass(frozen=True)
class Plan:
    """``inputs`` and ``outputs`` are buffers, in the order of the program's; an output may be an input passed through.

    ``groups`` name runs of kernels that may run part by part. A backend that runs kernel after kernel computes the same.
    """

    name: str
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    kernels: tuple[Kernel, ...]
    groups: tuple[Group, ...] = ()

    def __str__(self) -> str:
        """The text of the plan."""
        inputs = ", ".join(map(print_declaration, self.inputs))
        outputs = ", ".join(map(print_declaration, self.outputs))
        lines = [f"plan {self.name}({inputs}) -> ({outputs}) {{"]
        local = {b for group in self.groups for b in group.local}
        lines += [
            f"  temporary {print_declaration(b)}" for b in self.buffers if b.role == "temporary" and b not in local
        ]
        for group, kernels in self.units:
            body = [line for kernel in kernels for line in print_kernel(kernel).splitlines()]
            lines += indented(body if group is None else print_group(group, body))
        return "\n".join([*lines, "}"])

    @functools.cached_property
    def buffers(self) -> tuple[Buffer, ...]:
        """All buffers, each once: inputs, then outputs, then temporaries in order of first write."""
        found = dict.fromkeys((*self.inputs, *self.outputs))
        for kernel in self.kernels:
            found.update(dict.fromkeys(writes(kernel)))
        return tuple(found)

    @property
    def units(self) -> tuple[tuple[Group | None, tuple[Kernel, ...]], ...]:
        """The kernels, those of a group together, each other alone."""
        of = {name: group for group in self.groups for name in group.kernels}
        runs = itertools.groupby(self.kernels, key=lambda k: (of.get(k.name), None if k.name in of else k.name))
        return tuple((group, tuple(kernels)) for (group, _), kernels in runs)

    @functools.cached_property
    def exact_values(self) -> dict[str, frozenset[Value]]:
        """See :func:`columba.ir.plan.exact.exact_values`."""
        return exact_values(self.kernels)

    @functools.cached_property
    def index_arrays(self) -> tuple[IndexArray, ...]:
        """All index arrays that the kernels read, each once, in order of first use."""
        return tuple(dict.fromkeys(array for kernel in self.kernels for array in index_arrays(kernel)))


def is_stored_along(order: IndexMap | None, walk: IndexMap) -> bool:
    """Whether rows that are stored in ``order`` (None: that of their space) stand in the order of ``walk``."""
    return is_sorted(walk) if order is None else order == walk


def index_arrays(kernel: Kernel) -> tuple[IndexArray, ...]:
    """The index arrays that one kernel reads.

    Kernels walk rows in the order of a map: a traversal's members along its own, a product's rows along the map that
    selects the weight. Other rows are walked as they are stored.
    """
    match kernel:
        case HostCall():
            return ()
        case Traversal(via=IndexMap() as via) if kernel.schedule.scatter:
            walk, written = None, []
            found: list[IndexArray] = [Lookup(via)]
            if any(isinstance(v, Degree) for v in values_of(kernel)):
                found.append(Segments(via))
        case Traversal():
            walk = kernel.via
            found = [] if walk is None else [Segments(walk)]
            if walk is not None and kernel.schedule.split:
                found.append(Tiles(walk, kernel.schedule.split))
            written = [s.buffer for s in kernel.stores]
        case Gemm():
            walk = product_of(kernel).via
            found, written = _tiles(walk, kernel.schedule.tile_rows), [s.buffer for s in kernel.stores]
        case GemmReduce():
            walk = kernel.via
            found, written = _tiles(walk, kernel.schedule.tile_rows), []
    values = values_of(kernel)
    if walk is not None:
        orders = [b.order for b in written if b.type.space is walk.fine]
        for value in values:
            orders += _orders_of_rows(value, walk.fine)
        found += [Order(walk, order) for order in orders if not is_stored_along(order, walk)]
    for value in values:
        if isinstance(value, Load) and value.via is not None and value.via.coarse is not Space.ONE:
            along = walk if walk is not None and value.at is walk.fine and not is_sorted(walk) else None
            found.append(Lookup(value.via, along))
    return tuple(dict.fromkeys(found))


def _tiles(walk: IndexMap | None, rows: int) -> list[IndexArray]:
    """The tile table of a matrix product; rows that share one weight are cut evenly without a table."""
    return [] if walk is None or walk.coarse is Space.ONE else [Tiles(walk, rows), Segments(walk)]


def _orders_of_rows(value: Value, space: Space) -> list[IndexMap | None]:
    """The orders in which computing ``value`` for a row of ``space`` must know the row's place."""
    if isinstance(value, Load):
        return [value.buffer.order] if value.at is space and value.via is None else []
    return [None] if isinstance(value, Uniform) and value.at is space else []


def spaces_of(plan: Plan) -> tuple[Space, ...]:
    """The spaces whose row counts a plan depends on, in the order of :class:`Space`."""
    found = {b.type.space for b in plan.buffers}
    for kernel in plan.kernels:
        found.update(v.space for v in values_of(kernel))
        if isinstance(kernel, Traversal) and kernel.via is not None:
            found.update((kernel.owner, kernel.via.fine))
        if isinstance(kernel, GemmReduce):
            found.add(kernel.via.coarse)
        if isinstance(kernel, HostCall):
            found.update(v.space for v in kernel.program.body)
    for array in plan.index_arrays:
        found.update((array.map.fine, array.map.coarse))
    return tuple(space for space in Space if space in found)


def plans_equal(a: Plan, b: Plan) -> bool:
    """Whether two plans run the same kernels over the same buffers."""
    heads = [(p.name, p.inputs, p.outputs, p.groups, len(p.kernels)) for p in (a, b)]
    if heads[0] != heads[1]:
        return False
    numbers: dict[Any, int] = {}
    return all(_key(x, numbers) == _key(y, numbers) for x, y in zip(a.kernels, b.kernels, strict=True))


def _key(kernel: Kernel, numbers: dict[Any, int]) -> tuple[Any, ...]:
    """What a kernel says, with values numbered across both plans."""
    if isinstance(kernel, HostCall):
        return (kernel.name, str(kernel.program), kernel.args, kernel.results)
    found = value_numbers(roots_of(kernel), numbers)
    roots = tuple(found[r] for r in roots_of(kernel))
    match kernel:
        case Traversal():
            return (
                kernel.name,
                kernel.owner,
                kernel.via,
                kernel.schedule,
                tuple(s.buffer for s in kernel.stores),
                roots,
            )
        case Gemm():
            return (kernel.name, kernel.schedule, tuple(s.buffer for s in kernel.stores), roots)
        case GemmReduce():
            return (kernel.name, kernel.via, kernel.shared, kernel.out, kernel.schedule, roots)
