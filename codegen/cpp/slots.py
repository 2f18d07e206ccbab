"""Loop placement: in which loop over an owner's members each value of a traversal is computed.

A loop over the members is a *slot*. Even slots are small: statements on a few numbers an edge (scores, weights), whose loop
vectorizes over members and leaves its results in scratch arrays. Odd slots are wide: statements on features, which vectorize
over the row. A value that needs a reduction of its owner's members comes in a slot after it.
"""

from __future__ import annotations

from collections.abc import Sequence

from columba.ir.plan.kernels import Load, Store, Traversal, values_of
from columba.ir.pointwise import POINTWISE
from columba.ir.program.ops import (
    COMPLETE_VIEWS,
    Constant,
    FeatureReduce,
    Lift,
    Pointwise,
    Reduce,
    Uniform,
    Value,
)
from columba.ir.spaces import Space

LOOKUP_COST = 3
"""What a gathered number counts beside pointwise operations."""

COSTLY = 4
"""Computing a small value again is dearer than keeping it from this many operations on."""


class Slots:
    """The slots of one traversal with members.

    ``of[v]``: for a member value, the first slot that can compute it; for an owner value, the first slot that can read it.
    ``scratch``: the small member values that are kept for all members of the owner.
    """

    def __init__(self, kernel: Traversal) -> None:
        assert kernel.via is not None
        self.member: Space = kernel.via.fine
        self.small = kernel.schedule.scratch
        self.values = values_of(kernel)
        self.stores = [s for s in kernel.stores if s.value.space is self.member]
        self.reductions = [v for v in self.values if isinstance(v, Reduce)]
        self.of: dict[Value, int] = {}
        for v in self.values:
            self.of[v] = self._slot(v)
        self.scratch = tuple(v for v in self.values if self._is_kept(v))

    def _slot(self, v: Value) -> int:
        below = max((self.of[c] for c in v.children if isinstance(c, Value)), default=0)
        if isinstance(v, Reduce):
            return self.folds_in(v) + 1
        if v.space is not self.member or isinstance(v, (Lift, Load, Constant)):
            return below
        if self.is_dot(v):
            return _odd(below)
        return _even(below) if self.is_small(v) else below

    def is_small(self, v: Value) -> bool:
        return v.type.size <= self.small

    def is_dot(self, v: Value) -> bool:
        """Whether ``v`` makes a small row of a wide one."""
        return isinstance(v, FeatureReduce) and self.is_small(v) and not self.is_small(v.x)

    def computed_in(self, v: Value) -> int:
        """The slot whose loop computes a member value for its store or its reduction."""
        return _even(self.of[v]) if self.is_small(v) else _odd(self.of[v])

    def folds_in(self, r: Reduce) -> int:
        """The slot in which, or after which, members are combined."""
        return self.computed_in(r.x)

    def all(self) -> list[int]:
        """All slots that do something, in order."""
        found = {self.of[v] for v in self.scratch}
        found |= {self.folds_in(r) for r in self.reductions}
        found |= {self.computed_in(s.value) for s in self.stores}
        return sorted(found)

    def kept_in(self, slot: int) -> list[Value]:
        return [v for v in self.scratch if self.of[v] == slot]

    def folds(self, slot: int, *, small: bool) -> list[Reduce]:
        return [r for r in self.reductions if self.folds_in(r) == slot and self.is_small(r.x) == small]

    def stores_in(self, slot: int) -> list[Store]:
        return [s for s in self.stores if self.computed_in(s.value) == slot]

    def _is_kept(self, v: Value) -> bool:
        if v.space is not self.member or not self.is_small(v):
            return False
        readers = self._readers(v)
        if any(isinstance(u, Reduce) for u in readers):
            return True
        if isinstance(v, (Constant, Load, Lift, *COMPLETE_VIEWS)):
            return False
        later = any(self._read_in(u) > self.of[v] for u in readers)
        stored = any(s.value is v and self.computed_in(v) > self.of[v] for s in self.stores)
        return stored or (later and (self.is_dot(v) or self._cost(v) >= COSTLY))

    def _readers(self, v: Value) -> list[Value]:
        """What reads a value, itself or through views, which are read where it stands."""
        found: list[Value] = []
        for u in self.values:
            if any(c is v for c in u.children):
                found += (
                    self._readers(u) if isinstance(u, COMPLETE_VIEWS) and not isinstance(v, COMPLETE_VIEWS) else [u]
                )
        return found

    def _read_in(self, reader: Value) -> int:
        return self.of[reader] if self.is_small(reader) else self.computed_in(reader)

    def _cost(self, v: Value) -> int:
        if isinstance(v, Load):
            return LOOKUP_COST if v.via is not None else 1
        if isinstance(v, Uniform):
            return COSTLY
        if v.space is not self.member:
            return 0
        own = POINTWISE[v.function].flops if isinstance(v, Pointwise) else int(isinstance(v, FeatureReduce))
        return own + sum(self._cost(c) for c in v.children if isinstance(c, Value))


def _even(slot: int) -> int:
    return slot + slot % 2


def _odd(slot: int) -> int:
    return slot + 1 - slot % 2


def unknown_below(roots: Sequence[Value], known: object) -> list[Value]:
    """What the roots are computed from, down to what is ``known`` (a container), operands first."""
    found: dict[Value, None] = {}

    def visit(v: Value) -> None:
        if v in found or v in known:  # type: ignore[operator]
            return
        for c in v.children:
            visit(c)  # type: ignore[arg-type]
        found[v] = None

    for root in roots:
        visit(root)
    return list(found)
