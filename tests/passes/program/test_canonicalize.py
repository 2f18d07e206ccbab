"""The pass ``canonicalize``."""

from __future__ import annotations

import pytest
from pass_checks import check, unchanged


@pytest.mark.parametrize(
    "expression",
    [
        "pointwise(%h, %one, function=mul)",
        "pointwise(%one, %h, function=mul)",
        "pointwise(%h, %zero, function=add)",
        "pointwise(%h, %zero, function=sub)",
        "pointwise(%h, %one, function=div)",
        "reshape(%h, to=[4])",
        "permute(%h, order=[0])",
        "expand(%h, to=[4])",
        "cast(%h, to=f32)",
        "slice(%h, axis=0, start=0, stop=4, step=1)",
        "pad(%h, axis=0, start=0, size=4, step=1)",
        "concat(%h, axis=0)",
    ],
)
def test_drops_what_does_nothing(expression: str) -> None:
    check(
        "canonicalize",
        f"""program p(%h: node[4] f32) {{
          %one: node[] f32 = constant(at=node, value=1.0, to=f32)
          %zero: node[] f32 = constant(at=node, value=0.0, to=f32)
          %x: node[4] f32 = {expression}
          return out=%x }}""",
        "program p(%h: node[4] f32) { return out=%h }",
    )


def test_keeps_times_zero() -> None:
    unchanged(
        "canonicalize",
        """program p(%h: node[4] f32) {
          %zero: node[] f32 = constant(at=node, value=0.0, to=f32)
          %x: node[4] f32 = pointwise(%h, %zero, function=mul)
          return out=%x }""",
    )


def test_composes_lifts_and_divides_once_a_row() -> None:
    check(
        "canonicalize",
        """program p(%t: ntype[4] f32, %d: edge[] f32) {
          %0: node[4] f32 = lift(%t, via=ntype:node->ntype)
          %1: edge[4] f32 = lift(%0, via=src:edge->node)
          %2: edge[4] f32 = pointwise(%1, %d, function=div)
          return out=%2 }""",
        """program p(%t: ntype[4] f32, %d: edge[] f32) {
          %0: edge[4] f32 = lift(%t, via=src_type:edge->ntype)
          %1: edge[] f32 = pointwise(%d, function=reciprocal)
          %2: edge[4] f32 = pointwise(%0, %1, function=mul)
          return out=%2 }""",
    )


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("%0: node[] f32 = pointwise(%h, function=neg)\n %1: node[] f32 = pointwise(%0, function=neg)", ""),
        (
            "%0: node[] f32 = pointwise(%h, %k, function=sub)\n %1: node[] f32 = pointwise(%0, function=neg)",
            "%1: node[] f32 = pointwise(%k, %h, function=sub)",
        ),
        (
            "%0: node[] f32 = constant(at=node, value=4.0, to=f32)\n %1: node[] f32 = pointwise(%0, function=reciprocal)",
            "%1: node[] f32 = constant(at=node, value=0.25, to=f32)",
        ),
        (
            """%0: node[] f32 = constant(at=node, value=4.0, to=f32)
               %2: node[] f32 = constant(at=node, value=2.0, to=f32)
               %1: node[] f32 = pointwise(%0, %2, function=div)""",
            "%1: node[] f32 = constant(at=node, value=2.0, to=f32)",
        ),
    ],
)
def test_signs_and_constants(expression: str, result: str) -> None:
    head = "program p(%h: node[] f32, %k: node[] f32) {"
    found = "%1" if result else "%h"
    check("canonicalize", f"{head} {expression} return out=%1 }}", f"{head} {result} return out={found} }}")


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        (
            "%0: node[3,2] f32 = permute(%x, order=[1, 0])\n %1: node[2,3] f32 = permute(%0, order=[1, 0])",
            "%1: node[2,3] f32 = pointwise(%x, function=exp)",
        ),
        (
            "%0: node[6] f32 = reshape(%x, to=[6])\n %1: node[2,3] f32 = reshape(%0, to=[2, 3])",
            "%1: node[2,3] f32 = pointwise(%x, function=exp)",
        ),
    ],
    ids=["permute", "reshape"],
)
def test_composes_views(expression: str, result: str) -> None:
    head = "program p(%x: node[2,3] f32) {"
    check(
        "canonicalize",
        f"{head} {expression} %9: node[2,3] f32 = pointwise(%1, function=exp) return out=%9 }}",
        f"{head} {result} return out=%1 }}",
    )


def test_broadcasts_last() -> None:
    """What is expanded is lifted, and computed with, before it is: functions broadcast by themselves."""
    check(
        "canonicalize",
        """program p(%h: node[1,3] f32, %x: edge[2,3] f32) {
          %0: node[2,3] f32 = expand(%h, to=[2, 3])
          %1: edge[2,3] f32 = lift(%0, via=src:edge->node)
          %2: edge[2,3] f32 = pointwise(%1, %x, function=mul)
          %3: node[2,1,3] f32 = expand(%h, to=[2, 1, 3])
          %4: node[2,4,3] f32 = expand(%3, to=[2, 4, 3])
          return a=%2, b=%4 }""",
        """program p(%h: node[1,3] f32, %x: edge[2,3] f32) {
          %0: edge[1,3] f32 = lift(%h, via=src:edge->node)
          %1: edge[2,3] f32 = pointwise(%0, %x, function=mul)
          %2: node[2,4,3] f32 = expand(%h, to=[2, 4, 3])
          return a=%1, b=%2 }""",
    )


def test_does_not_divide_by_zero() -> None:
    unchanged(
        "canonicalize",
        """program p() {
          %0: node[] f32 = constant(at=node, value=0.0, to=f32)
          %1: node[] f32 = pointwise(%0, function=reciprocal)
          return out=%1 }""",
    )


def test_a_row_divided_by_a_constant_is_multiplied_by_another() -> None:
    """What dividing once a row makes is simplified in the same run."""
    check(
        "canonicalize",
        """program p(%h: edge[4] f32) {
          %0: edge[] f32 = constant(at=edge, value=4.0, to=f32)
          %1: edge[4] f32 = pointwise(%h, %0, function=div)
          return out=%1 }""",
        """program p(%h: edge[4] f32) {
          %0: edge[] f32 = constant(at=edge, value=0.25, to=f32)
          %1: edge[4] f32 = pointwise(%h, %0, function=mul)
          return out=%1 }""",
    )
