"""The pass ``common_subexpressions``."""

from __future__ import annotations

from pass_checks import check, unchanged


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
