"""The pass ``widen_small_rows``."""

from __future__ import annotations

import pytest
from pass_checks import check, unchanged


def test_scores_are_in_32_bits_from_the_product_to_the_wide_row() -> None:
    """The dot product reads the sums of 32 bits of the matrix product, which stores them in 16; the slope's kink sees 32 bits, too."""
    check(
        "widen_small_rows",
        """program p(%h: edge[32] bf16, %w: rel[32,32] bf16, %a: edge[32] bf16) {
          %0: edge[32] bf16 = linear(%h, %w, via=rel:edge->rel, transpose=false)
          %1: edge[32] bf16 = pointwise(%0, %a, function=mul, scalars=[])
          %2: edge[] bf16 = feature_reduce(%1, op=sum, axes=[0])
          %3: edge[] bf16 = pointwise(%2, function=leaky_relu, scalars=[0.2])
          %4: edge[] bf16 = constant(at=edge, value=0.0, to=bf16)
          %5: edge[] bool = pointwise(%3, %4, function=gt, scalars=[])
          %6: edge[] bf16 = pointwise(%5, %3, %4, function=where, scalars=[])
          %7: edge[32] bf16 = pointwise(%6, %0, function=mul, scalars=[])
          return out=%7 }""",
        """program p(%h: edge[32] bf16, %w: rel[32,32] bf16, %a: edge[32] bf16) {
          %0: edge[32] f32 = cast(%h, to=f32)
          %1: rel[32,32] f32 = cast(%w, to=f32)
          %2: edge[32] f32 = linear(%0, %1, via=rel:edge->rel, transpose=false)
          %3: edge[32] f32 = cast(%a, to=f32)
          %4: edge[32] f32 = pointwise(%2, %3, function=mul, scalars=[])
          %5: edge[] f32 = feature_reduce(%4, op=sum, axes=[0])
          %6: edge[] f32 = pointwise(%5, function=leaky_relu, scalars=[0.2])
          %7: edge[] f32 = constant(at=edge, value=0.0, to=f32)
          %8: edge[] bool = pointwise(%6, %7, function=gt, scalars=[])
          %9: edge[] f32 = constant(at=edge, value=0.0, to=f32)
          %10: edge[] f32 = pointwise(%8, %6, %9, function=where, scalars=[])
          %11: edge[] bf16 = cast(%10, to=bf16, loose=true)
          %12: edge[32] bf16 = cast(%2, to=bf16, loose=true)
          %13: edge[32] bf16 = pointwise(%11, %12, function=mul, scalars=[])
          return out=%13 }""",
        halves=False,
    )


def test_weights_that_make_scores_are_in_32_bits() -> None:
    """A vector multiplied into a matrix; and counts, of which bfloat16 has not even all below 300."""
    check(
        "widen_small_rows",
        """program p(%h: node[32] f16, %w: rel[32,4,8] f16, %a: rel[4,8] f16) {
          %0: edge[32] f16 = lift(%h, via=src:edge->node)
          %1: rel[32,4,8] f16 = pointwise(%w, %a, function=mul, scalars=[])
          %2: rel[32,4] f16 = feature_reduce(%1, op=sum, axes=[2])
          %3: edge[4] f16 = linear(%0, %2, via=rel:edge->rel, transpose=false)
          %4: node[4] f16 = reduce(%3, via=dst:edge->node, op=sum)
          %5: node[] f16 = degree(via=dst:edge->node, to=f16)
          %6: node[4] f16 = pointwise(%4, %5, function=mul, scalars=[])
          return out=%6 }""",
        """program p(%h: node[32] f16, %w: rel[32,4,8] f16, %a: rel[4,8] f16) {
          %0: edge[32] f16 = lift(%h, via=src:edge->node)
          %1: edge[32] f32 = cast(%0, to=f32)
          %2: rel[32,4,8] f32 = cast(%w, to=f32)
          %3: rel[4,8] f32 = cast(%a, to=f32)
          %4: rel[32,4,8] f32 = pointwise(%2, %3, function=mul, scalars=[])
          %5: rel[32,4] f32 = feature_reduce(%4, op=sum, axes=[2])
          %6: edge[4] f32 = linear(%1, %5, via=rel:edge->rel, transpose=false)
          %7: node[4] f32 = reduce(%6, via=dst:edge->node, op=sum)
          %8: node[] f32 = degree(via=dst:edge->node, to=f32)
          %9: node[4] f32 = pointwise(%7, %8, function=mul, scalars=[])
          %10: node[4] f16 = cast(%9, to=f16, loose=true)
          return out=%10 }""",
        halves=False,
    )


def test_sums_that_are_read_in_32_bits_are_not_rounded() -> None:
    check(
        "widen_small_rows",
        """program p(%h: node[32] bf16) {
          %0: one[32] bf16 = reduce(%h, via=one:node->one, op=sum)
          %1: one[32] f32 = cast(%0, to=f32)
          return out=%1 }""",
        """program p(%h: node[32] bf16) {
          %0: node[32] f32 = cast(%h, to=f32)
          %1: one[32] f32 = reduce(%0, via=one:node->one, op=sum)
          return out=%1 }""",
        halves=False,
    )


LEFT = {
    "float32": """program p(%h: edge[32] f32) {
          %0: edge[] f32 = feature_reduce(%h, op=sum, axes=[0])
          return out=%0 }""",
    "wide rows": """program p(%h: node[32] bf16, %w: rel[32,32] bf16) {
          %0: edge[32] bf16 = lift(%h, via=src:edge->node)
          %1: edge[32] bf16 = linear(%0, %w, via=rel:edge->rel, transpose=false)
          %2: node[32] bf16 = reduce(%1, via=dst:edge->node, op=sum)
          return out=%2 }""",
    "rounding that was asked for": """program p(%h: edge[] f32) {
          %0: edge[] bf16 = cast(%h, to=bf16)
          %1: edge[] f32 = cast(%0, to=f32)
          return out=%1 }""",
    "narrow layers": """program p(%h: node[8] bf16, %w: one[8,8] bf16) {
          %0: node[8] bf16 = linear(%h, %w, via=one:node->one, transpose=false)
          %1: node[8] bf16 = pointwise(%0, function=relu, scalars=[])
          return out=%1 }""",
}


@pytest.mark.parametrize("text", LEFT.values(), ids=LEFT)
def test_types_that_stay(text: str) -> None:
    unchanged("widen_small_rows", text)
