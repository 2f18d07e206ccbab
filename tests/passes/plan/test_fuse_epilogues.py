"""The pass ``fuse_epilogues``."""

from __future__ import annotations

import pytest
from pass_checks import check, unchanged

LAYER = """
plan p(@h: node[4] f32, @w: one[4,8] f32, @bias: one[8] f32) -> (@out: node[8] f32) {
  temporary @y: node[8] f32
  gemm y_kernel() {
    %0: node[4] f32 = load(buffer=@h, via=none, at=node)
    %1: node[8] f32 = product(%0, w=@w, via=one:node->one, transpose=false)
    store @y = %1
  }
  traversal out_kernel(owner=node, via=none) {
    %0: node[8] f32 = load(buffer=@y, via=none, at=node)
    %1: node[8] f32 = load(buffer=@bias, via=one:node->one, at=node)
    %2: node[8] f32 = pointwise(%0, %1, function=add, scalars=[])
    %3: node[8] f32 = pointwise(%2, function=relu, scalars=[])
    store @out = %3
  }
}
"""
FUSED = """
plan p(@h: node[4] f32, @w: one[4,8] f32, @bias: one[8] f32) -> (@out: node[8] f32) {
  gemm y_kernel() {
    %0: node[4] f32 = load(buffer=@h, via=none, at=node)
    %1: node[8] f32 = product(%0, w=@w, via=one:node->one, transpose=false)
    %2: node[8] f32 = load(buffer=@bias, via=one:node->one, at=node)
    %3: node[8] f32 = pointwise(%1, %2, function=add, scalars=[])
    %4: node[8] f32 = pointwise(%3, function=relu, scalars=[])
    store @out = %4
  }
}
"""


def with_result(text: str) -> str:
    """The product itself is a result, too."""
    return text.replace("-> (@out", "-> (@y: node[8] f32, @out").replace("  temporary @y: node[8] f32\n", "")


def followed_by(text: str, *kernels: str) -> str:
    return text.rstrip().removesuffix("}") + "".join(kernels) + "}"


def test_what_is_made_of_a_product_is_made_of_its_rows_at_once() -> None:
    check("fuse_epilogues", LAYER, FUSED)


def test_a_product_that_is_a_result_is_stored_still() -> None:
    check(
        "fuse_epilogues", with_result(LAYER), with_result(FUSED).replace("store @out", "store @y = %1\n    store @out")
    )


def test_epilogues_of_epilogues() -> None:
    """Each is taken in, though it reads what another one wrote."""
    last = """  traversal z_kernel(owner=node, via=none) {
    %0: node[8] f32 = load(buffer=@out, via=none, at=node)
    %1: node[8] f32 = load(buffer=@y, via=none, at=node)
    %2: node[8] f32 = pointwise(%0, %1, function=mul, scalars=[])
    store @z = %2
  }
"""
    check(
        "fuse_epilogues",
        followed_by(LAYER, last).replace("-> (@out", "-> (@z: node[8] f32, @out"),
        FUSED.replace("-> (@out", "-> (@z: node[8] f32, @out").replace(
            "    store @out = %4",
            "    %5: node[8] f32 = pointwise(%4, %1, function=mul, scalars=[])\n    store @out = %4\n    store @z = %5",
        ),
    )


PAIRS = """
plan p(@h: node[4] f32, @w: rel[2,4,3] f32, @s: src_rel[2,1] f32) -> (@out: src_rel[6] f32) {
  temporary @y: src_rel[2,3] f32
  gemm y_kernel() {
    %0: src_rel[4] f32 = load(buffer=@h, via=src:src_rel->node, at=src_rel)
    %1: src_rel[1,4] f32 = reshape(%0, to=[1, 4])
    %2: src_rel[2,4] f32 = expand(%1, to=[2, 4])
    %3: src_rel[2,3] f32 = product(%2, w=@w, via=rel:src_rel->rel, transpose=false)
    store @y = %3
  }
  traversal out_kernel(owner=src_rel, via=none) {
    %0: src_rel[2,3] f32 = load(buffer=@y, via=none, at=src_rel)
    %1: src_rel[2,1] f32 = load(buffer=@s, via=none, at=src_rel)
    %2: src_rel[2,3] f32 = pointwise(%0, %1, function=mul, scalars=[])
    %3: src_rel[6] f32 = reshape(%2, to=[6])
    store @out = %3
  }
}
"""


def test_products_of_pairs_and_of_each_head() -> None:
    check(
        "fuse_epilogues",
        PAIRS,
        """
        plan p(@h: node[4] f32, @w: rel[2,4,3] f32, @s: src_rel[2,1] f32) -> (@out: src_rel[6] f32) {
          gemm y_kernel() {
            %0: src_rel[4] f32 = load(buffer=@h, via=src:src_rel->node, at=src_rel)
            %1: src_rel[1,4] f32 = reshape(%0, to=[1, 4])
            %2: src_rel[2,4] f32 = expand(%1, to=[2, 4])
            %3: src_rel[2,3] f32 = product(%2, w=@w, via=rel:src_rel->rel, transpose=false)
            %4: src_rel[2,1] f32 = load(buffer=@s, via=none, at=src_rel)
            %5: src_rel[2,3] f32 = pointwise(%3, %4, function=mul, scalars=[])
            %6: src_rel[6] f32 = reshape(%5, to=[6])
            store @out = %6
          }
        }
        """,
    )


APART = {
    "members read the rows": """
    plan p(@h: node[4] f32, @w: one[4,8] f32) -> (@out: node[8] f32) {
      temporary @y: node[8] f32
      gemm y_kernel() {
        %0: node[4] f32 = load(buffer=@h, via=none, at=node)
        %1: node[8] f32 = product(%0, w=@w, via=one:node->one, transpose=false)
        store @y = %1
      }
      traversal out_kernel(owner=node, via=dst:edge->node) {
        %0: edge[8] f32 = load(buffer=@y, via=src:edge->node, at=edge)
        %1: node[8] f32 = reduce(%0, via=dst:edge->node, op=sum)
        store @out = %1
      }
    }
    """,
    "the rows are others": """
    plan p(@h: node[4] f32, @w: one[4,8] f32) -> (@out: edge[8] f32) {
      temporary @y: node[8] f32
      gemm y_kernel() {
        %0: node[4] f32 = load(buffer=@h, via=none, at=node)
        %1: node[8] f32 = product(%0, w=@w, via=one:node->one, transpose=false)
        store @y = %1
      }
      traversal out_kernel(owner=edge, via=none) {
        %0: edge[8] f32 = load(buffer=@y, via=dst:edge->node, at=edge)
        store @out = %0
      }
    }
    """,
    "another product stands between": """
    plan p(@h: node[4] f32, @w: one[4,4] f32) -> (@out: node[4] f32) {
      temporary @y: node[4] f32
      temporary @s: node[4] f32
      gemm y_kernel() {
        %0: node[4] f32 = load(buffer=@h, via=none, at=node)
        %1: node[4] f32 = product(%0, w=@w, via=one:node->one, transpose=false)
        store @y = %1
      }
      traversal s_kernel(owner=node, via=dst:edge->node) {
        %0: edge[4] f32 = load(buffer=@y, via=src:edge->node, at=edge)
        %1: node[4] f32 = reduce(%0, via=dst:edge->node, op=sum)
        store @s = %1
      }
      traversal out_kernel(owner=node, via=none) {
        %0: node[4] f32 = load(buffer=@y, via=none, at=node)
        %1: node[4] f32 = load(buffer=@s, via=none, at=node)
        %2: node[4] f32 = pointwise(%0, %1, function=mul, scalars=[])
        store @out = %2
      }
    }
    """,
    "the product is not read": LAYER.replace("load(buffer=@y, via=none, at=node)", "load(buffer=@x, via=none, at=node)")
    .replace("(@h: node[4] f32,", "(@x: node[8] f32, @h: node[4] f32,")
    .replace("-> (@out", "-> (@y: node[8] f32, @out")
    .replace("  temporary @y: node[8] f32\n", ""),
}


@pytest.mark.parametrize("why", APART)
def test_must_not_fire(why: str) -> None:
    unchanged("fuse_epilogues", APART[why])
