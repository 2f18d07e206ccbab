"""The pass ``sink_lifts``."""

from __future__ import annotations

import pytest
from pass_checks import check, unchanged

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
