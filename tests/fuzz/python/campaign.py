"""The loop: random cases, checked with their plans run by the reference; some of them built to kernels, many in one library."""

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

from columba.ir.plan.planned import Planned

from ..check import Failure, Reject, failure_of
from .case import Case, random_case
from .check import EagerRefuses, Found, Refusal, check
from .executables import Collector, Library
from .shrink import shrink

BATCH = 8
"""Cases whose kernels are built as one library."""

TRITON = 200
"""One case in so many runs in Triton's interpreter, if Triton is there; the torch backend runs one in ten."""


@dataclass(frozen=True)
class Fault:
    """A failure with its case, as it was shrunk to."""

    failure: Failure
    case: str
    origin: str

    def saved(self, folder: Path) -> Path:
        """Writes it as a regression case, whose name follows from its text."""
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^a-z0-9]+", "_", self.failure.signature.replace(".py", "").lower()).strip("_")
        path = folder / f"{name}_{hashlib.sha256(self.case.encode()).hexdigest()[:6]}.txt"
        said = "\n".join(f"# {line}" for line in [self.origin, *self.failure.message.splitlines()[:1]])
        path.write_text(f"{said}\n{self.case}")
        return path


@dataclass
class Report:
    """What a campaign did. Reports of several jobs add up."""

    programs: int = 0
    lines: int = 0
    eager: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    built: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    traits: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    signatures: Counter[str] = field(default_factory=Counter)
    failures: list[Fault] = field(default_factory=list)

    def add(self, other: Report) -> None:
        self.programs += other.programs
        self.lines += other.lines
        self.rejected += other.rejected
        self.built += other.built
        for name in ("eager", "rules", "traits", "refusals", "signatures"):
            getattr(self, name).update(getattr(other, name))
        known = {f.case for f in self.failures}
        self.failures += [f for f in other.failures if f.case not in known]


@dataclass
class PythonCampaign:
    """Checks the programs ``first``, ``first + step``, ... below ``programs``; the same ones for the same arguments.

    ``build`` says how many of them, over all jobs, are moreover built to C++ kernels and run. ``running`` is a file that holds the cases
    whose kernels are running, in case they take the process down.
    """

    programs: int
    seed: int = 0
    first: int = 0
    step: int = 1
    build: int = 0
    seconds: float = float("inf")
    shrink_seconds: float = 20.0
    running: Path | None = None
    on_progress: Callable[[Report], None] = lambda report: None
    on_failure: Callable[[Fault], None] = lambda found: None
    report: Report = field(default_factory=Report)
    waiting: list[tuple[Case, list[Planned], str]] = field(default_factory=list)

    def run(self) -> Report:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self._run()
        finally:
            torch.set_num_threads(threads)

    def _run(self) -> Report:
        stop = time.monotonic() + self.seconds
        for n in range(self.first, self.programs, self.step):
            if time.monotonic() > stop:
                break
            rng = random.Random(f"python:{self.seed}:{n}")
            case, used = random_case(rng)
            self._one(rng, case, used, f"seed {self.seed}, program {n}")
            if self.report.programs % 20 == 0:
                self.on_progress(self.report)
        if self.waiting:
            self._build()
        self.on_progress(self.report)
        return self.report

    def _one(self, rng: random.Random, case: Case, used: list[str], origin: str) -> None:
        report, collector = self.report, Collector()
        report.programs += 1
        report.lines += case.source.count("\n")
        report.rules.update(used)
        report.traits.update(_traits(case))
        if rng.random() < 0.1:
            case = replace(case, backend="torch")
        found = self._outcome(case, collector)
        if isinstance(found, EagerRefuses):
            report.eager[str(found)[:100]] += 1
        elif isinstance(found, Reject):
            report.rejected += 1
        elif isinstance(found, Refusal):
            report.refusals[found.kind] += 1
        elif isinstance(found, Failure):
            self._failed(case, found, origin)
        elif collector.seen:
            due = self.build * report.programs * self.step / self.programs
            if report.built + len(self.waiting) < due + BATCH and report.built < self.build:
                self.waiting.append((replace(case, backend="cpp"), list(collector.seen.values()), origin))
            if len(self.waiting) == BATCH:
                self._build()

    def _outcome(self, case: Case, collector: Collector | None = None) -> Found | Reject:
        return outcome(case, collector)

    # -------------------------------------------------------------------------------------------- kernels

    def _build(self) -> None:
        waiting, self.waiting = self.waiting, []
        try:
            library = Library(list({p.plan_texts: p for _, plans, _ in waiting for p in plans}.values()))
        except Exception:
            for case, _, origin in waiting:  # one by one, to see whose it is
                self._built(case, outcome(case), origin)
            return
        if self.running is not None:
            self.running.write_text("\n".join(str(case) for case, _, _ in waiting))
        for case, _, origin in waiting:
            self._built(case, outcome(case, library), origin)
        if self.running is not None:
            self.running.unlink()

    def _built(self, case: Case, found: Found | Reject, origin: str) -> None:
        self.report.built += 1
        if isinstance(found, Failure):
            self._failed(case, found, f"{origin}, kernels")

    # -------------------------------------------------------------------------------------------- failures

    def _failed(self, case: Case, failure: Failure, origin: str) -> None:
        """Shrinks the first failures of each kind; counts the others."""
        signatures = self.report.signatures
        signatures[failure.signature] += 1
        if signatures[failure.signature] > 4:
            return

        def fails(smaller: Case) -> bool:
            found = outcome(smaller)
            return isinstance(found, Failure) and found.signature == failure.signature

        small = shrink(case, fails, self.shrink_seconds)
        again = outcome(small)
        fault = Fault(again if isinstance(again, Failure) else failure, str(small), origin)
        if fault.case not in {f.case for f in self.report.failures}:
            self.report.failures.append(fault)
            self.on_failure(fault)


def outcome(case: Case, build: Collector | Library | None = None) -> Found | Reject:
    """What checking a case gives; what the check itself raises is a failure, too."""
    if build is None and case.backend == "cpp":
        collector = Collector()
        first = outcome(replace(case, backend="plans"), collector)
        if isinstance(first, Reject) or not collector.seen:
            return first
        try:
            build = Library(list(collector.seen.values()))
        except Exception as e:
            return failure_of(e)
    try:
        return check(case, build)
    except Reject as e:
        return e
    except Exception as e:
        return failure_of(e)


def _traits(case: Case) -> list[str]:
    """What the report counts of a case beside its rules."""
    traits = [case.dtype, "square" if case.graph.square else "bipartite", *case.phases]
    traits += [f"{case.special.split()[0]} inputs"] if case.special else []
    traits += ["module"] if case.parameters else []
    traits += ["helper"] if "def helper" in case.source else []
    traits += ["no edges"] if not case.graph.edges else []
    traits += ["cost model"] if not case.variant else []
    return traits
