"""Views and rearrangements of the feature dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from columba.frontend.counts import RowCount
from columba.frontend.operands import Operand, cast_to, feature_axis, in_one_space, mixes, on_weights
from columba.frontend.rules.registry import Call, rule
from columba.ir.program import build as b
from columba.ir.program.ops import Concat, Slice, Value
from columba.ir.spaces import Space


def reshaped(x: Value, shape: Sequence[int]) -> Value:
    return on_weights(lambda v: b.reshape(v, tuple(shape)), x)


def _to_result(call: Call, x: Operand) -> Value:
    """``x`` under the shape that torch gave the result, which must leave its rows alone."""
    shape = tuple(call.record.meta.shape)
    if x.has_rows:
        features, rows = shape[1:], x.record.meta.shape[0]
        if not shape or math.prod(features) != x.value.type.size or shape[0] != rows:
            raise mixes(f"{call.name} to {list(shape)}", x, call.where)
        shape = features
    return reshaped(x.value, shape)


@rule("view", "reshape")
def _view(call: Call, input: Any, *shape: Any) -> Value:
    if len(shape) == 1 and isinstance(shape[0], torch.dtype):
        raise call.unsupported("reinterpreting the bits of numbers")
    call.value(input)
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    first = sizes[0] if sizes else None
    if input.has_rows and type(first) is int and first != -1 and first != 1:
        raise call.unsupported(
            f"the number of rows is written as {first}, which is right for one graph only",
            "write x.shape[0] (or -1) for it",
        )
    if input.has_rows and isinstance(first, RowCount):
        pass  # the number of rows, whatever it is
    return _to_result(call, input)


@rule("flatten", "unflatten", "view_as", "reshape_as", "squeeze", "unsqueeze")
def _same_elements(call: Call, input: Any, *args: Any, **kwargs: Any) -> Value:
    call.value(input)
    if call.name in ("squeeze", "unsqueeze") and input.has_rows:
        dims = [*args, *kwargs.values()]
        for dim in dims[0] if dims and isinstance(dims[0], (tuple, list)) else dims:
            feature_axis(input, dim, call.name, call.where, extra=int(call.name == "unsqueeze"))
        if not dims and input.record.meta.shape[:1] == (1,):
            raise call.unsupported(
                "without a dimension it would drop the rows of a graph that has one", "name the dimensions"
            )
        if not dims:
            kept = tuple(n for n in input.value.shape if n != 1)
            return reshaped(input.value, kept)
    return _to_result(call, input)


def permuted(call: Call, x: Operand, order: Sequence[int]) -> Value:
    """Tensor dimensions in another order; a leading one of rows must stay."""
    order = [d % x.rank for d in order]
    if x.has_rows:
        if order[0] != 0:
            raise mixes(call.name, x, call.where)
        order = [d - 1 for d in order[1:]]
    return on_weights(lambda v: b.permute(v, order), x.value)


@rule("transpose", "swapaxes", "swapdims")
def _transpose(call: Call, input: Any, dim0: int, dim1: int) -> Value:
    call.value(input)
    order = list(range(input.rank))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return permuted(call, input, order)


@rule("mT", "t")
def _swap_last(call: Call, input: Any) -> Value:
    call.value(input)
    return input.value if input.rank < 2 else _transpose(call, input, -2, -1)


@rule("permute")
def _permute(call: Call, input: Any, *order: Any, dims: Any = None) -> Value:
    call.value(input)
    order = (dims,) if dims is not None else order
    return permuted(call, input, order[0] if len(order) == 1 and isinstance(order[0], (tuple, list)) else order)


@rule("movedim", "moveaxis")
def _movedim(call: Call, input: Any, source: Any, destination: Any) -> Value:
    call.value(input)
    labels = torch.empty(tuple(range(2, 2 + input.rank)), device="meta").movedim(source, destination)
    return permuted(call, input, [n - 2 for n in labels.shape])


@rule("expand", "expand_as", "broadcast_to")
def _expand(call: Call, input: Any, *args: Any) -> Value:
    call.value(input)
    shape = tuple(call.record.meta.shape)
    if input.has_rows:
        if len(shape) != input.rank:
            raise mixes(f"{call.name} to {list(shape)}", input, call.where)
        shape = shape[1:]
    elif call.space is not Space.ONE:  # one value for the whole graph, once for each row
        features = input.value.shape[1:] if input.rank == len(shape) else input.value.shape
        return b.expand(b.to_space(b.reshape(input.value, features), call.space), shape[1:])
    return on_weights(lambda v: b.expand(v, shape), input.value)


@rule("repeat")
def _repeat(call: Call, input: Any, *args: Any) -> Value:
    """Copies side by side: each dimension that is repeated is one of copies and one of what is copied, laid out as one."""
    call.value(input)
    times = list(args[0] if len(args) == 1 and isinstance(args[0], (tuple, list)) else args)
    if not input.has_rows or len(times) != input.rank or times[0] != 1:
        raise mixes(f"repeat of {times}", input, call.where)
    value = input.value
    sizes = value.shape
    apart = tuple(n for size in sizes for n in (1, size))
    wide = tuple(n for count, size in zip(times[1:], sizes, strict=True) for n in (int(count), size))
    together = tuple(t * n for t, n in zip(times[1:], sizes, strict=True))
    return b.reshape(b.expand(b.reshape(value, apart), wide), together)


@rule("clone", "contiguous")
def _same(call: Call, input: Any, *args: Any, **kwargs: Any) -> Value:
    return call.value(input)


@rule("to", "type", "float", "double", "half", "bfloat16", "type_as", "int", "long", "bool")
def _cast(call: Call, input: Any, *args: Any, **kwargs: Any) -> Value:
    return cast_to(call.value(input), call.dtype)


@rule("detach")
def _detach(call: Call, input: Any) -> Value:
    return b.pointwise("detach", call.value(input))


# ------------------------------------------------------------------------------------------------ joining and cutting


def _features(call: Call, tensors: Sequence[Any]) -> tuple[list[Operand], list[Value]]:
    for t in tensors:
        call.value(t)
    rank = max(t.rank for t in tensors)
    for t in tensors:
        if not t.has_rows and t.rank == rank and any(o.has_rows for o in tensors):
            raise mixes(f"{call.name} with a plain tensor", next(o for o in tensors if o.has_rows), call.where)
    return list(tensors), [cast_to(v, call.dtype) for v in in_one_space([t.value for t in tensors])]


@rule("cat", "concat", "concatenate")
def _cat(call: Call, tensors: Any, dim: int = 0, *, axis: int | None = None) -> Value:
    operands, values = _features(call, tensors)
    along = feature_axis(operands[0], dim if axis is None else axis, call.name, call.where)
    return on_weights(lambda *vs: Concat(vs, along), *values)


@rule("stack")
def _stack(call: Call, tensors: Any, dim: int = 0) -> Value:
    operands, values = _features(call, tensors)
    along = feature_axis(operands[0], dim, call.name, call.where, extra=1)

    def join(*parts: Value) -> Value:
        shape = (*parts[0].shape[:along], 1, *parts[0].shape[along:])
        return Concat(tuple(b.reshape(p, shape) for p in parts), along)

    return on_weights(join, *values)


def sliced(x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    if (start, stop, step) == (0, x.shape[axis], 1):
        return x
    return on_weights(lambda v: Slice(v, axis, start, stop, step), x)


@rule("split", "chunk")
def _split(call: Call, input: Any, size: Any = None, dim: int = 0, **kwargs: Any) -> list[Value]:
    call.value(input)
    axis = feature_axis(input, dim, call.name, call.where)
    whole = input.value.shape[axis]
    size = next(iter(kwargs.values()), size)
    if call.name == "chunk":
        size = -(-whole // size)
    sizes = list(size) if isinstance(size, (tuple, list)) else [size] * (-(-whole // size) if size else 1)
    parts, start = [], 0
    for n in sizes:
        stop = min(start + n, whole)
        parts.append(sliced(input.value, axis, start, stop))
        start = stop
    return parts


@rule("unbind")
def _unbind(call: Call, input: Any, dim: int = 0) -> list[Value]:
    call.value(input)
    axis = feature_axis(input, dim, call.name, call.where)
    return [_picked(input.value, axis, n) for n in range(input.value.shape[axis])]


def _picked(x: Value, axis: int, n: int) -> Value:
    part = sliced(x, axis, n, n + 1)
    return reshaped(part, (*x.shape[:axis], *x.shape[axis + 1 :]))


@rule("narrow")
def _narrow(call: Call, input: Any, dim: int, start: int, length: int) -> Value:
    call.value(input)
    axis = feature_axis(input, dim, call.name, call.where)
    start %= max(input.value.shape[axis], 1)
    return sliced(input.value, axis, start, start + length)


@rule("select")
def _select(call: Call, input: Any, dim: int, index: int) -> Value:
    call.value(input)
    axis = feature_axis(input, dim, call.name, call.where)
    return _picked(input.value, axis, index % input.value.shape[axis])


@rule("__getitem__")
def _getitem(call: Call, input: Any, index: Any) -> Value:
    call.value(input)
    items = list(index) if isinstance(index, tuple) else [index]
    given = sum(i is not None and i is not Ellipsis for i in items)
    if Ellipsis in [i for i in items if not isinstance(i, Operand)]:
        at = items.index(Ellipsis)
        items[at : at + 1] = [slice(None)] * (input.rank - given)
    if input.has_rows:
        if items and not (isinstance(items[0], slice) and items[0] == slice(None)):
            raise mixes("indexing dimension 0", input, call.where)
        items = items[1:]
    return _indexed(call, input.value, items)


def _indexed(call: Call, x: Value, items: Sequence[Any]) -> Value:
    axis = 0
    shape: list[int] = []
    for item in items:
        if item is None:
            shape.append(1)
            continue
        size = x.shape[axis]
        if isinstance(item, slice):
            start, stop, step = item.indices(size)
            if step < 0:
                raise call.unsupported("a negative step")
            x = sliced(x, axis, start, max(stop, start), step)
            shape.append(x.shape[axis])
        elif isinstance(item, int) and not isinstance(item, bool):
            item %= size
            x = sliced(x, axis, item, item + 1)
        else:
            raise call.unsupported(
                f"indexing features with {type(item).__name__}",
                "use slices and integers, or a product with a 0-1 matrix",
            )
        axis += 1
    return reshaped(x, (*shape, *x.shape[axis:]))
