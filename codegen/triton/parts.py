"""Axis partitioning: along which axes a kernel goes over its dimensions.

A row of 64 that is read as 4 heads of 16 somewhere in a kernel is gone over as 4 by 16 everywhere in it; else what is computed for
each head and what is computed for the row would be computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from columba.codegen.triton.items import Item, below
from columba.ir.program.ops import Reshape, Value
from columba.ir.types import Shape

Parts = Mapping[int, Shape]
"""For some sizes of dimensions, the sizes of the axes along which they are gone over."""

Made = TypeVar("Made")


def parts_of_reshapes(values: Iterable[Value]) -> dict[int, Shape]:
    """How the reshapes of a kernel cut dimensions."""
    found: dict[int, Shape] = {}
    for v in values:
        if isinstance(v, Reshape):
            for size, some in _cuts(v.x.shape, v.shape):
                if len(some) > len(found.get(size, ())):
                    found[size] = some
    return {size: _fully_cut(some, found) for size, some in found.items()}


def _cuts(a: Shape, b: Shape) -> list[tuple[int, Shape]]:
    """Dimensions of one shape that are several of the other.

    >>> _cuts((3, 64), (3, 4, 16)), _cuts((2, 3, 5), (6, 5)), _cuts((4, 6), (6, 4))
    ([(64, (4, 16))], [(6, (2, 3))], [])
    """
    left, right = [n for n in a if n != 1], [n for n in b if n != 1]
    found: list[tuple[int, Shape]] = []
    while left and right and 0 not in left and 0 not in right:
        here, there = [left.pop(0)], [right.pop(0)]
        while math.prod(here) != math.prod(there):
            less, rest = (here, left) if math.prod(here) < math.prod(there) else (there, right)
            if not rest:
                return found
            less.append(rest.pop(0))
        for one, many in ((here, there), (there, here)):
            if len(one) == 1 < len(many):
                found.append((one[0], tuple(many)))
    return found


def _fully_cut(some: Shape, cuts: Mapping[int, Shape]) -> Shape:
    return tuple(m for n in some for m in (_fully_cut(cuts[n], cuts) if n in cuts and len(cuts[n]) > 1 else (n,)))


def cheapest(make: Callable[[Parts], Made], roots: Callable[[Made], Iterable[Item]], choices: Iterable[Parts]) -> Made:
    """What ``make`` gives for the parts with which it needs the fewest loads, products, reductions and divisions; the first of equals."""
    best: tuple[int, Made] | None = None
    for parts in choices:
        made = make(parts)
        effort = sum(_is_work(item) for item in below(roots(made)))
        if best is None or effort < best[0]:
            best = (effort, made)
    assert best is not None
    return best[1]


def _is_work(item: Item) -> bool:
    return item.text.startswith(("tl.load(", "product ")) or item.text.endswith(" of members") or "//" in item.text
