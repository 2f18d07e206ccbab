"""Tuning without a clock: what is tried, what is left of it, and which of the measured candidates wins."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch

import columba
from columba.codegen.cpp import candidates
from columba.driver import Compilation, compile_program
from columba.inspection.explain import tunable
from columba.ir.counts import Counts
from columba.ir.plan.kernels import Gemm, GemmReduce, GemmSchedule, HostCall, Traversal, TraversalSchedule
from columba.ir.plan.parsing import parse_plan
from columba.ir.plan.plan import plans_equal
from columba.ir.plan.verify import verify
from columba.ir.spaces import Space
from columba.passes.recipes import Recipe
from columba.runtime.backends import CPP, TRITON
from columba.runtime.dtypes import ir_dtype
from columba.runtime.program import Runnable
from columba.selection.rates import Rates
from columba.selection.variants import Variants, parse_choices
from columba.tuning import search, space
from columba.tuning.cases import bucket, case_of, program_hash
from columba.tuning.decisions import BadDecision, Decision, parse_decision, scheduled
from columba.tuning.measure import Measured, Times, Workload, compare, is_better, noise
from columba.tuning.records import Records
from columba.tuning.search import Search, tune_variants
from columba.tuning.space import default_decision, plan_candidates, plan_decisions, sweeps

pytestmark = pytest.mark.unoptimized


RATES = Rates(1e11, 1e9, 1e10, 5e9, 2e9, 1e-5, 1e7)
COUNTS = Counts(
    {Space.NODE: 1000, Space.EDGE: 9000, Space.REL: 9, Space.NTYPE: 2, Space.SRC_REL: 4000, Space.DST_REL: 5000}
)


def graph() -> columba.Graph:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 12, (2, 40), generator=generator)
    return columba.Graph(ids, torch.randint(0, 3, (40,), generator=generator), num_nodes=12, num_relations=3)


def variants(layer: str = "rgat") -> tuple[Variants, columba.Graph]:
    g = graph()
    model = columba.nn.RGATConv(5, 5, 3) if layer == "rgat" else columba.nn.RGCNConv(5, 5, 3)
    ((found, _),), _ = tunable(model, torch.randn(12, 5, requires_grad=True), g)
    return found, g


@pytest.fixture(scope="module")
def compilation() -> Compilation:
    found, _ = variants()
    return compile_program(found.program, found.wrt)


# ------------------------------------------------------------------------------------------------ schedules


@pytest.mark.parametrize("kind", [TraversalSchedule, GemmSchedule])
def test_schedules_refuse_what_is_out_of_range(kind: type) -> None:
    for f in dataclasses.fields(kind):
        low, high = f.metadata["range"]
        assert low <= f.default <= high
        for bad in (low - 1, high + 1, float(low), True, "4"):
            with pytest.raises(ValueError, match=f.name):
                kind(**{f.name: bad})


def test_plans_print_and_parse_changed_schedules(compilation: Compilation) -> None:
    for n, plan in enumerate(compilation.plans):
        direction = ("forward", "backward")[n]
        assert "schedule={split=4096}" in str(plan) or "schedule" not in str(plan)
        changes = {(direction, k.name): {"threads": 2} for k in plan.kernels if not isinstance(k, HostCall)}
        changed = scheduled(compilation, changes).plans[n]
        assert str(changed).count("threads=2") == len(changes)
        assert plans_equal(parse_plan(str(changed)), changed)
        assert not plans_equal(changed, plan)


def test_the_text_of_a_plan_with_an_illegal_schedule_is_refused(compilation: Compilation) -> None:
    text = str(scheduled(compilation, {("forward", "out_kernel"): {"ahead": 16}}).forward_plan)
    assert "ahead=16" in text
    for bad, message in (("ahead=1000", "from 0 to 256"), ("tile_rows=1", "tile_rows")):
        with pytest.raises(ValueError, match=message):
            parse_plan(text.replace("ahead=16", bad))


# ------------------------------------------------------------------------------------------------ decisions


def test_decisions_go_through_their_text() -> None:
    decision = Decision("-sink_lifts", 0.25, {("backward", "k"): {"tile_rows": 64, "threads": 1}, ("forward", "j"): {}})
    again = parse_decision(str(decision))
    assert again == decision
    assert hash(again) == hash(decision)
    assert again.label == "-sink_lifts; a saved byte costs 0.25; threads=1 for 1 kernel; tile_rows=64 for 1 kernel"
    assert again.with_schedules({("backward", "k"): {"threads": 2}}).schedules["backward", "k"] == {
        "tile_rows": 64,
        "threads": 2,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "has the fields"),
        ('{"passes": "", "price": 1.0}', "has the fields"),
        ('{"passes": 1, "price": 1.0, "schedules": {}}', "passes must be a string"),
        ('{"passes": "no_such_pass", "price": 1.0, "schedules": {}}', "unknown pass 'no_such_pass'"),
        ('{"passes": "-expand_softmax", "price": 1.0, "schedules": {}}', "cannot be left out"),
        ('{"passes": "", "price": 0.0, "schedules": {}}', "price must be"),
        ('{"passes": "", "price": Infinity, "schedules": {}}', "price must be"),
        ('{"passes": "", "price": "1", "schedules": {}}', "price must be"),
        ('{"passes": "", "price": 1.0, "schedules": []}', "for forward and backward"),
        ('{"passes": "", "price": 1.0, "schedules": {"sideways": {}}}', "for forward and backward"),
        ('{"passes": "", "price": 1.0, "schedules": {"forward": 1}}', "by kernel"),
        ('{"passes": "", "price": 1.0, "schedules": {"forward": {"k": {"ahead": 1.5}}}}', "in integers"),
    ],
)
def test_texts_that_are_no_decisions(text: str, message: str) -> None:
    with pytest.raises(BadDecision, match=message):
        parse_decision(text)


@pytest.mark.parametrize(
    ("kernel", "changes", "message"),
    [
        ("no_kernel", {"ahead": 1}, "no kernel no_kernel"),
        ("out_kernel", {"tile_rows": 64}, "no field tile_rows"),
        ("out_kernel", {"ahead": -1}, "ahead is an integer from 0"),
        ("out_kernel", {"split": 64}, "split"),
    ],
)
def test_decisions_that_do_not_fit_the_program(
    compilation: Compilation, kernel: str, changes: dict[str, int], message: str
) -> None:
    with pytest.raises(BadDecision, match=message):
        scheduled(compilation, {("forward", kernel): changes})


# ------------------------------------------------------------------------------------------------ the space


def test_all_plan_decisions_are_spelled_as_users_would(compilation: Compilation) -> None:
    decisions = list(plan_decisions(gradients=True))
    assert len(decisions) == len(set(decisions))
    for decision in decisions:
        assert parse_decision(str(decision)) == decision
        assert parse_choices(decision.passes)
    assert len(list(plan_decisions(gradients=False))) < len(decisions)


@pytest.mark.parametrize("layer", ["rgcn", pytest.param("rgat", marks=pytest.mark.slow)])
def test_candidates_are_few_different_and_near_the_best(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "OPTIONAL", ("reorder_linear", "factor_sums", "sink_lifts", "fuse_traversals"))
    found, _ = variants(layer)
    candidates = plan_candidates(found.program, found.wrt, COUNTS, RATES, most=4)
    everything = plan_candidates(found.program, found.wrt, COUNTS, RATES, most=1000)
    assert 1 < len(candidates) <= 4 < len(everything)
    assert [c.decision for c in candidates] == [c.decision for c in everything[: len(candidates)]]
    assert len({"\n".join(map(str, c.compilation.plans)) for c in everything}) == len(everything)
    times = [c.predicted for c in everything]
    assert times == sorted(times)
    assert times[-1] <= space.HOPELESS * times[0]


def test_the_default_is_what_the_cost_model_chooses() -> None:
    found, _ = variants()
    name = found.choose(COUNTS)
    decision = default_decision(found, COUNTS)
    plans = decision.compile(found.program, tuple(found.wrt)).plans
    assert [str(p) for p in plans] == [str(p) for p in found.compilation(name).plans]


def test_schedules_that_are_tried_are_legal_and_change_the_source(compilation: Compilation) -> None:
    kernels = {
        (d, k.name): k for d, p in zip(("forward", "backward"), compilation.plans, strict=True) for k in p.kernels
    }
    rows = sweeps(compilation, dict.fromkeys(kernels, 1.0), CPP, "")
    assert 4 <= len(rows) <= 12
    tried = {where: [row[where] for row in rows if where in row] for where in kernels}
    for where, kernel in kernels.items():
        assert len(tried[where]) == len({json.dumps(c, sort_keys=True) for c in tried[where]})
        if isinstance(kernel, (Gemm, GemmReduce)) or (isinstance(kernel, Traversal) and kernel.via is not None):
            assert len(tried[where]) >= 2
    sources = {scheduled(compilation, row).source() for row in rows}
    assert len(sources) == len(rows)
    assert compilation.source() not in sources


def test_only_short_kernels_are_tried_with_one_thread(compilation: Compilation) -> None:
    names = [(d, k.name) for d, p in zip(("forward", "backward"), compilation.plans, strict=True) for k in p.kernels]
    seconds = {where: 1e-6 if n % 2 else 1.0 for n, where in enumerate(names)}
    rows = sweeps(compilation, seconds, CPP, "")
    single = {where for row in rows for where, c in row.items() if c == {"threads": 1}}
    assert single
    assert single <= {where for where in names if seconds[where] < candidates.SHORT}
    tuned = {where for row in rows for where, c in row.items() if c != {"threads": 1}}
    assert tuned <= {where for where in names if seconds[where] == 1.0}


def test_splits_are_tried_only_where_they_are_legal(compilation: Compilation) -> None:
    for plan in compilation.plans:
        verify(plan)
        for kernel in plan.kernels:
            splits = [c for c in CPP.candidates(kernel, "") if "split" in c]
            assert bool(splits) == (isinstance(kernel, Traversal) and bool(kernel.schedule.split))


# ------------------------------------------------------------------------------------------------ cases


def test_graphs_of_about_the_same_size_share_a_case() -> None:
    found, _ = variants()

    def case(edges: int, backend: str = "cpp") -> str:
        counts = {**COUNTS, Space.EDGE: edges}
        return case_of(found.program, found.wrt, counts, torch.device("cpu"), backend).key

    assert case(9000) == case(9001)
    assert len({case(9000), case(18000), case(9000, "triton")}) == 3
    assert bucket(COUNTS) != bucket({**COUNTS, Space.REL: 90})


def test_programs_are_told_apart_by_their_structure() -> None:
    (first, _), (again, _), (other, _) = variants(), variants(), variants("rgcn")
    assert program_hash(first.program) == program_hash(again.program) != program_hash(other.program)


# ------------------------------------------------------------------------------------------------ measuring


def test_noise_is_that_of_a_median() -> None:
    assert noise([1.0]) == float("inf")
    assert noise([1.0, 1.0, 1.0]) == 0
    assert noise([0.9, 1.0, 1.1]) > noise([0.9, 1.0, 1.1] * 4) > 0
    assert is_better(0.9, 0.02)
    assert not is_better(0.9, 0.06)
    assert not is_better(0.995, 0.0)


class Clock:
    """Runs that take what a table says. Stands for :meth:`Workload.run`."""

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.seconds = seconds
        self.runs: list[str] = []

    def __call__(self, runnable: Runnable) -> Times:
        name = str(runnable)
        self.runs.append(name)
        slow = 1.0 + 0.5 * (len(self.runs) % 7 == 0)  # something else runs now and then
        return Times(slow * self.seconds[name], {})


def test_candidates_run_in_turn_and_hopeless_ones_not_for_long() -> None:
    clock = Clock({"default": 1.0, "fast": 0.5, "slow": 9.0})
    found, reference = compare(clock, "default", {"fast": "fast", "slow": "slow"}, 60.0, rounds=8)  # type: ignore[arg-type, dict-item]
    assert len(reference) == len(found["fast"].ratios) == 8
    assert len(found["slow"].ratios) == 3
    assert found["fast"].ratio == pytest.approx(0.5)
    firsts = clock.runs[3::6][:3]
    assert len(set(firsts)) == 3, "the order turns"


# ------------------------------------------------------------------------------------------------ the search


def rigged(better: Callable[[str], float]) -> Callable[..., tuple[dict[str, Measured], list[Times]]]:
    """A stand-in for ``compare``: every candidate takes what ``better`` says of its text, and so does every kernel of it."""

    def compare(
        run: object, base: object, candidates: Mapping[str, Runnable], seconds: float, rounds: int
    ) -> tuple[dict[str, Measured], list[Times]]:
        found = {}
        for name in candidates:
            total = better(name)
            m = Measured([total] * 3, [total] * 3)
            for where, changes in parse_decision(name).schedules.items():
                m.kernels[where] = [better(json.dumps(changes, sort_keys=True))] * 3
            found[name] = m
        return found, [Times(1.0, {})] * 3

    return compare


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., search.Outcome]:
    """Searches without building or running anything."""
    monkeypatch.setenv("COLUMBA_CACHE_DIR", str(tmp_path))

    def seconds(self: Search, plan: Decision) -> dict[tuple[str, str], float]:
        plans = plan.compile(self.program, self.wrt).plans
        return {(d, k.name): 1.0 for d, p in zip(("forward", "backward"), plans, strict=True) for k in p.kernels}

    def nothing(self: Search, decisions: Sequence[Decision]) -> list[object]:
        return [object() for _ in decisions]

    monkeypatch.setattr(Search, "_kernel_seconds", seconds)
    monkeypatch.setattr(Search, "_build", nothing)
    monkeypatch.setattr(search, "machine_rates", lambda device: RATES)
    monkeypatch.setattr(space, "OPTIONAL", ("factor_sums", "inline_thin_linear"))

    def run(better: Callable[[str], float], budget: float = 1e6, layer: str = "rgcn") -> search.Outcome:
        monkeypatch.setattr(search, "compare", rigged(better))
        found, g = variants(layer)
        return tune_variants(found, g, "cpp", budget)

    return run


def test_the_best_plan_and_the_best_schedules_win(searched: Callable[..., search.Outcome]) -> None:
    def better(text: str) -> float:
        ratio = 0.8 if "-factor_sums" in text else 0.9 if "-inline_thin_linear" in text else 1.0
        return ratio * (0.7 if '"pieces": 32' in text else 0.8 if '"pieces": 8' in text else 1.0)

    found = searched(better, layer="rgat")
    winner = parse_decision(found.record.decision)
    assert "-factor_sums" in winner.passes
    assert winner.schedules
    assert all(changes == {"pieces": 32} for changes in winner.schedules.values())
    assert found.speedup == pytest.approx(1 / 0.56)
    assert found.record.complete


def test_what_is_slower_in_the_duel_is_not_recorded(searched: Callable[..., search.Outcome]) -> None:
    """Kernels that are faster alone, and slower together."""

    def better(text: str) -> float:
        together = '"passes"' in text
        return 1.1 if together else 0.5

    found = searched(better)
    assert found.speedup == 1.0
    assert not parse_decision(found.record.decision).schedules


def test_what_was_measured_is_not_measured_again(searched: Callable[..., search.Outcome]) -> None:
    first = searched(lambda text: 1.0)
    assert first.resumed == 0
    second = searched(lambda text: 1.0)
    assert second.resumed == len({t.candidate for _, t in first.trials})


def test_without_time_the_default_is_recorded_and_the_next_run_goes_on(searched: Callable[..., search.Outcome]) -> None:
    found = searched(lambda text: 0.5, budget=1e-9)
    assert found.speedup == 1.0
    assert not found.record.complete
    again = searched(lambda text: 0.5)
    assert again.speedup == 2.0
    assert again.record.complete
    assert [r.complete for r in Records().all()] == [True]  # type: ignore[union-attr]


def test_interpreted_kernels_are_not_timed() -> None:
    found, g = variants()
    with pytest.raises(search.TuningError, match="tune them on a GPU"):
        tune_variants(found, g, "triton")


# ------------------------------------------------------------------------------------------------ columba.compile, columba.tune


def test_autotune_and_what_settles_the_choice_exclude_each_other() -> None:
    for options in ({"passes": "aggregate_first"}, {"memory_budget": 0}, {"recipe": Recipe()}):
        with pytest.raises(ValueError, match="autotune"):
            columba.compile(columba.nn.RGCNConv(2, 2, 2), autotune=True, **options)  # type: ignore[call-overload]


def test_tune_refuses_what_leaves_nothing_to_tune() -> None:
    g, x = graph(), torch.randn(12, 5)
    layer = columba.nn.RGCNConv(5, 5, 3)
    with pytest.raises(search.TuningError, match="nothing to tune"):
        columba.tune(columba.compile(layer, passes="aggregate_first"), x, g)
    with pytest.raises(search.TuningError, match="nothing to tune"):
        columba.tune(columba.compile(layer, backend="torch"), x, g)
    with pytest.raises(ValueError, match="unknown target"):
        columba.tune(layer, x, g, target="fpga")
    with pytest.raises(ValueError, match="positive number of seconds"):
        columba.tune(layer, x, g, budget=0)
    with pytest.raises(search.TuningError, match="bipartite"):
        columba.tune(layer, x, g, graph=columba.Graph(torch.tensor([[0], [1]]), num_nodes=(2, 3)))


# ------------------------------------------------------------------------------------------------ Triton


def test_schedules_of_triton_kernels_are_tried_and_go_through_their_text(compilation: Compilation) -> None:
    pytest.importorskip("triton")
    names = {(d, k.name) for d, p in zip(("forward", "backward"), compilation.plans, strict=True) for k in p.kernels}
    rows = sweeps(compilation, dict.fromkeys(names, 1.0), TRITON, "sm_90")
    assert 4 <= len(rows) <= TRITON.MOST
    for row in (rows[0], rows[-1]):
        decision = parse_decision(str(Decision().with_schedules(row)))
        assert decision.schedules == row
        assert all("kind" in changes and not changes.get("atomic") for changes in row.values())
        changed = scheduled(compilation, decision.schedules)
        assert [str(p) for p in changed.plans] == [str(p) for p in compilation.plans]
        assert changed.source(backend="triton") != compilation.source(backend="triton")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "members"}, "no schedule"),
        ({"kind": "tea", "rows": 4}, "no schedule"),
        ({"kind": "members", "owners": 3, "members": 4}, "power of two"),
        ({"kind": "product", "rows": 64, "depth": 32}, "out_kernel"),
    ],
)
def test_schedules_of_triton_kernels_that_make_no_sense(
    compilation: Compilation, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(BadDecision, match=message):
        scheduled(compilation, {("forward", "out_kernel"): changes})


def test_triton_kernels_are_timed_one_by_one() -> None:
    pytest.importorskip("triton")
    found, g = variants()
    compilation = compile_program(found.program, found.wrt)
    runnable = Runnable(compilation.planned, ir_dtype(g.index_dtype), TRITON)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is slow is said once a process
        times = Workload(found.program, found.wrt, g).run(runnable)
    names = {
        (d, k.name)
        for d, p in zip(("forward", "backward"), compilation.plans, strict=True)
        for k in p.kernels
        if not isinstance(k, HostCall)
    }
    assert set(times.kernels) == names
    assert 0 < sum(times.kernels.values()) <= times.total
