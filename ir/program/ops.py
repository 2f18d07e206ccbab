"""The operations of level 1, one definition each: fields, type rule, meaning.

A value's type is (space, feature shape, dtype); "a row" below is what one row of the space holds. Only :class:`Lift`
and :class:`Reduce` (and :class:`Linear` and :class:`OuterReduce`, which contain one) change the space.

Operations are frozen and validate themselves when made, so that an ill-typed one cannot exist. Gradients register in
``columba.gradient.differentiate``, the meaning in PyTorch in ``columba.runtime.reference``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from columba.ir.node import CHILD, Node
from columba.ir.pointwise import POINTWISE, broadcast_shapes, pointwise_dtype
from columba.ir.spaces import IndexMap, Space
from columba.ir.types import DType, Shape, TensorType

REDUCTIONS = ("sum", "max", "min")
FEATURE_REDUCTIONS = ("sum", "max", "min", "first_max", "first_min")


@dataclass(frozen=True, eq=False, repr=False)
class Value(Node):
    """A node with a type."""

    op_name: ClassVar[str] = ""

    type: TensorType = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", self._infer())

    def _infer(self) -> TensorType:
        raise TypeError(f"{type(self).__name__} is abstract")

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()}: {self.type}>"

    @property
    def space(self) -> Space:
        return self.type.space

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype


OPS: dict[str, type[Value]] = {}
"""All operations by their name in the text form."""

C = TypeVar("C", bound=type[Value])


def operation(name: str) -> Callable[[C], C]:
    """Registers a class as the operation called ``name``."""

    def register(cls: C) -> C:
        OPS[name] = cls
        cls.op_name = name
        return cls

    return register


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise TypeError(message)


# ------------------------------------------------------------------------------------------------ leaves


@operation("input")
@dataclass(frozen=True, eq=False, repr=False)
class Input(Value):
    """A parameter of the program."""

    name: str
    of: TensorType

    def _infer(self) -> TensorType:
        return self.of


@operation("constant")
@dataclass(frozen=True, eq=False, repr=False)
class Constant(Value):
    """The same scalar in every row."""

    at: Space
    value: float
    to: DType

    def _infer(self) -> TensorType:
        return TensorType(self.at, (), self.to)


@operation("degree")
@dataclass(frozen=True, eq=False, repr=False)
class Degree(Value):
    """How many fine rows map to each coarse row."""

    via: IndexMap
    to: DType

    def _infer(self) -> TensorType:
        return TensorType(self.via.coarse, (), self.to)


@operation("uniform")
@dataclass(frozen=True, eq=False, repr=False)
class Uniform(Value):
    """Uniform random numbers in [0, 1): a hash of (``seed``, ``salt``, row, element), so the same when asked again."""

    seed: Value = field(metadata=CHILD)
    at: Space
    of: Shape
    salt: int
    to: DType

    def _infer(self) -> TensorType:
        _require(
            self.seed.type == TensorType(Space.ONE, (), DType.I64),
            f"uniform: seed must be one[] i64, got {self.seed.type}",
        )
        _require(self.to.is_float, f"uniform: dtype must be floating, got {self.to}")
        return TensorType(self.at, self.of, self.to)


# ------------------------------------------------------------------------------------------------ motion


@operation("lift")
@dataclass(frozen=True, eq=False, repr=False)
class Lift(Value):
    """Copies each coarse row to the fine rows that map to it."""

    x: Value = field(metadata=CHILD)
    via: IndexMap

    def _infer(self) -> TensorType:
        _require(
            self.x.space is self.via.coarse, f"lift: {self.via} needs a value in {self.via.coarse}, got {self.x.type}"
        )
        return self.x.type.with_space(self.via.fine)


@operation("reduce")
@dataclass(frozen=True, eq=False, repr=False)
class Reduce(Value):
    """Combines the fine rows that map to each coarse row: ``sum``, ``max`` or ``min``.

    A reduction over nothing gives 0, whatever the operation.
    """

    x: Value = field(metadata=CHILD)
    via: IndexMap
    op: str

    def _infer(self) -> TensorType:
        _require(self.op in REDUCTIONS, f"reduce: unknown operation {self.op!r}; one of {', '.join(REDUCTIONS)}")
        _require(
            self.x.space is self.via.fine, f"reduce: {self.via} needs a value in {self.via.fine}, got {self.x.type}"
        )
        _require(self.x.dtype.is_float, f"reduce: operand must be floating, got {self.x.dtype}")
        return self.x.type.with_space(self.via.coarse)


@operation("softmax")
@dataclass(frozen=True, eq=False, repr=False)
class Softmax(Value):
    """Softmax over the fine rows that share a coarse row, max-shifted, element by element of the row."""

    x: Value = field(metadata=CHILD)
    via: IndexMap

    def _infer(self) -> TensorType:
        _require(
            self.x.space is self.via.fine, f"softmax: {self.via} needs a value in {self.via.fine}, got {self.x.type}"
        )
        _require(self.x.dtype.is_float, f"softmax: operand must be floating, got {self.x.dtype}")
        return self.x.type


# ------------------------------------------------------------------------------------------------ within a row


@operation("pointwise")
@dataclass(frozen=True, eq=False, repr=False)
class Pointwise(Value):
    """A scalar function of :data:`columba.ir.pointwise.POINTWISE`, feature shapes broadcast as in NumPy."""

    args: tuple[Value, ...] = field(metadata=CHILD)
    function: str
    scalars: tuple[float, ...] = ()

    def _infer(self) -> TensorType:
        name = self.function
        _require(name in POINTWISE, f"unknown pointwise function {name!r}")
        function = POINTWISE[name]
        _require(len(self.args) == function.arity, f"{name}: takes {function.arity} operands, got {len(self.args)}")
        _require(
            len(self.scalars) == len(function.scalars),
            f"{name}: takes scalars ({', '.join(function.scalars)}), got {self.scalars}",
        )
        spaces = {a.space for a in self.args}
        _require(
            len(spaces) == 1, f"{name}: operands must share one space, got {', '.join(str(a.type) for a in self.args)}"
        )
        dtype = pointwise_dtype(function, tuple(a.dtype for a in self.args))
        return TensorType(self.args[0].space, broadcast_shapes(tuple(a.shape for a in self.args)), dtype)


@operation("cast")
@dataclass(frozen=True, eq=False, repr=False)
class Cast(Value):
    """The same numbers in another dtype. A ``loose`` one to fewer bits rounds where the numbers are stored, and no sooner."""

    x: Value = field(metadata=CHILD)
    to: DType
    loose: bool | None = None

    def _infer(self) -> TensorType:
        return self.x.type.with_dtype(self.to)


@operation("feature_reduce")
@dataclass(frozen=True, eq=False, repr=False)
class FeatureReduce(Value):
    """``sum``, ``max`` or ``min`` over feature axes (non-negative, ascending), which disappear.

    ``first_max`` and ``first_min``, over one axis, are those whose gradient goes to the first element that attains them; that of ``max``
    and ``min`` is shared evenly among all that do.
    """

    x: Value = field(metadata=CHILD)
    op: str
    axes: tuple[int, ...]

    def _infer(self) -> TensorType:
        _require(self.op in FEATURE_REDUCTIONS, f"feature_reduce: unknown operation {self.op!r}")
        _require(
            len(self.axes) == 1 or not self.op.startswith("first"),
            f"feature_reduce: {self.op} is over one axis, got {self.axes}",
        )
        rank = len(self.x.shape)
        _require(
            list(self.axes) == sorted(set(self.axes)) and all(0 <= a < rank for a in self.axes),
            f"feature_reduce: axes {self.axes} do not fit {self.x.type}",
        )
        return self.x.type.with_shape(tuple(n for a, n in enumerate(self.x.shape) if a not in self.axes))


@operation("linear")
@dataclass(frozen=True, eq=False, repr=False)
class Linear(Value):
    """Row vector times matrix; ``via`` selects each row's matrix (None: the row's own).

    ``x`` is ``[*lead, K]``. ``w`` is ``[K, N]``, shared by the leading dimensions, or ``[*lead, K, N]``; with
    ``transpose`` the last two are ``N, K``. The result is ``[*lead, N]``.
    """

    x: Value = field(metadata=CHILD)
    w: Value = field(metadata=CHILD)
    via: IndexMap | None
    transpose: bool = False

    def _infer(self) -> TensorType:
        x, w = self.x, self.w
        want = x.space if self.via is None else self.via.coarse
        _require(self.via is None or self.via.fine is x.space, f"linear: {self.via} does not leave {x.space}")
        _require(w.space is want, f"linear: weight must be in {want}, got {w.type}")
        _require(
            x.dtype.is_float and x.dtype is w.dtype,
            f"linear: operands must share one floating dtype, got {x.dtype} and {w.dtype}",
        )
        _require(
            len(x.shape) >= 1 and len(w.shape) >= 2,
            f"linear: needs a vector and a matrix a row, got {x.type} and {w.type}",
        )
        _require(
            len(w.shape) == 2 or w.shape[:-2] == x.shape[:-1],
            f"linear: leading dimensions of {x.type} and {w.type} differ",
        )
        k, n = w.shape[-2:] if not self.transpose else (w.shape[-1], w.shape[-2])
        _require(x.shape[-1] == k, f"linear: {x.type} has {x.shape[-1]} features, the weight takes {k} ({w.type})")
        return x.type.with_shape((*x.shape[:-1], n))

    @property
    def shared(self) -> bool:
        """Whether one matrix serves all leading dimensions."""
        return len(self.w.shape) == 2


@operation("outer_reduce")
@dataclass(frozen=True, eq=False, repr=False)
class OuterReduce(Value):
    """Sum over the fine rows of each coarse row of the outer products of two vectors: a weight gradient.

    ``x`` is ``[*lead, K]`` and ``y`` is ``[*lead, N]``; the result is ``[*lead, K, N]``, or ``[K, N]``, summed over the
    leading dimensions too, if ``shared``.
    """

    x: Value = field(metadata=CHILD)
    y: Value = field(metadata=CHILD)
    via: IndexMap | None
    shared: bool

    def _infer(self) -> TensorType:
        x, y = self.x, self.y
        _require(x.space is y.space, f"outer_reduce: operands must share one space, got {x.type} and {y.type}")
        _require(self.via is None or self.via.fine is x.space, f"outer_reduce: {self.via} does not leave {x.space}")
        _require(
            x.dtype.is_float and x.dtype is y.dtype,
            f"outer_reduce: operands must share one floating dtype, got {x.dtype} and {y.dtype}",
        )
        _require(
            len(x.shape) >= 1 and len(y.shape) >= 1 and x.shape[:-1] == y.shape[:-1],
            f"outer_reduce: leading dimensions of {x.type} and {y.type} differ",
        )
        lead = () if self.shared else x.shape[:-1]
        space = x.space if self.via is None else self.via.coarse
        return TensorType(space, (*lead, x.shape[-1], y.shape[-1]), x.dtype)


# ------------------------------------------------------------------------------------------------ views of a row


@operation("reshape")
@dataclass(frozen=True, eq=False, repr=False)
class Reshape(Value):
    """The same elements in the same order under another feature shape."""

    x: Value = field(metadata=CHILD)
    to: Shape

    def _infer(self) -> TensorType:
        _require(math.prod(self.to) == self.x.type.size, f"reshape: {self.x.type} does not fit shape {self.to}")
        return self.x.type.with_shape(self.to)


@operation("permute")
@dataclass(frozen=True, eq=False, repr=False)
class Permute(Value):
    """Feature axes in another order: axis ``a`` of the result is axis ``order[a]`` of the operand."""

    x: Value = field(metadata=CHILD)
    order: tuple[int, ...]

    def _infer(self) -> TensorType:
        _require(
            sorted(self.order) == list(range(len(self.x.shape))), f"permute: {self.order} does not fit {self.x.type}"
        )
        return self.x.type.with_shape(tuple(self.x.shape[a] for a in self.order))


@operation("expand")
@dataclass(frozen=True, eq=False, repr=False)
class Expand(Value):
    """Broadcasts the row to a feature shape, as NumPy would."""

    x: Value = field(metadata=CHILD)
    to: Shape

    def _infer(self) -> TensorType:
        _require(
            broadcast_shapes((self.x.shape, self.to)) == self.to,
            f"expand: {self.x.type} does not broadcast to {self.to}",
        )
        return self.x.type.with_shape(self.to)


@operation("slice")
@dataclass(frozen=True, eq=False, repr=False)
class Slice(Value):
    """Elements ``start``, ``start + step``, ... before ``stop`` of one feature axis."""

    x: Value = field(metadata=CHILD)
    axis: int
    start: int
    stop: int
    step: int = 1

    def _infer(self) -> TensorType:
        shape = self.x.shape
        _require(0 <= self.axis < len(shape), f"slice: no axis {self.axis} in {self.x.type}")
        _require(
            0 <= self.start <= self.stop <= shape[self.axis] and self.step > 0,
            f"slice: {self.start}:{self.stop}:{self.step} does not fit axis {self.axis} of {self.x.type}",
        )
        n = len(range(self.start, self.stop, self.step))
        return self.x.type.with_shape((*shape[: self.axis], n, *shape[self.axis + 1 :]))


@operation("pad")
@dataclass(frozen=True, eq=False, repr=False)
class Pad(Value):
    """The gradient of :class:`Slice`: puts the operand at ``start``, ``start + step``, ... of an axis of ``size`` zeros."""

    x: Value = field(metadata=CHILD)
    axis: int
    start: int
    size: int
    step: int = 1

    def _infer(self) -> TensorType:
        shape = self.x.shape
        _require(0 <= self.axis < len(shape), f"pad: no axis {self.axis} in {self.x.type}")
        last = self.start + (shape[self.axis] - 1) * self.step
        _require(
            self.start >= 0 and self.step > 0 and last < self.size,
            f"pad: {self.x.type} does not fit {self.size} elements",
        )
        return self.x.type.with_shape((*shape[: self.axis], self.size, *shape[self.axis + 1 :]))


@operation("concat")
@dataclass(frozen=True, eq=False, repr=False)
class Concat(Value):
    """Rows joined along one feature axis."""

    args: tuple[Value, ...] = field(metadata=CHILD)
    axis: int

    def _infer(self) -> TensorType:
        _require(len(self.args) > 0, "concat: needs an operand")
        first = self.args[0]
        _require(0 <= self.axis < len(first.shape), f"concat: no axis {self.axis} in {first.type}")

        def rest(value: Value) -> tuple[object, ...]:
            return (value.space, value.dtype, value.shape[: self.axis], value.shape[self.axis + 1 :], len(value.shape))

        for other in self.args[1:]:
            _require(
                rest(other) == rest(first), f"concat: {first.type} and {other.type} differ beside axis {self.axis}"
            )
        n = sum(a.shape[self.axis] for a in self.args)
        return first.type.with_shape((*first.shape[: self.axis], n, *first.shape[self.axis + 1 :]))


VIEWS = (Reshape, Permute, Slice, Expand)
"""Operations that compute nothing: they say where the numbers of a row stand."""

COMPLETE_VIEWS = (Reshape, Permute, Expand)
"""Views in which every number of the operand's row occurs."""

MOVES = (Lift, Pad, *VIEWS)
"""Operations that copy numbers, or leave them out, and put zeros beside them: linear, and exact in every dtype."""

ROW_FUNCTIONS = (Pointwise, Cast, FeatureReduce, Pad, Concat)
"""Operations that compute a row from the operands' same row, and read nothing else."""

ROW_WISE = (*ROW_FUNCTIONS, *VIEWS)
"""Operations whose result in a row depends on nothing but the operands' same row."""
