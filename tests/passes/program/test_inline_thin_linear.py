"""The pass ``inline_thin_linear``."""

from __future__ import annotations

import pytest
from pass_checks import check, fires, unchanged

from columba.ir.program.ops import Linear


def test_a_product_of_few_terms_is_computed_where_it_is_summed() -> None:
    check(
        "inline_thin_linear",
        """program p(%s: edge[2] f32, %w: rel[5,2] f32) {
          %0: dst_rel[2] f32 = reduce(%s, via=dst_rel:edge->dst_rel, op=sum)
          %1: dst_rel[5] f32 = linear(%0, %w, via=rel:dst_rel->rel, transpose=true)
          %2: node[5] f32 = reduce(%1, via=dst:dst_rel->node, op=sum)
          return out=%2 }""",
        """program p(%s: edge[2] f32, %w: rel[5,2] f32) {
          %0: dst_rel[2] f32 = reduce(%s, via=dst_rel:edge->dst_rel, op=sum)
          %1: dst_rel[1] f32 = slice(%0, axis=0, start=0, stop=1, step=1)
          %2: rel[2,5] f32 = permute(%w, order=[1, 0])
          %3: rel[1,5] f32 = slice(%2, axis=0, start=0, stop=1, step=1)
          %4: rel[5] f32 = reshape(%3, to=[5])
          %5: dst_rel[5] f32 = lift(%4, via=rel:dst_rel->rel)
          %6: dst_rel[5] f32 = pointwise(%1, %5, function=mul)
          %7: dst_rel[1] f32 = slice(%0, axis=0, start=1, stop=2, step=1)
          %8: rel[1,5] f32 = slice(%2, axis=0, start=1, stop=2, step=1)
          %9: rel[5] f32 = reshape(%8, to=[5])
          %10: dst_rel[5] f32 = lift(%9, via=rel:dst_rel->rel)
          %11: dst_rel[5] f32 = pointwise(%7, %10, function=mul)
          %12: dst_rel[5] f32 = pointwise(%6, %11, function=add)
          %13: node[5] f32 = reduce(%12, via=dst:dst_rel->node, op=sum)
          return out=%13 }""",
    )


def test_a_product_of_one_term_needs_no_sum() -> None:
    check(
        "inline_thin_linear",
        """program p(%s: dst_rel[1] f32, %w: rel[5,1] f32, %b: dst_rel[5] f32) {
          %0: dst_rel[5] f32 = linear(%s, %w, via=rel:dst_rel->rel, transpose=true)
          %1: dst_rel[5] f32 = pointwise(%0, %b, function=add)
          %2: node[5] f32 = reduce(%1, via=dst:dst_rel->node, op=sum)
          return out=%2 }""",
        """program p(%s: dst_rel[1] f32, %w: rel[5,1] f32, %b: dst_rel[5] f32) {
          %0: rel[5] f32 = reshape(%w, to=[5])
          %1: dst_rel[5] f32 = lift(%0, via=rel:dst_rel->rel)
          %2: dst_rel[5] f32 = pointwise(%s, %1, function=mul)
          %3: dst_rel[5] f32 = pointwise(%2, %b, function=add)
          %4: node[5] f32 = reduce(%3, via=dst:dst_rel->node, op=sum)
          return out=%4 }""",
    )


@pytest.mark.parametrize(
    ("x", "w", "shape", "transpose"),
    [
        ("edge[3] f32", "rel[3,5] f32", "[5]", "false"),
        ("edge[4] f32", "rel[5,4] f32", "[5]", "true"),
        ("edge[3] f32", "rel[1,3] f32", "[1]", "true"),
        ("edge[2,3] f32", "rel[3,5] f32", "[2,5]", "false"),  # one matrix for all heads
        ("edge[2,3] f32", "rel[2,3,5] f32", "[2,5]", "false"),  # one for each
        ("edge[2,1] f32", "rel[2,5,1] f32", "[2,5]", "true"),
    ],
)
@pytest.mark.parametrize("reader", ["reduce(%1, via=dst:edge->node, op=max)", "feature_reduce(%1, op=sum, axes=[0])"])
def test_thin_products_of_edges_have_the_same_sums(x: str, w: str, shape: str, transpose: str, reader: str) -> None:
    to = f"node{shape}" if reader.startswith("reduce") else f"edge{shape.replace('2,5', '5') if '2' in shape else '[]'}"
    text = f"""program p(%x: {x}, %w: {w}) {{
      %0: edge{shape} f32 = linear(%x, %w, via=rel:edge->rel, transpose={transpose})
      %1: edge{shape} f32 = pointwise(%0, function=tanh)
      %2: {to} f32 = {reader}
      return out=%2 }}"""
    assert not any(isinstance(v, Linear) for v in fires("inline_thin_linear", text).body)


def test_edges_hand_thin_products_to_other_products_too() -> None:
    text = """program p(%f: edge[3] f32, %w: one[3,5] f32, %v: rel[5,4] f32) {
      %0: edge[5] f32 = linear(%f, %w, via=one:edge->one)
      %1: edge[5] f32 = pointwise(%0, function=relu)
      %2: edge[4] f32 = linear(%1, %v, via=rel:edge->rel)
      %3: one[5,4] f32 = outer_reduce(%1, %2, via=one:edge->one, shared=true)
      return out=%3 }"""
    after = fires("inline_thin_linear", text)
    assert [str(v.type) for v in after.body if isinstance(v, Linear)] == ["edge[4] f32"]


THIN = """program p(%s: {space}[{k}] f32, %w: rel[{k},5] f32, %v: rel[5,5] f32) {{
  %0: {space}[5] f32 = linear(%s, %w, via=rel:{space}->rel)
  %1: {space}[5] f32 = pointwise(%0, function=relu)
  %2: {reader}
  %3: node[5] f32 = reduce(%1, via=dst:{space}->node, op=sum)
  return out=%2{more} }}"""

SUMMED = {"space": "dst_rel", "k": "2", "reader": "node[5] f32 = reduce(%1, via=dst:dst_rel->node, op=max)", "more": ""}


@pytest.mark.parametrize(
    "case",
    [
        {"k": "5"},  # not thin
        {"reader": "edge[5] f32 = lift(%0, via=dst_rel:edge->dst_rel)", "more": ", b=%3"},  # gathered by edges
        {"reader": "dst_rel[5] f32 = linear(%1, %v, via=rel:dst_rel->rel)", "more": ", b=%3"},  # multiplied again
        {"reader": "dst_rel[5] f32 = pointwise(%1, function=exp)"},  # nothing sums it
        {"more": ", b=%0"},  # a result itself
        {"more": ", b=%1"},  # what follows from it is one
        {"space": "edge", "reader": "node[5] f32 = reduce(%1, via=dst:edge->node, op=max)", "more": ", b=%0"},
    ],
    ids=str,
)
def test_products_that_are_not_thin_or_needed_in_memory_stay(case: dict[str, str]) -> None:
    unchanged("inline_thin_linear", THIN.format(**{**SUMMED, **case}))


def test_how_thin_is_an_option_and_weights_are_not_rows() -> None:
    unchanged("inline_thin_linear{thin=1}", THIN.format(**SUMMED))
    unchanged(
        "inline_thin_linear",
        """program p(%a: rel[2] f32, %w: one[2,5] f32) {
          %0: rel[5] f32 = linear(%a, %w, via=one:rel->one)
          %1: one[5] f32 = reduce(%0, via=one:rel->one, op=sum)
          return out=%1 }""",
    )
