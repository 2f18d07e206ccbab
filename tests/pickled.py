"""Compiled functions and modules at the places where pickle looks for them."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn

import columba


@columba.compile(backend="torch")
def decorated(g: columba.Graph, h: Tensor) -> Tensor:
    return g.edges.sum(2 * g.edges.src(h))


def plain(g: columba.Graph, h: Tensor) -> Tensor:
    return g.edges.sum(3 * g.edges.src(h))


beside = columba.compile(plain, backend="torch", passes="-reorder_linear")


class Eager(nn.Module):
    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([factor]))

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(h)) * self.factor


@columba.compile(backend="torch")
class Inherited(Eager):
    """The forward of another class, compiled for this one."""


class Method(Eager):
    @columba.compile(backend="torch")
    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(h)) * self.factor


class Holder(nn.Module):
    """Has compiled functions as attributes, in a list and in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.function = decorated
        self.more = [beside, {"method": Method.forward}]

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        return self.function(g, h) + self.more[0](g, h)


class Locked(Eager):
    """Leaves a lock out of what is pickled, and makes another."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__(factor)
        self.lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.lock = threading.Lock()


class Made(Eager):
    """Is made again by a class method."""

    @classmethod
    def of(cls, factor: float) -> Made:
        return cls(factor)

    def __reduce__(self) -> Any:
        return self.of, (self.factor.item(),)


class Numbers(torch.utils.data.Dataset[Tensor]):
    """Calls a compiled function in the workers of a loader."""

    def __init__(self, graph: columba.Graph) -> None:
        self.graph, self.function = graph, decorated

    def __len__(self) -> int:
        return 2

    def __getitem__(self, n: int) -> Tensor:
        return self.function(self.graph, torch.full((3, 1), n + 1.0))


def workers(queue: Any, functions: list[Any], graph: columba.Graph, h: Tensor) -> None:
    queue.put([function(graph, h).tolist() for function in functions])
