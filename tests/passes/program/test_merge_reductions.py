"""The pass ``merge_reductions``."""

from __future__ import annotations

import pytest
from pass_checks import check, fires, unchanged

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


@pytest.mark.parametrize(
    "between",
    [
        "%1: dst_rel[2,2] f32 = reshape(%0, to=[2, 2])\n %2: dst_rel[4] f32 = reshape(%1, to=[4])",
        "%1: dst_rel[4] f32 = pointwise(%0, function=neg)\n %2: dst_rel[4] f32 = pointwise(%1, %s, function=div)",
        "%1: dst_rel[] f32 = constant(at=dst_rel, value=0.5, to=f32)\n %2: dst_rel[4] f32 = pointwise(%1, %0, function=mul)",
    ],
)
def test_views_signs_divisors_and_constants_are_lifted(between: str) -> None:
    after = fires(
        "merge_reductions",
        f"""program p(%x: edge[4] f32, %s: dst_rel[] f32) {{
          %0: dst_rel[4] f32 = reduce(%x, via=dst_rel:edge->dst_rel, op=sum)
          {between}
          %3: node[4] f32 = reduce(%2, via=dst:dst_rel->node, op=sum)
          return out=%3 }}""",
    )
    assert str(after).count(" reduce(") == 1


@pytest.mark.parametrize(
    "between",
    ["pointwise(%0, function=exp)", "pointwise(%0, %s, function=add)", "pointwise(%s, %0, function=div)"],
)
def test_what_is_not_linear_in_the_inner_sum_stays(between: str) -> None:
    unchanged(
        "merge_reductions",
        f"""program p(%x: edge[4] f32, %s: dst_rel[4] f32) {{
          %0: dst_rel[4] f32 = reduce(%x, via=dst_rel:edge->dst_rel, op=sum)
          %1: dst_rel[4] f32 = {between}
          %2: node[4] f32 = reduce(%1, via=dst:dst_rel->node, op=sum)
          return out=%2 }}""",
    )
