"""The matrix of extreme arguments: every function of the language, at what floating point numbers have at their ends.

A case is a function of tensors whose leading dimension is nodes. A program holds many cases, each with arguments of its own, so that
their gradients do not meet. The oracle is eager PyTorch: in the dtype of the program for the kind of a result (NaN, an infinity, a
finite number), in float64 for the numbers; where float32 and float64 themselves disagree about the kind, for one overflows on the
way, either is right.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import columba

inf, nan = math.inf, math.nan
DENORMAL, NORMAL, LARGEST = 2.0**-149, 2.0**-126, float(torch.finfo(torch.float32).max)

PAIRED = (0.0, -0.0, 1.0, -1.0, 2.0, -0.5, 3.0, inf, -inf, nan, DENORMAL, -DENORMAL, NORMAL, LARGEST, -LARGEST, 1e-25)
ROWS = len(PAIRED)
"""Nodes of the graph: one for each first argument of a function of two."""
SINGLE = (
    *PAIRED, -NORMAL, -2.0, -3.0, 0.5, 0.25, -0.25, 5.999999, 6.0, 6.000001, 2.999999, 20.0, 20.5, -20.0, -20.5, 88.0, 89.0, -88.0, -89.0,
    -104.0, -110.0, 1e25, -1e25, -1e-25, 10.0, -10.0, 0.3, -0.7, 1e-4, 40.0, -40.0, 0.999999, 1.000001, -1.000001, 1.5,
)  # fmt: skip
"""Extremes, and the arguments at which some function of the language changes: limits of clamps, thresholds, ends of domains."""
HUGE = 2.0**125
IN_A_ROW = (0.0, -0.0, 1.0, -1.0, inf, -inf, nan, 1e-25, HUGE, DENORMAL, 2.0)
"""Sums of three do not overflow, squares do."""


def single(dtype: torch.dtype) -> Tensor:
    """``[ROWS, len(SINGLE)]``: each node has all arguments, in another place of the row."""
    return torch.stack([torch.tensor(SINGLE, dtype=dtype).roll(i) for i in range(ROWS)])


def pairs(dtype: torch.dtype) -> list[Tensor]:
    """Two of ``[ROWS, ROWS]``: all pairs."""
    values = torch.tensor(PAIRED, dtype=dtype)
    return [values[:, None].expand(ROWS, ROWS).contiguous(), values.expand(ROWS, ROWS).contiguous()]


def triples(dtype: torch.dtype) -> Tensor:
    """``[n, 3]``: all triples."""
    return torch.tensor(list(itertools.product(IN_A_ROW, repeat=3)), dtype=dtype)


@dataclass(frozen=True)
class Case:
    """A function of the language. ``signs``: whether PyTorch says which sign a zero has."""

    name: str
    function: Callable[..., Any]
    kind: str
    signs: bool = True

    def arguments(self, dtype: torch.dtype) -> list[Tensor]:
        made = {"single": lambda d: [single(d)], "pair": pairs, "row": lambda d: [triples(d)]}
        return [t.requires_grad_() for t in made[self.kind](dtype)]


def power(exponent: float) -> Callable[[Tensor], Any]:
    return lambda x: x**exponent


def power_of(base: float) -> Callable[[Tensor], Any]:
    return lambda x: base**x


def norm(p: float) -> Callable[[Tensor], Any]:
    return lambda x: x.norm(p, -1)


def normalized(p: float) -> Callable[[Tensor], Any]:
    return lambda x: F.normalize(x, p, -1)


UNARY: dict[str, Callable[[Tensor], Any]] = {
    name: getattr(torch, name)
    for name in (
        "abs", "absolute", "sign", "square", "neg", "negative", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "sin", "cos",
        "erf", "tanh", "sigmoid", "relu", "isnan", "ones_like", "zeros_like", "selu", "floor", "ceil", "trunc", "fix", "round", "frac",
        "isinf", "isfinite", "isposinf", "isneginf", "nan_to_num", "atan", "arctan", "tan", "cosh", "sinh", "celu",
    )
}  # fmt: skip
UNARY |= {
    name: getattr(F, name)
    for name in (
        "elu",
        "gelu",
        "hardtanh",
        "leaky_relu",
        "logsigmoid",
        "mish",
        "relu6",
        "silu",
        "softplus",
        "softsign",
        "hardsigmoid",
        "hardswish",
        "hardshrink",
        "tanhshrink",
    )
}
UNARY |= {
    "log_sigmoid": F.logsigmoid,
    "elu 0.5": lambda x: F.elu(x, 0.5),
    "elu -0.5": lambda x: F.elu(x, -0.5),
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardtanh -3 3": lambda x: F.hardtanh(x, -3.0, 3.0),
    "leaky_relu 0.2": lambda x: F.leaky_relu(x, 0.2),
    "leaky_relu 0": lambda x: F.leaky_relu(x, 0.0),
    "softplus 2 6": lambda x: F.softplus(x, 2.0, 6.0),
    "clamp": lambda x: x.clamp(-3, 6),
    "clip": lambda x: x.clip(-0.0, 1.0),
    "clamp inf": lambda x: x.clamp(-inf, 3.0),
    "clamp_min": lambda x: x.clamp_min(-1.0),
    "clamp_max": lambda x: x.clamp_max(6.0),
    "clamp nothing": lambda x: x.clamp(min=2.0, max=-0.5),
    "add": lambda x: x + 3.0,
    "rsub": lambda x: torch.rsub(x, 1.0),
    "sub": lambda x: x - 1.0,
    "mul 0": lambda x: x * 0.0,
    "mul inf": lambda x: x * inf,
    "div 0": lambda x: x / 0.0,
    "div inf": lambda x: x / inf,
    "div by": lambda x: 0.0 / x,
    "true_divide": lambda x: torch.true_divide(1.0, x) if not isinstance(x, Tensor) else torch.true_divide(x, 3.0),
    "full_like": lambda x: torch.full_like(x, nan) + torch.full_like(x, inf),
    "masked_fill": lambda x: x.masked_fill(x > 1, -inf),
    "where": lambda x: torch.where(x > 0, x.sqrt(), x),
    "where nan": lambda x: torch.where(x > 0, x, nan),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "dropout off": lambda x: F.dropout(x, 0.5, training=False),
    "dropout 1": lambda x: F.dropout(x, 1.0),
    "lerp 0.25": lambda x: torch.lerp(x, torch.ones_like(x), 0.25),
    "lerp 0.75": lambda x: torch.lerp(x, torch.ones_like(x), 0.75),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.2], dtype=x.dtype)),
    "inner relu": lambda x: F.relu(x - 1) * F.relu(-x),
    "celu 2": lambda x: F.celu(x, 2.0),
    "celu -0.5": lambda x: F.celu(x, -0.5),
    "threshold": lambda x: F.threshold(x, 1.0, 20.0),
    "nan_to_num all": lambda x: torch.nan_to_num(x, nan=2.0, posinf=3.0, neginf=-inf),
    "logical_not number": lambda x: torch.logical_not(x),
    "silu by hand": lambda x: x * torch.sigmoid(x),
}
UNARY |= {f"pow {n}": power(n) for n in (0, 1, 2, 3, 4, 5, -1, -2, -3, 0.5, -0.5, 1.5, -1.5, 0.25, 2.5, inf, nan)}
UNARY |= {f"pow of {b}": power_of(b) for b in (0.0, 1.0, 2.0, -2.0, 0.5, inf)}

BINARY: dict[str, Callable[[Tensor, Tensor], Any]] = {
    name: getattr(torch, name)
    for name in (
        "add", "sub", "subtract", "mul", "multiply", "div", "divide", "true_divide", "pow", "maximum", "minimum", "rsub", "max", "min",
        "eq", "ne", "lt", "le", "gt", "ge", "not_equal", "less", "less_equal", "greater", "greater_equal",
        "atan2", "arctan2",
    )
}  # fmt: skip
BINARY |= {
    "add alpha": lambda x, y: torch.add(x, y, alpha=-0.5),
    "where": lambda x, y: torch.where(x > y, x, y),
    "where root": lambda x, y: torch.where(x > y, x.log(), y / x),
    "bitwise_and": lambda x, y: (x > 0) & (y > 0),
    "bitwise_or": lambda x, y: (x > 0) | (y > 0),
    "bitwise_not": lambda x, y: ~(x > y),
    "logical_and": lambda x, y: torch.logical_and(x > 0, y > 0),
    "logical_or": lambda x, y: torch.logical_or(x > 0, y > 0),
    "logical_xor": lambda x, y: torch.logical_xor(x > 0, y > 0),
    "logical_not": lambda x, y: torch.logical_not(x < y),
    "logical_and numbers": torch.logical_and,
    "logical_or numbers": torch.logical_or,
    "logical_xor numbers": torch.logical_xor,
    "lerp": lambda x, y: torch.lerp(x, torch.full_like(x, 2.0), y),
    "lerp 0.75": lambda x, y: torch.lerp(x, y, 0.75),
    "lerp 0.25": lambda x, y: torch.lerp(x, y, 0.25),
    "clamp tensor": lambda x, y: torch.clamp(x, min=y),
    "clamp tensors": lambda x, y: torch.clamp(x, min=y, max=torch.ones_like(x)),
    "clamp max": lambda x, y: torch.clamp(torch.ones_like(x) * 2, min=x, max=y),
    "product rule": lambda x, y: x * y - x,
}

FEATURES: dict[str, Callable[[Tensor], Any]] = {
    "sum": lambda x: x.sum(-1),
    "mean": lambda x: x.mean(-1),
    "amax": lambda x: x.amax(-1),
    "amin": lambda x: x.amin(-1, keepdim=True),
    "amax two": lambda x: x.view(-1, 1, 3).amax((1, 2)),
    "max": lambda x: x.max(-1).values,
    "min": lambda x: x.min(dim=-1, keepdim=True)[0],
    "max across": lambda x: x.view(-1, 3, 1).max(1)[0],
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "logsumexp": lambda x: torch.logsumexp(x, -1),
    "logsumexp two": lambda x: torch.logsumexp(x.view(-1, 3, 1), (1, 2)),
    "layer_norm": lambda x: F.layer_norm(x, (3,)),
    "rms_norm": lambda x: F.rms_norm(x, (3,)),
    "var": lambda x: x.var(-1),
    "var biased": lambda x: x.var(-1, unbiased=False, keepdim=True),
    "std": lambda x: x.std(-1),
    "std biased": lambda x: x.std(-1, correction=0),
    "std of one": lambda x: x[..., :1].std(-1),
    "std of one biased": lambda x: x[..., :1].std(-1, unbiased=False),
    "var_mean": lambda x: torch.var_mean(x, -1)[0] * 2 + torch.var_mean(x, -1)[1],
    "std_mean": lambda x: torch.std_mean(x, -1, correction=0)[0] - torch.std_mean(x, -1)[1],
    "var of one": lambda x: x[..., :1].var(-1),
    "norm": lambda x: x.norm(dim=-1),
    "vector_norm": lambda x: torch.linalg.vector_norm(x, dim=-1, keepdim=True),
    "linalg_vector_norm": lambda x: torch.linalg.vector_norm(x, -1.0, dim=-1),
    "norm of one": lambda x: x[..., :1].norm(dim=-1),
    "glu": lambda x: F.glu(x[..., :2], -1),
    "cosine_similarity": lambda x: F.cosine_similarity(x, torch.roll(x, 1, -1), dim=-1),
    "cosine_similarity eps": lambda x: F.cosine_similarity(x, torch.ones_like(x), dim=1, eps=1.0),
    "group_norm": lambda x: F.group_norm(x, 1),
    "argmax": lambda x: x.argmax(-1),
    "argmin": lambda x: torch.argmin(x, 1, keepdim=True),
    "max place": lambda x: x.max(-1).indices,
    "topk": lambda x: x.topk(2, -1).values,
    "topk smallest": lambda x: torch.topk(x, 3, 1, largest=False)[0],
    "any": lambda x: x.any(-1),
    "all": lambda x: torch.all(x > 0, dim=1, keepdim=True),
    "prod": lambda x: x.prod(-1),
    "prod of one": lambda x: torch.prod(x[..., :1], 1, keepdim=True),
}
FEATURES |= {f"norm {p}": norm(p) for p in (0, 0.5, 1, 1.5, 2.5, 3, 4, inf, -inf, -1, -2, -0.5)}
FEATURES |= {f"normalize {p}": normalized(p) for p in (1, 2, 3, inf)}
FEATURES |= {"normalize": lambda x: F.normalize(x, dim=-1)}

HOMOGENEOUS = ("normalize", "layer_norm", "rms_norm", "group_norm", "cosine_similarity")
DIFFERENCES = ("gelu", "tanh", "tanhshrink", "mish", "softmax", "log_softmax")
"""Functions whose values or gradients are differences of numbers around 1, in PyTorch or here."""


def unlike(name: str, arguments: Sequence[Tensor]) -> Tensor | None:
    """Where gradients need not be PyTorch's, though their values are."""
    x = arguments[0]
    row = name.split()[0]
    if row in (
        "var",
        "std",
        "var_mean",
        "std_mean",
    ):  # the value is NaN, and so is every gradient; in PyTorch some are infinite
        return ~x.isfinite().all(-1, keepdim=True)
    if row.startswith("logsumexp"):  # PyTorch's weights of ties between huge numbers do not sum to 1
        return (x == HUGE).sum(-1, keepdim=True) > 1
    if name == "norm of one (row)":  # the absolute value; PyTorch's gradient is that of the root of a square
        return ~x[:, :1].isfinite() if x.dim() == 2 else None
    if name.startswith(("norm 0.5", "norm -", "linalg_vector_norm")):  # zeros beside what makes the norm NaN
        return (x == 0) & ~x.isfinite().all(-1, keepdim=True)
    if row == "hardsigmoid" and x.dtype is torch.float64:  # PyTorch multiplies with 1 / 6 in float32
        return torch.ones_like(x, dtype=torch.bool)
    if row == "prod":  # a product of three that vanishes in another order of factors
        return (x == DENORMAL).any(-1, keepdim=True)
    if name.startswith("clamp") and len(arguments) == 2:  # a bound that is NaN
        return arguments[1].isnan() | (x.isnan() & (name == "clamp max (pair)"))
    return None


CASES = [
    *(Case(name, f, "single") for name, f in UNARY.items()),
    *(
        Case(f"{name} (pair)", f, "pair", signs=not name.startswith(("clamp", "max", "min")))
        for name, f in BINARY.items()
    ),
    *(Case(f"{name} (row)", f, "row", signs=False) for name, f in FEATURES.items()),
]


def listed(section: str) -> set[str]:
    """The functions that a section of the document lists."""
    text = (Path(__file__).parents[1] / "docs" / "language.md").read_text(encoding="utf-8")
    line = re.search(rf"^\*{section}\*: (.*)$", text, re.MULTILINE)
    assert line, section
    return set(re.findall(r"`(\w+)`", line[1]))


def covered(cases: Sequence[Case]) -> set[str]:
    return {c.name.split()[0] for c in cases}


def floating(y: Any, dtype: torch.dtype) -> Tensor:
    return y if y.dtype.is_floating_point else y.to(dtype)


def results(
    run: Callable[..., Sequence[Tensor]], cases: Sequence[Case], dtype: torch.dtype, scale: float
) -> list[tuple[Tensor, list[Tensor | None]]]:
    """Values and gradients of all cases; ``scale`` multiplies the gradients that come in."""
    inputs = [c.arguments(dtype) for c in cases]
    found = run(*(t for group in inputs for t in group))
    leaves = [t for group in inputs for t in group]
    random = torch.Generator().manual_seed(0)
    drawn = [(scale * (0.5 + torch.rand(y.shape, generator=random) / 2)).to(dtype) for y in found]
    active, directions = zip(*((y, d) for y, d in zip(found, drawn, strict=True) if y.requires_grad), strict=True)
    grads = iter(torch.autograd.grad(active, leaves, directions, allow_unused=True))
    return [(y.detach(), [next(grads) for _ in group]) for y, group in zip(found, inputs, strict=True)]


def eagerly(cases: Sequence[Case]) -> Callable[..., list[Tensor]]:
    def run(*args: Tensor) -> list[Tensor]:
        rest = iter(args)
        return [
            floating(c.function(*(next(rest) for _ in range(2 if c.kind == "pair" else 1))), args[0].dtype)
            for c in cases
        ]

    return run


def compiled(cases: Sequence[Case], backend: str) -> Callable[..., Any]:
    rows = len(cases[0].arguments(torch.float32)[0])
    graph = columba.Graph(torch.stack([torch.arange(rows)] * 2), num_nodes=rows)
    run = eagerly(cases)

    def layer(g: columba.Graph, *args: Tensor) -> list[Tensor]:
        return run(*(g.nodes(a) for a in args))

    program = columba.compile(layer, backend=backend)
    return lambda *args: program(graph, *args)


def kinds(x: Tensor) -> Tensor:
    """0 for a finite number, 1, 2 for the infinities, 3 for NaN."""
    return torch.where(x.isnan(), 3, torch.where(x.isinf(), torch.where(x > 0, 1, 2), 0))


def differences(
    got: Tensor, same: Tensor, exact: Tensor, *, relative: float, absolute: float, slack: Tensor | float, signs: bool
) -> Tensor:
    """Where a result is neither what eager code gives in its dtype nor what it gives in float64, up to rounding."""
    wrong = (kinds(got) != kinds(same)) & (kinds(got) != kinds(exact.to(got.dtype)))
    near = torch.zeros_like(wrong)
    for wanted in (same, exact):
        wanted = wanted.double()
        close = (got.double() - wanted).abs() <= relative * wanted.abs() + absolute + slack
        near |= close | (kinds(got) != 0)
    wrong |= ~near
    if signs:
        zero = (got == 0) & (same == 0) & (exact == 0)
        wrong |= zero & (got.signbit() != same.signbit()) & (same.signbit() == exact.signbit())
    return wrong


def check(cases: Sequence[Case], backend: str, dtype: torch.dtype) -> list[str]:
    """What is wrong: a line for each case and kind of result."""
    run = compiled(cases, backend)
    eager = eagerly(cases)
    relative, tiny = (2e-5, 4 * NORMAL) if dtype is torch.float32 else (1e-9, 1e-300)
    wrong = []
    for scale in (1.0, 0.0):
        found = results(run, cases, dtype, scale)
        same = results(eager, cases, dtype, scale)
        exact = results(eager, cases, torch.float64, scale)
        for case, (y, grads), (y_same, g_same), (y_exact, g_exact) in zip(cases, found, same, exact, strict=True):
            arguments = [a.detach() for a in case.arguments(dtype)]
            unit = torch.finfo(dtype).eps
            slack: Any = 16 * unit if case.name.split()[0] in DIFFERENCES else 0.0
            beside = unlike(case.name, arguments)
            around_one = slack
            if case.kind == "row":
                finite = torch.where(arguments[0].isfinite(), arguments[0].double().abs(), 0.0)
                slack = 8 * unit * (finite.amax(-1) if y.dim() == 1 else finite.amax(-1, keepdim=True))
            checks = [("value", y, y_same, y_exact, slack, case.signs)] if scale else []
            for n, (a, b, c) in enumerate(zip(grads, g_same, g_exact, strict=True)):
                if a is None or b is None or c is None:
                    absent = all(t is None or not t.any() for t in (a, b, c))
                    if not absent:
                        wrong.append(f"{case.name}: a gradient {n} is missing on one side")
                    continue
                room: Any = around_one
                if case.kind == "row":
                    size = torch.where(c.isfinite(), c.double().abs(), 0.0)
                    size = size.amax(-1, keepdim=True)
                    if case.name.split()[0] in HOMOGENEOUS:  # differences of gradients that are as large as 1 / x
                        size = size + 1 / finite.amax(-1, keepdim=True).clamp(min=1e-12)
                    room = 256 * unit * size + around_one
                checks.append((f"gradient {n} (scale {scale})", a, b, c, room, False))
            for what, a, b, c, room, signs in checks:
                bad = differences(a, b, c, relative=relative, absolute=tiny, slack=room, signs=signs)
                if beside is not None and what != "value":
                    bad &= ~beside
                if bad.any():
                    wrong.append(f"{case.name}: {what}: {examples(bad, arguments, case.kind, a, b, c)}")
    return wrong


def examples(bad: Tensor, arguments: list[Tensor], kind: str, got: Tensor, same: Tensor, exact: Tensor) -> str:
    """The first few places where a result is wrong."""
    seen: dict[str, str] = {}
    for place in bad.nonzero().tolist():
        at = tuple(place)
        argument = tuple(a[at[0]].tolist() if kind == "row" else a[at].item() for a in arguments)
        seen.setdefault(
            str(argument), f"at {argument} got {float(got[at]):.6g} not {float(same[at]):.6g} or {float(exact[at]):.6g}"
        )
    few = list(seen.values())
    return f"{len(few)} arguments: " + "; ".join(few[:4])
