"""A short run of the fuzzer, and the fuzzer's own parts. ``python -m tests.fuzz`` runs it for longer."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from fuzz.campaign import Campaign, outcome
from fuzz.case import Case
from fuzz.check import Failure, Reject, check
from fuzz.graphs import GraphSpec, build, random_graph
from fuzz.mutate import mutate, random_case
from fuzz.shrink import shrink

from columba.ir.interop.ops import Pointwise
from columba.ir.interop.program import Program
from columba.ir.interop.verify import verify
from columba.ir.node import rewrite
from columba.passes.interop.dead_code import DeadCode


def some_cases(count: int) -> list[Case]:
    cases: list[Case] = []
    for n in range(count):
        rng = random.Random(n)
        case = random_case(rng)
        twins = [c for c in cases if c.graph.square == case.graph.square]
        cases.append(mutate(rng, case, rng.choice(twins)) if twins and n % 2 else case)
    return cases


def test_a_short_run_finds_nothing() -> None:
    report = Campaign(programs=300, seed=20, build=8, seconds=15).run()
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


def test_the_same_seed_gives_the_same_run() -> None:
    reports = [Campaign(programs=40, seed=3).run() for _ in range(2)]
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


def wrong_pass(self: DeadCode, program: Program) -> Program:
    """Takes every sum for a difference."""

    def rule(node: object) -> object:
        if isinstance(node, Pointwise) and node.function == "add":
            return Pointwise(node.args, "sub")
        return node

    return program.with_results(rewrite(program.results, rule))  # type: ignore[arg-type]


def test_a_wrong_pass_is_found_and_its_case_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeadCode, "run", wrong_pass)
    for case in some_cases(200):
        wrong = replace(case, wrt=(), second=(), first=("canonicalize", "dead_code", "common_subexpressions"))
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
    assert small.first == ("dead_code",)
    assert small.second == small.third == ()
    assert len(small.program.results) == 1
    assert len(small.program.body) <= 3
