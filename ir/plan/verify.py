"""The verifier of level 2: one function an invariant."""

from __future__ import annotations

from collections.abc import Callable

from columba.ir.node import topological
from columba.ir.plan.groups import NoGroup, scattered_sums
from columba.ir.plan.groups import check as check_group
from columba.ir.plan.kernels import (
    Buffer,
    Gemm,
    GemmReduce,
    HostCall,
    Kernel,
    Load,
    Product,
    Traversal,
    product_of,
    reads,
    values_of,
    writes,
)
from columba.ir.plan.plan import Plan
from columba.ir.plan.printing import print_kernel
from columba.ir.program.ops import (
    Input,
    Lift,
    Linear,
    OuterReduce,
    Reduce,
    Softmax,
    Value,
)
from columba.ir.program.verify import VerificationError
from columba.ir.spaces import Space


def check_names(plan: Plan) -> None:
    """Buffers and kernels have distinct names."""
    for kind, names in (("buffer", [b.name for b in plan.buffers]), ("kernel", [k.name for k in plan.kernels])):
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise VerificationError(f"plan {plan.name}: {kind} names are not distinct: {', '.join(twice)}")


def check_written_once_before_read(plan: Plan) -> None:
    """Every buffer but the inputs is written by exactly one kernel, and read only after it."""
    written: set[Buffer] = set(plan.inputs)
    for kernel in plan.kernels:
        for buffer in reads(kernel):
            if buffer not in written:
                raise _error(kernel, f"reads {buffer}, which no kernel before it writes")
        for buffer in writes(kernel):
            if buffer in written:
                raise _error(kernel, f"writes {buffer}, which is written already")
            written.add(buffer)
    for buffer in plan.outputs:
        if buffer not in written:
            raise VerificationError(f"plan {plan.name}: output {buffer} is never written")


def check_row_operations(plan: Plan) -> None:
    """Inside a kernel there are only operations on rows; what needs a kernel of its own is not nested in another."""
    for kernel in plan.kernels:
        for value in values_of(kernel):
            if isinstance(value, (Input, Linear, OuterReduce, Softmax)):
                raise _error(kernel, f"{value.op_name} cannot be part of a kernel")
            if isinstance(value, Product) and not isinstance(kernel, Gemm):
                raise _error(kernel, "a product belongs in a gemm kernel")


def check_motion(plan: Plan) -> None:
    """Lift and reduce go along the kernel's own map only."""
    for kernel in plan.kernels:
        own = kernel.via if isinstance(kernel, Traversal) else None
        for value in values_of(kernel):
            if isinstance(value, (Lift, Reduce)) and value.via != own:
                raise _error(kernel, f"{value.op_name} along {value.via}, but the kernel goes along {own}")


def check_levels(plan: Plan) -> None:
    """Every row value is in the space of the owners or in that of the members."""
    for kernel in plan.kernels:
        match kernel:
            case Traversal():
                allowed = {kernel.owner} if kernel.via is None else {kernel.owner, kernel.via.fine}
                if kernel.via is not None and kernel.via.coarse is not kernel.owner:
                    raise _error(kernel, f"{kernel.via} does not lead to {kernel.owner}")
            case Gemm():
                allowed = {product_of(kernel).space}
            case GemmReduce():
                allowed = {kernel.x.space}
            case HostCall():
                continue
        for value in values_of(kernel):
            if value.space is Space.ONE and isinstance(value, Load):
                continue  # the seed of random numbers
            if value.space not in allowed:
                raise _error(
                    kernel, f"{value.op_name} is in {value.space}, the kernel works on {' and '.join(sorted(allowed))}"
                )


def check_own_writes_are_not_read_elsewhere(plan: Plan) -> None:
    """A kernel does not read a buffer that it writes: values pass inside it as values."""
    for kernel in plan.kernels:
        both = set(reads(kernel)) & set(writes(kernel))
        if both:
            raise _error(kernel, f"reads and writes {', '.join(sorted(b.name for b in both))}")


def check_split(plan: Plan) -> None:
    """Only a traversal with one phase, whose reductions are stored as they are, can cut its owners."""
    for kernel in plan.kernels:
        if isinstance(kernel, Traversal) and kernel.schedule.split:
            if kernel.via is None:
                raise _error(kernel, "split needs members")
            for store in kernel.stores:
                plain = isinstance(store.value, Reduce) and store.value.op in ("sum", "max", "min")
                if store.value.space is kernel.owner and not plain:
                    raise _error(kernel, f"split: the store to {store.buffer} is not a plain reduction")
            for value in values_of(kernel):
                if isinstance(value, Lift) and any(isinstance(v, Reduce) for v in _below(value)):
                    raise _error(kernel, "split: members need a reduction of their owner")


def check_scatter(plan: Plan) -> None:
    """Only sums, each with a buffer of its own to be kept in, are added up by members that are walked as they are stored."""
    for kernel in plan.kernels:
        if isinstance(kernel, Traversal) and kernel.schedule.scatter:
            if kernel.schedule.split:
                raise _error(kernel, "scatter: owners are not cut")
            try:
                scattered_sums(kernel)
            except NoGroup as e:
                raise _error(kernel, f"scatter: {e}") from e


def check_groups(plan: Plan) -> None:
    """The kernels of a group follow each other, can run part by part, and its local buffers are not needed beyond it."""
    grouped = [group for group, _ in plan.units if group is not None]
    if len(grouped) != len(plan.groups):
        raise VerificationError(f"plan {plan.name}: the kernels of a group do not stand together, or stand in two")
    for group, kernels in plan.units:
        if group is None:
            continue
        if tuple(k.name for k in kernels) != group.kernels:
            raise VerificationError(f"plan {plan.name}: a group names {', '.join(group.kernels)}, which are not there")
        try:
            check_group(group, kernels, plan.outputs, [k for k in plan.kernels if k not in kernels])
        except NoGroup as e:
            raise VerificationError(f"plan {plan.name}: group of {', '.join(group.kernels)}: {e}") from e


def check_orders(plan: Plan) -> None:
    """Only traversals, at their members, read and write buffers whose rows are sorted along a map."""
    for kernel in plan.kernels:
        walk = kernel.via if isinstance(kernel, Traversal) else None
        member = None if walk is None else walk.fine
        through = {
            v.buffer for v in values_of(kernel) if isinstance(v, Load) and (v.via is not None or v.at is not member)
        }
        for buffer in dict.fromkeys((*reads(kernel), *writes(kernel))):
            if buffer.order is not None and (buffer.type.space is not member or buffer in through):
                raise _error(
                    kernel, f"the rows of {buffer} are sorted along {buffer.order}, and not read or written by members"
                )


def check_host_calls(plan: Plan) -> None:
    """A host call's buffers have the types of its program's inputs and results."""
    for kernel in plan.kernels:
        if isinstance(kernel, HostCall):
            given = [b.type for b in (*kernel.args, *kernel.results)]
            wanted = [v.type for v in (*kernel.program.inputs, *kernel.program.results)]
            if given != wanted:
                raise _error(kernel, "buffers do not have the types of the program's inputs and results")


CHECKS: tuple[Callable[[Plan], None], ...] = (
    check_names,
    check_written_once_before_read,
    check_row_operations,
    check_motion,
    check_levels,
    check_own_writes_are_not_read_elsewhere,
    check_split,
    check_scatter,
    check_groups,
    check_orders,
    check_host_calls,
)


def verify(plan: Plan) -> Plan:
    """Returns the plan if all invariants hold; :class:`VerificationError` otherwise."""
    for check in CHECKS:
        check(plan)
    return plan


def _below(value: Value) -> list[Value]:
    return [v for v in topological((value,)) if isinstance(v, Value)]


def _error(kernel: Kernel, message: str) -> VerificationError:
    return VerificationError(f"kernel {kernel.name}: {message}\n{print_kernel(kernel)}")
