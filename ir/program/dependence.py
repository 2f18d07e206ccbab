"""What the gradient of a program depends on."""

from __future__ import annotations

from collections.abc import Collection

from columba.ir.program.ops import (
    Cast,
    Concat,
    Expand,
    FeatureReduce,
    Lift,
    Linear,
    OuterReduce,
    Pad,
    Permute,
    Pointwise,
    Reduce,
    Reshape,
    Slice,
    Value,
)
from columba.ir.program.program import Program

_LINEAR = (Lift, Reshape, Permute, Expand, Slice, Pad, Concat, Cast)


def gradient_dependences(program: Program, wrt: Collection[int]) -> frozenset[int]:
    """The inputs, by position, whose values the gradients with respect to the inputs ``wrt`` may depend on.

    Sums and moves are linear: their gradients depend on nothing. That of a product depends on the factors beside the one that has a
    gradient, that of anything else on all of its operands.
    """
    below: dict[Value, int] = {x: 1 << n for n, x in enumerate(program.inputs)}  # sets of inputs, as bits
    wanted = sum(1 << n for n in wrt)
    found = 0
    for value in program.body:
        operands = [below[c] for c in value.children]  # type: ignore[index]
        if value not in below:
            below[value] = 0
            for inputs in operands:
                below[value] |= inputs
        if not below[value] & wanted or _is_linear(value):
            continue
        if _is_product(value):
            for n, inputs in enumerate(operands):
                if any(other & wanted for other in operands[:n] + operands[n + 1 :]):
                    found |= inputs
        elif operands:
            found |= below[value]
    return frozenset(n for n in range(len(program.inputs)) if found >> n & 1)


def _is_linear(value: Value) -> bool:
    match value:
        case Reduce(op=op) | FeatureReduce(op=op):
            return op == "sum"
        case Pointwise(function=function):
            return function in ("add", "sub", "neg")
    return isinstance(value, _LINEAR)


def _is_product(value: Value) -> bool:
    return isinstance(value, (Linear, OuterReduce)) or (isinstance(value, Pointwise) and value.function == "mul")
