"""How long programs are and how many there are, on graphs of published sizes whose degrees follow power laws: computed, not run."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

import columba
from columba.codegen.triton import Launch, MemberSchedule, ProductSchedule, default_schedule, emit
from columba.codegen.triton.launches import Loop, grid_size
from columba.codegen.triton.schedule import MOST_STEPS
from columba.datasets import PUBLISHED, statistics
from columba.driver import Compilation
from columba.ir.counts import Counts
from columba.ir.indices import WANTED_TILES, Hubs, Tiles
from columba.ir.plan.kernels import Gemm, Traversal
from columba.ir.spaces import Space, index_map
from columba.nn.samples import sample
from columba.runtime.graphs.index_arrays import hub_table

LAYERS = (("rgcn", 1), ("rgat", 1), ("rgat", 4), ("hgt", 1), ("hgt", 4))
PASSES = ("-aggregate_first,compact_materialization", "aggregate_first,-compact_materialization")
PROCESSORS = 132
BY_DST = index_map("dst", Space.EDGE)


@functools.cache
def compilation_of(layer: str, heads: int, passes: str) -> Compilation:
    model, x, graph = sample(layer, heads=heads)
    compiled = columba.compile(model, backend="triton", passes=passes)
    return columba.explain(compiled, x.requires_grad_(), graph).compilation


@functools.cache
def launches() -> tuple[Launch, ...]:
    """All launches of a training step of all layers."""
    plans = [
        plan for layer, heads in LAYERS for passes in PASSES for plan in compilation_of(layer, heads, passes).plans
    ]
    modules = [emit([plan]) for plan in plans]
    return tuple(x for m in modules for steps in m.steps.values() for step in steps for x in step.launches)


def degrees(nodes: int, edges: int, largest: int) -> Tensor:
    """A power law of that many edges, the largest degree as given: the exponent is found by bisection."""
    rank = torch.arange(1, nodes + 1, dtype=torch.float64)
    low, high = 0.0, 8.0
    for _ in range(25):
        exponent = (low + high) / 2
        low, high = (exponent, high) if (largest * rank**-exponent).sum() > edges else (low, exponent)
    found = (largest * rank**-high).floor().long()
    left = edges - int(found.sum())
    found[1:] += left // (nodes - 1)
    found[1 : 1 + left % (nodes - 1)] += 1
    assert int(found.sum()) == edges
    assert int(found.max()) == largest == int(found[0])
    return found[torch.randperm(nodes, generator=torch.Generator().manual_seed(0))]


def published(name: str) -> tuple[Counts, Tensor]:
    counts = statistics(name).counts()
    assert counts.largest_degree is not None
    return counts, degrees(counts[Space.NODE], counts[Space.EDGE], counts.largest_degree)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in ("aifb", "mutag") else n for n in PUBLISHED]
)
def test_no_program_is_long(name: str) -> None:
    """No more than 64 steps one after the other: members of an owner, of a tile, tiles of a hub or of the whole graph."""
    counts = statistics(name).counts()
    found = [(launch.steps(counts, counts.largest, PROCESSORS), launch.function) for launch in launches()]
    assert max(found)[0] <= MOST_STEPS, [f for f in found if f[0] > MOST_STEPS]
    assert max(found)[0] > 8


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in ("am", "mag", "wikikg2") else n for n in PUBLISHED]
)
def test_tables_of_hubs_have_the_lengths_that_are_computed(name: str) -> None:
    counts, degree = published(name)
    segments = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
    fine, coarse = counts[Space.EDGE], counts[Space.NODE]
    for hubs in {launch.variants[0].grid[0].of for launch in launches()}:
        if not isinstance(hubs, Hubs) or hubs.map != BY_DST:
            continue
        most = hubs.most(fine, coarse)
        table = hub_table(segments, most, hubs.tile_rows(fine, coarse, int(degree.max())))
        owner, begin, end, first, after = table.view(5, -1)
        assert torch.equal(owner.unique(), (degree > most).nonzero().flatten())
        assert int((end - begin).sum()) == int(degree[degree > most].sum())
        assert int((end - begin).max()) == Loop("tile", hubs, "MEMBERS").length(counts, counts.largest)
        assert int((after - first).max()) == Loop("tiles", hubs, "MEMBERS").length(counts, counts.largest)
        assert int(degree[degree <= most].max()) <= Loop("owner", hubs, "MEMBERS").length(counts, counts.largest)


@pytest.mark.parametrize("name", PUBLISHED)
def test_sums_of_outer_products_and_of_all_rows_fill_a_gpu(name: str) -> None:
    """At least as many tiles as multiprocessors, where a tile has the rows of two steps."""
    counts = statistics(name).counts()
    seen = 0
    for launch in launches():
        for table in [loop.table for loop in launch.loops if isinstance(loop.table, Tiles) and loop.of == "tile"]:
            rows = counts[table.map.fine]
            most = table.most(rows)
            if table.least and launch.workspaces:
                seen += 1
                assert -(-rows // most) >= min(PROCESSORS, -(-rows // table.least)), launch.function
                assert rows // most <= 2 * WANTED_TILES or most == table.rows
    assert seen


def test_products_and_traversals_have_a_program_for_each_multiprocessor() -> None:
    counts = statistics("aifb").counts()
    for launch in launches():
        (first, *_) = launch.variant(counts).grid
        if first.of in (Space.NODE, Space.EDGE, Space.SRC_REL, Space.DST_REL) or launch.dot is not None:
            assert grid_size(first, counts) * first.times >= PROCESSORS, launch.function


def test_persistent_programs_are_not_long() -> None:
    """Where rows are many, there are more of them than the schedule says."""
    compilation = compilation_of("rgcn", 1, PASSES[0])
    plan = compilation.plans[0]
    gemm = next(k for k in plan.kernels if isinstance(k, Gemm))
    default = default_schedule(gemm)
    assert isinstance(default, ProductSchedule)
    schedule = ProductSchedule(rows=32, depth=64, persistent=1)
    steps = emit([plan], {(plan.name, gemm.name): schedule}).steps[plan.name]
    (launch,) = next(s.launches for s in steps if s.kernel.name == gemm.name)
    for name, turns in (("aifb", 7), ("wikikg2", MOST_STEPS)):
        counts = statistics(name).counts()
        assert launch.steps(counts, counts.largest, PROCESSORS) == turns


def test_schedules_follow_the_degree() -> None:
    """Few members: several owners a program, and more members for each thread; many: hubs are longer."""
    plan = compilation_of("rgcn", 1, PASSES[0]).plans[0]
    kernel = next(k for k in plan.kernels if isinstance(k, Traversal) and k.via == BY_DST)
    cases = dict(default_schedule(kernel).cases)  # type: ignore[union-attr]
    assert cases[16] == MemberSchedule(owners=2, members=8, warps=2)
    assert cases[math.inf] == MemberSchedule(owners=1, members=32, warps=8)
    (launch,) = (x for s in emit([plan]).steps[plan.name] for x in s.launches if x.function.endswith("out_kernel"))
    limits = next(loop.table.limits for loop in launch.loops if isinstance(loop.table, Hubs))
    assert [most for _, most in limits] == [64, 128, 256, 512, 1024]


def test_hubs_have_fewer_members_where_loops_are_many() -> None:
    """Three loops of 21 steps each are 63."""

    def spread(g: columba.Graph, h: Tensor) -> Tensor:
        e = g.edges
        centred = e.src(h) - e.dst(e.mean(e.src(h)))
        return e.max(centred / e.dst(torch.sqrt(e.mean(centred * centred) + 1)))

    graph = columba.Graph(torch.tensor([[0, 1], [1, 0]]))
    (plan, *_) = columba.explain(columba.compile(spread, backend="triton"), graph, torch.randn(2, 64)).compilation.plans
    found = [x for steps in emit([plan]).steps.values() for step in steps for x in step.launches]
    for name in PUBLISHED:
        counts = statistics(name).counts()
        assert max(x.steps(counts, counts.largest, PROCESSORS) for x in found) <= MOST_STEPS
    assert {x.loops[0].times for x in found if x.loops and x.loops[0].of == "owner"} == {3}
