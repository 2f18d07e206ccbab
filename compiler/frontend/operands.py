"""Values under conversion, and the small vocabulary in which the conversion rules are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from columba.frontend.errors import UnsupportedOperation
from columba.frontend.record import Record
from columba.ir.node import Node, rewrite
from columba.ir.program import build as b
from columba.ir.program.ops import Constant, Lift, Value
from columba.ir.spaces import WEIGHT_SPACES, Space
from columba.ir.types import DType
from columba.passes.program.unite_masks import masked
from columba.runtime.dtypes import ir_dtype


@dataclass(frozen=True)
class Operand:
    """A level-1 value that stands for a recorded tensor.

    ``value`` has the tensor's features: all dimensions of a plain tensor (space ``one``), all but the leading one otherwise.
    """

    value: Value
    record: Record

    @property
    def has_rows(self) -> bool:
        return self.value.space is not Space.ONE

    @property
    def rank(self) -> int:
        """Dimensions of the tensor, rows included."""
        return len(self.value.shape) + self.has_rows


class MixesRows(UnsupportedOperation):
    """An operation would mix the rows of a space."""


def mixes(what: str, x: Operand, where: str) -> MixesRows:
    return MixesRows(
        f"{where}: {what} mixes the rows of {x.record}, which has one row per row of space {x.value.space}; only reductions do that: "
        "g.edges.sum/mean/max/min(x, to=...), g.nodes.sum/mean/max/min(x). Or do it outside the compiled function."
    )


def feature_axis(x: Operand, dim: int, what: str, where: str, *, extra: int = 0) -> int:
    """The feature axis that a tensor dimension is; ``extra`` for operations that add one."""
    rank = x.rank + extra
    if not -rank <= dim < rank:
        raise IndexError(f"{where}: {what}: dimension {dim} is out of range for a tensor of {rank} dimensions")
    axis = dim % rank - x.has_rows
    if axis < 0:
        raise mixes(f"{what} over dimension 0", x, where)
    return axis


def on_weights(apply: Callable[..., Value], *args: Value) -> Value:
    """``apply`` to row-wise operands; where all are lifted weights of one map, to the weights, and lifted then.

    The rows that are asked for have their gradients only from weights that rows select.
    """
    lifts = [a for a in args if isinstance(a, Lift)]
    maps = {a.via for a in lifts}
    if len(maps) == 1 and all(isinstance(a, (Lift, Constant)) for a in args):
        (via,) = maps
        if via.coarse in WEIGHT_SPACES and via.fine is not Space.ONE:
            lowered = [a.x if isinstance(a, Lift) else Constant(via.coarse, a.value, a.to) for a in args]  # type: ignore[attr-defined]
            known: dict[Node, Node] = {x: x for x in lowered}
            return b.lift(rewrite((apply(*lowered),), lambda node: masked(node, via), known)[0], via)  # type: ignore[arg-type]
    return apply(*args)


def in_one_space(values: Sequence[Value]) -> list[Value]:
    """Plain values lifted to the space of the others."""
    space = next((v.space for v in values if v.space is not Space.ONE), Space.ONE)
    return [b.to_space(v, space) for v in values]


def aligned(operands: Sequence[Operand], where: str, what: str) -> list[Value]:
    """Feature values of operands that broadcast with each other, in one space."""
    rows = [o for o in operands if o.has_rows]
    if not rows:
        return [o.value for o in operands]
    rank = max(o.rank for o in operands)
    values = []
    for o in operands:
        value = o.value
        if o.has_rows:
            missing = rank - o.rank
            if missing:
                raise mixes(f"{what}: broadcasting against a tensor of {rank} dimensions", o, where)
        elif len(value.shape) == rank:
            if value.shape[0] != 1:
                raise mixes(f"{what} with a plain tensor of shape {list(value.shape)}", rows[0], where)
            value = b.reshape(value, value.shape[1:])
        values.append(value)
    return in_one_space(values)


def cast_to(value: Value, dtype: DType) -> Value:
    return on_weights(lambda v: b.cast(v, dtype), value)


def pointwise(name: str, values: Sequence[Value], scalars: Sequence[float] = ()) -> Value:
    return on_weights(lambda *vs: b.pointwise(name, *vs, scalars=scalars), *values)


def common_dtype(record: Record, args: Sequence[Any]) -> DType:
    """The dtype in which torch would compute on these operands."""
    dtypes: list[Any] = []
    for a in args:
        if isinstance(a, Operand):
            dtypes.append(a.record.meta)
        elif isinstance(a, (int, float, bool)):
            dtypes.append(a)
    result: torch.dtype | None = None
    tensors = [t for t in dtypes if isinstance(t, Tensor)]
    numbers = [n for n in dtypes if not isinstance(n, Tensor)]
    probe = tensors[0]
    for other in (*tensors[1:], *numbers):
        result = torch.result_type(probe, other)
        probe = torch.empty(probe.shape, dtype=result, device="meta")
    return ir_dtype(probe.dtype)


def constant(value: float, dtype: DType) -> Value:
    return Constant(Space.ONE, float(value), dtype)
