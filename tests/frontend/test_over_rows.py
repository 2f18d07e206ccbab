"""Reductions over all rows of a space are part of the program, and give what PyTorch gives, also of no rows and of what is not finite."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compiled import assert_same, leaf, tensors_of
from torch import Tensor, nn

import columba

inf, nan = math.inf, math.nan


def ring(nodes: int) -> columba.Graph:
    """Each node has an edge to the next one, and one to itself."""
    ids = torch.arange(nodes)
    return columba.Graph(torch.stack([torch.cat([ids, ids]), torch.cat([ids, ids.roll(1)])]), num_nodes=nodes)


def programs(function: Any) -> list[Any]:
    """The programs of the only trace of a compiled function."""
    (only,) = function._own
    return list(only.trace.parts)


Function = Callable[[Tensor], Tensor]

SUMS: dict[str, Function] = {
    "sums": lambda h: h - h.sum() + h.sum(0) * h.sum((0, 1), keepdim=True) + torch.sum(h, dim=-2, keepdim=True),
    "means": lambda h: h - h.mean() + h.mean(0) * h.mean(dim=(-1, 0)) + h.mean(dim=0, keepdim=True),
    "one number a row": lambda h: h * h[:, 0].mean() + h.sum(-1).sum(0) + h.pow(2).sum(-1).mean(),
    "three dimensions": lambda h: (h.view(-1, 2, 2) * h.view(-1, 2, 2).mean((0, 2), keepdim=True)).flatten(1),
    "variance": lambda h: h * h.var(0) + h.var(0, unbiased=False, keepdim=True) * h.var(dim=(0, 1), correction=2),
    "spread": lambda h: h / (h.std(unbiased=False) + 1e-5) + h.std(0) * h.std(correction=0.5) + h.std(False),
    "both": lambda h: h * torch.var_mean(h, 0)[0] - torch.std_mean(h)[1] + sum(torch.std_mean(h, 0, keepdim=True)),
    "by hand": lambda h: h - h.sum(0) / h.size(0) + h.size(0) * h / 7,
    "norms": lambda h: h / h.norm() + h / h.norm(dim=0, keepdim=True) + h.norm(1) * torch.linalg.vector_norm(h, 3, 0),
    "softmax": lambda h: h * h.softmax(0) + torch.log_softmax(h, -2),
    "counts": lambda h: h * (h > 1).any(0) + h * (h > -9).all() + h * (h > 0).sum(0) + (h > 0).sum(0).double().mean(),
}
EXTREMA: dict[str, Function] = {
    "extrema": lambda h: h * h.amax(0) + h.amin((0, 1)) * h.max() + h.min() + h.amax(0, keepdim=True),
    "largest": lambda h: h * h.norm(inf, 0) + torch.linalg.vector_norm(h, -inf, dim=0),
}


class Reduced(nn.Module):
    """Reduces rows of nodes that were computed, what was passed in, and rows of edges; and goes on with each.

    Every function reduces both of the former, or, ``in_turn``, one of them: programs are then half as long.
    """

    def __init__(self, functions: dict[str, Function], in_turn: bool = False) -> None:
        super().__init__()
        self.functions = functions
        self.in_turn = in_turn

    def forward(self, g: columba.Graph, x: Tensor) -> list[Tensor]:
        h = g.edges.sum(g.edges.src(x))
        found = []
        for n, function in enumerate(self.functions.values()):
            if not self.in_turn or n % 2 == 0:
                found.append(g.edges.sum(g.edges.src(function(h))))
            if not self.in_turn or n % 2 == 1:
                found.append(g.edges.sum(g.edges.dst(function(x))))
        message = g.edges.src(x) - g.edges.dst(h)
        return [*found, g.edges.sum(message - message.mean(0)), h.mean(0), h.var()]


@pytest.mark.unoptimized
@pytest.mark.parametrize(
    ("backend", "in_turn"), [("torch", False), ("cpp", True), pytest.param("cpp", False, marks=pytest.mark.slow)]
)
def test_values_and_gradients(backend: str, in_turn: bool) -> None:
    module = Reduced({**SUMS, **EXTREMA}, in_turn)
    function = columba.compile(lambda g, x: module(g, x), backend=backend)
    for nodes in (5, 9, 5, 2):
        assert_same(function, module, [ring(nodes), leaf(nodes, 4)])
    assert len(programs(function)) == 1


def same_kinds(got: Any, wanted: Any) -> None:
    for g, w in zip(tensors_of(got), tensors_of(wanted), strict=True):
        torch.testing.assert_close(g, w, equal_nan=True)


@pytest.mark.parametrize(
    ("nodes", "in_turn"),
    [(0, True), (1, True), *(pytest.param(n, False, marks=pytest.mark.slow) for n in (0, 1))],
)
@pytest.mark.unoptimized
@pytest.mark.filterwarnings("ignore:.*degrees of freedom is <= 0")
def test_no_rows_and_one(nodes: int, in_turn: bool) -> None:
    module = Reduced(SUMS, in_turn)
    functions: list[Function] = [lambda h: h.mean(), lambda h: h.mean(0), lambda h: h.sum(0), lambda h: h.std(0)]
    functions += [lambda h: h.var(0, unbiased=False), lambda h: h.norm(dim=0), lambda h: torch.var_mean(h)[0]]
    functions += [lambda h: (h > 0).all(0), lambda h: (h > 0).any(), lambda h: (h > 0).sum(0)]

    def results(g: columba.Graph, x: Tensor) -> list[Tensor]:
        h = g.edges.sum(g.edges.src(x))
        return [f(h) for f in functions]

    for backend in ("torch", "cpp"):
        for eager in (module, results):
            compiled = columba.compile(lambda g, x, eager=eager: eager(g, x), backend=backend)
            for n in (nodes, 4, nodes):  # what was traced for few rows, and for several
                x = leaf(n, 4)
                got, wanted = compiled(ring(n), x), eager(ring(n), x)
                same_kinds(got, wanted)
                pairs = [(g, w) for g, w in zip(got, wanted, strict=True) if w.requires_grad]
                found, expected = (
                    torch.autograd.grad([p[i] for p in pairs], x, [torch.ones_like(w) for _, w in pairs])
                    for i in (0, 1)
                )
                same_kinds(found, expected)


def test_extrema_of_nothing_are_errors() -> None:
    def largest(g: columba.Graph, x: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(x)).amax(0)

    function = columba.compile(largest, backend="torch")
    for nodes in (3, 0, 3):
        if nodes:
            assert_same(function, largest, [ring(nodes), leaf(nodes, 2)])
            continue
        with pytest.raises((IndexError, RuntimeError), match=r"test_over_rows.*zero-size dimension"):
            function(ring(0), leaf(0, 2))


@pytest.mark.parametrize("value", [inf, -inf, nan, 1e200, 5e-324])
def test_what_is_not_finite_huge_or_tiny(value: float) -> None:
    """A column that holds it, alone and twice; the others do not change."""
    x = torch.tensor([[0.0, 1.0, 2.0], [1.0, -1.0, 2.0], [0.0, 3.0, 2.0], [2.0, 0.5, 2.0]], dtype=torch.float64)
    x[1, 0] = x[3, 1] = x[0, 1] = value
    functions: list[Function] = [
        lambda h: h.mean(0), lambda h: h.sum((0, 1)), lambda h: h.amax(0), lambda h: h.amin(), lambda h: h.norm(dim=0), lambda h: h.max(),
        lambda h: h.norm(1), lambda h: h.norm(inf, 0), lambda h: h.isnan().any(0), lambda h: (h > 0).sum(0),
    ]  # fmt: skip
    if math.isfinite(value):
        functions += [lambda h: h.std(0), lambda h: h.var()]

    def results(g: columba.Graph, x: Tensor) -> list[Tensor]:
        h = g.nodes(x)
        return [*(f(h) for f in functions), g.edges.sum(g.edges.src(h))]

    compiled = columba.compile(results, backend="torch")
    x.requires_grad_()
    got, wanted = compiled(ring(4), x), results(ring(4), x)
    same_kinds(got, wanted)
    for g, w in zip(got, wanted, strict=True):
        if w.requires_grad:
            directions = torch.ones_like(w)
            found, expected = (torch.autograd.grad(y, x, directions, retain_graph=True)[0] for y in (g, w))
            torch.testing.assert_close(found, expected, equal_nan=True)


def test_many_rows_are_summed_as_exactly_as_in_pytorch() -> None:
    """Numbers around 1000 that differ by 1: the mean of squares less the square of the mean would be off by a tenth."""
    rows = 100_000
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(2)) + torch.tensor([1000.0, 0.0, -3.0])
    ids = torch.arange(rows)
    g = columba.Graph(torch.stack([ids, ids]), num_nodes=rows)

    def statistics(g: columba.Graph, x: Tensor) -> list[Tensor]:
        h = g.edges.sum(g.edges.src(x))
        return [h.mean(0), h.sum(0), h.std(0), h.var(), h.mean(), h.norm(), h.norm(1, 0)]

    found = columba.compile(statistics, backend="cpp")(g, x)
    for got, plain, exact in zip(found, statistics(g, x), statistics(g, x.double()), strict=True):
        error, allowed = (got - exact).abs(), (plain - exact).abs()
        assert bool((error <= torch.maximum(allowed, exact.abs() * 1.2e-7)).all())


def test_dtypes() -> None:
    def mixed(g: columba.Graph, x: Tensor) -> list[Tensor]:
        h = g.edges.sum(g.edges.src(x))
        few = (h > 0).int()
        return [h.float().mean(0), h.sum(0, dtype=torch.float32), few.sum(), few.sum(0).float() * 2, h.mean(0), h.std()]

    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
        got, wanted = columba.compile(mixed, backend="torch")(ring(6), x), mixed(ring(6), x)
        assert [t.dtype for t in got] == [t.dtype for t in wanted]
        torch.testing.assert_close(got, wanted)


def test_one_row_of_means_beside_one_row() -> None:
    """What is kept of the rows has one row whatever their number: a trace of a graph with one node knows it."""

    def centred(g: columba.Graph, x: Tensor) -> Tensor:
        shift = 2 * x.mean(0, keepdim=True).relu()
        return g.edges.sum(g.edges.src(x - shift))

    for first in (1, 3):
        compiled = columba.compile(centred, backend="torch")
        for nodes in (first, 3, 1):
            assert_same(compiled, centred, [ring(nodes), leaf(nodes, 3)])


def test_of_plain_tensors_it_is_pytorchs() -> None:
    def scaled(g: columba.Graph, x: Tensor, w: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(x) * (w - w.mean(0)).std() * w.norm())

    compiled = columba.compile(scaled, backend="torch")
    for rows in (2, 4):
        assert_same(compiled, scaled, [ring(5), leaf(5, 3), leaf(rows, 3, seed=1)])
    assert "via=one" not in str(compiled._own[0].trace.program).replace("via=one:edge->one", "")


class Breaks(nn.Module):
    """The place of a maximum, and products, of rows."""

    def forward(self, g: columba.Graph, x: Tensor) -> tuple[Tensor, Tensor]:
        h = g.edges.sum(g.edges.src(x))
        value, place = h.max(0)
        return g.edges.sum(g.edges.dst(h - value)), place + h.prod(0)


def test_what_runs_between_programs() -> None:
    model = Breaks()
    compiled = columba.compile(Breaks(), backend="torch")
    for nodes in (4, 6):
        assert_same(compiled, model, [ring(nodes), leaf(nodes, 3)])
    explained = columba.explain(compiled, ring(4), leaf(4, 3))
    assert {b.split("mixes")[0].split(": ")[-1].strip() for b in map(str, explained.breaks)} == {
        "max over dimension 0",
        "prod over dimension 0",
    }


def test_derivatives_of_higher_order() -> None:
    def normalized(g: columba.Graph, x: Tensor) -> Tensor:
        h = g.edges.sum(g.edges.src(x))
        return ((h - h.mean(0)) / (h.std() + 0.1)).tanh()

    graph, compiled = ring(4), columba.compile(normalized, backend="torch")
    x = leaf(4, 2)
    assert torch.autograd.gradcheck(functools.partial(compiled, graph), x)
    assert torch.autograd.gradgradcheck(functools.partial(compiled, graph), x)
