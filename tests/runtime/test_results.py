"""Every result owns its memory, except where the code returns a view or the very tensor when it runs uncompiled: then that is returned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compiled import tensors_of
from torch import Tensor

import columba

pytestmark = pytest.mark.unoptimized

G = columba.Graph(
    torch.tensor([[0, 1, 2, 2, 3], [2, 2, 0, 3, 0]]), torch.tensor([0, 1, 0, 0, 1]), num_nodes=4, num_relations=2
)
N = G.num_nodes


def inputs(grad: bool) -> list[Tensor]:
    return [leaf_of(n).requires_grad_(grad) for n in (4, 5)]


def leaf_of(rows: int) -> Tensor:
    return torch.rand(rows, 4, dtype=torch.float64, requires_grad=True)


def copies(g: columba.Graph, h: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    """All of these are tensors of their own."""
    m = g.edges.sum(g.edges.src(h))
    return (
        m, m.clone(), m * 1, m + 0, m.relu().relu(), m.relu(), g.edges.sum(g.edges.src(h)), h + m, h + m, m + h,
        h.clone(), h * 1, h + 0, h / 1, h.neg().neg(), h**1, torch.cat([h], -1), h.to(h.dtype, copy=True),
        torch.zeros_like(m), torch.zeros_like(m), h * 2, h * 2, x * 1, x.clone(), g.nodes.sum(h), g.nodes.sum(h),
        m.clone().view(m.shape), m.unsqueeze(-1).sum(-1),
    )  # fmt: skip


def views(g: columba.Graph, h: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    """All of these are views, or the tensor itself."""
    m = g.edges.sum(g.edges.src(h))
    halves = m.split(2, -1)
    return (
        h, g.nodes(h), h.double(), h.contiguous(), h.view(h.shape[0], 2, 2), h[:, 1:], g.nodes(h)[:, 0], F.dropout(h, 0.5, False),
        m, m, m.to(m.dtype), m.double(), m.view(m.shape[0], -1, 2), m[:, 1:3], m.unsqueeze(1), m.reshape(-1, 2, 2), m.expand_as(m),
        *halves, *m.chunk(2, -1), *m.unbind(-1), m.select(1, 0), m.narrow(1, 0, 2), m.squeeze(), m.flatten(1), F.dropout(m, 0.0),
        m.unsqueeze(-1).transpose(1, 2), x[..., 0], g.edges(x),
    )  # fmt: skip


def hidden(g: columba.Graph, h: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    """Views whose common base nobody else holds: where they overlap they share memory."""
    m, k = g.edges.sum(g.edges.src(h)), g.edges.mean(g.edges.src(h))
    return m[:, :2], m[:, 2:], k.view(k.shape[0], 2, 2), k[:, :3]


def observed(function: Callable[..., Any], grad: bool) -> list[Any]:
    """What becomes of all tensors when one after the other is written to, which results are an input, and which are the same tensor."""
    torch.manual_seed(0)
    args = inputs(grad)
    count = len(tensors_of(function(G, *args)))
    found: list[Any] = []
    for n in range(count):
        torch.manual_seed(0)
        args = inputs(grad)
        held = [*args, *tensors_of(function(G, *args))]
        if not n:
            found.append([[a is b for b in held] for a in held])
        with torch.no_grad():
            held[n + 2].fill_(100)
        found.append([t.detach().clone() for t in held])
    return found


@pytest.mark.parametrize("backend", ["cpp", "torch"])
@pytest.mark.parametrize("function", [copies, views, hidden])
def test_a_write_to_one_result_changes_what_it_changes_eagerly(function: Callable[..., Any], backend: str) -> None:
    compiled = columba.compile(function, backend=backend)  # type: ignore[call-overload]
    for grad in (False, True):
        wanted = observed(function, grad)
        got = observed(compiled, grad)  # on its shortcut from the third call on
        assert got[0] == wanted[0]
        torch.testing.assert_close(got[1:], wanted[1:])


def test_results_that_are_views_have_their_gradients() -> None:
    compiled = columba.compile(views, backend="cpp")
    for _ in range(3):
        args = inputs(True)

        def gradients(function: Callable[..., Any], args: Sequence[Tensor] = args) -> tuple[Tensor, ...]:
            results = function(G, *args)
            weights = [torch.arange(1.0, r.numel() + 1).double().view(r.shape) for r in results]
            return torch.autograd.grad(results, args, weights)

        torch.testing.assert_close(gradients(compiled), gradients(views))


def test_views_of_another_graph_have_its_rows() -> None:
    compiled = columba.compile(views, backend="torch")
    small = columba.Graph(torch.tensor([[0], [1]]), torch.tensor([0]), num_nodes=2, num_relations=2)
    compiled(G, torch.rand(4, 4).double(), torch.rand(5, 4).double())
    h, x = torch.rand(2, 4).double(), torch.rand(1, 4).double()
    torch.testing.assert_close(compiled(small, h, x), views(small, h, x))
    w = torch.rand(6, 4).double()

    def bounded(g: columba.Graph, h: Tensor) -> tuple[Tensor, ...]:
        return g.edges.sum(g.edges.src(h)), h[: g.num_nodes], w[: h.shape[0]], w[g.num_edges :]

    compiled = columba.compile(bounded, backend="torch")
    for graph, rows in ((small, h), (G, torch.rand(4, 4).double()), (small, h)):
        torch.testing.assert_close(compiled(graph, rows), bounded(graph, rows))
    declared = columba.compile(lambda g, h, x: (g.edges.sum(x), g.nodes(h)), backend="torch")
    assert declared(G, torch.rand(4, 4), torch.rand(5, 4))[1].shape == (4, 4)
    with pytest.raises(ValueError, match=r"shape \[3, 4\], but is used with one row per row of space node"):
        declared(G, torch.rand(3, 4), torch.rand(5, 4))


def summed(g: columba.Graph, x: Tensor, y: Tensor) -> Tensor:
    return g.nodes(x) + g.nodes(y)


def alike(g: columba.Graph, x: Tensor, y: Tensor) -> Tensor:
    e = g.edges
    return g.nodes(x) * 3 + e.sum(e.src(x)) + g.nodes(y) * 3 + e.sum(e.src(y))


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_gradients_own_their_memory(backend: str) -> None:
    def written(grads: Sequence[Any], others: Sequence[Tensor]) -> list[Tensor]:
        grads[0].fill_(7)
        return [t.detach().clone() for t in (*grads[1:], *others)]

    for function in (summed, alike):
        compiled = columba.compile(function, backend=backend)  # type: ignore[call-overload]
        for _ in range(4):
            x, y, given = leaf_of(4), leaf_of(4), torch.ones(4, 4).double()
            out = compiled(G, x, y)
            out.backward(given)
            wanted = torch.autograd.grad(function(G, x, y), y, torch.ones_like(given))[0]
            torch.testing.assert_close(written([x.grad, y.grad], [given]), [wanted, torch.ones_like(given)])
    x, y = leaf_of(4), leaf_of(4)
    first, second = torch.autograd.grad(compiled(G, x, y), [x, y], given)
    assert torch.equal(first, second)
    assert not torch.equal(first.fill_(7), second)
