"""C++ types, literals, and the spelling of every pointwise function."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from columba.ir.types import DType

STORED = {
    DType.F64: "double",
    DType.F32: "float",
    DType.BF16: "cb_bf16",
    DType.I64: "int64_t",
    DType.I32: "int32_t",
    DType.BOOL: "uint8_t",
}
"""The type of a buffer's elements."""


class UnsupportedDType(TypeError):
    """The C++ backend has no kernels for an element type."""


def stored(dtype: DType) -> str:
    """The C++ type of a buffer's elements."""
    try:
        return STORED[dtype]
    except KeyError:
        raise UnsupportedDType(f"the C++ backend has no kernels for {dtype}; convert to f32, f64 or bf16") from None


def is_narrow(dtype: DType) -> bool:
    """Whether elements are stored with fewer bits than they are computed with."""
    return dtype is DType.BF16


def widened(dtype: DType) -> DType:
    """The type that elements are computed and accumulated in."""
    return DType.F32 if is_narrow(dtype) else dtype


def computed(dtype: DType) -> str:
    """The C++ type of elements in registers, in local rows and in sums."""
    return stored(widened(dtype))


def literal(value: float, dtype: DType) -> str:
    """A constant of the given type.

    >>> literal(0.2, DType.F32), literal(float("-inf"), DType.F64), literal(1.0, DType.I64)
    ('0.2f', '-(double)INFINITY', 'INT64_C(1)')
    """
    kind = computed(dtype)
    if dtype is DType.BOOL:
        return "true" if value else "false"
    if not dtype.is_float:
        number = dtype.number(value)
        smallest = number == -(2 ** (8 * dtype.itemsize - 1))  # which C++ has no literal for
        text = f"INT64_C({number + smallest})" if dtype is DType.I64 else str(number + smallest)
        return f"({text} - 1)" if smallest else text
    if math.isnan(value):
        return f"({kind})NAN"
    if math.isinf(value):
        return f"{'-' if value < 0 else ''}({kind})INFINITY"
    return f"{float(value)!r}f" if widened(dtype) is DType.F32 else repr(float(value))


def identifier(name: str) -> str:
    """``name`` with everything that C++ does not allow in a name replaced.

    >>> identifier("conv.weight")
    'conv_weight'
    """
    return re.sub(r"\W", "_", name)


Spelling = Callable[[Sequence[str], Sequence[str]], str]


def _call(function: str) -> Spelling:
    return lambda args, scalars: f"{function}({', '.join([*args, *scalars])})"


def _infix(operator: str) -> Spelling:
    return lambda args, scalars: f"({args[0]} {operator} {args[1]})"


SPELLINGS: dict[str, Spelling] = {
    "neg": lambda a, s: f"(-({a[0]}))",
    "logical_not": lambda a, s: f"(!{a[0]})",
    "add": _infix("+"),
    "sub": _infix("-"),
    "mul": _infix("*"),
    "div": _infix("/"),
    "eq": _infix("=="),
    "ne": _infix("!="),
    "lt": _infix("<"),
    "le": _infix("<="),
    "gt": _infix(">"),
    "ge": _infix(">="),
    "logical_and": _infix("&"),
    "logical_or": _infix("|"),
}
"""Functions that are operators in C++; all others are functions ``cb_<name>`` of ``prelude.h``."""


MASK = "const int64_t mask = cb_mask();"
"""Declares what :func:`spell` needs to round products."""


def spell(function: str, args: Sequence[str], scalars: Sequence[float], dtype: DType, *, rounded: bool = False) -> str:
    """A pointwise function applied to C++ expressions; scalars are of the operands' ``dtype``.

    ``rounded``: the result is rounded whatever is added to it.
    """
    spelling = SPELLINGS.get(function) or _call(f"cb_{function}")
    text = spelling(args, [literal(s, dtype) for s in scalars])
    return f"cb_rounded({text}, mask)" if rounded else text
