"""``python -m tests.fuzz [--front python] --programs N --seed S [--build K] [--jobs J]``."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from .campaign import outcome
from .case import Case
from .check import Failure
from .jobs import FRONTS, run_jobs
from .python.campaign import outcome as python_outcome
from .python.case import Case as PythonCase
from .python.report import table as python_table
from .report import table

FOLDER = Path(__file__).parent


def main() -> int:
    """Runs the campaign; exits with 1 if there are failures."""
    args = _arguments()
    if args.replay:
        return replay(args.replay)
    out = args.out or (FOLDER / "python" if args.front == "python" else FOLDER) / "regressions"
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="columba-fuzz-") as folder:
        os.environ.setdefault("COLUMBA_CACHE_DIR", folder)
        options = {name: getattr(args, name) for name in ("programs", "seed", "build", "seconds")}
        report = run_jobs(options, args.jobs, Path(folder), out, args.front)
    print((python_table if args.front == "python" else table)(report, time.monotonic() - start))
    for found in report.failures:
        path = found.saved(out)
        print(f"\n{path}: {found.failure.signature}\n{found.failure.message}\n{found.case}")
    return 1 if report.failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--front", choices=tuple(FRONTS), default="ir", help="programs are random IR, or Python functions"
    )
    parser.add_argument("--programs", type=int, default=2000, help="how many programs are checked")
    parser.add_argument("--seed", type=int, default=0, help="the same seed (and jobs) gives the same programs")
    parser.add_argument("--build", type=int, default=0, help="how many of them are moreover built to kernels and run")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for failures, each saved when it is found (default: that of the regression cases)",
    )
    parser.add_argument("--replay", type=Path, nargs="+", help="check the cases in these files instead")
    return parser.parse_args()


def replay(paths: list[Path]) -> int:
    """Checks saved cases."""
    failed = 0
    for path in paths:
        text = path.read_text()
        found = python_outcome(PythonCase.parse(text)) if "\n---\n" in text else outcome(Case.parse(text))
        failed += isinstance(found, Failure)
        print(f"{path}: {f'{found.signature}: {found.message}' if isinstance(found, Failure) else found or 'ok'}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
