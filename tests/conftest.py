"""Options of the tests that run on a GPU or, the same code, in Triton's interpreter; and the report of such a run.

``--device=cuda`` (or ``COLUMBA_TEST_DEVICE=cuda``) runs kernels on the first CUDA or ROCm device; the default is ``interpreter``.
``--report=PATH`` writes PATH.jsonl, a line of what the machine is and a line a test, and PATH.md. ``make test-gpu`` gives both.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import shlex
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

DEVICES = ("interpreter", "cuda")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("columba")
    group.addoption(
        "--device",
        choices=DEVICES,
        default=os.environ.get("COLUMBA_TEST_DEVICE", DEVICES[0]),
        help="where Triton kernels of the numeric matrix run; cuda is ROCm, too",
    )
    group.addoption("--report", type=Path, help="writes what happened to this path with .md and .jsonl")


def pytest_configure(config: pytest.Config) -> None:
    device = config.getoption("--device")
    if device == "cuda":
        from benchmarks.device import NoDevice, require

        if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
            raise pytest.UsageError("--device=cuda runs kernels on a GPU: unset TRITON_INTERPRET")
        try:
            require("cuda")
        except NoDevice as e:
            raise pytest.UsageError(f"--device=cuda: {e}; --device=interpreter runs the same tests without one") from e
    path = config.getoption("--report")
    if path is not None:
        config.pluginmanager.register(Report(path, device), "columba-report")


LIBRARIES = ("torch._dynamo", "torch_geometric.datasets", "torch_geometric.nn", "columba")
"""What the tests as a whole import before anything of their own, and what has most of the objects of a process."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Workers leave the objects of libraries, which live as long as they do, out of their garbage collections.

    Full collections, for which many tests ask, and searches for who refers to an object visit half a million of them otherwise.
    Modules of tests are imported after that: nothing of theirs is left out.
    """
    if not hasattr(session.config, "workerinput"):
        return (yield)
    gc.disable()
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()
    try:
        return (yield)  # what is made in it stays, too
    finally:
        gc.enable()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


UNOPTIMIZED = Path(__file__).with_name("unoptimized.sh")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Gives tests marked ``unoptimized``, their fixtures and their child processes a compiler that does not optimize.

    It takes a third of the time. Tests of what is around the kernels need them to be right, not fast; the values of
    kernels as users get them, optimized, are compared by the tests that do not have the mark.
    """
    if item.get_closest_marker("unoptimized") is None:
        return (yield)
    from columba.runtime.build import CompilerNotFound, find_compiler

    with pytest.MonkeyPatch.context() as patch:
        try:
            patch.setenv("CXX", f"{shlex.quote(str(UNOPTIMIZED))} {find_compiler()}")
        except CompilerNotFound:
            return (yield)  # which is what the test will say
        return (yield)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> Any:
    """Where kernels run: a ``triton_matrix.Device``."""
    from triton_matrix import INTERPRETED, Device

    if request.config.getoption("--device") == "interpreter":
        return INTERPRETED
    from benchmarks.device import architecture

    return Device("cuda", architecture())


class Report:
    """Collects outcomes; writes them when all tests are done."""

    def __init__(self, path: Path, device: str) -> None:
        self.path, self.device = path, device
        self.outcomes: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            properties = dict(report.user_properties)
            why = "" if report.passed else str(report.longrepr).strip().splitlines()[-1]
            self.outcomes.append(
                {
                    "test": report.nodeid,
                    "outcome": report.outcome,
                    "seconds": round(report.duration, 3),
                    "cases": properties.get("cases", 1),
                    **({"why": why} if why else {}),
                }
            )

    def pytest_sessionfinish(self) -> None:
        from benchmarks.device import environment

        about = {**environment("cuda" if self.device == "cuda" else "cpu"), "device": self.device}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(item) + "\n" for item in (about, *self.outcomes)]
        self.path.with_suffix(".jsonl").write_text("".join(lines), encoding="utf-8")
        self.path.with_suffix(".md").write_text(markdown(about, self.outcomes), encoding="utf-8")


def markdown(about: dict[str, Any], outcomes: list[dict[str, Any]]) -> str:
    """A report to read: where tests ran, how many passed, and which did not."""
    counts = Counter(o["outcome"] for o in outcomes)
    cases = sum(o["cases"] for o in outcomes if o["outcome"] == "passed")
    total = sum(o["seconds"] for o in outcomes)
    passed = counts["passed"]
    parts = [
        "# Numeric matrix of the Triton kernels",
        "\n".join(f"- {name}: {value}" for name, value in about.items()),
        f"{passed} tests passed ({cases} cases), {counts['failed']} failed, {counts['skipped']} skipped, in {total:.0f} s.",
    ]
    others = [o for o in outcomes if o["outcome"] != "passed"]
    if others:
        cells = [[str(o[k]).replace("|", "/") for k in ("test", "outcome", "why")] for o in others]
        rows = "\n".join(f"| {' | '.join(row)} |" for row in cells)
        parts.append(f"| test | outcome | why |\n| --- | --- | --- |\n{rows}")
    return "\n\n".join(parts) + "\n"
