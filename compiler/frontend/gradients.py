"""Results that have no gradient: a program gives all of its results one, so that what cuts it from them is left to PyTorch."""

from __future__ import annotations

from collections.abc import Iterable

from columba.frontend.recorded import Record


def cut_from_gradients(wanted: Iterable[Record]) -> set[Record]:
    """The calls of ``detach`` without which a wanted value would have a gradient: all ways from it to anything lead through one."""
    found: set[Record] = set()
    for record in wanted:
        cuts, has_gradient = _cuts(record)
        if not has_gradient:
            found |= cuts
    return found


def may_have_gradient(record: Record) -> bool:
    """Whether a value is computed, and is no constant to what follows."""
    return record.source is None and record.op != "detach" and record.meta.dtype.is_floating_point


def has_gradient(record: Record) -> bool:
    """Whether a way from a value to anything that may have a gradient leads through no ``detach``."""
    return _cuts(record)[1]


def _cuts(record: Record) -> tuple[set[Record], bool]:
    """Where the ways from a value are cut, and whether one is not."""
    cuts: set[Record] = set()
    seen = {record}
    stack = [record]
    while stack:
        one = stack.pop()
        if one.op == "detach":
            cuts.add(one)
        elif one.source is not None and one.meta.dtype.is_floating_point:
            return cuts, True
        else:
            stack += [o for o in one.operands if o not in seen]
            seen.update(one.operands)
    return cuts, False
