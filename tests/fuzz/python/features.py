"""Lines that reduce or normalize feature dimensions."""

from __future__ import annotations

from .grow import Grower, rule
from .kinds import Kind, Value

REDUCED = (
    "{0}.sum({d})", "{0}.sum({d})", "{0}.mean({d})", "{0}.amax({d})", "{0}.amin({d})", "torch.logsumexp({0}, {d})", "{0}.norm(dim={d})",
    "torch.linalg.vector_norm({0}, dim={d})", "{0}.norm(p=1, dim={d})", "({0} + 3).norm(p=3, dim={d})", "torch.sum({0}, dim={d})",
    "torch.norm({0}, dim={d})", "{0}.norm(p=float('inf'), dim={d})",
)  # fmt: skip
SINGLE = ("{0}.max({d}).values", "torch.min({0}, {d})[0]", "{0}.max({d})[0]", "{0}.sum(axis={d})")
SEVERAL = ("{0}.var({d})", "{0}.std({d})", "{0}.var({d}, unbiased=False)", "torch.std({0}, {d}, correction=0)")
KEPT = (
    "{0}.sum({d}, keepdim=True)", "{0}.mean(dim={d}, keepdim=True)", "{0}.amax({d}, keepdim=True)",
    "{0}.norm(dim={d}, keepdim=True)", "torch.logsumexp({0}, {d}, keepdim=True)", "{0}.max({d}, keepdim=True).values",
)  # fmt: skip
NORMALIZED = (
    "F.softmax({0}, {d})", "{0}.softmax({d})", "torch.log_softmax({0}, {d})", "F.normalize({0}, dim={d})", "F.normalize({0}, p=1, dim={d})",
    "{0} - {0}.mean({d}, keepdim=True)", "{0} / ({0}.norm(dim={d}, keepdim=True) + 0.5)", "{0} / {0}.abs().sum({d}, keepdim=True)",
    "torch.nn.Softmax({d})({0})",
)  # fmt: skip
LAST = (
    "F.layer_norm({0}, ({n},))", "F.layer_norm({0}, {0}.shape[-1:])", "F.rms_norm({0}, ({n},))",
    "torch.nn.LayerNorm({n}, elementwise_affine=False)({0})",
)  # fmt: skip
AFFINE = (
    "F.layer_norm({0}, ({n},), {1}, {2})",
    "F.layer_norm({0}, [{n}], weight={1}, bias={2})",
    "F.rms_norm({0}, ({n},), {1}) + {2}",
)

OVER_ROWS = (
    "{0}.mean(0)", "{0}.sum(0)", "{0}.norm(dim=0)", "{0}.var(0, unbiased=False)", "torch.std_mean({0}, 0, correction=0)[1]",
)  # fmt: skip
WHOLE = (
    "{0} - {0}.mean()", "{0} - {0}.mean(0, keepdim=True)", "{0} / ({0}.std(unbiased=False) + 0.5)", "{0} / ({0}.norm() + 0.5)",
)  # fmt: skip


def _axis(g: Grower, x: Value) -> tuple[int, int]:
    """A feature axis, and the dimension of the tensor that it is."""
    axis = g.rng.randrange(x.kind.rank)
    return axis, axis - x.kind.rank if g.rng.random() < 0.6 else axis + x.kind.has_rows


@rule(2.5)
def reduced(g: Grower) -> Value | None:
    x = g.rows(1)
    if x is None:
        return None
    axis, d = _axis(g, x)
    shape = x.kind.shape
    if g.rng.random() < 0.25:
        return g.emit(g.rng.choice(KEPT).format(x, d=d), x.kind.shaped(*shape[:axis], 1, *shape[axis + 1 :]))
    templates = (*REDUCED, *SINGLE, *(SEVERAL if shape[axis] > 1 else ()))
    return g.emit(g.rng.choice(templates).format(x, d=d), x.kind.shaped(*shape[:axis], *shape[axis + 1 :]))


@rule(0.4)
def reduced_all(g: Grower) -> Value | None:
    x = g.rows(2, 3)
    if x is None:
        return None
    dims = tuple(range(1, x.kind.rank + 1))
    template = g.rng.choice(
        ("{0}.sum({d})", "{0}.mean({d})", "{0}.amax({d})", "{0}.flatten(1).sum(1)", "torch.logsumexp({0}, {d})")
    )
    return g.emit(template.format(x, d=dims), x.kind.shaped())


@rule(0.6)
def over_rows(g: Grower) -> Value | None:
    """Of all rows: what is left of them is plain."""
    x = g.numbers(lambda v: v.kind.space not in ("one", "rel", "ntype"))
    if x is None:
        return None
    if g.rng.random() < 0.5:
        return g.emit(g.rng.choice(OVER_ROWS).format(x), Kind("one", x.kind.shape))
    return g.emit(g.rng.choice(WHOLE).format(x), x.kind)


@rule(1.5)
def normalized(g: Grower) -> Value | None:
    x = g.rows(1)
    if x is None:
        return None
    _, d = _axis(g, x)
    n = x.kind.shape[-1]
    if n > 1 and g.rng.random() < 0.4:
        if g.rng.random() < 0.5:
            return g.emit(g.rng.choice(LAST).format(x, n=n), x.kind)
        weight, bias = (g.weight(Kind("one", (n,))) for _ in range(2))
        return g.emit(g.rng.choice(AFFINE).format(x, weight, bias, n=n), x.kind)
    return g.emit(g.rng.choice(NORMALIZED).format(x, d=d), x.kind)
