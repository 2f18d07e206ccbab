"""Lines of plain tensors, which PyTorch runs before the program or after it."""

from __future__ import annotations

from .grow import Grower, rule
from .kinds import Kind, Value

UNARY = (
    "{0}.tanh()", "{0} * 2", "{0}.cumsum(-1)", "{0}.flip(-1)", "{0}.softmax(-1)", "{0}.sort(-1).values", "{0}.roll(1, -1)", "{0} + 0.5",
    "torch.relu({0})", "{0}.clone()", "{0}.contiguous()", "{0} - {0}.mean()", "{0}.clamp(-1, 1)", "{0} / {0}.abs().sum()", "{0} * 1",
)  # fmt: skip


@rule(1.2)
def of_weights(g: Grower) -> Value | None:
    """A function of a weight."""
    x = g.pick(lambda v: v.is_weight and not v.kind.is_bool and v.kind.rank > 0)
    return x and g.emit(g.rng.choice(UNARY).format(x), x.kind, weight=True)


@rule(0.8)
def matrices(g: Grower) -> Value | None:
    """Weights made of weights: transposed, composed of bases, multiplied."""
    x = g.pick(lambda v: v.is_weight and v.kind.rank == 2 and v.kind.space == "one")
    if x is not None and g.rng.random() < 0.5:
        n, m = x.kind.shape
        if n == m and g.rng.random() < 0.3:
            return g.emit(f"{x} @ {x}", x.kind, weight=True)
        return g.emit(
            g.rng.choice(("{0}.t()", "{0}.T", "{0}.transpose(0, 1)", "{0}.mT")).format(x),
            x.kind.shaped(m, n),
            weight=True,
        )
    space, bases, shape = g.rng.choice(("rel", "rel", "ntype")), 2, (g.size(), g.size())
    parts, basis = g.weight(Kind(space, (bases,))), g.weight(Kind("one", (bases, *shape)))
    return g.emit(f'torch.einsum("rb,bij->rij", {parts}, {basis})', Kind(space, shape), weight=True)


@rule(0.5)
def transposed_weights(g: Grower) -> Value | None:
    x = g.pick(lambda v: v.is_weight and v.kind.space in ("rel", "ntype") and v.kind.rank == 2)
    if x is None:
        return None
    n, m = x.kind.shape
    template = g.rng.choice(
        ("{0}.transpose(1, 2)", "{0}.mT", "{0}.permute(0, 2, 1)", "{0}.transpose(-1, -2).contiguous()")
    )
    return g.emit(template.format(x), x.kind.shaped(m, n), weight=True)


@rule(1.2)
def of_whole_graph(g: Grower) -> Value | None:
    """What PyTorch makes of a value that is one for the whole graph."""
    x = g.pick(
        lambda v: (
            v.kind.space == "one" and not v.is_weight and not v.is_input and not v.kind.is_bool and v.kind.rank > 0
        )
    )
    if x is None:
        x = g.pick(lambda v: v.kind.space == "one" and not v.is_weight and not v.is_input and not v.kind.is_bool)
        return x and g.emit(
            g.rng.choice(
                (
                    "{0} * 2",
                    "{0}.tanh()",
                    "torch.relu({0})",
                    "{0}.clone()",
                    "{0}.view(1)[0]",
                    "{0} / g.num_nodes" if g.square else "{0} / 7",
                )
            ).format(x),
            x.kind,
        )
    if g.rng.random() < 0.3:
        return g.emit(
            g.rng.choice(
                ("{0}.sum()", "{0}.mean()", "{0}.max()", "{0}.norm()", "{0}.view(-1)[0]", "{0}.flatten()[-1]")
            ).format(x),
            Kind("one"),
        )
    return g.emit(g.rng.choice(UNARY).format(x), x.kind)


@rule(0.4)
def constants(g: Grower) -> Value | None:
    """Plain tensors made in the function."""
    x = g.rows(1)
    if x is None:
        return None
    n = x.kind.shape[-1]
    made = g.rng.choice(
        (
            "torch.ones({n}, dtype={0}.dtype)", "torch.full(({n},), 0.5, dtype={0}.dtype)", "torch.arange({n}, dtype={0}.dtype)",
            "torch.tensor([0.5] * {n}, dtype={0}.dtype)", "torch.linspace(0, 1, {n}, dtype={0}.dtype)",
            "torch.eye({n}, dtype={0}.dtype)[0]",
            "torch.tensor(0.7)", "torch.zeros({n})",
        )
    ).format(x, n=n)  # fmt: skip
    return g.emit(g.rng.choice(("{0} * {1}", "{0} + {1}", "{1} - {0}")).format(x, made), x.kind)


@rule(0.3)
def rows_of_relations(g: Grower) -> Value | None:
    """One relation's row of a weight, or all of them together."""
    x = g.pick(lambda v: v.is_weight and v.kind.space in ("rel", "ntype") and v.kind.rank > 0)
    return x and g.emit(
        g.rng.choice(("{0}[0]", "{0}.mean(0)", "{0}.sum(0)", "{0}[-1]")).format(x),
        Kind("one", x.kind.shape),
        weight=True,
    )
