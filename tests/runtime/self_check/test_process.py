"""The process that checks: what it means that it hangs, ends, cannot start."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from self_check_jobs import planted, small_job

from columba.runtime.self_check import process
from columba.runtime.self_check.job import Message, Verdict
from columba.runtime.self_check.process import CouldNotCheck, check, silent_seconds

SAY = """
import json, os, signal, sys, time

def say(**message):
    line = json.dumps({"at": "", "verdict": None, "cannot": ""} | message) + chr(10)
    os.write(int(sys.argv[2]), line.encode())

"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Runs a few lines of Python, which know ``say``, in place of the check: importing PyTorch takes seconds."""

    def install(lines: str) -> None:
        monkeypatch.setattr(process, "command", lambda job, fd: [sys.executable, "-S", "-c", SAY + lines, job, str(fd)])

    return install


@pytest.mark.slow
def test_right_kernels_pass() -> None:
    found = check(small_job())
    assert found.passed
    assert found.kernels > 4


@pytest.mark.slow
def test_a_crash_is_a_verdict_that_names_the_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever lies beside the user's script, and whatever becomes of its warnings."""
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    (tmp_path / "types.py").write_text("raise RuntimeError('this is another module')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = check(planted("ends the process"))
    assert (found.passed, found.kernel) == (False, "messages out_kernel on a tiny graph")
    assert found.why.startswith("ends the process (SIGABRT): ")


@pytest.mark.slow
def test_a_hang_is_a_verdict_that_names_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMBA_SELF_CHECK_TIMEOUT", "8")
    found = check(planted("hangs"))
    assert found == Verdict(False, "messages out_kernel on a tiny graph", "takes longer than 8 s, or hangs")


def test_what_hangs_is_ended_with_all_that_it_started(
    stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMBA_SELF_CHECK_TIMEOUT", "0.3")
    alive = tmp_path / "alive"
    write = f"open({str(alive)!r}, 'w').close()"
    stand_in(f"say(at='kernel a')\nif os.fork():\n    time.sleep(100)\nwhile True:\n    {write}\n    time.sleep(0.01)")
    start = time.monotonic()
    assert check(small_job()) == Verdict(False, "kernel a", "takes longer than 0.3 s, or hangs")
    assert time.monotonic() - start < 20
    time.sleep(0.1)
    alive.unlink(missing_ok=True)
    time.sleep(0.2)
    assert not alive.exists()


def test_progress_is_no_hang(stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMBA_SELF_CHECK_TIMEOUT", "2")
    stand_in(
        "for n in range(4):\n    say(at=f'kernel {n}')\n    time.sleep(0.7)\nsay(verdict={'passed': True, 'kernels': 4})"
    )
    assert check(small_job()) == Verdict(True, kernels=4)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("say(cannot='all devices are busy')", "all devices are busy"),
        ("print('no module named torch')\nsys.exit(3)", r"ended \(exit status 3\): no module named torch"),
        ("say(at='kernel a')\nos.kill(os.getpid(), signal.SIGKILL)", r"ended \(SIGKILL\)"),
        ("say(at='kernel a')\nos.kill(os.getpid(), signal.SIGTERM)", r"ended \(SIGTERM\)"),
    ],
)
def test_what_says_nothing_of_kernels_is_no_verdict(stand_in: Callable[[str], None], lines: str, why: str) -> None:
    stand_in(lines)
    with pytest.raises(CouldNotCheck, match=why):
        check(small_job())


def test_a_process_that_cannot_be_started_is_no_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(CouldNotCheck, match="which Python"):
        check(small_job())
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(CouldNotCheck, match="no process can be started for it: .*No such file"):
        check(small_job())


def in_daemon() -> None:
    with torch.inference_mode():
        assert check(small_job()) == Verdict(True, kernels=2)


def test_it_can_be_asked_for_in_a_forked_process_that_may_have_no_children(stand_in: Callable[[str], None]) -> None:
    """Workers of a DataLoader are such."""
    small_job()
    stand_in("say(verdict={'passed': True, 'kernels': 2})")
    worker = multiprocessing.get_context("fork").Process(target=in_daemon, daemon=True)
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0


def test_many_open_files_are_no_obstacle(stand_in: Callable[[str], None]) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[0] < 1100:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1100, before[1]))
    stand_in("say(verdict={'passed': True})")
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(1024):
                stack.enter_context(open(os.devnull))
            assert check(small_job()).passed
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_relative_paths_in_the_environment_are_the_same(
    stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``TRITON_CACHE_DIR=kernels/triton``, say."""
    monkeypatch.chdir(tmp_path)
    stand_in("say(cannot=os.path.abspath('kernels/triton'))")
    with pytest.raises(CouldNotCheck, match=re.escape(str(tmp_path / "kernels/triton"))):
        check(small_job())


def test_nothing_is_left_open(stand_in: Callable[[str], None]) -> None:
    stand_in("say(verdict={'passed': True})")
    check(small_job())
    gc.collect()  # what other tests left
    descriptors, children = len(os.listdir("/proc/self/fd")), child_processes()
    for _ in range(3):
        check(small_job())
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert child_processes() <= children


def child_processes() -> set[str]:
    """Of this process, those too that have ended and nobody waited for."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


@pytest.mark.parametrize("given", ["0", "-1", "soon", "inf", "nan"])
def test_nonsense_for_a_timeout_is_an_error(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("COLUMBA_SELF_CHECK_TIMEOUT", given)
    with pytest.raises(ValueError, match=f"COLUMBA_SELF_CHECK_TIMEOUT={given} is no positive number of seconds"):
        silent_seconds()


def test_messages_go_through_json() -> None:
    for message in (Message(at="a"), Message(verdict=Verdict(False, "k", "why", 3)), Message(cannot="x\ny")):
        assert Message.from_json(message.to_json()) == message
        assert "\n" not in message.to_json()
    for text in ("[]", "{}", '{"passed": 1, "kernel": "", "why": "", "kernels": 0}', "no"):
        with pytest.raises((ValueError, TypeError)):
            Verdict.from_json(text)
