"""A campaign in several processes, so that it is faster, and a kernel that crashes is a failure like others."""

from __future__ import annotations

import faulthandler
import multiprocessing
import queue
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from .campaign import Campaign, Found, Report
from .check import Failure
from .python.campaign import PythonCampaign
from .python.campaign import Report as PythonReport

Options = dict[str, Any]
"""Arguments of a campaign."""

FRONTS: dict[str, tuple[Any, Any]] = {"ir": (Campaign, Report), "python": (PythonCampaign, PythonReport)}
"""What programs the fuzzer starts from: the campaign, and its report."""


def _work(front: str, options: Options, job: int, jobs: int, folder: Path, out: Path, messages: Any) -> None:
    faulthandler.enable()

    def say(report: Any, final: bool = False) -> None:
        messages.put((job, report.programs, len(report.signatures), report if final else None))

    options = {**options, "build": options["build"] // jobs}
    running = folder / f"running-{job}.txt"
    note = {"on_progress": say, "on_failure": lambda found: found.saved(out)}
    say(FRONTS[front][0](first=job, step=jobs, running=running, **note, **options).run(), final=True)


def run_jobs(options: Options, jobs: int, folder: Path, out: Path, front: str = "ir") -> Any:
    """The campaigns of all jobs, each in a process of its own; their reports added up.

    ``folder`` is for their notes, ``out`` for failures, each saved when it is found.
    """
    context = multiprocessing.get_context("fork")  # whoever stops or kills the command finds the jobs under its name
    messages = context.Queue()
    workers = [
        context.Process(target=_work, args=(front, options, job, jobs, folder, out, messages), daemon=True)
        for job in range(jobs)
    ]
    for worker in workers:
        worker.start()
    total = FRONTS[front][1]()
    programs: Counter[int] = Counter()
    failures: Counter[int] = Counter()
    waiting = set(range(jobs))
    start = time.monotonic()
    while waiting:
        try:
            job, programs[job], failures[job], report = messages.get(timeout=1.0)
        except queue.Empty:
            for job in sorted(waiting):
                if workers[job].exitcode not in (None, 0):
                    waiting.discard(job)
                    total.failures.append(_crash(folder / f"running-{job}.txt", workers[job].exitcode))
            continue
        if report is not None:
            total.add(report)
            waiting.discard(job)
        _progress(sum(programs.values()), options["programs"], sum(failures.values()), time.monotonic() - start)
    print(file=sys.stderr)
    for worker in workers:
        worker.join()
    return total


def _progress(done: int, programs: int, failures: int, seconds: float) -> None:
    text = f"{done}/{programs} programs, {done / seconds:.0f} a second, {failures} kinds of failures"
    print(f"\r{text}", end="", file=sys.stderr, flush=True)


def _crash(running: Path, code: int | None) -> Found:
    cases = running.read_text() if running.exists() else "(no kernels were running)"
    return Found(Failure("crash", "", f"a process ended with code {code} while it ran one of these"), cases, "crash")
