"""Every torch function that a program may contain: traced, and run level by level, it computes what torch computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compiled import assert_same, leaf
from eager_graphs import RELATIONS, square_graphs
from torch import Tensor

import columba

pytestmark = pytest.mark.unoptimized


GRAPH = square_graphs()["random"]

Function = Callable[..., Any]

POINTWISE: dict[str, Function] = {
    "operators": lambda x, y: (2 * x - y / 3 + (1 - y) * x) / (x * x + 2) - (-x) + 3 / (y * y + 1),
    "power": lambda x, y: x**2 + (x.abs() + 1) ** 1.5 + torch.pow(x.abs() + 1, y) + 2.0**y,
    "exponentials": lambda x, y: (
        x.exp() + torch.expm1(y) + (x.abs() + 1).log() + torch.log1p(y.abs()) + (x * x + 1).sqrt()
    ),
    "roots": lambda x, y: torch.rsqrt(x * x + 1) + torch.reciprocal(y * y + 1) + x.square(),
    "waves": lambda x, y: x.sin() + y.cos() + torch.tanh(x) + torch.erf(y) + y.sigmoid(),
    "rectifiers": lambda x, y: (
        F.relu(x) + F.leaky_relu(y, 0.3) + F.elu(x, 0.7) + F.relu6(3 * x) + F.hardtanh(y) + F.selu(x)
    ),
    "smooth": lambda x, y: F.gelu(x) + F.gelu(y, approximate="tanh") + F.silu(x) + F.softplus(y, 2.0) + F.mish(x),
    "more smooth": lambda x, y: F.logsigmoid(x) + F.softsign(y),
    "extrema": lambda x, y: (
        torch.maximum(x, y) + torch.minimum(x, 2 * y) + x.clamp(-0.5, 0.5) + torch.clamp(y, min=0.1)
    ),
    "clamp by tensors": lambda x, y: torch.clamp(x, min=-y.abs(), max=y.abs()) + x.clamp_min(0.2) + y.clamp_max(0.3),
    "choices": lambda x, y: (
        torch.where((x > 0) & ~(y > 0.5), x, y) + torch.where(x > y, 1.0, x) + x.masked_fill(y <= 0, 2.5)
    ),
    "comparisons": lambda x, y: (
        (x > y).double() * x + (x != y).to(x.dtype) + torch.lt(x, 0.3).double() + (x >= 0).type_as(y)
    ),
    "logic": lambda x, y: torch.where(torch.logical_or(x > 1, y > 1) ^ (x < 0), x, y),
    "alpha": lambda x, y: torch.add(x, y, alpha=3) + torch.sub(y, x, alpha=0.5) + torch.rsub(x, y),
    "lerp": lambda x, y: torch.lerp(x, y, 0.25) + torch.lerp(x, y, y.sigmoid()),
    "like": lambda x, y: x * torch.ones_like(y) + torch.zeros_like(x) + torch.full_like(x, 2.0),
    "prelu": lambda x, y: (
        F.prelu(x, torch.tensor([0.2], dtype=x.dtype)) + F.prelu(y, torch.linspace(0.1, 0.4, 6, dtype=x.dtype))
    ),
}

FEATURES: dict[str, Function] = {
    "sums": lambda x, y: x.sum(-1, keepdim=True) * y + x.mean(1, keepdim=True) + y.amax(1, keepdim=True),
    "extrema": lambda x, y: (x.max(dim=-1).values + y.min(dim=1)[0] + y.amin(-1)).unsqueeze(-1) * x,
    "variance": lambda x, y: x.var(-1, keepdim=True) * y + y.std(1, unbiased=False, keepdim=True),
    "norms": lambda x, y: (
        x / x.norm(dim=-1, keepdim=True) + torch.linalg.vector_norm(y, dim=1, keepdim=True) + x.norm(1, -1, True)
    ),
    "normalize": lambda x, y: F.normalize(x, dim=-1) + F.layer_norm(y, (6,)) + F.rms_norm(x, (6,)),
    "softmax": lambda x, y: x.softmax(-1) + F.log_softmax(y, dim=1) + torch.logsumexp(x, -1, keepdim=True),
}

SHAPES: dict[str, Function] = {
    "views": lambda x, y: (x.view(x.shape[0], 2, 3) * y.reshape(-1, 2, 3)).flatten(1),
    "unflatten": lambda x, y: (x.unflatten(1, (3, 2)).transpose(1, 2) * y.view(-1, 2, 3)).reshape(y.shape),
    "permute": lambda x, y: (
        x.view(x.shape[0], 3, 2).permute(0, 2, 1).flatten(1) + y.view(-1, 3, 2).mT.reshape(y.shape[0], 6)
    ),
    "movedim": lambda x, y: x.view(x.shape[0], 3, 2).movedim(1, 2).flatten(1) * y,
    "squeeze": lambda x, y: x.unsqueeze(1).squeeze(1) + y.unsqueeze(-1).squeeze(-1),
    "expand": lambda x, y: x[:, :1].expand(-1, 6) * y + y[:, 2:3].expand_as(y),
    "slices": lambda x, y: torch.cat([x[:, ::2], y[:, 1:4], x[..., -1:]], dim=-1),
    "items": lambda x, y: torch.stack([x[:, 0], y[:, -1], x[:, 2]], dim=1) + x[:, None, 0],
    "split": lambda x, y: x.split(2, dim=1)[1] * y.chunk(3, dim=-1)[2] + x.split([1, 2, 3], dim=1)[1],
    "narrow": lambda x, y: x.narrow(1, 2, 3) + torch.stack(y.unbind(1)[1:4], 1) + x.select(1, 0).unsqueeze(1),
    "clone": lambda x, y: x.clone() + y.contiguous(),
}

W = torch.randn(6, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
B = torch.randn(4, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
H = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64)

PRODUCTS: dict[str, Function] = {
    "matmul": lambda x, y: x @ W + torch.matmul(y, W) + torch.mm(x, W),
    "linear": lambda x, y: F.linear(x, W.t(), B) + torch.addmm(B, y, W) + columba.linear(x, W),
    "vector": lambda x, y: (
        (x @ W[:, 0]).unsqueeze(-1) + torch.mv(y, W[:, 1]).unsqueeze(1) + F.linear(x, W[:, 2]).unsqueeze(-1)
    ),
    "heads": lambda x, y: torch.einsum("nhi,hij->nhj", x.view(-1, 2, 3), H).flatten(1) + y,
    "heads by matmul": lambda x, y: (x.view(x.shape[0], 2, 1, 3) @ H).flatten(1) * y,
    "dots": lambda x, y: (
        torch.einsum("nk,nk->n", x, y).unsqueeze(-1) * x
        + torch.einsum("nhk,nhk->nh", x.view(-1, 2, 3), y.view(-1, 2, 3))[:, :1]
    ),
    "outer": lambda x, y: torch.einsum("ni,nj->nij", x, y[:, :2]).flatten(1),
    "rows times rows": lambda x, y: torch.bmm(x.view(-1, 2, 3), y.view(-1, 3, 2)).flatten(1),
    "three": lambda x, y: (
        torch.einsum("ni,ij,nj->n", x, W, y[:, :4]).unsqueeze(-1) + torch.einsum("nij->nj", x.view(-1, 2, 3))[:, :1]
    ),
    "typed out": lambda x, y: (
        columba.linear(x, W.view(6, 2, 2)).flatten(1) + columba.linear(y.view(-1, 2, 3), H[0]).sum((1, 2)).unsqueeze(-1)
    ),
}


def check(function: Function, backend: str) -> None:
    def layer(g: columba.Graph, h: Tensor, w: Tensor) -> Tensor:
        e = g.edges
        return e.sum(function(e.src(h) * e.rel(w), e.dst(h) + 0.1))

    args = [GRAPH, leaf(GRAPH.num_nodes, 6), leaf(RELATIONS, 6, seed=1)]
    assert_same(columba.compile(layer, backend=backend), layer, args)


ALL = {**{f"pointwise: {k}": v for k, v in POINTWISE.items()}, **{f"features: {k}": v for k, v in FEATURES.items()}}
ALL |= {**{f"shapes: {k}": v for k, v in SHAPES.items()}, **{f"products: {k}": v for k, v in PRODUCTS.items()}}


@pytest.mark.parametrize("name", ALL)
def test_programs_mean_what_torch_means(name: str) -> None:
    check(ALL[name], "torch")


@pytest.mark.parametrize("group", ["pointwise", "features", "shapes", "products"])
def test_kernels_compute_what_torch_computes(group: str) -> None:
    functions = [f for name, f in ALL.items() if name.startswith(group)]

    def layer(g: columba.Graph, h: Tensor, w: Tensor) -> list[Tensor]:
        e = g.edges
        return [e.sum(f(e.src(h) * e.rel(w), e.dst(h) + 0.1)) for f in functions]

    args = [GRAPH, leaf(GRAPH.num_nodes, 6), leaf(RELATIONS, 6, seed=1)]
    assert_same(columba.compile(layer, backend="cpp"), layer, args)


def test_casts() -> None:
    def layer(g: columba.Graph, h: Tensor) -> Tensor:
        e = g.edges
        return e.sum(
            (e.src(h).double() * 3 + e.dst(h).to(torch.float64).type_as(h)).float() + (e.src(h) > 0).to(h.dtype)
        )

    assert_same(columba.compile(layer, backend="cpp"), layer, [GRAPH, leaf(GRAPH.num_nodes, 6, dtype=torch.float32)])


def test_dropout() -> None:
    @columba.compile(backend="cpp")
    def dropped(g: columba.Graph, h: Tensor) -> Tensor:
        return F.dropout(g.nodes(h), 0.25) * 1.0

    graph = columba.Graph(torch.tensor([[0], [1]]), num_nodes=4000)
    h = torch.ones(4000, 5, requires_grad=True)
    torch.manual_seed(0)
    first = dropped(graph, h)
    second = dropped(graph, h)
    torch.manual_seed(0)
    assert torch.equal(dropped(graph, h), first)
    assert not torch.equal(first, second)
    kept = first != 0
    assert abs(float(kept.double().mean()) - 0.75) < 0.01
    torch.testing.assert_close(first[kept], torch.full_like(first[kept], 1 / 0.75))
    first.sum().backward()
    torch.testing.assert_close(h.grad, torch.where(kept, 1 / 0.75, 0.0))


def test_reductions_over_the_whole_graph_feed_back() -> None:
    def layer(g: columba.Graph, h: Tensor) -> tuple[Tensor, Tensor]:
        mean = g.nodes.mean(h)
        scale = torch.sigmoid(mean @ W[:, :1])
        return g.nodes(h) * scale, (mean @ W).relu()

    assert_same(columba.compile(layer, backend="cpp"), layer, [GRAPH, leaf(GRAPH.num_nodes, 6)])


def test_reductions_over_the_whole_graph_meet_rows_that_their_use_declares() -> None:
    """What ``h`` and ``x`` have a row for is said by the reduction alone, or comes later."""

    def layer(g: columba.Graph, h: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        mean = g.nodes.mean(h)
        centred = h - mean
        scaled = centred / (g.nodes.mean(centred**2) + 1e-5).sqrt()
        norm = h.norm(dim=-1)
        total = g.edges.sum(x.exp(), to="one")
        context = torch.cat([h, mean.expand(h.shape[0], -1), mean.unsqueeze(0).expand(g.num_nodes, -1)], -1)
        messages = g.edges.src(h - g.edges.mean(x, to="one")) * (x / total)
        return (
            scaled,
            mean - h,
            h / g.nodes.max(norm).clamp(min=1),
            torch.where(h > mean, h, mean),
            context + mean.expand_as(h).sum(-1, keepdim=True),
            g.edges.sum(messages),
            x - total,
            h - g.nodes.mean(h).mean(),
        )

    args = [GRAPH, leaf(GRAPH.num_nodes, 6), leaf(GRAPH.num_edges, 6, seed=1)]
    assert_same(columba.compile(layer, backend="cpp"), layer, args)
    small = columba.compile(lambda g, h: h - g.nodes.mean(h), backend="torch")
    g = columba.Graph(torch.tensor([[0], [1]]), num_nodes=3)
    assert small(g, torch.tensor([[1.0], [2.0], [6.0]])).tolist() == [[-2.0], [-1.0], [3.0]]
    assert small(columba.Graph(torch.tensor([[0], [0]]), num_nodes=1), torch.tensor([[4.0]])).tolist() == [[0.0]]


@pytest.mark.parametrize("to", ["dst", "src", "dst_rel", "src_rel", "rel", "one"])
@pytest.mark.parametrize("kind", ["sum", "mean", "max", "min"])
def test_reductions(kind: str, to: str) -> None:
    def layer(g: columba.Graph, h: Tensor) -> Tensor:
        e = g.edges
        return getattr(e, kind)(e.src(h) * e.dst(h), to=to)

    for graph in square_graphs().values():
        assert_same(columba.compile(layer, backend="torch"), layer, [graph, leaf(graph.num_nodes, 3)])


@pytest.mark.parametrize("by", ["dst", "src", "dst_rel", "src_rel"])
def test_softmax_and_degree(by: str) -> None:
    def layer(g: columba.Graph, h: Tensor) -> Tensor:
        e = g.edges
        alpha = e.softmax(40 * e.src(h) * e.dst(h), by=by)
        return e.sum(alpha * e.degree(by, dtype=h.dtype).unsqueeze(-1))

    for graph in square_graphs().values():
        assert_same(columba.compile(layer, backend="cpp"), layer, [graph, leaf(graph.num_nodes, 3)])


def test_degrees_divide_without_harm_to_nodes_that_have_none() -> None:
    """Graph convolution's norm: isolated nodes, whose degree is 0, have gradients of 0."""

    def layer(g: columba.Graph, h: Tensor, w: Tensor) -> Tensor:
        e = g.edges
        norm = e.degree("src", dtype=h.dtype).rsqrt() * e.degree("dst", dtype=h.dtype).rsqrt()
        return e.sum(e.src(h @ w) * norm.unsqueeze(-1))

    for graph in square_graphs().values():
        assert_same(columba.compile(layer, backend="cpp"), layer, [graph, leaf(graph.num_nodes, 3), leaf(3, 2)])


def test_large_scores_do_not_overflow() -> None:
    def layer(g: columba.Graph, s: Tensor) -> Tensor:
        return g.edges.softmax(g.edges(s))

    scores = torch.tensor([1e4, 1e4 - 1, -1e4, math.log(3)], dtype=torch.float64)
    graph = columba.Graph(torch.tensor([[0, 0, 0, 1], [1, 1, 1, 0]]))
    assert_same(columba.compile(layer, backend="cpp"), layer, [graph, scores.requires_grad_()])
