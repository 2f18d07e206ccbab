"""Layers whose sums come before their products, in both directions, compiled to C++ kernels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from compiled import PAIRS, assert_same, leaf, randomized
from eager_graphs import NODE_TYPES, RELATIONS, square_graphs

import columba
from columba import nn
from columba.ir.program.ops import Linear
from columba.ir.program.program import Program
from columba.ir.spaces import Space
from columba.passes.pipeline import parse_passes
from columba.passes.recipes import LEVEL_1, Recipe

pytestmark = pytest.mark.unoptimized

GRAPHS = square_graphs()

LAYERS: dict[str, tuple[Callable[[], torch.nn.Module], int]] = {
    "rgcn mean": (lambda: nn.RGCNConv(7, 5, RELATIONS), 7),
    "rgcn blocks": (lambda: nn.RGCNConv(10, 6, RELATIONS, num_blocks=2, aggr="sum"), 10),
    "rgat": (lambda: nn.RGATConv(7, 5, RELATIONS, heads=3), 7),
    "hgt": (lambda: nn.HGTConv(15, 15, NODE_TYPES, RELATIONS, heads=3), 15),
}
DST, SRC = "aggregate_first", "aggregate_first{end='src'}"
CLEAN = "canonicalize,common_subexpressions"


def recipe(*passes: str) -> Recipe:
    return Recipe(LEVEL_1.plus(*parse_passes(",".join((*passes, CLEAN)))), verify=True)


def products_in(program: Program, space: Space) -> int:
    return sum(isinstance(v, Linear) and v.space is space for v in program.body)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("passes", [(DST,), (SRC,), (DST, SRC)], ids=["dst", "src", "both"])
def test_sums_before_products_change_no_number(name: str, passes: tuple[str, ...]) -> None:
    build, size = LAYERS[name]
    torch.manual_seed(0)
    eager = randomized(build(), torch.float64)
    compiled = columba.compile(eager, backend="cpp", recipe=recipe(*passes))
    for graph in GRAPHS.values():
        assert_same(compiled, eager, [leaf(graph.num_nodes, size), graph], list(eager.parameters()))


@pytest.mark.parametrize("name", LAYERS)
def test_messages_are_multiplied_per_destination_and_relation(name: str) -> None:
    """The product of messages moves from (source, relation) pairs to (destination, relation) pairs, and none stays behind."""
    build, size = LAYERS[name]
    args = (leaf(GRAPHS["random"].num_nodes, size).float(), GRAPHS["random"])
    plain = columba.explain(columba.compile(build(), backend="cpp", passes=PAIRS), *args).compilation.forward
    moved = columba.explain(columba.compile(build(), backend="cpp", recipe=recipe(DST)), *args).compilation.forward
    assert products_in(moved, Space.DST_REL) == products_in(plain, Space.DST_REL) + 1
    assert products_in(moved, Space.SRC_REL) <= products_in(plain, Space.SRC_REL)
