"""HeteroConv of PyTorch Geometric, lowered, against itself, with layers inside that are compiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyg_layers import compare, drawn, floats, traces, typed_edges
from torch import Tensor
from torch_geometric.nn import FiLMConv, GraphConv, HeteroConv, RGATConv, SAGEConv

import columba

NAMES = [
    ("author", "writes", "paper"),
    ("paper", "cites", "paper"),
    ("paper", "by", "author"),
    ("paper", "near", "paper"),
]
SIZES = {"author": 4, "paper": 6}
SHAPES = {"author": 3, "paper": 5}
Tables = dict[Any, Tensor]


def layers() -> dict[Any, Any]:
    return {
        NAMES[0]: FiLMConv((3, 5), 4),
        NAMES[1]: FiLMConv(5, 4),
        NAMES[2]: FiLMConv((5, 3), 4),
        NAMES[3]: FiLMConv(5, 4, act=None),
    }


def call(edges: int, sizes: dict[str, int] = SIZES) -> tuple[Tables, Tables]:
    tables = {"author": floats(sizes["author"], 3, seed=edges), "paper": floats(sizes["paper"], 5, seed=edges)}
    return tables, typed_edges(NAMES, sizes, edges)


@pytest.mark.parametrize(
    "aggr", ["sum", "max", "cat", None, *(pytest.param(a, marks=pytest.mark.slow) for a in ("mean", "min"))]
)
def test_aggregations(aggr: str | None) -> None:
    compiled = compare(drawn(HeteroConv(layers(), aggr=aggr)), call(9), call(20, {"author": 7, "paper": 5}))
    assert len(traces(compiled)) == 1


@pytest.mark.parametrize("aggr", ["sum", "mean"])
def test_own_features_are_multiplied_once(aggr: str) -> None:
    """Whatever the edge types that arrive at a node type; one of them, or a node type, may be missing in a call."""
    inner: dict[Any, Any] = {name: SAGEConv((SHAPES[name[0]], SHAPES[name[-1]]), 4) for name in NAMES[:3]}
    conv = drawn(HeteroConv({**inner, NAMES[3]: GraphConv(5, 4)}, aggr=aggr))
    tables, edges = call(9)
    fewer = {name: edges[name] for name in NAMES[1:2]}
    compiled = compare(conv, call(9), call(20, {"author": 7, "paper": 5}), (tables, fewer), call(9))
    first = traces(compiled)[0]
    assert sum(str(part.program).count("= linear(") for part in first.trace.parts) == 4 + 2
    with pytest.raises(RuntimeError):  # features of another size, as PyG says it
        compiled({"author": tables["author"], "paper": floats(6, 4)}, edges)
    torch.testing.assert_close(compiled(*call(9)), conv(*call(9)))
    compare(conv, ({"paper": tables["paper"]}, fewer))


def test_ties() -> None:
    """Of equal results PyG takes the first, and so does the gradient."""
    same = FiLMConv(5, 4)
    conv = drawn(HeteroConv({NAMES[1]: same, NAMES[3]: same}, aggr="max"))
    tables, edges = call(9)
    edges[NAMES[3]] = edges[NAMES[1]]
    compare(conv, ({"paper": tables["paper"]}, {name: edges[name] for name in (NAMES[1], NAMES[3])}))


def test_what_is_missing() -> None:
    """An edge type without edges in the call is left out; further tables are handed to the layers that have something in them."""
    tables, edges = call(9)
    compare(drawn(HeteroConv(layers())), (tables, {name: edges[name] for name in NAMES[:2]}))
    conv = drawn(HeteroConv({NAMES[1]: RGATConv(5, 4, 3, edge_dim=2)}))
    types, attributes = torch.arange(9) % 3, floats(9, 2)
    args = tables, {NAMES[1]: edges[NAMES[1]]}
    compiled = columba.compile(conv, backend="torch", fullgraph=True)
    named = {"edge_type_dict": {NAMES[1]: types}, "edge_attr_dict": {NAMES[1]: attributes}}
    torch.testing.assert_close(compiled(*args, **named), conv(*args, **named))
    torch.testing.assert_close(compiled(*args, {NAMES[1]: types}), conv(*args, {NAMES[1]: types}))


def test_errors() -> None:
    conv, args = HeteroConv(layers()).double(), call(9)
    with pytest.raises(ValueError, match="need to end with '_dict'"):
        columba.compile(conv, backend="torch")(*args, edge_attr={})
    with pytest.raises(columba.TraceError, match="this HeteroConv is not lowered: a keyword argument does not end"):
        columba.compile(conv, backend="torch", fullgraph=True)(*args, edge_attr={})


def test_a_layer_that_breaks() -> None:
    """It runs in PyTorch, and the others compiled: flow="target_to_source" has no lowering."""
    conv = drawn(HeteroConv({NAMES[1]: FiLMConv(5, 4, flow="target_to_source"), NAMES[3]: FiLMConv(5, 4)}))
    tables, edges = call(9)
    args = {"paper": tables["paper"]}, {name: edges[name] for name in (NAMES[1], NAMES[3])}
    compare(conv, args, fullgraph=False)


@pytest.mark.slow
@pytest.mark.unoptimized
def test_kernels() -> None:
    tables, edges = call(9)
    args = tables, {name: edges[name] for name in NAMES[1:3]}
    compare(drawn(HeteroConv({name: layers()[name] for name in NAMES[1:3]})), args, backend="cpp")
