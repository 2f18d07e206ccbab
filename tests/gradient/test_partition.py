"""What passes between the forward and the backward program: choices by cost, and below a budget."""

from __future__ import annotations

import pytest
from eager_graphs import square_graphs
from pass_checks import inputs_for, transformed

from columba.gradient.differentiate import differentiate
from columba.gradient.partition import Partition, partition
from columba.gradient.saving import Saving
from columba.ir.counts import TYPICAL, Counts
from columba.ir.program.parsing import parse_program
from columba.ir.program.program import Program
from columba.ir.spaces import Space
from columba.passes.recipes import LEVEL_1, Recipe
from columba.runtime.reference import evaluate

pytestmark = pytest.mark.unoptimized


SCORES = """program p(%h: node[64] f32, %w: rel[64,64] f32, %a: rel[64] f32, %b: rel[64] f32) {
  %0: src_rel[64] f32 = lift(%h, via=src:src_rel->node)
  %1: src_rel[64] f32 = linear(%0, %w, via=rel:src_rel->rel)
  %2: src_rel[64] f32 = lift(%b, via=rel:src_rel->rel)
  %3: src_rel[64] f32 = pointwise(%1, %2, function=add)
  %4: edge[64] f32 = lift(%3, via=src_rel:edge->src_rel)
  %5: edge[64] f32 = lift(%h, via=dst:edge->node)
  %6: edge[64] f32 = pointwise(%4, %5, function=mul)
  %7: edge[] f32 = feature_reduce(%6, op=sum, axes=[0])
  %8: edge[] f32 = softmax(%7, via=dst:edge->node)
  %9: edge[64] f32 = pointwise(%8, %4, function=mul)
  %10: node[64] f32 = reduce(%9, via=dst:edge->node, op=sum)
  return out=%10 }"""


def joint_of(text: str) -> tuple[Program, int, int]:
    program = Recipe(verify=True).optimize(parse_program(text), to_differentiate=True)
    joint = transformed(str(LEVEL_1), differentiate(program, [i.name for i in program.inputs]))
    return joint, len(program.inputs), len(program.results)


def saved_types(parts: Partition) -> list[str]:
    results = {kind_n[1] for kind_n in parts.sources if kind_n[0] == "result"}
    return sorted(str(parts.forward.results[n].type) for n in results)


def check_same(joint: Program, parts: Partition) -> None:
    """The two programs, one after the other, compute what the joint one does."""
    for graph in square_graphs().values():
        inputs = inputs_for(joint, graph)
        by_name = dict(zip((i.name for i in joint.inputs), inputs, strict=True))
        wanted = evaluate(joint, inputs, graph)
        forward = evaluate(parts.forward, [by_name[i.name] for i in parts.forward.inputs], graph)
        results = len(wanted) - len(parts.backward.results)
        grads = [by_name[f"grad_{name}"] for name in joint.result_names[:results]]
        found = {"input": inputs, "result": forward, "grad": grads}
        backward = evaluate(parts.backward, [found[kind][n] for kind, n in parts.sources], graph)
        for w, f in zip(wanted, [*forward[:results], *backward], strict=True):
            assert (w - f).abs().sum() <= 1e-9 * (1 + w.abs().sum())


def test_the_biased_product_the_scores_and_their_sums_are_saved() -> None:
    joint, inputs, results = joint_of(SCORES)
    parts = partition(joint, inputs, results)
    assert saved_types(parts) == ["edge[] f32", "node[64] f32", "node[] f32", "node[] f32", "src_rel[64] f32"]
    assert not any(v.op_name == "linear" and not v.transpose for v in parts.backward.body)  # type: ignore[attr-defined]


def test_both_programs_compute_what_the_joint_one_does() -> None:
    for budget in (None, 10**7, 0):
        joint, inputs, results = joint_of(SCORES.replace("f32", "f64"))
        check_same(joint, partition(joint, inputs, results, Saving(budget=budget)))


def test_a_budget_is_kept_and_costs_no_more_than_needed() -> None:
    joint, inputs, results = joint_of(SCORES)
    sizes = []
    for budget in (None, 30 << 20, 10 << 20, 1 << 20, 0):
        saving = Saving(budget=budget)
        parts = partition(joint, inputs, results, saving)
        size = saving.bytes(parts.forward.results[results:])
        assert budget is None or size <= budget
        sizes.append(size)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1] == 0


def test_counts_decide() -> None:
    """A sum over few edges is cheaper to go through again than to keep for many nodes."""
    joint, inputs, results = joint_of(SCORES)
    few = Saving(Counts({**TYPICAL, Space.EDGE: 1 << 10}))
    assert "node[] f32" in saved_types(partition(joint, inputs, results))
    assert "node[] f32" not in saved_types(partition(joint, inputs, results, few))


def test_a_negative_budget_is_refused() -> None:
    joint, inputs, results = joint_of(SCORES)
    with pytest.raises(ValueError, match="memory budget must not be negative, got -1"):
        partition(joint, inputs, results, Saving(budget=-1))


ACTIVATED = """program p(%h: node[24] f32, %f: edge[24] f32, %w: one[24,{n}] f32) {{
  %0: edge[24] f32 = lift(%h, via=src:edge->node)
  %1: edge[24] f32 = lift(%h, via=dst:edge->node)
  %2: edge[24] f32 = pointwise(%0, %1, function=mul)
  %3: edge[{n}] f32 = linear({x}, %w, via=one:edge->one)
  %4: edge[{n}] f32 = pointwise(%3, function=relu)
  %5: node[{n}] f32 = reduce(%4, via=dst:edge->node, op=sum)
  return out=%5 }}"""


@pytest.mark.parametrize(
    ("x", "n", "saved"),
    [
        ("%2", 32, []),  # wide rows of edges are computed again,
        ("%f", 32, ["edge[32] f32"]),  # unless they are a product of the user's wide rows of edges,
        ("%2", 8, ["edge[8] f32"]),  # and a few numbers an edge may be kept
    ],
)
def test_wide_rows_of_edges_are_not_saved(x: str, n: int, saved: list[str]) -> None:
    joint, inputs, results = joint_of(ACTIVATED.format(x=x, n=n))
    assert saved_types(partition(joint, inputs, results)) == saved
    joint, inputs, results = joint_of(ACTIVATED.format(x=x, n=n).replace("f32", "f64"))
    check_same(joint, partition(joint, inputs, results))
