"""The pass ``sort_rows``: edge buffers are stored in their producer's traversal order."""

from __future__ import annotations

import pytest
import torch
from compiled import PAIRS, assert_same, leaf, randomized
from eager_graphs import NODE_TYPES, RELATIONS, square_graphs
from pass_checks import check, unchanged
from torch import Tensor

import columba
from columba import Graph
from columba.codegen.cpp import emit
from columba.ir.indices import Order
from columba.ir.plan.orders import in_own_order, reordered
from columba.ir.plan.parsing import parse_plan
from columba.ir.plan.plan import Plan, plans_equal
from columba.ir.plan.verify import verify
from columba.ir.program.verify import VerificationError
from columba.ir.spaces import Space, index_map
from columba.ir.types import DType
from columba.passes.plan.sort_rows import sort_saved

pytestmark = pytest.mark.unoptimized


GRAPHS = square_graphs()
BY_SRC, BY_DST = (index_map(name, Space.EDGE) for name in ("src", "dst"))

TWO_WALKS = """
plan two_walks(@a: node[4] f32, @w: edge[4] f32) -> (@by_dst: node[4] f32, @out: node[4] f32) {
  temporary @t: edge[4] f32SORTED
  traversal first(owner=node, via=dst:edge->node) {
    %0: edge[4] f32 = load(buffer=@a, via=src:edge->node, at=edge)
    %1: edge[4] f32 = load(buffer=@w, via=none, at=edge)
    %2: edge[4] f32 = pointwise(%0, %1, function=mul, scalars=[])
    %3: node[4] f32 = reduce(%2, via=dst:edge->node, op=sum)
    store @t = %2
    store @by_dst = %3
  }
  traversal second(owner=node, via=src:edge->node) {
    %0: edge[4] f32 = load(buffer=@t, via=none, at=edge)
    %1: node[4] f32 = reduce(%0, via=src:edge->node, op=max)
    store @out = %1
  }
}
"""
PLAIN = TWO_WALKS.replace("SORTED", "")
SORTED = TWO_WALKS.replace("SORTED", " sorted=dst:edge->node")


def test_what_members_write_stands_in_their_order() -> None:
    check("sort_rows", PLAIN, SORTED)


def test_index_arrays_of_sorted_rows() -> None:
    plain, found = parse_plan(PLAIN), parse_plan(SORTED)
    assert {a for a in plain.index_arrays if isinstance(a, Order)} == {Order(BY_DST), Order(BY_SRC)}
    # the first kernel reads @w where it stands; the second reads @t, and needs no number of an edge
    assert {a for a in found.index_arrays if isinstance(a, Order)} == {Order(BY_DST), Order(BY_SRC, BY_DST)}
    assert "b_t[(int64_t)k * 4" in emit([found], DType.I32)


def row_wise(text: str) -> str:
    """The same plan, but for a second kernel that goes over the edges as they stand."""
    return (
        text.replace("owner=node, via=src:edge->node", "owner=edge, via=none")
        .replace(
            "%1: node[4] f32 = reduce(%0, via=src:edge->node, op=max)",
            "%1: edge[4] f32 = pointwise(%0, function=exp, scalars=[])",
        )
        .replace("@out: node[4]", "@out: edge[4]")
    )


def test_results_stay_in_the_order_of_their_space() -> None:
    text = PLAIN.replace("  temporary @t: edge[4] f32\n", "").replace("(@by_dst", "(@t: edge[4] f32, @by_dst")
    unchanged("sort_rows", text)


def test_what_a_row_wise_kernel_reads_stays_in_the_order_of_its_space() -> None:
    unchanged("sort_rows", row_wise(PLAIN))


def test_only_members_may_use_sorted_rows() -> None:
    plan = parse_plan(PLAIN)
    temporary = next(b for b in plan.buffers if b.role == "temporary")
    verify(reordered(plan, {temporary: BY_SRC}))
    with pytest.raises(VerificationError, match="@t are sorted along dst:edge->node"):
        verify(parse_plan(row_wise(SORTED)))


def test_rows_go_back_to_their_own_order() -> None:
    assert plans_equal(in_own_order(parse_plan(SORTED)), parse_plan(PLAIN))
    plain = parse_plan(PLAIN)
    assert in_own_order(plain) is plain


@pytest.mark.parametrize("name", GRAPHS)
def test_places_within_another_order(name: str) -> None:
    graph = GRAPHS[name]
    order, within = graph.index(Order(BY_SRC)), graph.index(Order(BY_DST))
    places = graph.index(Order(BY_SRC, BY_DST))
    assert torch.equal(within[places.long()], order)
    assert places.dtype is order.dtype


def test_an_order_within_itself_is_an_error() -> None:
    with pytest.raises(ValueError, match="no places of their own"):
        Order(BY_SRC, BY_SRC)


def scores(g: Graph, a: Tensor, b: Tensor, v: Tensor) -> Tensor:
    """Weights that the backward pass reads along another map than it writes them."""
    e = g.edges
    weights = e.softmax(torch.tanh(e.src(a) + e.dst(b)))
    return e.sum(weights.unsqueeze(-1) * e.src(v))


@pytest.mark.parametrize("heads", [1, 3, 4])
@pytest.mark.parametrize("name", GRAPHS)
def test_gradients_through_sorted_rows(name: str, heads: int) -> None:
    g = GRAPHS[name]
    args = [leaf(g.num_nodes, heads, seed=0), leaf(g.num_nodes, heads, seed=1), leaf(g.num_nodes, heads, 6, seed=2)]
    compiled = columba.compile(scores, backend="cpp", passes=PAIRS)
    assert_same(lambda *a: compiled(g, *a), lambda *a: scores(g, *a), args)


@pytest.mark.parametrize("layer", ["rgat", "hgt"])
def test_attention_layers_sort_what_edges_keep(layer: str) -> None:
    g = GRAPHS["random"]
    module = (
        columba.nn.RGATConv(8, 2, RELATIONS, heads=4)
        if layer == "rgat"
        else columba.nn.HGTConv(8, 8, NODE_TYPES, RELATIONS, heads=4)
    )
    module = randomized(module, torch.float64)
    x = leaf(g.num_nodes, 8)
    compiled = columba.compile(module, backend="cpp", passes=PAIRS)
    plan = columba.explain(compiled, x, g).compilation.backward_plan
    assert isinstance(plan, Plan)
    kept = [b for b in plan.buffers if b.role == "temporary" and b.type.space is Space.EDGE]
    assert kept
    assert all(b.order is not None for b in kept)
    assert_same(lambda t: compiled(t, g), lambda t: module(t, g), [x], list(module.parameters()))


FORWARD = """
plan forward(@a: node[4] f32) -> (@out: node[4] f32, @saved_0: edge[4] f32SORTED) {
  traversal first(owner=node, via=dst:edge->node) {
    %0: edge[4] f32 = load(buffer=@a, via=src:edge->node, at=edge)
    %1: edge[4] f32 = pointwise(%0, function=exp, scalars=[])
    %2: node[4] f32 = reduce(%1, via=dst:edge->node, op=sum)
    store @out = %2
    store @saved_0 = %1
  }
}
"""
BACKWARD = """
plan backward(@saved_exp_0: edge[4] f32SORTED, @grad_out: node[4] f32) -> (@grad_a: node[4] f32) {
  traversal second(owner=node, via=src:edge->node) {
    %0: edge[4] f32 = load(buffer=@saved_exp_0, via=none, at=edge)
    %1: edge[4] f32 = load(buffer=@grad_out, via=dst:edge->node, at=edge)
    %2: edge[4] f32 = pointwise(%0, %1, function=mul, scalars=[])
    %3: node[4] f32 = reduce(%2, via=src:edge->node, op=sum)
    store @grad_a = %3
  }
}
"""


def plans(sorting: str = "") -> tuple[Plan, Plan]:
    forward, backward = (verify(parse_plan(t.replace("SORTED", sorting))) for t in (FORWARD, BACKWARD))
    return forward, backward


def test_saved_values_stand_in_the_order_of_their_writer() -> None:
    forward, backward = plans()
    found = sort_saved(forward, backward, [(forward.outputs[1], backward.inputs[0])])
    assert [str(verify(plan)) for plan in found] == [str(plan) for plan in plans(" sorted=dst:edge->node")]
    assert sort_saved(*found, [(found[0].outputs[1], found[1].inputs[0])]) == found, "a second run must change nothing"
    assert {a for a in found[0].index_arrays if isinstance(a, Order)} == set()
    assert {a for a in found[1].index_arrays if isinstance(a, Order)} == {Order(BY_SRC, BY_DST)}
    assert [str(in_own_order(plan)) for plan in found] == [str(forward), str(backward)]


def test_results_that_others_see_stay_in_the_order_of_their_space() -> None:
    forward, backward = plans()
    assert sort_saved(forward, backward, []) == (forward, backward)


def test_saved_values_that_are_read_otherwise_stay_in_the_order_of_their_space() -> None:
    forward, _ = plans()
    backward = parse_plan(
        """
        plan backward(@saved_exp_0: edge[4] f32, @grad_out: node[4] f32) -> (@grad: edge[4] f32) {
          traversal second(owner=edge, via=none) {
            %0: edge[4] f32 = load(buffer=@saved_exp_0, via=none, at=edge)
            %1: edge[4] f32 = load(buffer=@grad_out, via=dst:edge->node, at=edge)
            %2: edge[4] f32 = pointwise(%0, %1, function=mul, scalars=[])
            store @grad = %2
          }
        }
        """
    )
    found = sort_saved(forward, verify(backward), [(forward.outputs[1], backward.inputs[0])])
    assert found == (forward, backward)


def test_what_is_saved_and_seen_is_not_sorted() -> None:
    """The weights are a result, which the backward plan reads: they stay as the user knows them, and scores that only it reads do not."""
    g = GRAPHS["random"]
    args = [leaf(g.num_nodes, 2, 24, seed=n) for n in range(3)]

    def attention(g: Graph, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        e = g.edges
        dots = (e.dst(q) * e.src(k)).sum(-1)
        return e.sum(e.softmax(dots).unsqueeze(-1) * e.src(v)), dots

    def alone(g: Graph, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(g, q, k, v)[0]

    for function, seen in ((attention, True), (alone, False)):
        compiled = columba.compile(function, backend="cpp", passes=PAIRS)
        backward = columba.explain(compiled, g, *args).compilation.backward_plan
        assert isinstance(backward, Plan)
        saved = [b for b in backward.inputs if b.type.space is Space.EDGE and b.name.startswith("saved")]
        assert saved
        assert [b.order is None for b in saved] == [seen] * len(saved)
        assert_same(lambda *a, c=compiled: c(g, *a), lambda *a, f=function: f(g, *a), args)
