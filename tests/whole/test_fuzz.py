"""A short run of the fuzzer, and the fuzzer's own parts. ``python -m tests.fuzz`` runs it for longer."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from fuzz.campaign import Campaign, outcome
from fuzz.case import Case
from fuzz.check import Failure, Reject, check
from fuzz.graphs import GraphSpec, build, random_graph
from fuzz.kernels import check_plans, compile_case
from fuzz.mutants import MUTANTS, source_of
from fuzz.mutate import mutate, random_case
from fuzz.shrink import shrink

from columba.ir.node import rewrite
from columba.ir.plan.kernels import Kernel, Load, Store, Traversal, roots_of, values_of
from columba.ir.plan.verify import verify as verify_plan
from columba.ir.program.ops import Pointwise
from columba.ir.program.parsing import parse_program
from columba.ir.program.program import Program
from columba.ir.program.verify import verify
from columba.lowering.kernels import load
from columba.passes.program.merge_pads import MergePads


def some_cases(count: int) -> list[Case]:
    cases: list[Case] = []
    for n in range(count):
        rng = random.Random(n)
        case = random_case(rng)
        twins = [c for c in cases if c.graph.square == case.graph.square]
        cases.append(mutate(rng, case, rng.choice(twins)) if twins and n % 2 else case)
    return cases


@pytest.mark.parametrize(
    "programs",
    [pytest.param(60, marks=pytest.mark.unoptimized), pytest.param(400, marks=pytest.mark.slow)],
)
def test_a_short_run_finds_nothing(programs: int) -> None:
    report = Campaign(programs=programs, seed=20, build=programs // 20, traced=programs // 3).run()
    assert not report.failures, "\n".join(
        f"{f.failure.signature}\n{f.failure.message}\n{f.case}" for f in report.failures
    )
    assert report.rejected < 0.1 * report.programs
    assert len(report.ran) >= 9  # every pass of level 1


def test_cases_are_well_typed_and_round_trip_as_text() -> None:
    for case in some_cases(100):
        verify(case.program)
        again = Case.parse(str(case))
        assert str(again) == str(case)
        assert again.program == case.program
        assert GraphSpec.parse(str(case.graph)) == case.graph


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run() -> None:
    reports = [Campaign(programs=20, seed=3).run() for _ in range(2)]
    assert reports[0].features == reports[1].features
    assert reports[0].ran == reports[1].ran


def test_graphs_are_of_every_kind() -> None:
    rng = random.Random(0)
    graphs = [build(random_graph(rng, square)) for square in (True, False) for _ in range(100)]
    assert any(g.num_edges == 0 for g in graphs)
    assert any(g.num_src == 0 for g in graphs)
    assert any(g.num_src == 1 and g.num_edges for g in graphs)
    assert any(len(set(g.edge_type.tolist())) < g.num_relations for g in graphs)
    assert any(g.num_edges > len({*map(tuple, g.edge_index.t().tolist())}) for g in graphs)
    assert any(g.num_edges > 4 and len(set(g.edge_index[1].tolist())) == 1 for g in graphs)


def test_plans_mean_what_their_program_means() -> None:
    checked = 0
    for case in some_cases(25):
        found = outcome(replace(case, level="plans"))
        assert not isinstance(found, Failure), f"{found}\n{case}"
        checked += found is None
    assert checked > 20


def test_a_wrong_plan_is_found() -> None:
    """A fused kernel that reads its owner's row of a buffer instead of the row that an index map leads to."""
    text = """program p(%h: node[2] f64, %s: edge[] f64) {
      %0: node[2] f64 = pointwise(%h, function=tanh, scalars=[])
      %1: edge[2] f64 = lift(%0, via=src:edge->node)
      %2: node[2] f64 = reduce(%1, via=dst:edge->node, op=sum)
      return out=%2 }"""
    graph = GraphSpec(3, None, 1, 1, ((0, 0, 1), (2, 0, 1), (1, 0, 0)), (0, 0, 0))
    case = Case(parse_program(text), (), (), (), (), False, graph, 1, level="plans")
    plans = compile_case(case)
    assert check_plans(case, plans) is None

    def read_directly(kernel: Kernel) -> Kernel:
        if not isinstance(kernel, Traversal) or kernel.via is None:
            return kernel
        wrong = replace(kernel.via, name="dst")
        loads = {
            v: load(v.buffer, wrong, kernel.via) for v in values_of(kernel) if isinstance(v, Load) and v.via is not None
        }
        values = rewrite(roots_of(kernel), lambda node: node, dict(loads.items()))
        stores = tuple(Store(s.buffer, v) for s, v in zip(kernel.stores, values, strict=True))
        return replace(kernel, stores=stores)

    plan = plans.forward_plan
    wrong = replace(plans, forward_plan=replace(plan, kernels=tuple(map(read_directly, plan.kernels))))
    found = check_plans(case, wrong)
    assert isinstance(found, Failure)
    assert found.kind == "wrong result"


def test_every_mutant_is_a_fragment_of_its_module_and_another_one() -> None:
    for mutant in MUTANTS:
        assert mutant.planted(source_of(mutant)) != source_of(mutant)


def test_a_schedule_changes_only_kernels_that_can_run_so() -> None:
    case = replace(some_cases(1)[0], schedule=(("scratch", 1), ("split", 3), ("tile_rows", 8)), level="plans")
    assert Case.parse(str(case)).schedule == case.schedule
    for plan in compile_case(case).plans:
        verify_plan(plan)


def wrong_pass(self: MergePads, program: Program) -> Program:
    """Takes every sum for a difference."""

    def rule(node: object) -> object:
        if isinstance(node, Pointwise) and node.function == "add":
            return Pointwise(node.args, "sub")
        return node

    return program.with_results(rewrite(program.results, rule))  # type: ignore[arg-type]


def test_a_wrong_pass_is_found_and_its_case_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MergePads, "run", wrong_pass)
    for case in some_cases(200):
        wrong = replace(case, wrt=(), second=(), first=("canonicalize", "merge_pads", "common_subexpressions"))
        try:
            found = check(wrong)
        except Reject:
            continue
        if found is not None:
            break
    assert found is not None
    assert found.kind == "wrong result"

    def fails(smaller: Case) -> bool:
        again = outcome(smaller)
        return isinstance(again, Failure) and again.kind == "wrong result"

    small = shrink(wrong, fails, seconds=10)
    assert small.first == ("merge_pads",)
    assert small.second == small.third == ()
    assert len(small.program.results) == 1
    assert len(small.program.body) <= 3
