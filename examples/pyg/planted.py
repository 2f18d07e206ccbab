"""Graphs to learn on that need no download: communities are planted, so that features and neighbours tell the class of a node.

They have the node types, edges and splits of the data sets that PyG's examples load: Cora, DBLP, IMDB, ogbn-mag, MUTAG.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from columba import datasets


def words(classes: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Bags of words; each class uses some words more often."""
    often = torch.rand(int(classes.max()) + 1, size, generator=generator) < 0.15
    rate = 0.02 + 0.1 * often[classes]
    return (torch.rand(len(classes), size, generator=generator) < rate).float()


def pairs(sources: Tensor, targets: Tensor, count: int, purity: float, generator: torch.Generator) -> Tensor:
    """Random edges between nodes of these classes; a share of ``purity`` joins nodes of one class."""
    row = torch.randint(len(sources), (count,), generator=generator)
    column = torch.randint(len(targets), (count,), generator=generator)
    by_class = [(targets == c).nonzero().squeeze(1) for c in range(int(sources.max()) + 1)]
    for c, members in enumerate(by_class):
        alike = ((sources[row] == c) & (torch.rand(count, generator=generator) < purity)).nonzero().squeeze(1)
        if len(members):
            column[alike] = members[torch.randint(len(members), (len(alike),), generator=generator)]
    return torch.stack([row, column])


def split(store: Data, count: int, generator: torch.Generator) -> None:
    """Masks for training, choosing and testing: a fifth, a fifth, and the rest."""
    order = torch.randperm(count, generator=generator)
    for name, part in zip(
        ("train_mask", "val_mask", "test_mask"),
        order.split([count // 5, count // 5, count - 2 * (count // 5)]),
        strict=True,
    ):
        store[name] = torch.zeros(count, dtype=torch.bool).index_fill(0, part, True)


def classes(count: int, of: int, generator: torch.Generator) -> Tensor:
    return torch.randint(of, (count,), generator=generator)


def cora(nodes: int = 1500) -> Data:
    """Papers that cite each other, in seven classes."""
    g = torch.Generator().manual_seed(0)
    y = classes(nodes, 7, g)
    data = Data(x=words(y, 300, g), y=y)
    edges = pairs(y, y, 2 * nodes, 0.8, g)
    data.edge_index = torch.cat([edges, edges.flip(0)], 1)
    split(data, nodes, g)
    return data


def dblp(authors: int = 1000) -> HeteroData:
    """Authors in four classes, their papers, and the terms and conferences of these, which have no features."""
    g = torch.Generator().manual_seed(0)
    y = {"author": classes(authors, 4, g), "paper": classes(3 * authors, 4, g)}
    y |= {"term": classes(500, 4, g), "conference": classes(20, 4, g)}
    data = HeteroData()
    for kind, size in (("author", 100), ("paper", 200), ("term", 50)):
        data[kind].x = words(y[kind], size, g)
    data["conference"].x = torch.ones(20, 1)
    for source, target, count in (("author", "paper", 4), ("paper", "term", 6), ("paper", "conference", 3)):
        edges = pairs(y[source], y[target], count * authors, 0.7, g)
        data[source, "to", target].edge_index = edges
        data[target, "to", source].edge_index = edges.flip(0)
    data["author"].y = y["author"]
    split(data["author"], authors, g)
    return data


def imdb(movies: int = 1000) -> HeteroData:
    """Movies in three classes, with their directors and actors."""
    g = torch.Generator().manual_seed(0)
    y = {"movie": classes(movies, 3, g), "director": classes(movies // 3, 3, g), "actor": classes(movies, 3, g)}
    data = HeteroData()
    for kind in y:
        data[kind].x = words(y[kind], 200, g)
    for target, count in (("director", 1), ("actor", 3)):
        edges = pairs(y["movie"], y[target], count * movies, 0.8, g).unique(dim=1)
        data["movie", "to", target].edge_index = edges
        data[target, "to", "movie"].edge_index = edges.flip(0)
    data["movie"].y = y["movie"]
    split(data["movie"], movies, g)
    return data


def mag(folder: Path | None = None) -> HeteroData:
    """Papers, authors and fields of study: with a ``folder``, the edges are those of a tenth of ogbn-mag.

    A paper is of the class of most of its fields.
    """
    g = torch.Generator().manual_seed(0)
    data = HeteroData()
    sizes = {"paper": 2000, "author": 1500, "field": 200}
    if folder is None:
        y = {kind: classes(size, 8, g) for kind, size in sizes.items()}
        for source, name, target, count in (
            ("paper", "cites", "paper", 8000),
            ("author", "writes", "paper", 6000),
            ("paper", "has", "field", 6000),
        ):
            data[source, name, target].edge_index = pairs(y[source], y[target], count, 0.7, g)
    else:
        graph = datasets.mag10(folder).graph
        for (source, name, target), edges in graph.to_pyg().edge_index_dict.items():  # each has its inverse already
            data[source, name, target].edge_index = edges
            for kind, row in ((source, edges[0]), (target, edges[1])):
                sizes[kind] = max(sizes[kind], int(row.max()) + 1)
        y = {kind: classes(size, 8, g) for kind, size in sizes.items()}
    y["paper"] = _most(data, y["field"], sizes["paper"])
    for kind in sizes:
        data[kind].x = words(y[kind], 128, g)
    data["paper"].y = y["paper"]
    split(data["paper"], sizes["paper"], g)
    return data


def _most(data: HeteroData, fields: Tensor, papers: int) -> Tensor:
    """The most frequent class of the fields of each paper."""
    votes = torch.zeros(papers, 8)
    for (source, _, target), edges in data.edge_index_dict.items():
        if (source, target) == ("paper", "field"):
            votes.index_put_((edges[0], fields[edges[1]]), torch.ones(edges.shape[1]), accumulate=True)
    return votes.argmax(1)


def molecules(count: int = 1000) -> list[Data]:
    """Chains of atoms with rings; the class says whether there are two rings or more."""
    rng = random.Random(0)
    found = []
    for _ in range(count):
        size, rings = rng.randint(10, 24), rng.randint(0, 3)
        bonds = [(n, n - 1) for n in range(1, size)]
        bonds += [(start + 5, start) for start in rng.sample(range(size - 5), rings)]
        ends = torch.tensor(bonds).t()
        x = torch.nn.functional.one_hot(torch.tensor([rng.randrange(7) for _ in range(size)]), 7).float()
        found.append(Data(x=x, edge_index=torch.cat([ends, ends.flip(0)], 1), y=torch.tensor([int(rings > 1)])))
    return found


def entities(folder: Path | None = None) -> tuple[Data, int, int]:
    """AIFB, where a ``folder`` has its files, else the syntax trees of a module of Python; the numbers of relations and of classes."""
    found = datasets.aifb(folder) if folder is not None else datasets.pycode(["json"])
    graph = found.graph
    data = Data(edge_index=graph.edge_index, edge_type=graph.edge_type, num_nodes=graph.num_nodes)
    data.train_idx, data.test_idx = found.train, found.test
    data.train_y, data.test_y = found.labels[found.train], found.labels[found.test]
    return data, graph.num_relations, found.num_classes
