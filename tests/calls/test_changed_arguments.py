"""Code that changes what it was passed: objects, lists and dictionaries are afterwards what they are without a compiler."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import columba
from columba.frontend import TraceError

EDGES = torch.tensor([[0, 1, 2, 1], [1, 2, 0, 0]])
TYPES = torch.tensor([0, 1, 0, 1])


class Own:
    def __init__(self, x: Tensor) -> None:
        self.x = x


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.conv = columba.nn.RGCNConv(4, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.linear(x), EDGES, TYPES).relu()


class OfAttributes(nn.Module):
    """As PyG's GraphGym has its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Layer(), Layer()

    def forward(self, data: Any) -> Tensor:
        data.x = self.first(data.x)
        data.count = 1
        data.x = self.second(data.x)
        return data.x + 0


class OfDictionaries(OfAttributes):
    def forward(self, data: dict[str, Any]) -> Tensor:
        for name, x in data.items():
            data[name] = self.first(x)
        data["more"] = self.second(data["x"])
        return data["more"] * 2


class OfLists(OfAttributes):
    def forward(self, data: list[Tensor]) -> Tensor:
        data.append(self.first(data[0]))
        data[0] = self.second(data[1])
        return data[0] * 2


MADE: dict[str, tuple[type[nn.Module], Callable[[Tensor], Any], Callable[[Any], list[Any]]]] = {
    "object": (OfAttributes, Own, lambda data: list(vars(data).items())),
    "namespace": (OfAttributes, lambda x: types.SimpleNamespace(x=x), lambda data: list(vars(data).items())),
    "dictionary": (OfDictionaries, lambda x: {"x": x}, lambda data: list(data.items())),
    "list": (OfLists, lambda x: [x], lambda data: list(enumerate(data))),
}


@pytest.mark.parametrize("name", MADE)
def test_they_are_as_without_a_compiler(name: str) -> None:
    kind, make, parts = MADE[name]
    module = kind()
    compiled = columba.compile(module, backend="torch")
    for seed in range(3):
        x = torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))
        mine, theirs = make(x), make(x)
        torch.testing.assert_close(compiled(mine), module(theirs))
        assert [key for key, _ in parts(mine)] == [key for key, _ in parts(theirs)]
        for (_, a), (_, b) in zip(parts(mine), parts(theirs), strict=True):
            torch.testing.assert_close(a, b)
    layers = columba.explain(module, make(torch.randn(3, 4))).layers  # each a program of its own
    assert {layer.name: layer.runs for layer in layers if "conv" in layer.name} == dict.fromkeys(
        ("first.conv", "second.conv"), "compiled"
    )


@pytest.mark.parametrize("name", MADE)
def test_errors_leave_them_alone(name: str) -> None:
    kind, make, parts = MADE[name]
    function = columba.compile(kind().forward, backend="torch", fullgraph=True)
    x = torch.randn(3, 4)
    data = make(x)
    with pytest.raises(TraceError):
        function(data)
    ((key, value),) = parts(data)
    assert key in ("x", 0)
    assert value is x
