"""Preparations as programs that one call computes: the steps that :mod:`columba.runtime.graphs.integers` knows.

A preparation is written down as calls of PyTorch. The first time it runs, PyTorch computes it, and shows what dtypes and shapes its values
have. If each step is one that C++ knows, later calls go there, and to PyTorch where C++ finds something out of the ordinary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from columba.frontend.steps import Number, Size, Step, Value
from columba.frontend.structure import numbers_of
from columba.runtime.graphs.integers import DTYPES, Array, IntegerProgram, Length, Operation


class _Unknown(Exception):
    """A step is none of those that C++ knows."""


def translated(
    steps: Sequence[Step], kept: Sequence[int], inputs: Sequence[Tensor], results: Sequence[Any]
) -> IntegerProgram | None:
    """The program of a preparation; None if there is a step that C++ does not know.

    Args:
        steps: what it computes.
        kept: the numbers of the steps whose results are asked for.
        inputs: tensors that it was given once.
        results: what the steps gave then: tensors on the meta device do.
    """
    translation = _Translation()
    try:
        given = tuple(_input(tensor) for tensor in inputs)
        translation.arrays += given
        for step, result in zip(steps, results, strict=True):
            operation = translation.operation(step)
            if not isinstance(result, Tensor) or result.dtype is not operation.result.dtype:
                raise _Unknown
            translation.arrays.append(operation.result)
            translation.operations.append(operation)
    except _Unknown:
        return None
    return IntegerProgram(given, tuple(translation.operations), tuple(n + len(given) for n in kept))


def _input(tensor: Tensor) -> Array:
    if tensor.dtype not in DTYPES or tensor.dim() not in (1, 2):
        raise _Unknown
    return Array(tensor.dtype) if tensor.dim() == 1 else Array(tensor.dtype, tensor.shape[0], "ln")


_COMPARISONS = {
    "eq": "equal", "ne": "unequal", "lt": "less", "le": "less_or_equal", "gt": "greater", "ge": "greater_or_equal",
}  # fmt: skip
_ARITHMETIC = {
    "add": ("add", False), "radd": ("add", True), "sub": ("subtract", False), "rsub": ("subtract", True), "mul": ("multiply", False),
    "rmul": ("multiply", True), "div": ("divide", False), "true_divide": ("divide", False), "truediv": ("divide", False),
    "rdiv": ("divide", True), "rtruediv": ("divide", True),
}  # fmt: skip


class _Translation:
    """The operations of the steps so far."""

    def __init__(self) -> None:
        self.arrays: list[Array] = []
        self.operations: list[Operation] = []

    def operation(self, step: Step) -> Operation:
        function = step.function
        name: str = getattr(function, "__name__", "")
        if function is numbers_of:
            (mask,) = self.values(step.args)
            return Operation("numbers_of", Array(torch.int64), b=self.row(mask, torch.bool))
        if not any(function is getattr(of, name, None) for of in (torch, Tensor)):
            raise _Unknown
        plain, kwargs = name.strip("_"), {k: v for k, v in step.kwargs.items() if k != "device"}
        if plain in _COMPARISONS:
            return self.pointwise(_COMPARISONS[plain], step.args, kwargs, torch.bool)
        if plain in _ARITHMETIC:
            operation, is_swapped = _ARITHMETIC[plain]
            return self.pointwise(operation, step.args, kwargs, None, is_swapped)
        known: Callable[..., Operation] | None = getattr(self, f"of_{plain}", None)
        if known is None:
            raise _Unknown
        try:
            return known(*step.args, **kwargs)
        except TypeError:  # arguments that the method does not have
            raise _Unknown from None

    # -------------------------------------------------------------------------------------------- operands

    def values(self, args: Any) -> tuple[int, ...]:
        if not all(isinstance(x, Value) for x in args):
            raise _Unknown
        return tuple(x.number for x in args)

    def value(self, x: Any) -> tuple[int, Array]:
        (n,) = self.values((x,))
        return n, self.arrays[n]

    def row(self, n: int, dtype: torch.dtype | None = None) -> int:
        """A value that is one row."""
        array = self.arrays[n]
        if array.shape != "n" or (dtype is not None and array.dtype is not dtype):
            raise _Unknown
        return n

    def length(self, x: Any) -> Length:
        match x:
            case bool():
                raise _Unknown
            case int():
                return Length(number=x)
            case Number(n):
                return Length(count=n)
            case Size(n, dim):
                array = self.arrays[n]
                if dim in (-1, len(array.size(0)) - 1):
                    return Length(number=1) if array.shape == "n1" else Length(value=n)
                return Length(value=n) if array.shape == "n1" else Length(number=array.lead)
        raise _Unknown

    def pointwise(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        dtype: torch.dtype | None,
        is_swapped: bool = False,
    ) -> Operation:
        """Of an array with one of the same kind, or with a number."""
        if len(args) != 2 or kwargs:
            raise _Unknown
        n, array = self.value(args[0])
        if array.dtype is torch.bool or (name == "divide" and array.dtype is torch.int64):
            raise _Unknown
        result = Array(dtype or array.dtype, array.lead, array.shape)
        if isinstance(args[1], Value):
            m, other = self.value(args[1])
            if other != array:
                raise _Unknown
            return Operation(name, result, n, m, is_swapped=is_swapped)
        return Operation(name, result, n, number=self.number(args[1], array), is_swapped=is_swapped)

    def number(self, x: Any, array: Array) -> float:
        """A number that is one of the array's dtype as it is."""
        kinds = (int,) if array.dtype is torch.int64 else (int, float)
        if type(x) not in kinds or (array.dtype is torch.int64 and abs(x) >= 2**53):
            raise _Unknown
        number: float = x
        return number

    # -------------------------------------------------------------------------------------------- what becomes what

    def of_getitem(self, x: Any, index: Any) -> Operation:
        n, array = self.value(x)
        if type(index) is int and array.shape == "ln" and -array.lead <= index < array.lead:
            return Operation("row", Array(array.dtype), n, number=index % array.lead)
        if type(index) is tuple and len(index) == 2 and array.shape == "ln":
            if index[0] == slice(None) and isinstance(index[1], Value):
                mask = self.row(index[1].number, torch.bool)
                return Operation("compress", array, n, mask)
        elif isinstance(index, Value) and array.shape == "n":
            at = self.row(index.number)
            if self.arrays[at].dtype is torch.bool:
                return Operation("compress", array, n, at)
            if self.arrays[at].dtype is torch.int64:
                return Operation("gather", array, n, at, number=1)
        raise _Unknown

    def of_index_select(self, x: Any, dim: Any, index: Any) -> Operation:
        n, array = self.value(x)
        (at,) = self.values((index,))
        if dim not in (0, -1) or array.shape != "n":
            raise _Unknown
        return Operation("gather", array, n, self.row(at, torch.int64))

    def of_view(self, x: Any, *shape: Any) -> Operation:
        n, array = self.value(x)
        if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
            shape = tuple(shape[0])
        shown = {(-1,): "n", (1, -1): "ln", (-1, 1): "n1"}.get(shape)
        if shown is None or array.lead != 1:
            raise _Unknown
        return Operation("same", Array(array.dtype, 1, shown), n)

    of_reshape = of_view

    def of_expand_as(self, x: Any, other: Any) -> Operation:
        """Of what has the shape of the other: what would have to be repeated ends the program."""
        (n, array), (m, like) = self.value(x), self.value(other)
        if (array.lead, array.shape) != (like.lead, like.shape):
            raise _Unknown
        return Operation("same", array, n, m)

    def of_invert(self, x: Any) -> Operation:
        n, array = self.value(x)
        if array.dtype is not torch.bool:
            raise _Unknown
        return Operation("not", array, n)

    of_logical_not = of_bitwise_not = of_invert

    def of_arange(self, *bounds: Any) -> Operation:
        start, stop = (0, *bounds) if len(bounds) == 1 else bounds
        if start != 0 or type(start) is not int:
            raise _Unknown
        return Operation("range", Array(torch.int64), length=self.length(stop))

    def of_zeros(self, *size: Any, dtype: torch.dtype | None = None) -> Operation:
        return self.filled(size, 0, dtype)

    def of_ones(self, *size: Any, dtype: torch.dtype | None = None) -> Operation:
        return self.filled(size, 1, dtype)

    def filled(self, size: tuple[Any, ...], number: float, dtype: torch.dtype | None) -> Operation:
        if len(size) == 1 and isinstance(size[0], (tuple, list)):
            size = tuple(size[0])
        dtype = torch.get_default_dtype() if dtype is None else dtype
        if len(size) != 1 or dtype not in DTYPES:
            raise _Unknown
        return Operation("fill", Array(dtype), length=self.length(size[0]), number=number)

    def of_repeat(self, x: Any, *times: Any) -> Operation:
        n, array = self.value(x)
        if (
            len(times) != 2
            or array.shape == "n1"
            or array.lead != 1
            or type(times[0]) is not int
            or times[1] != 1
            or times[0] < 1
        ):
            raise _Unknown
        return Operation("repeat", Array(array.dtype, times[0], "ln"), n)

    def of_cat(self, tensors: Any, dim: Any = 0) -> Operation:
        parts = self.values(tensors)
        first = self.arrays[parts[0]]
        along = (0, -1) if first.shape == "n" else (1, -1)
        if dim not in along or first.shape == "n1" or any(self.arrays[n] != first for n in parts):
            raise _Unknown
        return Operation("concatenate", first, parts=parts)

    of_concat = of_concatenate = of_cat

    def of_flip(self, x: Any, dims: Any) -> Operation:
        n, array = self.value(x)
        if dims not in (0, [0], (0,), -2, [-2], (-2,)) or array.shape != "ln":
            raise _Unknown
        return Operation("flip", array, n)

    def of_scatter_add(self, x: Any, dim: Any, index: Any, values: Any) -> Operation:
        n, array = self.value(x)
        at, of = self.values((index, values))
        if dim not in (0, -1) or array.dtype is torch.bool:
            raise _Unknown
        operands = self.row(n), self.row(at, torch.int64), self.row(of, array.dtype)
        return Operation("scatter_add", array, *operands)

    def of_index_add(self, x: Any, dim: Any, index: Any, values: Any) -> Operation:
        return replace(self.of_scatter_add(x, dim, index, values), number=1)  # as many values as indices

    def of_masked_fill(self, x: Any, mask: Any, value: Any) -> Operation:
        n, array = self.value(x)
        at = self.row(self.values((mask,))[0], torch.bool)
        return Operation("masked_fill", array, self.row(n), at, number=self.number(value, array))

    def of_pow(self, x: Any, exponent: Any) -> Operation:
        n, array = self.value(x)
        if exponent != -0.5 or not array.dtype.is_floating_point:
            raise _Unknown
        return Operation("reciprocal_root", array, n)

    def of_clamp(self, x: Any, min: Any = None, max: Any = None) -> Operation:
        n, array = self.value(x)
        if (min is None) == (max is None) or array.dtype is torch.bool:
            raise _Unknown
        bound = self.number(min if max is None else max, array)
        if math.isnan(bound):
            raise _Unknown
        return Operation("clamp_low" if max is None else "clamp_high", array, n, number=bound)
