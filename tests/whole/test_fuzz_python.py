"""A short run of the fuzzer that starts from Python functions (``python -m tests.fuzz --front python``), its parts, and what it found."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from fuzz.check import Failure, Reject
from fuzz.graphs import build
from fuzz.python.campaign import PythonCampaign, outcome
from fuzz.python.case import Case, random_case
from fuzz.python.check import Refusal
from fuzz.python.grow import RULES
from fuzz.python.noise import Noise, Regrouping, WholeVectors
from fuzz.python.session import Session
from fuzz.python.shrink import shrink
from fuzz.python.values import tensors

from columba.ir.node import rewrite
from columba.ir.program.ops import Pointwise
from columba.ir.program.program import Program
from columba.passes.program import compact_materialization, fold_factors, reorder_linear
from columba.passes.program.canonicalize import Canonicalize
from columba.runtime import cache

REGRESSIONS = sorted((Path(__file__).parents[1] / "fuzz" / "python" / "regressions").glob("*.txt"))


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.stem)
def test_regression(path: Path) -> None:
    found = outcome(Case.parse(path.read_text()))
    assert found is None, found


@pytest.mark.parametrize(
    "programs", [pytest.param(10, marks=pytest.mark.unoptimized), pytest.param(40, marks=pytest.mark.slow)]
)
def test_a_short_run_finds_nothing(programs: int) -> None:
    report = PythonCampaign(programs=programs, seed=17, build=2).run()
    assert not report.failures, "\n".join(f"{f.failure.message}\n{f.case}" for f in report.failures)
    assert report.rejected + sum(report.refusals.values()) + sum(report.eager.values()) <= 0.2 * report.programs
    assert report.built


def test_cases_round_trip_as_text_and_every_rule_adds_lines() -> None:
    used: set[str] = set()
    for n in range(300):
        case, rules = random_case(random.Random(n))
        used.update(rules)
        again = Case.parse(str(case))
        assert str(again) == str(case)
        assert again.source == case.source
        compile(case.source, "program", "exec")
    assert used == set(RULES)


def _doubled(self: Canonicalize, program: Program) -> Program:
    """Takes every tanh for a sine."""

    def rule(node: object) -> object:
        if isinstance(node, Pointwise) and node.function == "tanh":
            return Pointwise(node.args, "sin")
        return node

    return program.with_results(rewrite(program.results, rule))  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_wrong_pass_is_found_and_its_case_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Canonicalize, "run", _doubled)
    cases = (random_case(random.Random(n))[0] for n in range(300))
    suspects = (
        replace(c, phases=()) for c in cases if "tanh(" in c.source and "helper" not in c.source and not c.special
    )
    case, found = next((c, found) for c in suspects if isinstance(found := outcome(c), Failure))

    def fails(smaller: Case) -> bool:
        again = outcome(smaller)
        return isinstance(again, Failure) and again.signature == found.signature

    small = shrink(case, fails, seconds=15)
    assert len(small.source.splitlines()) <= 10, small.source
    assert "tanh" in small.source


CASE = """inputs: h0 node[2]; h1 node[2]
parameters:
grad: h0 h1
graph: sources=3 square relations=1 types=1; edges 0-0-1 1-0-1 2-0-0; types 0 0 0 |
second: sources=3 square relations=1 types=1; edges 0-0-1; types 0 0 0 |
dtype: f64
seed: 1
special:
variant: plain
phases: again changed second no_grad
backend: plans
---
import torch
import torch.nn.functional as F
import columba


def program(g, h0, h1):
    v0 = g.edges.sum(g.edges.src(h0))
    return {}
"""


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ("v0", None),
        ("v0, h1", None),
        ("h0, {'a': [v0, 3]}", None),
        ("v0.cumsum(-1)", Refusal),
        ("v0.no_such_method()", Reject),
    ],
)
def test_outcomes(result: str, said: type | None) -> None:
    found = outcome(Case.parse(CASE.replace("{}", result)))
    assert type(found) is type(None) if said is None else isinstance(found, said), found


def test_squeezing_the_only_row_away_names_the_line() -> None:
    one = CASE.replace("sources=3", "sources=1").replace("0-0-1 1-0-1 2-0-0", "0-0-0").replace("0-0-1", "0-0-0")
    found = outcome(Case.parse(one.replace("types 0 0 0", "types 0").replace("{}", "v0.squeeze()")))
    assert isinstance(found, Refusal), found
    assert "name the dimensions" in found.message


def test_a_result_that_shares_memory_and_an_assertion_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case.parse(CASE.replace("{}", "v0, h1 * 2"))

    def call(self: Session, graph: object, given: dict[str, torch.Tensor], **options: bool) -> object:
        got = original(self, graph, given, **options)
        return replace(got, leaves=(got.leaves[0], got.leaves[0])) if self.is_compiled else got

    original = Session.call
    monkeypatch.setattr(Session, "call", call)
    found = outcome(case)
    assert isinstance(found, Failure), found

    def broken(self: Session, *args: object, **options: object) -> object:
        assert not self.is_compiled
        return original(self, *args, **options)

    monkeypatch.setattr(Session, "call", broken)
    found = outcome(case)
    assert isinstance(found, Failure), found
    assert found.kind == "AssertionError"


def test_noise_changes_numbers_and_keeps_ties() -> None:
    x = torch.tensor([1.5, 2.5, 1.5], dtype=torch.float64)
    with Noise(1e-6, seed=0):
        y = x * 3
    assert 0 < (y - x * 3).abs().max() < 1e-5
    assert y[0] == y[2]


def test_noise_changes_gradients_that_cancel_what_comes_after() -> None:
    """``x - x`` has the gradient ``g - g``; what is left of it beside a tiny gradient follows from rounding."""
    tiny = 1e-25

    def gradient(noise: Noise | None) -> float:
        x = torch.full((1,), 1.5, dtype=torch.float64, requires_grad=True)
        with noise or contextlib.nullcontext():
            y = (x - x) * torch.ones(1, dtype=torch.float64) + x * tiny
            (found,) = torch.autograd.grad(y, x, torch.ones_like(y))
        return float(found)

    assert gradient(None) in (0, tiny)
    assert max(abs(gradient(Noise(1e-15, seed, ties=False))) for seed in range(4)) > 1e-18


def test_regrouping_lets_infinities_cancel_or_not() -> None:
    inf, nan = float("inf"), float("nan")
    x = torch.tensor([inf, -inf, 1.0, 0.0], requires_grad=True)
    seen: list[set[str]] = [set() for _ in range(4)]
    for seed in range(40):
        with Regrouping(seed):
            y = x * torch.tensor([1.0, 1.0, 1.0, inf])
        for found, number in zip(seen, y.tolist(), strict=True):
            found.add(str(number))
        (gradient,) = torch.autograd.grad(y[:3].sum(), x)
        assert torch.equal(gradient[:3], torch.ones(3))
    assert seen == [{"inf", "nan"}, {"-inf", "nan"}, {"1.0"}, {"inf", "-inf", "nan"}]
    with Regrouping(0):
        assert bool((torch.tensor([nan, 1.0]) * 2).isnan()[0])  # no infinity: NaN however it is grouped


def test_whole_vectors_treat_all_numbers_alike() -> None:
    for count in (1, 7, 19):
        x = torch.full((count,), float("nan"), dtype=torch.float64, requires_grad=True)
        with WholeVectors():
            y = torch.nn.functional.hardtanh(x)
        assert y.shape == x.shape
        assert torch.equal(torch.autograd.grad(y, x, torch.ones_like(x))[0], torch.zeros(count, dtype=torch.float64))


@pytest.mark.parametrize(
    ("regression", "module"),
    [
        ("factor_of_a_relation_without_edges", fold_factors),
        ("dot_product_of_a_relation_without_edges", reorder_linear),
        ("softmax_of_a_node_without_edges", compact_materialization),
        ("product_with_a_node_without_edges", compact_materialization),
        ("infinite_weight_of_a_node_without_edges", compact_materialization),
    ],
)
def test_what_infinities_do_to_rows_without_edges_is_no_matter_of_grouping(
    regression: str, module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "masked", lambda node, via: node)
    monkeypatch.setenv("COLUMBA_CACHE_DIR", str(tmp_path))  # which remembers no plans that were made with masks
    monkeypatch.setattr(cache, "_kept", {})
    path = next(p for p in REGRESSIONS if p.stem == regression)
    found = outcome(Case.parse(path.read_text()))
    assert isinstance(found, Failure), found
    assert "infinities or NaN differ" in found.message


def test_special_values_are_in_the_inputs_that_are_named() -> None:
    case = Case.parse(CASE.replace("{}", "v0"))
    for special, found in {
        "inf": torch.isinf,
        "nan": torch.isnan,
        "zeros": lambda x: x == 0,
        "huge": lambda x: x.abs() > 1e10,
        "tiny": lambda x: x.abs() < 1e-10,
    }.items():
        draws = [tensors(case.inputs, build(case.graph), "f32", n, f"{special} h1") for n in range(20)]
        assert any(found(d["h1"]).any() for d in draws), special
        assert not any(found(d["h0"]).any() for d in draws), special
