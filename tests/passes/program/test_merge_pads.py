"""The pass ``merge_pads``."""

from __future__ import annotations

import pytest
from pass_checks import check, unchanged


def test_parts_in_their_places_are_joined_in_any_order() -> None:
    check(
        "merge_pads",
        """program p(%a: node[2] f32, %b: node[3] f32, %c: node[1] f32) {
          %0: node[6] f32 = pad(%c, axis=0, start=5, size=6, step=1)
          %1: node[6] f32 = pad(%a, axis=0, start=0, size=6, step=1)
          %2: node[6] f32 = pointwise(%0, %1, function=add)
          %3: node[6] f32 = pad(%b, axis=0, start=2, size=6, step=1)
          %4: node[6] f32 = pointwise(%2, %3, function=add)
          return out=%4 }""",
        """program p(%a: node[2] f32, %b: node[3] f32, %c: node[1] f32) {
          %0: node[6] f32 = concat(%a, %b, %c, axis=0)
          return out=%0 }""",
    )


@pytest.mark.parametrize(
    ("place", "size", "step"),
    [(1, 3, 1), (3, 5, 1), (1, 4, 2)],  # they overlap; there is a gap; with a stride
)
def test_parts_that_do_not_tile_stay(place: int, size: int, step: int) -> None:
    unchanged(
        "merge_pads",
        f"""program p(%a: node[2] f32, %b: node[2] f32) {{
          %0: node[{size}] f32 = pad(%a, axis=0, start=0, size={size}, step={step})
          %1: node[{size}] f32 = pad(%b, axis=0, start={place}, size={size}, step={step})
          %2: node[{size}] f32 = pointwise(%0, %1, function=add)
          return out=%2 }}""",
    )
