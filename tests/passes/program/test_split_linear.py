"""The pass ``split_linear``."""

from __future__ import annotations

import pytest
from pass_checks import check, unchanged


def test_joined_ends_are_multiplied_apart() -> None:
    check(
        "split_linear",
        """program p(%h: node[4] f32, %x: edge[3] f32, %w: one[7,8] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->node)
          %1: edge[7] f32 = concat(%0, %x, axis=0)
          %2: edge[8] f32 = linear(%1, %w, via=one:edge->one)
          return out=%2 }""",
        """program p(%h: node[4] f32, %x: edge[3] f32, %w: one[7,8] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->node)
          %1: one[4,8] f32 = slice(%w, axis=0, start=0, stop=4, step=1)
          %2: edge[8] f32 = linear(%0, %1, via=one:edge->one)
          %3: one[3,8] f32 = slice(%w, axis=0, start=4, stop=7, step=1)
          %4: edge[8] f32 = linear(%x, %3, via=one:edge->one)
          %5: edge[8] f32 = pointwise(%2, %4, function=add)
          return out=%5 }""",
    )


@pytest.mark.parametrize(
    "parts",
    [
        "%0: edge[3] f32 = lift(%h, via=src:edge->node)\n %1: edge[3] f32 = lift(%k, via=src:edge->node)",  # one end
        "%0: edge[3] f32 = pointwise(%x, function=exp)\n %1: edge[3] f32 = pointwise(%x, function=relu)",  # edges
    ],
)
def test_joined_rows_stay(parts: str) -> None:
    unchanged(
        "split_linear",
        f"""program p(%h: node[3] f32, %k: node[3] f32, %x: edge[3] f32, %w: rel[8,6] f32) {{
          {parts}
          %2: edge[6] f32 = concat(%0, %1, axis=0)
          %3: edge[8] f32 = linear(%2, %w, via=rel:edge->rel, transpose=true)
          return out=%3 }}""",
    )
