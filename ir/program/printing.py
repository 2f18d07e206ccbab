"""The text form of level 1, printed: it is parsed back by :mod:`columba.ir.program.parsing`.

    program double(%h: node[4] f32) {
      %0: node[4] f32 = pointwise(%h, %h, function=add)
      return out=%0
    }

Operands come first, then the data fields by name. The form of a field follows from its declared type.
"""

from __future__ import annotations

import dataclasses
from enum import Enum

from columba.ir.program.ops import Value


def print_operation(value: Value, names: dict[Value, str]) -> str:
    """The right-hand side of one line, without what is None unless it is given."""
    operands = [names[c] for c in value.children]  # type: ignore[index]
    optional = {f.name for f in dataclasses.fields(value) if f.default is None}
    fields = [f"{n}={print_field(x)}" for n, x in value.data.items() if x is not None or n not in optional]
    return f"{value.op_name}({', '.join(operands + fields)})"


def print_field(value: object) -> str:
    """One data field: numbers, booleans, names, maps, and bracketed lists of them."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(print_field, value)) + "]"
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, (int, float)):
        return repr(value)
    return str(value)
