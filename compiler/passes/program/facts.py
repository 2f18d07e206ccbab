"""Facts about values and programs that follow from their form, which conditions of passes ask for."""

from __future__ import annotations

from columba.ir.program.ops import VIEWS, Cast, Constant, Degree, FeatureReduce, Lift, Pointwise, Reduce, Value
from columba.ir.program.program import Program
from columba.ir.spaces import NODE_SPACES, Space

FINITE = ("neg", "add", "sub", "mul", "maximum", "minimum", "square", "abs", "relu", "tanh", "sigmoid", "sqrt")
"""Functions of finite values that are finite. (A root of what is negative is no number, but no number either way.)"""

DIVISIONS = ("div", "reciprocal", "rsqrt", "log", "pow", "pow_scalar")
"""Functions whose last operand must not be zero if they are to be finite."""

NONNEGATIVE = ("square", "abs", "sqrt", "exp", "relu", "sigmoid", "softplus")


def is_square(program: Program) -> bool | None:
    """Whether a program is on a graph with one set of nodes; None where no value says, since none has a row per node."""
    return next((v.space is Space.NODE for v in program.body if v.space in NODE_SPACES), None)


def _unmasked(value: Value) -> Value:
    return value.args[1] if isinstance(value, Pointwise) and value.function == "mask_gradient" else value


def is_finite(value: Value) -> bool:
    """Whether a value is finite whatever the inputs are: degrees, constants, and quotients by what is at least a constant."""
    value = _unmasked(value)
    if isinstance(value, (Constant, Degree)):
        return True
    if isinstance(value, (Lift, Cast, *VIEWS)):
        return is_finite(value.x)
    if not isinstance(value, Pointwise) or value.function not in (*FINITE, *DIVISIONS):
        return False
    return all(map(is_finite, value.args)) and not _may_divide_by_zero(value)


def may_be_infinite(value: Value) -> bool:
    """Whether a quotient by what may be zero makes a value, in a row without members perhaps (``rsqrt(degree)``).

    Inputs, sums and products are taken to be finite.
    """
    value = _unmasked(value)
    if isinstance(value, (Lift, Cast, *VIEWS)):
        return may_be_infinite(value.x)
    return isinstance(value, Pointwise) and (_may_divide_by_zero(value) or any(map(may_be_infinite, value.args)))


def _may_divide_by_zero(value: Pointwise) -> bool:
    if value.function in ("pow", "pow_scalar"):
        return not is_positive(value.args[0]) and not (value.scalars and value.scalars[0] >= 0)
    return value.function in DIVISIONS and not is_positive(value.args[-1])


def is_positive(value: Value) -> bool:
    """Whether a value is, by its form, bounded from below by a positive constant."""
    value = _unmasked(value)
    if isinstance(value, Constant):
        return value.value > 0
    if isinstance(value, (Lift, Cast, *VIEWS)):
        return is_positive(value.x)
    if not isinstance(value, Pointwise):
        return False
    if value.function == "add":
        return any(map(is_positive, value.args)) and all(map(is_nonnegative, value.args))
    if value.function == "maximum":
        return any(map(is_positive, value.args))
    return value.function in ("mul", "sqrt", "square") and all(map(is_positive, value.args))


def is_nonnegative(value: Value) -> bool:
    """Whether a value is, by its form, not below zero."""
    value = _unmasked(value)
    if isinstance(value, (Lift, Cast, *VIEWS, FeatureReduce, Reduce)):
        return is_nonnegative(value.x)
    if isinstance(value, Degree) or is_positive(value):
        return True
    if isinstance(value, Pointwise) and value.function in ("add", "mul", "div"):
        return all(map(is_nonnegative, value.args))
    return isinstance(value, Pointwise) and value.function in NONNEGATIVE
