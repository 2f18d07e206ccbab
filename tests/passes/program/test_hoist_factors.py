"""The pass ``hoist_factors``."""

from __future__ import annotations

import pytest
from pass_checks import check, unchanged


def test_an_owners_factor_is_applied_to_the_sum() -> None:
    check(
        "hoist_factors",
        """program p(%x: edge[4,1] f32, %a: rel[4,16] f32) {
          %0: edge[4,16] f32 = lift(%a, via=rel:edge->rel)
          %1: edge[4,16] f32 = pointwise(%x, %0, function=mul)
          %2: src_rel[4,16] f32 = reduce(%1, via=src_rel:edge->src_rel, op=sum)
          return out=%2 }""",
        """program p(%x: edge[4,1] f32, %a: rel[4,16] f32) {
          %0: src_rel[4,1] f32 = reduce(%x, via=src_rel:edge->src_rel, op=sum)
          %1: src_rel[4,16] f32 = lift(%a, via=rel:src_rel->rel)
          %2: src_rel[4,16] f32 = pointwise(%0, %1, function=mul)
          return out=%2 }""",
    )


def test_the_reciprocal_of_a_clamped_degree_is_hoisted_to_nodes() -> None:
    check(
        "hoist_factors",
        """program p(%x: edge[4] f32) {
          %0: node[] f32 = degree(via=dst:edge->node, to=f32)
          %1: node[] f32 = constant(at=node, value=1.0, to=f32)
          %2: node[] f32 = pointwise(%0, %1, function=maximum)
          %3: node[] f32 = pointwise(%2, function=reciprocal)
          %4: edge[] f32 = lift(%3, via=dst:edge->node)
          %5: edge[4] f32 = pointwise(%x, %4, function=mul)
          %6: node[4] f32 = reduce(%5, via=dst:edge->node, op=sum)
          return out=%6 }""",
        """program p(%x: edge[4] f32) {
          %0: node[4] f32 = reduce(%x, via=dst:edge->node, op=sum)
          %1: node[] f32 = degree(via=dst:edge->node, to=f32)
          %2: node[] f32 = constant(at=node, value=1.0, to=f32)
          %3: node[] f32 = pointwise(%1, %2, function=maximum)
          %4: node[] f32 = pointwise(%3, function=reciprocal)
          %5: node[4] f32 = pointwise(%0, %4, function=mul)
          return out=%5 }""",
    )


def test_a_degree_that_may_be_zero_is_not_hoisted_to_nodes() -> None:
    """Isolated nodes have 1 / sqrt(0) = inf, and 0 times that is no number."""
    text = """program p(%x: edge[4] f32) {
      %0: node[] f32 = degree(via=dst:edge->node, to=f32)
      %1: node[] f32 = pointwise(%0, function=rsqrt)
      %2: edge[] f32 = lift(%1, via=dst:edge->node)
      %3: edge[4] f32 = pointwise(%x, %2, function=mul)
      %4: node[4] f32 = reduce(%3, via=dst:edge->node, op=sum)
      return out=%4 }"""
    unchanged("hoist_factors", text)


@pytest.mark.parametrize("case", [("src", "sum"), ("dst", "max")])
def test_factors_of_members_and_of_extrema_stay(case: tuple[str, str]) -> None:
    end, op = case
    unchanged(
        "hoist_factors",
        f"""program p(%x: edge[4] f32, %a: node[4] f32) {{
          %0: edge[4] f32 = lift(%a, via={end}:edge->node)
          %1: edge[4] f32 = pointwise(%x, %0, function=mul)
          %2: dst_rel[4] f32 = reduce(%1, via=dst_rel:edge->dst_rel, op={op})
          return out=%2 }}""",
    )
