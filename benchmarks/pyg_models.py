"""Heterogeneous models of PyG and the graphs that they are timed on: those of the examples, and one of 100 nodes a type."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATConv, GCNConv, GraphConv, HANConv, HeteroConv, SAGEConv, to_hetero
from torch_geometric.transforms import ToUndirected

HIDDEN, HEADS = 64, 4
EdgeType = tuple[str, str, str]


def _gat(ends: EdgeType) -> nn.Module:
    return GATConv((-1, -1), HIDDEN // HEADS, heads=HEADS, add_self_loops=False)


def _gcn(ends: EdgeType) -> nn.Module:
    return GCNConv(-1, HIDDEN) if ends[0] == ends[-1] else GraphConv((-1, -1), HIDDEN)


LAYERS: dict[str, Callable[[EdgeType], nn.Module]] = {
    "SAGEConv": lambda ends: SAGEConv((-1, -1), HIDDEN),
    "GATConv": _gat,
    "GraphConv": lambda ends: GraphConv((-1, -1), HIDDEN),
    "GCNConv": _gcn,
}
"""What runs along an edge type; of GCNConv where both ends are of one type, and GraphConv elsewhere."""

MODELS = (*(f"HeteroConv of {name}" for name in LAYERS), "to_hetero of SAGEConv", "to_hetero of GATConv", "HANConv")

HETEROGENEOUS = ("dblp", "mag", "imdb", "paths", "small")
"""The graphs: the examples', movies that share an actor or a director, and seven edge types among 100 nodes of each of four types."""


def models_of(graph: str) -> list[str]:
    """The models that are timed on a graph."""
    if graph == "paths":
        return ["HANConv"]
    without = {"HANConv"} if graph == "mag" else {"HANConv", "HeteroConv of GCNConv"} if graph != "small" else set()
    return [model for model in MODELS if model not in without]


class _Model(nn.Module):
    """Two layers, each followed by an activation, as in PyG's examples."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(layers)

    def forward(self, x: dict[str, Tensor], edges: dict[EdgeType, Tensor]) -> dict[str, Tensor]:
        for conv in self.convs:
            x = {kind: F.leaky_relu(table) for kind, table in conv(x, edges).items()}
        return x


class _Homogeneous(nn.Module):
    """What is made heterogeneous."""

    def __init__(self, layer: Callable[[EdgeType], nn.Module]) -> None:
        super().__init__()
        self.first, self.second = (layer(("", "", "")) for _ in range(2))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.first(x, edge_index).relu()
        return self.second(x, edge_index).relu()  # type: ignore[no-any-return]


def load(graph: str) -> HeteroData:
    """One of :data:`HETEROGENEOUS`."""
    if graph == "small":
        return _small(100)
    planted = _planted()
    if graph == "mag":
        return ToUndirected(merge=True)(planted.mag())
    return _with_paths(planted.imdb()) if graph == "paths" else getattr(planted, graph)()  # type: ignore[no-any-return]


def model(name: str, data: HeteroData) -> tuple[nn.Module, tuple[Any, ...]]:
    """The model with its parameters drawn, and the arguments of a call."""
    torch.manual_seed(0)
    kind, _, inner = name.partition(" of ")
    edge_types = data.metadata()[1]
    if kind == "HANConv":
        found: nn.Module = HANConv(-1, 2 * HIDDEN, heads=2 * HEADS, metadata=data.metadata())
    elif kind == "HeteroConv":
        found = _Model([HeteroConv({ends: LAYERS[inner](ends) for ends in edge_types}) for _ in range(2)])
    else:
        found = to_hetero(_Homogeneous(LAYERS[inner]), data.metadata(), aggr="sum")
    args = dict(data.x_dict), dict(data.edge_index_dict)
    with torch.no_grad():  # which draws what is lazy
        found(*args)
    return found, args


def _planted() -> Any:
    """The module of the examples that makes their graphs."""
    path = Path(__file__).parent.parent / "examples" / "pyg" / "planted.py"
    spec = importlib.util.spec_from_file_location("planted", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def _with_paths(data: HeteroData) -> HeteroData:
    """Movies, and for either other type an edge between each two that share one of it."""
    for middle in ("actor", "director"):
        there = torch.zeros(data["movie"].num_nodes, data[middle].num_nodes)
        there[tuple(data["movie", middle].edge_index)] = 1.0
        data["movie", f"by_{middle}", "movie"].edge_index = (there @ there.t()).nonzero().t().contiguous()
        del data["movie", "to", middle], data[middle, "to", "movie"], data[middle]
    return data


def _small(nodes: int) -> HeteroData:
    generator = torch.Generator().manual_seed(1)
    data = HeteroData()
    for kind in ("author", "paper", "term", "venue"):
        data[kind].x = torch.randn(nodes, HIDDEN, generator=generator)
    for ends in (
        ("paper", "cites", "paper"),
        ("author", "to", "paper"),
        ("paper", "to", "term"),
        ("paper", "to", "venue"),
    ):
        edges = torch.randint(nodes, (2, 3 * nodes), generator=generator)
        data[ends].edge_index = edges
        if ends[0] != ends[-1]:
            data[ends[::-1]].edge_index = edges.flip(0)
    return data
