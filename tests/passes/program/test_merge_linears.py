"""The pass ``merge_linears``."""

from __future__ import annotations

import pytest
from pass_checks import check, fires, unchanged

from columba.ir.program.ops import Linear


def test_products_of_the_same_rows_become_one_with_their_biases() -> None:
    check(
        "merge_linears",
        """program p(%h: node[4] f32, %a: ntype[4,8] f32, %b: ntype[6,4] f32, %c: ntype[8] f32, %d: ntype[6] f32) {
          %0: node[8] f32 = linear(%h, %a, via=ntype:node->ntype)
          %1: node[8] f32 = lift(%c, via=ntype:node->ntype)
          %2: node[8] f32 = pointwise(%0, %1, function=add)
          %3: node[6] f32 = linear(%h, %b, via=ntype:node->ntype, transpose=true)
          %4: node[6] f32 = lift(%d, via=ntype:node->ntype)
          %5: node[6] f32 = pointwise(%4, %3, function=add)
          %6: node[14] f32 = concat(%2, %5, axis=0)
          return out=%6 }""",
        """program p(%h: node[4] f32, %a: ntype[4,8] f32, %b: ntype[6,4] f32, %c: ntype[8] f32, %d: ntype[6] f32) {
          %0: ntype[4,6] f32 = permute(%b, order=[1, 0])
          %1: ntype[4,14] f32 = concat(%a, %0, axis=1)
          %2: node[14] f32 = linear(%h, %1, via=ntype:node->ntype)
          %3: ntype[14] f32 = concat(%c, %d, axis=0)
          %4: node[14] f32 = lift(%3, via=ntype:node->ntype)
          %5: node[14] f32 = pointwise(%2, %4, function=add)
          %6: node[8] f32 = slice(%5, axis=0, start=0, stop=8, step=1)
          %7: node[6] f32 = slice(%5, axis=0, start=8, stop=14, step=1)
          %8: node[14] f32 = concat(%6, %7, axis=0)
          return out=%8 }""",
    )


@pytest.mark.parametrize(
    "second",
    [
        "%1: node[8] f32 = linear(%h, %b, via=one:node->one)",  # selected by another map
        "%1: node[8] f32 = linear(%k, %a, via=ntype:node->ntype)",  # other rows
    ],
)
def test_products_of_other_rows_or_other_maps_stay(second: str) -> None:
    unchanged(
        "merge_linears",
        f"""program p(%h: node[4] f32, %k: node[4] f32, %a: ntype[4,8] f32, %b: one[4,8] f32) {{
          %0: node[8] f32 = linear(%h, %a, via=ntype:node->ntype)
          {second}
          %2: node[8] f32 = pointwise(%0, %1, function=mul)
          return out=%2 }}""",
    )


def test_narrow_products_alone_become_one_where_wide_ones_are_to_stay() -> None:
    """Rows of 64 bytes lie apart; two of 32 bytes share one product, of which a third has no part."""
    merged = fires(
        "merge_linears{wide=False}",
        """program p(%h: node[4] f32, %a: ntype[4,16] f32, %b: ntype[4,8] f32, %c: ntype[4,8] f32) {
          %0: node[16] f32 = linear(%h, %a, via=ntype:node->ntype)
          %1: node[8] f32 = linear(%h, %b, via=ntype:node->ntype)
          %2: node[8] f32 = linear(%h, %c, via=ntype:node->ntype)
          %3: node[32] f32 = concat(%0, %1, %2, axis=0)
          return out=%3 }""",
    )
    assert [v.shape for v in merged.body if isinstance(v, Linear)] == [(16,), (16,)]


def test_a_weight_that_comes_from_the_other_product_stays_apart() -> None:
    unchanged(
        "merge_linears",
        """program p(%h: node[4] f32, %a: ntype[4,4] f32) {
          %0: node[4] f32 = linear(%h, %a, via=ntype:node->ntype)
          %1: ntype[4,4] f32 = outer_reduce(%0, %0, via=ntype:node->ntype, shared=true)
          %2: node[4] f32 = linear(%h, %1, via=ntype:node->ntype)
          return out=%2 }""",
    )


def test_results_do_not_come_to_need_other_inputs() -> None:
    """In a joint program the second weight may be a gradient, for which the forward result must not wait."""
    unchanged(
        "merge_linears",
        """program p(%h: node[4] f32, %a: ntype[4,8] f32, %g: ntype[4,8] f32) {
          %0: node[8] f32 = linear(%h, %a, via=ntype:node->ntype)
          %1: node[8] f32 = linear(%h, %g, via=ntype:node->ntype)
          return out=%0, grad=%1 }""",
    )


def test_products_of_weights_and_of_each_head_stay() -> None:
    unchanged(
        "merge_linears",
        """program p(%h: node[2,4] f32, %a: ntype[2,4,3] f32, %b: ntype[2,4,3] f32, %r: ntype[3] f32, %m: one[3,3] f32) {
          %0: node[2,3] f32 = linear(%h, %a, via=ntype:node->ntype)
          %1: node[2,3] f32 = linear(%h, %b, via=ntype:node->ntype)
          %2: node[2,3] f32 = pointwise(%0, %1, function=mul)
          %3: ntype[3] f32 = linear(%r, %m, via=one:ntype->one)
          %4: ntype[3] f32 = linear(%r, %m, via=one:ntype->one)
          %5: ntype[3] f32 = pointwise(%3, %4, function=mul)
          return out=%2, b=%5 }""",
    )
