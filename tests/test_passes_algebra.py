"""Level-1 passes that are algebra on sums and products: signs, shared factors, sums that are known already."""

from __future__ import annotations

import pytest
from pass_checks import check, run, same_meaning, unchanged

# ------------------------------------------------------------------------------------------------ pull negations


def test_signs_vanish_in_sums() -> None:
    check(
        "pull_negations",
        """program p(%x: edge[4] f32, %p: edge[4] f32) {
          %0: edge[4] f32 = pointwise(%x, %p, function=mul)
          %1: edge[4] f32 = pointwise(%0, function=neg)
          %2: node[4] f32 = reduce(%1, via=dst:edge->node, op=sum)
          %3: edge[4] f32 = lift(%2, via=dst:edge->node)
          %4: edge[4] f32 = pointwise(%3, %p, function=mul)
          %5: edge[4] f32 = pointwise(%0, %4, function=add)
          return out=%5 }""",
        """program p(%x: edge[4] f32, %p: edge[4] f32) {
          %0: edge[4] f32 = pointwise(%x, %p, function=mul)
          %1: node[4] f32 = reduce(%0, via=dst:edge->node, op=sum)
          %2: edge[4] f32 = lift(%1, via=dst:edge->node)
          %3: edge[4] f32 = pointwise(%2, %p, function=mul)
          %4: edge[4] f32 = pointwise(%0, %3, function=sub)
          return out=%4 }""",
    )


def test_a_negative_first_term_and_a_subtracted_one() -> None:
    check(
        "pull_negations",
        """program p(%x: edge[4] f32, %y: edge[4] f32) {
          %0: edge[4] f32 = pointwise(%x, function=neg)
          %1: edge[4] f32 = pointwise(%0, %y, function=add)
          %2: edge[4] f32 = pointwise(%1, %0, function=sub)
          return a=%1, b=%2 }""",
        """program p(%x: edge[4] f32, %y: edge[4] f32) {
          %0: edge[4] f32 = pointwise(%y, %x, function=sub)
          %1: edge[4] f32 = pointwise(%0, %x, function=add)
          return a=%0, b=%1 }""",
    )


@pytest.mark.parametrize(
    ("op", "more"),
    [("max", ""), ("min", ""), ("sum", ", s=%1")],  # not linear; read by someone else
)
def test_signs_stay(op: str, more: str) -> None:
    unchanged(
        "pull_negations",
        f"""program p(%x: edge[4] f32, %y: node[4] f32) {{
          %0: edge[4] f32 = pointwise(%x, function=neg)
          %1: node[4] f32 = reduce(%0, via=dst:edge->node, op={op})
          %2: node[4] f32 = pointwise(%y, %1, function=add)
          return out=%2{more} }}""",
    )


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("pointwise(%n, function=neg)", "%h"),
        ("pointwise(%d, function=neg)", "pointwise(%k, %h, function=sub"),
        ("pointwise(%four, function=reciprocal)", "constant(at=node, value=0.25, to=f32)"),
        ("pointwise(%four, %two, function=div)", "constant(at=node, value=2.0, to=f32)"),
    ],
)
def test_canonicalize_signs_and_constants(expression: str, result: str) -> None:
    text = run(
        "canonicalize",
        f"""program p(%h: node[] f32, %k: node[] f32) {{
          %n: node[] f32 = pointwise(%h, function=neg)
          %d: node[] f32 = pointwise(%h, %k, function=sub)
          %four: node[] f32 = constant(at=node, value=4.0, to=f32)
          %two: node[] f32 = constant(at=node, value=2.0, to=f32)
          %x: node[] f32 = {expression}
          return out=%x }}""",
    )
    assert result in text


def test_canonicalize_does_not_divide_by_zero() -> None:
    unchanged(
        "canonicalize",
        """program p() {
          %0: node[] f32 = constant(at=node, value=0.0, to=f32)
          %1: node[] f32 = pointwise(%0, function=reciprocal)
          return out=%1 }""",
    )


# ------------------------------------------------------------------------------------------------ factor sums


def test_shared_factors_are_multiplied_once() -> None:
    check(
        "factor_sums",
        """program p(%x: edge[4] f32, %y: edge[4] f32, %p: edge[4] f32) {
          %0: edge[4] f32 = pointwise(%x, %p, function=mul)
          %1: edge[4] f32 = pointwise(%p, %y, function=mul)
          %2: edge[4] f32 = pointwise(%0, %1, function=sub)
          return out=%2 }""",
        """program p(%x: edge[4] f32, %y: edge[4] f32, %p: edge[4] f32) {
          %0: edge[4] f32 = pointwise(%x, %y, function=sub)
          %1: edge[4] f32 = pointwise(%0, %p, function=mul)
          return out=%1 }""",
    )


def test_a_choice_between_a_value_and_its_multiple_is_a_product() -> None:
    check(
        "factor_sums",
        """program p(%c: edge[4] bool, %x: edge[4] f32) {
          %0: edge[] f32 = constant(at=edge, value=0.2, to=f32)
          %1: edge[4] f32 = pointwise(%x, %0, function=mul)
          %2: edge[4] f32 = pointwise(%c, %x, %1, function=where)
          return out=%2 }""",
        """program p(%c: edge[4] bool, %x: edge[4] f32) {
          %0: edge[] f32 = constant(at=edge, value=1.0, to=f32)
          %1: edge[] f32 = constant(at=edge, value=0.2, to=f32)
          %2: edge[4] f32 = pointwise(%c, %0, %1, function=where)
          %3: edge[4] f32 = pointwise(%x, %2, function=mul)
          return out=%3 }""",
    )


@pytest.mark.parametrize(
    ("sum_", "more"),
    [
        ("pointwise(%0, %1, function=sub)", ", a=%0, b=%1"),  # both products are read by others
        ("pointwise(%0, %1, function=maximum)", ""),  # no sum
        ("pointwise(%0, %z, function=add)", ""),  # no shared factor
    ],
)
def test_factors_stay(sum_: str, more: str) -> None:
    unchanged(
        "factor_sums",
        f"""program p(%x: edge[4] f32, %y: edge[4] f32, %p: edge[4] f32, %z: edge[4] f32) {{
          %0: edge[4] f32 = pointwise(%x, %p, function=mul)
          %1: edge[4] f32 = pointwise(%y, %p, function=mul)
          %2: edge[4] f32 = {sum_}
          return out=%2{more} }}""",
    )


# ------------------------------------------------------------------------------------------------ hoist factors


def test_an_owners_factor_is_applied_to_the_sum() -> None:
    check(
        "hoist_factors",
        """program p(%x: edge[4,1] f32, %a: rel[4,16] f32) {
          %0: edge[4,16] f32 = lift(%a, via=rel:edge->rel)
          %1: edge[4,16] f32 = pointwise(%x, %0, function=mul)
          %2: src_rel[4,16] f32 = reduce(%1, via=src_rel:edge->src_rel, op=sum)
          return out=%2 }""",
        """program p(%x: edge[4,1] f32, %a: rel[4,16] f32) {
          %0: src_rel[4,1] f32 = reduce(%x, via=src_rel:edge->src_rel, op=sum)
          %1: src_rel[4,16] f32 = lift(%a, via=rel:src_rel->rel)
          %2: src_rel[4,16] f32 = pointwise(%0, %1, function=mul)
          return out=%2 }""",
    )


def test_the_reciprocal_of_a_clamped_degree_is_hoisted_to_nodes() -> None:
    check(
        "hoist_factors",
        """program p(%x: edge[4] f32) {
          %0: node[] f32 = degree(via=dst:edge->node, to=f32)
          %1: node[] f32 = constant(at=node, value=1.0, to=f32)
          %2: node[] f32 = pointwise(%0, %1, function=maximum)
          %3: node[] f32 = pointwise(%2, function=reciprocal)
          %4: edge[] f32 = lift(%3, via=dst:edge->node)
          %5: edge[4] f32 = pointwise(%x, %4, function=mul)
          %6: node[4] f32 = reduce(%5, via=dst:edge->node, op=sum)
          return out=%6 }""",
        """program p(%x: edge[4] f32) {
          %0: node[4] f32 = reduce(%x, via=dst:edge->node, op=sum)
          %1: node[] f32 = degree(via=dst:edge->node, to=f32)
          %2: node[] f32 = constant(at=node, value=1.0, to=f32)
          %3: node[] f32 = pointwise(%1, %2, function=maximum)
          %4: node[] f32 = pointwise(%3, function=reciprocal)
          %5: node[4] f32 = pointwise(%0, %4, function=mul)
          return out=%5 }""",
    )


def test_a_degree_that_may_be_zero_is_not_hoisted_to_nodes() -> None:
    """Isolated nodes have 1 / sqrt(0) = inf, and 0 times that is no number."""
    text = """program p(%x: edge[4] f32) {
      %0: node[] f32 = degree(via=dst:edge->node, to=f32)
      %1: node[] f32 = pointwise(%0, function=rsqrt)
      %2: edge[] f32 = lift(%1, via=dst:edge->node)
      %3: edge[4] f32 = pointwise(%x, %2, function=mul)
      %4: node[4] f32 = reduce(%3, via=dst:edge->node, op=sum)
      return out=%4 }"""
    unchanged("hoist_factors", text)
    same_meaning("hoist_factors", text)


@pytest.mark.parametrize("case", [("src", "sum"), ("dst", "max")])
def test_factors_of_members_and_of_extrema_stay(case: tuple[str, str]) -> None:
    end, op = case
    unchanged(
        "hoist_factors",
        f"""program p(%x: edge[4] f32, %a: node[4] f32) {{
          %0: edge[4] f32 = lift(%a, via={end}:edge->node)
          %1: edge[4] f32 = pointwise(%x, %0, function=mul)
          %2: dst_rel[4] f32 = reduce(%1, via=dst_rel:edge->dst_rel, op={op})
          return out=%2 }}""",
    )


# ------------------------------------------------------------------------------------------------ reuse weighted sums

CORRECTION = """program p(%p: edge[4] f32, %v: src_rel[4,16] f32, %g: node[4,16] f32) {{
  %0: edge[4,1] f32 = reshape(%p, to=[4, 1])
  %1: edge[4,16] f32 = lift(%v, via=src_rel:edge->src_rel)
  %2: edge[4,16] f32 = pointwise(%0, %1, function=mul)
  %3: {known} f32 = reduce(%2, via={via}, op=sum)
  %4: edge[4,16] f32 = lift(%g, via={of}:edge->node)
  %5: edge[4,16] f32 = pointwise(%4, %1, function=mul)
  %6: edge[4] f32 = feature_reduce(%5, op=sum, axes=[1])
  %7: edge[4] f32 = pointwise(%6, %p, function=mul)
  %8: node[4] f32 = reduce(%7, via=dst:edge->node, op=sum)
  %9: edge[4] f32 = lift(%8, via=dst:edge->node)
  return out=%3, correction=%9{more} }}"""


def test_a_softmax_correction_is_a_dot_with_the_result() -> None:
    check(
        "reuse_weighted_sums",
        CORRECTION.format(known="node[4,16]", via="dst:edge->node", of="dst", more=""),
        """program p(%p: edge[4] f32, %v: src_rel[4,16] f32, %g: node[4,16] f32) {
          %0: edge[4,1] f32 = reshape(%p, to=[4, 1])
          %1: edge[4,16] f32 = lift(%v, via=src_rel:edge->src_rel)
          %2: edge[4,16] f32 = pointwise(%0, %1, function=mul)
          %3: node[4,16] f32 = reduce(%2, via=dst:edge->node, op=sum)
          %4: node[4,16] f32 = pointwise(%g, %3, function=mul)
          %5: node[4] f32 = feature_reduce(%4, op=sum, axes=[1])
          %6: edge[4] f32 = lift(%5, via=dst:edge->node)
          return out=%3, correction=%6 }""",
    )


def test_a_softmax_correction_from_sums_per_pair() -> None:
    check(
        "reuse_weighted_sums",
        CORRECTION.format(known="dst_rel[4,16]", via="dst_rel:edge->dst_rel", of="dst", more=""),
        """program p(%p: edge[4] f32, %v: src_rel[4,16] f32, %g: node[4,16] f32) {
          %0: edge[4,1] f32 = reshape(%p, to=[4, 1])
          %1: edge[4,16] f32 = lift(%v, via=src_rel:edge->src_rel)
          %2: edge[4,16] f32 = pointwise(%0, %1, function=mul)
          %3: dst_rel[4,16] f32 = reduce(%2, via=dst_rel:edge->dst_rel, op=sum)
          %4: dst_rel[4,16] f32 = lift(%g, via=dst:dst_rel->node)
          %5: dst_rel[4,16] f32 = pointwise(%4, %3, function=mul)
          %6: dst_rel[4] f32 = feature_reduce(%5, op=sum, axes=[1])
          %7: node[4] f32 = reduce(%6, via=dst:dst_rel->node, op=sum)
          %8: edge[4] f32 = lift(%7, via=dst:edge->node)
          return out=%3, correction=%8 }""",
    )


@pytest.mark.parametrize(
    "case",
    [
        {"known": "node[4,16]", "via": "dst:edge->node", "of": "src", "more": ""},  # differs among the members
        {"known": "node[4,16]", "via": "src:edge->node", "of": "dst", "more": ""},  # a sum over other members
        {"known": "node[4,16]", "via": "dst:edge->node", "of": "dst", "more": ", all=%8"},  # isolated nodes are read
    ],
)
def test_corrections_stay(case: dict[str, str]) -> None:
    text = CORRECTION.format(**case)
    unchanged("reuse_weighted_sums", text)
    same_meaning("reuse_weighted_sums", text)


# ------------------------------------------------------------------------------------------------ factors of weights


def test_factors_known_farther_away_are_multiplied_first() -> None:
    check(
        "reassociate_products",
        """program p(%x: edge[4] f32, %a: rel[4] f32) {
          %0: edge[4] f32 = lift(%a, via=rel:edge->rel)
          %1: edge[4] f32 = pointwise(%x, %0, function=mul)
          %2: edge[] f32 = constant(at=edge, value=0.25, to=f32)
          %3: edge[4] f32 = pointwise(%1, %2, function=mul)
          return out=%3 }""",
        """program p(%x: edge[4] f32, %a: rel[4] f32) {
          %0: rel[] f32 = constant(at=rel, value=0.25, to=f32)
          %1: rel[4] f32 = pointwise(%a, %0, function=mul)
          %2: edge[4] f32 = lift(%1, via=rel:edge->rel)
          %3: edge[4] f32 = pointwise(%x, %2, function=mul)
          return out=%3 }""",
    )


def test_wide_factors_do_not_meet_in_pairs() -> None:
    unchanged(
        "reassociate_products",
        """program p(%x: edge[] f32, %a: node[64] f32, %b: rel[] f32) {
          %0: edge[64] f32 = lift(%a, via=src:edge->node)
          %1: edge[64] f32 = pointwise(%x, %0, function=mul)
          %2: edge[] f32 = lift(%b, via=rel:edge->rel)
          %3: edge[64] f32 = pointwise(%1, %2, function=mul)
          return out=%3 }""",
    )


@pytest.mark.parametrize(("second", "more"), [("dst:edge->node", ""), ("src:edge->node", ", inner=%1")])
def test_factors_of_both_ends_and_read_products_stay(second: str, more: str) -> None:
    unchanged(
        "reassociate_products",
        f"""program p(%x: edge[4] f32, %a: node[4] f32) {{
          %0: edge[4] f32 = lift(%a, via=src:edge->node)
          %1: edge[4] f32 = pointwise(%x, %0, function=mul)
          %2: edge[4] f32 = lift(%a, via={second})
          %3: edge[4] f32 = pointwise(%1, %2, function=mul)
          return out=%3{more} }}""",
    )


SCORE = """program p(%k: edge[4,16] f32, %q: node[4,16] f32, %att: rel[4,16,16] f32, %s: {of}[4] f32) {{
  %0: edge[4,16] f32 = linear(%k, %att, via=rel:edge->rel)
  %1: edge[4,16] f32 = lift(%q, via=dst:edge->node)
  %2: edge[4,16] f32 = pointwise(%0, %1, function=mul)
  %3: edge[4] f32 = feature_reduce(%2, op=sum, axes=[1])
  %4: edge[4] f32 = lift(%s, via={via})
  %5: edge[4] f32 = pointwise(%3, %4, function=mul)
  return out=%5{more} }}"""


def test_a_relations_prior_is_folded_into_its_weights() -> None:
    check(
        "fold_factors",
        SCORE.format(of="rel", via="rel:edge->rel", more=""),
        """program p(%k: edge[4,16] f32, %q: node[4,16] f32, %att: rel[4,16,16] f32, %s: rel[4] f32) {
          %0: rel[4,1,1] f32 = reshape(%s, to=[4, 1, 1])
          %1: rel[4,16,16] f32 = pointwise(%att, %0, function=mul)
          %2: edge[4,16] f32 = linear(%k, %1, via=rel:edge->rel)
          %3: edge[4,16] f32 = lift(%q, via=dst:edge->node)
          %4: edge[4,16] f32 = pointwise(%2, %3, function=mul)
          %5: edge[4] f32 = feature_reduce(%4, op=sum, axes=[1])
          return out=%5 }""",
    )


@pytest.mark.parametrize(
    "case",
    [
        {"of": "node", "via": "dst:edge->node", "more": ""},  # the relation does not determine it
        {"of": "rel", "via": "rel:edge->rel", "more": ", key=%0"},  # the unscaled product is read
        {"of": "rel", "via": "rel:edge->rel", "more": ", score=%3"},
    ],
)
def test_factors_are_not_folded(case: dict[str, str]) -> None:
    unchanged("fold_factors", SCORE.format(**case))


@pytest.mark.parametrize("transpose", ["true", "false"])
def test_factors_are_folded_through_views_into_shared_weights(transpose: str) -> None:
    same_meaning(
        "fold_factors",
        f"""program p(%h: src_rel[6] f32, %w: rel[6,6] f32, %s: rel[2,1] f32, %t: rel[] f32) {{
          %0: src_rel[6] f32 = linear(%h, %w, via=rel:src_rel->rel, transpose={transpose})
          %1: src_rel[2,3] f32 = reshape(%0, to=[2, 3])
          %2: src_rel[2,1] f32 = lift(%s, via=rel:src_rel->rel)
          %3: src_rel[2,3] f32 = pointwise(%1, %2, function=mul)
          %4: edge[2,3] f32 = lift(%3, via=src_rel:edge->src_rel)
          %5: edge[] f32 = lift(%t, via=rel:edge->rel)
          %6: edge[2,3] f32 = pointwise(%5, %4, function=mul)
          return out=%6 }}""",
    )


def test_one_matrix_for_all_heads_cannot_hold_a_factor_for_each() -> None:
    unchanged(
        "fold_factors",
        """program p(%h: edge[4,6] f32, %w: rel[6,5] f32, %s: rel[4,1] f32) {
          %0: edge[4,5] f32 = linear(%h, %w, via=rel:edge->rel)
          %1: edge[4,1] f32 = lift(%s, via=rel:edge->rel)
          %2: edge[4,5] f32 = pointwise(%0, %1, function=mul)
          return out=%2 }""",
    )


# ------------------------------------------------------------------------------------------------ quotients by what may be zero


QUOTIENTS = {
    "the root of a degree": "%q: node[] f32 = pointwise(%d, function=rsqrt)",
    "an input": "%q: node[] f32 = pointwise(%s, function=reciprocal)",
    "a difference": "%z: node[] f32 = pointwise(%d, %d, function=sub)\n %q: node[] f32 = pointwise(%d, %z, function=div)",
}


@pytest.mark.parametrize("of", QUOTIENTS)
def test_quotients_by_what_may_be_zero_are_not_moved_to_rows_that_nothing_reads(of: str) -> None:
    """An isolated node's quotient is infinite; its gradient would be 0 times that, and poison what made the node's features."""
    text = f"""program p(%h: node[4] f32, %s: node[] f32) {{
      %d: node[] f32 = degree(via=src:edge->node, to=f32)
      {QUOTIENTS[of]}
      %0: edge[4] f32 = lift(%h, via=src:edge->node)
      %1: edge[] f32 = lift(%q, via=src:edge->node)
      %2: edge[4] f32 = pointwise(%0, %1, function=mul)
      return out=%2 }}"""
    unchanged("compact_materialization", text)


@pytest.mark.parametrize("function", ["sqrt", "log", "log1p", "pow_scalar, scalars=[0.5]", "pow_scalar, scalars=[1.5]"])
def test_functions_that_are_steep_at_zero_are_not_moved_to_rows_that_nothing_reads(function: str) -> None:
    """A type without nodes may hold zero, or less, whose gradient would be 0 times infinity, or times no number."""
    unchanged(
        "compact_materialization",
        f"""program p(%b: ntype[4] f32) {{
          %0: node[4] f32 = lift(%b, via=ntype:node->ntype)
          %1: node[4] f32 = pointwise(%0, function={function})
          return out=%1 }}""",
    )


@pytest.mark.parametrize("function", ["tanh", "pow_scalar, scalars=[2.0]", "pow_scalar, scalars=[1.0]"])
def test_functions_that_are_nowhere_steep_are_moved_to_types(function: str) -> None:
    text = f"""program p(%b: ntype[4] f32) {{
      %0: node[4] f32 = lift(%b, via=ntype:node->ntype)
      %1: node[4] f32 = pointwise(%0, function={function})
      return out=%1 }}"""
    assert "ntype[4] f32 = pointwise" in run("compact_materialization", text)
    same_meaning("compact_materialization", text)


@pytest.mark.parametrize(
    "positive",
    [
        "%p: node[] f32 = pointwise(%d, %one, function=maximum)",
        "%p: node[] f32 = pointwise(%d, %one, function=add)",
        "%2: node[] f32 = pointwise(%s, function=square)\n %p: node[] f32 = pointwise(%2, %one, function=add)",
    ],
)
def test_quotients_by_what_is_positive_are_moved_to_nodes(positive: str) -> None:
    text = f"""program p(%h: node[4] f32, %s: node[] f32) {{
      %d: node[] f32 = degree(via=src:edge->node, to=f32)
      %one: node[] f32 = constant(at=node, value=1.0, to=f32)
      {positive}
      %q: node[] f32 = pointwise(%p, function=rsqrt)
      %0: edge[4] f32 = lift(%h, via=src:edge->node)
      %1: edge[] f32 = lift(%q, via=src:edge->node)
      %3: edge[4] f32 = pointwise(%0, %1, function=mul)
      return out=%3 }}"""
    assert "node[4] f32 = pointwise" in run("compact_materialization", text)
    same_meaning("compact_materialization", text)


def test_factors_of_relations_that_may_be_infinite_stay_outside_the_weights() -> None:
    """A relation without edges would have an infinite weight, whose gradient is no number."""
    text = """program p(%x: edge[3] f32, %w: rel[3,2] f32) {
      %0: rel[] f32 = degree(via=rel:edge->rel, to=f32)
      %1: rel[] f32 = pointwise(%0, function=rsqrt)
      %2: edge[] f32 = lift(%1, via=rel:edge->rel)
      %3: edge[2] f32 = linear(%x, %w, via=rel:edge->rel, transpose=false)
      %4: edge[2] f32 = pointwise(%3, %2, function=mul)
      return out=%4 }"""
    unchanged("fold_factors", text)
    same_meaning("fold_factors", text)
