"""Temporaries in the memory of outputs: where that is legal, where it must not be, and that nobody can tell."""

from __future__ import annotations

import pytest
import torch
from compiled import PAIRS, leaf, randomized
from eager_graphs import RELATIONS, square_graphs

import columba
from columba.codegen.cpp import emit
from columba.ir.plan.in_place import in_place
from columba.ir.plan.parsing import parse_plan
from columba.ir.plan.plan import Plan
from columba.ir.plan.verify import verify
from columba.ir.types import DType
from columba.nn import RGCNConv

pytestmark = pytest.mark.unoptimized


def plan(reader: str, out: str = "node[4] f32", t: str = "node[4] f32", more: str = "", outputs: str = "") -> Plan:
    """A kernel that makes ``@t`` of the input, and ``reader``, which makes ``@out`` of it."""
    twice = f"%0: {t} = load(buffer=@{'x' if t == 'node[4] f32' else 'y'}, via=none, at=node)"
    return verify(
        parse_plan(
            f"""
            plan p(@x: node[4] f32, @y: {t}, @w: rel[4,4] f32, @m: src_rel[4] f32) -> (@out: {out}{outputs}) {{
              temporary @t: {t}
              traversal t_kernel(owner=node, via=none) {{
                {twice}
                %1: {t} = pointwise(%0, %0, function=add, scalars=[])
                store @t = %1
              }}
              {reader}
              {more}
            }}
            """
        )
    )


def named(plan: Plan) -> dict[str, str]:
    return {b.name: out.name for b, out in in_place(plan).items()}


SUM = """
traversal out_kernel(owner=node, via=dst:edge->node) {
  %0: edge[4] f32 = load(buffer=@x, via=src:edge->node, at=edge)
  %1: node[4] f32 = reduce(%0, via=dst:edge->node, op=sum)
  %2: node[4] f32 = load(buffer=@t, via=none, at=node)
  %3: node[4] f32 = pointwise(%1, %2, function=mul, scalars=[])
  store @out = %3
}
"""

OTHER_ROWS = """
traversal out_kernel(owner=node, via=dst:edge->node) {
  %0: edge[4] f32 = load(buffer=@t, via=src:edge->node, at=edge)
  %1: node[4] f32 = reduce(%0, via=dst:edge->node, op=sum)
  %2: node[4] f32 = load(buffer=@t, via=none, at=node)
  %3: node[4] f32 = pointwise(%1, %2, function=add, scalars=[])
  store @out = %3
}
"""

MEMBERS_READ_IT = """
traversal out_kernel(owner=node, via=dst:edge->node) {
  %0: node[4] f32 = load(buffer=@t, via=none, at=node)
  %1: edge[4] f32 = lift(%0, via=dst:edge->node)
  %2: edge[4] f32 = load(buffer=@x, via=src:edge->node, at=edge)
  %3: edge[4] f32 = pointwise(%1, %2, function=mul, scalars=[])
  %4: node[4] f32 = reduce(%3, via=dst:edge->node, op=sum)
  %5: node[4] f32 = pointwise(%4, %0, function=add, scalars=[])
  store @out = %5
}
"""

REDUCED = """
traversal out_kernel(owner=node, via=none) {
  %0: node[4] f32 = load(buffer=@t, via=none, at=node)
  %1: node[] f32 = feature_reduce(%0, op=sum, axes=[0])
  %2: node[1] f32 = reshape(%1, to=[1])
  %3: node[4] f32 = pointwise(%0, %2, function=mul, scalars=[])
  store @out = %3
}
"""

TWO_STORES = """
traversal out_kernel(owner=node, via=none) {
  %0: node[4] f32 = load(buffer=@t, via=none, at=node)
  %1: node[4] f32 = pointwise(%0, %0, function=mul, scalars=[])
  %2: node[] f32 = feature_reduce(%0, op=sum, axes=[0])
  store @out = %1
  store @second = %2
}
"""

CUT = """
traversal out_kernel(owner=node, via=dst:edge->node, schedule={split=16}) {
  %0: edge[4] f32 = load(buffer=@x, via=src:edge->node, at=edge)
  %1: node[4] f32 = load(buffer=@t, via=none, at=node)
  %2: edge[4] f32 = lift(%1, via=dst:edge->node)
  %3: edge[4] f32 = pointwise(%0, %2, function=mul, scalars=[])
  %4: node[4] f32 = reduce(%3, via=dst:edge->node, op=sum)
  store @out = %4
}
"""

PRODUCT = """
gemm out_kernel() {
  %0: node[4] f32 = load(buffer=@t, via=none, at=node)
  %1: node[4] f32 = product(%0, w=@w4, via=one:node->one, transpose=false)
  %2: node[4] f32 = pointwise(%1, %0, function=add, scalars=[])
  store @out = %2
}
"""

ADDED_TO_PRODUCT = PRODUCT.replace("load(buffer=@t", "load(buffer=@x").replace(
    "%2: node[4] f32 = pointwise(%1, %0",
    "%3: node[4] f32 = load(buffer=@t, via=none, at=node)\n  %2: node[4] f32 = pointwise(%1, %3",
)

REVERSED = """
traversal out_kernel(owner=node, via=none) {
  %0: node[2,2] f32 = load(buffer=@t, via=none, at=node)
  %1: node[2,2] f32 = permute(%0, order=[1, 0])
  store @out = %1
}
"""

AGAIN = """
traversal second_kernel(owner=node, via=none) {
  %0: node[4] f32 = load(buffer=@t, via=none, at=node)
  %1: node[] f32 = feature_reduce(%0, op=sum, axes=[0])
  store @second = %1
}
"""


def scattered(function: str, beside: str = "") -> str:
    return f"""
    group(space=src_rel) {{
      local @l: src_rel[4] f32
      traversal l_kernel(owner=src_rel, via=none) {{
        %0: src_rel[4] f32 = load(buffer=@m, via=none, at=src_rel)
        %1: src_rel[4] f32 = pointwise(%0, %0, function=add, scalars=[])
        {beside}
        store @l = %1
      }}
      traversal out_kernel(owner=node, via=src:src_rel->node, schedule={{scatter=1}}) {{
        %0: src_rel[4] f32 = load(buffer=@l, via=none, at=src_rel)
        %1: node[4] f32 = reduce(%0, via=src:src_rel->node, op=sum)
        %2: node[4] f32 = load(buffer=@t, via=none, at=node)
        %3: node[4] f32 = pointwise(%2, %1, function={function}, scalars=[])
        store @out = %3
      }}
    }}
    """


def with_weight(text: str) -> str:
    return text.replace("@w4", "@w")


def test_the_element_in_the_same_place() -> None:
    assert named(plan(SUM)) == {"t": "out"}
    assert named(plan(scattered("add"))) == {"t": "out"}


@pytest.mark.parametrize(
    ("text", "more"),
    [
        (OTHER_ROWS, {}),
        (MEMBERS_READ_IT, {}),
        (REDUCED, {}),
        (TWO_STORES, {"outputs": ", @second: node[] f32"}),
        (CUT, {}),
        (SUM, {"more": AGAIN, "outputs": ", @second: node[] f32"}),
        (REVERSED, {"t": "node[2,2] f32", "out": "node[2,2] f32"}),
        (SUM.replace("node[4] f32 = load(buffer=@t", "node[1] f32 = load(buffer=@t"), {"t": "node[1] f32"}),
        (scattered("mul"), {}),
        (
            scattered(
                "add",
                "%2: src_rel[4] f32 = load(buffer=@t, via=src:src_rel->node, at=src_rel)\n"
                "%1: src_rel[4] f32 = pointwise(%0, %2, function=add, scalars=[])",
            ).replace("%1: src_rel[4] f32 = pointwise(%0, %0, function=add, scalars=[])", ""),
            {},
        ),
    ],
    ids=[
        "other rows",
        "members",
        "other elements",
        "another store",
        "cut owners",
        "a later reader",
        "permuted",
        "another size",
        "members are multiplied",
        "another kernel of the group",
    ],
)
def test_nothing_else(text: str, more: dict[str, str]) -> None:
    assert named(plan(text, **more)) == {}


def product_plan(text: str) -> Plan:
    before = plan(SUM)
    source = str(before).replace("@w: rel[4,4] f32", "@w: one[4,4] f32")
    head, _ = source.split("traversal out_kernel", 1)
    return verify(parse_plan(f"{head}{with_weight(text)}}}"))


def test_a_product_reads_rows_before_others_are_written() -> None:
    assert named(product_plan(PRODUCT)) == {}
    assert named(product_plan(ADDED_TO_PRODUCT)) == {"t": "out"}


def test_pointers_to_the_same_memory_are_not_declared_to_be_alone() -> None:
    source = emit([plan(SUM)], DType.I32)
    writer, reader = source.split("static int p_out_kernel")
    assert "float* __restrict b_t" in writer
    assert "float* b_t" in reader
    assert "float* b_out" in reader
    assert "float* __restrict b_x" in reader
    started = emit([plan(scattered("add"))], DType.I32)
    assert "memset(b_out" not in started
    assert "memset(b_out" in emit([plan(scattered("mul"))], DType.I32)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("graph", ["random", "no_edges", "hub", "one_node"])
@pytest.mark.parametrize("passes", [PAIRS, f"{PAIRS},-group_kernels"])
def test_nobody_can_tell(graph: str, passes: str, threads: int) -> None:
    g = square_graphs()[graph]
    eager = randomized(RGCNConv(8, 8, RELATIONS), torch.float64)
    x = leaf(g.num_nodes, 8)
    compiled = columba.compile(eager, backend="cpp", passes=passes)
    plans = columba.explain(compiled, x, g).compilation.plans
    assert [named(p) for p in plans] == [{"linear_9": "out"}, {"linear_8": "grad_x"}]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for _ in range(2):
            out, wanted = compiled(x, g), eager(x, g)
            torch.testing.assert_close(out, wanted)
            weights = torch.randn_like(out)
            leaves = [x, *eager.parameters()]
            ours, theirs = (torch.autograd.grad(y, leaves, weights) for y in (out, wanted))
            torch.testing.assert_close(list(ours), list(theirs))
    finally:
        torch.set_num_threads(before)
