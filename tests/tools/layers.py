"""What the tools are tried on: a function, a decorated layer, a shipped one, a compiled model; each with its eager form, and one graph."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from compiled import leaf, randomized, tensors_of
from torch import Tensor, nn

import columba

EDGES, TYPES = torch.tensor([[0, 1, 2, 2, 3], [1, 2, 0, 1, 1]]), torch.tensor([0, 1, 0, 2, 2])
G = columba.Graph(EDGES, TYPES, num_nodes=4, num_relations=3)
N, R, SIZE = 4, 3, 2
X = leaf(N, SIZE)

Call = Callable[..., Any]


def message(g: columba.Graph, h: Tensor, w: Tensor) -> Tensor:
    """A function."""
    e = g.edges
    return torch.tanh(e.sum(e.src(h) * e.rel(w)))


compiled_message = columba.compile(message)
W = leaf(R, SIZE, seed=5)


class Layer(nn.Module):
    """A layer, which :class:`DecoratedLayer` is, too."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(leaf(R, SIZE, SIZE, seed=6).detach())
        self.dropout = nn.Dropout(0.5)

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        e = g.edges
        return torch.sigmoid(e.sum(self.dropout(columba.linear(e.src(h), e.rel(self.weight)))))


@columba.compile
class DecoratedLayer(Layer):
    forward = Layer.forward


class Model(nn.Module):
    """Two layers, and norms between them: as a whole one program, or two regions where ``is_broken``."""

    def __init__(self, is_broken: bool = False) -> None:
        super().__init__()
        self.first = columba.nn.RGCNConv(SIZE, SIZE, R)
        self.norm = nn.LayerNorm(SIZE)
        self.second = columba.nn.RGCNConv(SIZE, SIZE, R)
        self.is_broken = is_broken

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        h = self.norm(self.first(h, g))
        h = h - h.mean(0) * h.std()
        if self.is_broken:
            h = h.cumsum(0)
        return self.second(h.relu(), g)


@functools.cache
def pairs() -> dict[str, tuple[Call, Call, list[Tensor]]]:
    """By name: what is compiled, and its eager form, both of a node tensor, and the parameters that they share."""
    torch.manual_seed(0)
    layer, decorated = Layer().eval(), DecoratedLayer().eval()
    decorated.load_state_dict(layer.state_dict())
    shipped = randomized(columba.nn.RGATConv(SIZE, 3, R, heads=2), torch.float64)
    models = [randomized(Model(is_broken), torch.float64) for is_broken in (False, True)]
    found: dict[str, tuple[Call, Call, list[Tensor]]] = {
        "function": (lambda h: compiled_message(G, h, W), lambda h: message(G, h, W), [W]),
        "decorated": (lambda h: decorated(G, h), lambda h: Layer.forward(decorated, G, h), [*decorated.parameters()]),
    }
    ours = columba.compile(shipped)
    found["shipped"] = (lambda h: ours(h, G), lambda h: shipped(h, G), [*shipped.parameters()])
    for name, model in zip(("model", "regions"), models, strict=True):
        compiled = columba.compile(model)
        found[name] = (
            lambda h, compiled=compiled: compiled(G, h),  # type: ignore[misc]
            lambda h, model=model: model(G, h),  # type: ignore[misc]
            [*model.parameters()],
        )
    return found


def agree(
    use: Callable[[Call], Any], names: tuple[str, ...] = ("function", "decorated", "shipped", "model", "regions")
) -> None:
    """A tool gives the same with compiled code and with its eager form."""
    for name in names:
        compiled, eager, _ = pairs()[name]
        assert_equal(use(compiled), use(eager))


def assert_equal(found: Any, wanted: Any) -> None:
    ours, theirs = tensors_of(found), tensors_of(wanted)
    assert theirs
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def model() -> nn.Module:
    """A new model, in float64."""
    return randomized(Model(), torch.float64)


def gradients(module: nn.Module, h: Tensor = X) -> list[Tensor]:
    """The results, and the gradients of the input and all parameters."""
    y = module(G, h)
    leaves = [*([h] if h.requires_grad else []), *module.parameters()]
    return [y, *torch.autograd.grad(y.square().sum(), leaves)]
