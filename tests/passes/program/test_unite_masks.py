"""The pass ``unite_masks``."""

from __future__ import annotations

from pass_checks import check

MASKED = """program p(%h: node[4] f32) {{
  %0: node[] f32 = degree(via=src:edge->node, to=f32)
  %1: node[] f32 = constant(at=node, value=0.0, to=f32)
  %2: node[] bool = pointwise(%0, %1, function=gt)
  %3: node[] f32 = degree(via=dst:edge->node, to=f32)
  %4: node[] bool = pointwise(%3, %1, function=gt)
  {body} }}"""


def test_masks_of_both_ends_unite() -> None:
    check(
        "unite_masks",
        MASKED.format(
            body="""%5: node[4] f32 = pointwise(%2, %h, function=mask_gradient)
          %6: node[4] f32 = pointwise(%5, function=tanh)
          %7: edge[4] f32 = lift(%6, via=src:edge->node)
          %8: node[4] f32 = pointwise(%4, %h, function=mask_gradient)
          %9: node[4] f32 = pointwise(%8, function=tanh)
          %10: edge[4] f32 = lift(%9, via=dst:edge->node)
          return a=%7, b=%10"""
        ),
        MASKED.format(
            body="""%5: node[] bool = pointwise(%2, %4, function=logical_or)
          %6: node[4] f32 = pointwise(%5, %h, function=mask_gradient)
          %7: node[4] f32 = pointwise(%6, function=tanh)
          %8: edge[4] f32 = lift(%7, via=src:edge->node)
          %9: edge[4] f32 = lift(%7, via=dst:edge->node)
          return a=%8, b=%9"""
        ),
    )


def test_what_all_rows_read_has_no_mask() -> None:
    """The sigmoid's operand keeps its own."""
    check(
        "unite_masks",
        MASKED.format(
            body="""%5: node[4] f32 = pointwise(%2, %h, function=mask_gradient)
          %6: node[4] f32 = pointwise(%5, function=tanh)
          %7: node[4] f32 = pointwise(%2, %6, function=mask_gradient)
          %8: node[4] f32 = pointwise(%7, function=sigmoid)
          %9: edge[4] f32 = lift(%8, via=src:edge->node)
          %10: node[4] f32 = pointwise(%h, function=tanh)
          return a=%9, b=%10"""
        ),
        """program p(%h: node[4] f32) {
          %0: node[] f32 = degree(via=src:edge->node, to=f32)
          %1: node[] f32 = constant(at=node, value=0.0, to=f32)
          %2: node[] bool = pointwise(%0, %1, function=gt)
          %3: node[4] f32 = pointwise(%h, function=tanh)
          %4: node[4] f32 = pointwise(%2, %3, function=mask_gradient)
          %5: node[4] f32 = pointwise(%4, function=sigmoid)
          %6: edge[4] f32 = lift(%5, via=src:edge->node)
          return a=%6, b=%3 }""",
    )
