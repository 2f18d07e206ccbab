"""Lines of one number each: functions, arithmetic, comparisons, choices, and what changes nothing."""

from __future__ import annotations

import torch

from .grow import Grower, rule
from .kinds import Kind, Value

UNARY = (
    "F.relu({0})", "torch.relu({0})", "torch.tanh({0})", "{0}.sigmoid()", "{0}.abs()", "-{0}", "{0} * 0.5", "2.0 * {0}", "{0} + 1",
    "1 - {0}", "{0} / 3", "{0} ** 2", "{0}.square()", "{0}.pow(3)", "F.leaky_relu({0}, 0.2)", "F.elu({0}, 0.5)", "F.selu({0})",
    "F.gelu({0})", "F.gelu({0}, approximate='tanh')", "F.silu({0})", "F.mish({0})", "F.softplus({0}, beta=2.0)", "F.softsign({0})",
    "F.logsigmoid({0})", "F.hardtanh({0})", "F.relu6({0} * 5)", "{0}.clamp(-0.5, 0.7)", "{0}.clamp(min=0.1)", "torch.clamp({0}, max=0.3)",
    "{0}.clip(-1, 1)", "torch.clamp_min({0}, 0.2)", "torch.clamp_max({0}, 0.2)", "torch.sin({0})", "{0}.cos()", "torch.exp({0} * 0.3)",
    "torch.expm1({0} * 0.3)", "torch.log({0}.abs() + 0.5)", "torch.log1p({0}.abs())", "torch.sqrt({0}.abs() + 0.1)",
    "torch.rsqrt({0} * {0} + 0.5)", "1.0 / ({0}.abs() + 1.0)", "torch.reciprocal({0}.abs() + 0.5)", "torch.erf({0})", "torch.sign({0})",
    "torch.rsub({0}, 1.0)", "torch.sub({0}, 0.5)", "{0}.mul(1.5)", "{0}.true_divide(2.0)", "torch.full_like({0}, 0.5) * {0}",
    "torch.zeros_like({0}) + {0}", "torch.ones_like({0}) - {0}", "torch.nn.GELU()({0})", "torch.nn.LeakyReLU(0.1)({0})",
    "torch.nn.Sequential(torch.nn.Tanh(), torch.nn.Softplus())({0})", "F.prelu({0}, torch.full((1,), 0.25, dtype={0}.dtype))",
    "{0} ** 0.5 if False else {0} * 0.25", "torch.where({0} > 0, {0}, 0.1 * {0})", "torch.where({0} > 0.2, 1.0, {0})",
    "{0}.masked_fill({0} > 0.5, -1.0)", "({0} > 0).to({0}.dtype)", "({0} > 0) * {0}", "(~({0} > 0)).to({0}.dtype) * {0}",
    "torch.maximum({0}, -{0})", "2 ** ({0} * 0.5)", "{0}.pow(1)", "{0}.abs().pow(1.5)", "torch.neg({0}).neg()", "{0}.add(1, alpha=2)",
    "{0} / {0}.shape[0] if {0}.shape[0] else {0}", "{0} * g.num_relations", "torch.absolute({0})", "({0}.abs() + 0.5) ** -1",
)  # fmt: skip

SAME = (
    "{0}.clone()", "{0}.contiguous()", "{0} * 1", "{0} * 1.0", "{0} + 0", "{0} - 0.0", "{0} / 1", "{0}.view({0}.shape)",
    "{0}.reshape({0}.shape)", "{0}.to({0}.dtype)", "{0}.expand_as({0})", "{0}[...]", "{0}[:]", "{0}.type_as({0})", "torch.clone({0})",
    "{0}.view_as({0})", "F.dropout({0}, p=0.0)", "F.dropout({0}, 0.5, training=False)", "torch.nn.Dropout(0.0)({0})", "-(-{0})",
    "{0} ** 1", "{0}.double().to({0}.dtype)", "torch.nn.Identity()({0})", "{0}.to(torch.float64).type_as({0})", "{0}.add(0)",
    "{0}.unsqueeze(1).squeeze(1)", "torch.where({0} == {0}, {0}, {0})",
)  # fmt: skip

BINARY = (
    "{0} + {1}", "{0} + {1}", "{0} - {1}", "{0} * {1}", "{0} * {1}", "{0} / ({1}.abs() + 1)", "torch.maximum({0}, {1})",
    "torch.minimum({0}, {1})", "torch.where({0} > {1}, {0}, {1})", "torch.where({0} > 0, {1}, -{1})", "{0}.add({1}, alpha=0.5)",
    "torch.sub({0}, {1}, alpha=2)", "torch.lerp({0}, {1}, 0.3)", "{0} * {1}.sigmoid()", "{0} * torch.tanh({1})",
    "({0}.abs() + 0.5) ** {1}.clamp(-2, 2)", "({0} < {1}).to({0}.dtype)", "({0} >= {1}) * {0}",
    "torch.where(({0} > 0) & ({1} < 0.5), {0}, {1} * 2)", "torch.where(torch.logical_or({0} > 0, ~({1} > 0)), {1}, {0})",
    "torch.max({0}, {1})", "{0} * {0} + {1}", "({0} - {1}).abs()", "torch.add({0}, {1})", "torch.div({0}, {1} ** 2 + 1)",
    "torch.mul({1}, {0})", "{0} - {1} * {0}",
)  # fmt: skip

TRUTH = (
    "{0} > {1}", "{0} <= {1}", "{0}.ne({1})", "torch.eq({0}, {1})", "({0} > 0) ^ ({1} > 0)", "torch.logical_and({0} > 0, {1} > 0)",
    "torch.isnan({0}) | ({1} > 0.1)", "torch.logical_not({0} > {1})",
)  # fmt: skip


@rule(4)
def unary(g: Grower) -> Value | None:
    x = g.numbers()
    return x and g.emit(g.rng.choice(UNARY).format(x), x.kind)


@rule(2)
def same(g: Grower) -> Value | None:
    x = g.numbers()
    return x and g.emit(g.rng.choice(SAME).format(x), x.kind)


def _pair(g: Grower) -> tuple[Value, Value, tuple[int, ...]] | None:
    """Two values that broadcast with each other, of one space or the second one plain, and the features of the result."""
    x = g.numbers()
    if x is None:
        return None
    rank = x.kind.rank

    def fits(v: Value) -> bool:
        k = v.kind
        if k.is_bool or (v.is_weight and k.space != "one"):
            return False
        if k.space not in ("one", x.kind.space) or k.rank > rank or (k.has_rows and k.rank != rank):
            return False
        try:
            torch.broadcast_shapes(k.shape, x.kind.shape)
        except RuntimeError:
            return False
        return True

    y = g.pick(fits) if g.rng.random() < 0.8 else None
    if y is None:
        shape = tuple(n if g.rng.random() < 0.8 else 1 for n in x.kind.shape)
        plain = g.rng.random() < 0.35
        cut = g.rng.randint(0, rank) if plain else 0
        y = g.input(
            Kind("one" if plain else x.kind.space, shape[cut:]), weight=plain or x.kind.space in ("rel", "ntype")
        )
    return x, y, tuple(torch.broadcast_shapes(x.kind.shape, y.kind.shape))


@rule(5)
def binary(g: Grower) -> Value | None:
    found = _pair(g)
    if found is None:
        return None
    x, y, shape = found
    template = g.rng.choice(BINARY)
    if g.rng.random() < 0.3 and not y.kind.has_rows:
        x, y = y, x
    space = x.kind.space if x.kind.has_rows else y.kind.space
    return g.emit(template.format(x, y), Kind(space, shape))


@rule(1)
def truth(g: Grower) -> Value | None:
    found = _pair(g)
    if found is None:
        return None
    x, y, shape = found
    return g.emit(g.rng.choice(TRUTH).format(x, y), Kind(x.kind.space, shape, is_bool=True))


@rule(3)
def choice(g: Grower) -> Value | None:
    """A choice by truth values that stand in a variable."""
    mask = g.pick(lambda v: v.kind.is_bool)
    if mask is None:
        return None
    x = g.need(Kind(mask.kind.space, mask.kind.shape))
    template = g.rng.choice(
        ("torch.where({0}, {1}, 0.0)", "{1}.masked_fill({0}, 0.5)", "{1} * {0}", "torch.where(~{0}, {1}, -{1})")
    )
    return g.emit(template.format(mask, x), x.kind)


@rule(0.6)
def again(g: Grower) -> Value | None:
    """An expression that stands there already: the compiler computes it once, and each result is its own."""
    x = g.pick(lambda v: not v.is_input and "_" not in v.name)
    if x is None:
        return None
    line = next(line for line in g.lines if line.startswith(f"{x} = "))
    return g.emit(line.split(" = ", 1)[1], x.kind, weight=x.is_weight)
