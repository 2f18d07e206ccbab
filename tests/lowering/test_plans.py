"""What plans tell of a layer's cost without a clock: which rows are stored, and how often edges compute the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from compiled import PAIRS
from custom_layers import CompositionConv, GatedRelationalConv, RelationPooling, SourceAttention, TwoHops
from eager_graphs import NODE_TYPES, RELATIONS, square_graphs
from torch import Tensor, nn

import columba
from columba.driver import Compilation
from columba.ir.plan.kernels import Buffer, Gemm, GemmReduce, Load, Traversal, product_of, reads, values_of, writes
from columba.ir.program.ops import FeatureReduce
from columba.ir.program.parsing import parse_program
from columba.ir.spaces import Space
from columba.lowering.kernels import lower
from columba.runtime.graphs.graph import Graph

GRAPH = square_graphs()["random"]
WIDTH = 32
SMALL_ROW = 16

Case = Callable[[], tuple[nn.Module, tuple[Tensor | Graph, ...]]]


def rows(*shape: int) -> Tensor:
    return torch.randn(shape).requires_grad_()


def nodes() -> Tensor:
    return rows(GRAPH.num_nodes, WIDTH)


CASES: dict[str, Case] = {
    "rgcn": lambda: (columba.nn.RGCNConv(WIDTH, WIDTH, RELATIONS), (nodes(), GRAPH)),
    "rgcn bases": lambda: (columba.nn.RGCNConv(WIDTH, WIDTH, RELATIONS, num_bases=3), (nodes(), GRAPH)),
    "rgcn blocks": lambda: (columba.nn.RGCNConv(WIDTH, WIDTH, RELATIONS, num_blocks=2), (nodes(), GRAPH)),
    "rgat 1": lambda: (columba.nn.RGATConv(WIDTH, WIDTH, RELATIONS, heads=1), (nodes(), GRAPH)),
    "rgat 4": lambda: (columba.nn.RGATConv(WIDTH, WIDTH, RELATIONS, heads=4), (nodes(), GRAPH)),
    "hgt 1": lambda: (columba.nn.HGTConv(WIDTH, WIDTH, NODE_TYPES, RELATIONS, heads=1), (nodes(), GRAPH)),
    "hgt 4": lambda: (columba.nn.HGTConv(WIDTH, 4 * WIDTH, NODE_TYPES, RELATIONS, heads=4), (nodes(), GRAPH)),
    "gated": lambda: (GatedRelationalConv(WIDTH, 3, RELATIONS), (GRAPH, nodes(), rows(GRAPH.num_edges, 3))),
    "composition": lambda: (CompositionConv(WIDTH, 20), (GRAPH, nodes(), rows(RELATIONS, WIDTH))),
    "two hops": lambda: (TwoHops(WIDTH, 24, RELATIONS), (GRAPH, nodes())),
    "source attention": lambda: (SourceAttention(WIDTH, 2, RELATIONS), (GRAPH, nodes(), rows(GRAPH.num_edges))),
    "relation pooling": lambda: (RelationPooling(WIDTH, NODE_TYPES), (GRAPH, nodes())),
}


def compilation(case: str) -> Compilation:
    module, args = CASES[case]()
    return columba.explain(columba.compile(module, backend="cpp", passes=PAIRS), *args).compilation


def own_buffers(compiled: Compilation) -> Iterator[Buffer]:
    """The buffers that the compiler decided on: all but the user's inputs and results, and their gradients."""
    for plan in compiled.plans:
        yield from (b for b in plan.buffers if b.role == "temporary")
    yield from compiled.forward_plan.outputs[compiled.results :]


def traversals(compiled: Compilation) -> list[Traversal]:
    assert compiled.backward_plan is not None
    return [k for k in compiled.backward_plan.kernels if isinstance(k, Traversal)]


@pytest.mark.parametrize("case", CASES)
def test_no_edge_has_a_wide_row(case: str) -> None:
    compiled = compilation(case)
    assert compiled.backward_plan is not None
    wide = [f"{b} {b.type}" for b in own_buffers(compiled) if b.type.space is Space.EDGE and b.type.size > SMALL_ROW]
    assert wide == []


def test_the_product_of_a_wide_edge_feature_is_the_exception() -> None:
    module, args = GatedRelationalConv(WIDTH, 24, RELATIONS), (GRAPH, nodes(), rows(GRAPH.num_edges, 24))
    compiled = columba.explain(columba.compile(module, backend="cpp", passes=PAIRS), *args).compilation
    wide = {b for b in own_buffers(compiled) if b.type.space is Space.EDGE and b.type.size > SMALL_ROW}
    products = {b for plan in compiled.plans for k in plan.kernels if isinstance(k, Gemm) for b in writes(k)}
    assert len(wide) == 1
    assert wide <= products


@pytest.mark.parametrize("heads", [1, 4])
def test_gradients_of_scores_are_spread_to_features_while_they_are_summed(heads: int) -> None:
    """RGAT's score of a destination has one number a head; the gradient of its node is summed in the same traversal."""
    compiled = compilation(f"rgat {heads}")
    stored = [b.type for b in own_buffers(compiled) if b.type.space is Space.DST_REL]
    assert stored
    assert max(t.size for t in stored) == heads
    depths = [product_of(k).x.shape[-1] for plan in compiled.plans for k in plan.kernels if isinstance(k, Gemm)]
    assert min(depths) == WIDTH
    to_nodes = [k for k in traversals(compiled) if k.via is not None and k.via.fine in (Space.SRC_REL, Space.DST_REL)]
    sums = [k.via.fine for k in to_nodes if k.via is not None and k.owner is Space.NODE]
    assert sorted(sums) == [Space.DST_REL, Space.SRC_REL]


@pytest.mark.parametrize("heads", [1, 4])
def test_wide_dot_products_of_edges_are_computed_once_in_a_direction(heads: int) -> None:
    """The gradient of HGT's scores is needed by both ends of an edge: a number a head, kept for the second."""
    compiled = compilation(f"hgt {heads}")
    dots = [
        k.name
        for k in traversals(compiled)
        if any(isinstance(v, FeatureReduce) and v.space is Space.EDGE for v in values_of(k))
    ]
    assert len(dots) == 1


@pytest.mark.parametrize("heads", [1, 4])
def test_dot_products_of_both_ends_are_computed_where_one_end_is_at_hand(heads: int) -> None:
    """The sum over a source's edges gathers the destinations' gradients anyway, and owns the sources' rows: none are gathered twice."""
    backward = compilation(f"rgat {heads}").plans[1]
    gathered = [
        str(v.via)
        for k in backward.kernels
        for v in values_of(k)
        if isinstance(v, Load) and v.at is Space.EDGE and v.type.size > SMALL_ROW
    ]
    assert gathered == ["dst:edge->node"]


def test_a_sum_of_all_rows_computes_what_else_is_needed_of_them() -> None:
    """The gradient of RGAT's bias sums the results' gradients, whose products with the results other kernels need."""
    backward = compilation("rgat 1").plans[1]
    (kernel,) = (k for k in backward.kernels if isinstance(k, Traversal) and k.owner is Space.ONE)
    assert [b.type.space for b in writes(kernel)] == [Space.NODE, Space.ONE]
    assert kernel.schedule.split > 0


@pytest.mark.parametrize("case", CASES)
def test_what_nobody_reads_is_not_stored(case: str) -> None:
    """Rows of a product that only its own epilogue needs, above all."""
    for plan in compilation(case).plans:
        read = {*plan.outputs, *(b for k in plan.kernels for b in reads(k))}
        assert not [b for k in plan.kernels for b in writes(k) if b not in read]


def test_products_read_a_weight_of_any_shape_in_place() -> None:
    """RGAT's weight has a dimension of heads, which its products do not."""
    compiled = compilation("rgat 4")
    products = [product_of(k) for plan in compiled.plans for k in plan.kernels if isinstance(k, Gemm)]
    wide = [p for p in products if p.w.name == "weight"]
    assert [(p.w.type.shape, p.matrix) for p in wide] == [((WIDTH, 4, WIDTH), (WIDTH, 4 * WIDTH))] * 2
    with pytest.raises(TypeError, match="has no elements for"):
        replace(wide[0], matrix=(WIDTH, WIDTH))


def test_products_with_vectors_are_traversals() -> None:
    """A score has one number a head: its products are dot products and, for the weights' gradient, weighted sums of rows."""
    for heads, narrow in ((1, 0), (4, 2)):
        compiled = compilation(f"rgat {heads}")
        products = [k for plan in compiled.plans for k in plan.kernels if isinstance(k, (Gemm, GemmReduce))]
        widths = [k.y.shape[-1] if isinstance(k, GemmReduce) else product_of(k).shape[-1] for k in products]
        assert widths.count(heads) == narrow


# ------------------------------------------------------------------------------------------------ which values get a buffer


def temporaries(text: str) -> list[str]:
    return [str(b.type) for b in lower(parse_program(text)).buffers if b.role == "temporary"]


def test_what_is_read_twice_through_one_view_is_stored_once() -> None:
    text = """program p(%s: edge[4] f32, %k: node[4,8] f32) {{
      %0: edge[4] f32 = pointwise(%s, function=exp)
      %1: edge[{a},1] f32 = {view}
      %2: edge[{a},1] f32 = {other}
      %3: node[{a},8] f32 = slice(%k, axis=0, start=0, stop={a}, step=1)
      %4: edge[{a},8] f32 = lift(%3, via=src:edge->node)
      %5: edge[{a},8] f32 = pointwise(%1, %4, function=mul)
      %6: node[{a},8] f32 = reduce(%5, via=dst:edge->node, op=sum)
      %7: edge[{a},8] f32 = lift(%3, via=dst:edge->node)
      %8: edge[{a},8] f32 = pointwise(%2, %7, function=mul)
      %9: node[{a},8] f32 = reduce(%8, via=src:edge->node, op=sum)
      return a=%6, b=%9 }}"""
    whole = "reshape(%0, to=[4, 1])"
    assert temporaries(text.format(a=4, view=whole, other="reshape(%1, to=[4, 1])")) == ["edge[4] f32"]
    halves = text.replace("%1: edge[{a},1] f32 = {view}", "{view}").replace("%2: edge[{a},1] f32 = {other}", "{other}")
    first = "%x: edge[2] f32 = slice(%0, axis=0, start=0, stop=2, step=1)\n %1: edge[2,1] f32 = reshape(%x, to=[2, 1])"
    second = "%y: edge[2] f32 = slice(%0, axis=0, start=2, stop=4, step=1)\n %2: edge[2,1] f32 = reshape(%y, to=[2, 1])"
    assert temporaries(halves.format(a=2, view=first, other=second)) == []


@pytest.mark.parametrize(("n", "stored"), [(32, []), (16, ["edge[16] f32"])])
def test_products_of_edges_compute_wide_operands_as_they_read_them(n: int, stored: list[str]) -> None:
    text = f"""program p(%h: node[{n}] f32, %w: one[{n},8] f32) {{
      %0: edge[{n}] f32 = lift(%h, via=src:edge->node)
      %1: edge[{n}] f32 = lift(%h, via=dst:edge->node)
      %2: edge[{n}] f32 = pointwise(%0, %1, function=mul)
      %3: edge[8] f32 = linear(%2, %w, via=one:edge->one)
      %4: one[{n},{n}] f32 = outer_reduce(%0, %2, via=one:edge->one, shared=true)
      return a=%3, b=%4 }}"""
    assert temporaries(text) == stored


def test_a_weight_that_rows_read_with_its_axes_exchanged_is_stored_so() -> None:
    text = """program p(%x: dst_rel[5] f32, %w: rel[5,2] f32) {
      %0: rel[2,5] f32 = permute(%w, order=[1, 0])
      %1: rel[1,5] f32 = slice(%0, axis=0, start=0, stop=1, step=1)
      %2: rel[5] f32 = reshape(%1, to=[5])
      %3: dst_rel[5] f32 = lift(%2, via=rel:dst_rel->rel)
      %4: dst_rel[5] f32 = pointwise(%x, %3, function=mul)
      return out=%4 }"""
    assert temporaries(text) == ["rel[2,5] f32"]
