"""The pass ``aggregate_first``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from compiled import PAIRS, assert_same, leaf, randomized
from eager_graphs import NODE_TYPES, RELATIONS, square_graphs
from pass_checks import check, fires, unchanged

import columba
from columba import nn
from columba.ir.program.ops import Linear
from columba.ir.program.program import Program
from columba.ir.spaces import Space
from columba.passes.pipeline import parse_passes
from columba.passes.recipes import LEVEL_1, Recipe


def test_messages_are_summed_per_pair_before_the_product() -> None:
    check(
        "aggregate_first",
        """program p(%h: node[4] f32, %w: rel[4,8] f32, %s: edge[] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->node)
          %1: edge[8] f32 = linear(%0, %w, via=rel:edge->rel)
          %2: edge[8] f32 = pointwise(%1, %s, function=mul)
          %3: node[8] f32 = reduce(%2, via=dst:edge->node, op=sum)
          return out=%3 }""",
        """program p(%h: node[4] f32, %w: rel[4,8] f32, %s: edge[] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->node)
          %1: edge[4] f32 = pointwise(%0, %s, function=mul)
          %2: dst_rel[4] f32 = reduce(%1, via=dst_rel:edge->dst_rel, op=sum)
          %3: dst_rel[8] f32 = linear(%2, %w, via=rel:dst_rel->rel)
          %4: node[8] f32 = reduce(%3, via=dst:dst_rel->node, op=sum)
          return out=%4 }""",
    )


def test_compacted_products_are_aggregated_first_too() -> None:
    """Each head sums its own rows with its own weights, and takes its columns of the matrix."""
    check(
        "aggregate_first",
        """program p(%h: node[4] f32, %w: rel[4,6] f32, %p: edge[2] f32) {
          %0: src_rel[4] f32 = lift(%h, via=src:src_rel->node)
          %1: src_rel[6] f32 = linear(%0, %w, via=rel:src_rel->rel)
          %2: src_rel[2,3] f32 = reshape(%1, to=[2, 3])
          %3: edge[2,3] f32 = lift(%2, via=src_rel:edge->src_rel)
          %4: edge[2,1] f32 = reshape(%p, to=[2, 1])
          %5: edge[2,3] f32 = pointwise(%4, %3, function=mul)
          %6: node[2,3] f32 = reduce(%5, via=dst:edge->node, op=sum)
          return out=%6 }""",
        """program p(%h: node[4] f32, %w: rel[4,6] f32, %p: edge[2] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->node)
          %1: edge[1,4] f32 = reshape(%0, to=[1, 4])
          %2: edge[2,1] f32 = reshape(%p, to=[2, 1])
          %3: edge[2,4] f32 = pointwise(%1, %2, function=mul)
          %4: dst_rel[2,4] f32 = reduce(%3, via=dst_rel:edge->dst_rel, op=sum)
          %5: rel[4,2,3] f32 = reshape(%w, to=[4, 2, 3])
          %6: rel[2,4,3] f32 = permute(%5, order=[1, 0, 2])
          %7: dst_rel[2,3] f32 = linear(%4, %6, via=rel:dst_rel->rel)
          %8: node[2,3] f32 = reduce(%7, via=dst:dst_rel->node, op=sum)
          return out=%8 }""",
    )


def test_sums_per_pair_need_no_second_sum_and_gradients_take_the_other_end() -> None:
    text = """program p(%g: dst_rel[8] f32, %w: rel[4,8] f32) {
      %0: dst_rel[4] f32 = linear(%g, %w, via=rel:dst_rel->rel, transpose=true)
      %1: edge[4] f32 = lift(%0, via=dst_rel:edge->dst_rel)
      %2: src_rel[4] f32 = reduce(%1, via=src_rel:edge->src_rel, op=sum)
      return out=%2 }"""
    unchanged("aggregate_first", text)
    check(
        "aggregate_first{end='src'}",
        text,
        """program p(%g: dst_rel[8] f32, %w: rel[4,8] f32) {
          %0: edge[8] f32 = lift(%g, via=dst_rel:edge->dst_rel)
          %1: src_rel[8] f32 = reduce(%0, via=src_rel:edge->src_rel, op=sum)
          %2: src_rel[4] f32 = linear(%1, %w, via=rel:src_rel->rel, transpose=true)
          return out=%2 }""",
    )


@pytest.mark.parametrize(
    ("x", "via", "factor", "shape"),
    [
        ("edge[2,4] f32", "rel:edge->rel", "edge[2,1] f32", "[2,6]"),  # a row a head, one matrix
        ("edge[4] f32", "rel:edge->rel", "edge[1] f32", "[6]"),
        ("edge[4] f32", "rel:edge->rel", "edge[] f32", "[6]"),
    ],
)
@pytest.mark.parametrize("function", ["mul", "div"])
def test_aggregating_first_changes_no_number(x: str, via: str, factor: str, shape: str, function: str) -> None:
    text = f"""program p(%x: {x}, %w: rel[4,6] f32, %s: {factor}) {{
      %0: edge{shape} f32 = linear(%x, %w, via={via})
      %1: edge{shape} f32 = pointwise(%0, %s, function={function})
      %2: edge{shape} f32 = pointwise(%1, function=neg)
      %3: node{shape} f32 = reduce(%2, via=dst:edge->node, op=sum)
      return out=%3 }}"""
    after = fires("aggregate_first", text)
    assert [str(v.space) for v in after.body if isinstance(v, Linear)] == ["dst_rel"]


def test_factors_below_a_view_and_weights_of_each_head() -> None:
    text = """program p(%x: node[2,4] f32, %w: rel[2,4,3] f32, %s: src_rel[] f32, %p: edge[2,1] f32) {
      %0: src_rel[2,4] f32 = lift(%x, via=src:src_rel->node)
      %1: src_rel[2,3] f32 = linear(%0, %w, via=rel:src_rel->rel)
      %2: src_rel[2,3] f32 = pointwise(%s, %1, function=mul)
      %3: edge[2,3] f32 = lift(%2, via=src_rel:edge->src_rel)
      %4: edge[2,3] f32 = pointwise(%3, %p, function=mul)
      %5: edge[6] f32 = reshape(%4, to=[6])
      %6: node[6] f32 = reduce(%5, via=dst:edge->node, op=sum)
      return out=%6 }"""
    after = fires("aggregate_first", text)
    assert [str(v.space) for v in after.body if isinstance(v, Linear)] == ["dst_rel"]


def test_one_weight_for_all_is_multiplied_at_the_destination_if_rows_are_narrower_before() -> None:
    text = """program p(%h: node[{k}] f32, %w: one[{k},{n}] f32) {{
      %0: node[{n}] f32 = linear(%h, %w, via=one:node->one)
      %1: edge[{n}] f32 = lift(%0, via=src:edge->node)
      %2: node[{n}] f32 = reduce(%1, via=dst:edge->node, op=sum)
      return out=%2 }}"""
    check(
        "aggregate_first",
        text.format(k=4, n=8),
        """program p(%h: node[4] f32, %w: one[4,8] f32) {
          %0: node[] f32 = degree(via=dst:edge->node, to=f32)
          %1: node[] f32 = constant(at=node, value=0.0, to=f32)
          %2: node[] bool = pointwise(%0, %1, function=gt)
          %3: edge[4] f32 = lift(%h, via=src:edge->node)
          %4: node[4] f32 = reduce(%3, via=dst:edge->node, op=sum)
          %5: node[8] f32 = linear(%4, %w, via=one:node->one)
          %6: node[] f32 = constant(at=node, value=0.0, to=f32)
          %7: node[8] f32 = pointwise(%2, %5, %6, function=where)
          return out=%7 }""",
    )
    unchanged("aggregate_first", text.format(k=8, n=4))


MESSAGE = """program p(%h: node[4] f32, %w: {of}[4,6] f32, %s: edge[{s}] f32) {{
  %0: edge[4] f32 = lift(%h, via=src:edge->node)
  %1: edge[6] f32 = linear(%0, %w, via={select})
  %2: edge[6] f32 = {factor}
  %3: {to}[6] f32 = reduce(%2, via={via}, op={op})
  return out=%3 }}"""

PLAIN = {
    "of": "rel",
    "select": "rel:edge->rel",
    "s": "1",
    "factor": "pointwise(%1, %s, function=mul)",
    "to": "node",
    "via": "dst:edge->node",
    "op": "sum",
}


@pytest.mark.parametrize(
    "case",
    [
        {"s": "6"},  # a factor for each feature
        {"factor": "pointwise(%1, function=relu)"},  # not linear
        {"factor": "pointwise(%s, %1, function=div)"},  # the product is the divisor
        {"factor": "pointwise(%1, %s, function=add)"},
        {"op": "max"},
        {"to": "node", "via": "src:edge->node"},  # the other end
        {"to": "rel", "via": "rel:edge->rel"},
    ],
    ids=str,
)
def test_products_before_the_sum_stay(case: dict[str, str]) -> None:
    unchanged("aggregate_first", MESSAGE.format(**{**PLAIN, **case}))


def test_products_of_nodes_do_not_become_products_of_pairs() -> None:
    unchanged(
        "aggregate_first",
        """program p(%h: node[4] f32, %w: ntype[4,8] f32) {
          %0: node[8] f32 = linear(%h, %w, via=ntype:node->ntype)
          %1: edge[8] f32 = lift(%0, via=src:edge->node)
          %2: dst_rel[8] f32 = reduce(%1, via=dst_rel:edge->dst_rel, op=sum)
          return out=%2 }""",
    )


@pytest.mark.parametrize("end", ["dst", "src"])
def test_products_of_edges_alone_are_put_off_if_so_asked(end: str) -> None:
    only = f"aggregate_first{{end='{end}',edges_only=True}}"
    pairs = f"""program p(%h: node[4] f32, %w: rel[4,8] f32) {{
      %0: src_rel[4] f32 = lift(%h, via=src:src_rel->node)
      %1: src_rel[8] f32 = linear(%0, %w, via=rel:src_rel->rel)
      %2: edge[8] f32 = lift(%1, via=src_rel:edge->src_rel)
      %3: node[8] f32 = reduce(%2, via={end}:edge->node, op=sum)
      return out=%3 }}"""
    unchanged(only, pairs)
    check(
        only,
        f"""program p(%x: edge[4] f32, %w: one[4,8] f32, %s: edge[1] f32) {{
          %0: edge[4] f32 = pointwise(%x, %s, function=mul)
          %1: edge[8] f32 = linear(%0, %w, via=one:edge->one)
          %2: node[8] f32 = reduce(%1, via={end}:edge->node, op=sum)
          return out=%2 }}""",
        f"""program p(%x: edge[4] f32, %w: one[4,8] f32, %s: edge[1] f32) {{
          %0: node[] f32 = degree(via={end}:edge->node, to=f32)
          %1: node[] f32 = constant(at=node, value=0.0, to=f32)
          %2: node[] bool = pointwise(%0, %1, function=gt)
          %3: edge[4] f32 = pointwise(%x, %s, function=mul)
          %4: node[4] f32 = reduce(%3, via={end}:edge->node, op=sum)
          %5: node[8] f32 = linear(%4, %w, via=one:node->one)
          %6: node[] f32 = constant(at=node, value=0.0, to=f32)
          %7: node[8] f32 = pointwise(%2, %5, %6, function=where)
          return out=%7 }}""",
    )


# ------------------------------------------------------------------------------------------------ layers, compiled to C++ kernels

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


@pytest.mark.parametrize(
    "name", [n if n in ("rgcn mean", "hgt") else pytest.param(n, marks=pytest.mark.slow) for n in LAYERS]
)
@pytest.mark.parametrize(
    "passes",
    [
        pytest.param((DST,), marks=pytest.mark.slow, id="dst"),
        pytest.param((SRC,), marks=pytest.mark.slow, id="src"),
        pytest.param((DST, SRC), id="both"),
    ],
)
@pytest.mark.unoptimized
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
