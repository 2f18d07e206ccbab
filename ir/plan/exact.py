"""Bitwise reproducible values: values that have to be the same to the last bit wherever they are computed.

Kernels compute many a value again that another kernel, maybe of another plan, has computed before. Where products may be added to other
numbers without being rounded the two may differ in the last bit, which rarely matters. It does where a value is compared with what was
made of it: the gradient of an extremum goes to the members that are *equal* to it, or not *within* it, and the exponentials of a softmax
are those of logits *less their maximum*, so that what is the last bit of a large logit is a factor of its weight.
"""

from __future__ import annotations

from collections.abc import Sequence

from columba.ir.node import topological
from columba.ir.plan.kernels import (
    Buffer,
    Gemm,
    HostCall,
    Kernel,
    Load,
    Product,
    Traversal,
    reads,
    roots_of,
    values_of,
    writes,
)
from columba.ir.pointwise import POINTWISE
from columba.ir.program.ops import COMPLETE_VIEWS, Constant, FeatureReduce, Lift, Pointwise, Reduce, Value

EXTREMA = ("max", "min")
EQUALITIES = ("eq", "ne")
ORDERS = ("lt", "gt", "le", "ge")

NO_PRODUCTS = ("add", "sub", "neg", "where", "maximum", "minimum", "abs", "relu", "clamp", "sign")
"""Functions whose result is no product that could be added to another number without being rounded."""


def exact_values(kernels: Sequence[Kernel]) -> dict[str, frozenset[Value]]:
    """By the names of a plan's kernels, their values that have to be the same wherever they are computed.

    They are what is compared, and what that is made of, through the buffers that are read for it.
    """
    found: dict[str, frozenset[Value]] = {}
    buffers: set[Buffer] = set()
    for kernel in reversed(kernels):
        roots = [x for v in values_of(kernel) for x in _compared(v)]
        if isinstance(kernel, (Traversal, Gemm)):
            roots += [s.value for s in kernel.stores if s.buffer in buffers]
        elif not buffers.isdisjoint(writes(kernel)):
            roots += roots_of(kernel)
            buffers.update(reads(kernel) if isinstance(kernel, HostCall) else ())
        exact = frozenset(v for v in topological(roots) if isinstance(v, Value))
        buffers.update(v.buffer for v in exact if isinstance(v, Load))
        buffers.update(v.w for v in exact if isinstance(v, Product))
        found[kernel.name] = exact
    return found


def may_be_product(v: Value) -> bool:
    """Whether a value is, or contains, a product that the target could add to another number without rounding it."""
    if not isinstance(v, Pointwise) or v.function in NO_PRODUCTS:
        return False
    return v.dtype.is_float and POINTWISE[v.function].result != "bool"


def _is_constant(v: Value) -> bool:
    while isinstance(v, (Lift, *COMPLETE_VIEWS)):
        v = v.x
    return isinstance(v, Constant)


def _compared(v: Value) -> tuple[Value, ...]:
    """The operands of a value that are compared, in it or by those who read it."""
    if isinstance(v, (Reduce, FeatureReduce)) and v.op in EXTREMA:
        return (v.x,)
    if not isinstance(v, Pointwise):
        return ()
    if v.function in EQUALITIES and v.args[0].dtype.is_float:
        return v.args
    if v.function in ORDERS and v.args[0].dtype.is_float and not any(map(_is_constant, v.args)):
        return v.args  # what is compared with a constant, as for the gradient of ReLU, decides alone
    if v.function == "exp" and isinstance(v.args[0], Pointwise) and v.args[0].function == "sub":
        return v.args[0].args
    return ()
