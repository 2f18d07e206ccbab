"""The pass ``group_kernels``: kernels run part by part, compute the same, and need memory for a part of local buffers only."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from compiled import leaf, randomized
from eager_graphs import NODE_TYPES, RELATIONS, square_graphs
from pass_checks import check, fires, unchanged
from torch import Tensor, nn

import columba
from columba.driver import Compilation
from columba.ir.counts import Counts
from columba.ir.plan.groups import rooms
from columba.ir.plan.kernels import Gemm, GemmReduce, GemmSchedule, Traversal
from columba.ir.plan.parsing import parse_plan
from columba.ir.plan.plan import Plan
from columba.ir.plan.verify import verify
from columba.ir.program.verify import VerificationError
from columba.ir.spaces import Space
from columba.ir.types import DType
from columba.passes.pipeline import Pipeline, parse_passes
from columba.passes.recipes import Recipe
from columba.runtime.cpp import launch
from columba.runtime.cpp.launch import CppExecutable
from columba.runtime.cpp.placement import Placement
from columba.runtime.executable import HostRunner, kernel_times
from columba.runtime.graphs.graph import Graph
from columba.selection.variants import parse_choices, recipe_of

pytestmark = pytest.mark.unoptimized

HEAD = "plan p(@g: node[64] f32, @w: rel[64,64] f32) -> "

SUM = """\
  traversal t_kernel(owner=src_rel, via=src_rel:edge->src_rel) {
    %0: edge[64] f32 = load(buffer=@g, via=dst:edge->node, at=edge)
    %1: src_rel[64] f32 = reduce(%0, via=src_rel:edge->src_rel, op=sum)
    store @t = %1
  }
"""
PRODUCT = """\
  gemm y_kernel() {
    %0: src_rel[64] f32 = load(buffer=@t, via=none, at=src_rel)
    %1: src_rel[64] f32 = product(%0, w=@w, via=rel:src_rel->rel, transpose=true)
    store @y = %1
  }
"""
OUTER = """\
  gemm_reduce d_kernel(via=rel:src_rel->rel, shared=true) {
    %0: src_rel[64] f32 = load(buffer=@g, via=src:src_rel->node, at=src_rel)
    %1: src_rel[64] f32 = load(buffer=@t, via=none, at=src_rel)
    left %0
    right %1
    store @d
  }
"""


def nodes(schedule: str = "") -> str:
    return f"""\
  traversal out_kernel(owner=node, via=src:src_rel->node{schedule}) {{
    %0: src_rel[64] f32 = load(buffer=@y, via=none, at=src_rel)
    %1: node[64] f32 = reduce(%0, via=src:src_rel->node, op=sum)
    %2: node[64] f32 = load(buffer=@g, via=none, at=node)
    %3: node[64] f32 = pointwise(%1, %2, function=add, scalars=[])
    store @out = %3
  }}
"""


BEFORE = (
    HEAD
    + "(@out: node[64] f32, @d: rel[64,64] f32) {\n"
    + "  temporary @t: src_rel[64] f32\n  temporary @y: src_rel[64] f32\n"
    + (SUM + PRODUCT + nodes() + OUTER)
    + "}"
)
EXPECTED = (
    HEAD
    + "(@out: node[64] f32, @d: rel[64,64] f32) {\n"
    + "  group(space=src_rel) {\n    local @t: src_rel[64] f32\n    local @y: src_rel[64] f32\n"
    + textwrap.indent(SUM + PRODUCT + nodes(", schedule={scatter=1}") + OUTER, "  ")
    + "  }\n}"
)


def run(passes: str, plan: Plan) -> Plan:
    return Pipeline(parse_passes(passes), verify=True).run(plan)


def grouped(passes: str, text: str) -> Plan:
    after = fires(passes, text)
    assert isinstance(after, Plan)
    return after


def test_what_passes_between_kernels_becomes_local() -> None:
    check("group_kernels", BEFORE, EXPECTED)
    plan = parse_plan(EXPECTED)
    assert run("order_kernels", plan).groups == plan.groups


def test_sums_at_nodes_can_stay_outside() -> None:
    after = grouped("group_kernels{scatter=False,rows=128,parts=2}", BEFORE)
    (group,) = after.groups
    assert group.kernels == ("t_kernel", "y_kernel", "d_kernel")
    assert [b.name for b in group.local] == ["t"]
    assert (group.schedule.rows, group.schedule.parts) == (128, 2)
    assert [k.name for k in after.kernels] == ["t_kernel", "y_kernel", "d_kernel", "out_kernel"]


def test_a_traversal_of_weights_that_stands_between_is_cut() -> None:
    weights = """\
  traversal v_kernel(owner=rel, via=none) {
    %0: rel[64,64] f32 = load(buffer=@w, via=none, at=rel)
    %1: rel[64,64] f32 = pointwise(%0, function=neg, scalars=[])
    %2: rel[64,64] f32 = load(buffer=@e, via=none, at=rel)
    %3: rel[64,64] f32 = pointwise(%2, %1, function=mul, scalars=[])
    store @v = %1
    store @d = %3
  }
"""
    before = (
        BEFORE.replace(PRODUCT + nodes() + OUTER, OUTER.replace("@d", "@e") + weights + PRODUCT + nodes())
        .replace("w=@w", "w=@v")
        .replace("d_kernel", "e_kernel")
        .replace("  temporary @y", "  temporary @e: rel[64,64] f32\n  temporary @v: rel[64,64] f32\n  temporary @y")
        .replace("v_kernel", "d_kernel")
    )
    after = grouped("group_kernels", before)
    assert after.groups[0].kernels == ("t_kernel", "e_kernel", "y_kernel", "out_kernel")
    assert [k.name for k in after.kernels] == ["v_kernel", *after.groups[0].kernels, "d_kernel"]


UNTOUCHED = {
    "another row is read": BEFORE.replace(
        "load(buffer=@t, via=none, at=src_rel)", "load(buffer=@x, via=src:src_rel->node, at=src_rel)"
    )
    .replace("(owner=src_rel, via=src_rel:edge->src_rel)", "(owner=node, via=src:edge->node)")
    .replace(
        "%1: src_rel[64] f32 = reduce(%0, via=src_rel:edge->src_rel, op=sum)",
        "%1: node[64] f32 = reduce(%0, via=src:edge->node, op=sum)",
    )
    .replace("@t: src_rel", "@x: node")
    .replace("store @t", "store @x")
    .replace(nodes(), "")
    .replace("(@out: node[64] f32, @d", "(@y: src_rel[64] f32, @d")
    .replace("  temporary @y: src_rel[64] f32\n", ""),
    "results": BEFORE.replace("(@out", "(@t: src_rel[64] f32, @y: src_rel[64] f32, @out").replace(
        "  temporary @t: src_rel[64] f32\n  temporary @y: src_rel[64] f32\n", ""
    ),
    "narrow rows": BEFORE.replace("64", "8"),
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_must_not_fire(name: str) -> None:
    unchanged("group_kernels", UNTOUCHED[name])


def test_a_sum_that_is_no_sum_stays_outside() -> None:
    for one, other in (("op=sum)\n    %2", "op=max)\n    %2"), ("@out = %3", "@out = %3\n    store @again = %3")):
        text = BEFORE.replace(one, other)
        if "@again" in text:
            text = text.replace("(@out", "(@again: node[64] f32, @out")
        after = grouped("group_kernels", text)
        assert after.groups[0].kernels == ("t_kernel", "y_kernel", "d_kernel")
        last = after.kernels[-1]
        assert isinstance(last, Traversal)
        assert last.schedule.scatter == 0


def test_other_passes_on_kernels_give_groups_up() -> None:
    """What they do not change keeps its groups."""
    plan = parse_plan(EXPECTED)
    assert run("fuse_traversals,fuse_epilogues", plan) is plan
    scaled = """\
  traversal z_kernel(owner=node, via=none) {
    %0: node[64] f32 = load(buffer=@out, via=none, at=node)
    %1: node[64] f32 = pointwise(%0, function=relu, scalars=[])
    store @z = %1
  }
  traversal u_kernel(owner=node, via=none) {
    %0: node[64] f32 = load(buffer=@z, via=none, at=node)
    %1: node[64] f32 = pointwise(%0, function=exp, scalars=[])
    store @u = %1
  }
"""
    text = EXPECTED.replace("(@out", "(@z: node[64] f32, @u: node[64] f32, @out").removesuffix("}") + scaled + "}"
    after = fires("fuse_traversals", text)
    assert isinstance(after, Plan)
    assert after.groups == ()


WRONG = {
    "needed beyond its part": EXPECTED.replace("(@out", "(@y: src_rel[64] f32, @out", 1),
    "do not nest": EXPECTED.replace("y_kernel()", "y_kernel(schedule={tile_rows=384})"),
    "does not go over the rows": EXPECTED.replace(", schedule={scatter=1}", ""),
}


@pytest.mark.parametrize("message", WRONG)
def test_the_verifier_says_what_is_wrong(message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        verify(parse_plan(WRONG[message]))


def test_kernels_of_a_group_stand_together() -> None:
    plan = parse_plan(EXPECTED)
    apart = replace(plan.groups[0], kernels=("t_kernel", "out_kernel"), local=())
    with pytest.raises(VerificationError, match="do not stand together"):
        verify(replace(plan, groups=(apart,)))


def test_scattered_sums_are_checked() -> None:
    text = BEFORE.replace(nodes(), nodes(", schedule={scatter=1}")).replace("op=sum)\n    %2", "op=max)\n    %2")
    with pytest.raises(VerificationError, match="only sums"):
        verify(parse_plan(text))


# ------------------------------------------------------------------------------------------------ memory


def test_local_buffers_take_memory_for_some_rows_only() -> None:
    plan = run("group_kernels{parts=2}", parse_plan(BEFORE))
    rows = 100_000
    given = {Space.NODE: 1000, Space.REL: 5, Space.EDGE: 300_000}
    counts = Counts([given.get(space, rows) for space in Space])
    found = {b.name: room for b, room in rooms(plan.groups[0], plan.kernels, 4).items()}
    assert (found["t"].of(rows), found["y"].of(rows)) == (4 * 512, 4 * 2 * 512)
    assert found["t"].of(100) == 100
    size = Placement(plan).layout(counts, (), 4).size
    assert size == 3 * 4 * 512 * 64 * 4
    whole = Placement(parse_plan(BEFORE)).layout(counts, (), 4).size
    assert whole == 2 * rows * 64 * 4


def test_what_is_used_beyond_a_group_lives_as_long_as_it_runs() -> None:
    plan = run("group_kernels{scatter=False}", parse_plan(BEFORE))
    where = Placement(plan)
    assert {b.name: where.lives[b] for b in where.temporaries} == {"t": (0, 2), "y": (0, 3)}


# ------------------------------------------------------------------------------------------------ meaning

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "rgcn": lambda: columba.nn.RGCNConv(32, 32, RELATIONS),
    "rgat": lambda: columba.nn.RGATConv(32, 16, RELATIONS, heads=2),
    "hgt": lambda: columba.nn.HGTConv(32, 32, NODE_TYPES, RELATIONS, heads=2),
}


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def recipe(choices: str, grouping: str) -> Recipe:
    found = recipe_of(parse_choices(choices), verify=True)
    return replace(found, level2=parse_passes(str(found.level2).replace("group_kernels", grouping)))


def compilation(layer: nn.Module, graph: Graph, recipe: Recipe, dtype: torch.dtype) -> Compilation:
    x = leaf(graph.num_nodes, 32, dtype=dtype)
    return columba.explain(columba.compile(layer, backend="cpp", recipe=recipe), x, graph).compilation


def with_small_tiles(plan: Plan, rows: int) -> Plan:
    kernels = [
        replace(k, schedule=GemmSchedule(rows)) if isinstance(k, (Gemm, GemmReduce)) else k for k in plan.kernels
    ]
    return verify(replace(plan, kernels=tuple(kernels)))


@functools.cache
def executable(text: str, index_dtype: DType) -> CppExecutable:
    return CppExecutable([parse_plan(text)], index_dtype)


def results(plan: Plan, graph: Graph, index_dtype: DType, inputs: list[Tensor]) -> list[Tensor]:
    counts = [graph.counts().get(space, 0) for space in Space]
    dtype = torch.int32 if index_dtype is DType.I32 else torch.int64
    index = [graph.index(a).to(dtype) for a in plan.index_arrays]
    return executable(str(plan), index_dtype).run(plan.name, inputs, index, counts, host=host(counts))


def host(counts: list[int]) -> HostRunner:
    from columba.runtime.host import run_host_program

    return lambda program, inputs: run_host_program(program, inputs, counts)


PAIRS_FIRST, SUMS_FIRST = "-aggregate_first,compact_materialization", "aggregate_first,compact_materialization"


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("rgcn", PAIRS_FIRST),
        pytest.param("rgcn", SUMS_FIRST, marks=pytest.mark.slow),
        pytest.param("rgat", PAIRS_FIRST, marks=pytest.mark.slow),
        pytest.param("rgat", SUMS_FIRST, marks=pytest.mark.slow),
        pytest.param("hgt", PAIRS_FIRST, marks=pytest.mark.slow),
        pytest.param("hgt", SUMS_FIRST, marks=pytest.mark.slow),
    ],
)
def test_groups_change_nothing(
    name: str, choices: str, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of a few rows and chunks of few parts, on one thread and on three, on random and degenerate graphs: the same bits."""
    monkeypatch.setattr(launch, "SMALL", 0)
    dtype = torch.float32
    layer, graphs = randomized(LAYERS[name](), dtype), square_graphs()
    separate = compilation(layer, graphs["random"], recipe(choices, "order_kernels"), dtype)
    grouped = compilation(layer, graphs["random"], recipe(choices, "group_kernels{rows=3,parts=2}"), dtype)
    assert any(plan.groups for plan in grouped.plans)
    for one, other in zip(separate.plans, grouped.plans, strict=True):
        if not other.groups:
            continue
        one, other = with_small_tiles(one, 4), with_small_tiles(other, 4)
        for graph in graphs.values():
            if graph.num_relations != graphs["random"].num_relations:
                continue
            shapes = [
                (b.type.shape if b.type.space is Space.ONE else (graph.count(b.type.space), *b.type.shape))
                for b in one.inputs
            ]
            inputs = [torch.randn(s, generator=torch.Generator().manual_seed(n)) for n, s in enumerate(shapes)]
            threads(1)
            wanted = results(one, graph, DType.I32, inputs)
            for count, index in ((1, DType.I32), (3, DType.I64)):
                threads(count)
                found = results(other, graph, index, inputs)
                again = results(other, graph, index, inputs)
                for w, f, a in zip(wanted, found, again, strict=True):
                    torch.testing.assert_close(f, w, atol=1e-5, rtol=1e-5)
                    assert torch.equal(f, a)


def test_storage_of_half_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partial sums of outer products are rounded once, at the end, however rows are cut into parts."""
    monkeypatch.setattr(launch, "SMALL", 0)
    layer, graph = randomized(LAYERS["rgcn"](), torch.bfloat16), square_graphs()["random"]
    choices = "-aggregate_first,compact_materialization"
    grouped = compilation(layer, graph, recipe(choices, "group_kernels{rows=3,least=1}"), torch.bfloat16).backward_plan
    assert grouped is not None
    assert grouped.groups
    grouped = with_small_tiles(grouped, 4)
    kinds = {DType.BF16: torch.bfloat16, DType.F32: torch.float32}
    inputs = [
        torch.randn(
            b.type.shape if b.type.space is Space.ONE else (graph.count(b.type.space), *b.type.shape),
            generator=torch.Generator().manual_seed(n),
        ).to(kinds[b.type.dtype])
        for n, b in enumerate(grouped.inputs)
    ]
    wanted = results(replace(grouped, groups=()), graph, DType.I32, inputs)
    for w, f in zip(wanted, results(grouped, graph, DType.I32, inputs), strict=True):
        assert torch.equal(w, f)


def test_every_kernel_is_timed() -> None:
    layer, graph = randomized(LAYERS["rgcn"](), torch.float32), square_graphs()["random"]
    chosen = recipe("-aggregate_first,compact_materialization", "group_kernels{rows=4}")
    compiled = columba.compile(layer, backend="cpp", recipe=chosen)
    x = leaf(graph.num_nodes, 32, dtype=torch.float32)
    plan = compilation(layer, graph, chosen, torch.float32).backward_plan
    assert plan is not None
    with kernel_times() as times:
        compiled(x, graph).sum().backward()
    assert set(times[plan.name]) == {k.name for k in plan.kernels}
    assert all(seconds > 0 for runs in times[plan.name].values() for seconds in runs)
