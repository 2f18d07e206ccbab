"""Slices of gathered rows, and sums of what is put together of pieces, move along graphs of the pieces' own edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compiled import assert_same, leaf
from torch import Tensor

import columba

pytestmark = pytest.mark.unoptimized


def edges(nodes: int, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(nodes, (2, count), generator=generator)


def added(x: Tensor, index: Tensor, message: Tensor) -> Tensor:
    return x.new_zeros(x.size(0), message.size(1)).index_add_(0, index, message)


def side_by_side(x: Tensor, edge_index: Tensor, w: Tensor, f: Tensor) -> Tensor:
    """As MeshCNN: ends of four kinds, one after the other."""
    h = x[edge_index[0]]
    a, b, c, d = h[0::4], h[1::4], h[2::4], h[3::4]
    m = torch.empty(h.size(0), w.size(1), dtype=x.dtype)
    m[0::4] = torch.abs(a - c) @ w
    m[1::4] = (a + c) @ w
    m[2::4] = torch.abs(b - d) @ w
    m[3::4] = b * d
    return added(x, edge_index[1], m) + x


def both_directions(x: Tensor, edge_index: Tensor, w: Tensor, f: Tensor) -> Tensor:
    """Undirected edges, each direction after the other, of which one number is computed."""
    src, dst = edge_index
    h = torch.relu(torch.cat([x[src], x[dst]], dim=-1)).view(src.numel(), 8)
    half = h.shape[0] // 2
    there, back = h[:half], h[half:]
    score = torch.tanh((there * back).sum(-1, keepdim=True))
    message = torch.cat([score * x[src][:half], (1 - score) * x[src][half:]]) @ w
    return added(x, dst, message)


def by_chunks(x: Tensor, edge_index: Tensor, w: Tensor, f: Tensor) -> Tensor:
    src, dst = edge_index
    left, right = (x[src] @ w).sigmoid().chunk(2)
    near, far = x.index_select(0, dst).split(src.size(0) // 2)
    k = src.shape[0] // 2
    m = torch.cat((left * near, right.narrow(0, 0, k) - far), 0)
    return added(x, dst, m)


def with_features_of_edges(x: Tensor, edge_index: Tensor, w: Tensor, f: Tensor) -> Tensor:
    """Other tensors have a row per edge, too: before and after a join, and in a slice."""
    src, dst = edge_index
    weight = (src + 1).to(x.dtype) / (dst + 2)  # of integers alone
    h = x[src] * f
    m = torch.zeros(src.size(0), 4, dtype=x.dtype)
    m[1::2] = (h[0::2] - h[1::2])[:, :4]
    m[0::2] = x[dst][1::2]
    first, second = (m * weight.unsqueeze(-1)).relu().split(2, dim=-1)
    return added(x, dst, first * second + f[:, 1:3])


def whole_and_pieces(x: Tensor, edge_index: Tensor, w: Tensor, f: Tensor) -> Tensor:
    src, dst = edge_index
    h = x[src]
    m = x.new_zeros(h.size())
    m[0::2] = h[1::2].tanh()
    m[1::2] = h[0::2][:]
    return added(x, dst, h) * added(x, dst, m) @ w


def of_pieces(x: Tensor, edge_index: Tensor, w: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    """Slices of slices, and two sums of one join."""
    src, dst = edge_index
    h = x[src][0::2]
    m = torch.cat([h[0::2] @ w, h[1::2].exp()], dim=0)
    return added(x, dst[0::2], m), added(x, src[1::2], m + 1)


def in_groups(x: Tensor, edge_index: Tensor, w: Tensor, f: Tensor) -> Tensor:
    """As the first one, with a dimension for the places in a group."""
    src, dst = edge_index
    a, b, c, d = (x[src] * f).view(-1, 4, 4).unbind(1)
    e = x[src].view(src.size(0) // 4, 4, 4)
    m = torch.stack([a - c, (b + d) @ w, a * e[:, 1, :2].repeat(1, 2), d * e.select(1, -1)], dim=1)
    n = torch.stack([a, b, c, d], 1).flatten(0, 1) + f
    return added(x, dst, m.view(src.numel(), 4)) * added(x, dst, n)


ALL_MOVE = [in_groups, side_by_side, both_directions, by_chunks, with_features_of_edges, whole_and_pieces, of_pieces]


def overlapping(x: Tensor, edge_index: Tensor, w: Tensor, f: Tensor) -> Tensor:
    src, dst = edge_index
    h = x[src] @ w
    return added(x, dst[1:], h[1:] - h[:-1])


def written_twice(x: Tensor, edge_index: Tensor, w: Tensor, f: Tensor) -> Tensor:
    src, dst = edge_index
    h = x[src]
    m = torch.zeros_like(h)
    m[0::2] = h[0::2]
    m[:4] = h[:4] @ w
    return added(x, dst, m)


def written_in_part(x: Tensor, edge_index: Tensor, w: Tensor, f: Tensor) -> Tensor:
    """What is computed of rows that nothing was written to is something else than 0."""
    src, dst = edge_index
    m, n = torch.zeros(src.numel(), 4, dtype=x.dtype), torch.zeros(src.numel(), 4, dtype=x.dtype)
    m[0::2] = x[src][0::2] @ w
    n[4:] = x[src][4:]
    return added(x, dst, m.exp()) * added(x, dst, n + w[0])


def into_ones(x: Tensor, edge_index: Tensor, w: Tensor, f: Tensor) -> Tensor:
    src, dst = edge_index
    m = torch.ones(src.numel(), 4, dtype=x.dtype)
    m[0::2] = x[src][0::2] @ w
    return added(x, dst, m)


def returned_too(x: Tensor, edge_index: Tensor, w: Tensor, f: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    src, dst = edge_index
    h = x[src] @ w
    m = torch.cat([h[1::2], h[0::2]])
    return h, m, h[0::2], added(x, dst, m)


def read_while_written(x: Tensor, edge_index: Tensor, w: Tensor, f: Tensor) -> Tensor:
    src, dst = edge_index
    h = x[src] @ w
    m = torch.zeros(h.shape, dtype=x.dtype)
    m[0::2] = h[0::2]
    m[1::2] = m[0::2].clone() + h[1::2]
    return added(x, dst, m)


def of_other_kinds(x: Tensor, edge_index: Tensor, w: Tensor, f: Tensor) -> Tensor:
    """A number for all rows, numbers of another kind, one row for all, and what was passed in."""
    src, dst = edge_index
    m = torch.empty(src.size(0), 4)  # of 32 bits
    m[0::2] = x[src][0::2] @ w
    m[1::2] = 0.5
    n = torch.zeros(src.size(0), 4, dtype=x.dtype)
    n[0::2] = x[src][0::2].mean(0, keepdim=True)
    given = torch.cat([f[: src.size(0) // 4], f[src.size(0) // 4 :].cos()])
    return added(x, dst, m.to(x.dtype)) + added(x, dst, n) + added(x, dst, given)


NOT_ALL = [overlapping, written_twice, written_in_part, into_ones, returned_too, read_while_written, of_other_kinds]


def arguments(nodes: int, count: int) -> tuple[Tensor, ...]:
    return leaf(nodes, 4), edges(nodes, count, count), leaf(4, 4, seed=1), leaf(count, 4, seed=2)


def taken_apart(function: Any) -> list[str]:
    """What PyTorch computes of rows in the traces of a function."""
    return [
        record.op
        for one in function._own
        for record in one.trace.replayed
        if record.op
        in (
            "set_items",
            "cat",
            "stack",
            "_one_of_each",
            "chunk",
            "split",
            "narrow",
            "index_select",
            "index_add",
            "scatter_add",
        )
        or (record.op == "__getitem__" and isinstance(record.args[1], slice) and record.operands[0].source is None)
    ]


@pytest.mark.parametrize("function", [*ALL_MOVE, *NOT_ALL])
def test_values_and_gradients(function: Callable[..., Any]) -> None:
    compiled = columba.compile(function, backend="torch", fullgraph=False)
    for nodes, count in ((6, 16), (6, 16), (5, 28), (9, 8), (1, 4), (3, 4), (7, 40)):
        assert_same(compiled, function, arguments(nodes, count))
    x, index, *others = arguments(6, 16)
    for n in range(3):  # the same tensor, with other numbers
        index[n % 2, 3] = 5 - index[n % 2, 3]
        assert_same(compiled, function, (x, index, *others))


@pytest.mark.parametrize("function", ALL_MOVE)
def test_what_is_left_to_pytorch(function: Callable[..., Any]) -> None:
    """No tensor holds all edges, and one trace holds for graphs of all sizes."""
    compiled = columba.compile(function, backend="torch")
    for nodes, count in ((6, 16), (5, 28), (9, 8), (6, 0), (8, 12)):
        if count or function is not by_chunks:  # where PyTorch gives one chunk
            assert_same(compiled, function, arguments(nodes, count))
    assert len(compiled._own) == 1
    assert taken_apart(compiled) == []


@pytest.mark.parametrize("function", [in_groups, side_by_side, both_directions])
def test_pieces_of_different_sizes_are_errors_as_ever(function: Callable[..., Any]) -> None:
    compiled = columba.compile(function, backend="torch")
    assert_same(compiled, function, arguments(6, 16))
    for count in (17, 19):
        for one in (function, compiled):
            with pytest.raises(RuntimeError):
                one(*arguments(6, count))
    assert_same(compiled, function, arguments(6, 20))


def test_kernels() -> None:
    compiled = columba.compile(side_by_side, backend="cpp", fullgraph=True)
    for nodes, count in ((6, 16), (9, 28), (2, 0)):
        assert_same(compiled, side_by_side, arguments(nodes, count))
    assert len(compiled._own) == 1
    assert taken_apart(compiled) == []


def of_eight(x: Tensor, edge_index: Tensor, w: Tensor, f: Tensor) -> Tensor:
    src, dst = edge_index
    out = x * 0
    for n, (part, at) in enumerate(zip(x[src].split(8), dst.split(8), strict=True)):
        out = out + added(x, at, part * (n + 1))
    return out + added(x, dst, torch.cat(f.split(8)[::-1]))


def of_half_as_many(x: Tensor, edge_index: Tensor, w: Tensor, f: Tensor) -> Tensor:
    src, dst = edge_index
    out, half = x * 0, src.shape[0] // 2
    for n, (part, at) in enumerate(zip(x[src].split(half), dst.split(half), strict=True)):
        out = out + added(x, at, part * (n + 1))
    return out


def three(x: Tensor, edge_index: Tensor, w: Tensor, f: Tensor) -> Tensor:
    src, dst = edge_index
    out = x * 0
    for n, (part, at) in enumerate(zip((x[src] * f).chunk(3), dst.chunk(3), strict=True)):
        out = out + added(x, at, part * (n + 1))
    return out


@pytest.mark.parametrize(("function", "traces"), [(of_eight, 4), (of_half_as_many, 2), (three, 4)])
def test_how_many_parts_there_are_is_depended_on(function: Callable[..., Any], traces: int) -> None:
    """Python sees them: were there more in a later call, the last ones would be left out."""
    compiled = columba.compile(function, backend="torch", fullgraph=False)
    for count in (16, 12, 15, 17, 24, 23, 9, 30, 5, 4, 16, 31):
        assert_same(compiled, function, arguments(6, count))
    assert len(compiled._own) <= traces
