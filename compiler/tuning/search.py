"""The search: variants of the plan first, then the schedules of the best one's kernels, then a duel of the winner with the default."""

from __future__ import annotations

import datetime
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from columba.ir.program.program import Program
from columba.runtime.backends import backend_named
from columba.runtime.dtypes import ir_dtype
from columba.runtime.graphs.graph import Graph
from columba.runtime.program import Runnable
from columba.selection.rates import machine_rates
from columba.selection.variants import Variants
from columba.tuning.cases import case_of, versions
from columba.tuning.decisions import BadDecision, Changes, Decision, parse_decision
from columba.tuning.measure import FEWEST, Measured, Times, Workload, compare, is_better, noise
from columba.tuning.records import Case, Damaged, Records, Trial, TuningRecord
from columba.tuning.space import Candidate, default_decision, plan_candidates, sweeps

PLANS, SCHEDULES = 0.45, 0.85
"""The shares of the budget after which variants of the plan, and schedules, are no longer measured; the rest is for the duel."""

FINALISTS, FINAL = 3, 0.08
"""Variants of the plan that are measured a second time, and the share of the budget that this may take."""

ROUNDS = 10
"""Of a measurement."""

WINS = 0.75
"""The share of its rounds that a winner of the duel has won: on a busy machine a median alone may be luck."""

DUEL_ROUNDS = 30
"""Of one that decides."""

BUDGET = 30.0
"""Seconds, where nobody says otherwise."""

KERNEL_MARGIN = 0.02
"""By how much a schedule has to be better for one kernel; times of single kernels are noisier than the whole."""


def known_record(case: Case, records: Records) -> TuningRecord | None:
    """The record for a case, if it is sound and of these versions."""
    found = records.find(case.program, case.gradients, case.device, case.backend)
    return next((r for r in found if not isinstance(r, Damaged) and r.case == case and r.versions == versions()), None)


class TuningError(RuntimeError):
    """A program cannot be tuned; the message says why."""


@dataclass(frozen=True)
class Step:
    """Something that happened, for a progress display: how much of the budget is used (0 to 1), and a trial if one ended."""

    what: str
    used: float
    trial: Trial | None = None
    label: str = ""
    known: bool = False  #: the trial was measured by an earlier run


@dataclass(frozen=True)
class Outcome:
    """What tuning a case came to.

    Attributes:
        record: the winner, as it is stored.
        trials: all that was measured, earlier runs included; each with a label.
        resumed: how many of the trials were known from earlier runs.
    """

    record: TuningRecord
    trials: tuple[tuple[str, Trial], ...]
    resumed: int

    @property
    def speedup(self) -> float:
        return self.record.default / self.record.seconds


def ignore(step: Step) -> None:
    """Reports nothing."""


@dataclass
class Search:
    """Tunes one program on one graph.

    Args:
        program, wrt: what to tune, and the inputs that want gradients.
        graph: stands for all graphs of its bucket.
        default: what is compiled without tuning; nothing worse is ever recorded.
        budget: seconds.
        backend: ``"cpp"`` or ``"triton"``.
    """

    program: Program
    wrt: tuple[str, ...]
    graph: Graph
    default: Decision
    budget: float
    backend: str = "cpp"
    records: Records = field(default_factory=Records)
    report: Callable[[Step], None] = ignore

    def __post_init__(self) -> None:
        self.begin = time.perf_counter()
        self.case: Case = case_of(self.program, self.wrt, self.graph.counts(), self.graph.device, self.backend)
        self.kernels = backend_named(self.backend)
        self.versions = versions()
        self.known = self.records.trials(self.case, self.versions)
        self.trials: list[tuple[str, Trial]] = []
        self.resumed = 0
        self.built: dict[str, Runnable] = {}
        self.skipped = False

    # -------------------------------------------------------------------------------------------- the whole search

    def run(self) -> Outcome:
        """Searches, stores the winner, and says what it is."""
        self.workload = Workload(self.program, self.wrt, self.graph)
        self._say("building the default")
        self._build([self.default])
        plan = self._best_plan()
        rivals = [*self._best_schedules(plan), plan, *self._recorded()]
        record = self._duel([d for d in dict.fromkeys(rivals) if d != self.default])
        self.records.save([record])
        return Outcome(record, tuple(self.trials), self.resumed)

    def forget(self) -> None:
        """Measures everything again."""
        self.records.forget_trials(self.case)
        self.known = {}

    @property
    def used(self) -> float:
        """The share of the budget that is used."""
        return (time.perf_counter() - self.begin) / self.budget

    def _say(self, what: str, trial: Trial | None = None, label: str = "", known: bool = False) -> None:
        self.report(Step(what, min(1.0, self.used), trial, label, known))

    # -------------------------------------------------------------------------------------------- plans

    def _best_plan(self) -> Decision:
        self._say("looking for variants of the plan")
        found = plan_candidates(self.program, self.wrt, self.graph.counts(), machine_rates(self.graph.device))
        same = self._text(self.default)
        decisions = [c.decision for c in found if _text_of(c) != same]
        trials = self._measure(self.default, decisions, PLANS)
        hopeful = sorted((t for t in trials if t.ratio - t.noise < 1), key=lambda t: t.ratio)[:FINALISTS]
        if not hopeful:
            return self.default
        self._say("looking again at the best variants")
        finalists = [parse_decision(t.candidate) for t in hopeful]
        again = self._trials(self.default, finalists, FINAL * self.budget, DUEL_ROUNDS)
        better = [(t.ratio, d) for t, d in zip(again, finalists, strict=True) if is_better(t.ratio, t.noise)]
        return min(better, key=lambda found: found[0], default=(1.0, self.default))[1]

    def _text(self, decision: Decision) -> str:
        return "\n".join(str(plan) for plan in decision.compile(self.program, self.wrt).plans)

    def _recorded(self) -> list[Decision]:
        """What an earlier run, which had no time for everything, found."""
        record = known_record(self.case, self.records)
        try:
            return [] if record is None else [parse_decision(record.decision)]
        except BadDecision:
            return []

    # -------------------------------------------------------------------------------------------- schedules

    def _best_schedules(self, plan: Decision) -> list[Decision]:
        """The plan with the best choice for each kernel, of those that were measured together with the other kernels' choices.

        Twice: with the choices that are sure to be better, and with all that seem to be; the duel decides.
        """
        if self.used > SCHEDULES:
            self.skipped = True
            return []
        seconds = self._kernel_seconds(plan)
        rows = sweeps(
            plan.compile(self.program, self.wrt), seconds, self.kernels, self.kernels.architecture(self.graph.device)
        )
        trials = self._measure(plan, [plan.with_schedules(row) for row in rows], SCHEDULES)
        return [plan.with_schedules(_best_choices(trials, certain)) for certain in (False, True)]

    def _kernel_seconds(self, plan: Decision) -> dict[tuple[str, str], float]:
        (runnable,) = self._build([plan])
        runs = [self.workload.run(runnable).kernels for _ in range(4)][1:]
        return {where: statistics.median(r[where] for r in runs) for where in runs[0]}

    # -------------------------------------------------------------------------------------------- measuring

    def _measure(self, reference: Decision, decisions: Sequence[Decision], until: float) -> list[Trial]:
        """Trials of some candidates, in batches that are built at once, until the given share of the budget is used."""
        trials = []
        todo = []
        for decision in decisions:
            known = self.known.get((str(reference), str(decision)))
            if known is None:
                todo.append(decision)
            else:
                self.resumed += 1
                trials.append(self._note(known, decision, known=True))
        batch, last = max(2, os.cpu_count() or 1), 0.0
        for at in range(0, len(todo), batch):
            some = todo[at : at + batch]
            begin = self.used
            if begin + last > until + 0.1:
                self.skipped = True
                break
            self._say(f"building {len(some)} candidates")
            self._build([reference, *some])
            self._say(f"measuring {len(some)} candidates")
            remaining = (len(todo) - at + batch - 1) // batch
            share = max(0.0, until - self.used) * self.budget / remaining
            trials += self._trials(reference, some, 0.5 * share, ROUNDS)
            self._drop(keep=(self.default, reference))
            last = self.used - begin
        return trials

    def _trials(self, reference: Decision, decisions: Sequence[Decision], seconds: float, rounds: int) -> list[Trial]:
        """Measures some candidates side by side, and stores what came out."""
        measured, _ = self._compare(reference, decisions, seconds, rounds)
        made = [_trial(str(reference), name, m) for name, m in measured.items()]
        self.records.save_trials(self.case, self.versions, made)
        return [self._note(t, d) for t, d in zip(made, decisions, strict=True)]

    def _note(self, trial: Trial, decision: Decision, *, known: bool = False) -> Trial:
        self.trials.append((decision.label, trial))
        self._say("measured", trial, decision.label, known)
        return trial

    def _compare(
        self, reference: Decision, decisions: Sequence[Decision], seconds: float, rounds: int
    ) -> tuple[dict[str, Measured], list[Times]]:
        """Compares while no other tuner on this machine does: two would disturb each other."""
        (base, *runnables) = self._build([reference, *decisions])
        candidates = dict(zip(map(str, decisions), runnables, strict=True))
        with self.records.locked("measuring"):
            return compare(self.workload.run, base, candidates, seconds, rounds)

    def _build(self, decisions: Iterable[Decision]) -> list[Runnable]:
        """Runnables of decisions, built in parallel."""
        decisions = list(decisions)
        missing = [d for d in dict.fromkeys(decisions) if str(d) not in self.built]
        index_dtype = ir_dtype(self.graph.index_dtype)
        compiled = [d.compile(self.program, self.wrt) for d in missing]
        with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
            made = list(pool.map(lambda c: Runnable(c.planned, index_dtype, self.kernels), compiled))
        self.built.update(zip(map(str, missing), made, strict=True))
        return [self.built[str(d)] for d in decisions]

    def _drop(self, keep: Iterable[Decision]) -> None:
        names = {str(d) for d in keep}
        self.built = {name: r for name, r in self.built.items() if name in names}

    # -------------------------------------------------------------------------------------------- the end

    def _duel(self, rivals: Sequence[Decision]) -> TuningRecord:
        """The default against what was found, one more time: only what wins again is recorded."""
        self._say("the last duel")
        self._build([self.default, *rivals])
        seconds = max(0.0, 1.0 - self.used) * self.budget * 0.9
        measured, references = self._compare(self.default, rivals, seconds, DUEL_ROUNDS if rivals else FEWEST)
        default = statistics.median(t.total for t in references)
        won = [(m.ratio, n) for n, m in measured.items() if is_better(m.ratio, m.noise) and m.wins >= WINS]
        ratio, name = min(won, default=(1.0, str(self.default)))
        made = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        trials = [_trial(str(self.default), str(rival), measured[str(rival)]) for rival in rivals]
        self.records.save_trials(self.case, self.versions, trials)
        for trial, rival in zip(trials, rivals, strict=True):
            self._note(trial, rival)
        return TuningRecord(self.case, self.versions, name, ratio * default, default, made, not self.skipped)


def tune_variants(
    variants: Variants,
    graph: Graph,
    backend: str,
    budget: float = BUDGET,
    report: Callable[[Step], None] = ignore,
    *,
    again: bool = False,
) -> Outcome:
    """Tunes a program on a graph, and records the winner. ``again``: what was measured before is measured again.

    Raises:
        TuningError: this backend cannot be timed on this device.
        RecordsError: the database cannot be used.
    """
    obstacle = backend_named(backend).untimed(graph.device)
    if obstacle is not None:
        raise TuningError(obstacle)
    default = default_decision(variants, graph.counts())
    search = Search(variants.program, tuple(variants.wrt), graph, default, budget, backend, report=report)
    if again:
        search.forget()
    return search.run()


def _text_of(candidate: Candidate) -> str:
    return "\n".join(str(plan) for plan in candidate.compilation.plans)


def _trial(reference: str, name: str, m: Measured) -> Trial:
    kernels = {f"{d} {k}": [statistics.median(r), min(9.0, noise(r))] for (d, k), r in m.kernels.items()}
    return Trial(
        reference, name, statistics.median(m.seconds), m.ratio, min(9.0, m.noise), json.dumps(kernels, sort_keys=True)
    )


def _best_choices(trials: Sequence[Trial], certain: bool) -> dict[tuple[str, str], Changes]:
    """For each kernel that a trial made faster: what the best trial changed. ``certain``: only where chance does not explain it."""
    chosen: dict[tuple[str, str], Changes] = {}
    least: dict[tuple[str, str], float] = {}
    for trial in trials:
        changes = parse_decision(trial.candidate).schedules
        for where, (ratio, spread) in _kernel_ratios(trial).items():
            better = is_better(ratio, spread if certain else 0.0, KERNEL_MARGIN)
            if where in changes and better and ratio < least.get(where, 1.0):
                least[where], chosen[where] = ratio, changes[where]
    return chosen


def _kernel_ratios(trial: Trial) -> dict[tuple[str, str], tuple[float, float]]:
    found = {}
    for where, (ratio, spread) in json.loads(trial.kernels).items():
        direction, _, kernel = where.partition(" ")
        found[direction, kernel] = (ratio, spread)
    return found
