"""Models that PyG makes of others for several node types: graph modules of torch.fx, whose layers are compiled like any."""

from __future__ import annotations

import copy

import pytest
import torch
from pyg_layers import compare, drawn, floats, traces, typed_edges
from torch import Tensor, nn
from torch_geometric.nn import GraphConv, to_hetero

METADATA = (
    ["author", "paper"],
    [("author", "writes", "paper"), ("paper", "cites", "paper"), ("paper", "by", "author")],
)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = GraphConv((5, 5), 6)
        self.second = GraphConv((6, 6), 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.second(self.first(x, edge_index).relu(), edge_index)


def call(edges: int, authors: int, papers: int) -> tuple[dict[str, Tensor], dict[tuple[str, str, str], Tensor]]:
    sizes = {"author": authors, "paper": papers}
    return {kind: floats(n, 5, seed=edges) for kind, n in sizes.items()}, typed_edges(METADATA[1], sizes, edges)


@pytest.mark.parametrize("aggr", ["sum", "mean"])
def test_model(aggr: str) -> None:
    model = drawn(to_hetero(Model(), METADATA, aggr=aggr))
    compiled = compare(model, call(9, 4, 6), call(20, 7, 5), fullgraph=False)
    assert len(traces(compiled)) == 1


def test_copies() -> None:
    """A graph module has a class of its own, which a copy has too."""
    model = drawn(to_hetero(Model(), METADATA))
    compiled = compare(model, call(9, 4, 6), fullgraph=False)
    other = copy.deepcopy(compiled)
    assert not any(p is q for p, q in zip(other.parameters(), model.parameters(), strict=True))
    torch.testing.assert_close(other(*call(9, 4, 6)), model(*call(9, 4, 6)))
    assert len(traces(other)) == 1
