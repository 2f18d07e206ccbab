"""Tools around a training step."""

from __future__ import annotations

import copy

import torch
from compiled import leaf, randomized
from eager_graphs import RELATIONS, square_graphs
from torch import Tensor, nn

import columba
from tests.tools.cases import case

G = square_graphs()["random"]


def eager_layer() -> nn.Module:
    return randomized(columba.nn.RGATConv(4, 3, RELATIONS, heads=2), torch.float64)


def gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(module(x, G).square().sum(), [x, *module.parameters()]))


def assert_equal(found: list[Tensor], wanted: list[Tensor]) -> None:
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


@case("Training", "`copy.deepcopy`")
def deepcopy() -> None:
    eager = eager_layer()
    copied = copy.deepcopy(columba.compile(eager))
    x = leaf(G.num_nodes, 4)
    assert_equal(gradients(copied, x), gradients(eager, x))
    assert next(copied.parameters()) is not next(eager.parameters())
