"""The pass ``order_kernels``."""

from __future__ import annotations

from pass_checks import check, unchanged

HEAD = """
plan p(@h: node[4] f32, @x: edge[4] f32) -> (@a: node[4] f32, @b: node[4] f32) {
  temporary @wide: edge[32] f32
  temporary @s: node[4] f32
"""
WIDE = """  traversal wide_kernel(owner=edge, via=none) {
    %0: edge[4] f32 = load(buffer=@x, via=none, at=edge)
    %1: edge[8,4] f32 = expand(%0, to=[8, 4])
    %2: edge[32] f32 = reshape(%1, to=[32])
    store @wide = %2
  }
"""
SUM = """  traversal s_kernel(owner=node, via=dst:edge->node) {
    %0: edge[4] f32 = load(buffer=@x, via=none, at=edge)
    %1: node[4] f32 = reduce(%0, via=dst:edge->node, op=sum)
    store @s = %1
  }
"""
PRODUCT = """  traversal a_kernel(owner=node, via=none) {
    %0: node[4] f32 = load(buffer=@s, via=none, at=node)
    %1: node[4] f32 = load(buffer=@h, via=none, at=node)
    %2: node[4] f32 = pointwise(%0, %1, function=mul, scalars=[])
    store @a = %2
  }
"""
NARROW = """  traversal b_kernel(owner=node, via=src:edge->node) {
    %0: edge[32] f32 = load(buffer=@wide, via=none, at=edge)
    %1: edge[4] f32 = slice(%0, axis=0, start=0, stop=4, step=1)
    %2: node[4] f32 = reduce(%1, via=src:edge->node, op=sum)
    store @b = %2
  }
"""
HOST = """  host host_0(@c) -> (@d) {
    program host_0(%c: one[4,4] f32) {
      %0: one[4,4] f32 = linear(%c, %c, via=none)
      return d=%0
    }
  }
"""


def plan(*kernels: str) -> str:
    return "".join([HEAD, *kernels, "}\n"])


def test_wide_rows_die_before_others_are_made() -> None:
    best = plan(WIDE, NARROW, SUM, PRODUCT)
    check("order_kernels", plan(WIDE, SUM, PRODUCT, NARROW), best)
    check("order_kernels", plan(SUM, PRODUCT, WIDE, NARROW), best)  # results are alive from when they are made


def test_what_shrinks_what_is_alive_comes_before_what_is_wide() -> None:
    """A saved value with a row a pair lives until it is read: its reader comes first."""
    text = """
plan p(@saved: dst_rel[16] f32, @h: node[64] f32) -> (@a: node[16] f32, @b: dst_rel[] f32, @c: node[64] f32) {
  temporary @wide: dst_rel[64] f32
BODY}
"""
    wide = """  traversal wide_kernel(owner=dst_rel, via=none) {
    %0: dst_rel[64] f32 = load(buffer=@h, via=dst:dst_rel->node, at=dst_rel)
    %1: dst_rel[64] f32 = pointwise(%0, function=exp, scalars=[])
    store @wide = %1
  }
  traversal c_kernel(owner=node, via=dst:dst_rel->node) {
    %0: dst_rel[64] f32 = load(buffer=@wide, via=none, at=dst_rel)
    %1: node[64] f32 = reduce(%0, via=dst:dst_rel->node, op=sum)
    store @c = %1
  }
"""
    sum_ = """  traversal a_kernel(owner=node, via=dst:dst_rel->node) {
    %0: dst_rel[16] f32 = load(buffer=@saved, via=none, at=dst_rel)
    %1: node[16] f32 = reduce(%0, via=dst:dst_rel->node, op=sum)
    %2: dst_rel[] f32 = feature_reduce(%0, op=sum, axes=[0])
    store @a = %1
    store @b = %2
  }
"""
    check("order_kernels", text.replace("BODY", wide + sum_), text.replace("BODY", sum_ + wide))


def test_an_order_that_needs_no_more_stays() -> None:
    unchanged("order_kernels", plan(WIDE, NARROW, SUM, PRODUCT))


def test_one_kernel_stays() -> None:
    unchanged("order_kernels", "plan p(@x: edge[4] f32) -> (@s: node[4] f32) {\n" + SUM + "}")


def test_host_calls_keep_their_places() -> None:
    """What stands between two of them runs as one call: none is moved past another kernel, nor another past it."""
    with_host = plan(WIDE, SUM, HOST, PRODUCT, NARROW)
    with_host = with_host.replace("@x: edge[4] f32)", "@x: edge[4] f32, @c: one[4,4] f32)").replace(
        "-> (@a", "-> (@d: one[4,4] f32, @a"
    )
    unchanged("order_kernels", with_host.replace(PRODUCT + NARROW, NARROW + PRODUCT))


def test_kernels_of_a_group_stand_together() -> None:
    """Their local buffers count as nothing; the group moves as one."""
    group = """  group(space=dst_rel) {
    local @t: dst_rel[16] f32
    traversal t_kernel(owner=dst_rel, via=none) {
      %0: dst_rel[16] f32 = load(buffer=@g, via=none, at=dst_rel)
      %1: dst_rel[16] f32 = pointwise(%0, function=exp, scalars=[])
      store @t = %1
    }
    traversal out_kernel(owner=dst_rel, via=none) {
      %0: dst_rel[16] f32 = load(buffer=@t, via=none, at=dst_rel)
      %1: dst_rel[] f32 = feature_reduce(%0, op=sum, axes=[0])
      store @out = %1
    }
  }
"""
    head = (
        HEAD.replace("(@h", "(@g: dst_rel[16] f32, @h")
        .replace("(@a", "(@out: dst_rel[] f32, @a")
        .replace("  temporary @s: node[4] f32\n", "")
        .replace("@a: node[4] f32, ", "")
    )
    check("order_kernels", head + WIDE + group + NARROW + "}", head + group + WIDE + NARROW + "}")
