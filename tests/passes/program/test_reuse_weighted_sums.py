"""The pass ``reuse_weighted_sums``."""

from __future__ import annotations

import pytest
from pass_checks import check, unchanged

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
    unchanged("reuse_weighted_sums", CORRECTION.format(**case))
