"""Level-1 passes as Before/Expected pairs, with the cases in which they must not fire."""

from __future__ import annotations

import textwrap

import pytest

from columba.ir.program.parsing import parse_program
from columba.passes.pipeline import Pipeline, parse_passes

E_SRC, E_DST, E_REL = "src:edge->node", "dst:edge->node", "rel:edge->rel"


def run(passes: str, text: str) -> str:
    return str(Pipeline(parse_passes(passes), verify=True).run(parse_program(text)))


def check(passes: str, before: str, expected: str) -> None:
    expected = str(parse_program(textwrap.dedent(expected)))
    assert run(passes, before) == expected
    assert run(passes, expected) == expected, "a second run must change nothing"


def unchanged(passes: str, text: str) -> None:
    program = parse_program(text)
    assert Pipeline(parse_passes(passes), verify=True).run(program) is program


# ------------------------------------------------------------------------------------------------ common subexpressions


def test_cse_merges_equal_values() -> None:
    check(
        "common_subexpressions",
        """program p(%h: node[4] f32) {
          %0: node[4] f32 = pointwise(%h, function=exp)
          %1: node[4] f32 = pointwise(%h, function=exp)
          %2: node[4] f32 = pointwise(%0, %1, function=add)
          return out=%2 }""",
        """program p(%h: node[4] f32) {
          %0: node[4] f32 = pointwise(%h, function=exp)
          %1: node[4] f32 = pointwise(%0, %0, function=add)
          return out=%1 }""",
    )


def test_cse_keeps_different_salts_and_scalars_apart() -> None:
    unchanged(
        "common_subexpressions",
        """program p(%s: one[] i64, %h: edge[] f32) {
          %0: edge[] f32 = uniform(%s, at=edge, of=[], salt=0, to=f32)
          %1: edge[] f32 = uniform(%s, at=edge, of=[], salt=1, to=f32)
          %2: edge[] f32 = pointwise(%h, function=leaky_relu, scalars=[0.1])
          %3: edge[] f32 = pointwise(%h, function=leaky_relu, scalars=[0.2])
          return a=%0, b=%1, c=%2, d=%3 }""",
    )


# ------------------------------------------------------------------------------------------------ canonicalize


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("pointwise(%h, %one, function=mul)", "%h"),
        ("pointwise(%one, %h, function=mul)", "%h"),
        ("pointwise(%h, %zero, function=add)", "%h"),
        ("pointwise(%h, %zero, function=sub)", "%h"),
        ("pointwise(%h, %one, function=div)", "%h"),
        ("reshape(%h, to=[4])", "%h"),
        ("permute(%h, order=[0])", "%h"),
        ("expand(%h, to=[4])", "%h"),
        ("cast(%h, to=f32)", "%h"),
        ("slice(%h, axis=0, start=0, stop=4, step=1)", "%h"),
        ("concat(%h, axis=0)", "%h"),
    ],
)
def test_canonicalize_drops_what_does_nothing(expression: str, result: str) -> None:
    text = run(
        "canonicalize",
        f"""program p(%h: node[4] f32) {{
          %one: node[] f32 = constant(at=node, value=1.0, to=f32)
          %zero: node[] f32 = constant(at=node, value=0.0, to=f32)
          %x: node[4] f32 = {expression}
          return out=%x }}""",
    )
    assert f"return out={result}" in text


def test_canonicalize_keeps_times_zero() -> None:
    unchanged(
        "canonicalize",
        """program p(%h: node[4] f32) {
          %zero: node[] f32 = constant(at=node, value=0.0, to=f32)
          %x: node[4] f32 = pointwise(%h, %zero, function=mul)
          return out=%x }""",
    )


def test_canonicalize_composes_lifts_and_divides_once_a_row() -> None:
    check(
        "canonicalize",
        """program p(%t: ntype[4] f32, %d: edge[] f32) {
          %0: node[4] f32 = lift(%t, via=ntype:node->ntype)
          %1: edge[4] f32 = lift(%0, via=src:edge->node)
          %2: edge[4] f32 = pointwise(%1, %d, function=div)
          return out=%2 }""",
        """program p(%t: ntype[4] f32, %d: edge[] f32) {
          %0: edge[4] f32 = lift(%t, via=src_type:edge->ntype)
          %1: edge[] f32 = pointwise(%d, function=reciprocal)
          %2: edge[4] f32 = pointwise(%0, %1, function=mul)
          return out=%2 }""",
    )


# ------------------------------------------------------------------------------------------------ compact materialization


def test_compaction_computes_a_typed_linear_once_a_pair() -> None:
    check(
        "compact_materialization",
        """program p(%h: node[4] f32, %w: rel[4,8] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->node)
          %1: edge[8] f32 = linear(%0, %w, via=rel:edge->rel)
          %2: node[8] f32 = reduce(%1, via=dst:edge->node, op=sum)
          return out=%2 }""",
        """program p(%h: node[4] f32, %w: rel[4,8] f32) {
          %0: src_rel[4] f32 = lift(%h, via=src:src_rel->node)
          %1: src_rel[8] f32 = linear(%0, %w, via=rel:src_rel->rel)
          %2: edge[8] f32 = lift(%1, via=src_rel:edge->src_rel)
          %3: node[8] f32 = reduce(%2, via=dst:edge->node, op=sum)
          return out=%3 }""",
    )


def test_compaction_hoists_to_the_node() -> None:
    check(
        "compact_materialization",
        """program p(%h: node[4] f32, %w: ntype[4,8] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->node)
          %1: edge[8] f32 = linear(%0, %w, via=src_type:edge->ntype)
          return out=%1 }""",
        """program p(%h: node[4] f32, %w: ntype[4,8] f32) {
          %0: node[8] f32 = linear(%h, %w, via=ntype:node->ntype)
          %1: edge[8] f32 = lift(%0, via=src:edge->node)
          return out=%1 }""",
    )


def test_compaction_leaves_functions_of_both_ends_alone() -> None:
    unchanged(
        "compact_materialization",
        """program p(%h: node[4] f32, %x: edge[4] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->node)
          %1: edge[4] f32 = lift(%h, via=dst:edge->node)
          %2: edge[4] f32 = pointwise(%0, %1, function=mul)
          %3: edge[4] f32 = pointwise(%0, %x, function=mul)
          return a=%2, b=%3 }""",
    )


def test_compaction_without_pairs() -> None:
    unchanged(
        "compact_materialization{pairs=False}",
        """program p(%h: node[4] f32, %w: rel[4,8] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->node)
          %1: edge[8] f32 = linear(%0, %w, via=rel:edge->rel)
          return out=%1 }""",
    )


# ------------------------------------------------------------------------------------------------ reorder linear


def test_dot_with_a_linear_becomes_a_linear() -> None:
    check(
        "reorder_linear",
        """program p(%h: dst_rel[4] f32, %w: rel[4,6] f32, %a: rel[2,3] f32) {
          %0: dst_rel[6] f32 = linear(%h, %w, via=rel:dst_rel->rel)
          %1: dst_rel[2,3] f32 = reshape(%0, to=[2, 3])
          %2: dst_rel[2,3] f32 = lift(%a, via=rel:dst_rel->rel)
          %3: dst_rel[2,3] f32 = pointwise(%1, %2, function=mul)
          %4: dst_rel[2] f32 = feature_reduce(%3, op=sum, axes=[1])
          return out=%4 }""",
        """program p(%h: dst_rel[4] f32, %w: rel[4,6] f32, %a: rel[2,3] f32) {
          %0: rel[4,2,3] f32 = reshape(%w, to=[4, 2, 3])
          %2: rel[4,2,3] f32 = pointwise(%0, %a, function=mul)
          %3: rel[4,2] f32 = feature_reduce(%2, op=sum, axes=[2])
          %4: dst_rel[2] f32 = linear(%h, %3, via=rel:dst_rel->rel)
          return out=%4 }""",
    )


def test_dot_stays_where_the_linear_has_another_reader() -> None:
    unchanged(
        "reorder_linear",
        """program p(%h: dst_rel[4] f32, %w: rel[4,6] f32, %a: rel[6] f32) {
          %0: dst_rel[6] f32 = linear(%h, %w, via=rel:dst_rel->rel)
          %2: dst_rel[6] f32 = lift(%a, via=rel:dst_rel->rel)
          %3: dst_rel[6] f32 = pointwise(%0, %2, function=mul)
          %4: dst_rel[] f32 = feature_reduce(%3, op=sum, axes=[0])
          return out=%4, z=%0 }""",
    )


def test_dot_stays_with_a_vector_of_another_map() -> None:
    unchanged(
        "reorder_linear",
        """program p(%h: edge[4] f32, %w: rel[4,6] f32, %a: node[6] f32) {
          %0: edge[6] f32 = linear(%h, %w, via=rel:edge->rel)
          %2: edge[6] f32 = lift(%a, via=dst:edge->node)
          %3: edge[6] f32 = pointwise(%0, %2, function=mul)
          %4: edge[] f32 = feature_reduce(%3, op=sum, axes=[0])
          return out=%4 }""",
    )


def test_chain_of_linears_folds_in_the_right_order_and_through_transposes() -> None:
    check(
        "reorder_linear",
        """program p(%h: edge[4] f32, %a: rel[6,4] f32, %b: rel[6,5] f32) {
          %0: edge[6] f32 = linear(%h, %a, via=rel:edge->rel, transpose=true)
          %1: edge[5] f32 = linear(%0, %b, via=rel:edge->rel)
          return out=%1 }""",
        """program p(%h: edge[4] f32, %a: rel[6,4] f32, %b: rel[6,5] f32) {
          %0: rel[4,6] f32 = permute(%a, order=[1, 0])
          %1: rel[4,5] f32 = linear(%0, %b, via=none)
          %2: edge[5] f32 = linear(%h, %1, via=rel:edge->rel)
          return out=%2 }""",
    )


@pytest.mark.parametrize(
    "between",
    [
        "%1: edge[2] f32 = pointwise(%0, function=relu)\n %2: edge[9] f32 = linear(%1, %b, via=rel:edge->rel)",  # not linear
        "%2: edge[9] f32 = linear(%0, %b, via=rel:edge->rel)",  # a bottleneck: 9 -> 2 -> 9
    ],
)
def test_chain_of_linears_stays(between: str) -> None:
    unchanged(
        "reorder_linear",
        f"""program p(%h: edge[9] f32, %a: rel[9,2] f32, %b: rel[2,9] f32) {{
          %0: edge[2] f32 = linear(%h, %a, via=rel:edge->rel)
          {between}
          return out=%2 }}""",
    )


# ------------------------------------------------------------------------------------------------ merge reductions

PER_RELATION_MEAN = """program p(%x: edge[4] f32, %s: dst_rel[] f32) {{
  %0: dst_rel[4] f32 = reduce(%x, via=dst_rel:edge->dst_rel, op={op})
  %1: dst_rel[4] f32 = pointwise(%0, %s, function=mul)
  %2: node[4] f32 = reduce(%1, via=dst:dst_rel->node, op=sum)
  return out=%2{more} }}"""


def test_scaled_sums_of_sums_merge() -> None:
    check(
        "merge_reductions",
        PER_RELATION_MEAN.format(op="sum", more=""),
        """program p(%x: edge[4] f32, %s: dst_rel[] f32) {
          %0: edge[] f32 = lift(%s, via=dst_rel:edge->dst_rel)
          %1: edge[4] f32 = pointwise(%x, %0, function=mul)
          %2: node[4] f32 = reduce(%1, via=dst:edge->node, op=sum)
          return out=%2 }""",
    )


@pytest.mark.parametrize("case", [{"op": "max", "more": ""}, {"op": "sum", "more": ", inner=%0"}])
def test_sums_of_maxima_and_shared_sums_stay(case: dict[str, str]) -> None:
    unchanged("merge_reductions", PER_RELATION_MEAN.format(**case))


# ------------------------------------------------------------------------------------------------ sink lifts

SCALED = """program p(%g: node[{n}] f32, %s: dst_rel[] f32) {{
  %0: dst_rel[{n}] f32 = lift(%g, via=dst:dst_rel->node)
  %1: dst_rel[{n}] f32 = pointwise(%0, %s, function=mul)
  %2: edge[{n}] f32 = lift(%1, via=dst_rel:edge->dst_rel)
  %3: node[{n}] f32 = reduce(%2, via=src:edge->node, op=sum)
  return out=%3{more} }}"""


def test_sinking_scales_in_flight() -> None:
    check(
        "sink_lifts",
        SCALED.format(n=64, more=""),
        """program p(%g: node[64] f32, %s: dst_rel[] f32) {
          %0: edge[64] f32 = lift(%g, via=dst:edge->node)
          %1: edge[] f32 = lift(%s, via=dst_rel:edge->dst_rel)
          %2: edge[64] f32 = pointwise(%0, %1, function=mul)
          %3: node[64] f32 = reduce(%2, via=src:edge->node, op=sum)
          return out=%3 }""",
    )


@pytest.mark.parametrize("case", [{"n": 4, "more": ""}, {"n": 64, "more": ", kept=%1"}])
def test_sinking_leaves_small_rows_and_results(case: dict[str, object]) -> None:
    unchanged("sink_lifts", SCALED.format(**case))


# ------------------------------------------------------------------------------------------------ the others


EXPANDED = """program p(%x: edge[2] f32{inputs}) {{
  %0: node[2] f32 = reduce(%x, via=dst:edge->node, op=max)
  %1: edge[2] f32 = lift(%0, via=dst:edge->node)
  %2: edge[2] f32 = pointwise(%x, %1, function=sub)
  %3: edge[2] f32 = pointwise(%2, function=exp)
  %4: node[2] f32 = reduce(%3, via=dst:edge->node, op=sum)
  %5: node[] f32 = constant(at=node, value=0.0, to=f32)
  %6: node[2] bool = pointwise(%4, %5, function=le)
  %7: node[] f32 = constant(at=node, value=1.0, to=f32)
  %8: node[2] f32 = pointwise(%6, %7, %4, function=where)
  %9: node[2] f32 = pointwise(%8, function=reciprocal)
{rest} }}"""


def test_expand_softmax() -> None:
    check(
        "expand_softmax",
        """program p(%x: edge[2] f32) {
          %0: edge[2] f32 = softmax(%x, via=dst:edge->node)
          return out=%0 }""",
        EXPANDED.format(
            inputs="",
            rest="""
  %10: edge[2] f32 = lift(%9, via=dst:edge->node)
  %11: edge[2] f32 = pointwise(%3, %10, function=mul)
  return out=%11""",
        ),
    )


def test_what_softmax_weighs_is_divided_after_it_is_summed() -> None:
    """At destinations, and at pairs of a destination and a relation; not at sources, whose members have other sums."""
    weighted = """program p(%x: edge[2] f32, %v: edge[2,3] f32) {
          %0: edge[2] f32 = softmax(%x, via=dst:edge->node)
          %1: edge[2,1] f32 = reshape(%0, to=[2, 1])
          %2: edge[2,3] f32 = pointwise(%1, %v, function=mul)
          %3: OWNER[2,3] f32 = reduce(%2, via=MAP, op=sum)
          return out=%3 }"""
    summed = """
  %10: edge[2,1] f32 = reshape(%3, to=[2, 1])
  %11: edge[2,3] f32 = pointwise(%10, %v, function=mul)
  %12: OWNER[2,3] f32 = reduce(%11, via=MAP, op=sum)"""
    for owner, via, rest in (
        (
            "node",
            "dst:edge->node",
            f"""{summed}
  %13: node[2,1] f32 = reshape(%9, to=[2, 1])
  %14: node[2,3] f32 = pointwise(%12, %13, function=mul)
  return out=%14""",
        ),
        (
            "dst_rel",
            "dst_rel:edge->dst_rel",
            f"""{summed}
  %13: dst_rel[2] f32 = lift(%9, via=dst:dst_rel->node)
  %14: dst_rel[2,1] f32 = reshape(%13, to=[2, 1])
  %15: dst_rel[2,3] f32 = pointwise(%12, %14, function=mul)
  return out=%15""",
        ),
        (
            "node",
            "src:edge->node",
            """
  %10: edge[2] f32 = lift(%9, via=dst:edge->node)
  %11: edge[2] f32 = pointwise(%3, %10, function=mul)
  %12: edge[2,1] f32 = reshape(%11, to=[2, 1])
  %13: edge[2,3] f32 = pointwise(%12, %v, function=mul)
  %14: node[2,3] f32 = reduce(%13, via=src:edge->node, op=sum)
  return out=%14""",
        ),
    ):
        before = weighted.replace("OWNER", owner).replace("MAP", via)
        check(
            "expand_softmax",
            before,
            EXPANDED.format(inputs=", %v: edge[2,3] f32", rest=rest.replace("OWNER", owner).replace("MAP", via)),
        )


def test_legalize_rewrites_matrices_of_single_rows_only() -> None:
    check(
        "legalize_linear",
        """program p(%x: edge[3] f32, %w: edge[3,5] f32) {
          %0: edge[5] f32 = linear(%x, %w, via=none)
          return out=%0 }""",
        """program p(%x: edge[3] f32, %w: edge[3,5] f32) {
          %0: edge[3,1] f32 = reshape(%x, to=[3, 1])
          %1: edge[3,5] f32 = pointwise(%0, %w, function=mul)
          %2: edge[5] f32 = feature_reduce(%1, op=sum, axes=[0])
          return out=%2 }""",
    )
    unchanged(
        "legalize_linear",
        """program p(%x: rel[3] f32, %w: rel[3,5] f32, %h: edge[3] f32) {
          %0: rel[5] f32 = linear(%x, %w, via=none)
          %1: edge[5] f32 = linear(%h, %w, via=rel:edge->rel)
          return a=%0, b=%1 }""",
    )


# ------------------------------------------------------------------------------------------------ the pass manager


def test_what_is_moved_to_differentiate_is_masked() -> None:
    """Only what a gradient of 0 is multiplied by: ReLU selects, and pairs occur."""
    check(
        "compact_materialization{to_differentiate=True}",
        """program p(%h: node[4] f32, %w: rel[4] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->node)
          %1: edge[4] f32 = pointwise(%0, function=relu)
          %2: edge[4] f32 = pointwise(%1, function=tanh)
          %3: edge[4] f32 = lift(%w, via=rel:edge->rel)
          %4: edge[4] f32 = pointwise(%2, %3, function=mul)
          return out=%4 }""",
        """program p(%h: node[4] f32, %w: rel[4] f32) {
          %0: node[] f32 = degree(via=src:edge->node, to=f32)
          %1: node[] f32 = constant(at=node, value=0.0, to=f32)
          %2: node[] bool = pointwise(%0, %1, function=gt)
          %3: node[4] f32 = pointwise(%h, function=relu)
          %4: node[4] f32 = pointwise(%2, %3, function=mask_gradient)
          %5: node[4] f32 = pointwise(%4, function=tanh)
          %6: src_rel[4] f32 = lift(%5, via=src:src_rel->node)
          %7: src_rel[4] f32 = lift(%w, via=rel:src_rel->rel)
          %8: src_rel[4] f32 = pointwise(%6, %7, function=mul)
          %9: edge[4] f32 = lift(%8, via=src_rel:edge->src_rel)
          return out=%9 }""",
    )


MASKED = """program p(%h: node[4] f32) {{
  %0: node[] f32 = degree(via=src:edge->node, to=f32)
  %1: node[] f32 = constant(at=node, value=0.0, to=f32)
  %2: node[] bool = pointwise(%0, %1, function=gt)
  %3: node[] f32 = degree(via=dst:edge->node, to=f32)
  %4: node[] bool = pointwise(%3, %1, function=gt)
  {body} }}"""


def test_masks_of_both_ends_unite() -> None:
    check(
        "unite_masks",
        MASKED.format(
            body="""%5: node[4] f32 = pointwise(%2, %h, function=mask_gradient)
          %6: node[4] f32 = pointwise(%5, function=tanh)
          %7: edge[4] f32 = lift(%6, via=src:edge->node)
          %8: node[4] f32 = pointwise(%4, %h, function=mask_gradient)
          %9: node[4] f32 = pointwise(%8, function=tanh)
          %10: edge[4] f32 = lift(%9, via=dst:edge->node)
          return a=%7, b=%10"""
        ),
        MASKED.format(
            body="""%5: node[] bool = pointwise(%2, %4, function=logical_or)
          %6: node[4] f32 = pointwise(%5, %h, function=mask_gradient)
          %7: node[4] f32 = pointwise(%6, function=tanh)
          %8: edge[4] f32 = lift(%7, via=src:edge->node)
          %9: edge[4] f32 = lift(%7, via=dst:edge->node)
          return a=%8, b=%9"""
        ),
    )


def test_what_all_rows_read_has_no_mask() -> None:
    """The sigmoid's operand keeps its own."""
    assert run(
        "unite_masks",
        MASKED.format(
            body="""%5: node[4] f32 = pointwise(%2, %h, function=mask_gradient)
          %6: node[4] f32 = pointwise(%5, function=tanh)
          %7: node[4] f32 = pointwise(%2, %6, function=mask_gradient)
          %8: node[4] f32 = pointwise(%7, function=sigmoid)
          %9: edge[4] f32 = lift(%8, via=src:edge->node)
          %10: node[4] f32 = pointwise(%h, function=tanh)
          return a=%9, b=%10"""
        ),
    ) == str(
        parse_program(
            """program p(%h: node[4] f32) {
  %0: node[] f32 = degree(via=src:edge->node, to=f32)
  %1: node[] f32 = constant(at=node, value=0.0, to=f32)
  %2: node[] bool = pointwise(%0, %1, function=gt)
  %3: node[4] f32 = pointwise(%h, function=tanh)
  %4: node[4] f32 = pointwise(%2, %3, function=mask_gradient)
  %5: node[4] f32 = pointwise(%4, function=sigmoid)
  %6: edge[4] f32 = lift(%5, via=src:edge->node)
  return a=%6, b=%3
}"""
        )
    )


def test_pass_spelling_round_trips() -> None:
    text = "canonicalize,compact_materialization{pairs=False},sink_lifts{small=8,flops=2}"
    assert str(parse_passes(text)) == text


def test_unknown_passes_are_named() -> None:
    with pytest.raises(ValueError, match=r"unknown pass 'no_such'.*canonicalize"):
        parse_passes("canonicalize,no_such")


def test_pipeline_times_and_reports_each_pass() -> None:
    seen: list[str] = []
    pipeline = Pipeline(parse_passes("canonicalize,common_subexpressions"), on_pass=lambda p, a, b: seen.append(p.name))
    pipeline.run(parse_program("program p(%a: node[1] f32) { return out=%a }"))
    assert seen == ["canonicalize", "common_subexpressions"] == list(pipeline.seconds)
