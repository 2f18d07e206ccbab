"""The pass ``reorder_linear``."""

from __future__ import annotations

import pytest
from pass_checks import check, unchanged


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


def test_dot_in_32_bits_with_a_linear_in_16_becomes_a_linear_in_32() -> None:
    """As under autocast, where the product is of 16 bits and the vector of 32."""
    check(
        "reorder_linear",
        """program p(%h: dst_rel[4] bf16, %w: rel[4,6] bf16, %a: rel[2,3] f32) {
          %0: dst_rel[6] bf16 = linear(%h, %w, via=rel:dst_rel->rel)
          %1: dst_rel[2,3] bf16 = reshape(%0, to=[2, 3])
          %2: dst_rel[2,3] f32 = cast(%1, to=f32)
          %3: dst_rel[2,3] f32 = lift(%a, via=rel:dst_rel->rel)
          %4: dst_rel[2,3] f32 = pointwise(%2, %3, function=mul)
          %5: dst_rel[2] f32 = feature_reduce(%4, op=sum, axes=[1])
          return out=%5 }""",
        """program p(%h: dst_rel[4] bf16, %w: rel[4,6] bf16, %a: rel[2,3] f32) {
          %0: dst_rel[4] f32 = cast(%h, to=f32)
          %1: rel[4,6] f32 = cast(%w, to=f32)
          %2: rel[4,2,3] f32 = reshape(%1, to=[4, 2, 3])
          %3: rel[4,2,3] f32 = pointwise(%2, %a, function=mul)
          %4: rel[4,2] f32 = feature_reduce(%3, op=sum, axes=[2])
          %5: dst_rel[2] f32 = linear(%0, %4, via=rel:dst_rel->rel)
          return out=%5 }""",
        halves=False,
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


def test_dot_with_a_linear_of_each_head() -> None:
    check(
        "reorder_linear",
        """program p(%h: edge[2,4] f32, %w: rel[2,4,3] f32, %a: rel[2,3] f32) {
          %0: edge[2,3] f32 = linear(%h, %w, via=rel:edge->rel)
          %1: edge[2,3] f32 = lift(%a, via=rel:edge->rel)
          %2: edge[2,3] f32 = pointwise(%1, %0, function=mul)
          %3: edge[2] f32 = feature_reduce(%2, op=sum, axes=[1])
          return out=%3 }""",
        """program p(%h: edge[2,4] f32, %w: rel[2,4,3] f32, %a: rel[2,3] f32) {
          %0: rel[2,1,3] f32 = reshape(%a, to=[2, 1, 3])
          %1: rel[2,4,3] f32 = pointwise(%w, %0, function=mul)
          %2: rel[2,4] f32 = feature_reduce(%1, op=sum, axes=[2])
          %3: rel[2,4,1] f32 = reshape(%2, to=[2, 4, 1])
          %4: edge[2,1] f32 = linear(%h, %3, via=rel:edge->rel)
          %5: edge[2] f32 = reshape(%4, to=[2])
          return out=%5 }""",
    )
