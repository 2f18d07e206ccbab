"""Short constructors for level-1 values, which the front end, the gradients and the passes share.

They do no more than the obvious local simplification (no lift of a lift, no reshape to the same shape), so that what
they build is already canonical in these respects.
"""

from __future__ import annotations

from collections.abc import Sequence

from columba.ir.program.ops import (
    Cast,
    Concat,
    Constant,
    Degree,
    Expand,
    FeatureReduce,
    Lift,
    Permute,
    Pointwise,
    Reduce,
    Reshape,
    Slice,
    Value,
)
from columba.ir.spaces import IndexMap, Space, compose
from columba.ir.types import DType, Shape


def pointwise(function: str, *args: Value | float, scalars: Sequence[float] = ()) -> Value:
    """A pointwise function; Python numbers among ``args`` become constants of the other operands' space and dtype.

    Plain values (space ``one``) among operands of another space are lifted to it.
    """
    values = [a for a in args if isinstance(a, Value)]
    row = next((v for v in values if v.space is not Space.ONE), values[0])
    typed = next((v for v in values if v.dtype is not DType.BOOL), values[0])
    operands = [
        to_space(a, row.space) if isinstance(a, Value) else Constant(row.space, float(a), typed.dtype) for a in args
    ]
    return Pointwise(tuple(operands), function, tuple(float(s) for s in scalars))


def to_space(x: Value, space: Space) -> Value:
    """Lifts a plain value to ``space``; leaves a value that is there already as it is."""
    return lift(x, IndexMap("one", space, Space.ONE)) if x.space is Space.ONE and space is not Space.ONE else x


def lift(x: Value, via: IndexMap) -> Value:
    """``x`` copied along ``via``; two lifts become one, a constant stays a constant."""
    if isinstance(x, Lift):
        return Lift(x.x, compose(via, x.via))
    if isinstance(x, Constant):
        return Constant(via.fine, x.value, x.to)
    return Lift(x, via)


def occupied(via: IndexMap, dtype: DType) -> Value:
    """Whether any fine row maps to a coarse row; ``dtype`` is that of the count."""
    return pointwise("gt", Degree(via, dtype), 0.0)


def reduce_sum(x: Value, via: IndexMap) -> Value:
    return Reduce(x, via, "sum")


def reshape(x: Value, shape: Shape) -> Value:
    """``x`` under another feature shape; a reshape of a reshape becomes one."""
    while isinstance(x, Reshape):
        x = x.x
    return x if x.shape == shape else Reshape(x, shape)


def permute(x: Value, order: Sequence[int]) -> Value:
    return x if list(order) == list(range(len(order))) else Permute(x, tuple(order))


def swap_last(x: Value) -> Value:
    """The last two feature axes exchanged."""
    rank = len(x.shape)
    return Permute(x, (*range(rank - 2), rank - 1, rank - 2))


def expand(x: Value, shape: Shape) -> Value:
    return x if x.shape == shape else Expand(x, shape)


def cast(x: Value, dtype: DType) -> Value:
    return x if x.dtype is dtype else Cast(x, dtype)


def loosely(x: Value, dtype: DType) -> Value:
    """``x`` in ``dtype``, rounded where it is stored."""
    return x if x.dtype is dtype else Cast(x, dtype, loose=True)


def constant_like(x: Value, value: float) -> Value:
    """A scalar constant in the space and dtype of ``x``."""
    return Constant(x.space, float(value), x.dtype)


def constant_at(space: Space, like: Constant) -> Constant:
    """The same constant in another space."""
    return Constant(space, like.value, like.to)


def feature_sum(x: Value, axes: Sequence[int], *, keepdims: bool = False) -> Value:
    """The sum over feature axes; nothing to do for no axes."""
    return feature_reduce(x, "sum", axes, keepdims=keepdims)


def feature_reduce(x: Value, op: str, axes: Sequence[int], *, keepdims: bool = False) -> Value:
    """``sum``, ``max`` or ``min`` over feature axes, given in any order and possibly negative."""
    rank = len(x.shape)
    chosen = tuple(sorted({a % rank for a in axes})) if rank else ()
    if not chosen:
        return x
    result = FeatureReduce(x, op, chosen)
    if not keepdims:
        return result
    return reshape(result, tuple(1 if a in chosen else n for a, n in enumerate(x.shape)))


def sum_to_shape(x: Value, shape: Shape) -> Value:
    """The gradient of broadcasting ``shape`` to the shape of ``x``: sums over what was broadcast."""
    if x.shape == shape:
        return x
    extra = len(x.shape) - len(shape)
    padded = (1,) * extra + shape
    axes = [a for a, (n, m) in enumerate(zip(x.shape, padded, strict=True)) if m == 1 and (n != 1 or a < extra)]
    return reshape(feature_sum(x, axes), shape)


def outer(x: Value, y: Value) -> Value:
    """``[*lead, K]`` and ``[*lead, N]`` to ``[*lead, K, N]``."""
    return pointwise("mul", reshape(x, (*x.shape, 1)), reshape(y, (*y.shape[:-1], 1, y.shape[-1])))


def places(space: Space, count: int) -> Value:
    """``[0, 1, ..., count - 1]`` in float32: the sum of what the bits of a place are worth, each along an axis of its own."""
    bits = max(count - 1, 1).bit_length()
    zero = reshape(Constant(space, 0.0, DType.F32), (1,))
    found: Value = zero
    for bit in range(bits):
        worth = reshape(Constant(space, float(2**bit), DType.F32), (1,))
        axis = reshape(Concat((zero, worth), 0), tuple(2 if a == bits - 1 - bit else 1 for a in range(bits)))
        found = pointwise("add", found, axis)
    return Slice(reshape(found, (2**bits,)), 0, 0, count)
