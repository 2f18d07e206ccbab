"""Trains two attention layers on sampled neighbourhoods, a new pair of blocks at every step.

python examples/sampled.py
python examples/sampled.py --dataset mag10 --data FOLDER

Batches come from PyG's NeighborLoader where its native sampler is installed, else from a sampler of a few lines of PyTorch. PyG's own
layers, if PyG is installed, train on the same batches. Times leave the sampling out.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

import columba
from columba import datasets


@dataclass(frozen=True)
class Task:
    """Nodes to classify from random features that stay as they are.

    Attributes:
        edge_index, edge_type: of the whole graph.
        features: ``[N, size]``.
        labels: ``[N]``, -1 where there is none.
        train: ids of nodes with labels.
    """

    edge_index: Tensor
    edge_type: Tensor
    num_relations: int
    features: Tensor
    labels: Tensor
    train: Tensor


@dataclass(frozen=True)
class Block:
    """Sampled edges between nodes that are numbered anew; the destinations are the first of the sources."""

    edge_index: Tensor
    edge_type: Tensor
    num_src: int
    num_dst: int


@dataclass(frozen=True)
class Batch:
    """A block for each layer, the nodes that the first one starts from, and the nodes that the last one ends at: the first ``seeds``."""

    blocks: tuple[Block, ...]
    nodes: Tensor
    seeds: int


# ------------------------------------------------------------------------------------------------ sampling


class Sampler:
    """Draws, for each layer from the last to the first, up to ``fanout`` incoming edges of every node."""

    def __init__(self, task: Task, fanouts: Sequence[int], batch_size: int) -> None:
        self.task, self.fanouts, self.batch_size = task, fanouts, batch_size
        source, destination = task.edge_index
        order = destination.argsort(stable=True)
        self.source, self.kind = source[order], task.edge_type[order]
        self.degree = destination.bincount(minlength=len(task.labels))
        self.first = self.degree.cumsum(0) - self.degree
        self.place = torch.full((len(task.labels),), -1)

    def __iter__(self) -> Iterator[Batch]:
        for seeds in self.task.train[torch.randperm(len(self.task.train))].split(self.batch_size):
            nodes, blocks = seeds, []
            for fanout in reversed(self.fanouts):
                block, nodes = self._block(nodes, fanout)
                blocks.append(block)
            yield Batch(tuple(reversed(blocks)), nodes, len(seeds))

    def _block(self, nodes: Tensor, fanout: int) -> tuple[Block, Tensor]:
        degree = self.degree[nodes]
        drawn = (torch.rand(len(nodes), fanout) * degree.unsqueeze(-1)).long()
        counted = torch.arange(fanout).expand_as(drawn)
        few = degree <= fanout  # all edges of these
        chosen = torch.where(few.unsqueeze(-1), counted, drawn)
        kept = (counted < degree.unsqueeze(-1)) | ~few.unsqueeze(-1)
        edges = (self.first[nodes].unsqueeze(-1) + chosen)[kept]
        ends = torch.arange(len(nodes)).unsqueeze(-1).expand_as(drawn)[kept]
        sources = self.source[edges]
        self.place[nodes] = torch.arange(len(nodes))
        new = sources[self.place[sources] < 0].unique()
        self.place[new] = torch.arange(len(nodes), len(nodes) + len(new))
        met = torch.cat([nodes, new])
        index = torch.stack([self.place[sources], ends])
        self.place[met] = -1
        return Block(index, self.kind[edges], len(met), len(nodes)), met


def neighbor_loader(task: Task, fanouts: Sequence[int], batch_size: int) -> Iterator[Batch]:
    """The same from PyG's ``NeighborLoader``."""
    from torch_geometric.data import Data
    from torch_geometric.loader import NeighborLoader

    data = Data(edge_index=task.edge_index, edge_type=task.edge_type, num_nodes=len(task.labels))
    last_first = list(reversed(fanouts))
    for batch in NeighborLoader(data, last_first, task.train, batch_size=batch_size, shuffle=True):
        yield blocks_of(batch)


def blocks_of(batch: Any) -> Batch:
    """The blocks of a sampled subgraph of PyG, whose nodes and edges stand in the order in which they were met."""
    nodes = torch.tensor(batch.num_sampled_nodes).cumsum(0).tolist()
    edges = torch.tensor(batch.num_sampled_edges).cumsum(0).tolist()
    blocks = [
        Block(batch.edge_index[:, : edges[hop]], batch.edge_type[: edges[hop]], nodes[hop + 1], nodes[hop])
        for hop in reversed(range(len(edges)))
    ]
    return Batch(tuple(blocks), batch.n_id, batch.batch_size)


def has_native_sampler() -> bool:
    if importlib.util.find_spec("torch_geometric") is None:
        return False
    from torch_geometric import typing

    return bool(typing.WITH_PYG_LIB or typing.WITH_TORCH_SPARSE)


# ------------------------------------------------------------------------------------------------ models


class Sampled(nn.Module):
    """Two layers, a block each."""

    def __init__(self, size: int, hidden: int, classes: int, relations: int) -> None:
        super().__init__()
        self.first = columba.nn.RGATConv(size, hidden, relations)
        self.second = columba.nn.RGATConv(hidden, classes, relations)

    def forward(self, blocks: Sequence[columba.Graph], x: Tensor) -> Tensor:
        h = F.elu(self.first((x, x[: blocks[0].num_dst]), blocks[0]))
        return self.second((h, h[: blocks[1].num_dst]), blocks[1])


class SampledPyG(nn.Module):
    """The same with PyG's layers, which have one set of nodes: the destinations are the first rows of their results."""

    def __init__(self, size: int, hidden: int, classes: int, relations: int) -> None:
        super().__init__()
        from torch_geometric.nn import RGATConv

        self.first = RGATConv(size, hidden, relations)
        self.second = RGATConv(hidden, classes, relations)

    def forward(self, blocks: Sequence[Block], x: Tensor) -> Tensor:
        first, second = blocks
        h = F.elu(self.first(x, first.edge_index, first.edge_type)[: first.num_dst])
        return self.second(h, second.edge_index, second.edge_type)[: second.num_dst]


class Trainer:
    """Steps of training, timed without the sampling; making graphs of the blocks counts."""

    def __init__(self, model: nn.Module, task: Task, lr: float) -> None:
        self.model, self.task = model, task
        self.optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def step(self, batch: Batch) -> None:
        x, labels = self.task.features[batch.nodes], self.task.labels[batch.nodes[: batch.seeds]]
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(self.prepared(batch.blocks), x), labels)
        loss.backward()
        self.optimizer.step()
        self.seconds.append(time.perf_counter() - start)
        self.losses.append(loss.item())

    def prepared(self, blocks: Sequence[Block]) -> Sequence[Any]:
        if isinstance(self.model, SampledPyG):
            return blocks
        relations = self.task.num_relations
        return [
            columba.Graph(b.edge_index, b.edge_type, num_nodes=(b.num_src, b.num_dst), num_relations=relations)
            for b in blocks
        ]

    @property
    def milliseconds(self) -> float:
        """Of a step, the median; the first ones compile."""
        return 1e3 * statistics.median(self.seconds[2:] or self.seconds)


# ------------------------------------------------------------------------------------------------ data


def pycode(size: int) -> Task:
    data = datasets.pycode()
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randn(data.num_features, size, generator=generator)
    features = (
        torch.randn(data.graph.num_nodes, size, generator=generator) if data.features is None else kinds[data.features]
    )
    g = data.graph
    return Task(g.edge_index, g.edge_type, g.num_relations, features, data.labels, data.train)


def mag10(folder: str, size: int, classes: int = 16) -> Task:
    """Papers of the most frequent fields of study, to be told from all other edges."""
    graph = datasets.mag10(folder).graph
    slices = graph.node_slices
    assert slices is not None
    papers, fields = slices["paper"], slices["field"]
    source, destination = graph.edge_index
    is_paper = (source >= papers.start) & (source < papers.stop)
    is_field = (destination >= fields.start) & (destination < fields.stop)
    of_papers = is_paper & is_field
    frequent = destination[of_papers].bincount(minlength=graph.num_nodes).topk(classes).indices
    number = torch.full((graph.num_nodes,), -1)
    number[frequent] = torch.arange(classes)
    labels = torch.full((graph.num_nodes,), -1)
    told = of_papers & (number[destination] >= 0)
    labels[source[told]] = number[destination[told]]
    kept = (number[source] < 0) & (number[destination] < 0)
    features = torch.randn(graph.num_nodes, size, generator=torch.Generator().manual_seed(0))
    index = torch.stack([source[kept], destination[kept]])
    return Task(index, graph.edge_type[kept], graph.num_relations, features, labels, (labels >= 0).nonzero()[:, 0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=["pycode", "mag10"], default="pycode")
    parser.add_argument("--data", metavar="FOLDER", help="where coo.npz lies (mag10)")
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--fanouts", type=int, nargs=2, default=[10, 10], metavar=("FIRST", "SECOND"))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compare", action=argparse.BooleanOptionalAction, default=True, help="train PyG's layers too")
    options = parser.parse_args()
    if options.dataset == "mag10" and options.data is None:
        parser.error("mag10 needs --data FOLDER")
    torch.manual_seed(options.seed)
    task = pycode(options.features) if options.dataset == "pycode" else mag10(options.data, options.features)
    console = Console()
    native = has_native_sampler()
    sampler = neighbor_loader if native else Sampler
    console.print(
        f"{options.dataset}: {len(task.labels)} nodes, {task.edge_index.shape[1]} edges, {task.num_relations} relations; "
        f"{'NeighborLoader' if native else 'a sampler in PyTorch'}"
    )
    sizes = (options.features, options.hidden, int(task.labels.max()) + 1, task.num_relations)
    trainers = {"columba": Trainer(columba.compile(Sampled(*sizes)), task, options.lr)}
    if options.compare and importlib.util.find_spec("torch_geometric") is not None:
        trainers["PyG"] = Trainer(SampledPyG(*sizes), task, options.lr)
    batches = endless(sampler, task, options.fanouts, options.batch_size)
    for _, batch in zip(track(range(options.steps), console=console, transient=True), batches, strict=False):
        for trainer in trainers.values():
            trainer.step(batch)
    for name, trainer in trainers.items():
        first, last = (statistics.mean(part) for part in (trainer.losses[:3], trainer.losses[-3:]))
        console.print(f"{name}: loss {first:.3f} to {last:.3f}, {trainer.milliseconds:.1f} ms a step")
    if "PyG" in trainers:
        console.print(f"PyG over columba: {trainers['PyG'].milliseconds / trainers['columba'].milliseconds:.1f}x")


def endless(sampler: Any, *arguments: Any) -> Iterator[Batch]:
    """Epoch after epoch."""
    while True:
        yield from sampler(*arguments)


if __name__ == "__main__":
    main()
