"""The pass ``round_stored``, and what it is for."""

from __future__ import annotations

import pytest
import torch
from compiled import PAIRS
from eager_graphs import square_graphs
from interpreter_rounding import round_as_gpus_do
from pass_checks import check, unchanged

import columba
from columba.passes.recipes import LEVEL_2
from columba.runtime.graphs.graph import Graph


def test_readers_of_what_is_stored_see_it_rounded() -> None:
    """Through the views that are stored, too; the store itself rounds."""
    check(
        "round_stored",
        """\
        plan p(@a: node[4] bf16) -> (@y: node[2,2] bf16, @z: node[4] bf16) {
          traversal k(owner=node, via=none) {
            %0: node[4] bf16 = load(buffer=@a, via=none, at=node)
            %1: node[4] bf16 = pointwise(%0, %0, function=mul, scalars=[])
            %2: node[2,2] bf16 = reshape(%1, to=[2, 2])
            %3: node[4] bf16 = pointwise(%1, function=exp, scalars=[])
            store @y = %2
            store @z = %3
          }
        }
        """,
        """\
        plan p(@a: node[4] bf16) -> (@y: node[2,2] bf16, @z: node[4] bf16) {
          traversal k(owner=node, via=none) {
            %0: node[4] bf16 = load(buffer=@a, via=none, at=node)
            %1: node[4] bf16 = pointwise(%0, %0, function=mul, scalars=[])
            %2: node[2,2] bf16 = reshape(%1, to=[2, 2])
            %3: node[4] f32 = cast(%1, to=f32)
            %4: node[4] bf16 = cast(%3, to=bf16)
            %5: node[4] bf16 = pointwise(%4, function=exp, scalars=[])
            store @y = %2
            store @z = %5
          }
        }
        """,
    )


def test_products_are_rounded_for_their_epilogues() -> None:
    check(
        "round_stored",
        """\
        plan p(@a: node[4] f16, @w: one[4,4] f16) -> (@y: node[4] f16, @z: node[4] f16) {
          gemm k() {
            %0: node[4] f16 = load(buffer=@a, via=none, at=node)
            %1: node[4] f16 = product(%0, w=@w, via=one:node->one, transpose=false)
            %2: node[4] f16 = pointwise(%1, function=relu, scalars=[])
            store @y = %1
            store @z = %2
          }
        }
        """,
        """\
        plan p(@a: node[4] f16, @w: one[4,4] f16) -> (@y: node[4] f16, @z: node[4] f16) {
          gemm k() {
            %0: node[4] f16 = load(buffer=@a, via=none, at=node)
            %1: node[4] f16 = product(%0, w=@w, via=one:node->one, transpose=false)
            %2: node[4] f32 = cast(%1, to=f32)
            %3: node[4] f16 = cast(%2, to=f16)
            %4: node[4] f16 = pointwise(%3, function=relu, scalars=[])
            store @y = %1
            store @z = %4
          }
        }
        """,
    )


def test_what_is_compared_is_rounded() -> None:
    """A load is, already."""
    check(
        "round_stored",
        """\
        plan p(@a: node[4] bf16, @b: node[4] bf16) -> (@y: node[4] bool) {
          traversal k(owner=node, via=none) {
            %0: node[4] bf16 = load(buffer=@a, via=none, at=node)
            %1: node[4] bf16 = pointwise(%0, %0, function=mul, scalars=[])
            %2: node[4] bf16 = load(buffer=@b, via=none, at=node)
            %3: node[4] bool = pointwise(%1, %2, function=eq, scalars=[])
            store @y = %3
          }
        }
        """,
        """\
        plan p(@a: node[4] bf16, @b: node[4] bf16) -> (@y: node[4] bool) {
          traversal k(owner=node, via=none) {
            %0: node[4] bf16 = load(buffer=@a, via=none, at=node)
            %1: node[4] bf16 = pointwise(%0, %0, function=mul, scalars=[])
            %2: node[4] f32 = cast(%1, to=f32)
            %3: node[4] bf16 = cast(%2, to=bf16)
            %4: node[4] bf16 = load(buffer=@b, via=none, at=node)
            %5: node[4] bool = pointwise(%3, %4, function=eq, scalars=[])
            store @y = %5
          }
        }
        """,
    )


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_must_not_fire(dtype: str) -> None:
    """On values of 32 bits; on those that only a store reads; on casts from 32 bits."""
    other = "exp" if dtype == "f32" else "relu"
    used = "%1" if dtype == "f32" else "%0"
    unchanged(
        "round_stored",
        f"""\
        plan p(@a: node[4] {dtype}, @b: node[4] f32) -> (@y: node[4] {dtype}, @z: node[4] {dtype}, @c: node[4] bf16, @d: node[4] bf16) {{
          traversal k(owner=node, via=none) {{
            %0: node[4] {dtype} = load(buffer=@a, via=none, at=node)
            %1: node[4] {dtype} = pointwise(%0, %0, function=mul, scalars=[])
            %2: node[4] {dtype} = pointwise({used}, function={other}, scalars=[])
            %3: node[4] f32 = load(buffer=@b, via=none, at=node)
            %4: node[4] bf16 = cast(%3, to=bf16)
            %5: node[4] bf16 = pointwise(%4, function=exp, scalars=[])
            store @y = %1
            store @z = %2
            store @c = %4
            store @d = %5
          }}
        }}
        """,
    )


def minima(g: Graph, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    e = g.edges
    return e.min(e.src(x) * e.rel(w))


def normalized(g: Graph, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """A softmax by source over logits of about 30; the sums of its weights have no gradient."""
    e = g.edges
    logits = (e.src(x) * e.rel(w)).sum(-1) * 4 + 30
    return e.sum(e.softmax(logits, by="src").unsqueeze(-1) * e.src(x))


@pytest.mark.parametrize("backend", ["cpp", "triton"])
@pytest.mark.parametrize("function", [minima, normalized])
@pytest.mark.filterwarnings("ignore:columba. backend=.triton. runs on CPU", "ignore::RuntimeWarning")
def test_both_directions_see_the_same_values(function: object, backend: str) -> None:
    """Gradients find the members that were least; attention computed again is normalized as it was."""
    if backend == "triton":
        pytest.importorskip("triton")
        round_as_gpus_do()
    graph = square_graphs()["duplicate_edges" if function is normalized else "random"]
    torch.manual_seed(0)
    given = torch.randn(graph.num_nodes, 16), torch.randn(graph.num_relations, 16)
    found = []
    for dtype, how in ((torch.float64, None), (torch.bfloat16, None), (torch.bfloat16, backend)):
        x, w = (t.bfloat16().to(dtype).requires_grad_() for t in given)
        f = function if how is None else columba.compile(function, backend=how, passes=PAIRS)
        out = f(graph, x, w)
        found.append(torch.autograd.grad(out.sum(), (x, w)))
    wanted, eager, got = found
    for a, p, b in zip(wanted, eager, got, strict=True):
        error, theirs = ((t.double() - a).abs().max() for t in (b, p))
        assert error <= max(2 * theirs, 2.0**-6)


def test_it_runs_last() -> None:
    """What is fused before it is read unrounded."""
    assert LEVEL_2[-1].name == "round_stored"


def test_parts_that_are_joined() -> None:
    check(
        "round_stored",
        """\
        plan p(@a: node[2] bf16) -> (@y: node[4] bf16, @z: node[2] bf16) {
          traversal k(owner=node, via=none) {
            %0: node[2] bf16 = load(buffer=@a, via=none, at=node)
            %1: node[2] bf16 = pointwise(%0, function=exp, scalars=[])
            %2: node[4] bf16 = concat(%1, %0, axis=0)
            %3: node[2] bf16 = pointwise(%1, function=tanh, scalars=[])
            store @y = %2
            store @z = %3
          }
        }
        """,
        """\
        plan p(@a: node[2] bf16) -> (@y: node[4] bf16, @z: node[2] bf16) {
          traversal k(owner=node, via=none) {
            %0: node[2] bf16 = load(buffer=@a, via=none, at=node)
            %1: node[2] bf16 = pointwise(%0, function=exp, scalars=[])
            %2: node[4] bf16 = concat(%1, %0, axis=0)
            %3: node[2] f32 = cast(%1, to=f32)
            %4: node[2] bf16 = cast(%3, to=bf16)
            %5: node[2] bf16 = pointwise(%4, function=tanh, scalars=[])
            store @y = %2
            store @z = %5
          }
        }
        """,
    )
