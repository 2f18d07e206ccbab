"""What a plan takes at a chip's limits: each kernel the longest of its arithmetic, its compulsory bytes and its longest programs, and its
launches; all of them no less than the host takes to launch them.

Compulsory bytes are each distinct row of each tensor, read or written once, and each index array once. Rows that are gathered again and
again come from a cache at best and from memory at worst: :meth:`KernelCost.moved` says what moves if none that exceeds the chip's cache
is found there again. Both are bounds, not measurements: a real time is at least the first.

A kernel is not done before its longest program is, whose steps wait for memory one after the other, however wide the chip. How many they
are follows from the largest degree (:meth:`columba.ir.counts.Counts.largest`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from columba.codegen.triton import emit
from columba.codegen.triton.module import KernelStep
from columba.inspection.footprint import INDEX_BYTES, array_length
from columba.ir.counts import Counts
from columba.ir.plan.kernels import (
    Buffer,
    GemmReduce,
    HostCall,
    Kernel,
    Load,
    Product,
    Traversal,
    product_of,
    values_of,
    writes,
)
from columba.ir.plan.plan import Plan, index_arrays
from columba.ir.program.ops import VIEWS, Constant, Input, Value
from columba.ir.spaces import Space
from columba.ir.types import DType
from columba.selection.chips import Chip
from columba.selection.work import kernel_work, narrowed_loads

PROCESSORS = 132
"""Multiprocessors, which say how many tiles a persistent program takes in turn; no kernel is persistent unless a tuner says so."""


@dataclass(frozen=True)
class Gather:
    """Rows of one table read in an order that is not theirs: ``table`` bytes hold them, ``moved`` bytes are read, ``once`` at the least."""

    table: float
    moved: float
    once: float


@dataclass(frozen=True)
class KernelCost:
    """What one kernel of a plan does on a graph.

    Attributes:
        products, pointwise: floating-point operations of matrix products, and others, in ``dtype``.
        streamed: bytes read or written in order, once. ``gathers``: the rest.
        launches: of functions on the device. ``steps``: of the longest program of each, one launch after the other.
    """

    plan: str
    kernel: str
    dtype: DType
    products: float
    pointwise: float
    streamed: float
    gathers: tuple[Gather, ...]
    launches: int
    steps: int = 0

    @property
    def flops(self) -> float:
        return self.products + self.pointwise

    @property
    def bytes(self) -> float:
        """Compulsory bytes."""
        return self.streamed + sum(g.once for g in self.gathers)

    def moved(self, chip: Chip) -> float:
        """Bytes if rows of tables that exceed the chip's cache are read from memory each time."""
        return self.streamed + sum(g.moved if g.table > chip.cache else g.once for g in self.gathers)

    def seconds(self, chip: Chip, precision: str = "ieee", *, cached: bool = True) -> float:
        """The time on the device; without ``cached``, with :meth:`moved` in the place of compulsory bytes."""
        arithmetic = self.products / chip.product_rate(self.dtype, precision)
        arithmetic += self.pointwise / chip.vector_rate(self.dtype)
        moved = self.bytes if cached else self.moved(chip)
        return max(arithmetic, moved / chip.bandwidth, self.steps * chip.step) + self.launches * chip.launch


def plan_costs(plans: Sequence[Plan], counts: Counts) -> list[KernelCost]:
    """The costs of all kernels of ``plans`` as the Triton backend runs them, in order."""
    module = emit(plans)
    return [_cost(plan, step, counts) for plan in module.plans for step in module.steps[plan.name]]


def total_seconds(costs: Sequence[KernelCost], chip: Chip, precision: str = "ieee", *, cached: bool = True) -> float:
    """The predicted time of a plan, or of several: of the device, or of the host, which launches ahead, if that is longer."""
    device = sum(c.seconds(chip, precision, cached=cached) for c in costs)
    return max(device, sum(c.launches for c in costs) * chip.host)


def _cost(plan: Plan, step: KernelStep, counts: Counts) -> KernelCost:
    kernel = step.kernel
    work = kernel_work(kernel, counts, math.inf)
    if isinstance(kernel, HostCall):
        moved, launches = _host_traffic(kernel, counts)
        return KernelCost(plan.name, kernel.name, DType.F32, work.products, work.pointwise, moved, (), launches)
    streamed, gathers = _traffic(kernel, counts)
    running = [launch for launch in step.launches if launch.runs(counts, counts.largest)]
    steps = sum(launch.steps(counts, counts.largest, PROCESSORS) for launch in running)
    dtype, launches = _dtype(kernel), len(running)
    return KernelCost(plan.name, kernel.name, dtype, work.products, work.pointwise, streamed, gathers, launches, steps)


def _dtype(kernel: Kernel) -> DType:
    """The type that a kernel computes with: that of its product, or the widest that it writes."""
    if isinstance(kernel, GemmReduce):
        return kernel.x.dtype
    products = [v for v in values_of(kernel) if isinstance(v, Product)]
    if products:
        return product_of(kernel).factors  # type: ignore[arg-type]
    return DType.F64 if any(b.type.dtype is DType.F64 for b in writes(kernel)) else DType.F32


def _traffic(kernel: Kernel, counts: Counts) -> tuple[float, tuple[Gather, ...]]:
    """Bytes in order, and gathers, one for each table."""
    values = values_of(kernel)
    weights = dict.fromkeys(v.w for v in values if isinstance(v, Product))
    streamed = sum(counts.bytes(b.type) for b in (*writes(kernel), *weights))
    streamed += INDEX_BYTES * sum(array_length(a, counts) for a in index_arrays(kernel))
    sizes = narrowed_loads(values)
    in_order: dict[Buffer, float] = {}
    scattered: dict[Buffer, list[tuple[float, float]]] = {}
    for load in (v for v in values if isinstance(v, Load)):
        row = sizes.get(load, load.type.size) * load.dtype.itemsize
        reached = float(row * min(counts[load.at], counts[load.buffer.type.space]))
        if _is_gathered(load, kernel):
            scattered.setdefault(load.buffer, []).append((float(row * counts[load.at]), reached))
        else:
            in_order[load.buffer] = max(reached, in_order.get(load.buffer, 0.0))
    gathers = []
    for buffer, reads in scattered.items():
        table = float(counts.bytes(buffer.type))
        left = max(0.0, table - in_order.get(buffer, 0.0))
        gathers.append(Gather(table, sum(m for m, _ in reads), min(left, sum(once for _, once in reads))))
    return streamed + sum(in_order.values()), tuple(gathers)


def _is_gathered(load: Load, kernel: Kernel) -> bool:
    """Whether rows are read in another order than they are stored in; what the whole graph shares is not."""
    if load.buffer.type.space is Space.ONE:
        return False
    walk = kernel.via if isinstance(kernel, (Traversal, GemmReduce)) else None
    owner = kernel.owner if isinstance(kernel, Traversal) else None
    return load.via is not None or (walk is not None and load.at is walk.fine and load.at is not owner)


def _host_traffic(kernel: HostCall, counts: Counts) -> tuple[float, int]:
    """PyTorch reads operands and writes a result, operation by operation; views are free."""
    made = [v for v in kernel.program.body if isinstance(v, Value) and not isinstance(v, (Input, Constant, *VIEWS))]
    touched = [t for v in made for t in (v, *v.children) if isinstance(t, Value)]
    return float(sum(counts.bytes(v.type) for v in touched)), len(made)
