"""The loop: fresh and mutated cases, checked; what reaches something new is kept to be mutated further."""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from columba.codegen.cpp import emit
from columba.ir.types import DType

from .case import Case
from .check import Failure, Reject, Transformed, check, failure_of, transform
from .coverage import Coverage, Line, T, features
from .graphs import large_graph
from .kernels import check_kernels, check_plans, compile_case, plan_features
from .mutate import mutate, random_case
from .shrink import shrink

CORPUS = 512
FRESH = 0.6
"""This part of the cases is not a mutation of an earlier one."""

LATER = 0.03
"""This part of the later cases is traced: tracing costs more than what it watches."""

LOWERED = 0.5
"""This part of the traced cases is lowered to plans, a third of that part of the others."""

EMITTED = 0.5
"""This part of the plans is emitted as source text."""

BATCH = 8
LARGE = 0.25
"""This part of what is built runs on a graph larger than the tiles of kernels."""


@dataclass(frozen=True)
class Found:
    """A failure with its case, as it was found and as it was shrunk to."""

    failure: Failure
    case: str
    origin: str

    def saved(self, folder: Path) -> Path:
        """Writes the failure as a regression case, whose name follows from its text."""
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[ :/]", "_", self.failure.signature.replace(".py", "").lower())
        path = folder / f"{name}_{hashlib.sha256(self.case.encode()).hexdigest()[:6]}.txt"
        comment = "\n".join(f"# {line}" for line in [self.origin, *self.failure.message.splitlines()[:1]])
        path.write_text(f"{comment}\n{self.case}")
        return path


@dataclass
class Report:
    """What a campaign did. Reports of several jobs add up."""

    programs: int = 0
    rejected: int = 0
    lowered: int = 0
    emitted: int = 0
    built: int = 0
    changed: Counter[str] = field(default_factory=Counter)
    ran: Counter[str] = field(default_factory=Counter)
    signatures: Counter[str] = field(default_factory=Counter)
    failures: list[Found] = field(default_factory=list)
    lines: set[Line] = field(default_factory=set)
    features: set[str] = field(default_factory=set)

    def add(self, other: Report) -> None:
        self.programs += other.programs
        self.rejected += other.rejected
        self.lowered += other.lowered
        self.emitted += other.emitted
        self.built += other.built
        self.changed += other.changed
        self.ran += other.ran
        self.signatures += other.signatures
        known = {f.case for f in self.failures}
        self.failures += [f for f in other.failures if f.case not in known]
        self.lines |= other.lines
        self.features |= other.features


@dataclass
class Campaign:
    """Checks the programs ``first``, ``first + step``, ... below ``programs``; the same ones for the same arguments.

    ``build`` says how many cases may be compiled to kernels and run, spread over the campaign. ``traced`` says how many cases
    are all traced (none: only features guide the search). ``shrink_seconds`` bounds the time for each failure.
    ``running`` is a file that holds the cases whose kernels are running, in case they take the process down.
    """

    programs: int
    seed: int = 0
    first: int = 0
    step: int = 1
    build: int = 0
    traced: int = 300
    seconds: float = float("inf")
    shrink_seconds: float = 20.0
    stop_at_failure: bool = False
    running: Path | None = None
    on_progress: Callable[[Report], None] = lambda report: None
    on_failure: Callable[[Found], None] = lambda found: None

    def run(self) -> Report:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self._run()
        finally:
            torch.set_num_threads(threads)

    def _run(self) -> Report:
        self.report, self.coverage = Report(), Coverage()
        self.corpus: list[Case] = []
        self.waiting: list[Case] = []
        stop = time.monotonic() + self.seconds
        for n in range(self.first, self.programs, self.step):
            if time.monotonic() > stop or (self.stop_at_failure and self.report.failures):
                break
            rng = random.Random(f"{self.seed}:{n}")
            self._one(rng, self._case(rng), f"seed {self.seed}, program {n}")
            if self.report.programs % 50 == 0:
                self.on_progress(self.report)
        if self.waiting and self.report.built < self.build:
            self._build()
        self.report.lines = self.coverage.lines
        self.on_progress(self.report)
        return self.report

    def _case(self, rng: random.Random) -> Case:
        if self.corpus and rng.random() > FRESH:
            return mutate(rng, rng.choice(self.corpus), rng.choice(self.corpus))
        return random_case(rng)

    def _one(self, rng: random.Random, case: Case, origin: str) -> None:
        report = self.report
        report.programs += 1
        traced = report.programs <= self.traced or (self.traced > 0 and rng.random() < LATER)
        seen: list[Transformed] = []

        def watched(case: Case) -> Transformed:
            seen.append(self._watched(traced, lambda: transform(case)))
            return seen[-1]

        try:
            failure = check(case, watched)
        except Reject:
            report.rejected += 1
            return
        if failure is not None:
            self._failed(case, failure, origin)
            return
        self._count(case, seen[-1])
        new = self.coverage.new if traced else 0
        new += self._note(features(case.program, seen[-1].program, seen[-1].changed))
        if rng.random() < (LOWERED if traced else LOWERED / 3):
            new += self._lower(rng, case, origin, traced)
        if new:
            self._remember(rng, case)

    def _watched(self, traced: bool, function: Callable[[], T]) -> T:
        return self.coverage.run(function) if traced else function()

    def _count(self, case: Case, transformed: Transformed) -> None:
        """Counts how often passes ran, and how often they changed the program."""
        self.report.ran.update(spelling.split("{")[0] for spelling in (*case.first, *(case.second if case.wrt else ())))
        self.report.changed.update(transformed.changed)

    def _note(self, found: set[str]) -> int:
        new = found - self.report.features
        self.report.features |= new
        return len(new)

    def _remember(self, rng: random.Random, case: Case) -> None:
        if len(self.corpus) < CORPUS:
            self.corpus.append(case)
        else:
            self.corpus[rng.randrange(CORPUS)] = case

    # -------------------------------------------------------------------------------------------- kernels

    def _lower(self, rng: random.Random, case: Case, origin: str, traced: bool) -> int:
        """Compiles to plans, which the reference runs, and some to source text; what is new there is built and run."""
        report = self.report
        report.lowered += 1
        case = replace(case, level="plans")
        try:
            compilation = self._watched(traced, lambda: compile_case(case))
            new = self.coverage.new if traced else 0
            failure = check_plans(case, compilation)
        except Reject:
            return 0
        except Exception as e:
            failure = failure_of(e)
        if failure is not None:
            self._failed(case, failure, origin)
            return 0
        if rng.random() < EMITTED:
            report.emitted += 1
            try:
                self._watched(traced, lambda: emit(compilation.plans, DType.I32))
            except Exception as e:
                self._failed(replace(case, level="kernels"), failure_of(e), origin)
                return 0
            new += self.coverage.new if traced else 0
        new += self._note(plan_features(compilation))
        due = self.build * (report.programs * self.step / self.programs) + BATCH
        if new and report.built + len(self.waiting) < min(self.build, due):
            graph = large_graph(rng, case.graph.square) if rng.random() < LARGE else case.graph
            self.waiting.append(replace(case, level="kernels", graph=graph))
            if len(self.waiting) == BATCH:
                self._build()
        return new

    def _build(self) -> None:
        cases, self.waiting = self.waiting, []
        if self.running is not None:
            self.running.write_text("\n".join(map(str, cases)))
        for case, found in zip(cases, check_kernels(cases), strict=True):
            self.report.built += 1
            if isinstance(found, Failure):
                self._failed(case, found, f"seed {self.seed}, kernels")
        if self.running is not None:
            self.running.unlink()

    # -------------------------------------------------------------------------------------------- failures

    def _failed(self, case: Case, failure: Failure, origin: str) -> None:
        """Shrinks the first failures of each kind; counts the others."""
        self.report.signatures[failure.signature] += 1
        if self.report.signatures[failure.signature] > (1 if failure.where else 4):
            return

        def fails(smaller: Case) -> bool:
            found = outcome(smaller)
            return isinstance(found, Failure) and found.signature == failure.signature

        small = shrink(case, fails, self.shrink_seconds)
        final = outcome(small)
        failure = final if isinstance(final, Failure) else failure
        if str(small) not in {f.case for f in self.report.failures}:
            found = Found(failure, str(small), origin)
            self.report.failures.append(found)
            self.on_failure(found)


def outcome(case: Case) -> Failure | Reject | None:
    """What checking a case at its level gives."""
    if case.level == "kernels":
        return check_kernels([case])[0]
    try:
        return check(case) if case.level == "passes" else check_plans(case, compile_case(case))
    except Reject as e:
        return e
    except Exception as e:
        return failure_of(e)
