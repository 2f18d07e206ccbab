"""Code that switches gradients off while it is traced: its values are constants to what follows, as they are to PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import columba
from columba.frontend import TraceError

pytestmark = pytest.mark.unoptimized

G = columba.Graph(torch.tensor([[0, 1, 2, 1, 3], [1, 2, 0, 0, 3]]), num_nodes=4)


def weights(g: columba.Graph, h: Tensor) -> Tensor:
    with torch.no_grad():
        s = g.edges.softmax(g.edges.src(h) * 2)
    return g.edges.sum(s * g.edges.src(h))


def of_rows(g: columba.Graph, h: Tensor) -> Tensor:
    s = g.edges.sum(g.edges.src(h) * 2)
    with torch.no_grad():
        t = (s * s).t().t()
    return t * h + s


@torch.no_grad()
def whole(g: columba.Graph, h: Tensor) -> Tensor:
    return g.edges.sum(g.edges.src(h))


def on_inside(g: columba.Graph, h: Tensor) -> Tensor:
    with torch.no_grad():
        s = g.edges.sum(g.edges.src(h))
        with torch.enable_grad():
            return s * h


def both(g: columba.Graph, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    with torch.set_grad_enabled(False):
        s = g.edges.sum(g.edges.src(h))
        assert not s.requires_grad
    t = s * h
    assert t.requires_grad == torch.is_grad_enabled()
    return s, t, s + 1


def of_an_input(g: columba.Graph, h: Tensor) -> Tensor:
    with torch.no_grad():
        k = h * 2
    return g.edges.sum(g.edges.src(k) * g.edges.dst(h))


def several_results(g: columba.Graph, h: Tensor) -> Tensor:
    m = g.edges.sum(g.edges.src(h))
    with torch.no_grad():
        variance, mean = torch.var_mean(m, 1, keepdim=True)
        largest, place = m.max(1, keepdim=True)
    return (m - mean) / (variance + 1).sqrt() + largest * place


def propagation(g: columba.Graph, h: Tensor) -> Tensor:
    """As PyG's LabelPropagation, which changes in place what it has computed."""
    with torch.no_grad():
        out = h
        for _ in range(2):
            out = g.edges.sum(g.edges.src(out))
            out.mul_(0.5).add_(h)
            out.clamp_(0.0, 1.0)
    return out + g.edges.sum(g.edges.src(h))


def inference(g: columba.Graph, h: Tensor) -> Tensor:
    with torch.inference_mode():
        s = g.edges.sum(g.edges.src(h)).tanh()
    return s.clone() * h if s.is_inference() else s * h


def in_pytorch(g: columba.Graph, h: Tensor) -> Tensor:
    with torch.no_grad():
        s = torch.cumsum(g.edges.sum(g.edges.src(h)), 0)
    return s * g.edges.sum(g.edges.dst(h))


FUNCTIONS = (weights, of_rows, whole, on_inside, both, of_an_input, several_results, propagation, inference, in_pytorch)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_values_and_gradients(function: Callable[..., Any]) -> None:
    compiled = columba.compile(function, backend="torch", fullgraph=False)
    for seed in range(2):
        h = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        mine, theirs = h.clone().requires_grad_(), h.clone().requires_grad_()
        found, wanted = _all(compiled(G, mine)), _all(function(G, theirs))
        assert [t.requires_grad for t in found] == [t.requires_grad for t in wanted]
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b)
        if any(t.requires_grad for t in wanted):
            for results in (found, wanted):
                torch.stack([t.sin().sum() for t in results]).sum().backward()
            torch.testing.assert_close(mine.grad, theirs.grad)
        with torch.no_grad():  # where all of it is
            for a, b in zip(_all(compiled(G, h)), wanted, strict=True):
                torch.testing.assert_close(a, b.detach())


def _all(x: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return x if isinstance(x, tuple) else (x,)


def test_kernels() -> None:
    h = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    for function in (weights, several_results):
        (found,) = torch.autograd.grad(columba.compile(function, backend="cpp")(G, h).sin().sum(), h)
        (wanted,) = torch.autograd.grad(function(G, h).sin().sum(), h)
        torch.testing.assert_close(found, wanted)


def test_what_it_does_not_say() -> None:
    def changes(g: columba.Graph, h: Tensor) -> Tensor:
        s = g.edges.sum(g.edges.src(h))
        with torch.no_grad():
            s.mul_(2)
        return s

    def switches(g: columba.Graph, h: Tensor) -> Tensor:
        torch.set_grad_enabled(False)
        return g.edges.sum(g.edges.src(h))

    h = torch.randn(4, 3, requires_grad=True)
    with pytest.raises(TraceError, match=r"test_gradients_off.*mul_ changes under torch.no_grad what has a gradient"):
        columba.compile(changes, backend="torch")(G, h)
    with pytest.raises(TraceError, match="test_gradients_off.*gradients are switched off when the function returns"):
        columba.compile(switches, backend="torch")(G, h)
    assert torch.is_grad_enabled()
    with torch.no_grad(), pytest.raises(TraceError, match="torch.enable_grad inside a compiled function"):
        columba.compile(on_inside, backend="torch")(G, h)
    columba.compile(whole, backend="torch")(G, h)


class Momentum(nn.Module):
    """Keeps an average of its parameters' results, which has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3).double()
        self.register_buffer("average", torch.zeros(3, dtype=torch.float64))

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        y = self.linear(g.edges.sum(g.edges.src(h)))
        with torch.no_grad():
            target = 0.9 * self.average + 0.1 * y.mean(0)
        return (y - target) ** 2


def test_a_module() -> None:
    module = Momentum()
    compiled = columba.compile(module, backend="torch")
    h = torch.randn(4, 3, dtype=torch.float64)
    found = torch.autograd.grad(compiled(G, h).sum(), tuple(module.parameters()))
    wanted = torch.autograd.grad(module(G, h).sum(), tuple(module.parameters()))
    torch.testing.assert_close(found, wanted)
