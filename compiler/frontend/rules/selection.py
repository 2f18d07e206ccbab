"""Places and elements of a feature axis: ``argmax``, ``topk``; products, and whether any or all elements hold."""

from __future__ import annotations

import math
from typing import Any

from columba.frontend.operands import cast_to, feature_axis, on_weights, pointwise
from columba.frontend.rules.features import (
    Dims,
    axes_of,
    first_place,
    not_a_number,
    place_of_extremum,
    places_along,
    reduced,
)
from columba.frontend.rules.registry import Call, rule
from columba.frontend.rules.shapes import sliced
from columba.ir.program import build as b
from columba.ir.program.ops import Concat, Value
from columba.ir.types import DType


@rule("argmax", "argmin")
def _argmax(call: Call, input: Any, dim: int | None = None, keepdim: bool = False) -> Value:
    x = call.value(input)
    op = call.name.removeprefix("arg")
    if dim is not None:
        return place_of_extremum(x, op, feature_axis(input, dim, call.name, call.where), keepdim=keepdim)
    axes_of(call, input, None)  # of the whole tensor, which must be one value
    place = place_of_extremum(b.reshape(x, (x.type.size,)), op, 0, keepdim=False)
    return b.reshape(place, (1,) * len(x.shape)) if keepdim else place


def _ranked(x: Value, axis: int, k: int, *, largest: bool) -> tuple[list[Value], list[Value]]:
    """The ``k`` largest (or smallest) elements of an axis and their places, in order. NaN is larger than all numbers."""
    places, nan = places_along(x, axis), not_a_number(x)
    beyond = b.constant_like(x, -math.inf if largest else math.inf)
    zero = b.constant_like(x, 0.0)
    free = b.pointwise("eq", places, places)
    values, found = [], []
    for _ in range(k):
        usable = b.pointwise("logical_and", free, b.pointwise("logical_not", nan))
        candidates = b.pointwise("where", usable, x, beyond)
        extremum = b.feature_reduce(candidates, "max" if largest else "min", [axis], keepdims=True)
        attains = b.pointwise("logical_and", usable, b.pointwise("eq", x, extremum))
        number = first_place(attains, places, axis)
        unknown = first_place(b.pointwise("logical_and", free, nan), places, axis)
        first, second = (unknown, number) if largest else (number, unknown)
        place = b.pointwise("where", b.pointwise("lt", first, b.constant_like(first, math.inf)), first, second)
        chosen = b.pointwise("eq", places, place)
        values.append(b.feature_sum(b.pointwise("where", chosen, x, zero), [axis], keepdims=True))
        found.append(b.cast(place, DType.I64))
        free = b.pointwise("logical_and", free, b.pointwise("logical_not", chosen))
    return values, found


@rule("topk")
def _topk(
    call: Call, input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True, out: Any = None
) -> list[Value]:
    x = call.value(input)
    axis = feature_axis(input, dim, call.name, call.where)
    if not x.dtype.is_float:
        raise call.unsupported("of integers", "convert them first (x.float(), exact up to 2**24)")
    if k == 0:
        nothing = sliced(x, axis, 0, 0)
        return [nothing, cast_to(nothing, DType.I64)]

    def part(which: int) -> Value:
        return on_weights(lambda v: Concat(tuple(_ranked(v, axis, k, largest=largest)[which]), axis), x)

    return [part(0), part(1)]


@rule("any", "all")
def _holds(call: Call, input: Any, dim: Dims = None, keepdim: bool = False) -> Value:
    """All hold where none does not, of no rows too."""
    x = call.value(input)
    axes = axes_of(call, input, dim, rows=True)
    sought = "ne" if call.name == "any" else "eq"
    found = pointwise(sought, (x, b.constant_like(x, 0.0)))
    counted = reduced(cast_to(found, DType.F32), "max", axes, keepdim=keepdim)
    return pointwise(sought, (counted, b.constant_like(counted, 0.0)))


@rule("prod")
def _prod(call: Call, input: Any, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    """Halves multiplied with each other, so that gradients divide by nothing and are those of torch where there are zeros."""
    call.value(input)
    x = cast_to(input.value, call.dtype)
    if dim is None:
        axes_of(call, input, None)
        return b.reshape(_multiplied(b.reshape(x, (x.type.size,)), 0), ())
    axis = feature_axis(input, dim, call.name, call.where)
    shape = (*x.shape[:axis], *((1,) if keepdim else ()), *x.shape[axis + 1 :])
    return on_weights(lambda v: b.reshape(_multiplied(v, axis), shape), x)


def _multiplied(x: Value, axis: int) -> Value:
    """The product along an axis, which stays with size 1."""
    size = x.shape[axis]
    if size == 0:
        return b.expand(b.constant_like(x, 1.0), (*x.shape[:axis], 1, *x.shape[axis + 1 :]))
    left: list[Value] = []
    while size > 1:
        half = size // 2
        if size % 2:
            left.append(sliced(x, axis, size - 1, size))
        x = b.pointwise("mul", sliced(x, axis, 0, half), sliced(x, axis, half, 2 * half))
        size = half
    for part in left:
        x = b.pointwise("mul", x, part)
    return x
