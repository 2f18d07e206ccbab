"""HEATConv of PyTorch Geometric, lowered, against itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyg_layers import compare, drawn, floats, relational_graphs, traces
from torch_geometric.nn import HEATConv

import columba

N, R, T = 7, 4, 3
SIZES = {"num_node_types": T, "num_edge_types": R, "edge_type_emb_dim": 5, "edge_dim": 2, "edge_attr_emb_dim": 3}
CALLS: list[Any] = [
    (floats(N, 6, seed=n), edges, torch.arange(N) % (T - 1), types, floats(edges.shape[1], 2, seed=n))
    for n, (edges, types) in enumerate(relational_graphs(N, R))
]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"heads": 2}, marks=pytest.mark.slow),
        {"heads": 2, "concat": False, "bias": False},
        {"root_weight": False, "negative_slope": 0.6},
        pytest.param({"aggr": "max", "concat": False, "root_weight": False}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_options(options: dict[str, Any]) -> None:
    """Node types in any order, of which one does not occur."""
    assert len(traces(compare(drawn(HEATConv(6, 4, **SIZES, **options)), *CALLS))) == 1


def test_dropout() -> None:
    conv = drawn(HEATConv(6, 4, **SIZES, heads=2, dropout=0.5))
    compiled = columba.compile(conv, backend="torch", fullgraph=True)
    conv.eval()
    expected = conv(*CALLS[0])
    torch.testing.assert_close(compiled(*CALLS[0]), expected)
    conv.train()
    mean = torch.stack([compiled(*CALLS[0]) for _ in range(100)]).mean(0)
    torch.testing.assert_close(mean, expected, rtol=0, atol=0.35 * float(expected.detach().abs().max()))


def test_lazy_sizes_and_hooks() -> None:
    """Both run as the layer itself does, once or as long as the hook is there."""
    conv = HEATConv(-1, 4, **SIZES)
    compiled = columba.compile(conv, backend="torch")
    call = [x.float() if x.is_floating_point() else x for x in CALLS[0]]
    for _ in range(3):
        torch.testing.assert_close(compiled(*call), conv(*call))
    assert len(traces(compiled)) == 1
    conv.att.register_forward_hook(lambda module, args, out: out * 2)
    for _ in range(2):
        torch.testing.assert_close(compiled(*call), conv(*call))


@pytest.mark.slow
@pytest.mark.unoptimized
def test_kernels() -> None:
    compare(drawn(HEATConv(6, 4, **SIZES, heads=2)), *CALLS[:2], backend="cpp")
