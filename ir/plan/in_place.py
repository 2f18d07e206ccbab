"""In-place buffers: temporaries that may lie in the memory of the result that is made of them.

``B writes %t; K reads the row of %t that it is at, and writes %out  -->  %t stands in the memory of %out``
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from columba.ir.node import topological
from columba.ir.plan.kernels import (
    Buffer,
    Gemm,
    HostCall,
    Kernel,
    Load,
    Store,
    Traversal,
    product_of,
    reads,
    writes,
)
from columba.ir.plan.plan import Plan
from columba.ir.program.ops import Cast, Pointwise, Reduce, Reshape, Value


def in_place(plan: Plan) -> dict[Buffer, Buffer]:
    """For temporaries that may have the memory of an output: that output. No two have the same.

    The kernel that writes the output reads the temporary last of all kernels. It reads no row but the one that it is at, and of that
    row, for each element that it writes, the element in the same place; nothing else that it stores depends on the temporary. A thread
    that has an owner, or a row of a product, has it alone, so each element is read before it is written. Where owners are cut,
    or members are added to them as they are stored, several threads or parts work on a row: there must be nothing to do but to add the
    members to what the temporary holds.

    This is a matter of where memory is laid out, and so of a backend: the C++ backend does so, and its kernels rely on it. The Triton
    backend gives each buffer a tensor of its own, since there several programs may read the row that one of them writes.
    """
    between = {b for k in plan.kernels if isinstance(k, HostCall) for b in (*reads(k), *writes(k))}
    local = {b for group in plan.groups for b in group.local}
    fixed = between.union(local, plan.inputs, plan.outputs)
    found: dict[Buffer, Buffer] = {}
    for n, kernel in enumerate(plan.kernels):
        if not isinstance(kernel, (Traversal, Gemm)):
            continue
        later = {b for k in plan.kernels[n + 1 :] for b in reads(k)}
        beside = {b for k in _beside(plan, kernel) for b in (*reads(k), *writes(k))}
        for store in kernel.stores:
            if store.buffer not in plan.outputs or store.buffer in between:
                continue
            for buffer in reads(kernel):
                if buffer in fixed or buffer in later or buffer in beside or buffer in found:
                    continue
                if _is_read_where_it_is_written(kernel, buffer, store):
                    found[buffer] = store.buffer
                    break
    return found


def starts_sum(store: Store, buffer: Buffer) -> Reduce | None:
    """The sum, if ``store`` writes nothing but a row of ``buffer`` and a sum of members, added up element by element."""
    value = _same_elements(store.value)
    if not isinstance(value, Pointwise) or value.function != "add":
        return None
    sides = [_same_elements(a) for a in value.args if a.type.size == value.type.size]
    loads = [v for v in sides if isinstance(v, Load) and v.buffer is buffer]
    sums = [v for v in sides if isinstance(v, Reduce) and v.op == "sum"]
    return sums[0] if len(loads) == len(sums) == 1 else None


def _beside(plan: Plan, kernel: Kernel) -> Iterator[Kernel]:
    """The other kernels of the kernel's group, which run while it does."""
    for group in plan.groups:
        if kernel.name in group.kernels:
            yield from (k for k in plan.kernels if k.name in group.kernels and k is not kernel)


def _is_read_where_it_is_written(kernel: Traversal | Gemm, buffer: Buffer, store: Store) -> bool:
    out = store.buffer
    same = (
        buffer.type.space is out.type.space
        and buffer.type.size == out.type.size
        and buffer.type.dtype is out.type.dtype
        and buffer.order is None
        and out.order is None
    )
    if not same:
        return False
    if isinstance(kernel, Traversal) and kernel.schedule.split:
        return False
    space = kernel.owner if isinstance(kernel, Traversal) else product_of(kernel).space
    if store.value.space is not space:
        return False
    others = [s.value for s in kernel.stores if s is not store]
    if any(isinstance(v, Load) and v.buffer is buffer for v in topological(others)):
        return False
    if isinstance(kernel, Gemm) and product_of(kernel).w is buffer:
        return False
    if isinstance(kernel, Traversal) and kernel.schedule.scatter and starts_sum(store, buffer) is None:
        return False
    elements = _elements_of(store.value)
    loads = [v for v in topological((store.value,)) if isinstance(v, Load) and v.buffer is buffer]
    return all(v.via is None and v.at is space and v in elements for v in loads) and not _is_read_otherwise(
        store.value, elements, loads
    )


def _elements_of(value: Value) -> set[Value]:
    """The values below ``value`` of which it has, in every place, the element in that place."""
    found: set[Value] = set()
    waiting = [value]
    while waiting:
        v = waiting.pop()
        found.add(v)
        if isinstance(v, (Pointwise, Cast, Reshape)):
            waiting += [c for c in v.children if isinstance(c, Value) and c.type.size == value.type.size]
    return found


def _is_read_otherwise(value: Value, elements: set[Value], loads: Sequence[Value]) -> bool:
    """Whether something below ``value`` that is not in ``elements`` reads ``loads``, or one of these that is reads another element."""
    for v in topological((value,)):
        flat = v in elements and isinstance(v, (Pointwise, Cast, Reshape))
        if any(c in loads and not (flat and c in elements) for c in v.children):
            return True
    return False


def _same_elements(value: Value) -> Value:
    while isinstance(value, Reshape):
        value = value.x
    return value
