"""A whole model on batches of molecules: GIN with bonds, batch norm and a virtual node; a new batch at every step."""

from __future__ import annotations

import copy
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import columba
from columba import Graph
from columba.ir.plan.kernels import Traversal, reads
from columba.ir.spaces import Space, index_map
from columba.nn import global_add_pool

pytestmark = pytest.mark.unoptimized

ATOMS, BONDS, SIZE, LAYERS = 5, 3, 8, 3


class GINE(nn.Module):
    """``mlp((1 + eps) x_i + sum relu(x_j + bond))`` of Hu et al., "Strategies for Pre-training Graph Neural Networks"."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bond = nn.Parameter(torch.randn(BONDS, size))
        self.eps = nn.Parameter(torch.zeros(()))
        self.mlp = nn.Sequential(
            nn.Linear(size, 2 * size), nn.BatchNorm1d(2 * size), nn.ReLU(), nn.Linear(2 * size, size)
        )

    def forward(self, g: Graph, h: Tensor) -> Tensor:
        e = g.edges
        return self.mlp((1 + self.eps) * h + e.sum(torch.relu(e.src(h) + e.rel(self.bond))))


class Molecules(nn.Module):
    """Atoms to one number a molecule. After each layer a virtual node hears all atoms of its molecule, and is heard by them."""

    def __init__(self, size: int = SIZE) -> None:
        super().__init__()
        self.embedding = nn.Embedding(ATOMS, size)
        self.layers = nn.ModuleList(GINE(size) for _ in range(LAYERS))
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for _ in range(LAYERS))
        self.virtual = nn.ModuleList(nn.Linear(size, size) for _ in range(LAYERS - 1))
        self.head = nn.Sequential(nn.Linear(size, size), nn.BatchNorm1d(size), nn.ReLU(), nn.Linear(size, 1))

    def forward(self, g: Graph, atoms: Tensor) -> Tensor:
        h = self.embedding(atoms)
        for n, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            h = norm(layer(g, h))
            if n < len(self.virtual):
                h = torch.relu(h)
                h = h + g.nodes.graph(torch.tanh(self.virtual[n](global_add_pool(h, g))))
        return self.head(global_add_pool(h, g)).squeeze(-1)


def molecule(rng: random.Random) -> tuple[Graph, list[int], float]:
    """A tree of atoms, sometimes with a ring, every bond in both directions; its atoms, and what is to be learned of it."""
    atoms = [rng.randrange(ATOMS) for _ in range(rng.choice((1, 2, 5, 9)))]
    bonds = [(n, rng.randrange(n), rng.randrange(BONDS)) for n in range(1, len(atoms))]
    if len(atoms) > 4:
        bonds.append((0, len(atoms) - 1, 0))
    both = [(a, b, t) for a, b, t in bonds] + [(b, a, t) for a, b, t in bonds]
    table = torch.tensor(both, dtype=torch.long).reshape(-1, 3)
    target = sum(a == 0 for a in atoms) - 0.5 * sum(t == 1 for *_, t in bonds)
    return Graph(table[:, :2].t(), table[:, 2], num_nodes=len(atoms), num_relations=BONDS), atoms, target


def some_batch(seed: int, molecules: int) -> tuple[Graph, Tensor, Tensor]:
    rng = random.Random(seed)
    graphs, atoms, targets = zip(*(molecule(rng) for _ in range(molecules)), strict=True)
    ids = torch.tensor([a for of_one in atoms for a in of_one])
    return columba.batch(graphs), ids, torch.tensor(targets, dtype=torch.float64)


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=pytest.mark.slow)])
def test_it_trains_as_eager_code_does_with_another_batch_at_every_step(backend: str) -> None:
    torch.manual_seed(0)
    eager = Molecules().double()
    model = copy.deepcopy(eager)
    compiled = columba.compile(model, backend=backend, fullgraph=True)
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.02) for m in (eager, model)]
    losses: list[float] = []
    for step in range(80):
        graph, atoms, targets = some_batch(step, molecules=2 + 7 * step % 40)
        runs = (eager, compiled) if step < 20 else (compiled,)
        found = [F.mse_loss(run(graph, atoms), targets) for run in runs]
        for optimizer, loss in zip(optimizers[-len(runs) :], found, strict=True):
            optimizer.zero_grad()
            loss.backward()
        if step < 20:
            _compare(model, eager, found)
        for optimizer in optimizers[-len(runs) :]:
            optimizer.step()
        losses.append(found[-1].item())
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])
    model.eval(), eager.load_state_dict(model.state_dict()), eager.eval()
    graph, atoms, _ = some_batch(1000, molecules=1)  # batch norm refuses one row in training
    with torch.no_grad():
        torch.testing.assert_close(compiled(graph, atoms), eager(graph, atoms))
    assert len(type(compiled).forward._of_modules[compiled]) == 2  # type: ignore[attr-defined]  # one in training, one in evaluation


def _compare(model: nn.Module, eager: nn.Module, losses: list[Tensor]) -> None:
    """Values, gradients and running statistics."""
    torch.testing.assert_close(losses[1], losses[0])
    for (name, found), wanted in zip(model.named_parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad, msg=lambda m, name=name: f"{name}: {m}")
    for (name, found), wanted in zip(model.named_buffers(), eager.buffers(), strict=True):
        torch.testing.assert_close(found, wanted, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.slow
def test_layers_and_readouts_store_no_more_than_they_must() -> None:
    """Nothing has a row per bond, and each readout is one kernel, which reads one row per atom."""
    graph, atoms, _ = some_batch(0, molecules=4)
    plans = columba.explain(columba.compile(Molecules(), backend="cpp", fullgraph=True), graph, atoms).compilation.plans
    assert not [b.name for p in plans for b in p.buffers if b.type.space is Space.EDGE]
    readouts = [k for k in plans[0].kernels if isinstance(k, Traversal) and k.via == index_map("graph", Space.NODE)]
    assert len(readouts) == LAYERS
    for kernel in readouts:
        assert [s.buffer.type.space for s in kernel.stores] == [Space.GRAPH]
        assert len([b for b in reads(kernel) if b.type.space is Space.NODE]) == 1
