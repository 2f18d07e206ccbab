"""Plans as the Triton backend runs them: every kernel with its schedule, and cut in several where one function cannot hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from columba.codegen.triton.gemm import fits, schedule_of_product
from columba.codegen.triton.gemm_reduce import schedule_of_outer
from columba.codegen.triton.phases import in_single_loops, is_one_loop
from columba.codegen.triton.schedule import (
    IllegalSchedule,
    KernelSchedules,
    MemberSchedule,
    OuterSchedule,
    ProductSchedule,
    Schedule,
)
from columba.codegen.triton.traversal import reduction_of, schedule_of_traversal
from columba.ir.node import Node, rewrite
from columba.ir.plan.kernels import (
    Buffer,
    Gemm,
    GemmReduce,
    GemmSchedule,
    Kernel,
    Load,
    Store,
    Traversal,
    TraversalSchedule,
    product_of,
    roots_of,
)
from columba.ir.plan.orders import in_own_order
from columba.ir.plan.plan import Plan


@dataclass(frozen=True)
class Scheduled:
    """A kernel whose own schedule says how the graph's tile tables are cut, and how Triton runs it (None: as suits its width)."""

    kernel: Kernel
    schedule: Schedule | None
    of: str = ""  #: the kernel of the plan that this is, or is a part of


def prepared(plan: Plan, schedules: KernelSchedules | None = None) -> tuple[Plan, tuple[Scheduled, ...]]:
    """``plan`` with kernels that can be emitted, and how each of these runs.

    Raises:
        IllegalSchedule: a kernel cannot run as ``schedules`` says.
    """
    plan = in_own_order(plan)
    taken = {b.name for b in plan.buffers}
    schedules = schedules or {}
    made = tuple(
        replace(s, of=k.name) for k in plan.kernels for s in scheduled(k, schedules.get((plan.name, k.name)), taken)
    )
    return replace(plan, kernels=tuple(s.kernel for s in made), groups=()), made


def scheduled(kernel: Kernel, schedule: Schedule | None, taken: set[str]) -> Sequence[Scheduled]:
    """What one kernel becomes. ``taken``: names of buffers, to which those of new ones are added."""
    match kernel:
        case Gemm():
            return _product(kernel, schedule, taken)
        case GemmReduce():
            schedule = schedule or schedule_of_outer(kernel)
            if not isinstance(schedule, OuterSchedule):
                raise IllegalSchedule(
                    f"{kernel.name} is a sum of outer products; {schedule} is for another kind of kernel"
                )
            return [Scheduled(replace(kernel, schedule=GemmSchedule(schedule.summed)), schedule)]
        case Traversal():
            return _traversal(kernel, schedule, taken)
        case _:
            return [Scheduled(kernel, None)]


def _traversal(kernel: Traversal, schedule: Schedule | None, taken: set[str]) -> Sequence[Scheduled]:
    if kernel.via is None:
        return [Scheduled(kernel, schedule)]
    if schedule is None and kernel.schedule.split:
        schedule = schedule_of_traversal(kernel)
    if not isinstance(schedule, MemberSchedule) or not schedule.split:
        return [Scheduled(replace(kernel, schedule=TraversalSchedule()), schedule)]
    cut = replace(kernel, schedule=TraversalSchedule(schedule.split))
    loops = [cut] if is_one_loop(kernel) else in_single_loops(kernel, schedule.split, taken)
    found = [Scheduled(t, _of_loop(t, schedule)) for t in loops]
    if schedule.atomic and not any(isinstance(s.schedule, MemberSchedule) and s.schedule.atomic for s in found):
        raise IllegalSchedule(f"traversal {kernel.name}: only sums are added by atomic operations")
    return found


def _of_loop(kernel: Traversal, schedule: MemberSchedule) -> Schedule | None:
    """The schedule of one loop: with atomic operations only where everything that it reduces is a sum."""
    if not kernel.schedule.split:
        return None
    ops = [reduction_of(s).op for s in kernel.stores if s.buffer.type.space is kernel.owner]
    return replace(schedule, atomic=schedule.atomic and bool(ops) and all(op == "sum" for op in ops))


def _product(kernel: Gemm, schedule: Schedule | None, taken: set[str]) -> Sequence[Scheduled]:
    if not isinstance(schedule, ProductSchedule | None):
        raise IllegalSchedule(f"{kernel.name} is a matrix product; {schedule} is for another kind of kernel")
    kernels: Sequence[Kernel] = [kernel] if fits(kernel) else _cut(kernel, taken)
    product, *rest = kernels
    assert isinstance(product, Gemm)
    schedule = schedule or schedule_of_product(product)
    product = replace(product, schedule=GemmSchedule(schedule.rows))
    return [Scheduled(product, schedule), *(Scheduled(k, None) for k in rest)]


def _cut(kernel: Gemm, taken: set[str]) -> Sequence[Kernel]:
    """``gemm with stores of functions of the product --> gemm that stores the product; row-wise traversal``."""
    product = product_of(kernel)
    name = f"{kernel.name}_product"
    while name in taken:
        name += "_"
    taken.add(name)
    buffer = Buffer(name, product.type, "temporary")
    loaded: dict[Node, Node] = {product: Load(buffer, None, product.space)}
    values = rewrite(roots_of(kernel), lambda node: node, loaded)
    stores = tuple(Store(s.buffer, v) for s, v in zip(kernel.stores, values, strict=True))
    return [
        replace(kernel, name=f"{kernel.name}_product", stores=(Store(buffer, product),)),
        Traversal(kernel.name, product.space, None, stores),
    ]
