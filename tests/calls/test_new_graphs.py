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
from columba.frontend import Trace
from columba.runtime.graphs import recipes
from columba.runtime.program import Runnable

pytestmark = pytest.mark.unoptimized

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


FACTOR = [2.0]


class Scaled(torch.nn.Module):
    """Reads what guards are of: an attribute, a module-level variable, an argument, the mode of a module."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 3.0
        self.inner = torch.nn.Dropout(0.0)
        self.weight = torch.nn.Parameter(torch.randn(FEATURES, FEATURES))

    def forward(self, x: torch.Tensor, graph: columba.Graph, power: int = 1) -> torch.Tensor:
        h = x @ self.weight * self.scale * FACTOR[0] if self.training else x @ self.weight
        return graph.edges.sum(graph.edges.src(self.inner(h)), to="dst") * power


def test_guards_of_new_graphs_are_matched_by_code_that_sees_what_they_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards are interpreted for the first graphs, and where something has changed; what has changed is seen on a new graph too."""
    interpreted: list[int] = []
    match: Callable[..., Any] = Trace.match

    def counted(self: Trace, *args: Any) -> Any:
        interpreted.append(1)
        return match(self, *args)

    monkeypatch.setattr(Trace, "match", counted)
    torch.manual_seed(0)
    rng = random.Random(1)
    layer = Scaled()
    compiled = columba.compile(layer, backend="torch")

    def check(*more: int, dtype: torch.dtype = torch.float32) -> int:
        """How often guards are interpreted on a new graph, where the compiled module does what the plain one does."""
        graph = _graph(rng)
        x = torch.randn(graph.num_src, FEATURES, dtype=dtype, requires_grad=True)
        other = x.detach().clone().requires_grad_()
        interpreted.clear()
        made = compiled(x, graph, *more)
        seen = len(interpreted)
        wanted = layer(other, graph, *more)
        torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-4)
        if wanted.requires_grad:
            gradients = (torch.autograd.grad(y.square().sum(), v)[0] for y, v in ((made, x), (wanted, other)))
            torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)
        assert made.requires_grad == wanted.requires_grad
        return seen

    def settle() -> None:
        for _ in range(300):
            if check() == 0:
                return
        raise AssertionError("guards of new graphs are interpreted for ever")

    settle()
    assert [check() for _ in range(5)] == [0] * 5

    def changed(name: str, owner: Any, value: Any) -> None:
        before = getattr(owner, name)
        setattr(owner, name, value)
        assert check() > 0, name
        setattr(owner, name, before)
        settle()

    changed("scale", layer, 5.0)
    changed("inner", layer, torch.nn.Dropout(0.0))
    changed("training", layer, False)
    FACTOR[0] = 7.0
    assert check() > 0
    FACTOR[0] = 2.0
    settle()
    assert check(3) > 0, "another argument"
    with torch.no_grad():
        assert check() > 0, "another mode"
    settle()
    layer.weight = torch.nn.Parameter(
        torch.randn(FEATURES, FEATURES)
    )  # tensors are matched by what they are, on any way
    check()
    layer.double()
    check(dtype=torch.float64)
    layer.float()
    settle()
    bipartite = columba.Graph(
        torch.tensor([[0, 1, 4], [1, 0, 1]]), torch.tensor([0, 1, 2]), num_nodes=(5, 2), num_relations=RELATIONS
    )
    x = torch.randn(5, FEATURES)
    torch.testing.assert_close(compiled(x, bipartite), layer(x, bipartite))
    graph = _graph(rng)
    with pytest.raises(ValueError, match="has shape"):
        compiled(torch.randn(graph.num_nodes + 1, FEATURES), graph)
    settle()
