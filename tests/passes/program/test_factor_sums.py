"""The pass ``factor_sums``."""

from __future__ import annotations

import pytest
from pass_checks import check, unchanged


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
