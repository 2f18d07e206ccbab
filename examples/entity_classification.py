"""Classifies the nodes of a relational graph with compiled layers, in an ordinary PyTorch training loop.

python examples/entity_classification.py --dataset pycode --model rgcn
python examples/entity_classification.py --dataset aifb --data FOLDER --model rgcn --seeds 5
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn

import columba
from columba import datasets
from columba.datasets import EntityClassification
from columba.nn import HGTConv, RGATConv, RGCNConv

# For AIFB and MUTAG chosen by 5-fold cross-validation of the R-GCN on the training nodes alone.
EPOCHS = {"pycode": 30, "aifb": 30, "mutag": 40}
BASES = {"pycode": 30, "aifb": 20, "mutag": 30}
HIDDEN = {"pycode": 32, "aifb": 16, "mutag": 16}


class Classifier(nn.Module):
    """Layers of one kind over embedded features, or over the nodes' ids where they have none."""

    def __init__(
        self, data: EntityClassification, model: str, layers: int, hidden: int, heads: int, bases: int
    ) -> None:
        super().__init__()
        graph = data.graph
        sizes = [hidden] * layers + [data.num_classes]
        self.without_features = data.features is None and model == "rgcn"
        rows = data.num_features if data.features is not None else graph.num_nodes
        self.embedding = None if self.without_features else nn.Embedding(rows, hidden)
        self.convs = nn.ModuleList()
        self.heads = nn.ModuleList()
        for n, (size, out) in enumerate(zip(sizes, sizes[1:], strict=False)):
            if model == "rgcn":
                ids = self.without_features and n == 0
                self.convs.append(RGCNConv(graph.num_nodes if ids else size, out, graph.num_relations, num_bases=bases))
            elif model == "rgat":
                last = n == layers - 1
                per_head = out if last else out // heads
                self.convs.append(RGATConv(size, per_head, graph.num_relations, heads=heads, concat=not last))
            else:
                wide = -(-out // heads) * heads
                self.convs.append(HGTConv(size, wide, graph.num_node_types, graph.num_relations, heads=heads))
                sizes[n + 1] = wide
        self.out = nn.Identity() if sizes[-1] == data.num_classes else nn.Linear(sizes[-1], data.num_classes)

    def forward(self, features: Tensor | None, graph: columba.Graph) -> Tensor:
        x = None
        if self.embedding is not None:
            x = self.embedding(features) if features is not None else self.embedding.weight
        for n, conv in enumerate(self.convs):
            x = conv(F.relu(x) if n else x, graph)
        return self.out(x)


def compiled(model: Classifier, backend: str) -> Classifier:
    """The same model with compiled layers."""
    if backend != "eager":
        model.convs = nn.ModuleList(columba.compile(conv, backend=backend) for conv in model.convs)
    return model


@dataclass
class Outcome:
    """What a training run came to; times in seconds."""

    accuracy: float
    first_epoch: float
    epoch: float


def train(model: Classifier, data: EntityClassification, options: argparse.Namespace, progress: Progress) -> Outcome:
    """Trains and tests; full batch, Adam, cross entropy."""
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    task = progress.add_task("training", total=options.epochs)
    times = []
    for _ in range(options.epochs):
        start = time.perf_counter()
        model.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(data.features, data.graph)[data.train], data.labels[data.train])
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
        progress.update(task, advance=1, description=f"loss {loss.item():.4f}")
    progress.remove_task(task)
    model.eval()
    with torch.no_grad():
        predicted = model(data.features, data.graph)[data.test].argmax(-1)
    accuracy = float((predicted == data.labels[data.test]).double().mean())
    return Outcome(accuracy, times[0], statistics.median(times[1:] or times))


def eager_epoch(data: EntityClassification, options: argparse.Namespace, progress: Progress) -> float:
    """The median time of three epochs of the uncompiled model."""
    short = argparse.Namespace(**{**vars(options), "epochs": 3})
    return train(make_model(data, options, "eager"), data, short, progress).epoch


def make_model(data: EntityClassification, options: argparse.Namespace, backend: str) -> Classifier:
    model = Classifier(data, options.model, options.layers, options.hidden, options.heads, options.bases)
    return compiled(model, backend)


def load(name: str, folder: str | None) -> EntityClassification:
    if name == "pycode":
        return datasets.pycode()
    return {"aifb": datasets.aifb, "mutag": datasets.mutag}[name](folder)


def peak_megabytes() -> float:
    """The process's largest resident size so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=["pycode", "aifb", "mutag"], default="pycode")
    parser.add_argument("--data", metavar="FOLDER", help="where the dataset's files lie (default: download)")
    parser.add_argument("--model", choices=["rgcn", "rgat", "hgt"], default="rgcn")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, help="features of hidden layers")
    parser.add_argument("--heads", type=int, default=4, help="attention heads (rgat, hgt)")
    parser.add_argument("--bases", type=int, help="bases of the relations' weights (rgcn)")
    parser.add_argument("--backend", choices=["auto", "cpp", "torch", "eager"], default="auto")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many runs, with consecutive seeds")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument(
        "--compare", action=argparse.BooleanOptionalAction, default=True, help="time epochs of the uncompiled model too"
    )
    options = parser.parse_args()
    options.epochs = options.epochs or EPOCHS[options.dataset]
    options.bases = options.bases or BASES[options.dataset]
    options.hidden = options.hidden or HIDDEN[options.dataset]
    if min(options.layers, options.seeds, options.epochs, options.heads) < 1 or options.hidden % options.heads:
        parser.error("layers, seeds, epochs and heads must be positive, and heads divide hidden")
    return options


def main() -> None:
    options = parse()
    console = Console()
    data = load(options.dataset, options.data)
    console.print(
        f"{data.name}: {data.graph}, {data.num_classes} classes, {len(data.train)} to train, {len(data.test)} to test"
    )
    outcomes = []
    with Progress(console=console, transient=True) as progress:
        for seed in range(options.seed, options.seed + options.seeds):
            torch.manual_seed(seed)
            outcomes.append(train(make_model(data, options, options.backend), data, options, progress))
            if options.seeds > 1:
                console.print(f"seed {seed}: {outcomes[-1].accuracy:.4f}")
        peak = peak_megabytes()
        eager = eager_epoch(data, options, progress) if options.compare and options.backend != "eager" else None
    table = Table(box=None, show_header=False, pad_edge=False)
    epoch = statistics.median(o.epoch for o in outcomes)
    table.add_row("epoch", f"{epoch * 1e3:.1f} ms")
    if eager is not None:
        table.add_row("epoch, eager", f"{eager * 1e3:.1f} ms ({eager / epoch:.1f}x)")
    if options.backend != "eager":
        table.add_row("trace, compile, build", f"{max(outcomes[0].first_epoch - epoch, 0):.1f} s, in the first epoch")
    table.add_row("peak memory", f"{peak:.0f} MB")
    console.print(table)
    print(f"majority class: {data.majority_accuracy:.4f}")
    print(f"test accuracy: {statistics.mean(o.accuracy for o in outcomes):.4f}")


if __name__ == "__main__":
    main()
