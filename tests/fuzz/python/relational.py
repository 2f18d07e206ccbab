"""Lines that move data along the graph: lifts, reductions to every space, softmax over groups, degrees, declarations."""

from __future__ import annotations

from .grow import Grower, rule
from .kinds import Kind, Value

REDUCTIONS = ("sum", "sum", "mean", "max", "min")


def lifts_of(g: Grower, space: str) -> list[tuple[str, str]]:
    """Expressions that lift from a space, and the spaces that they lead to."""
    ends = {"node": ("src", "dst"), "src": ("src",), "dst": ("dst",)}
    found = [(f"g.edges.{end}", "edge") for end in ends.get(space, ()) for _ in range(3)]
    found += [(f"g.{end}_rel.{end}", f"{end}_rel") for end in ends.get(space, ())]
    if space == "rel":
        found += [("g.edges.rel", "edge")] * 3 + [("g.src_rel.rel", "src_rel"), ("g.dst_rel.rel", "dst_rel")]
    if space == "ntype":
        found += [(f"{g.view(end)}.type", end) for end in g.ends]
    if space in ("src_rel", "dst_rel"):
        found += [(f"g.edges.{space}", "edge")]
    if space == "graph":
        found += [(f"{g.view(fine)}.graph", fine) for fine in (*g.ends, *g.ends, "edge", "src_rel", "dst_rel")]
    return found


@rule(6)
def lift(g: Grower) -> Value | None:
    x = g.pick(lambda v: v.kind.has_rows and v.kind.space != "edge" and not v.kind.is_bool)
    if x is None or g.rng.random() < 0.15:
        x = g.input(Kind(g.rng.choice((*g.ends, "rel", "ntype", "src_rel", "dst_rel", "graph")), g.shape()))
    along, to = g.rng.choice(lifts_of(g, x.kind.space))
    g.has_graph = True
    return g.emit(f"{along}({x})", Kind(to, x.kind.shape))


@rule(7)
def reduction(g: Grower) -> Value | None:
    x = g.numbers(lambda v: v.kind.space in ("edge", "edge", "node", "src", "dst", "src_rel", "dst_rel", "graph"))
    if x is None:
        return None
    kind, space = g.rng.choice(REDUCTIONS), x.kind.space
    view = g.view(space)
    g.has_graph = True
    source, destination = g.ends
    if space == "edge":
        to, coarse = g.rng.choice(
            [("dst", destination)] * 4
            + [("src", source)] * 2
            + [(s, s) for s in ("src_rel", "dst_rel", "rel", "graph", "one")]
        )
        plain = to == "dst" and g.rng.random() < 0.7
        return g.emit(f"{view}.{kind}({x})" if plain else f'{view}.{kind}({x}, to="{to}")', Kind(coarse, x.kind.shape))
    if space in ("src_rel", "dst_rel"):
        end = space[:3]
        coarse = source if end == "src" else destination
        to, coarse = g.rng.choice(
            [("", coarse)] * 3 + [(end, coarse), ("rel", "rel"), ("graph", "graph"), ("one", "one")]
        )
        return g.emit(f'{view}.{kind}({x}, to="{to}")' if to else f"{view}.{kind}({x})", Kind(coarse, x.kind.shape))
    if space != "graph" and g.rng.random() < 0.6:
        return g.emit(f'{view}.{kind}({x}, to="graph")', Kind("graph", x.kind.shape))
    return g.emit(f"{view}.{kind}({x})", Kind("one", x.kind.shape))


@rule(2)
def softmax(g: Grower) -> Value | None:
    x = g.numbers(lambda v: v.kind.space in ("edge", *g.ends))
    if x is None:
        return None
    if x.kind.space != "edge":
        g.has_graph = True
        return g.emit(f'{g.view(x.kind.space)}.softmax({x}, by="graph")', x.kind)
    by = g.rng.choice(("", "", "dst", "src", "dst_rel", "src_rel", "graph"))
    g.has_graph = True
    return g.emit(f'g.edges.softmax({x}, by="{by}")' if by else f"g.edges.softmax({x})", x.kind)


@rule(0.7)
def degree(g: Grower) -> Value | None:
    if g.rng.random() < 0.2:
        g.has_graph = True
        return g.emit(f'1 / {g.view(end := g.rng.choice(g.ends))}.degree("graph")', Kind(end))
    of = g.rng.choice(("", "dst", "src", "dst_rel", "src_rel", "graph"))
    x = g.numbers(lambda v: v.kind.space == "edge" and v.kind.rank == 0)
    text = f'g.edges.degree("{of}"' if of else "g.edges.degree("
    if x is not None and g.rng.random() < 0.5:
        dtype = f"dtype={x}.dtype"
        g.has_graph = True
        return g.emit(f"{x} / {text}{', ' if of else ''}{dtype})", x.kind)
    g.has_graph = True
    template = g.rng.choice(("1 / {0}", "{0} ** -0.5", "{0}.rsqrt()", "{0}.log()", "{0}", "{0}.view(-1, 1)"))
    return g.emit(template.format(text + ")"), Kind("edge", (1,) if "view" in template else ()))


@rule(0.5)
def declared(g: Grower) -> Value | None:
    x = g.numbers(lambda v: v.kind.space in g.spaces)
    if x is None:
        return None
    g.has_graph = True
    return g.emit(f"{g.view(x.kind.space)}({x})", x.kind)


@rule(1)
def flows_back(g: Grower) -> Value | None:
    """A value of the whole graph beside rows."""
    one = g.pick(lambda v: v.kind.space == "one" and not v.is_weight and not v.is_input and not v.kind.is_bool)
    if one is None:
        return None
    x = g.need(Kind(g.rng.choice(g.spaces), one.kind.shape))
    template = g.rng.choice(
        ("{0} - {1}", "{0} * {1}", "{1} + {0}", "{0} / ({1}.abs() + 1)", "torch.where({0} > {1}, {0}, {1})")
    )
    return g.emit(template.format(x, one), x.kind)


UNSUPPORTED = (
    "{0}.cumsum(-1)", "F.softmin({0}, -1)", "{0}.flip(-1)", "{0}.sort(-1).values", "{0}.sum(0)",
    "{0}[0]", "{0} - {0}.mean()", "{0}.cumsum(0)", "torch.erfc({0})", "{0}.roll(1, 0)",
    "{0}.median(-1).values", "torch.tril({0})", "{0}.view(-1)", "{0}.repeat(1, 2)", "torch.cdist({0}, {0})", "{0}.T",
    "{0}.norm()", "torch.cat([{0}, {0}])", "{0}.float().int()", "{0}.detach()",
    "torch.arange({0}.shape[0])", "{0}.index_select(-1, torch.tensor([0]))", "{0}.gather(-1, torch.zeros_like({0}).long())", "{0} // 1",
    "{0} % 2", "torch.stack([{0}, {0}])", "{0}.squeeze()", "{0}.sum()", "torch.addcmul({0}, {0}, {0})",
)  # fmt: skip
"""What Columba does not take, or may take one day: it must name the line."""


@rule(0.12)
def unsupported(g: Grower) -> Value | None:
    x = g.numbers(lambda v: v.kind.rank == 1)
    return x and g.emit(g.rng.choice(UNSUPPORTED).format(x), x.kind)
