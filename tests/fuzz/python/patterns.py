"""Several lines at once: what layers are made of, and what passes look for."""

from __future__ import annotations

from .grow import Grower, rule
from .kinds import Kind, Value
from .products import lifted_weight


def _nodes(g: Grower, end: str, shape: tuple[int, ...]) -> Value:
    return g.need(Kind(g.ends[end == "dst"], shape))


@rule(1)
def attention(g: Grower) -> Value | None:
    """Messages weighted by a score of both ends and the relation."""
    n, k = g.size(), g.size()
    g.has_graph = True
    matrix = lifted_weight(g, "edge", (n, k))
    source = g.emit(f"columba.linear(g.edges.src({_nodes(g, 'src', (n,))}), {matrix})", Kind("edge", (k,)))
    other = g.emit(f"columba.linear(g.edges.dst({_nodes(g, 'dst', (n,))}), {matrix})", Kind("edge", (k,)))
    assert source is not None
    assert other is not None
    if g.rng.random() < 0.5:
        score = g.emit(
            f"(torch.cat([{source}, {other}], -1) * {lifted_weight(g, 'edge', (2 * k,))}).sum(-1)", Kind("edge")
        )
    else:
        a, b = (lifted_weight(g, "edge", (k,)) for _ in range(2))
        score = g.emit(f"({source} * {a}).sum(-1) + ({other} * {b}).sum(-1)", Kind("edge"))
    by = g.rng.choice(("dst", "dst", "src", "dst_rel"))
    alpha = g.emit(f'g.edges.softmax(F.leaky_relu({score}, 0.2), by="{by}")', Kind("edge"))
    return g.emit(f"g.edges.sum({alpha}.unsqueeze(-1) * {source})", Kind(g.ends[1], (k,)))


@rule(1)
def mean_per_relation(g: Grower) -> Value | None:
    n, k = g.size(), g.size()
    g.has_graph = True
    matrix = lifted_weight(g, "edge", (n, k))
    message = g.emit(f"columba.linear(g.edges.src({_nodes(g, 'src', (n,))}), {matrix})", Kind("edge", (k,)))
    kind, outer = g.rng.choice(("mean", "sum", "max")), g.rng.choice(("sum", "mean", "max"))
    pairs = g.emit(f'g.edges.{kind}({message}, to="dst_rel")', Kind("dst_rel", (k,)))
    return g.emit(f"g.dst_rel.{outer}({pairs})", Kind(g.ends[1], (k,)))


@rule(1)
def heads(g: Grower) -> Value | None:
    """Dot products of keys and queries, a head at a time."""
    n, heads = g.size(), 2
    g.has_graph = True
    q, k = (_nodes(g, end, (heads, n)) for end in ("dst", "src"))
    key = g.emit(
        f'torch.einsum("ehi,ehij->ehj", g.edges.src({k}), {lifted_weight(g, "edge", (heads, n, n))})',
        Kind("edge", (heads, n)),
    )
    score = g.emit(
        f"(g.edges.dst({q}) * {key}).sum(-1) * {lifted_weight(g, 'edge', (heads,))} / {n} ** 0.5",
        Kind("edge", (heads,)),
    )
    alpha = g.emit(f"g.edges.softmax({score})", Kind("edge", (heads,)))
    out = g.emit(f"g.edges.sum({alpha}.unsqueeze(-1) * g.edges.src({k}))", Kind(g.ends[1], (heads, n)))
    return out and g.emit(f"{out}.flatten(1)", Kind(g.ends[1], (heads * n,)))


@rule(1)
def propagation(g: Grower) -> Value | None:
    """One more step along the edges of what was computed."""
    x = g.numbers(lambda v: v.kind.space == g.ends[0])
    if x is None:
        return None
    g.has_graph = True
    kind = g.rng.choice(("sum", "mean", "max", "min"))
    return g.emit(f"g.edges.{kind}(g.edges.src({x}))", Kind(g.ends[1], x.kind.shape))


@rule(0.8)
def weighted_sum(g: Grower) -> Value | None:
    x, s = (
        g.numbers(lambda v: v.kind.space == "edge" and v.kind.rank == 1),
        g.numbers(lambda v: v.kind.space == "edge" and v.kind.rank == 0),
    )
    if x is None:
        return None
    s = s or g.input(Kind("edge"))
    g.has_graph = True
    to = g.rng.choice(("dst", "src", "dst_rel", "rel"))
    coarse = {"dst": g.ends[1], "src": g.ends[0]}.get(to, to)
    factor = g.rng.choice(("{1}[:, None] * {0}", "{0} * {1}.unsqueeze(-1)", "{0} / ({1}.abs() + 1).view(-1, 1)"))
    return g.emit(f'g.edges.sum({factor.format(x, s)}, to="{to}")', Kind(coarse, x.kind.shape))


@rule(0.5)
def standardized(g: Grower) -> Value | None:
    """Rows without the mean over all of them, divided by their spread: a norm over the graph."""
    x = g.numbers(lambda v: v.kind.space in ("node", "src", "dst"))
    if x is None:
        return None
    g.has_graph = True
    view = g.view(x.kind.space)
    declared = g.emit(f"{view}({x})", x.kind)
    centred = g.emit(f"{declared} - {view}.mean({declared})", x.kind)
    spread = g.emit(f"{view}.mean({centred} * {centred})", Kind("one", x.kind.shape))
    return g.emit(f"{centred} / torch.sqrt({spread} + 1e-2)", x.kind)


@rule(0.5)
def typed_by_relation(g: Grower) -> Value | None:
    """A value per relation, computed of the graph, that flows back to edges."""
    x = g.numbers(lambda v: v.kind.space == "edge")
    if x is None:
        return None
    g.has_graph = True
    mean = g.emit(f'g.edges.mean({x}, to="rel")', Kind("rel", x.kind.shape))
    return g.emit(f"{x} - g.edges.rel({mean})", x.kind)
