"""Runs a check in a process of its own, and finds out what became of it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from columba.runtime.config import config
from columba.runtime.self_check.job import Job, Message, Verdict
from columba.runtime.subprocesses import python

START_SECONDS = 120.0
"""How long the process may take until it has imported everything and has the device."""

OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals by which others, the kernel that runs out of memory among them, end a process."""

MOST_OUTPUT = 400
"""Characters of what a process printed at last that are repeated."""


class CouldNotCheck(RuntimeError):
    """Kernels could not be checked, which says nothing of them."""


def silent_seconds() -> float:
    """How long one step may take, to compile a kernel or to run one, before it is taken for hung: ``columba.config.self_check_timeout``.

    Raises:
        ValueError: ``$COLUMBA_SELF_CHECK_TIMEOUT`` is no positive number.
    """
    found: float = config.self_check_timeout
    return found


def command(job_file: str, descriptor: int) -> list[str]:
    """What runs the check, in the same working folder: paths in the environment, of Triton's cache among them, may be relative."""
    return python("columba.runtime.self_check", job_file, str(descriptor))


def check(job: Job) -> Verdict:
    """The verdict of another process on the kernels of a job.

    Raises:
        CouldNotCheck: there is none.
        ValueError: see :func:`silent_seconds`.
    """
    patience = silent_seconds()
    try:
        with tempfile.TemporaryDirectory(prefix="columba-check-", ignore_cleanup_errors=True) as folder:
            file = Path(folder) / "job.json"
            file.write_text(job.to_json(), encoding="utf-8")
            return _checked(str(file), folder, patience)
    except OSError as e:
        raise CouldNotCheck(f"no process can be started for it: {e}") from e


def _checked(job_file: str, folder: str, patience: float) -> Verdict:
    if not sys.executable:
        raise CouldNotCheck("it is not known which Python runs")
    reader, writer = os.pipe()
    process: subprocess.Popen[bytes] | None = None
    output = Path(folder) / "output"
    try:
        with open(output, "wb") as printed:
            process = subprocess.Popen(
                command(job_file, writer),
                env={
                    name: value for name, value in config.environment().items() if name != "PYTHONWARNINGS"
                },  # of other code
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                pass_fds=[writer],
                start_new_session=True,  # a group of its own, with the compilers that it starts
            )
        os.close(writer)
        writer = -1
        return _followed(process, reader, patience, output)
    finally:
        for descriptor in (reader, writer):
            if descriptor >= 0:
                os.close(descriptor)
        if process is not None:
            _end(process)


def _followed(process: subprocess.Popen[bytes], reader: int, patience: float, output: Path) -> Verdict:
    """The verdict that comes through the pipe, or one on how the process ended."""
    rest, at = b"", ""
    poll = select.poll()  # select() knows no descriptors from 1024 on
    poll.register(reader, select.POLLIN)
    end = time.monotonic() + max(START_SECONDS, patience)
    while True:
        if not poll.poll(max(0.0, end - time.monotonic()) * 1e3):
            if not at:
                raise CouldNotCheck("the process for it does not start")
            return Verdict(False, at, f"takes longer than {patience:g} s, or hangs")
        read = os.read(reader, 1 << 16)
        if not read:
            return _ended(process, at, output)
        *lines, rest = (rest + read).split(b"\n")
        for line in lines:
            message = Message.from_json(line)
            if message.cannot:
                raise CouldNotCheck(message.cannot)
            if message.verdict is not None:
                return message.verdict
            at, end = message.at, time.monotonic() + patience


def _ended(process: subprocess.Popen[bytes], at: str, output: Path) -> Verdict:
    """What it means that the process ended without a verdict."""
    status = process.wait()
    text = output.read_text(encoding="utf-8", errors="replace").strip()[-MOST_OUTPUT:]
    last = f": {text.splitlines()[-1]}" if text else ""
    how = f"exit status {status}" if status >= 0 else _name(-status)
    if not at or -status in OUTSIDE:
        raise CouldNotCheck(f"the process for it ended ({how}){last}")
    return Verdict(False, at, f"ends the process ({how}){last}")


def _name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process if it has not ended, and what it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
