"""Programs over integer tensors that one call into C++ computes (``integers.cpp``).

What PyG's layers compute of ``edge_index`` at every call, self-loops, degrees, normalizations, is a dozen small operations of PyTorch. On
a small graph their calls take longer than their loops, and on a large one each makes a tensor that the next one reads.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from columba.runtime.graphs.sorts import native_function

DTYPES = (torch.int64, torch.float32, torch.float64, torch.bool)
"""As ``integers.cpp`` numbers them."""

OPERATIONS = (
    "row", "same", "compress", "numbers_of", "range", "fill", "repeat", "concatenate", "flip", "gather", "scatter_add", "masked_fill",
    "not", "reciprocal_root", "clamp_low", "clamp_high", "add", "subtract", "multiply", "divide", "equal", "unequal", "less",
    "less_or_equal", "greater", "greater_or_equal",
)  # fmt: skip
"""Likewise."""

_DEFERRED = frozenset(OPERATIONS) - {"row", "same", "scatter_add"}
"""What can be written where a concatenation has it."""


_FIELDS = ("dtype", "lead", "n", "stride", "data")
"""Of a value, as numbers of 64 bits."""
_N, _STRIDE, _DATA = (_FIELDS.index(name) for name in ("n", "stride", "data"))


class _Instruction(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("operation", "out", "a", "b", "c", "length", "integer")),
        *((name, ctypes.c_int64) for name in ("first_part", "parts", "deferred", "swapped")),
        ("number", ctypes.c_double),
    ]


@dataclass(frozen=True)
class Array:
    """A value: ``lead`` rows of one length.

    Attributes:
        dtype: one of :data:`DTYPES`.
        lead: how many rows.
        shape: how it is shown as a tensor: as ``[n]``, ``[lead, n]`` or ``[n, 1]``.
    """

    dtype: torch.dtype
    lead: int = 1
    shape: str = "n"

    def size(self, n: int) -> tuple[int, ...]:
        """The size of the tensor where rows have that length."""
        return (n,) if self.shape == "n" else (self.lead, n) if self.shape == "ln" else (n, 1)

    def strides(self, stride: int) -> tuple[int, ...]:
        """Its strides, where rows stand that far apart."""
        return (1,) if self.shape == "n" else (stride, 1) if self.shape == "ln" else (1, 1)


@dataclass(frozen=True)
class Length:
    """A length: of a value, or the count with a number, or a number."""

    value: int | None = None
    count: int | None = None
    number: int = 0


@dataclass(frozen=True)
class Operation:
    """One instruction; the value that it computes comes after those of all before it.

    Attributes:
        name: one of :data:`OPERATIONS`.
        result: what it gives.
        a, b, c: values that it takes; arrays, masks, indices.
        parts: what is concatenated.
        length: of a range, or of what is filled.
        number: the second operand where that is no array; what is filled in, or where a range begins; the row that is taken; of a gather,
            whether indices may count from the end.
        is_swapped: whether the number, or ``b``, is the first operand.
    """

    name: str
    result: Array
    a: int = -1
    b: int = -1
    c: int = -1
    parts: tuple[int, ...] = ()
    length: Length | None = None
    number: float = 0
    is_swapped: bool = False


@dataclass
class IntegerProgram:
    """What is computed of tensors of integers, on a CPU.

    Args:
        inputs: what the tensors are.
        operations: what is computed, in order.
        kept: the numbers of the values that are asked for.
    """

    inputs: tuple[Array, ...]
    operations: tuple[Operation, ...]
    kept: tuple[int, ...]
    _function: Callable[..., int] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        arrays = (*self.inputs, *(operation.result for operation in self.operations))
        self._sizes: list[Length] = []
        instructions, parts = [], list[int]()
        deferred = self._deferred()
        for n, o in enumerate(self.operations):
            length, number = -1, 0
            if o.length is not None:
                length = o.length.value if o.length.value is not None else len(arrays) + self._size(o.length)
            number = int(o.number) if abs(o.number) < 2**63 else 0  # infinity, to floats alone
            place = (len(parts), len(o.parts))
            parts += o.parts
            out = len(self.inputs) + n
            operation = OPERATIONS.index(o.name)
            instructions.append(
                _Instruction(
                    operation, out, o.a, o.b, o.c, length, number, *place, out in deferred, o.is_swapped, o.number
                )
            )
        self._instructions = (_Instruction * max(1, len(instructions)))(*instructions)
        self._parts = (ctypes.c_int64 * max(1, len(parts)))(*parts)
        self._template = array("q", [n for x in arrays for n in (DTYPES.index(x.dtype), x.lead, 0, 0, 0)])
        self._table = ctypes.c_int64 * max(1, len(self._sizes))
        self._arrays = arrays
        self._bounds = [self._bound(operation) for operation in self.operations]
        # Where what is kept stands: it may be a view of a value that nobody asks for.
        self._roots = {n: self._root(n) for n in self.kept}
        self._results = sorted({root for root in self._roots.values() if root >= len(self.inputs)})

    def __call__(self, tensors: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor] | None:
        """The values asked for; None where PyTorch has to compute them: what would be an error, tensors of other kinds, no C++."""
        function = self._function
        if function is None:
            function = self._function = native_function("compute_integers")
            if function is None:
                return None
        values, bounds = self._template[:], list[int]()
        for n, given in enumerate(self.inputs):
            tensor = tensors[n]
            length = _length(tensor, given)
            if length is None:
                return None
            bounds.append(length)
            stride = tensor.stride(0) if given.shape == "ln" else length
            at = len(_FIELDS) * n
            values[at + _N], values[at + _STRIDE], values[at + _DATA] = length, stride, tensor.data_ptr()
        sizes = [size.number if size.count is None else counts[size.count] for size in self._sizes]
        for bound, operands in self._bounds:
            bounds.append(bound(bounds, sizes, operands))
        memory: dict[int, Tensor] = {}
        for n in self._results:
            of = self._arrays[n]
            memory[n] = made = torch.empty(of.lead * bounds[n] or 1, dtype=of.dtype)
            values[len(_FIELDS) * n + _DATA] = made.data_ptr()
        address, _ = values.buffer_info()
        bases = {n: made.data_ptr() for n, made in memory.items()}
        if function(
            self._instructions, address, len(self.inputs), self._parts, self._table(*sizes), len(self.operations)
        ):
            return None
        for n, made in memory.items():
            used = self._arrays[n].lead * values[len(_FIELDS) * n + _N]
            if 2 * used < made.numel():  # masks have kept few: nobody should hold the room for all
                memory[n] = made[:used].clone()
        return [self._tensor(n, values, tensors, memory, bases) for n in self.kept]

    def _tensor(
        self, n: int, values: Any, tensors: Sequence[Tensor], memory: dict[int, Tensor], bases: dict[int, int]
    ) -> Tensor:
        """A value as a tensor: of its own, or a view of the value that it is a part of, which was computed where ``bases`` says."""
        root, of = self._roots[n], self._arrays[n]
        _, _, length, stride, data = values[len(_FIELDS) * n : len(_FIELDS) * (n + 1)]
        whole, base = (
            (tensors[root], tensors[root].data_ptr()) if root < len(self.inputs) else (memory[root], bases[root])
        )
        at = whole.storage_offset() + (data - base) // whole.itemsize
        return whole.as_strided(of.size(length), of.strides(stride), at)

    # -------------------------------------------------------------------------------------------- of the instructions

    def _size(self, length: Length) -> int:
        """Where a length that is of no value stands in the table of sizes."""
        if length not in self._sizes:
            self._sizes.append(length)
        return self._sizes.index(length)

    def _deferred(self) -> set[int]:
        """Values that only one concatenation takes."""
        uses: list[int] = list(self.kept)
        for o in self.operations:
            uses += [n for n in (o.a, o.b, o.c, *o.parts) if n >= 0]
            if o.length is not None and o.length.value is not None:
                uses.append(o.length.value)
        first = len(self.inputs)
        return {
            n
            for o in self.operations
            if o.name == "concatenate"
            for n in o.parts
            if n >= first and uses.count(n) == 1 and self.operations[n - first].name in _DEFERRED
        }

    def _root(self, n: int) -> int:
        """The value in whose memory one stands."""
        while n >= len(self.inputs) and self.operations[n - len(self.inputs)].name in ("row", "same"):
            n = self.operations[n - len(self.inputs)].a
        return n

    def _bound(self, o: Operation) -> tuple[Callable[..., int], Any]:
        """How long the rows of a result are at most, of what values, or of which size."""
        if o.name == "concatenate":
            return _longest_of_all, o.parts
        if o.length is not None:
            return (
                (_longest, o.length.value) if o.length.value is not None else (_longest_of_size, self._size(o.length))
            )
        return _longest, o.b if o.name in ("numbers_of", "gather") else o.a


def _longest(bounds: Sequence[int], sizes: Sequence[int], value: int) -> int:
    return bounds[value]


def _longest_of_all(bounds: Sequence[int], sizes: Sequence[int], values: Sequence[int]) -> int:
    return sum([bounds[n] for n in values])


def _longest_of_size(bounds: Sequence[int], sizes: Sequence[int], size: int) -> int:
    return max(0, sizes[size])


def _length(tensor: Tensor, array: Array) -> int | None:
    """The length of the rows of a tensor; None if it is none of that kind, or its rows are not in one piece."""
    if (
        type(tensor) is not Tensor
        or tensor.dtype is not array.dtype
        or not tensor.is_cpu
        or tensor.layout is not torch.strided
    ):
        return None
    shape, strides = tensor.shape, tensor.stride()
    if len(shape) != (1 if array.shape == "n" else 2) or (array.shape == "ln" and shape[0] != array.lead):
        return None
    return shape[-1] if strides[-1] == 1 or shape[-1] == 1 else None
