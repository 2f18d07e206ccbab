"""Lines of products: linear maps with weights of relations and types, plain ones, heads, dot products."""

from __future__ import annotations

from .grow import Grower, rule
from .kinds import Kind, Value


def lifted_weight(g: Grower, space: str, shape: tuple[int, ...]) -> str | None:
    """An expression for a weight that each row of a space selects."""
    if space in ("edge", "src_rel", "dst_rel"):
        return f"{g.view(space)}.rel({g.weight(Kind('rel', shape))})"
    if space in g.ends:
        return f"{g.view(space)}.type({g.weight(Kind('ntype', shape))})"
    return None


@rule(4)
def linear(g: Grower) -> Value | None:
    """``columba.linear`` with a matrix, or a vector, that the row selects, or that is plain."""
    x = g.rows(1, 3)
    if x is None:
        return None
    out = tuple(g.size() for _ in range(g.rng.choice((1, 1, 1, 1, 0, 2))))
    shape = (x.kind.shape[-1], *out)
    weight = lifted_weight(g, x.kind.space, shape) if g.rng.random() < 0.75 else None
    g.has_graph |= weight is not None
    return g.emit(
        f"columba.linear({x}, {weight or g.weight(Kind('one', shape))})", x.kind.shaped(*x.kind.shape[:-1], *out)
    )


@rule(2)
def plain_product(g: Grower) -> Value | None:
    """Products with a plain matrix, spelled in torch's ways."""
    x = g.rows(1, 3)
    if x is None:
        return None
    k, n = x.kind.shape[-1], g.size()
    result = x.kind.shaped(*x.kind.shape[:-1], n)
    match g.rng.choice(("matmul", "F.linear", "bias", "t", "einsum", "vector", "addmm", "mm")):
        case "matmul":
            return g.emit(f"{x} @ {g.weight(Kind('one', (k, n)))}", result)
        case "F.linear":
            return g.emit(f"F.linear({x}, {g.weight(Kind('one', (n, k)))})", result)
        case "bias":
            weight, bias = g.weight(Kind("one", (n, k))), g.weight(Kind("one", (n,)))
            return g.emit(f"F.linear({x}, {weight}, {bias})", result)
        case "t":
            return g.emit(f"torch.matmul({x}, {g.weight(Kind('one', (n, k)))}.t())", result)
        case "einsum" if x.kind.rank == 1:
            return g.emit(f'torch.einsum("ni,ij->nj", {x}, {g.weight(Kind("one", (k, n)))})', result)
        case "einsum" if x.kind.rank == 2:
            return g.emit(
                f'torch.einsum("nhi,hij->nhj", {x}, {g.weight(Kind("one", (x.kind.shape[0], k, n)))})', result
            )
        case "vector":
            return g.emit(f"{x} @ {g.weight(Kind('one', (k,)))}", x.kind.shaped(*x.kind.shape[:-1]))
        case "addmm" if x.kind.rank == 1:
            return g.emit(f"torch.addmm({g.weight(Kind('one', (n,)))}, {x}, {g.weight(Kind('one', (k, n)))})", result)
        case "mm" if x.kind.rank == 1:
            return g.emit(f"torch.mm({x}, {g.weight(Kind('one', (k, n)))})", result)
    return None


@rule(2)
def head_product(g: Grower) -> Value | None:
    """An einsum, or a batched product, of heads with weights that the row selects."""
    x = g.rows(2, 2)
    if x is None:
        x = g.input(Kind(g.rng.choice(g.spaces), (2, g.size())))
    (heads, k), n = x.kind.shape, g.size()
    space = x.kind.space
    letters, shape, out = g.rng.choice(
        (
            ("nhi,nhij->nhj", (heads, k, n), (heads, n)), ("nhi,nij->nhj", (k, n), (heads, n)), ("nhi,nhi->nh", (heads, k), (heads,)),
            ("nhi,nhji->nhj", (heads, n, k), (heads, n)), ("nhi,ni->nh", (k,), (heads,)), ("nhi,nh->ni", (heads,), (k,)),
            ("nhi,nhij->nj", (heads, k, n), (n,)), ("nhi,nj->nhij", (n,), (heads, k, n)),
        )
    )  # fmt: skip
    weight = lifted_weight(g, space, shape)
    if weight is None:
        return None
    g.has_graph = True
    return g.emit(f'torch.einsum("{letters}", {x}, {weight})', x.kind.shaped(*out))


@rule(1.5)
def dot_product(g: Grower) -> Value | None:
    """Products of two computed values, summed over features."""
    x = g.rows(1, 2)
    if x is None:
        return None
    y = g.need(x.kind)
    lead, k = x.kind.shape[:-1], x.kind.shape[-1]
    if x.kind.rank == 1:
        options = [
            ("({0} * {1}).sum(-1)", ()), ('torch.einsum("nk,nk->n", {0}, {1})', ()), ('torch.einsum("ni,nj->nij", {0}, {1})', (k, k)),
            ("({0}.unsqueeze(1) @ {1}.unsqueeze(-1)).view(-1)", ()), ("{0}[:, :, None] * {1}[:, None, :]", (k, k)),
            ("torch.bmm({0}.unsqueeze(-1), {1}.unsqueeze(1))", (k, k)),
        ]  # fmt: skip
    else:
        options = [
            ("({0} * {1}).sum(-1)", lead), ('torch.einsum("nhk,nhk->nh", {0}, {1})', lead), ("{0} @ {1}.transpose(1, 2)", (*lead, *lead)),
            ('torch.einsum("nik,njk->nij", {0}, {1})', (*lead, *lead)), ("torch.matmul({0}.mT, {1})", (k, k)),
            ("torch.bmm({0}, {1}.mT)", (*lead, *lead)), ('torch.einsum("nhk,nhk->n", {0}, {1})', ()),
        ]  # fmt: skip
    template, shape = g.rng.choice(options)
    return g.emit(template.format(x, y), x.kind.shaped(*shape))


@rule(0.7)
def scaled_by_row(g: Grower) -> Value | None:
    """Rows times a vector, or added to one, of the row's relation or type."""
    x = g.rows(0, 2)
    weight = x and lifted_weight(g, x.kind.space, x.kind.shape)
    if x is None or weight is None:
        return None
    g.has_graph = True
    return g.emit(
        g.rng.choice(
            (
                "{0} * {1}",
                "{0} + {1}",
                "{1} - {0}",
                "torch.tanh({0} * {1})",
                "({0} * {1}).sum(-1, keepdim=True) + {0}" if x.kind.rank else "{0} * {1}",
            )
        ).format(x, weight),
        x.kind,
    )
