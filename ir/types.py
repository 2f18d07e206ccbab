"""Types of values: a space, a feature shape, a dtype."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from columba.ir.hashing import hash_once
from columba.ir.spaces import Space


class DType(str, Enum):
    """Element types, under the names that the text form prints."""

    F64 = "f64"
    F32 = "f32"
    BF16 = "bf16"
    F16 = "f16"
    I64 = "i64"
    I32 = "i32"
    BOOL = "bool"

    __hash__ = str.__hash__  # Enum's own is in Python

    def __str__(self) -> str:
        return self.value

    @property
    def is_float(self) -> bool:
        return self in (DType.F64, DType.F32, DType.BF16, DType.F16)

    @property
    def is_half(self) -> bool:
        """Whether numbers have 16 bits: they are stored so, and computed with in 32."""
        return self in (DType.BF16, DType.F16)

    def number(self, value: float) -> int:
        """A whole number of an integer type; what is beyond it, as infinities are, is its largest or smallest."""
        bits = 8 * self.itemsize - 1
        return int(min(max(value, -(2**bits)), 2**bits - 1))

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return {"f64": 8, "f32": 4, "bf16": 2, "f16": 2, "i64": 8, "i32": 4, "bool": 1}[self.value]


Shape = tuple[int, ...]


@hash_once
@dataclass(frozen=True)
class TensorType:
    """One row per row of ``space``, each row a ``shape`` of ``dtype``.

    >>> print(TensorType(Space.EDGE, (4, 16), DType.F32))
    edge[4,16] f32
    """

    space: Space
    shape: Shape
    dtype: DType

    def __post_init__(self) -> None:
        if any(not isinstance(n, int) or n < 0 for n in self.shape):
            raise TypeError(f"feature sizes must be non-negative integers, got {self.shape}")

    @property
    def size(self) -> int:
        """Elements a row."""
        return math.prod(self.shape)

    def with_shape(self, shape: Shape) -> TensorType:
        return TensorType(self.space, shape, self.dtype)

    def with_space(self, space: Space) -> TensorType:
        return TensorType(space, self.shape, self.dtype)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(self.space, self.shape, dtype)

    def __str__(self) -> str:
        return f"{self.space}[{','.join(map(str, self.shape))}] {self.dtype}"
