"""The process in which kernels are checked: ``python -m columba.runtime.self_check JOB REPORT``.

``JOB`` is a file with a :class:`Job`, ``REPORT`` a file descriptor on which a line of JSON says what is under way, and at last what came
of it. Kernels that are wrong may end this process, hang it, or leave its GPU context unusable: nobody else works in it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from columba.runtime.self_check.job import Job, Message, Verdict
from columba.runtime.self_check.kernels import KernelCheck
from columba.runtime.self_check.process import CouldNotCheck


def main(job_file: str, descriptor: int) -> None:
    """Checks, and reports."""

    def say(message: Message) -> None:
        os.write(descriptor, f"{message.to_json()}\n".encode())  # where nobody reads it any more, this process ends

    job = Job.from_json(Path(job_file).read_text(encoding="utf-8"))
    check: KernelCheck | None = None
    try:
        check = KernelCheck(job, lambda at: say(Message(at=at)))
        check.prepare()
        say(Message(verdict=check.run()))
    except (CouldNotCheck, torch.OutOfMemoryError) as e:
        say(Message(cannot=_first_line(e)))
    except Exception as e:
        if check is None or not check.running:
            say(Message(cannot=f"{type(e).__name__}: {_first_line(e)}"))
        else:
            say(Message(verdict=Verdict(False, check.running, f"{type(e).__name__}: {_first_line(e)}")))


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
