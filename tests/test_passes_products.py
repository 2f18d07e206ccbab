"""Level-1 passes that move, merge and split matrix products."""

from __future__ import annotations

import pytest
from pass_checks import check, same_meaning, transformed, unchanged

from columba.ir.program.ops import Linear
from columba.ir.program.parsing import parse_program

# ------------------------------------------------------------------------------------------------ aggregate first


def test_messages_are_summed_per_pair_before_the_product() -> None:
    check(
        "aggregate_first",
        """program p(%h: node[4] f32, %w: rel[4,8] f32, %s: edge[] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->node)
          %1: edge[8] f32 = linear(%0, %w, via=rel:edge->rel)
          %2: edge[8] f32 = pointwise(%1, %s, function=mul)
          %3: node[8] f32 = reduce(%2, via=dst:edge->node, op=sum)
          return out=%3 }""",
        """program p(%h: node[4] f32, %w: rel[4,8] f32, %s: edge[] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->node)
          %1: edge[4] f32 = pointwise(%0, %s, function=mul)
          %2: dst_rel[4] f32 = reduce(%1, via=dst_rel:edge->dst_rel, op=sum)
          %3: dst_rel[8] f32 = linear(%2, %w, via=rel:dst_rel->rel)
          %4: node[8] f32 = reduce(%3, via=dst:dst_rel->node, op=sum)
          return out=%4 }""",
    )


def test_compacted_products_are_aggregated_first_too() -> None:
    """Each head sums its own rows with its own weights, and takes its columns of the matrix."""
    check(
        "aggregate_first",
        """program p(%h: node[4] f32, %w: rel[4,6] f32, %p: edge[2] f32) {
          %0: src_rel[4] f32 = lift(%h, via=src:src_rel->node)
          %1: src_rel[6] f32 = linear(%0, %w, via=rel:src_rel->rel)
          %2: src_rel[2,3] f32 = reshape(%1, to=[2, 3])
          %3: edge[2,3] f32 = lift(%2, via=src_rel:edge->src_rel)
          %4: edge[2,1] f32 = reshape(%p, to=[2, 1])
          %5: edge[2,3] f32 = pointwise(%4, %3, function=mul)
          %6: node[2,3] f32 = reduce(%5, via=dst:edge->node, op=sum)
          return out=%6 }""",
        """program p(%h: node[4] f32, %w: rel[4,6] f32, %p: edge[2] f32) {
          %0: edge[4] f32 = lift(%h, via=src:edge->node)
          %1: edge[1,4] f32 = reshape(%0, to=[1, 4])
          %2: edge[2,1] f32 = reshape(%p, to=[2, 1])
          %3: edge[2,4] f32 = pointwise(%1, %2, function=mul)
          %4: dst_rel[2,4] f32 = reduce(%3, via=dst_rel:edge->dst_rel, op=sum)
          %5: rel[4,2,3] f32 = reshape(%w, to=[4, 2, 3])
          %6: rel[2,4,3] f32 = permute(%5, order=[1, 0, 2])
          %7: dst_rel[2,3] f32 = linear(%4, %6, via=rel:dst_rel->rel)
          %8: node[2,3] f32 = reduce(%7, via=dst:dst_rel->node, op=sum)
          return out=%8 }""",
    )


def test_sums_per_pair_need_no_second_sum_and_gradients_take_the_other_end() -> None:
    text = """program p(%g: dst_rel[8] f32, %w: rel[4,8] f32) {
      %0: dst_rel[4] f32 = linear(%g, %w, via=rel:dst_rel->rel, transpose=true)
      %1: edge[4] f32 = lift(%0, via=dst_rel:edge->dst_rel)
      %2: src_rel[4] f32 = reduce(%1, via=src_rel:edge->src_rel, op=sum)
      return out=%2 }"""
    unchanged("aggregate_first", text)
    check(
        "aggregate_first{end='src'}",
        text,
        """program p(%g: dst_rel[8] f32, %w: rel[4,8] f32) {
          %0: edge[8] f32 = lift(%g, via=dst_rel:edge->dst_rel)
          %1: src_rel[8] f32 = reduce(%0, via=src_rel:edge->src_rel, op=sum)
          %2: src_rel[4] f32 = linear(%1, %w, via=rel:src_rel->rel, transpose=true)
          return out=%2 }""",
    )


@pytest.mark.parametrize(
    ("x", "via", "factor", "shape"),
    [
        ("edge[2,4] f32", "rel:edge->rel", "edge[2,1] f32", "[2,6]"),  # a row a head, one matrix
        ("edge[4] f32", "rel:edge->rel", "edge[1] f32", "[6]"),
        ("edge[4] f32", "rel:edge->rel", "edge[] f32", "[6]"),
    ],
)
@pytest.mark.parametrize("function", ["mul", "div"])
def test_aggregating_first_changes_no_number(x: str, via: str, factor: str, shape: str, function: str) -> None:
    text = f"""program p(%x: {x}, %w: rel[4,6] f32, %s: {factor}) {{
      %0: edge{shape} f32 = linear(%x, %w, via={via})
      %1: edge{shape} f32 = pointwise(%0, %s, function={function})
      %2: edge{shape} f32 = pointwise(%1, function=neg)
      %3: node{shape} f32 = reduce(%2, via=dst:edge->node, op=sum)
      return out=%3 }}"""
    after = transformed("aggregate_first", parse_program(text))
    assert [str(v.space) for v in after.body if isinstance(v, Linear)] == ["dst_rel"]
    same_meaning("aggregate_first", text)


def test_factors_below_a_view_and_weights_of_each_head() -> None:
    text = """program p(%x: node[2,4] f32, %w: rel[2,4,3] f32, %s: src_rel[] f32, %p: edge[2,1] f32) {
      %0: src_rel[2,4] f32 = lift(%x, via=src:src_rel->node)
      %1: src_rel[2,3] f32 = linear(%0, %w, via=rel:src_rel->rel)
      %2: src_rel[2,3] f32 = pointwise(%s, %1, function=mul)
      %3: edge[2,3] f32 = lift(%2, via=src_rel:edge->src_rel)
      %4: edge[2,3] f32 = pointwise(%3, %p, function=mul)
      %5: edge[6] f32 = reshape(%4, to=[6])
      %6: node[6] f32 = reduce(%5, via=dst:edge->node, op=sum)
      return out=%6 }"""
    after = transformed("aggregate_first", parse_program(text))
    assert [str(v.space) for v in after.body if isinstance(v, Linear)] == ["dst_rel"]
    same_meaning("aggregate_first", text)


def test_one_weight_for_all_is_multiplied_at_the_destination_if_rows_are_narrower_before() -> None:
    text = """program p(%h: node[{k}] f32, %w: one[{k},{n}] f32) {{
      %0: node[{n}] f32 = linear(%h, %w, via=one:node->one)
      %1: edge[{n}] f32 = lift(%0, via=src:edge->node)
      %2: node[{n}] f32 = reduce(%1, via=dst:edge->node, op=sum)
      return out=%2 }}"""
    check(
        "aggregate_first",
        text.format(k=4, n=8),
        """program p(%h: node[4] f32, %w: one[4,8] f32) {
          %0: node[] f32 = degree(via=dst:edge->node, to=f32)
          %1: node[] f32 = constant(at=node, value=0.0, to=f32)
          %2: node[] bool = pointwise(%0, %1, function=gt)
          %3: edge[4] f32 = lift(%h, via=src:edge->node)
          %4: node[4] f32 = reduce(%3, via=dst:edge->node, op=sum)
          %5: node[8] f32 = linear(%4, %w, via=one:node->one)
          %6: node[] f32 = constant(at=node, value=0.0, to=f32)
          %7: node[8] f32 = pointwise(%2, %5, %6, function=where)
          return out=%7 }""",
    )
    unchanged("aggregate_first", text.format(k=8, n=4))


MESSAGE = """program p(%h: node[4] f32, %w: {of}[4,6] f32, %s: edge[{s}] f32) {{
  %0: edge[4] f32 = lift(%h, via=src:edge->node)
  %1: edge[6] f32 = linear(%0, %w, via={select})
  %2: edge[6] f32 = {factor}
  %3: {to}[6] f32 = reduce(%2, via={via}, op={op})
  return out=%3 }}"""
PLAIN = {
    "of": "rel",
    "select": "rel:edge->rel",
    "s": "1",
    "factor": "pointwise(%1, %s, function=mul)",
    "to": "node",
    "via": "dst:edge->node",
    "op": "sum",
}


@pytest.mark.parametrize(
    "case",
    [
        {"s": "6"},  # a factor for each feature
        {"factor": "pointwise(%1, function=relu)"},  # not linear
        {"factor": "pointwise(%s, %1, function=div)"},  # the product is the divisor
        {"factor": "pointwise(%1, %s, function=add)"},
        {"op": "max"},
        {"to": "node", "via": "src:edge->node"},  # the other end
        {"to": "rel", "via": "rel:edge->rel"},
    ],
    ids=str,
)
def test_products_before_the_sum_stay(case: dict[str, str]) -> None:
    unchanged("aggregate_first", MESSAGE.format(**{**PLAIN, **case}))


def test_products_of_nodes_do_not_become_products_of_pairs() -> None:
    unchanged(
        "aggregate_first",
        """program p(%h: node[4] f32, %w: ntype[4,8] f32) {
          %0: node[8] f32 = linear(%h, %w, via=ntype:node->ntype)
          %1: edge[8] f32 = lift(%0, via=src:edge->node)
          %2: dst_rel[8] f32 = reduce(%1, via=dst_rel:edge->dst_rel, op=sum)
          return out=%2 }""",
    )


@pytest.mark.parametrize("end", ["dst", "src"])
def test_products_of_edges_alone_are_put_off_if_so_asked(end: str) -> None:
    only = f"aggregate_first{{end='{end}',edges_only=True}}"
    pairs = f"""program p(%h: node[4] f32, %w: rel[4,8] f32) {{
      %0: src_rel[4] f32 = lift(%h, via=src:src_rel->node)
      %1: src_rel[8] f32 = linear(%0, %w, via=rel:src_rel->rel)
      %2: edge[8] f32 = lift(%1, via=src_rel:edge->src_rel)
      %3: node[8] f32 = reduce(%2, via={end}:edge->node, op=sum)
      return out=%3 }}"""
    unchanged(only, pairs)
    check(
        only,
        f"""program p(%x: edge[4] f32, %w: one[4,8] f32, %s: edge[1] f32) {{
          %0: edge[4] f32 = pointwise(%x, %s, function=mul)
          %1: edge[8] f32 = linear(%0, %w, via=one:edge->one)
          %2: node[8] f32 = reduce(%1, via={end}:edge->node, op=sum)
          return out=%2 }}""",
        f"""program p(%x: edge[4] f32, %w: one[4,8] f32, %s: edge[1] f32) {{
          %0: node[] f32 = degree(via={end}:edge->node, to=f32)
          %1: node[] f32 = constant(at=node, value=0.0, to=f32)
          %2: node[] bool = pointwise(%0, %1, function=gt)
          %3: edge[4] f32 = pointwise(%x, %s, function=mul)
          %4: node[4] f32 = reduce(%3, via={end}:edge->node, op=sum)
          %5: node[8] f32 = linear(%4, %w, via=one:node->one)
          %6: node[] f32 = constant(at=node, value=0.0, to=f32)
          %7: node[8] f32 = pointwise(%2, %5, %6, function=where)
          return out=%7 }}""",
    )


# ------------------------------------------------------------------------------------------------ merge linears


def test_products_of_the_same_rows_become_one_with_their_biases() -> None:
    check(
        "merge_linears",
        """program p(%h: node[4] f32, %a: ntype[4,8] f32, %b: ntype[6,4] f32, %c: ntype[8] f32, %d: ntype[6] f32) {
          %0: node[8] f32 = linear(%h, %a, via=ntype:node->ntype)
          %1: node[8] f32 = lift(%c, via=ntype:node->ntype)
          %2: node[8] f32 = pointwise(%0, %1, function=add)
          %3: node[6] f32 = linear(%h, %b, via=ntype:node->ntype, transpose=true)
          %4: node[6] f32 = lift(%d, via=ntype:node->ntype)
          %5: node[6] f32 = pointwise(%4, %3, function=add)
          %6: node[14] f32 = concat(%2, %5, axis=0)
          return out=%6 }""",
        """program p(%h: node[4] f32, %a: ntype[4,8] f32, %b: ntype[6,4] f32, %c: ntype[8] f32, %d: ntype[6] f32) {
          %0: ntype[4,6] f32 = permute(%b, order=[1, 0])
          %1: ntype[4,14] f32 = concat(%a, %0, axis=1)
          %2: node[14] f32 = linear(%h, %1, via=ntype:node->ntype)
          %3: ntype[14] f32 = concat(%c, %d, axis=0)
          %4: node[14] f32 = lift(%3, via=ntype:node->ntype)
          %5: node[14] f32 = pointwise(%2, %4, function=add)
          %6: node[8] f32 = slice(%5, axis=0, start=0, stop=8, step=1)
          %7: node[6] f32 = slice(%5, axis=0, start=8, stop=14, step=1)
          %8: node[14] f32 = concat(%6, %7, axis=0)
          return out=%8 }""",
    )


@pytest.mark.parametrize(
    "second",
    [
        "%1: node[8] f32 = linear(%h, %b, via=one:node->one)",  # selected by another map
        "%1: node[8] f32 = linear(%k, %a, via=ntype:node->ntype)",  # other rows
    ],
)
def test_products_of_other_rows_or_other_maps_stay(second: str) -> None:
    unchanged(
        "merge_linears",
        f"""program p(%h: node[4] f32, %k: node[4] f32, %a: ntype[4,8] f32, %b: one[4,8] f32) {{
          %0: node[8] f32 = linear(%h, %a, via=ntype:node->ntype)
          {second}
          %2: node[8] f32 = pointwise(%0, %1, function=mul)
          return out=%2 }}""",
    )


def test_narrow_products_alone_become_one_where_wide_ones_are_to_stay() -> None:
    """Rows of 64 bytes lie apart; two of 32 bytes share one product, of which a third has no part."""
    merged = transformed(
        "merge_linears{wide=False}",
        parse_program("""program p(%h: node[4] f32, %a: ntype[4,16] f32, %b: ntype[4,8] f32, %c: ntype[4,8] f32) {
          %0: node[16] f32 = linear(%h, %a, via=ntype:node->ntype)
          %1: node[8] f32 = linear(%h, %b, via=ntype:node->ntype)
          %2: node[8] f32 = linear(%h, %c, via=ntype:node->ntype)
          %3: node[32] f32 = concat(%0, %1, %2, axis=0)
          return out=%3 }"""),
    )
    assert [v.shape for v in merged.body if isinstance(v, Linear)] == [(16,), (16,)]


def test_a_weight_that_comes_from_the_other_product_stays_apart() -> None:
    unchanged(
        "merge_linears",
        """program p(%h: node[4] f32, %a: ntype[4,4] f32) {
          %0: node[4] f32 = linear(%h, %a, via=ntype:node->ntype)
          %1: ntype[4,4] f32 = outer_reduce(%0, %0, via=ntype:node->ntype, shared=true)
          %2: node[4] f32 = linear(%h, %1, via=ntype:node->ntype)
          return out=%2 }""",
    )


def test_results_do_not_come_to_need_other_inputs() -> None:
    """In a joint program the second weight may be a gradient, for which the forward result must not wait."""
    unchanged(
        "merge_linears",
        """program p(%h: node[4] f32, %a: ntype[4,8] f32, %g: ntype[4,8] f32) {
          %0: node[8] f32 = linear(%h, %a, via=ntype:node->ntype)
          %1: node[8] f32 = linear(%h, %g, via=ntype:node->ntype)
          return out=%0, grad=%1 }""",
    )


def test_products_of_weights_and_of_each_head_stay() -> None:
    unchanged(
        "merge_linears",
        """program p(%h: node[2,4] f32, %a: ntype[2,4,3] f32, %b: ntype[2,4,3] f32, %r: ntype[3] f32, %m: one[3,3] f32) {
          %0: node[2,3] f32 = linear(%h, %a, via=ntype:node->ntype)
          %1: node[2,3] f32 = linear(%h, %b, via=ntype:node->ntype)
          %2: node[2,3] f32 = pointwise(%0, %1, function=mul)
          %3: ntype[3] f32 = linear(%r, %m, via=one:ntype->one)
          %4: ntype[3] f32 = linear(%r, %m, via=one:ntype->one)
          %5: ntype[3] f32 = pointwise(%3, %4, function=mul)
          return out=%2, b=%5 }""",
    )


# ------------------------------------------------------------------------------------------------ merge pads


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


# ------------------------------------------------------------------------------------------------ split linear


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


# ------------------------------------------------------------------------------------------------ inline thin linear


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
    assert not any(isinstance(v, Linear) for v in transformed("inline_thin_linear", parse_program(text)).body)
    same_meaning("inline_thin_linear", text)


def test_edges_hand_thin_products_to_other_products_too() -> None:
    text = """program p(%f: edge[3] f32, %w: one[3,5] f32, %v: rel[5,4] f32) {
      %0: edge[5] f32 = linear(%f, %w, via=one:edge->one)
      %1: edge[5] f32 = pointwise(%0, function=relu)
      %2: edge[4] f32 = linear(%1, %v, via=rel:edge->rel)
      %3: one[5,4] f32 = outer_reduce(%1, %2, via=one:edge->one, shared=true)
      return out=%3 }"""
    after = transformed("inline_thin_linear", parse_program(text))
    assert [str(v.type) for v in after.body if isinstance(v, Linear)] == ["edge[4] f32"]
    same_meaning("inline_thin_linear", text)


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
