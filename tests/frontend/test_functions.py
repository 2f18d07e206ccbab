"""Functions of ``torch.nn``, of places in a row, and of integers: values and gradients are those of eager code."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from compiled import assert_same, leaf
from eager_graphs import RELATIONS, square_graphs
from torch import Tensor, nn

import columba

GRAPH = square_graphs()["random"]
N = GRAPH.num_nodes


class Cells(nn.Module):
    """Recurrent cells whose input is what neighbours send, and whose state is given, computed, or none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.lstm = nn.GRUCell(4, 6), nn.LSTMCell(4, 6)
        self.tanh, self.relu = nn.RNNCell(4, 6), nn.RNNCell(4, 6, bias=False, nonlinearity="relu")

    def forward(self, g: columba.Graph, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        m = g.edges.sum(g.edges.src(x))
        hidden, cell = self.lstm(m, (h, c))
        return self.gru(m, h), hidden, cell, self.tanh(m, hidden), self.relu(x, h), self.gru(m), self.lstm(m)[1]


@pytest.mark.unoptimized
def test_recurrent_cells() -> None:
    cells = Cells().double()
    args = [GRAPH, leaf(N, 4), leaf(N, 6, seed=1), leaf(N, 6, seed=2)]
    for backend in ("torch", "cpp"):
        assert_same(columba.compile(cells, backend=backend), cells, args, list(cells.parameters()))


def test_recurrent_cells_under_autocast() -> None:
    """Products are in 16 bits, what is added to the state is not."""
    cells = Cells()
    args = [GRAPH, *(leaf(N, n, dtype=torch.float32) for n in (4, 6, 6))]
    compiled = columba.compile(cells, backend="torch")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wanted, got = cells(*args), compiled(*args)
    for w, g in zip(wanted, got, strict=True):
        assert g.dtype is w.dtype
        torch.testing.assert_close(g, w, atol=0.05, rtol=0.05)


def test_cross_products() -> None:
    def products(g: columba.Graph, x: Tensor, y: Tensor, axis: Tensor) -> tuple[Tensor, ...]:
        a, b = g.edges.src(x), g.edges.dst(y)
        each = (
            torch.cross(a, b, dim=1),
            torch.linalg.cross(a, b),
            a.cross(b, -1),
            torch.linalg.cross(a.unsqueeze(-1) * axis, b.unsqueeze(-1), dim=1).sum(-1),
            torch.linalg.cross(a, axis.expand_as(a)),
        )
        return tuple(g.edges.sum(c) for c in each)

    args = [GRAPH, leaf(N, 3), leaf(N, 3, seed=1), leaf(3, seed=2)]
    assert_same(columba.compile(products, backend="torch"), products, args, [])
    x = leaf(N, 4)
    with pytest.raises(Exception, match="must have 3 elements"):
        columba.compile(lambda g, x: g.edges.sum(torch.linalg.cross(g.edges.src(x), g.edges.dst(x))), backend="torch")(
            GRAPH, x
        )


def functions(x: Tensor, y: Tensor) -> list[Tensor]:
    """Of rows of 6 features."""
    cube = x.view(-1, 2, 3)
    values, places = x.topk(3, dim=-1)
    least, _ = torch.topk(cube, 2, 2, largest=False)
    weight, bias = torch.linspace(0.5, 2, 6, dtype=x.dtype), torch.linspace(-1, 1, 6, dtype=x.dtype)
    return [
        F.glu(x) * F.glu(cube, 1)[:, 0],
        F.group_norm(x, 3, weight, bias),
        F.group_norm(cube, 2, weight[:2], None, 0.1),
        F.cosine_similarity(x, y, -1),
        F.cosine_similarity(cube, y.view(-1, 2, 3), dim=1),
        F.cosine_similarity(x, bias, dim=-1, eps=0.5),
        F.pad(x, (1, 2)),
        F.pad(x, (-1, 1), value=2.5),
        F.pad(cube, (0, 2, 1, -1), "constant", 0.5),
        torch.roll(x, 2, -1) * y,
        torch.roll(cube, (1, -1), dims=(1, 2)),
        x.prod(-1, keepdim=True) + cube.prod(1)[:, :1] + x[:, :5].prod(1, keepdim=True),
        values * places,
        least,
        x.argmax(-1) + cube.argmin(1).sum(-1) + x.max(1).indices,
        x.max(dim=-1, keepdim=True).values * x.min(dim=-1, keepdim=True).indices,
        torch.where((x > 0).any(-1, keepdim=True) ^ (cube > -1).all((1, 2)).unsqueeze(-1), x, y),
        (x > 0).sum(-1) + (x > y).int().sum(-1),
        torch.atan2(x, y) + torch.atan(x) + torch.tan(y) + torch.sinh(x) + torch.cosh(y),
        torch.floor(x) * y + torch.round(4 * y) * x + x.ceil() - y.trunc() + torch.frac(3 * x),
        F.hardswish(3 * x) + F.hardsigmoid(2 * y) + F.celu(x, 0.5) + F.hardshrink(x) + F.threshold(y, 0.1, 0.2) + F.tanhshrink(x),
        torch.where(torch.logical_and(x > 0, torch.round(y)), x.nan_to_num(), y) + torch.isfinite(1 / y) * x,
    ]  # fmt: skip


def layer(g: columba.Graph, h: Tensor, w: Tensor) -> list[Tensor]:
    """On edges, and on what every edge has of its relation."""
    e = g.edges
    found = functions(e.src(h) * e.rel(w), e.dst(h) + 0.1)
    of_weights = functions(e.rel(w) * 2, e.rel(w) + 1)
    return [e.sum(f) if f.is_floating_point() else e.sum(f.double()) for f in (*found, *of_weights)]


def test_functions_on_edges_and_weights() -> None:
    assert_same(columba.compile(layer, backend="torch"), layer, [GRAPH, leaf(N, 6), leaf(RELATIONS, 6, seed=1)])


@pytest.mark.unoptimized
def test_kernels_of_functions() -> None:
    """Those of single numbers are compiled for extreme ones."""

    def on_nodes(g: columba.Graph, h: Tensor, x: Tensor) -> list[Tensor]:
        return functions(g.nodes(h), g.nodes(x))[:18]

    args = [GRAPH, leaf(N, 6), leaf(N, 6, seed=1)]
    compiled = columba.compile(on_nodes, backend="cpp")
    for got, wanted in zip(compiled(*args), on_nodes(*args), strict=True):
        torch.testing.assert_close(got, wanted)
    assert_same(*(lambda *a, f=f: [x for x in f(*a) if x.is_floating_point()] for f in (compiled, on_nodes)), args)


def test_topk_in_order() -> None:
    """NaN is larger than every number; infinities that were taken do not come again."""
    inf, nan = float("inf"), float("nan")
    h = torch.tensor([[1.0, nan, 3.0, -inf], [-inf, -inf, 2.0, inf], [nan, nan, inf, 0.0]], requires_grad=True)
    g = columba.Graph(torch.tensor([[0], [1]]), num_nodes=3)

    @columba.compile(backend="torch")
    def best(g: columba.Graph, h: Tensor) -> tuple[Tensor, ...]:
        x = g.nodes(h)
        return *x.topk(3), *x.topk(4, largest=False), x.argmax(-1), x.argmin(-1)

    most, places, least, last, first, lowest = best(g, h)
    torch.testing.assert_close(most, h.topk(3).values, equal_nan=True)
    torch.testing.assert_close(least, h.topk(4, largest=False).values, equal_nan=True)
    assert places.tolist() == [[1, 2, 0], [3, 2, 0], [0, 1, 2]]
    assert last.tolist() == [[3, 0, 2, 1], [0, 1, 2, 3], [3, 2, 0, 1]]
    assert first.tolist() == [1, 3, 0]
    assert lowest.tolist() == [1, 0, 0]
    most[:, 1].sum().backward()
    assert h.grad is not None
    assert h.grad.tolist() == [[0, 0, 1, 0], [0, 0, 1, 0], [0, 1, 0, 0]]


def counts(g: columba.Graph, h: Tensor, t: Tensor) -> tuple[Tensor, ...]:
    e = g.edges
    positive = (e.src(h) > 0).any(-1)
    return (
        e.sum(e.src(h)) * e.sum(positive).unsqueeze(-1),
        e.sum(positive),
        e.sum(e.src(h) > e.dst(h), to="dst_rel"),
        e.max(positive),
        e.min(positive, to="src"),
        g.nodes.sum(h > 0),
        e.sum(e.src(t)),
        e.max(e.src(t), to="one"),
        e.min(e.src(t)),
    )


def test_counts_and_integers() -> None:
    numbers = torch.randint(-5, 2**31 - 1, (N,), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    args = [GRAPH, leaf(N, 3), numbers]
    compiled = columba.compile(counts, backend="cpp")
    for got, wanted in zip(compiled(*args), counts(*args), strict=True):
        torch.testing.assert_close(got, wanted)
    assert [x.dtype for x in compiled(*args)] == [x.dtype for x in counts(*args)]
    dtypes = [torch.int64, torch.int64, torch.bool, torch.bool, torch.int64, torch.int32, torch.int32, torch.int32]
    assert [x.dtype for x in counts(*args)[1:]] == dtypes
    g = columba.Graph(torch.tensor([[0, 1, 2], [1, 1, 0]]), num_nodes=3)
    mask = torch.tensor([True, True, False])
    found = columba.compile(lambda g, m: (g.edges.sum(g.edges(m)), g.edges.min(m)), backend="torch")(g, mask)
    assert [x.tolist() for x in found] == [[0, 2, 0], [False, True, False]]


class Norms(nn.Module):
    """Statistics of all nodes that come back to them: PairNorm, GraphNorm, and the largest norm."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias, self.share = (nn.Parameter(torch.linspace(0.5, 1.5, 6)) for _ in range(3))

    def forward(self, g: columba.Graph, h: Tensor) -> tuple[Tensor, ...]:
        n = g.nodes
        centred = h - n.mean(h)
        pair = centred / (1e-5 + n.mean(centred.square().sum(-1))).sqrt()
        graph = h - self.share * n.mean(h)
        graph = self.weight * graph / (n.mean(graph**2) + 1e-5).sqrt() + self.bias
        whole = (h - n.mean(h.mean(-1))) * torch.rsqrt(n.sum(h.square()).sum() + 1)
        message = g.edges.mean(g.edges.src(pair))
        return pair, graph, whole, message - n.mean(message), h / n.max(h.norm(dim=-1)), n.sum(h.square())


@pytest.mark.unoptimized
def test_statistics_of_all_nodes() -> None:
    norms = Norms().double()
    for backend in ("torch", "cpp"):
        assert_same(columba.compile(norms, backend=backend), norms, [GRAPH, leaf(N, 6)], list(norms.parameters()))


REFUSED = {
    "topk of rows": (lambda x: x.topk(2, 0).values, "topk over dimension 0 mixes the rows"),
    "argmax": (lambda x: x * x.argmax(), "argmax over all dimensions mixes the rows"),
    "pad rows": (lambda x: F.pad(x, (0, 0, 1, 1)), "pad over dimension 0 mixes the rows"),
    "pad mode": (lambda x: F.pad(x[:, None], (1, 1), "reflect"), "mode='reflect'; join slices"),
    "roll rows": (lambda x: x.roll(1, 0), "roll over dimension 0 mixes the rows"),
    "roll": (lambda x: torch.roll(x, 1), "roll without dims mixes the rows"),
    "prod": (lambda x: x * x.prod(), "prod over all dimensions mixes the rows"),
    "max of rows": (lambda x: x * x.max(0).values, "max over dimension 0 mixes the rows"),
    "glu": (lambda x: F.glu(x, 0), "glu over dimension 0 mixes the rows"),
    "round": (lambda x: torch.round(x, decimals=2), r"decimals are not 0; write torch\.round"),
    "fmod": (lambda x: torch.fmod(x, 2.0), r"'fmod' is not supported.*torch\.trunc for fmod"),
    "remainder": (lambda x: x % 2, r"'remainder' is not supported.*torch\.floor\(x / y\)"),
    "sort": (lambda x: x.sort(-1).values, r"'sort' is not supported.*torch\.topk"),
    "flip": (lambda x: x.flip(-1), "'flip' is not supported.*torch.cat"),
    "gather": (lambda x: x.gather(1, x.argmax(-1, keepdim=True)), "'gather' is not supported.*0-1 matrix"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_what_to_do(name: str) -> None:
    function, message = REFUSED[name]
    compiled = columba.compile(lambda g, h: g.edges.sum(g.edges.src(function(g.nodes(h)))), backend="torch")
    with pytest.raises(columba.TraceError, match=rf"test_functions\.py.*{message}"):
        compiled(columba.Graph(torch.tensor([[0, 1, 2], [1, 2, 3]])), torch.ones(4, 6))
