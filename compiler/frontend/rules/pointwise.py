"""Pointwise functions and operators, with torch's type promotion and broadcasting over features."""

from __future__ import annotations

import math
from typing import Any

from columba.frontend.counts import RowCount
from columba.frontend.infer import ROW_WISE
from columba.frontend.operands import Operand, aligned, cast_to, common_dtype, constant, on_weights, pointwise
from columba.frontend.rules.registry import RULES, Call, rule
from columba.ir.pointwise import POINTWISE, PointwiseFunction
from columba.ir.program import build as b
from columba.ir.program.ops import Degree, Uniform, Value
from columba.ir.spaces import IndexMap, Space
from columba.ir.types import DType

Number = int | float | bool

_OTHERS = frozenset(RULES)


def operands(call: Call, args: tuple[Any, ...], dtype: DType | None) -> list[Value]:
    """Tensors and numbers as values of one space and one dtype (None: as they are)."""
    ready: list[Operand] = []
    for a in args:
        if isinstance(a, Operand):
            ready.append(a)
        elif isinstance(a, RowCount) and (space := call.rows(a)) is not None:
            count = Degree(IndexMap("one", space, Space.ONE), DType.F64)
            ready.append(Operand(b.cast(count, dtype or call.dtype), call.record))
        elif isinstance(a, (int, float)):
            ready.append(Operand(constant(float(a), dtype or call.dtype), call.record))
        else:
            raise call.unsupported(f"an operand is {type(a).__name__}")
    values = aligned(ready, call.where, call.name)
    return values if dtype is None else [cast_to(v, dtype) for v in values]


def apply(call: Call, function: str, *args: Any, scalars: tuple[float, ...] = (), dtype: DType | None = None) -> Value:
    """A function of the table, operands cast to the dtype of the result."""
    return pointwise(function, operands(call, args, dtype or call.dtype), scalars)


_ALIASES = {
    "__neg__": "neg", "negative": "neg", "__abs__": "abs", "absolute": "abs", "multiply": "mul", "not_equal": "ne", "less": "lt",
    "less_equal": "le", "greater": "gt", "greater_equal": "ge",
}  # fmt: skip
"""Further names in torch of functions of the table."""

_OPERATORS = {"add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "div": "div", "pow": "pow"}


def _same(name: str, function: PointwiseFunction) -> None:
    """The torch function called ``name`` is one of the table, on numbers of the dtype of the result, or in which they are compared."""

    def unary(call: Call, input: Any, inplace: bool = False) -> Value:
        return apply(call, function.name, input)

    def binary(call: Call, input: Any, other: Any) -> Value:
        compared = function.result == "bool"
        dtype = common_dtype(call.record, (input, other)) if compared else None
        return apply(call, function.name, input, other, dtype=dtype)

    RULES[name] = unary if function.arity == 1 else binary


def _operator(name: str, function: str, *, reverse: bool = False) -> None:
    def convert(call: Call, input: Any, other: Any) -> Value:
        first, second = (other, input) if reverse else (input, other)
        if function == "pow":
            return _power(call, first, second)
        return apply(call, function, first, second)

    RULES[name] = convert


for _name, _function in POINTWISE.items():
    if not _function.internal and not _function.scalars and _function.arity <= 2:
        _same(_name, _function)  # where torch takes more than that, there is a rule below instead
for _name, _of in _ALIASES.items():
    _same(_name, POINTWISE[_of])
for _name, _of in _OPERATORS.items():
    _operator(f"__{_name}__", _of)
    _operator(f"__r{_name}__", _of, reverse=True)
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    _same(f"__{_name}__", POINTWISE[_name])


@rule("add", "sub", "subtract", "rsub")
def _add(call: Call, input: Any, other: Any, alpha: Number = 1) -> Value:
    if call.name == "rsub":
        input, other = other, input
    first, second = operands(call, (input, other), call.dtype)
    if alpha != 1:
        second = pointwise("mul", (second, b.constant_like(second, alpha)))
    return pointwise("add" if call.name == "add" else "sub", (first, second))


@rule("div", "divide", "true_divide")
def _div(call: Call, input: Any, other: Any, rounding_mode: str | None = None) -> Value:
    if rounding_mode is not None:
        raise call.unsupported(f"rounding_mode={rounding_mode!r} has no gradient")
    return apply(call, "div", input, other)


@rule("pow")
def _power(call: Call, input: Any, exponent: Any) -> Value:
    if isinstance(exponent, (int, float)):
        if exponent == 2:
            return apply(call, "square", input)
        return apply(call, "pow_scalar", input, scalars=(float(exponent),))
    return apply(call, "pow", input, exponent)


@rule(
    "logical_and",
    "__and__",
    "__rand__",
    "bitwise_and",
    "logical_or",
    "__or__",
    "__ror__",
    "bitwise_or",
    "logical_xor",
    "__xor__",
)
def _logical(call: Call, input: Any, other: Any) -> Value:
    first, second = (_truth(call, v) for v in operands(call, (input, other), None))
    kind = call.name.strip("_").removeprefix("logical_").removeprefix("bitwise_").removeprefix("r")
    return pointwise({"and": "logical_and", "or": "logical_or", "xor": "ne"}[kind], (first, second))


@rule("logical_not", "__invert__", "bitwise_not")
def _logical_not(call: Call, input: Any) -> Value:
    (x,) = operands(call, (input,), None)
    return pointwise("logical_not", (_truth(call, x),))


def _truth(call: Call, x: Value) -> Value:
    """A condition as it is, and of numbers whether they are not 0, for the functions that ask that."""
    if x.dtype is DType.BOOL:
        return x
    if not call.name.startswith("logical"):
        raise call.unsupported("the operands must be boolean", "compare them first: x != 0")
    return pointwise("ne", (x, b.constant_like(x, 0.0)))


@rule("isnan")
def _isnan(call: Call, input: Any) -> Value:
    x = call.value(input)
    return pointwise("ne", (x, x))


@rule("where")
def _where(call: Call, condition: Any, input: Any = None, other: Any = None) -> Value:
    if input is None or other is None:
        raise call.unsupported(
            "finding the places where a condition holds needs values", "use torch.where(condition, a, b)"
        )
    choice, first, second = operands(call, (condition, input, other), None)
    return pointwise("where", (choice, cast_to(first, call.dtype), cast_to(second, call.dtype)))


@rule("masked_fill")
def _masked_fill(call: Call, input: Any, mask: Any, value: Any) -> Value:
    return _where(call, mask, value, input)


@rule("clamp", "clip")
def _clamp(call: Call, input: Any, min: Any = None, max: Any = None) -> Value:
    if isinstance(min, Operand) or isinstance(max, Operand):
        return _clamp_by_tensors(call, input, min, max)
    low, high = -math.inf if min is None else float(min), math.inf if max is None else float(max)
    return apply(call, "clamp", input, scalars=(low, high))


@rule("clamp_min")
def _clamp_min(call: Call, input: Any, min: Any) -> Value:
    return _clamp(call, input, min)


@rule("clamp_max")
def _clamp_max(call: Call, input: Any, max: Any) -> Value:
    return _clamp(call, input, None, max)


def _clamp_by_tensors(call: Call, input: Any, low: Any, high: Any) -> Value:
    """Whose gradient it is at ties and crossed bounds is PyTorch's choice for clamp, which differs from that for maximum."""
    given = [bound for bound in (low, high) if bound is not None]
    x, *bounds = operands(call, (input, *given), call.dtype)
    if len(bounds) == 1:
        inward, combine = ("ge", "maximum") if high is None else ("le", "minimum")
        value = pointwise(combine, (x, bounds[0]))
        inside = pointwise(inward, (x, bounds[0]))
        sources = [(pointwise("eq", (bounds[0], value)), bounds[0]), (inside, x)]
    else:
        low, high = bounds
        value = pointwise("minimum", (pointwise("maximum", (x, low)), high))
        inside = pointwise("logical_and", (pointwise("ge", (x, low)), pointwise("le", (x, high))))
        below = pointwise("logical_and", (pointwise("lt", (x, low)), pointwise("lt", (low, high))))
        above = pointwise("logical_or", (pointwise("gt", (x, high)), pointwise("lt", (high, low))))
        known = [pointwise("logical_and", (a, pointwise("eq", (s, value)))) for a, s in ((above, high), (below, low))]
        sources = [(known[0], high), (known[1], low), (inside, x)]
    result = pointwise("detach", (value,))  # what is NaN is nobody's
    for chosen, source in sources:
        result = pointwise("where", (chosen, source, result))
    return result


@rule("relu6")
def _relu6(call: Call, input: Any, inplace: bool = False) -> Value:
    return _hardtanh(call, input, 0.0, 6.0)


@rule("hardtanh")
def _hardtanh(call: Call, input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Value:
    """At a bound the gradient is 0, that of clamp is not."""
    (x,) = operands(call, (input,), call.dtype)
    low, high = (b.constant_like(x, float(bound)) for bound in (min_val, max_val))
    inside = pointwise("logical_and", (pointwise("gt", (x, low)), pointwise("lt", (x, high))))
    clamped = pointwise("clamp", (x,), (float(min_val), float(max_val)))
    return pointwise("where", (inside, x, pointwise("detach", (clamped,))))


@rule("leaky_relu")
def _leaky_relu(call: Call, input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Value:
    return apply(call, "leaky_relu", input, scalars=(float(negative_slope),))


@rule("elu")
def _elu(call: Call, input: Any, alpha: float = 1.0, inplace: bool = False) -> Value:
    return apply(call, "elu", input, scalars=(float(alpha),))


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


@rule("selu")
def _selu(call: Call, input: Any, inplace: bool = False) -> Value:
    x = apply(call, "elu", input, scalars=(_SELU_ALPHA,))
    return pointwise("mul", (x, b.constant_like(x, _SELU_SCALE)))


@rule("gelu")
def _gelu(call: Call, input: Any, approximate: str = "none") -> Value:
    return apply(call, "gelu_tanh" if approximate == "tanh" else "gelu", input)


@rule("softplus")
def _softplus(call: Call, input: Any, beta: float = 1.0, threshold: float = 20.0) -> Value:
    return apply(call, "softplus", input, scalars=(float(beta), float(threshold)))


@rule("logsigmoid", "log_sigmoid")
def _logsigmoid(call: Call, input: Any) -> Value:
    (x,) = operands(call, (input,), call.dtype)
    vanishing = pointwise("exp", (pointwise("neg", (pointwise("abs", (x,)),)),))
    return pointwise("sub", (pointwise("minimum", (x, b.constant_like(x, 0.0))), pointwise("log1p", (vanishing,))))


@rule("mish")
def _mish(call: Call, input: Any, inplace: bool = False) -> Value:
    (x,) = operands(call, (input,), call.dtype)
    return pointwise("mul", (x, pointwise("tanh", (pointwise("softplus", (x,), (1.0, 20.0)),))))


@rule("softsign")
def _softsign(call: Call, input: Any) -> Value:
    (x,) = operands(call, (input,), call.dtype)
    size = pointwise("abs", (x,))
    return pointwise("div", (x, pointwise("add", (size, b.constant_like(size, 1.0)))))


@rule("lerp")
def _lerp(call: Call, input: Any, end: Any, weight: Any) -> Value:
    """From the nearer end, as in PyTorch: ``x + t (y - x)`` or ``y - (1 - t)(y - x)``."""
    x, y, t = operands(call, (input, end, weight), call.dtype)
    way, one = pointwise("sub", (y, x)), b.constant_like(t, 1.0)
    if isinstance(weight, (int, float)):
        if abs(weight) < 0.5:
            return pointwise("add", (x, pointwise("mul", (t, way))))
        return pointwise("sub", (y, pointwise("mul", (b.constant_like(t, 1.0 - weight), way))))
    near = pointwise("lt", (pointwise("abs", (t,)), b.constant_like(t, 0.5)))
    start = pointwise("where", (near, x, y))
    share = pointwise("where", (near, t, pointwise("sub", (t, one))))
    return pointwise("add", (start, pointwise("mul", (share, way))))


@rule("prelu")
def _prelu(call: Call, input: Any, weight: Any) -> Value:
    x, w = call.value(input), call.value(weight)
    if w.type.size != 1:
        shape = (w.type.size, *(1,) * (len(x.shape) - 1))
        w = on_weights(lambda v: b.reshape(v, shape), w)
    else:
        w = on_weights(lambda v: b.reshape(v, ()), w)
    w = b.to_space(w, x.space)
    return pointwise("where", (pointwise("gt", (x, b.constant_like(x, 0.0))), x, pointwise("mul", (w, x))))


@rule("dropout")
def _dropout(call: Call, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Value:
    x = call.value(input)
    if not training or p == 0:
        return x
    if p >= 1:
        return pointwise("mul", (x, b.constant_like(x, 0.0)))
    seed, salt = call.seed()
    random = Uniform(seed, x.space, x.shape, salt, DType.F64 if x.dtype is DType.F64 else DType.F32)
    kept = b.pointwise("ge", random, b.constant_like(random, p))
    scaled = b.pointwise("mul", x, b.constant_like(x, 1 / (1 - p)))
    return b.pointwise("where", kept, scaled, b.constant_like(x, 0.0))


@rule("zeros_like", "ones_like")
def _constant_like(call: Call, input: Any, **options: Any) -> Value:
    return _full_like(call, input, float(call.name == "ones_like"))


@rule("full_like")
def _full_like(call: Call, input: Any, fill_value: Any, **options: Any) -> Value:
    x = call.value(input)
    if not isinstance(fill_value, (int, float)):
        raise call.unsupported("fill_value must be a number")
    return b.expand(b.cast(b.constant_like(x, fill_value), call.dtype), x.shape)


ROW_WISE.update(RULES.keys() - _OTHERS - {"prelu"})
