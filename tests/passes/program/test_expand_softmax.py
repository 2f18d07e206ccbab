"""The pass ``expand_softmax``."""

from __future__ import annotations

from pass_checks import check

EXPANDED = """program p(%x: edge[2] f32{inputs}) {{
  %0: node[2] f32 = reduce(%x, via=dst:edge->node, op=max)
  %1: edge[2] f32 = lift(%0, via=dst:edge->node)
  %2: edge[2] f32 = pointwise(%x, %1, function=sub)
  %3: edge[2] f32 = pointwise(%2, function=exp)
  %4: node[2] f32 = reduce(%3, via=dst:edge->node, op=sum)
  %5: node[] f32 = constant(at=node, value=0.0, to=f32)
  %6: node[2] bool = pointwise(%4, %5, function=le)
  %7: node[] f32 = constant(at=node, value=1.0, to=f32)
  %8: node[2] f32 = pointwise(%6, %7, %4, function=where)
  %9: node[2] f32 = pointwise(%8, function=reciprocal)
{rest} }}"""


def test_expand_softmax() -> None:
    check(
        "expand_softmax",
        """program p(%x: edge[2] f32) {
          %0: edge[2] f32 = softmax(%x, via=dst:edge->node)
          return out=%0 }""",
        EXPANDED.format(
            inputs="",
            rest="""
  %10: edge[2] f32 = lift(%9, via=dst:edge->node)
  %11: edge[2] f32 = pointwise(%3, %10, function=mul)
  return out=%11""",
        ),
    )


def test_what_softmax_weighs_is_divided_after_it_is_summed() -> None:
    """At destinations, and at pairs of a destination and a relation; not at sources, whose members have other sums."""
    weighted = """program p(%x: edge[2] f32, %v: edge[2,3] f32) {
          %0: edge[2] f32 = softmax(%x, via=dst:edge->node)
          %1: edge[2,1] f32 = reshape(%0, to=[2, 1])
          %2: edge[2,3] f32 = pointwise(%1, %v, function=mul)
          %3: OWNER[2,3] f32 = reduce(%2, via=MAP, op=sum)
          return out=%3 }"""
    summed = """
  %10: edge[2,1] f32 = reshape(%3, to=[2, 1])
  %11: edge[2,3] f32 = pointwise(%10, %v, function=mul)
  %12: OWNER[2,3] f32 = reduce(%11, via=MAP, op=sum)"""
    for owner, via, rest in (
        (
            "node",
            "dst:edge->node",
            f"""{summed}
  %13: node[2,1] f32 = reshape(%9, to=[2, 1])
  %14: node[2,3] f32 = pointwise(%12, %13, function=mul)
  return out=%14""",
        ),
        (
            "dst_rel",
            "dst_rel:edge->dst_rel",
            f"""{summed}
  %13: dst_rel[2] f32 = lift(%9, via=dst:dst_rel->node)
  %14: dst_rel[2,1] f32 = reshape(%13, to=[2, 1])
  %15: dst_rel[2,3] f32 = pointwise(%12, %14, function=mul)
  return out=%15""",
        ),
        (
            "node",
            "src:edge->node",
            """
  %10: edge[2] f32 = lift(%9, via=dst:edge->node)
  %11: edge[2] f32 = pointwise(%3, %10, function=mul)
  %12: edge[2,1] f32 = reshape(%11, to=[2, 1])
  %13: edge[2,3] f32 = pointwise(%12, %v, function=mul)
  %14: node[2,3] f32 = reduce(%13, via=src:edge->node, op=sum)
  return out=%14""",
        ),
    ):
        before = weighted.replace("OWNER", owner).replace("MAP", via)
        check(
            "expand_softmax",
            before,
            EXPANDED.format(inputs=", %v: edge[2,3] f32", rest=rest.replace("OWNER", owner).replace("MAP", via)),
        )
