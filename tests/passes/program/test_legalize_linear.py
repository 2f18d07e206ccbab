"""The pass ``legalize_linear``."""

from __future__ import annotations

from pass_checks import check, unchanged


def test_legalize_rewrites_matrices_of_single_rows_only() -> None:
    check(
        "legalize_linear",
        """program p(%x: edge[3] f32, %w: edge[3,5] f32) {
          %0: edge[5] f32 = linear(%x, %w, via=none)
          return out=%0 }""",
        """program p(%x: edge[3] f32, %w: edge[3,5] f32) {
          %0: edge[3,1] f32 = reshape(%x, to=[3, 1])
          %1: edge[3,5] f32 = pointwise(%0, %w, function=mul)
          %2: edge[5] f32 = feature_reduce(%1, op=sum, axes=[0])
          return out=%2 }""",
    )
    unchanged(
        "legalize_linear",
        """program p(%x: rel[3] f32, %w: rel[3,5] f32, %h: edge[3] f32) {
          %0: rel[5] f32 = linear(%x, %w, via=none)
          %1: edge[5] f32 = linear(%h, %w, via=rel:edge->rel)
          return a=%0, b=%1 }""",
    )


def test_matrices_of_each_node_and_each_head() -> None:
    """Lifted to their rows, and with the axes exchanged; the gradient's sums of outer products likewise."""
    check(
        "legalize_linear",
        """program p(%x: edge[2,3] f32, %w: node[2,5,3] f32, %y: edge[2,5] f32) {
          %0: edge[2,5] f32 = linear(%x, %w, via=dst:edge->node, transpose=true)
          %1: node[3,5] f32 = outer_reduce(%x, %y, via=src:edge->node, shared=true)
          return a=%0, b=%1 }""",
        """program p(%x: edge[2,3] f32, %w: node[2,5,3] f32, %y: edge[2,5] f32) {
          %0: edge[2,1,3] f32 = reshape(%x, to=[2, 1, 3])
          %1: edge[2,5,3] f32 = lift(%w, via=dst:edge->node)
          %2: edge[2,5,3] f32 = pointwise(%0, %1, function=mul)
          %3: edge[2,5] f32 = feature_reduce(%2, op=sum, axes=[2])
          %4: edge[2,3,1] f32 = reshape(%x, to=[2, 3, 1])
          %5: edge[2,1,5] f32 = reshape(%y, to=[2, 1, 5])
          %6: edge[2,3,5] f32 = pointwise(%4, %5, function=mul)
          %7: edge[3,5] f32 = feature_reduce(%6, op=sum, axes=[0])
          %8: node[3,5] f32 = reduce(%7, via=src:edge->node, op=sum)
          return a=%3, b=%8 }""",
    )
