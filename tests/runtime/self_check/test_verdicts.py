"""Verdicts are found out once, kept, looked up; several processes make one check; a killed one leaves nothing wrong."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import own_cache
import pytest
import torch

pytest.importorskip("triton")

from self_check_jobs import CPU, arguments, messages

import columba
from columba.ir.types import DType
from columba.runtime import cache
from columba.runtime.self_check import verdicts
from columba.runtime.self_check.job import Job, Verdict
from columba.runtime.self_check.process import CouldNotCheck
from columba.runtime.self_check.verdicts import Subject, objection
from columba.runtime.triton.launch import TritonExecutable

RIGHT = Verdict(True, kernels=2)
WRONG = Verdict(False, "messages out_kernel", "on a tiny graph, out is nan", 2)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("COLUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("COLUMBA_SELF_CHECK", raising=False)
    monkeypatch.setattr(verdicts, "_known", {})
    with own_cache.fresh_process(monkeypatch):
        yield


class Checks:
    """What is said by a check that is not made, and how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[Job] = []
        self.answer: Verdict | Exception = RIGHT

    def __call__(self, job: Job) -> Verdict:
        self.asked.append(job)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Checks:
    found = Checks()
    monkeypatch.setattr(verdicts, "check", found)
    return found


def subject() -> Subject:
    planned = columba.explain(messages, *arguments()).compilation.planned
    return Subject(planned, TritonExecutable(planned.plans, DType.I32).module, DType.I32, CPU)


def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "_known", {})


def test_one_check_serves_all_processes(checks: Checks, monkeypatch: pytest.MonkeyPatch) -> None:
    assert objection(subject()) is None
    assert objection(subject()) is None
    another_process(monkeypatch)
    assert objection(subject()) is None
    assert len(checks.asked) == 1
    assert checks.asked[0].source == subject().module.source


def test_wrong_kernels_are_named_and_stay_so(checks: Checks, monkeypatch: pytest.MonkeyPatch) -> None:
    checks.answer = WRONG
    said = objection(subject())
    assert said is not None
    assert said.startswith(
        "fail their check on Triton's interpreter: messages out_kernel: on a tiny graph, out is nan (please"
    )
    another_process(monkeypatch)
    assert objection(subject()) == said
    assert len(checks.asked) == 1
    monkeypatch.setenv("COLUMBA_SELF_CHECK", "0")
    assert objection(subject()) is None


def test_force_checks_again_once_in_a_process(checks: Checks, monkeypatch: pytest.MonkeyPatch) -> None:
    checks.answer = WRONG
    objection(subject())
    another_process(monkeypatch)
    monkeypatch.setenv("COLUMBA_SELF_CHECK", "force")
    checks.answer = RIGHT
    assert objection(subject()) is None
    assert objection(subject()) is None
    assert len(checks.asked) == 2
    another_process(monkeypatch)
    monkeypatch.setenv("COLUMBA_SELF_CHECK", "1")
    assert objection(subject()) is None  # the new verdict is the one that was kept
    assert len(checks.asked) == 2


def test_where_nothing_can_be_checked_nothing_is_kept(checks: Checks, monkeypatch: pytest.MonkeyPatch) -> None:
    checks.answer = CouldNotCheck("all CUDA-capable devices are busy or unavailable")
    for _ in range(2):
        assert objection(subject()) == (
            "could not be checked on Triton's interpreter (all CUDA-capable devices are busy or unavailable; COLUMBA_SELF_CHECK=0 runs "
            "them unchecked)"
        )
    assert len(checks.asked) == 1
    another_process(monkeypatch)
    checks.answer = RIGHT
    assert objection(subject()) is None
    assert len(checks.asked) == 2


def test_nonsense_in_the_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMBA_SELF_CHECK", "no")
    with pytest.raises(ValueError, match="COLUMBA_SELF_CHECK=no is not known: 0 runs kernels unchecked, 1"):
        objection(subject())


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"passed": "yes", "kernel": "", "why": "", "kernels": 1}'])
def test_an_entry_that_makes_no_sense_is_found_out_again(checks: Checks, content: bytes) -> None:
    one = subject()
    cache.replace(one.key("ieee"), ".json", content)
    assert objection(one) is None
    assert len(checks.asked) == 1
    assert Verdict.from_json(cache.find(one.key("ieee"), ".json") or b"") == RIGHT


def test_what_a_verdict_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    one = subject()
    keys = {one.key("ieee"), one.key("tf32"), subject().key("ieee")}
    assert len(keys) == 2
    keys.add(replace(one, index_dtype=DType.I64).key("ieee"))
    keys.add(replace(one, module=replace(one.module, source=one.module.source + "\n")).key("ieee"))
    for name, value in (("versions", ("2.9", "3.5")), ("device_name", "NVIDIA H100"), ("_sources", "other")):
        with monkeypatch.context() as patch:
            patch.setattr(verdicts, name, lambda *_, value=value: value)
            keys.add(subject().key("ieee"))
    assert len(keys) == 7


def test_products_that_may_round_are_checked_apart(checks: Checks, monkeypatch: pytest.MonkeyPatch) -> None:
    objection(subject())
    monkeypatch.setattr(verdicts, "settled_precision", lambda asked: "tf32")
    objection(subject())
    assert [job.precision for job in checks.asked] == ["ieee", "tf32"]


def test_checking_leaves_the_process_as_it_was(checks: Checks) -> None:
    one = subject()
    before = torch.get_rng_state()
    with torch.inference_mode(), torch.device("meta"), torch.autocast("cpu"):
        assert objection(one) is None
    assert torch.equal(torch.get_rng_state(), before)


def test_it_is_logged_where_there_is_no_terminal(checks: Checks, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    caplog.set_level("INFO", "columba.self_check")
    objection(subject())
    assert caplog.messages == ["checking messages's kernels on Triton's interpreter (once)"]
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------------ several processes


def make_verdict(log: Path, seconds: float) -> None:
    """Makes a verdict in the cache, as :func:`verdicts._kept` does, but for the check."""

    def make() -> bytes:
        with open(log, "a") as f:
            f.write("made ")
        time.sleep(seconds)
        return RIGHT.to_json().encode()

    found = cache.get_or_make("check-" + 32 * "0", ".json", make, verdicts.WAIT)
    assert Verdict.from_json(found) == RIGHT


def test_several_processes_make_one_check_and_a_killed_one_leaves_nothing(tmp_path: Path) -> None:
    log, processes = tmp_path / "log", multiprocessing.get_context("fork")
    killed = processes.Process(target=make_verdict, args=(log, 100.0))
    killed.start()
    while not log.exists() or not log.read_text():
        time.sleep(0.01)
    others = [processes.Process(target=make_verdict, args=(log, 0.5)) for _ in range(3)]
    for other in others:
        other.start()
    killed.kill()
    for one in (killed, *others):
        one.join()
    assert [other.exitcode for other in others] == [0, 0, 0]
    assert log.read_text() == "made made "
    make_verdict(log, 0.0)
    assert log.read_text() == "made made "
