"""Every class of PyG's layers runs as the tables of docs/pyg.md say, with the results and gradients that it has uncompiled."""

from __future__ import annotations

import functools

import pytest
import torch_geometric.nn.conv

import columba
from tests.compared import compare
from tests.frontend.pyg.coverage import GENERIC, LAYERS, LOWERING, NOT_RUN, OTHERS, Case, all_cases, found, made

RUN = [one for one in all_cases() if one.expected != NOT_RUN]


def is_slow(case: Case) -> bool:
    """Models and pooling are made of layers that are tried anyway, and so are some layers."""
    return case.name not in QUICK if case.table == OTHERS else case.name in ALIKE


QUICK = ("GCN", "GIN", "LightGCN", "GraphNorm", "global_max_pool")
ALIKE = (
    "SSGConv",
    "SGConv",
    "GCN2Conv",
    "MixHopConv",
    "FAConv",
    "FastRGCNConv",
    "GATv2Conv",
    "PointGNNConv",
    "DirGNNConv",
)


@pytest.mark.parametrize(
    "case", [pytest.param(one, id=one.name, marks=[pytest.mark.slow] * is_slow(one)) for one in RUN]
)
def test_case(case: Case) -> None:
    outcome, why = found(case)
    assert outcome == case.expected, why


@pytest.mark.slow
@pytest.mark.unoptimized
@pytest.mark.parametrize("case", [pytest.param(one, id=one.name) for one in RUN if one.expected in (GENERIC, LOWERING)])
def test_kernels(case: Case) -> None:
    module, args = made(case)
    assert compare(functools.partial(columba.compile, backend="cpp"), module, *args).tensors


def test_every_layer_has_a_case() -> None:
    assert {one.name for one in all_cases() if one.table == LAYERS} == set(torch_geometric.nn.conv.classes)


def test_most_layers_are_compiled() -> None:
    layers = [one for one in all_cases() if one.table == LAYERS]
    assert sum(one.expected in (GENERIC, LOWERING) for one in layers) >= 0.75 * len(layers)
