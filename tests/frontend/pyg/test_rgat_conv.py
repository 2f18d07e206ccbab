"""RGATConv of PyTorch Geometric, lowered, against itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyg_layers import compare, drawn, floats, relational_graphs, traces
from torch_geometric.nn import RGATConv

import columba

N, R = 7, 4
GRAPHS = relational_graphs(N, R)
ADDITIVE = {"attention_mode": "additive-self-attention"}
MULTIPLICATIVE = {"attention_mode": "multiplicative-self-attention", "dim": 2}


def calls(edge_dim: int | None = None) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for n, (edges, types) in enumerate(GRAPHS):
        attr = () if edge_dim is None else (floats(edges.shape[1], *([edge_dim] * (edge_dim > 0)), seed=n),)
        found.append((floats(N, 6, seed=n), edges, types, *attr))
    return found


@pytest.mark.parametrize(
    ("mod", "mechanism", "mode"),
    [
        (None, "across-relation", ADDITIVE),
        (None, "within-relation", MULTIPLICATIVE),
        ("additive", "within-relation", ADDITIVE),
        ("additive", "across-relation", MULTIPLICATIVE),
        ("scaled", "across-relation", ADDITIVE),
        ("scaled", "within-relation", MULTIPLICATIVE),
        ("f-additive", "within-relation", ADDITIVE),
        ("f-scaled", "across-relation", MULTIPLICATIVE),
        pytest.param(None, "within-relation", ADDITIVE, marks=pytest.mark.slow),
        pytest.param(None, "across-relation", MULTIPLICATIVE, marks=pytest.mark.slow),
        pytest.param("f-additive", "across-relation", MULTIPLICATIVE, marks=pytest.mark.slow),
        pytest.param("f-scaled", "within-relation", ADDITIVE, marks=pytest.mark.slow),
    ],
)
def test_attention(mod: str | None, mechanism: str, mode: dict[str, Any]) -> None:
    """All parameters are set: those that only ``mod="scaled"`` reads are uninitialized in a new layer."""
    conv = drawn(RGATConv(6, 4, R, mod=mod, attention_mechanism=mechanism, heads=2, **mode))
    assert len(traces(compare(conv, *calls()[:2], tolerance=1e-8))) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"num_bases": 3, "concat": False, **ADDITIVE},
        {"num_bases": 3, "bias": False, **MULTIPLICATIVE},
        {"num_blocks": 2, "aggr": "mean", "negative_slope": 0.7, **ADDITIVE},
        {"num_blocks": 2, "concat": False, **MULTIPLICATIVE},
        {"aggr": "max", "heads": 1, **ADDITIVE},
    ],
    ids=str,
)
def test_options(options: dict[str, Any]) -> None:
    compare(drawn(RGATConv(6, 4, R, **{"heads": 2, **options})), *calls()[1:])


@pytest.mark.parametrize(("edge_dim", "mode"), [(0, ADDITIVE), (3, MULTIPLICATIVE)], ids=["one", "several"])
def test_edge_features(edge_dim: int, mode: dict[str, Any]) -> None:
    """Of several numbers, and of one that has no dimension of its own; and with a hook on the layer that maps them."""
    conv = drawn(RGATConv(6, 4, R, heads=2, edge_dim=max(edge_dim, 1), **mode))
    compare(conv, *calls(edge_dim))
    conv.lin_edge.register_forward_hook(lambda module, args, out: out * 2)
    compiled, call = columba.compile(conv, backend="torch"), calls(edge_dim)[0]
    for _ in range(2):
        torch.testing.assert_close(compiled(*call), conv(*call))


def test_attention_weights() -> None:
    """Whatever the value of the argument; the edges that come with them are those that were passed."""
    conv = drawn(RGATConv(6, 4, R, heads=2, mod="f-additive"))
    compiled = columba.compile(conv, backend="torch", fullgraph=True)
    x, edges, types = calls()[0]
    for flag in (True, False):
        out, (same, alpha) = compiled(x, edges, types, return_attention_weights=flag)
        expected, (_, wanted) = conv(x, edges, types, return_attention_weights=flag)
        assert same is edges
        torch.testing.assert_close((out, alpha), (expected, wanted))


def test_pairs() -> None:
    edges, types = torch.tensor([[0, 6, 3, 3], [1, 2, 0, 1]]), torch.tensor([3, 0, 0, 3])
    compare(drawn(RGATConv(6, 4, R, heads=2)), ((floats(N, 6), floats(3, 6)), edges, types))


def test_dropout() -> None:
    """Drawn anew at each call, the same after ``manual_seed``, nothing in ``eval()``; right in the mean."""
    conv = drawn(RGATConv(6, 4, R, dropout=0.5, bias=False))
    compiled, call = columba.compile(conv, backend="torch", fullgraph=True), calls()[0]
    conv.eval()
    expected = conv(*call)
    torch.testing.assert_close(compiled(*call), expected)
    conv.train()
    torch.manual_seed(3)
    drawn_before, mean = compiled(*call), torch.stack([compiled(*call) for _ in range(50)]).mean(0)
    torch.manual_seed(3)
    torch.testing.assert_close(compiled(*call), drawn_before)
    assert not torch.allclose(compiled(*call), drawn_before)
    torch.testing.assert_close(mean, expected, rtol=0, atol=0.6 * float(expected.detach().abs().max()))


def test_size_is_left_to_the_layer() -> None:
    conv, (x, edges, types) = drawn(RGATConv(6, 4, R)), calls()[0]
    compiled = columba.compile(conv, backend="torch", fullgraph=True)
    torch.testing.assert_close(compiled(x, edges, types, size=(N, N)), conv(x, edges, types))


@pytest.mark.slow
@pytest.mark.unoptimized
def test_kernels() -> None:
    compare(drawn(RGATConv(6, 4, R, heads=2, edge_dim=3)), *calls(3), backend="cpp")


@pytest.mark.slow
@pytest.mark.parametrize("mod", [None, "additive", "scaled", "f-additive", "f-scaled"])
@pytest.mark.parametrize("mode", [ADDITIVE, MULTIPLICATIVE], ids=lambda m: m["attention_mode"][:3])
def test_kernels_of_all(mode: dict[str, Any], mod: str | None) -> None:
    conv = drawn(RGATConv(6, 4, R, mod=mod, attention_mechanism="within-relation", heads=2, edge_dim=3, **mode))
    compare(conv, *calls(3), backend="cpp", tolerance=1e-8)
