"""The pass ``fuse_traversals``."""

from __future__ import annotations

import pytest
from pass_checks import check, fires, unchanged

from columba.ir.plan.kernels import Traversal
from columba.ir.plan.plan import Plan

SUMS = """
plan p(@h: node[4] f32) -> (@out: node[4] f32) {
  temporary @s: node[4] f32
  traversal s_kernel(owner=node, via=dst:edge->node) {
    %0: edge[4] f32 = load(buffer=@h, via=src:edge->node, at=edge)
    %1: node[4] f32 = reduce(%0, via=dst:edge->node, op=sum)
    store @s = %1
  }
  traversal out_kernel(owner=node, via=none) {
    %0: node[4] f32 = load(buffer=@s, via=none, at=node)
    %1: node[4] f32 = pointwise(%0, function=relu, scalars=[])
    store @out = %1
  }
}
"""


def test_what_is_made_of_sums_is_made_where_they_are() -> None:
    check(
        "fuse_traversals",
        SUMS,
        """
        plan p(@h: node[4] f32) -> (@out: node[4] f32) {
          traversal out_kernel(owner=node, via=dst:edge->node) {
            %0: edge[4] f32 = load(buffer=@h, via=src:edge->node, at=edge)
            %1: node[4] f32 = reduce(%0, via=dst:edge->node, op=sum)
            %2: node[4] f32 = pointwise(%1, function=relu, scalars=[])
            store @out = %2
          }
        }
        """,
    )


def test_results_are_stored_still() -> None:
    text = SUMS.replace("-> (@out", "-> (@s: node[4] f32, @out").replace("  temporary @s: node[4] f32\n", "")
    check(
        "fuse_traversals",
        text,
        """
        plan p(@h: node[4] f32) -> (@s: node[4] f32, @out: node[4] f32) {
          traversal out_kernel(owner=node, via=dst:edge->node) {
            %0: edge[4] f32 = load(buffer=@h, via=src:edge->node, at=edge)
            %1: node[4] f32 = reduce(%0, via=dst:edge->node, op=sum)
            %2: node[4] f32 = pointwise(%1, function=relu, scalars=[])
            store @s = %1
            store @out = %2
          }
        }
        """,
    )


def test_a_softmax_is_one_traversal_of_three_phases() -> None:
    """Rows of edges are computed at the members, which are lifted what their owner has."""
    check(
        "fuse_traversals",
        """
        plan p(@x: edge[2] f32) -> (@out: edge[2] f32) {
          temporary @m: node[2] f32
          temporary @e: edge[2] f32
          temporary @t: node[2] f32
          traversal m_kernel(owner=node, via=dst:edge->node) {
            %0: edge[2] f32 = load(buffer=@x, via=none, at=edge)
            %1: node[2] f32 = reduce(%0, via=dst:edge->node, op=max)
            store @m = %1
          }
          traversal e_kernel(owner=edge, via=none) {
            %0: edge[2] f32 = load(buffer=@x, via=none, at=edge)
            %1: edge[2] f32 = load(buffer=@m, via=dst:edge->node, at=edge)
            %2: edge[2] f32 = pointwise(%0, %1, function=sub, scalars=[])
            %3: edge[2] f32 = pointwise(%2, function=exp, scalars=[])
            store @e = %3
          }
          traversal t_kernel(owner=node, via=dst:edge->node) {
            %0: edge[2] f32 = load(buffer=@e, via=none, at=edge)
            %1: node[2] f32 = reduce(%0, via=dst:edge->node, op=sum)
            store @t = %1
          }
          traversal out_kernel(owner=edge, via=none) {
            %0: edge[2] f32 = load(buffer=@e, via=none, at=edge)
            %1: edge[2] f32 = load(buffer=@t, via=dst:edge->node, at=edge)
            %2: edge[2] f32 = pointwise(%0, %1, function=div, scalars=[])
            store @out = %2
          }
        }
        """,
        """
        plan p(@x: edge[2] f32) -> (@out: edge[2] f32) {
          traversal out_kernel(owner=node, via=dst:edge->node) {
            %0: edge[2] f32 = load(buffer=@x, via=none, at=edge)
            %1: node[2] f32 = reduce(%0, via=dst:edge->node, op=max)
            %2: edge[2] f32 = lift(%1, via=dst:edge->node)
            %3: edge[2] f32 = pointwise(%0, %2, function=sub, scalars=[])
            %4: edge[2] f32 = pointwise(%3, function=exp, scalars=[])
            %5: node[2] f32 = reduce(%4, via=dst:edge->node, op=sum)
            %6: edge[2] f32 = lift(%5, via=dst:edge->node)
            %7: edge[2] f32 = pointwise(%4, %6, function=div, scalars=[])
            store @out = %7
          }
        }
        """,
    )


def test_rows_that_share_a_buffer_are_gone_over_once() -> None:
    """And equal values are computed once. Rows that share none are gone over apart."""
    check(
        "fuse_traversals",
        """
        plan p(@h: node[4] f32, @k: node[4] f32) -> (@a: node[4] f32, @b: node[4] f32, @c: node[4] f32) {
          traversal a_kernel(owner=node, via=none) {
            %0: node[4] f32 = load(buffer=@h, via=none, at=node)
            %1: node[4] f32 = pointwise(%0, function=exp, scalars=[])
            store @a = %1
          }
          traversal b_kernel(owner=node, via=none) {
            %0: node[4] f32 = load(buffer=@k, via=none, at=node)
            %1: node[4] f32 = pointwise(%0, function=exp, scalars=[])
            store @b = %1
          }
          traversal c_kernel(owner=node, via=none) {
            %0: node[4] f32 = load(buffer=@h, via=none, at=node)
            %1: node[4] f32 = pointwise(%0, function=exp, scalars=[])
            %2: node[4] f32 = pointwise(%1, function=square, scalars=[])
            store @c = %2
          }
        }
        """,
        """
        plan p(@h: node[4] f32, @k: node[4] f32) -> (@a: node[4] f32, @b: node[4] f32, @c: node[4] f32) {
          traversal c_kernel(owner=node, via=none) {
            %0: node[4] f32 = load(buffer=@h, via=none, at=node)
            %1: node[4] f32 = pointwise(%0, function=exp, scalars=[])
            %2: node[4] f32 = pointwise(%1, function=square, scalars=[])
            store @a = %1
            store @c = %2
          }
          traversal b_kernel(owner=node, via=none) {
            %0: node[4] f32 = load(buffer=@k, via=none, at=node)
            %1: node[4] f32 = pointwise(%0, function=exp, scalars=[])
            store @b = %1
          }
        }
        """,
    )


def test_a_sum_of_all_rows_takes_in_what_is_computed_of_them() -> None:
    check(
        "fuse_traversals",
        """
        plan p(@g: node[4] f32, @y: node[4] f32) -> (@out: node[4] f32, @bias: one[4] f32) {
          traversal out_kernel(owner=node, via=none) {
            %0: node[4] f32 = load(buffer=@g, via=none, at=node)
            %1: node[4] f32 = load(buffer=@y, via=none, at=node)
            %2: node[4] f32 = pointwise(%0, %1, function=mul, scalars=[])
            store @out = %2
          }
          traversal bias_kernel(owner=one, via=one:node->one, schedule={split=4096}) {
            %0: node[4] f32 = load(buffer=@g, via=none, at=node)
            %1: one[4] f32 = reduce(%0, via=one:node->one, op=sum)
            store @bias = %1
          }
        }
        """,
        """
        plan p(@g: node[4] f32, @y: node[4] f32) -> (@out: node[4] f32, @bias: one[4] f32) {
          traversal bias_kernel(owner=one, via=one:node->one, schedule={split=4096}) {
            %0: node[4] f32 = load(buffer=@g, via=none, at=node)
            %1: node[4] f32 = load(buffer=@y, via=none, at=node)
            %2: node[4] f32 = pointwise(%0, %1, function=mul, scalars=[])
            %3: one[4] f32 = reduce(%0, via=one:node->one, op=sum)
            store @out = %2
            store @bias = %3
          }
        }
        """,
    )


DOTS = """
plan p(@q: node[32] f32, @k: node[32] f32) -> (@a: node[] f32, @b: node[32] f32) {
  temporary @d: edge[] f32
  traversal d_kernel(owner=edge, via=none) {
    %0: edge[32] f32 = load(buffer=@q, via=dst:edge->node, at=edge)
    %1: edge[32] f32 = load(buffer=@k, via=src:edge->node, at=edge)
    %2: edge[32] f32 = pointwise(%0, %1, function=mul, scalars=[])
    %3: edge[] f32 = feature_reduce(%2, op=sum, axes=[0])
    store @d = %3
  }
  traversal a_kernel(owner=node, via=src:edge->node) {
    %0: edge[] f32 = load(buffer=@d, via=none, at=edge)
    %1: node[] f32 = reduce(%0, via=src:edge->node, op=sum)
    store @a = %1
  }
  traversal b_kernel(owner=node, via=dst:edge->node) {
    %0: edge[] f32 = load(buffer=@d, via=none, at=edge)
    %1: edge[32] f32 = load(buffer=@k, via=src:edge->node, at=edge)
    %2: edge[1] f32 = reshape(%0, to=[1])
    %3: edge[32] f32 = pointwise(%2, %1, function=mul, scalars=[])
    %4: node[32] f32 = reduce(%3, via=dst:edge->node, op=sum)
    store @b = %4
  }
}
"""


def test_values_of_members_are_computed_where_their_rows_are_at_hand() -> None:
    """Destinations own one of the two rows of a dot product, and gather the other anyway: sources, which come first, do neither."""
    check(
        "fuse_traversals",
        DOTS,
        """
        plan p(@q: node[32] f32, @k: node[32] f32) -> (@a: node[] f32, @b: node[32] f32) {
          temporary @d: edge[] f32
          traversal b_kernel(owner=node, via=dst:edge->node) {
            %0: node[32] f32 = load(buffer=@q, via=none, at=node)
            %1: edge[32] f32 = lift(%0, via=dst:edge->node)
            %2: edge[32] f32 = load(buffer=@k, via=src:edge->node, at=edge)
            %3: edge[32] f32 = pointwise(%1, %2, function=mul, scalars=[])
            %4: edge[] f32 = feature_reduce(%3, op=sum, axes=[0])
            %5: edge[1] f32 = reshape(%4, to=[1])
            %6: edge[32] f32 = pointwise(%5, %2, function=mul, scalars=[])
            %7: node[32] f32 = reduce(%6, via=dst:edge->node, op=sum)
            store @d = %4
            store @b = %7
          }
          traversal a_kernel(owner=node, via=src:edge->node) {
            %0: edge[] f32 = load(buffer=@d, via=none, at=edge)
            %1: node[] f32 = reduce(%0, via=src:edge->node, op=sum)
            store @a = %1
          }
        }
        """,
    )


def test_on_a_bipartite_graph() -> None:
    after = fires(
        "fuse_traversals",
        SUMS.replace("@h: node", "@h: src")
        .replace(":edge->node", ":edge->dst")
        .replace("src:edge->dst", "src:edge->src")
        .replace(" node[", " dst[")
        .replace("owner=node", "owner=dst")
        .replace("at=node", "at=dst"),
    )
    assert isinstance(after, Plan)
    assert [k.name for k in after.kernels] == ["out_kernel"]


def test_what_nobody_reads_is_not_stored() -> None:
    text = """
    plan p(@h: node[4] f32) -> (@out: node[4] f32) {
      temporary @u: node[4] f32
      traversal k(owner=node, via=none) {
        %0: node[4] f32 = load(buffer=@h, via=none, at=node)
        %1: node[4] f32 = pointwise(%0, function=relu, scalars=[])
        store @u = %0
        store @out = %1
      }
    }
    """
    without = text.replace("      temporary @u: node[4] f32\n", "").replace("        store @u = %0\n", "")
    check("fuse_traversals", text, without)


APART = {
    "another row is read": SUMS.replace(
        """  traversal out_kernel(owner=node, via=none) {
    %0: node[4] f32 = load(buffer=@s, via=none, at=node)
    %1: node[4] f32 = pointwise(%0, function=relu, scalars=[])
    store @out = %1
""",
        """  traversal out_kernel(owner=node, via=dst:edge->node) {
    %0: edge[4] f32 = load(buffer=@s, via=src:edge->node, at=edge)
    %1: node[4] f32 = reduce(%0, via=dst:edge->node, op=sum)
    store @out = %1
""",
    ),
    "other members": DOTS.replace(
        "edge[] f32 = load(buffer=@d, via=none, at=edge)", "edge[] f32 = load(buffer=@x, via=none, at=edge)"
    )
    .replace("@k: node[32] f32)", "@k: node[32] f32, @x: edge[] f32)")
    .replace("-> (@a", "-> (@d: edge[] f32, @a")
    .replace("  temporary @d: edge[] f32\n", ""),
    "another kernel stands between": """
    plan p(@h: node[4] f32, @w: one[4,4] f32) -> (@out: node[4] f32) {
      temporary @s: node[4] f32
      temporary @y: node[4] f32
      traversal s_kernel(owner=node, via=none) {
        %0: node[4] f32 = load(buffer=@h, via=none, at=node)
        %1: node[4] f32 = pointwise(%0, function=exp, scalars=[])
        store @s = %1
      }
      gemm y_kernel() {
        %0: node[4] f32 = load(buffer=@s, via=none, at=node)
        %1: node[4] f32 = product(%0, w=@w, via=one:node->one, transpose=false)
        store @y = %1
      }
      traversal out_kernel(owner=node, via=none) {
        %0: node[4] f32 = load(buffer=@s, via=none, at=node)
        %1: node[4] f32 = load(buffer=@y, via=none, at=node)
        %2: node[4] f32 = pointwise(%0, %1, function=mul, scalars=[])
        store @out = %2
      }
    }
    """,
    "members need the result of an owner that is cut": """
    plan p(@h: node[4] f32) -> (@out: node[4] f32) {
      temporary @m: ntype[4] f32
      traversal m_kernel(owner=ntype, via=ntype:node->ntype, schedule={split=4096}) {
        %0: node[4] f32 = load(buffer=@h, via=none, at=node)
        %1: ntype[4] f32 = reduce(%0, via=ntype:node->ntype, op=sum)
        store @m = %1
      }
      traversal out_kernel(owner=node, via=none) {
        %0: node[4] f32 = load(buffer=@h, via=none, at=node)
        %1: node[4] f32 = load(buffer=@m, via=ntype:node->ntype, at=node)
        %2: node[4] f32 = pointwise(%0, %1, function=sub, scalars=[])
        store @out = %2
      }
    }
    """,
    "members are walked as they are stored": SUMS.replace("edge->node) {", "edge->node, schedule={scatter=1}) {"),
    "schedules differ": """
    plan p(@h: node[4] f32, @k: node[4] f32) -> (@a: node[4] f32, @b: node[4] f32) {
      traversal a_kernel(owner=node, via=dst:edge->node, schedule={ahead=2}) {
        %0: edge[4] f32 = load(buffer=@h, via=src:edge->node, at=edge)
        %1: node[4] f32 = reduce(%0, via=dst:edge->node, op=sum)
        store @a = %1
      }
      traversal b_kernel(owner=node, via=dst:edge->node) {
        %0: edge[4] f32 = load(buffer=@h, via=src:edge->node, at=edge)
        %1: node[4] f32 = reduce(%0, via=dst:edge->node, op=max)
        store @b = %1
      }
    }
    """,
}


@pytest.mark.parametrize("why", APART)
def test_must_not_fire(why: str) -> None:
    unchanged("fuse_traversals", APART[why])


def test_sums_of_the_same_members_are_one_traversal() -> None:
    """Those that were apart because of their schedules alone."""
    after = fires("fuse_traversals", APART["schedules differ"].replace(", schedule={ahead=2}", ""))
    assert isinstance(after, Plan)
    (kernel,) = after.kernels
    assert isinstance(kernel, Traversal)
    assert [s.buffer.name for s in kernel.stores] == ["a", "b"]
