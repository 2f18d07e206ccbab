"""``python -m tests.fuzz --programs N --seed S [--build K] [--jobs J]``."""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from pathlib import Path

from .campaign import Found, outcome
from .case import Case
from .check import Failure
from .jobs import run_jobs
from .report import table

REGRESSIONS = Path(__file__).parent / "regressions"


def main() -> int:
    """Runs the campaign; exits with 1 if there are failures."""
    args = _arguments()
    if args.replay:
        return replay(args.replay)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="columba-fuzz-") as folder:
        os.environ.setdefault("COLUMBA_CACHE_DIR", folder)
        options = {name: getattr(args, name) for name in ("programs", "seed", "build", "seconds")}
        report = run_jobs(options, args.jobs, Path(folder))
    print(table(report, time.monotonic() - start))
    for found in report.failures:
        path = save(found, args.out)
        print(f"\n{path}: {found.failure.signature}\n{found.failure.message}\n{found.case}")
    return 1 if report.failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--programs", type=int, default=2000, help="how many programs are checked")
    parser.add_argument("--seed", type=int, default=0, help="the same seed (and jobs) gives the same programs")
    parser.add_argument("--build", type=int, default=0, help="how many of them are moreover built to kernels and run")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--out", type=Path, default=REGRESSIONS, help="folder for shrunk failures")
    parser.add_argument("--replay", type=Path, nargs="+", help="check the cases in these files instead")
    return parser.parse_args()


def replay(paths: list[Path]) -> int:
    """Checks saved cases."""
    failed = 0
    for path in paths:
        found = outcome(Case.parse(path.read_text()))
        failed += isinstance(found, Failure)
        print(f"{path}: {f'{found.signature}: {found.message}' if isinstance(found, Failure) else found or 'ok'}")
    return 1 if failed else 0


def save(found: Found, folder: Path) -> Path:
    """Writes a failure as a regression case, whose name follows from its text."""
    folder.mkdir(parents=True, exist_ok=True)
    name = found.failure.signature.replace(" ", "_").replace(":", "_").replace(".py", "").replace("/", "_").lower()
    path = folder / f"{name}_{hashlib.sha256(found.case.encode()).hexdigest()[:6]}.txt"
    comment = "\n".join(f"# {line}" for line in [found.origin, *found.failure.message.splitlines()[:1]])
    path.write_text(f"{comment}\n{found.case}")
    return path


if __name__ == "__main__":
    raise SystemExit(main())
