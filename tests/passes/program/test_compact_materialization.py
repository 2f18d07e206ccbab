"""The pass ``compact_materialization``."""

from __future__ import annotations

import pytest
from pass_checks import check, fires, unchanged


def test_compaction_computes_a_typed_linear_once_a_pair() -> None:
    check(
        "compact_materialization",
        """program p(%h: node[4] f32, %w: rel[4,8] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->node)
          %1: edge[8] f32 = linear(%0, %w, via=rel:edge->rel)
          %2: node[8] f32 = reduce(%1, via=dst:edge->node, op=sum)
          return out=%2 }""",
        """program p(%h: node[4] f32, %w: rel[4,8] f32) {
          %0: src_rel[4] f32 = lift(%h, via=src:src_rel->node)
          %1: src_rel[8] f32 = linear(%0, %w, via=rel:src_rel->rel)
          %2: edge[8] f32 = lift(%1, via=src_rel:edge->src_rel)
          %3: node[8] f32 = reduce(%2, via=dst:edge->node, op=sum)
          return out=%3 }""",
    )


def test_compaction_hoists_to_the_node() -> None:
    check(
        "compact_materialization",
        """program p(%h: node[4] f32, %w: ntype[4,8] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->node)
          %1: edge[8] f32 = linear(%0, %w, via=src_type:edge->ntype)
          return out=%1 }""",
        """program p(%h: node[4] f32, %w: ntype[4,8] f32) {
          %0: node[8] f32 = linear(%h, %w, via=ntype:node->ntype)
          %1: edge[8] f32 = lift(%0, via=src:edge->node)
          return out=%1 }""",
    )


def test_compaction_leaves_functions_of_both_ends_alone() -> None:
    unchanged(
        "compact_materialization",
        """program p(%h: node[4] f32, %x: edge[4] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->node)
          %1: edge[4] f32 = lift(%h, via=dst:edge->node)
          %2: edge[4] f32 = pointwise(%0, %1, function=mul)
          %3: edge[4] f32 = pointwise(%0, %x, function=mul)
          return a=%2, b=%3 }""",
    )


def test_compaction_without_pairs() -> None:
    unchanged(
        "compact_materialization{pairs=False}",
        """program p(%h: node[4] f32, %w: rel[4,8] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->node)
          %1: edge[8] f32 = linear(%0, %w, via=rel:edge->rel)
          return out=%1 }""",
    )


def test_what_is_moved_to_differentiate_is_masked() -> None:
    """Only what a gradient of 0 is multiplied by: ReLU selects, and pairs occur."""
    check(
        "compact_materialization{to_differentiate=True}",
        """program p(%h: node[4] f32, %w: rel[4] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->node)
          %1: edge[4] f32 = pointwise(%0, function=relu)
          %2: edge[4] f32 = pointwise(%1, function=tanh)
          %3: edge[4] f32 = lift(%w, via=rel:edge->rel)
          %4: edge[4] f32 = pointwise(%2, %3, function=mul)
          return out=%4 }""",
        """program p(%h: node[4] f32, %w: rel[4] f32) {
          %0: node[] f32 = degree(via=src:edge->node, to=f32)
          %1: node[] f32 = constant(at=node, value=0.0, to=f32)
          %2: node[] bool = pointwise(%0, %1, function=gt)
          %3: node[4] f32 = pointwise(%h, function=relu)
          %4: node[4] f32 = pointwise(%2, %3, function=mask_gradient)
          %5: node[4] f32 = pointwise(%4, function=tanh)
          %6: src_rel[4] f32 = lift(%5, via=src:src_rel->node)
          %7: src_rel[4] f32 = lift(%w, via=rel:src_rel->rel)
          %8: src_rel[4] f32 = pointwise(%6, %7, function=mul)
          %9: edge[4] f32 = lift(%8, via=src_rel:edge->src_rel)
          return out=%9 }""",
    )


QUOTIENTS = {
    "the root of a degree": "%q: node[] f32 = pointwise(%d, function=rsqrt)",
    "an input": "%q: node[] f32 = pointwise(%s, function=reciprocal)",
    "a difference": "%z: node[] f32 = pointwise(%d, %d, function=sub)\n %q: node[] f32 = pointwise(%d, %z, function=div)",
}


@pytest.mark.parametrize("of", QUOTIENTS)
def test_quotients_by_what_may_be_zero_are_not_moved_to_rows_that_nothing_reads(of: str) -> None:
    """An isolated node's quotient is infinite; its gradient would be 0 times that, and poison what made the node's features."""
    text = f"""program p(%h: node[4] f32, %s: node[] f32) {{
      %d: node[] f32 = degree(via=src:edge->node, to=f32)
      {QUOTIENTS[of]}
      %0: edge[4] f32 = lift(%h, via=src:edge->node)
      %1: edge[] f32 = lift(%q, via=src:edge->node)
      %2: edge[4] f32 = pointwise(%0, %1, function=mul)
      return out=%2 }}"""
    unchanged("compact_materialization", text)


@pytest.mark.parametrize("function", ["sqrt", "log", "log1p", "pow_scalar, scalars=[0.5]", "pow_scalar, scalars=[1.5]"])
def test_functions_that_are_steep_at_zero_are_not_moved_to_rows_that_nothing_reads(function: str) -> None:
    """A type without nodes may hold zero, or less, whose gradient would be 0 times infinity, or times no number."""
    unchanged(
        "compact_materialization",
        f"""program p(%b: ntype[4] f32) {{
          %0: node[4] f32 = lift(%b, via=ntype:node->ntype)
          %1: node[4] f32 = pointwise(%0, function={function})
          return out=%1 }}""",
    )


@pytest.mark.parametrize("function", ["tanh", "pow_scalar, scalars=[2.0]", "pow_scalar, scalars=[1.0]"])
def test_functions_that_are_nowhere_steep_are_moved_to_types(function: str) -> None:
    text = f"""program p(%b: ntype[4] f32) {{
      %0: node[4] f32 = lift(%b, via=ntype:node->ntype)
      %1: node[4] f32 = pointwise(%0, function={function})
      return out=%1 }}"""
    assert "ntype[4] f32 = pointwise" in str(fires("compact_materialization", text))


@pytest.mark.parametrize(
    "positive",
    [
        "%p: node[] f32 = pointwise(%d, %one, function=maximum)",
        "%p: node[] f32 = pointwise(%d, %one, function=add)",
        "%2: node[] f32 = pointwise(%s, function=square)\n %p: node[] f32 = pointwise(%2, %one, function=add)",
    ],
)
def test_quotients_by_what_is_positive_are_moved_to_nodes(positive: str) -> None:
    text = f"""program p(%h: node[4] f32, %s: node[] f32) {{
      %d: node[] f32 = degree(via=src:edge->node, to=f32)
      %one: node[] f32 = constant(at=node, value=1.0, to=f32)
      {positive}
      %q: node[] f32 = pointwise(%p, function=rsqrt)
      %0: edge[4] f32 = lift(%h, via=src:edge->node)
      %1: edge[] f32 = lift(%q, via=src:edge->node)
      %3: edge[4] f32 = pointwise(%0, %1, function=mul)
      return out=%3 }}"""
    assert "node[4] f32 = pointwise" in str(fires("compact_materialization", text))


def test_what_comes_from_types_through_nodes_is_computed_at_the_types() -> None:
    """Each step of the way is known once the one before it is taken: all are, in one run. On a bipartite graph, too."""
    for node, end in (("node", "node"), ("src", "src")):
        check(
            "compact_materialization",
            f"""program p(%b: ntype[2] f32) {{
              %0: {node}[2] f32 = lift(%b, via=ntype:{node}->ntype)
              %1: src_rel[2] f32 = lift(%0, via=src:src_rel->{end})
              %2: src_rel[2] f32 = pointwise(%1, %1, function=mul)
              return out=%2 }}""",
            f"""program p(%b: ntype[2] f32) {{
              %0: ntype[2] f32 = pointwise(%b, %b, function=mul)
              %1: {node}[2] f32 = lift(%0, via=ntype:{node}->ntype)
              %2: src_rel[2] f32 = lift(%1, via=src:src_rel->{end})
              return out=%2 }}""",
        )


@pytest.mark.parametrize(("pairs", "via"), [("True", "src_rel"), ("False", "edge")])
def test_compaction_on_a_bipartite_graph(pairs: str, via: str) -> None:
    after = fires(
        f"compact_materialization{{pairs={pairs}}}",
        """program p(%h: src[4] f32, %q: dst[8] f32, %w: rel[4,8] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->src)
          %1: edge[4] f32 = pointwise(%0, function=tanh)
          %2: edge[8] f32 = linear(%1, %w, via=rel:edge->rel)
          %3: edge[8] f32 = lift(%q, via=dst:edge->dst)
          %4: edge[8] f32 = pointwise(%2, %3, function=mul)
          %5: dst[8] f32 = reduce(%4, via=dst:edge->dst, op=max)
          return out=%5 }""",
    )
    text = str(after)
    assert "src[4] f32 = pointwise(%h, function=tanh" in text
    assert f"{via}[8] f32 = linear" in text
