"""The pass ``fold_factors``."""

from __future__ import annotations

import pytest
from pass_checks import check, fires, unchanged

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
    fires(
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


def test_factors_of_relations_that_may_be_infinite_stay_outside_the_weights() -> None:
    """A relation without edges would have an infinite weight, whose gradient is no number."""
    unchanged(
        "fold_factors",
        """program p(%x: edge[3] f32, %w: rel[3,2] f32) {
      %0: rel[] f32 = degree(via=rel:edge->rel, to=f32)
      %1: rel[] f32 = pointwise(%0, function=rsqrt)
      %2: edge[] f32 = lift(%1, via=rel:edge->rel)
      %3: edge[2] f32 = linear(%x, %w, via=rel:edge->rel, transpose=false)
      %4: edge[2] f32 = pointwise(%3, %2, function=mul)
      return out=%4 }""",
    )
