"""Reverse-mode differentiation of level-1 programs, as a source-to-source transformation.

The gradient of a program is a program of the same operations, so that whatever optimizes the one optimizes the other.
Each operation has one rule, which says how the gradient of its result becomes gradients of its operands; the two motions
are each other's: the gradient of ``lift`` is ``reduce`` and the other way round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from columba.ir.node import Node, rewrite, topological
from columba.ir.program import build as b
from columba.ir.program.ops import (
    Cast,
    Concat,
    Constant,
    Degree,
    Expand,
    FeatureReduce,
    Input,
    Lift,
    Linear,
    OuterReduce,
    Pad,
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
from columba.ir.types import DType

Gradients = Sequence[Value | None]
GradientRule = Callable[[Any, Value], Gradients]

RULES: dict[type[Value], GradientRule] = {}
"""For every operation: (operation, gradient of its result) -> gradients of its operands (None: there is none)."""

V = TypeVar("V", bound=Value)


def gradient(op: type[V]) -> Callable[[Callable[[V, Value], Gradients]], Callable[[V, Value], Gradients]]:
    """Registers the gradient rule of an operation."""

    def register(rule: Callable[[V, Value], Gradients]) -> Callable[[V, Value], Gradients]:
        RULES[op] = rule
        return rule

    return register


def differentiate(program: Program, wrt: Sequence[str]) -> Program:
    """The joint program: ``program``'s results, then the gradients of its inputs called ``wrt``.

    It takes one more input for every floating result: ``grad_<result>``, the gradient that comes in from outside. The
    gradient of input ``x`` is the result ``grad_<x>``; where no result depends on ``x`` it is zero.
    """
    by_name = {i.name: i for i in program.inputs}
    targets = [by_name[name] for name in wrt]
    grads = [
        Input(f"grad_{name}", result.type) if result.dtype.is_float else None
        for name, result in zip(program.result_names, program.results, strict=True)
    ]
    found = pull_back(program.results, grads, targets)
    results = [g if g is not None else zeros(t) for g, t in zip(found, targets, strict=True)]
    joint = Program(
        program.name,
        (*program.inputs, *(g for g in grads if g is not None)),
        (*program.results, *results),
        (*program.result_names, *(f"grad_{name}" for name in wrt)),
    )
    return without_gradients(joint)


def without_gradients(program: Program) -> Program:
    """``first_max(x) --> max(x)``, ``detach(x), mask_gradient(c, x) --> x``: only gradients tell them apart."""

    def rule(node: Node) -> Node:
        if isinstance(node, FeatureReduce) and node.op.startswith("first_"):
            return FeatureReduce(node.x, node.op.removeprefix("first_"), node.axes)
        return node.args[-1] if isinstance(node, Pointwise) and node.function in GRADIENTS_ONLY else node

    return program.with_results(rewrite(program.results, rule))


GRADIENTS_ONLY = ("detach", "mask_gradient")
"""Functions that give their last operand, and do something to its gradient."""


def pull_back(results: Sequence[Value], grads: Gradients, targets: Sequence[Value]) -> list[Value | None]:
    """Gradients of ``targets`` given those of ``results``. What no target needs is not computed."""
    order = topological(results)
    active = set(targets)
    for node in order:
        if any(c in active for c in node.children):
            active.add(node)  # type: ignore[arg-type]
    total: dict[Value, Value] = {}
    for result, grad in zip(results, grads, strict=True):
        if grad is not None and result in active:
            _accumulate(total, result, grad)
    for node in reversed(order):
        assert isinstance(node, Value)
        if node not in total or not any(c in active for c in node.children):
            continue
        for operand, grad in zip(node.children, RULES[type(node)](node, total[node]), strict=True):
            if grad is not None and operand in active:
                _accumulate(total, operand, grad)  # type: ignore[arg-type]
    return [total.get(t) for t in targets]


def _accumulate(total: dict[Value, Value], value: Value, grad: Value) -> None:
    if grad.type != value.type:
        raise TypeError(f"the gradient of {value.op_name} {value.type} has type {grad.type}")
    total[value] = b.pointwise("add", total[value], grad) if value in total else grad


def zeros(like: Value) -> Value:
    return b.expand(b.constant_like(like, 0.0), like.shape)


# ------------------------------------------------------------------------------------------------ leaves


def _no_operands(op: Value, g: Value) -> Gradients:
    return ()


for _leaf in (Input, Constant, Degree):
    RULES[_leaf] = _no_operands


@gradient(Uniform)
def _uniform(op: Uniform, g: Value) -> Gradients:
    return (None,)


# ------------------------------------------------------------------------------------------------ motion


@gradient(Lift)
def _lift(op: Lift, g: Value) -> Gradients:
    return (b.reduce_sum(g, op.via),)


@gradient(Reduce)
def _reduce(op: Reduce, g: Value) -> Gradients:
    if op.op == "sum":
        return (b.lift(g, op.via),)
    lifted = b.lift(op, op.via)
    # The extremum's gradient is shared evenly among the rows that attain it, as torch.scatter_reduce does. Where it is NaN nobody knows
    # who does: NaN is everyone's share, as in torch.amax. (Equality, which has both sides computed alike wherever that is done again.)
    attains = b.pointwise("logical_or", b.pointwise("eq", op.x, lifted), b.pointwise("ne", lifted, lifted))
    one, zero = b.constant_like(op.x, 1.0), b.constant_like(op.x, 0.0)
    ties = b.reduce_sum(b.pointwise("where", attains, one, zero), op.via)
    share = b.pointwise("div", g, b.pointwise("maximum", ties, 1.0))
    share = b.pointwise("where", b.pointwise("ne", op, op), op, share)
    return (b.pointwise("where", attains, b.lift(share, op.via), zero),)


@gradient(Softmax)
def _softmax(op: Softmax, g: Value) -> Gradients:
    """In 32 bits where weights have 16: those that have been rounded do not add up to 1, and the mean would be off by that."""
    narrow = op.dtype in (DType.BF16, DType.F16)
    weights = Softmax(b.cast(op.x, DType.F32), op.via) if narrow else op
    wide = b.cast(g, DType.F32) if narrow else g
    mean = b.reduce_sum(b.pointwise("mul", weights, wide), op.via)
    return (b.loosely(b.pointwise("mul", weights, b.pointwise("sub", wide, b.lift(mean, op.via))), op.dtype),)


@gradient(Linear)
def _linear(op: Linear, g: Value) -> Gradients:
    grad_x = Linear(g, op.w, op.via, not op.transpose)
    x = _masked_by_zero(op.x)
    left, right = (g, x) if op.transpose else (x, g)
    return (grad_x, OuterReduce(left, right, op.via, op.shared))


def _masked_by_zero(x: Value) -> Value:
    """``x`` as a factor of a sum over rows: 0 in those whose gradient is masked, or else what is infinite there would make the sum NaN."""
    if not isinstance(x, Pointwise) or x.function != "mask_gradient":
        return x
    return _select(x.args[0], x.args[1], 0.0, x)


@gradient(OuterReduce)
def _outer_reduce(op: OuterReduce, g: Value) -> Gradients:
    return (Linear(op.y, g, op.via, transpose=True), Linear(op.x, g, op.via, transpose=False))


# ------------------------------------------------------------------------------------------------ within a row


@gradient(Cast)
def _cast(op: Cast, g: Value) -> Gradients:
    return (b.cast(g, op.x.dtype) if op.x.dtype.is_float else None,)


@gradient(FeatureReduce)
def _feature_reduce(op: FeatureReduce, g: Value) -> Gradients:
    kept = tuple(1 if a in op.axes else n for a, n in enumerate(op.x.shape))
    wide = b.reshape(g, kept)
    if op.op == "sum":
        return (b.expand(wide, op.x.shape),)
    attains = b.pointwise("eq", op.x, b.reshape(op, kept))
    one, zero = b.constant_like(op.x, 1.0), b.constant_like(op.x, 0.0)
    if op.op.startswith("first"):
        attains = b.pointwise("logical_or", attains, b.pointwise("ne", op.x, op.x))  # the first NaN, if there is one
        return (b.pointwise("where", _first(attains, op.axes[0]), b.expand(wide, op.x.shape), zero),)
    # Shared evenly among ties. A NaN equals nothing: 0 ties, and what is divided by them is no number.
    attaining = b.pointwise("where", attains, one, zero)
    ties = b.feature_sum(attaining, op.axes, keepdims=True)
    return (b.pointwise("mul", b.pointwise("div", wide, ties), attaining),)


def _first(condition: Value, axis: int) -> Value:
    """Whether an element is the first of its axis where ``condition`` holds."""
    shape = condition.shape
    places = b.reshape(
        b.places(condition.space, shape[axis]), tuple(n if a == axis else 1 for a, n in enumerate(shape))
    )
    held = b.pointwise("where", condition, b.expand(places, shape), b.constant_like(places, math.inf))
    return b.pointwise("eq", b.expand(places, shape), b.feature_reduce(held, "min", [axis], keepdims=True))


@gradient(Reshape)
def _reshape(op: Reshape, g: Value) -> Gradients:
    return (b.reshape(g, op.x.shape),)


@gradient(Permute)
def _permute(op: Permute, g: Value) -> Gradients:
    inverse = sorted(range(len(op.order)), key=lambda a: op.order[a])
    return (b.permute(g, inverse),)


@gradient(Expand)
def _expand(op: Expand, g: Value) -> Gradients:
    return (b.sum_to_shape(g, op.x.shape),)


@gradient(Slice)
def _slice(op: Slice, g: Value) -> Gradients:
    if 0 in g.shape:
        return (zeros(op.x),)
    return (Pad(g, op.axis, op.start, op.x.shape[op.axis], op.step),)


@gradient(Pad)
def _pad(op: Pad, g: Value) -> Gradients:
    stop = op.start + (op.x.shape[op.axis] - 1) * op.step + 1
    return (Slice(g, op.axis, op.start, stop, op.step),)


@gradient(Concat)
def _concat(op: Concat, g: Value) -> Gradients:
    grads, start = [], 0
    for part in op.args:
        n = part.shape[op.axis]
        grads.append(Slice(g, op.axis, start, start + n))
        start += n
    return grads


@gradient(Pointwise)
def _pointwise(op: Pointwise, g: Value) -> Gradients:
    rule = POINTWISE_RULES.get(op.function)
    if rule is None:  # without a gradient: comparisons, detach
        return tuple(None for _ in op.args)
    grads = rule(g, op, *op.args, *op.scalars)
    return tuple(
        None if d is None else b.sum_to_shape(b.expand(d, op.shape), a.shape)
        for d, a in zip(grads, op.args, strict=True)
    )


# ------------------------------------------------------------------------------------------------ pointwise functions

_TWO_OVER_SQRT_PI = 2.0 / math.sqrt(math.pi)
_SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)


def _p(name: str, *args: Value | float, scalars: Sequence[float] = ()) -> Value:
    return b.pointwise(name, *args, scalars=scalars)


def _select(condition: Value, yes: Value | float, no: Value | float, like: Value) -> Value:
    """``where`` whose branches may be numbers."""
    branches = [v if isinstance(v, Value) else b.constant_like(like, v) for v in (yes, no)]
    return Pointwise((condition, *branches), "where")


def _gelu_slope(x: Value) -> Value:
    """Phi(x) + x phi(x), with the Gaussian's distribution function and density."""
    cdf = _p("mul", _p("add", _p("erf", _p("mul", x, math.sqrt(0.5))), 1.0), 0.5)
    pdf = _p("mul", _p("exp", _p("mul", _p("square", x), -0.5)), 1.0 / math.sqrt(2.0 * math.pi))
    return _p("add", cdf, _p("mul", x, pdf))


def _gelu_tanh_slope(x: Value) -> Value:
    square = _p("square", x)
    inner = _p("mul", _p("mul", x, _p("add", _p("mul", square, 0.044715), 1.0)), _SQRT_2_OVER_PI)
    slope = _p("mul", _p("add", _p("mul", square, 3 * 0.044715), 1.0), _SQRT_2_OVER_PI)
    t = _p("tanh", inner)
    left = _p("mul", _p("add", t, 1.0), 0.5)
    right = _p("mul", _p("mul", _p("mul", x, 0.5), _p("sub", b.constant_like(x, 1.0), _p("square", t))), slope)
    return _p("add", left, right)


def _extremum(beyond: str) -> Callable[..., Gradients]:
    """Ties share the gradient evenly, and who is neither ``beyond`` the other nor within it, for one is NaN, has all of it, as in torch."""

    def rule(g: Value, out: Value, x: Value, y: Value) -> Gradients:
        shared = _select(_p("eq", x, y), _p("mul", g, 0.5), g, g)
        return (_select(_p(beyond, y, x), 0.0, shared, g), _select(_p(beyond, x, y), 0.0, shared, g))

    return rule


def _power_slope(g: Value, z: Value, x: Value, y: Value) -> Value:
    """The gradient of ``x ** y`` with respect to ``y``: 0 where the base is 0 and the power finite, whatever the logarithm is."""
    flat = _p("logical_and", _p("eq", x, 0.0), _p("ge", y, 0.0))
    return _p("mul", g, _select(flat, 0.0, _p("mul", z, _p("log", x)), g))


def _atan2(g: Value, out: Value, y: Value, x: Value) -> Gradients:
    """0 where the square of the distance from 0 is, or vanishes, as in torch."""
    square = _p("add", _p("mul", y, y), _p("mul", x, x))
    share = _select(_p("eq", square, 0.0), 0.0, _p("reciprocal", square), g)
    return (_p("mul", g, _p("mul", x, share)), _p("mul", g, _p("mul", _p("neg", y), share)))


POINTWISE_RULES: dict[str, Callable[..., Gradients]] = {
    "neg": lambda g, y, x: (_p("neg", g),),
    "abs": lambda g, y, x: (_p("mul", g, _p("sign", x)),),
    "square": lambda g, y, x: (_p("mul", g, _p("mul", x, 2.0)),),
    "exp": lambda g, y, x: (_p("mul", g, y),),
    "expm1": lambda g, y, x: (_p("mul", g, _p("add", y, 1.0)),),
    "log": lambda g, y, x: (_p("div", g, x),),
    "log1p": lambda g, y, x: (_p("div", g, _p("add", x, 1.0)),),
    "sqrt": lambda g, y, x: (_p("div", g, _p("mul", y, 2.0)),),
    "rsqrt": lambda g, y, x: (_p("mul", g, _p("mul", _p("mul", _p("square", y), y), -0.5)),),
    "reciprocal": lambda g, y, x: (_p("neg", _p("mul", g, _p("square", y))),),
    "sin": lambda g, y, x: (_p("mul", g, _p("cos", x)),),
    "cos": lambda g, y, x: (_p("neg", _p("mul", g, _p("sin", x))),),
    "floor": lambda g, y, x: (zeros(x),),
    "atan2": _atan2,
    "erf": lambda g, y, x: (_p("mul", g, _p("mul", _p("exp", _p("neg", _p("square", x))), _TWO_OVER_SQRT_PI)),),
    "tanh": lambda g, y, x: (_p("mul", g, _p("sub", b.constant_like(y, 1.0), _p("square", y))),),
    "sigmoid": lambda g, y, x: (_p("mul", g, _p("mul", y, _p("sub", b.constant_like(y, 1.0), y))),),
    "relu": lambda g, y, x: (_select(_p("le", x, 0.0), 0.0, g, g),),
    "leaky_relu": lambda g, y, x, slope: (_select(_p("gt", x, 0.0), g, _p("mul", g, slope), g),),
    "elu": lambda g, y, x, alpha: (_select(_p("gt", x, 0.0), g, _p("mul", g, _p("mul", _p("exp", x), alpha)), g),),
    "silu": lambda g, y, x: (
        _p("mul", g, _p("add", _p("sigmoid", x), _p("mul", y, _p("sub", b.constant_like(x, 1.0), _p("sigmoid", x))))),
    ),
    "gelu": lambda g, y, x: (_p("mul", g, _gelu_slope(x)),),
    "gelu_tanh": lambda g, y, x: (_p("mul", g, _gelu_tanh_slope(x)),),
    "softplus": lambda g, y, x, beta, threshold: (
        _select(_p("gt", _p("mul", x, beta), threshold), g, _p("mul", g, _p("sigmoid", _p("mul", x, beta))), g),
    ),
    "pow_scalar": lambda g, y, x, n: (
        zeros(x) if n == 0 else _p("mul", g, _p("mul", _p("pow_scalar", x, scalars=(n - 1,)), n)),
    ),
    "clamp": lambda g, y, x, low, high: (_select(_p("logical_and", _p("ge", x, low), _p("le", x, high)), g, 0.0, g),),
    "add": lambda g, z, x, y: (g, g),
    "sub": lambda g, z, x, y: (g, _p("neg", g)),
    "mul": lambda g, z, x, y: (_p("mul", g, y), _p("mul", g, x)),
    "div": lambda g, z, x, y: (_p("div", g, y), _p("neg", _p("mul", g, _p("div", z, y)))),
    "pow": lambda g, z, x, y: (
        _select(_p("eq", y, 0.0), 0.0, _p("mul", g, _p("mul", y, _p("pow", x, _p("sub", y, 1.0)))), g),
        _power_slope(g, z, x, y),
    ),
    "maximum": _extremum("gt"),
    "minimum": _extremum("lt"),
    "where": lambda g, z, c, x, y: (None, _select(c, g, 0.0, g), _select(c, 0.0, g, g)),
    "mask_gradient": lambda g, z, c, x: (None, _select(c, g, 0.0, g)),
    "sign": lambda g, y, x: (zeros(x),),
}
"""(gradient, result, operands..., scalars...) -> gradients of the operands, before summing over what was broadcast."""
