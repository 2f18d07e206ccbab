"""HANConv of PyTorch Geometric, lowered, against itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyg_layers import compare, drawn, floats, traces, typed_edges
from torch import Tensor
from torch_geometric.nn import HANConv

import columba

METADATA = (
    ["movie", "actor", "tag"],
    [("movie", "by", "movie"), ("actor", "in", "movie"), ("movie", "has", "actor"), ("movie", "like", "movie")],
)
SIZES = {"movie": 6, "actor": 4, "tag": 2}
FEATURES = {"movie": 5, "actor": 8, "tag": 3}


def call(edges: int, sizes: dict[str, int] = SIZES) -> tuple[dict[Any, Tensor], dict[Any, Tensor]]:
    tables = {kind: floats(n, FEATURES[kind], seed=edges) for kind, n in sizes.items()}
    return tables, typed_edges(METADATA[1], sizes, edges)


@pytest.mark.parametrize("heads", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_against_pyg(heads: int) -> None:
    """Three meta-paths to one type, one to another, and none to a third, whose result is None."""
    conv = drawn(HANConv(FEATURES, 8, METADATA, heads=heads, negative_slope=0.4))
    compiled = compare(conv, call(9), call(0), call(20, {"movie": 9, "actor": 3, "tag": 5}))
    assert len(traces(compiled)) == 1
    assert compiled(*call(9))["tag"] is None


def test_semantic_attention() -> None:
    compare(drawn(HANConv(FEATURES, 8, METADATA, heads=2)), (*call(9), True))
    tables, edges = call(0, {"movie": 0, "actor": 4, "tag": 2})
    compare(drawn(HANConv(FEATURES, 8, METADATA)), (tables, edges, True), (tables, edges, False))


def test_dropout() -> None:
    conv = drawn(HANConv(FEATURES, 8, (["movie"], METADATA[1][:1]), dropout=0.5))
    tables, edges = call(20)
    args: Any = ({"movie": tables["movie"]}, {METADATA[1][0]: edges[METADATA[1][0]]})
    compiled = columba.compile(conv, backend="torch", fullgraph=True)
    conv.eval()
    torch.testing.assert_close(compiled(*args), conv(*args))
    conv.train()
    torch.manual_seed(3)
    once = compiled(*args)["movie"]
    assert not torch.equal(once, compiled(*args)["movie"])
    torch.manual_seed(3)
    torch.testing.assert_close(compiled(*args)["movie"], once)


def test_lazy_sizes() -> None:
    conv = HANConv(-1, 8, METADATA, heads=2)
    compiled = columba.compile(conv, backend="torch")
    tables, edges = call(9)
    tables = {kind: x.float() for kind, x in tables.items()}
    for _ in range(3):
        torch.testing.assert_close(compiled(tables, edges), conv(tables, edges))
    assert len(traces(compiled)) == 1


@pytest.mark.slow
@pytest.mark.unoptimized
def test_kernels() -> None:
    two = (["movie", "actor"], METADATA[1][1:3])
    tables, edges = call(9)
    args: Any = ({k: tables[k] for k in two[0]}, {k: edges[k] for k in two[1]})
    compare(drawn(HANConv({k: FEATURES[k] for k in two[0]}, 8, two, heads=2)), args, backend="cpp")


def test_sparse_edges() -> None:
    """Run as the layer does, also where the same layer had dense ones before."""
    conv = drawn(HANConv(FEATURES, 8, METADATA))
    compiled = columba.compile(conv, backend="torch")
    tables, edges = call(0)
    torch.testing.assert_close(compiled(tables, edges), conv(tables, edges))
    sizes = {name: (SIZES[name[2]], SIZES[name[0]]) for name in edges}
    ones = torch.ones(2, dtype=torch.float64)
    adjacent = {
        name: torch.sparse_coo_tensor(torch.tensor([[0, 1], [1, 0]]), ones, size, check_invariants=True).coalesce()
        for name, size in sizes.items()
    }
    torch.testing.assert_close(compiled(tables, adjacent), conv(tables, adjacent))
    with pytest.raises(columba.TraceError, match="a sparse matrix is used"):
        columba.compile(conv, fullgraph=True)(tables, adjacent)
