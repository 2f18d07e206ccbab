"""Buffer assignment: which values of a program get a buffer.

Results do, what one space or kind of kernel hands to another (products, reductions, operands that are not read in place), and row-wise
values that have several readers and cost more to compute again than to keep. What has no buffer is computed again where it is needed.
"""

from __future__ import annotations

from columba.ir.node import Node, users
from columba.ir.plan.kernels import (
    Buffer,
)
from columba.ir.pointwise import POINTWISE
from columba.ir.program.ops import (
    ROW_FUNCTIONS,
    VIEWS,
    Cast,
    Constant,
    Degree,
    FeatureReduce,
    Input,
    Lift,
    Linear,
    OuterReduce,
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
from columba.ir.spaces import WEIGHT_SPACES, Space
from columba.ir.types import DType

EXPENSIVE_FLOPS = 8
"""A value that takes this many operations an element is worth a buffer when several kernels need it."""

SMALL_ROW = 16
"""Elements an edge may hold in a buffer; wider values are computed again rather than stored per edge."""


class Buffers:
    """The buffers of a program's values.

    Attributes:
        order: the program's values, operands first; ``users``: who reads each.
        host: the values that PyTorch computes.
        anchored: the values that get a buffer, beside inputs.
        named: the buffer of each, of inputs too.
        widened: sums of outer products of 16 bits that are read in 32 bits alone, and what reads them: the sums are stored so.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.order = program.body
        self.users = users(program.results)
        self.host = {v for v in self.order if _is_host(v)}
        self.widened = {v: cast for v in self.order if (cast := self._sum_of_32_bits(v)) is not None}
        self.anchored = self._anchors()
        self.named = self._name_buffers()

    def _anchors(self) -> set[Value]:
        found = {v for v in self.program.results if not isinstance(v, Input)}
        for v in self.order:
            if isinstance(v, Softmax):
                raise TypeError("lowering: softmax must be expanded before")
            if v not in self.host and isinstance(v, (Linear, OuterReduce, Reduce, Degree)):
                found.add(v)
            if not isinstance(v, (Input, Constant)) and any(
                (u in self.host) != (v in self.host) for u in self.users[v]
            ):
                found.add(v)  # a value that crosses between PyTorch and kernels
        for v in self.order:
            if v in self.host:
                continue
            if isinstance(v, Lift):
                self._anchor_base(found, v.x)
            if isinstance(v, OuterReduce) and (cast := self.widened.get(v)) is not None:
                found.remove(v)
                found.add(cast)
            if isinstance(v, Linear):
                self._anchor_operand(found, v.x)
                self._anchor_weight(found, v.w)
            if isinstance(v, OuterReduce):
                self._anchor_operand(found, v.x)
                self._anchor_operand(found, v.y)
            if self._worth_sharing(v):
                found.add(v)
        return found

    def _sum_of_32_bits(self, v: Value) -> Cast | None:
        if not isinstance(v, OuterReduce) or v in self.host or v in self.program.results or not v.dtype.is_half:
            return None
        readers = self.users[v]
        first = readers[0] if len(readers) == 1 else None
        return first if isinstance(first, Cast) and first.to is DType.F32 else None

    def _anchor_base(self, found: set[Value], value: Value) -> None:
        """Gives a buffer to what is left of ``value`` when its views are peeled off."""
        base = _base(value)
        if not isinstance(base, (Input, Constant)):
            found.add(base)

    def _anchor_operand(self, found: set[Value], value: Value) -> None:
        """Gives a buffer to what a product reads, but for wide rows of edges, which its kernel computes as it reads them."""
        base = _base(value)
        if isinstance(base, Cast) and self._is_cast_on_load(base):
            self._anchor_operand(found, base.x)
        elif not (isinstance(base, ROW_FUNCTIONS) and base.space is Space.EDGE and base.type.size > SMALL_ROW):
            self._anchor_base(found, _unlifted(value))

    def _is_cast_on_load(self, cast: Cast) -> bool:
        """Whether a product casts its operand as it reads it: to 32 bits always, to 16 bits what is in memory in 32 and read in place."""
        if not is_between_16_and_32(cast):
            return False
        kept = isinstance(_base(cast.x), (Input, Linear, Reduce))
        return cast.to is DType.F32 or kept or (bool(cast.loose) and cast.type.size <= SMALL_ROW)

    def _anchor_weight(self, found: set[Value], w: Value) -> None:
        if not isinstance(weight_of(w), Input):
            found.add(weight_of(w))

    def _worth_sharing(self, v: Value) -> bool:
        """Whether a row-wise value has several readers and costs more to compute again than to keep."""
        if isinstance(v, (Input, Constant, Lift, Uniform, *VIEWS)) or len(self._readers(v)) < 2:
            return False
        if v.space is Space.EDGE and v.type.size > SMALL_ROW:
            return False
        flops = 0.0
        stack: list[Value] = [v]
        while stack:
            node = stack.pop()
            if isinstance(node, Pointwise):
                flops += POINTWISE[node.function].flops
            if isinstance(node, FeatureReduce):
                flops += node.x.type.size / max(1, node.type.size)
            if not isinstance(node, (Lift, Reduce, Linear, OuterReduce, Input)):
                stack.extend(c for c in node.children if isinstance(c, Value))
            if flops >= EXPENSIVE_FLOPS:
                return True
        return False

    def _readers(self, v: Value) -> set[Node]:
        """Who reads a row-wise value, directly or through views; of its slices, which hold different elements, the most read."""
        found: set[Node] = set()
        of_a_slice: set[Node] = set()
        for u in self.users[v]:
            if not isinstance(u, VIEWS) or u in self.program.results:
                found.add(u)
            elif isinstance(u, Slice):
                of_a_slice = max(of_a_slice, self._readers(u), key=len)
            else:
                found |= self._readers(u)
        return found | of_a_slice

    def _name_buffers(self) -> dict[Value, Buffer]:
        named: dict[Value, Buffer] = {i: Buffer(i.name, i.type, "input") for i in self.program.inputs}
        taken = {i.name for i in self.program.inputs}
        for name, result in zip(self.program.result_names, self.program.results, strict=True):
            if result in named:
                raise ValueError(f"lowering: result {name} is an input or another result")
            named[result] = Buffer(_fresh(name, taken), result.type, "output")
        for v in self.order:
            if v in self.anchored and v not in named:
                named[v] = Buffer(_fresh(f"{v.op_name}_{len(named)}", taken), v.type, "temporary")
        return named


def _is_host(v: Value) -> bool:
    """Whether PyTorch computes it: a matrix product of weights alone."""
    return isinstance(v, (Linear, OuterReduce)) and v.children[0].space in WEIGHT_SPACES  # type: ignore[attr-defined]


def _unlifted(value: Value) -> Value:
    """What is below the views and the one lift of a product's operand: its rows can be read in place."""
    inner = _base(value)
    return inner.x if isinstance(inner, Lift) else value


def reshaped(w: Value) -> Value:
    """The weight whose elements ``w`` shows, in the same order, under another shape."""
    while isinstance(w, Reshape):
        w = w.x
    return w


def is_between_16_and_32(cast: Cast) -> bool:
    """Whether a cast is from 16 bits to 32, or back."""
    narrow, wide = (cast.x.dtype, cast.to) if cast.to is DType.F32 else (cast.to, cast.x.dtype)
    return narrow.is_half and wide is DType.F32


def weight_of(w: Value) -> Value:
    """The weight whose elements ``w`` shows under another shape, or in another precision, to which a product takes them itself."""
    w = reshaped(w)
    while isinstance(w, Cast) and is_between_16_and_32(w):
        w = reshaped(w.x)
    return w


def rounding_of(w: Value) -> DType | None:
    """The type of 16 bits to which the elements of :func:`weight_of` ``w`` are rounded, if they are."""
    found = None
    w = reshaped(w)
    while isinstance(w, Cast) and is_between_16_and_32(w):
        found = w.dtype if w.dtype.is_half else found
        w = reshaped(w.x)
    return None if w.dtype is found else found


def _base(value: Value) -> Value:
    """What views show; a weight shown with its axes exchanged is a matrix of its own, whose rows are then contiguous."""
    while isinstance(value, VIEWS) and not (isinstance(value, Permute) and value.space in WEIGHT_SPACES):
        value = value.x
    return value


def _fresh(name: str, taken: set[str]) -> str:
    fresh, n = name, 1
    while fresh in taken:
        fresh, n = f"{name}_{n}", n + 1
    taken.add(fresh)
    return fresh
