"""What is measured: a layer, its sizes, and a graph."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from columba import Graph, datasets, nn

LAYERS = ("rgcn", "rgat", "hgt")
GRAPHS = ("aifb", "mutag", "fb15k237", "mag10", "am", "biokg")
TINY = "tiny"
"""A graph of no interest but to try the harness."""

SCALES = {"am": 0.1, "biokg": 0.1}
"""How much of the published graph a synthetic one is: what all peers have the memory for, and a minute a case."""

TITLES = {
    "rgcn": "RGCN",
    "rgat": "RGAT",
    "hgt": "HGT",
    "aifb": "AIFB",
    "mutag": "MUTAG",
    "fb15k237": "FB15k-237",
    "mag10": "a tenth of MAG",
    "am": "a tenth of AM",
    "biokg": "a tenth of BioKG",
}

SUITES: dict[str, tuple[tuple[str, tuple[tuple[int, int], ...]], ...]] = {
    "standard": (
        ("aifb", ((64, 1), (64, 4))),
        ("mutag", ((64, 1), (64, 4))),
        ("fb15k237", ((64, 1), (64, 4), (32, 1), (32, 4), (128, 1), (128, 4))),
        ("mag10", ((64, 1), (64, 4))),
        ("am", ((64, 1), (64, 4))),
        ("biokg", ((64, 1), (64, 4))),
    ),
    "quick": tuple((graph, ((64, 1),)) for graph in GRAPHS[:4]),
}
"""Graphs, and on each the features and heads that are measured."""


@dataclass(frozen=True)
class Case:
    """One layer on one graph, ``features`` in and out."""

    layer: str
    graph: str
    features: int = 64
    heads: int = 1

    def __str__(self) -> str:
        heads = "" if self.layer == "rgcn" else f" x{self.heads}"
        return f"{self.layer}{heads} {self.features} {self.graph}"

    @property
    def title(self) -> str:
        """As in ``RGAT, FB15k-237, 4 heads``."""
        words = [TITLES.get(self.layer, self.layer), TITLES.get(self.graph, self.graph)]
        words += [f"{self.heads} heads"] if self.heads != 1 else []
        words += [f"{self.features} features"] if self.features != 64 else []
        return ", ".join(words)

    @property
    def order(self) -> tuple[int, int, int, int, str]:
        """Graphs in the order of :data:`GRAPHS`, the usual sizes first."""
        graph = GRAPHS.index(self.graph) if self.graph in GRAPHS else len(GRAPHS)
        layer = LAYERS.index(self.layer) if self.layer in LAYERS else len(LAYERS)
        return graph, abs(self.features - 64), self.heads, layer, str(self)


def cases(
    suite: str = "standard",
    *,
    layers: Sequence[str] = LAYERS,
    graphs: Sequence[str] = (),
    features: Sequence[int] = (),
    heads: Sequence[int] = (),
) -> list[Case]:
    """The cases of a suite; where graphs, features or heads are given, these instead, in all combinations.

    RGCN has no heads: it is measured once for each number of features.
    """
    sizes = dict(SUITES[suite])
    found = []
    for graph in graphs or sizes:
        wanted = sizes.get(graph, ((64, 1),))
        if features or heads:
            usual_features, usual_heads = (dict.fromkeys(n) for n in zip(*wanted, strict=True))
            wanted = tuple(itertools.product(features or usual_features, heads or usual_heads))
        found += [Case(layer, graph, f, h) for f, h in wanted for layer in layers if layer != "rgcn" or h == 1]
    return found


def data_folder() -> Path:
    """Where the real graphs lie: ``$COLUMBA_DATA``, or ``../shared/data`` beside the checkout."""
    return Path(os.environ.get("COLUMBA_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def load_graph(name: str) -> Graph:
    """A graph with node types, real or of published statistics."""
    folder = data_folder()
    match name:
        case "aifb":
            graph = datasets.aifb(folder / "aifb").graph
        case "mutag":
            graph = datasets.mutag(folder / "mutag").graph
        case "fb15k237":
            graph = datasets.triples(folder / "fb15k237" / "train2id.txt.gz").graph
        case "mag10":
            graph = datasets.mag10(folder / "mag10").graph
        case "am":
            graph = datasets.synthetic("am", scale=SCALES["am"]).graph
        case "biokg":
            graph = datasets.synthetic("biokg", scale=SCALES["biokg"]).graph
        case "tiny":
            graph = datasets.synthetic(datasets.Statistics(nodes=60, edges=400, relations=7, node_types=3)).graph
        case _:
            raise ValueError(f"unknown graph {name!r}; one of {', '.join(GRAPHS)}")
    if graph.node_type is None:
        types = torch.zeros(graph.num_nodes, dtype=torch.long)
        return Graph(
            graph.edge_index,
            graph.edge_type,
            num_nodes=graph.num_nodes,
            num_relations=graph.num_relations,
            node_type=types,
        )
    return graph


def make_layer(case: Case, graph: Graph) -> torch.nn.Module:
    """The layer with parameters that are the same in every process."""
    torch.manual_seed(0)
    f = case.features
    match case.layer:
        case "rgcn":
            return nn.RGCNConv(f, f, graph.num_relations)
        case "rgat":
            return nn.RGATConv(f, f // case.heads, graph.num_relations, heads=case.heads)
        case "hgt":
            return nn.HGTConv(f, f, graph.num_node_types, graph.num_relations, heads=case.heads)
        case _:
            raise ValueError(f"unknown layer {case.layer!r}; one of {', '.join(LAYERS)}")


def make_input(case: Case, graph: Graph) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(graph.num_nodes, case.features, generator=generator)
