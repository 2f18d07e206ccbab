"""Models that cannot be compiled as one program, and a comparison of steps of training."""

from __future__ import annotations

import sys
from typing import Any

import torch
from compiled import leaf, tensors_of
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import columba

N, R = 5, 3
EDGES, TYPES = torch.tensor([[0, 1, 2, 2, 3], [2, 2, 0, 3, 0]]), torch.tensor([0, 1, 0, 0, 1])
G = columba.Graph(EDGES, TYPES, num_nodes=N, num_relations=R)
OTHER = columba.Graph(EDGES.flip(0), TYPES, num_nodes=N, num_relations=R)


def conv(size: int = 4) -> nn.Module:
    return columba.nn.RGATConv(4, size, num_relations=R).double()


class Normed(nn.Module):
    """Two layers, a BatchNorm between that averages over its calls: it asks how many there were."""

    def __init__(self, drop: float = 0.0) -> None:
        super().__init__()
        self.first, self.second = conv(), conv(3)
        self.norm = nn.BatchNorm1d(4, momentum=None).double()
        self.drop = nn.Dropout(drop)

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        return self.second(self.drop(torch.relu(self.norm(self.first(h, g)))), g)  # type: ignore[no-any-return]


class Value(nn.Module):
    """Asks for a value, counts its calls, and appends."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv()
        self.steps = 0
        self.log: list[float] = []
        self.seen = {"most": 0.0}

    def forward(self, g: columba.Graph, h: Tensor, *, power: int = 1) -> dict[str, Any]:
        self.steps += 1
        hidden = self.first(h, g)
        most = hidden.detach().abs().max().item()
        self.log.append(most)
        self.seen["most"] = most
        return {"hidden": hidden, "out": [self.second(hidden / (1 + most), g) ** power], "steps": self.steps}


class Printing(nn.Module):
    """One layer, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()
        self.same = self.conv
        self.table = nn.ModuleDict(
            {"mlp": nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=None), nn.ReLU()).double()}
        )

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        print("called", file=sys.stderr)
        return self.table["mlp"](self.same(self.conv(h, g), g))  # type: ignore[no-any-return]


class Deep(nn.Module):
    """Three deep, and something outside of the language at each depth."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential()
        self.body.add_module("normed", Normed())
        self.body.normed.second = conv()
        self.value = Value()

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        with torch.no_grad():
            shift = h.mean()
        h = self.body.normed(g, h - shift)
        return self.value(g, h)["out"][0] + self.value(g, h, power=2)["hidden"]  # type: ignore[no-any-return]


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv()

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        h = self.first(h, g)
        assert h.isfinite().all()
        return checkpoint(self.second, h, g, use_reentrant=False)  # type: ignore[no-any-return]


def assert_steps_agree(compiled: nn.Module, eager: nn.Module, *args: Any, steps: int = 3) -> None:
    """Steps of training: results, gradients, and all state, with the same random numbers."""
    for step in range(steps):
        results: list[Any] = []
        for model in (compiled, eager):
            torch.manual_seed(step)
            h = leaf(N, 4)
            model.zero_grad()
            out = model(*args, h)
            sum(t.square().sum() for t in tensors_of(out) if t.requires_grad).backward()  # type: ignore[union-attr]
            grads = [p.grad for p in model.parameters()]
            assert all(g is not None for g in grads)
            results.append((out, h.grad, grads, dict(model.state_dict()), torch.get_rng_state()))
        torch.testing.assert_close(*results)
