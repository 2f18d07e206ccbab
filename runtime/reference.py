"""What level 1 means, in plain PyTorch: one function an operation. The oracle of the tests, and ``backend="torch"``.

A value is a tensor ``[rows of its space, *shape]``; in space ``one`` it has no leading dimension. Everything is differentiable by
PyTorch's autograd and runs on any device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from columba.ir.indices import Lookup, Order, Segments
from columba.ir.pointwise import POINTWISE
from columba.ir.program.ops import (
    Cast,
    Concat,
    Constant,
    Degree,
    Expand,
    FeatureReduce,
    Input,
    Lift,
    Linear,
    OuterReduce,
    Pad,
    Permute,
    Pointwise,
    Reduce,
    Reshape,
    Slice,
    Softmax,
    Uniform,
    Value,
)
from columba.ir.program.program import Program
from columba.ir.spaces import IndexMap, Space
from columba.ir.types import DType
from columba.runtime.dtypes import torch_dtype
from columba.runtime.eager.reductions import segment_extremum, segment_softmax, segment_sum
from columba.runtime.modes import numbers
from columba.runtime.structure import Structure

Meaning = Callable[..., Tensor]
MEANINGS: dict[type[Value], Meaning] = {}
"""For every operation: (operation, graph, operands...) -> result."""

M = TypeVar("M", bound=Meaning)


def meaning(op: type[Value]) -> Callable[[M], M]:
    """Registers what an operation means."""

    def register(function: M) -> M:
        MEANINGS[op] = function
        return function

    return register


Compute = Callable[[Value, Structure, Sequence[Tensor]], Tensor]
"""What gives the result of one operation: (operation, graph, operands) -> result."""


def evaluate(
    program: Program, inputs: Sequence[Tensor], graph: Structure, computed: Compute | None = None
) -> list[Tensor]:
    """The results of a program on ``inputs``, in the order of ``program.inputs``. ``computed`` may say otherwise what operations mean."""
    computed = computed or compute
    if len(inputs) != len(program.inputs):
        raise ValueError(f"program {program.name} takes {len(program.inputs)} inputs, got {len(inputs)}")
    values: dict[Value, Tensor] = dict(zip(program.inputs, inputs, strict=True))
    for value in program.body:
        if value not in values:
            values[value] = computed(value, graph, [values[c] for c in value.children])  # type: ignore[index]
    return [values[result] for result in program.results]


def compute(value: Value, graph: Structure, operands: Sequence[Tensor]) -> Tensor:
    """The result of one operation."""
    return MEANINGS[type(value)](value, graph, *operands)


# ------------------------------------------------------------------------------------------------ leaves


def _lead(space: Space, graph: Structure) -> tuple[int, ...]:
    """The leading dimension of a value: rows, or nothing for a plain one."""
    return () if space is Space.ONE else (graph.count(space),)


@meaning(Input)
def _input(op: Input, graph: Structure) -> Tensor:
    raise ValueError(f"input %{op.name} is not among the program's inputs")


@meaning(Constant)
def _constant(op: Constant, graph: Structure) -> Tensor:
    return torch.full(_lead(op.space, graph), op.value, dtype=torch_dtype(op.to), device=graph.device)


@meaning(Degree)
def _degree(op: Degree, graph: Structure) -> Tensor:
    sizes = graph.index(Segments(op.via)).diff().to(torch_dtype(op.to))
    return sizes[0] if op.space is Space.ONE else sizes


_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@meaning(Uniform)
def _uniform(op: Uniform, graph: Structure, seed: Tensor) -> Tensor:
    """SplitMix64 (Steele, Lea, Flood 2014) of a counter: seed, salt, and the element's number in its space."""
    shape = (*_lead(op.space, graph), *op.of)
    number = torch.arange(1, math.prod(shape) + 1, device=graph.device)
    x = seed + _signed(op.salt * _GOLDEN) + number * _signed(_MIX_1)
    x = (x ^ _shift(x, 30)) * _signed(_MIX_1)
    x = (x ^ _shift(x, 27)) * _signed(_MIX_2)
    x = x ^ _shift(x, 31)
    bits = 53 if op.to is DType.F64 else 24
    uniform = _shift(x, 64 - bits).to(torch.float64) * 2.0**-bits
    return uniform.to(torch_dtype(op.to)).reshape(shape)


def _signed(x: int) -> int:
    """A 64-bit pattern as a signed number."""
    x &= 2**64 - 1
    return x - 2**64 if x >= 2**63 else x


def _shift(x: Tensor, n: int) -> Tensor:
    """Logical shift right of 64-bit patterns."""
    return (x >> n) & ((1 << (64 - n)) - 1)


# ------------------------------------------------------------------------------------------------ motion


@meaning(Lift)
def _lift(op: Lift, graph: Structure, x: Tensor) -> Tensor:
    if op.via.coarse is Space.ONE:
        return x.expand(graph.count(op.via.fine), *x.shape)
    return x.index_select(0, graph.index(Lookup(op.via)))


@meaning(Reduce)
def _reduce(op: Reduce, graph: Structure, x: Tensor) -> Tensor:
    rows = graph.count(op.via.coarse)
    index = graph.index(Lookup(op.via))
    match op.op:
        case "sum":
            result = segment_sum(x, index, rows)
        case _:
            result = segment_extremum(x, index, rows, op.op)
    return result[0] if op.via.coarse is Space.ONE else result


@meaning(Softmax)
def _softmax(op: Softmax, graph: Structure, x: Tensor) -> Tensor:
    return segment_softmax(x, graph.index(Lookup(op.via)), graph.count(op.via.coarse))


# ------------------------------------------------------------------------------------------------ products


@meaning(Linear)
def _linear(op: Linear, graph: Structure, x: Tensor, w: Tensor) -> Tensor:
    w = w.transpose(-1, -2) if op.transpose else w
    if op.via is None and op.space is not Space.ONE:
        return _row_times_matrix(x, w, op.shared, rows=True)
    if op.via is None or op.via.coarse is Space.ONE:
        return _row_times_matrix(x, w, op.shared, rows=False)
    return _by_segment(op.via, graph, lambda m, block: _row_times_matrix(block, m, op.shared, rows=False), w, x)


def _row_times_matrix(x: Tensor, w: Tensor, shared: bool, *, rows: bool) -> Tensor:
    """``x [..., *lead, K]`` by ``w [K, N]`` or ``[*lead, K, N]``; ``rows``: a matrix for each row."""
    if not shared:
        return (x.unsqueeze(-2) @ w).squeeze(-2)
    if rows:
        lead = w.unsqueeze(1) if x.dim() > 2 else w
        flat = x.flatten(1, -2).unsqueeze(2) if x.dim() > 2 else x.unsqueeze(1)
        return (flat @ lead).reshape(*x.shape[:-1], w.shape[-1])
    return x @ w


@meaning(OuterReduce)
def _outer_reduce(op: OuterReduce, graph: Structure, x: Tensor, y: Tensor) -> Tensor:
    if op.via is None and op.space is not Space.ONE:
        product = x.unsqueeze(-1) * y.unsqueeze(-2)
        lead = product.dim() - 3 if op.shared else 0
        return product.sum(tuple(range(1, 1 + lead))) if lead else product
    if op.via is None:
        return _outer_sum(x.unsqueeze(0), y.unsqueeze(0), op.shared)
    if op.via.coarse is Space.ONE:
        return _outer_sum(x, y, op.shared)
    rows = graph.count(op.via.coarse)
    ends = numbers(graph.index(Segments(op.via)))
    order = graph.index(Order(op.via))
    x, y = x.index_select(0, order), y.index_select(0, order)
    parts = [_outer_sum(x[a:b], y[a:b], op.shared) for a, b in zip(ends[:-1], ends[1:], strict=True)]
    return torch.stack(parts) if rows else x.new_zeros((0, *op.shape))


def _outer_sum(x: Tensor, y: Tensor, shared: bool) -> Tensor:
    """``sum over rows of x [rows, *lead, K] by y [rows, *lead, N]``."""
    if shared:
        return x.flatten(0, -2).mT @ y.flatten(0, -2)
    return torch.einsum("r...k,r...n->...kn", x, y)


def _by_segment(via: IndexMap, graph: Structure, f: Callable[[Tensor, Tensor], Tensor], w: Tensor, x: Tensor) -> Tensor:
    """``f(w of the segment, rows of the segment)`` for each segment, rows put back where they were."""
    order = graph.index(Order(via))
    if not order.numel():
        return f(w[0] if len(w) else w.new_zeros(w.shape[1:]), x)
    ends = numbers(graph.index(Segments(via)))
    rows = x.index_select(0, order)
    matrices = w.unbind(0)
    spans = [(i, a, b) for i, (a, b) in enumerate(zip(ends[:-1], ends[1:], strict=True)) if b > a]
    result = torch.cat([f(matrices[i], rows[a:b]) for i, a, b in spans])
    inverse = torch.empty_like(order).scatter(0, order.long(), torch.arange(len(order), device=order.device).to(order))
    return result.index_select(0, inverse)


# ------------------------------------------------------------------------------------------------ within a row


def _skip(op: Value) -> int:
    """How many dimensions stand before the features."""
    return 0 if op.space is Space.ONE else 1


@meaning(Cast)
def _cast(op: Cast, graph: Structure, x: Tensor) -> Tensor:
    return x.to(torch_dtype(op.to))


@meaning(FeatureReduce)
def _feature_reduce(op: FeatureReduce, graph: Structure, x: Tensor) -> Tensor:
    dims = [a + _skip(op) for a in op.axes]
    if op.op == "sum":
        return x.sum(dims)
    if op.op.startswith("first"):
        return (x.max(dims[0]) if op.op == "first_max" else x.min(dims[0])).values
    return torch.amax(x, dims) if op.op == "max" else torch.amin(x, dims)


@meaning(Reshape)
def _reshape(op: Reshape, graph: Structure, x: Tensor) -> Tensor:
    return x.reshape((*x.shape[: _skip(op)], *op.to))


@meaning(Permute)
def _permute(op: Permute, graph: Structure, x: Tensor) -> Tensor:
    skip = _skip(op)
    return x.permute((*range(skip), *(a + skip for a in op.order)))


@meaning(Expand)
def _expand(op: Expand, graph: Structure, x: Tensor) -> Tensor:
    return _align(x, op.x, len(op.to)).expand((*x.shape[: _skip(op)], *op.to))


@meaning(Slice)
def _slice(op: Slice, graph: Structure, x: Tensor) -> Tensor:
    index = [slice(None)] * (op.axis + _skip(op)) + [slice(op.start, op.stop, op.step)]
    return x[tuple(index)]


@meaning(Pad)
def _pad(op: Pad, graph: Structure, x: Tensor) -> Tensor:
    axis = op.axis + _skip(op)
    shape = [*x.shape[:axis], op.size, *x.shape[axis + 1 :]]
    where = torch.arange(op.start, op.start + (x.shape[axis] - 1) * op.step + 1, op.step, device=x.device)
    return x.new_zeros(shape).index_copy(axis, where, x)


@meaning(Concat)
def _concat(op: Concat, graph: Structure, *args: Tensor) -> Tensor:
    return torch.cat(args, op.axis + _skip(op))


def _align(x: Tensor, of: Value, rank: int) -> Tensor:
    """``x`` with size-1 dimensions put before its features, until they are ``rank``."""
    if (
        len(of.shape) == rank
    ):  # no view: of the gradient of one PyTorch would hand out the incoming gradient's memory as a leaf's
        return x
    skip = _skip(of)
    return x.reshape((*x.shape[:skip], *[1] * (rank - len(of.shape)), *x.shape[skip:]))


@meaning(Pointwise)
def _pointwise(op: Pointwise, graph: Structure, *args: Tensor) -> Tensor:
    aligned = [_align(x, a, len(op.shape)) for x, a in zip(args, op.args, strict=True)]
    return FUNCTIONS[op.function](*aligned, *op.scalars)


_OTHERWISE: dict[str, Callable[..., Any]] = {
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "pow_scalar": torch.pow,
    "mask_gradient": lambda condition, x: torch.where(condition, x, 1.0),
}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: _OTHERWISE.get(name) or getattr(torch, name, None) or getattr(F, name) for name in POINTWISE
}
"""The functions of :data:`columba.ir.pointwise.POINTWISE` in PyTorch: those that have the same name there, but for a few."""
