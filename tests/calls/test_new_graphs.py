"""A new graph at every step, as sampling makes them: nothing is traced, compiled or kept for it."""

from __future__ import annotations

import os
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import columba
from columba.runtime.graphs import recipes
from columba.runtime.program import Runnable

RELATIONS, FEATURES = 3, 8


def _graph(rng: random.Random) -> columba.Graph:
    nodes, edges = rng.randint(1, 200), rng.randint(0, 1500)
    ends = torch.randint(nodes, (2, edges))
    return columba.Graph(ends, torch.randint(RELATIONS, (edges,)), num_nodes=nodes, num_relations=RELATIONS)


def _resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("steps", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_graphs_of_random_sizes(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One trace, one compilation, and memory that stays as it is."""
    made: list[Runnable] = []
    real: Callable[..., Any] = Runnable.__init__

    def init(self: Runnable, *args: Any, **kwargs: Any) -> None:
        made.append(self)
        real(self, *args, **kwargs)

    monkeypatch.setattr(Runnable, "__init__", init)
    torch.manual_seed(0)
    rng = random.Random(0)
    layer = columba.nn.RGATConv(FEATURES, FEATURES, RELATIONS)
    compiled = columba.compile(layer, backend="cpp")
    alive: weakref.WeakSet[columba.Graph] = weakref.WeakSet()
    resident, noted = 0, 0
    for step in range(steps):
        graph = _graph(rng)
        alive.add(graph)
        x = torch.randn(graph.num_nodes, FEATURES, requires_grad=True)
        loss = compiled(x, graph).square().sum()
        loss.backward()
        if step % 10 == 0 and step <= 100:
            eager_x = x.detach().requires_grad_()
            gradient = torch.autograd.grad(layer(eager_x, graph).square().sum(), eager_x)
            torch.testing.assert_close(x.grad, gradient[0], rtol=1e-4, atol=1e-4)
        if step == min(150, steps - 5):
            resident, noted = _resident(), recipes._recipe.cache_info().currsize
    assert len(type(compiled).forward._of_modules[compiled]) == 1  # type: ignore[attr-defined]
    assert len(made) == 1
    assert len(alive) == len(made[0]._on) == 1, "only the last graph lives"
    assert recipes._recipe.cache_info().currsize == noted
    assert _resident() - resident < 4 << 20
