"""PyG's layers on index tensors and features of all kinds: strides, dtypes, no edges, one node, infinities, NaN, huge and tiny numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric import nn as pyg

import columba

F = 6
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "GCNConv": lambda: pyg.GCNConv(F, F),
    "SAGEConv of maxima": lambda: pyg.SAGEConv(F, F, aggr="max", project=True),
    "GATConv": lambda: pyg.GATConv(F, F, heads=2, edge_dim=2),
    "PNAConv": lambda: pyg.PNAConv(
        *(F, F, ["mean", "min", "max", "std"], ["identity", "amplification", "attenuation"]),
        deg=torch.tensor([1, 3, 4, 2]),
    ),
    "RGATConv": lambda: pyg.RGATConv(F, F, 3),
    "GCNConv with weights": lambda: pyg.GCNConv(F, F),
    "SAGEConv": lambda: pyg.SAGEConv(F, F, normalize=True),
    "GATv2Conv": lambda: pyg.GATv2Conv(F, F, edge_dim=2),
    "TransformerConv": lambda: pyg.TransformerConv(F, F, heads=2, edge_dim=2),
    "GINConv": lambda: pyg.GINConv(nn.Linear(F, F), train_eps=True),
    "GENConv": lambda: pyg.GENConv(F, F),
    "ChebConv": lambda: pyg.ChebConv(F, F, 3),
    "APPNP": lambda: pyg.APPNP(3, 0.1),
    "RGCNConv": lambda: pyg.RGCNConv(F, F, 3),
    "TAGConv": lambda: pyg.TAGConv(F, F),
    "EdgeConv": lambda: pyg.EdgeConv(nn.Linear(2 * F, F)),
    "CGConv": lambda: pyg.CGConv(F, dim=2, aggr="mean"),
    "SuperGATConv": lambda: pyg.SuperGATConv(F, F),
    "FAConv": lambda: pyg.FAConv(F),
    "LEConv": lambda: pyg.LEConv(F, F),
    "EGConv": lambda: pyg.EGConv(F, 8),
    "AGNNConv": lambda: pyg.AGNNConv(),
    "ResGatedGraphConv": lambda: pyg.ResGatedGraphConv(F, F, edge_dim=2),
}
QUICK = ("SAGEConv of maxima", "GATConv")


def inputs() -> Iterator[tuple[str, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def edges(nodes: int, count: int) -> Tensor:
        return torch.randint(nodes, (2, count), generator=generator)

    x, e = torch.randn(9, F, generator=generator, dtype=torch.float64), edges(9, 30)
    none = torch.zeros(2, 0, dtype=torch.int64)
    looped = e.clone()
    looped[:, ::3] = looped[:1, ::3]
    yield "as usual", x, e
    yield "again", x, e
    yield "edges in columns", x, e.t().contiguous().t()
    yield "loops and the same edge twice", x, torch.cat([looped, looped], 1)
    yield "no edges", x, none
    yield "one node", x[:1], torch.zeros(2, 3, dtype=torch.int64)
    yield "one edge", x, e[:, :1]
    yield "nodes without edges", x, e % 4
    yield "features of 0", torch.zeros_like(x), e
    for name, value in (("NaN", torch.nan), ("infinite", torch.inf)):
        odd = x.clone()
        odd[2, 1] = value
        yield name, odd, e
    yield "huge", x * 1e150, e
    yield "tiny", x * 1e-160, e
    yield "features in columns", torch.randn(F, 9, generator=generator, dtype=torch.float64).t(), e
    yield "every other feature", torch.randn(9, 2 * F, generator=generator, dtype=torch.float64)[:, ::2], e
    yield "float32", x.float(), e
    yield "no nodes", x[:0], none


def arguments(name: str, x: Tensor, e: Tensor) -> tuple[tuple[Any, ...], list[Tensor]]:
    """Those of a call, and which of them have gradients."""
    generator = torch.Generator().manual_seed(e.shape[1])
    layer = name.split(maxsplit=1)[0]
    if layer in ("GATConv", "GATv2Conv", "TransformerConv", "CGConv", "ResGatedGraphConv"):
        more = torch.randn(e.shape[1], 2, generator=generator, dtype=torch.float64).to(x.dtype).requires_grad_()
        return (x, e, more), [x, more]
    if name.endswith("weights"):
        more = torch.rand(e.shape[1], generator=generator, dtype=torch.float64).to(x.dtype).requires_grad_()
        return (x, e, more), [x, more]
    if layer in ("RGCNConv", "RGATConv"):
        return (x, e, torch.randint(3, (e.shape[1],), generator=generator)), [x]
    return ((x, x * 0.5, e) if layer == "FAConv" else (x, e)), [x]


def outcome(name: str, model: nn.Module, x: Tensor, e: Tensor) -> Any:
    """Results and gradients, or what kind of error there is."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    args, leaves = arguments(name, x, e)
    model.zero_grad()
    try:
        out = model(*args)
    except (RuntimeError, ValueError, IndexError):
        return None
    out.sum().backward()
    return [out.detach(), *(leaf.grad for leaf in leaves), *(p.grad for p in model.parameters())]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in LAYERS]
)
def test_as_eager(name: str) -> None:
    torch.manual_seed(0)
    model = LAYERS[name]().double().eval()
    compiled = columba.compile(copy.deepcopy(model), backend="torch", strict=True)
    for what, x, e in inputs():
        pair = model, compiled
        if x.dtype is not torch.float64:
            other = copy.deepcopy(model).to(x.dtype)
            pair = other, columba.compile(copy.deepcopy(other), backend="torch", strict=True)
        wanted, found = (outcome(name, one, x, e) for one in pair)
        assert (wanted is None) == (found is None), what
        assert wanted is not None or what in ("no edges", "one node", "no nodes"), what
        tolerance = {"rtol": 1e-6, "atol": 1e-9} if x.dtype is torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
        for a, b in zip(wanted or (), found or (), strict=True):
            if a is None:
                assert b is None or not b.any(), what
            else:
                torch.testing.assert_close(
                    b, a, equal_nan=True, msg=lambda text, what=what: f"{what}: {text}", **tolerance
                )
