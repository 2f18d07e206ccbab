"""The pass ``reassociate_products``."""

from __future__ import annotations

import pytest
from pass_checks import check, unchanged


def test_factors_known_farther_away_are_multiplied_first() -> None:
    check(
        "reassociate_products",
        """program p(%x: edge[4] f32, %a: rel[4] f32) {
          %0: edge[4] f32 = lift(%a, via=rel:edge->rel)
          %1: edge[4] f32 = pointwise(%x, %0, function=mul)
          %2: edge[] f32 = constant(at=edge, value=0.25, to=f32)
          %3: edge[4] f32 = pointwise(%1, %2, function=mul)
          return out=%3 }""",
        """program p(%x: edge[4] f32, %a: rel[4] f32) {
          %0: rel[] f32 = constant(at=rel, value=0.25, to=f32)
          %1: rel[4] f32 = pointwise(%a, %0, function=mul)
          %2: edge[4] f32 = lift(%1, via=rel:edge->rel)
          %3: edge[4] f32 = pointwise(%x, %2, function=mul)
          return out=%3 }""",
    )


def test_wide_factors_do_not_meet_in_pairs() -> None:
    unchanged(
        "reassociate_products",
        """program p(%x: edge[] f32, %a: node[64] f32, %b: rel[] f32) {
          %0: edge[64] f32 = lift(%a, via=src:edge->node)
          %1: edge[64] f32 = pointwise(%x, %0, function=mul)
          %2: edge[] f32 = lift(%b, via=rel:edge->rel)
          %3: edge[64] f32 = pointwise(%1, %2, function=mul)
          return out=%3 }""",
    )


@pytest.mark.parametrize(("second", "more"), [("dst:edge->node", ""), ("src:edge->node", ", inner=%1")])
def test_factors_of_both_ends_and_read_products_stay(second: str, more: str) -> None:
    unchanged(
        "reassociate_products",
        f"""program p(%x: edge[4] f32, %a: node[4] f32) {{
          %0: edge[4] f32 = lift(%a, via=src:edge->node)
          %1: edge[4] f32 = pointwise(%x, %0, function=mul)
          %2: edge[4] f32 = lift(%a, via={second})
          %3: edge[4] f32 = pointwise(%1, %2, function=mul)
          return out=%3{more} }}""",
    )
