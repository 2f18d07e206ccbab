"""RGCNConv and FastRGCNConv of PyTorch Geometric, lowered, against themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyg_layers import compare, drawn, floats, relational_graphs, traces
from torch_geometric.nn import FastRGCNConv, RGCNConv

import columba

N, R = 7, 4
GRAPHS = relational_graphs(N, R)


@pytest.mark.parametrize(
    ("aggr", "decomposition"),
    [
        ("mean", {}),
        ("mean", {"num_bases": 2}),
        ("add", {"num_blocks": 2}),
        ("max", {"num_bases": 2}),
        ("max", {"num_blocks": 2}),
        ("min", {}),
    ],
)
def test_features(aggr: str, decomposition: dict[str, int]) -> None:
    conv = drawn(RGCNConv(6, 4, R, aggr=aggr, **decomposition))
    compiled = compare(conv, *((floats(N, 6, seed=n), *graph) for n, graph in enumerate(GRAPHS)))
    assert len(traces(compiled)) == 1


@pytest.mark.parametrize(
    ("aggr", "decomposition"), [("sum", {}), ("mean", {"num_bases": 2}), ("mean", {"num_blocks": 2})]
)
def test_fast(aggr: str, decomposition: dict[str, int]) -> None:
    compare(drawn(FastRGCNConv(6, 4, R, aggr=aggr, **decomposition)), *((floats(N, 6), *graph) for graph in GRAPHS))


@pytest.mark.parametrize(("aggr", "bases"), [("mean", None), ("mean", 2), ("max", 2)])
def test_ids(aggr: str, bases: int | None) -> None:
    """Of nodes without features: their ids, or None for 0, 1, 2, ..."""
    conv = drawn(RGCNConv(9, 4, R, num_bases=bases, aggr=aggr))
    ids = torch.tensor([8, 0, 3, 3, 1, 7, 2])
    compare(conv, *((ids, *graph) for graph in GRAPHS))
    compare(conv, *((None, *graph) for graph in relational_graphs(9, R)))
    edges, types = torch.tensor([[0, 6, 3, 3], [1, 2, 0, 1]]), torch.tensor([3, 0, 0, 3])
    compare(conv, ((ids, ids[:3]), edges, types), ((None, ids[1:4]), edges, types))


@pytest.mark.parametrize("kind", [RGCNConv, FastRGCNConv])
def test_pairs(kind: Any) -> None:
    """Sources and destinations that are different nodes, without the destinations' own weight and a bias too."""
    edges = torch.tensor([[0, 6, 3, 3], [1, 2, 0, 1]])
    args = ((floats(N, 6), floats(3, 5)), edges, torch.tensor([3, 0, 0, 3]))
    compare(drawn(kind((6, 5), 4, R)), args)
    compare(drawn(kind((6, 5), 4, R, root_weight=False, bias=False)), args)


def test_loop_not_fused_path() -> None:
    """A mean for each relation, then their sum: 1 + (3 + 5) / 2, where a mean over all neighbours would be 3."""
    conv = RGCNConv(1, 1, 2, root_weight=False, bias=False)
    torch.nn.init.ones_(conv.weight)
    x, edges = torch.tensor([[1.0], [3.0], [5.0], [0.0]]), torch.tensor([[0, 1, 2], [3, 3, 3]])
    compiled = columba.compile(conv, backend="torch")
    assert compiled(x, edges, torch.tensor([0, 1, 1]))[3].item() == 5.0
    conv.aggr_module, conv.aggr = columba_max(), "max"
    assert compiled(x, edges, torch.tensor([0, 1, 1]))[3].item() == 6.0


def columba_max() -> Any:
    from torch_geometric.nn.aggr import MaxAggregation

    return MaxAggregation()


def test_empty_maximum_is_zero() -> None:
    conv = RGCNConv(1, 1, 2, aggr="max", root_weight=False, bias=False)
    torch.nn.init.ones_(conv.weight)
    compiled = columba.compile(conv, backend="torch")
    out = compiled(torch.tensor([[-1.0], [-2.0]]), torch.tensor([[0], [1]]), torch.tensor([1]))
    assert out.tolist() == [[0.0], [-1.0]]


@pytest.mark.parametrize(("kind", "result"), [(RGCNConv, torch.float32), (FastRGCNConv, torch.bfloat16)])
def test_half_precision(kind: Any, result: torch.dtype) -> None:
    """Parameters in bfloat16: RGCNConv adds up in float32, and returns it, FastRGCNConv does neither; and so under autocast."""
    conv = kind(6, 4, R).bfloat16()
    x, (edges, types) = floats(N, 6), GRAPHS[2]
    compiled = columba.compile(conv, fullgraph=True, backend="torch")
    expected, got = conv(x.bfloat16(), edges, types), compiled(x.bfloat16(), edges, types)
    assert expected.dtype == got.dtype == result
    torch.testing.assert_close(got, expected, rtol=0.05, atol=0.05)
    conv = conv.float()
    with torch.autocast("cpu", torch.bfloat16):
        expected, got = conv(x.float(), edges, types), compiled(x.float(), edges, types)
    assert expected.dtype == got.dtype
    torch.testing.assert_close(got, expected, rtol=0.05, atol=0.05)


def test_what_is_not_lowered_is_the_layers_own_forward() -> None:
    """Which moves rows along graphs, too."""
    (edges, types), x = GRAPHS[0], torch.randn(N, 6)
    for conv in (RGCNConv(6, 4, R, flow="target_to_source"), RGCNConv(6, 4, R, aggr="std")):
        found = columba.compile(conv, backend="torch", fullgraph=True)(x, edges, types)
        torch.testing.assert_close(found, conv(x, edges, types))


@pytest.mark.slow
@pytest.mark.unoptimized
def test_kernels() -> None:
    conv = drawn(RGCNConv(6, 4, R, num_bases=2))
    compare(conv, *((floats(N, 6), *graph) for graph in GRAPHS), backend="cpp")
