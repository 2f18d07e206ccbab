"""The pass ``pull_negations``."""

from __future__ import annotations

import pytest
from pass_checks import check, unchanged


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
