"""What is measured: a layer, its sizes, and a graph."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from columba import Graph, datasets, nn

LAYERS = ("rgcn", "rgat", "hgt")
GRAPHS = ("aifb", "mutag", "fb15k237", "mag10", "am", "biokg")


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


def cases(layers: tuple[str, ...] = LAYERS, graphs: tuple[str, ...] = GRAPHS, *, quick: bool = False) -> list[Case]:
    """All cases: 64 features with 1 and 4 heads and 32 features on every graph, 128 features on one; ``quick``: 64 with one head."""
    found = []
    for graph in graphs:
        for layer in layers:
            sizes = [(64, 1)] if quick else [(64, 1), (64, 4), (32, 1), *([(128, 1)] if graph == "fb15k237" else [])]
            found += [Case(layer, graph, f, h) for f, h in sizes if layer != "rgcn" or h == 1]
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
            graph = datasets.synthetic("am", scale=0.25).graph
        case "biokg":
            graph = datasets.synthetic("biokg", scale=0.1).graph
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
