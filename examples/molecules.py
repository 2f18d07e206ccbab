"""Trains GIN on batches of small graphs, a new batch at every step: made-up molecules, whose rings and hetero atoms are counted.

python examples/molecules.py
python examples/molecules.py --compare
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import columba
from columba.nn import global_add_pool

ATOMS, BONDS = 6, 3


class GINE(nn.Module):
    """Each atom sums its neighbours, to which their bonds are added, and itself; a perceptron follows."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bond = nn.Parameter(torch.randn(BONDS, size))
        self.eps = nn.Parameter(torch.zeros(()))
        self.mlp = nn.Sequential(
            nn.Linear(size, 2 * size), nn.BatchNorm1d(2 * size), nn.ReLU(), nn.Linear(2 * size, size)
        )

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        e = g.edges
        return self.mlp((1 + self.eps) * h + e.sum(torch.relu(e.src(h) + e.rel(self.bond))))


class Molecules(nn.Module):
    """Atoms to one number a molecule."""

    def __init__(self, size: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(ATOMS, size)
        self.layers = nn.ModuleList(GINE(size) for _ in range(layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for _ in range(layers))
        self.head = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 1))

    def forward(self, g: columba.Graph, atoms: Tensor) -> Tensor:
        h = self.embedding(atoms)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = h + torch.relu(norm(layer(g, h)))
        return self.head(global_add_pool(h, g)).squeeze(-1)  # one row a molecule


Molecule = tuple[columba.Graph, Tensor, float]


def molecule(rng: random.Random) -> Molecule:
    """A tree of atoms with some rings, each bond in both directions; the atoms; and what is to be told of it."""
    atoms = torch.tensor([rng.choice((0, 0, 0, 1, 2, 3, 4, 5)) for _ in range(rng.randint(8, 24))])
    bonds = [(n, rng.randrange(max(0, n - 3), n), rng.randrange(BONDS)) for n in range(1, len(atoms))]
    rings = [(n, n - 5, 1) for n in range(5, len(atoms), 6) if rng.random() < 0.5]
    table = torch.tensor(bonds + rings)
    ends, types = table[:, :2].t(), table[:, 2]
    graph = columba.Graph(
        torch.cat([ends, ends.flip(0)], dim=1), types.repeat(2), num_nodes=len(atoms), num_relations=BONDS
    )
    return graph, atoms, len(rings) + 0.2 * float((atoms == 3).sum())


def joined(molecules: list[Molecule]) -> tuple[columba.Graph, Tensor, Tensor]:
    """One batch: graphs side by side, and the atoms and targets after each other."""
    graphs, atoms, targets = zip(*molecules, strict=True)
    return columba.batch(graphs), torch.cat(atoms), torch.tensor(targets)


def train(model: nn.Module, data: list[Molecule], steps: int, size: int) -> tuple[list[float], float]:
    """The loss of each step, and the milliseconds that one takes once kernels are compiled: the median, without making the batch."""
    rng = random.Random(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    losses, times = [], []
    for _ in range(steps):
        graph, atoms, targets = joined(rng.sample(data, size))
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = F.mse_loss(model(graph, atoms), targets)
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
        losses.append(loss.item())
    return losses, 1e3 * statistics.median(times[steps // 4 :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--molecules", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--compare", action="store_true", help="train the same model without compiling, too")
    options = parser.parse_args()
    torch.manual_seed(0)
    rng = random.Random(0)
    data = [molecule(rng) for _ in range(options.molecules)]
    model = Molecules(options.hidden, options.layers)
    runs = {"columba": columba.compile(copy.deepcopy(model)), "eager": model}
    for name, run in list(runs.items())[: 1 + options.compare]:
        losses, milliseconds = train(run, data, options.steps, options.batch_size)
        tenth = max(1, options.steps // 10)
        first, last = (sum(part) / len(part) for part in (losses[:tenth], losses[-tenth:]))
        print(f"{name}: loss {first:.3f} to {last:.3f}, {milliseconds:.1f} ms a step")


if __name__ == "__main__":
    main()
