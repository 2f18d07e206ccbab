"""Consistent rounding: a value of 16 bits is the same number for everybody who reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from columba.ir.node import Node, topological
from columba.ir.plan.kernels import Gemm, GemmReduce, HostCall, Kernel, Load, Store, Traversal, roots_of
from columba.ir.plan.plan import Plan
from columba.ir.program.ops import (
    COMPLETE_VIEWS,
    MOVES,
    Cast,
    Concat,
    Constant,
    FeatureReduce,
    Lift,
    Reduce,
    Value,
)
from columba.ir.types import DType
from columba.passes.pipeline import Pass

UNROUNDED = (Lift, *COMPLETE_VIEWS)
"""Operations whose result is as precise as their operand."""

MOVED = (*MOVES, Concat)
"""What is rounded if what it is made of is."""


@dataclass(frozen=True)
class RoundStored(Pass[Plan]):
    """``store @y = %1; f(%1)  -->  store @y = %1; f(round(%1))`` and ``%1 == %2  -->  round(%1) == round(%2)``, in 16 bits.

    Kernels compute in 32 bits with values of 16, and round what they store. One that stores a value and goes on with the unrounded
    value disagrees with those that load it: no member equals a minimum that was stored. What is compared with what was made of it
    (:mod:`columba.ir.plan.exact`) is rounded wherever it is computed, operation by operation, since other kernels may have stored any
    of these: logits less the maximum of logits that were rounded otherwise are off by a factor of their exponentials. ``round`` is a cast
    to 32 bits and back. It must not fire on what is rounded already (loads, constants, casts that are
    not loose), on values that only their store reads, and on the terms of a sum, which is rounded once.
    """

    def run(self, plan: Plan) -> Plan:
        kernels = tuple(_rounded(k, plan.exact_values[k.name]) for k in plan.kernels)
        if all(a is b for a, b in zip(kernels, plan.kernels, strict=True)):
            return plan
        return replace(plan, kernels=kernels)


def _rounded(kernel: Kernel, exact: frozenset[Value]) -> Kernel:
    roots = roots_of(kernel)
    stored = {v for root in roots for v in _computed(root)} if isinstance(kernel, Traversal | Gemm) else set()
    made = _Rounding(stored, exact, roundings(topological(roots)))
    values = [made.stored_as(root) for root in roots]
    if all(a is b for a, b in zip(values, roots, strict=True)):
        return kernel
    return _with_roots(kernel, values)


def _computed(root: Value) -> Iterator[Value]:
    """What a store computes, seen through the views of it that are stored."""
    if isinstance(root, UNROUNDED):
        yield from _computed(root.x)
    elif isinstance(root, Concat):
        for part in root.args:
            yield from _computed(part)
    else:
        yield root


def roundings(values: Sequence[Node]) -> set[Node]:
    """The inner casts of what rounds already: a value of 16 bits cast to 32, and from there to its own type again."""
    return {
        v.x for v in values if isinstance(v, Cast) and isinstance(v.x, Cast) and v.to.is_half and v.x.x.dtype is v.to
    }


def _is_rounded(v: Value) -> bool:
    """Whether a value is rounded by itself."""
    return isinstance(v, (Load, Constant)) or (isinstance(v, Cast) and not v.loose)


class _Rounding:
    """The values of a kernel made anew; ``stored`` are those whose rounded numbers others see, ``exact`` those that are the same
    wherever they are computed, ``rounded`` the beginnings of roundings that there are."""

    def __init__(self, stored: set[Value], exact: frozenset[Value], rounded: set[Node]) -> None:
        self.stored = stored
        self.exact = exact
        self.roundings = rounded
        self.made: dict[Value, Value] = {}
        self.rounds: dict[Value, Value] = {}

    def stored_as(self, root: Value) -> Value:
        """What a store of ``root`` writes: that rounds, so that the value itself need not be."""
        for v in topological((root,)):
            assert isinstance(v, Value)
            if v not in self.made:
                self.made[v] = v.with_children([self._operand(v, c) for c in v.children if isinstance(c, Value)])
        return self._unrounded(root)

    def _operand(self, reader: Value, v: Value) -> Value:
        is_sum = isinstance(reader, (FeatureReduce, Reduce)) and reader.op == "sum"
        seen = v in self.stored or (v in self.exact and not is_sum and not isinstance(v, MOVED))
        new = self.made[v]
        if reader in self.roundings:
            return new
        if not v.dtype.is_half or _is_rounded(v) or not seen:
            return new
        if new not in self.rounds:
            self.rounds[new] = Cast(Cast(new, DType.F32), v.dtype)
        return self.rounds[new]

    def _unrounded(self, root: Value) -> Value:
        if isinstance(root, UNROUNDED):
            return root.with_children([self._unrounded(root.x)])
        if isinstance(root, Concat):
            return root.with_children([self._unrounded(part) for part in root.args])
        return self.made[root]


def _with_roots(kernel: Kernel, roots: Sequence[Value]) -> Kernel:
    match kernel:
        case Traversal() | Gemm():
            stores = tuple(Store(s.buffer, v) for s, v in zip(kernel.stores, roots, strict=True))
            return replace(kernel, stores=stores)
        case GemmReduce():
            x, y = roots
            return replace(kernel, x=x, y=y)
        case HostCall():
            return kernel
