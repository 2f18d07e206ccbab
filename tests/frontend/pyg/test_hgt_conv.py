"""HGTConv of PyTorch Geometric, lowered, against itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyg_layers import compare, drawn, floats, traces, typed_edges
from torch import Tensor, nn
from torch_geometric.nn import HGTConv

import columba

METADATA = (
    ["author", "paper", "term"],
    [("author", "writes", "paper"), ("paper", "cites", "paper"), ("paper", "by", "author"), ("term", "in", "paper")],
)
SIZES = {"author": 4, "paper": 6, "term": 3}
FEATURES = {"author": 5, "paper": 8, "term": 7}
Tables = dict[Any, Tensor]


def call(edges: int, sizes: dict[str, int] = SIZES) -> tuple[Tables, Tables]:
    tables = {kind: floats(n, FEATURES[kind], seed=edges) for kind, n in sizes.items()}
    return tables, typed_edges(METADATA[1], sizes, edges)


@pytest.mark.parametrize("heads", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_against_pyg(heads: int) -> None:
    """Types with features of their own, of which one ("paper") has as many as the result, and so a skip connection."""
    other = {"author": 1, "paper": 9, "term": 2}
    compiled = compare(drawn(HGTConv(FEATURES, 8, METADATA, heads=heads)), call(9), call(0), call(20, other))
    assert len(traces(compiled)) == 1


def test_unsorted_names() -> None:
    """PyTorch sorts the names of parameters; each type has a skip connection of its own all the same."""
    names = ["c", "a", "b"]
    metadata = names, [("c", "x", "a"), ("a", "y", "c"), ("b", "z", "b"), ("a", "b", "a")]
    tables = {name: floats(n, 8, seed=n) for n, name in enumerate(names, 3)}
    sizes = {name: len(x) for name, x in tables.items()}
    compare(drawn(HGTConv(8, 8, metadata)), (tables, typed_edges(metadata[1], sizes, 7)))


def test_types() -> None:
    """What is no destination of any edge type ("term") has no result; edge types may be missing, and have a result all the same."""
    conv = drawn(HGTConv(FEATURES, 8, METADATA))
    tables, edges = call(9)
    compiled = compare(conv, (tables, edges))
    assert list(compiled(tables, edges)) == ["author", "paper"]
    some = {name: edges[name] for name in METADATA[1][:2]}
    compare(conv, (tables, some))
    few = {kind: tables[kind] for kind in ("author", "paper")}
    compare(conv, (few, some))
    for model in (conv, columba.compile(conv, backend="torch")):
        model.zero_grad()
        sum(x.sum() for x in model(tables, some).values()).backward()
        without = [name for name, p in model.named_parameters() if p.grad is None and name.startswith("p_rel")]
        assert without == ["p_rel.paper__by__author", "p_rel.term__in__paper"]


def test_names_decide() -> None:
    """Edge types in another order than that of the metadata have the weights of their names, and so the same results. PyG's differ."""
    conv = drawn(HGTConv(FEATURES, 8, METADATA, heads=2))
    tables, edges = call(9)
    turned = dict(reversed(edges.items()))
    compiled, expected = columba.compile(conv, backend="torch", fullgraph=True), conv(tables, edges)
    torch.testing.assert_close(compiled(tables, edges), expected)
    torch.testing.assert_close(compiled(tables, turned), expected)
    torch.testing.assert_close(compiled(dict(reversed(tables.items())), turned), expected)
    assert not torch.allclose(conv(tables, turned)["paper"], expected["paper"])


def test_unknown_edge_type() -> None:
    conv = HGTConv(FEATURES, 8, METADATA).double()
    tables, edges = call(9)
    wrong = {**edges, ("term", "of", "author"): edges["term", "in", "paper"]}
    with pytest.raises(KeyError):
        conv(tables, wrong)
    with pytest.raises(KeyError):
        columba.compile(conv)(tables, wrong)


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into = nn.ModuleDict({kind: nn.Linear(n, 6) for kind, n in FEATURES.items()})
        self.first = HGTConv(6, 6, METADATA, heads=2)
        self.second = HGTConv(6, 4, (["author", "paper"], METADATA[1][:3]), heads=2)

    def forward(self, tables: Tables, edges: Tables) -> Tables:
        tables = {kind: layer(tables[kind]) for kind, layer in self.into.items()}
        tables = {kind: x.relu() for kind, x in self.first(tables, edges).items()}
        return self.second(tables, {name: index for name, index in edges.items() if name[0] in tables})


def test_model() -> None:
    """Two layers, the second on fewer types: a program for each, and one trace for all sizes."""
    compiled = compare(
        drawn(Layers()), call(9), call(20, {"author": 7, "paper": 5, "term": 2}), call(5, {**SIZES, "author": 2})
    )
    assert len(traces(compiled)) == 1
    assert len(columba.explain(compiled, *call(9)).regions) == 2


def test_lazy_sizes() -> None:
    """Sizes of -1 are those of the first call, and the layer is compiled from the second one on."""
    conv = HGTConv(-1, 8, METADATA, heads=2)
    compiled = columba.compile(conv, backend="torch")
    tables, edges = call(9)
    tables = {kind: x.float() for kind, x in tables.items()}
    first = compiled(tables, edges)
    assert conv.kqv_lin.lins["author"].weight.shape == (24, 5)
    for got in (first, compiled(tables, edges)):
        torch.testing.assert_close(got, conv(tables, edges))
    assert len(traces(compiled)) == 1


def test_mixed_precision() -> None:
    """Under autocast, and with parameters in bfloat16: results of the dtype that PyG gives, near those of float64."""
    conv = drawn(HGTConv(FEATURES, 8, METADATA, heads=2))
    tables, edges = call(9)
    expected = conv(tables, edges)["paper"]
    conv, tables = conv.float(), {kind: x.float() for kind, x in tables.items()}
    compiled = columba.compile(conv, backend="torch", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        got, wanted = compiled(tables, edges)["paper"], conv(tables, edges)["paper"]
    assert got.dtype == wanted.dtype
    got.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for n, p in conv.named_parameters() if "paper" in n)
    torch.testing.assert_close(got.double(), expected, rtol=0.1, atol=0.1)
    conv, tables = conv.bfloat16(), {kind: x.bfloat16() for kind, x in tables.items()}
    got = compiled(tables, edges)["paper"]
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), expected, rtol=0.1, atol=0.1)


@pytest.mark.unoptimized
def test_kernels() -> None:
    compare(drawn(HGTConv(FEATURES, 8, METADATA, heads=2)), call(9), call(0), backend="cpp")
