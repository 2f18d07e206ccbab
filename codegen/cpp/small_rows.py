"""Vectorization over members: C++ for a few numbers a member, such as the scores of several heads, so that they fill vectors.

Four numbers a member do not fill a vector of eight. What is computed from small rows alone is therefore computed for several members at
once: gathered rows are first copied side by side, owner values are repeated, and one loop goes over all numbers of all members.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from columba.codegen.cpp.rows import Array, Rows, Scalar, array_type
from columba.ir.plan.kernels import Load
from columba.ir.program.ops import Cast, Constant, Expand, Lift, Pointwise, Reshape, Value
from columba.ir.types import DType

LANES = 16
"""Scratch arrays have room for a multiple of so many members, and for at least so many beyond the last."""

MOST_LANES = 16
"""Numbers that one step may take. Rows of other sizes take their members one by one: an owner's members are often few."""

FLAT = (Pointwise, Cast, Reshape, Expand, Lift, Load, Constant)
"""What can be computed number by number."""


def step_of(size: int) -> int | None:
    """How many numbers a loop over rows of ``size`` numbers takes at a time; None where it should go member by member.

    >>> [step_of(n) for n in (1, 2, 3, 4, 5, 16)]
    [None, 16, None, 16, None, None]
    """
    step = math.lcm(size, LANES)
    return step if 1 < size < LANES and step <= MOST_LANES else None


def common_size(roots: Sequence[Value], below: Sequence[Value], member: object) -> int | None:
    """The size of all rows of members among these values if they can be computed number by number, else None."""
    sizes = {v.type.size for v in roots}
    if len(sizes) != 1:
        return None
    size = sizes.pop()
    if step_of(size) is None:
        return None
    for v in below:
        if v.space is not member:
            continue
        if not isinstance(v, FLAT) or (v.dtype is not DType.BOOL and not v.dtype.is_float):
            return None
        if v.type.size != size and not (v.type.size == 1 and isinstance(v, (Constant, Lift))):
            return None
    return size


def repeated(rows: Rows, v: Value, step: int, name: str) -> Array | Scalar:
    """An owner's row, repeated to ``step`` numbers; a row of one number is left as it is."""
    rows.materialize(v)
    known = rows.known[v]
    if v.type.size == 1:
        return known
    rows.lines += [
        f"alignas(64) {array_type(v.dtype)} {name}[{step}];",
        f"for (int i = 0; i < {step}; ++i) {name}[i] = {known.flat(f'i % {v.type.size}')};",
    ]
    return Array(name, "0", v.shape, v.dtype)


def steps(size: int, statements: Sequence[str]) -> list[str]:
    """A loop in which number ``j + i`` of an owner's members is worked on; the last step goes on into the room behind them."""
    step = step_of(size)
    return [
        f"for (int64_t j = 0; j < (end - begin) * {size}; j += {step}) {{",
        "  #pragma omp simd",
        f"  for (int i = 0; i < {step}; ++i) {{",
        *(f"    {s}" for s in statements),
        "  }",
        "}",
    ]
