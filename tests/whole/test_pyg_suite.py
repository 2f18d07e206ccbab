"""The runner of PyG's own tests sees what a layer does otherwise when it is compiled."""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCN, MessagePassing, SAGEConv

import columba
from tests.compared import Differs, EagerError, compare

ROOT = Path(__file__).parents[2]
COMPILE = functools.partial(columba.compile, backend="torch")


@pytest.fixture(scope="module")
def plugin() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("pyg_suite_plugin", ROOT / "tools" / "pyg_suite_plugin.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments() -> tuple[Tensor, Tensor]:
    return torch.randn(5, 4), torch.tensor([[0, 1, 2, 2, 3], [2, 2, 0, 3, 0]])


def test_outermost_calls_run_compiled(plugin: types.ModuleType) -> None:
    x, edge_index = arguments()
    layer, model, other = SAGEConv(4, 4), GCN(4, 4, 2, dropout=0.5), nn.Linear(4, 4)
    expected = layer(x, edge_index)
    suite = plugin.Suite("torch")
    with suite:
        torch.testing.assert_close(layer(x, edge_index), expected)
        model(x, edge_index)
        other(x)
        with pytest.raises(ValueError, match="integer type"):
            layer(x, edge_index.float())
    assert [(c.kind, c.checked) for c in suite.calls] == [
        ("SAGEConv", "compared"),
        ("GCN", "compared in evaluation"),
        ("SAGEConv", "raises ValueError"),
    ]
    assert layer(x, edge_index).grad_fn is not None  # and none of them is compiled after it
    assert len(suite.calls) == 3


class Layer(MessagePassing):
    """What it computes, and leaves behind, is up to ``kind``."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("calls", torch.zeros(()))
        self.weight = nn.Parameter(torch.ones(4))
        self.unused = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Any:
        y = x * self.weight
        if self.kind == "value":
            return y + 1e-2
        if self.kind == "gradient of an input":
            return y + (x - x.detach())
        if self.kind == "gradient of a parameter":
            return y + (self.weight - self.weight.detach())
        if self.kind == "gradient of a parameter that is not used":
            return y + 0 * self.unused
        if self.kind == "buffer":
            self.calls += 1
        if self.kind == "structure":
            return (y,)
        if self.kind == "type":
            return y.double()
        if self.kind == "detached":
            return y.detach()
        return y


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("value", r"result: 20 of 20 elements differ, by up to 0.01; first at \[0, 0\]"),
        ("gradient of an input", r"the gradient of input\[0\]\[0\]: 20 of 20 elements differ"),
        ("gradient of a parameter", "the gradient of weight: 4 of 4 elements differ"),
        ("gradient of a parameter that is not used", "the gradient of unused is zeros in place of None"),
        ("buffer", "buffer calls: 1 of 1 elements differ, by up to 1; first at .*: 1 in place of 0"),
        ("structure", r"the result is tuple\(\[0\] Tensor\) in place of Tensor"),
        ("type", "result: dtype is torch.float64 in place of torch.float32"),
        ("detached", "result: requires_grad is False in place of True"),
    ],
)
def test_differences_are_seen(kind: str, message: str) -> None:
    def wrongly(module: nn.Module) -> nn.Module:
        module.kind = kind
        return module

    x, _ = arguments()
    with pytest.raises(Differs, match=message):
        compare(wrongly, Layer(""), x)
    compare(lambda module: module, Layer(kind), x)


class Cancelled(nn.Module):
    """Terms of which little is left: the order in which they are added shows in float32, and not in float64."""

    def __init__(self, order: int, off: float) -> None:
        super().__init__()
        self.order, self.off = order, off

    def forward(self, x: Tensor) -> Tensor:
        a, b = (x + 1e5) - 1e5, x
        return (a if self.order else b) + self.off * self.order


def test_rounding_is_told_from_errors() -> None:
    def other(module: nn.Module) -> nn.Module:
        module.order = 1
        return module

    x, _ = arguments()
    assert compare(other, Cancelled(0, 0.0), 10 * x).tensors
    with pytest.raises(Differs, match="result"):
        compare(other, Cancelled(0, 3e-3), x)
    with pytest.raises(Differs, match="result"):
        compare(other, Cancelled(0, 0.0), x.bfloat16())


def test_what_is_compared() -> None:
    x, edge_index = arguments()
    found = compare(COMPILE, SAGEConv(-1, 4), x, edge_index)  # draws its parameters at the first call
    names = ["lin_l.weight", "lin_l.bias", "lin_r.weight", "input[0][0]"]
    assert found.tensors == ["result", *(f"gradient of {name}" for name in names)]
    assert compare(COMPILE, GCN(4, 4, 2, dropout=0.5), x, edge_index).is_random
    with pytest.raises(EagerError, match="integer type"):
        compare(COMPILE, SAGEConv(4, 4), x, edge_index.float())
