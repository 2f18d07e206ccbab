"""Lines that view, cut, join and permute feature dimensions."""

from __future__ import annotations

import math

from .grow import Grower, rule
from .kinds import Kind, Value


@rule(2)
def reshaped(g: Grower) -> Value | None:
    """A view under another shape of the same size."""
    x = g.rows()
    if x is None:
        return None
    size = math.prod(x.kind.shape)
    options: list[tuple[int, ...]] = [(size,), (1, size), (size, 1)]
    options += [(n, size // n) for n in (2, 3, 4) if size % n == 0]
    options += [()] if size == 1 else []
    shape = g.rng.choice(options)
    sizes = [str(n) for n in shape]
    rows = "-1"
    if g.rng.random() < 0.7 or not math.prod(shape):
        rows = g.rng.choice((f"{x}.shape[0]", f"{x}.size(0)", "len_of"))
        if rows == "len_of":
            counts = {"node": "nodes", "edge": "edges", "src": "src", "dst": "dst", "graph": "graphs"}
            count = counts.get(x.kind.space)
            rows = f"g.num_{count}" if count else f"{x}.shape[0]"
        if sizes and g.rng.random() < 0.4:
            sizes[g.rng.randrange(len(sizes))] = "-1"
    spelled = ", ".join([rows, *sizes])
    template = g.rng.choice(("{0}.view({1})", "{0}.reshape({1})", "torch.reshape({0}, ({1},))", "{0}.reshape(({1},))"))
    return g.emit(template.format(x, spelled), x.kind.shaped(*shape))


@rule(1)
def flattened(g: Grower) -> Value | None:
    x = g.rows(2)
    if x is None:
        return None
    template = g.rng.choice(("{0}.flatten(1)", "torch.flatten({0}, start_dim=1)", "torch.nn.Flatten()({0})"))
    return g.emit(template.format(x), x.kind.shaped(math.prod(x.kind.shape)))


@rule(1)
def permuted(g: Grower) -> Value | None:
    x = g.rows(2)
    if x is None:
        return None
    rank, shape = x.kind.rank, x.kind.shape
    if g.rng.random() < 0.6:
        a, b = g.rng.sample(range(rank), 2)
        order = list(range(rank))
        order[a], order[b] = order[b], order[a]
        dims = (a - rank, b + 1) if g.rng.random() < 0.5 else (a + 1, b + 1)
        template = g.rng.choice(
            ("{0}.transpose({1}, {2})", "torch.swapaxes({0}, {1}, {2})", "{0}.transpose({1}, {2}).contiguous()")
        )
        return g.emit(template.format(x, *dims), x.kind.shaped(*(shape[n] for n in order)))
    order = g.rng.sample(range(rank), rank)
    dims = ", ".join(str(n + 1) for n in order)
    return g.emit(f"{x}.permute(0, {dims})", x.kind.shaped(*(shape[n] for n in order)))


@rule(1.5)
def unsqueezed(g: Grower) -> Value | None:
    x = g.rows(0, 3)
    if x is None:
        return None
    rank, shape = x.kind.rank, x.kind.shape
    axis = g.rng.randint(0, rank)
    if axis == rank and g.rng.random() < 0.6:
        return g.emit(g.rng.choice(("{0}[..., None]", "{0}.unsqueeze(-1)")).format(x), x.kind.shaped(*shape, 1))
    template = g.rng.choice(
        ("{0}.unsqueeze({1})", "torch.unsqueeze({0}, {1})", "{0}[:, None]" if axis == 0 else "{0}.unsqueeze(dim={1})")
    )
    return g.emit(template.format(x, axis + 1), x.kind.shaped(*shape[:axis], 1, *shape[axis:]))


@rule(1)
def squeezed(g: Grower) -> Value | None:
    x = g.numbers(lambda v: 1 in v.kind.shape)
    if x is None:
        return None
    axis = g.rng.choice([n for n, size in enumerate(x.kind.shape) if size == 1])
    shape = (*x.kind.shape[:axis], *x.kind.shape[axis + 1 :])
    dim = axis + 1 if g.rng.random() < 0.5 else axis - x.kind.rank
    return g.emit(g.rng.choice(("{0}.squeeze({1})", "torch.squeeze({0}, {1})")).format(x, dim), x.kind.shaped(*shape))


@rule(0.7)
def expanded(g: Grower) -> Value | None:
    x = g.numbers(lambda v: 1 in v.kind.shape)
    if x is None:
        return None
    shape = tuple(n if n > 1 else g.size() for n in x.kind.shape)
    sizes = ", ".join(
        str(n) if g.rng.random() < 0.8 or n != m else "-1" for n, m in zip(shape, x.kind.shape, strict=True)
    )
    rows = g.rng.choice(("-1", f"{x}.shape[0]"))
    template = g.rng.choice(("{0}.expand({1}, {2})", "torch.broadcast_to({0}, ({1}, {2}))"))
    if "broadcast" in template:
        rows, sizes = f"{x}.shape[0]", ", ".join(map(str, shape))
    return g.emit(template.format(x, rows, sizes), x.kind.shaped(*shape))


@rule(2)
def indexed(g: Grower) -> Value | None:
    """Basic indexing of feature dimensions."""
    x = g.rows(1)
    if x is None:
        return None
    shape: list[int] = []
    index: list[str] = []
    for n in x.kind.shape:
        kind = g.rng.choice(("all", "one", "tail", "head", "step", "last"))
        if kind == "one":
            index.append(str(g.rng.randrange(n)))
        elif kind == "last":
            index.append("-1")
        elif kind == "tail" and n > 1:
            start = g.rng.randrange(1, n)
            index.append(f"{start}:")
            shape.append(n - start)
        elif kind == "head" and n > 1:
            index.append(f":{n - 1}")
            shape.append(n - 1)
        elif kind == "step" and n > 2:
            index.append("::2")
            shape.append((n + 1) // 2)
        else:
            index.append(":")
            shape.append(n)
    start = "..." if g.rng.random() < 0.4 else ":"
    return g.emit(f"{x}[{', '.join([start, *index])}]", x.kind.shaped(*shape))


@rule(0.8)
def narrowed(g: Grower) -> Value | None:
    x = g.numbers(lambda v: v.kind.rank > 0)
    if x is None:
        return None
    axis = g.rng.randrange(x.kind.rank)
    n = x.kind.shape[axis]
    start = g.rng.randrange(n)
    length = g.rng.randint(1, n - start)
    before, after = x.kind.shape[:axis], x.kind.shape[axis + 1 :]
    if g.rng.random() < 0.5:
        return g.emit(f"{x}.narrow({axis + 1}, {start}, {length})", x.kind.shaped(*before, length, *after))
    return g.emit(
        g.rng.choice(("{0}.select({1}, {2})", "torch.select({0}, {1}, {2})")).format(x, axis + 1, start),
        x.kind.shaped(*before, *after),
    )


@rule(1.2)
def joined(g: Grower) -> Value | None:
    """``cat`` or ``stack`` of values of one space."""
    x = g.rows(0, 3)
    if x is None:
        return None
    space, shape = x.kind.space, x.kind.shape
    if g.rng.random() < 0.5 or not shape:
        others = [g.need(Kind(space, shape)) for _ in range(g.rng.randint(1, 2))]
        parts = ", ".join(map(str, g.rng.sample([x, *others], len(others) + 1)))
        axis = g.rng.randint(0, len(shape))
        return g.emit(
            f"torch.stack([{parts}], {axis + 1})", x.kind.shaped(*shape[:axis], len(others) + 1, *shape[axis:])
        )
    axis = g.rng.randrange(len(shape))

    def fits(v: Value) -> bool:
        k = v.kind
        if k.space != space or k.rank != len(shape) or k.is_bool or v.is_weight != x.is_weight:
            return False
        return k.shape[:axis] == shape[:axis] and k.shape[axis + 1 :] == shape[axis + 1 :]

    y = g.pick(fits) or x
    total = shape[axis] + y.kind.shape[axis]
    d = axis + 1 if g.rng.random() < 0.5 else axis - len(shape)
    name = g.rng.choice(("cat", "concat", "concatenate"))
    return g.emit(f"torch.{name}([{x}, {y}], {d})", x.kind.shaped(*shape[:axis], total, *shape[axis + 1 :]))


@rule(1)
def split(g: Grower) -> Value | None:
    """``chunk``, ``split`` or ``unbind``, all parts of it."""
    x = g.numbers(lambda v: any(n > 1 for n in v.kind.shape))
    if x is None:
        return None
    axis = g.rng.choice([a for a, n in enumerate(x.kind.shape) if n > 1])
    n = x.kind.shape[axis]
    before, after = x.kind.shape[:axis], x.kind.shape[axis + 1 :]
    if n <= 4 and g.rng.random() < 0.4:
        return g.emit_parts(f"{x}.unbind({axis + 1})", [x.kind.shaped(*before, *after)] * n)[0]
    first = g.rng.randrange(1, n)
    parts = [first, n - first]
    if g.rng.random() < 0.5:
        parts = [(n + 1) // 2, n // 2]
        text = f"{x}.chunk(2, {axis - x.kind.rank})"
    else:
        text = f"torch.split({x}, {parts}, {axis + 1})"
    return g.emit_parts(text, [x.kind.shaped(*before, m, *after) for m in parts])[-1]
