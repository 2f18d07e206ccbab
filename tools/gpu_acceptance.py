"""Whether Columba works on this GPU, and how fast: ``python tools/gpu_acceptance.py --minutes 8``.

Needs a clone of the repository, and PyTorch, Triton, NumPy, networkx, jinja2, click and rich; nothing is installed, and nothing
is loaded from a network. It goes through stages within a time limit: what the device is and does; the compiler's own checks of its
kernels; the numeric matrix; hubs; CUDA graphs and streams; then times of layers beside others' and beside the card's limits. Each
stage runs in processes of its own, so that a fault of the GPU in one does not end the others, and after each the report is written
anew: ``acceptance.json`` and ``acceptance.md`` in ``--out``.

Without a GPU, ``--device interpreter`` goes the same way in Triton's interpreter, and ``--device stand-in`` with a driver that
launches nothing: neither says anything of a GPU, both show that the script works.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CLONE = Path(__file__).resolve().parents[1]

DEVICES = ("cuda", "interpreter", "stand-in")

GRACE = 20.0
"""Seconds beyond its share after which a stage that is in the middle of something is killed."""

Item = dict[str, Any]
"""What one thing came to: ``what``, ``outcome`` (passed, failed, measured, skipped, or unfinished), and what else is known of it."""


@dataclass(frozen=True)
class Stage:
    """A part of the whole; ``share`` of the time is its own, and what those before it left. ``parallel``: on all cores."""

    name: str
    title: str
    share: float
    parallel: bool = False


STAGES = (
    Stage("device", "The device", 0.06),
    Stage("checks", "The compiler's checks of its kernels", 0.2, parallel=True),
    Stage("matrix", "Numeric matrix", 0.25, parallel=True),
    Stage("hubs", "Hubs", 0.07, parallel=True),
    Stage("streams", "CUDA graphs, streams, no synchronization", 0.07),
    Stage("times", "Times", 0.35),
)


@dataclass
class Outcome:
    """What a stage came to."""

    name: str
    title: str
    seconds: float = 0.0
    items: list[Item] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)  #: why its processes ended before they were done

    @property
    def failed(self) -> list[Item]:
        return [item for item in self.items if item["outcome"] == "failed"]

    @property
    def status(self) -> str:
        if self.failed or any("status" in why for why in self.ended):
            return "failed"
        return "unfinished" if self.ended or any(i["outcome"] == "unfinished" for i in self.items) else "passed"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if all that was reached is right; 1 if something failed; 2 if there is no such device."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all stages together (default 8)")
    parser.add_argument("--device", choices=DEVICES, default="cuda", help="cuda is ROCm, too (default)")
    parser.add_argument(
        "--out", type=Path, default=Path("acceptance"), help="folder of the report (default acceptance)"
    )
    parser.add_argument("--stages", default="", help=f"some of {','.join(s.name for s in STAGES)}, in this order")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes of stages that take several"
    )
    parser.add_argument("--smallest", action="store_true", help="of everything only the smallest, to try the script")
    given = parser.parse_args(arguments)
    names = [name for name in given.stages.split(",") if name]
    unknown = set(names) - {stage.name for stage in STAGES}
    if unknown or given.minutes <= 0 or given.workers < 1:
        parser.error(
            f"unknown stages: {', '.join(sorted(unknown))}" if unknown else "--minutes and --workers are positive"
        )
    stages = [stage for stage in STAGES if not names or stage.name in names]
    if given.device == "cuda" and (why := _no_gpu()):
        print(f"gpu_acceptance: {why}; --device interpreter or stand-in try the script without one", file=sys.stderr)
        return 2
    out: Path = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        environment = _environment(Path(folder))
        found: list[Outcome] = []
        for n, stage in enumerate(stages):
            left = start + 60 * given.minutes - time.monotonic()
            seconds = left * stage.share / sum(s.share for s in stages[n:])
            print(f"{stage.title} ...", flush=True)
            found.append(_run(stage, max(1.0, seconds), given, Path(folder), environment))
            _write(out, found, given.device)
            print(f"  {_summary(found[-1])}", flush=True)
    print(f"report: {out / 'acceptance.md'}")
    return 1 if any(outcome.status == "failed" for outcome in found) else 0


def _no_gpu() -> str:
    """Why there is none; asked in another process, so that this one holds no memory of it."""
    code = "import torch; print('' if torch.cuda.is_available() else f'PyTorch {torch.__version__} finds no CUDA or ROCm device')"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return asked.stdout.strip() if asked.returncode == 0 else (asked.stderr.strip().splitlines() or ["no PyTorch"])[-1]


# ------------------------------------------------------------------------------------------------ processes


def link_package(folder: Path) -> Path:
    """Makes the package ``columba`` of the clone's folders, as an installation would, and gives the folder that it can be imported from."""
    package = folder / "package" / "columba"
    package.mkdir(parents=True)
    for entry in (CLONE / "compiler").iterdir():
        if entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    for room in ("codegen", "ir", "runtime"):
        (package / room).symlink_to(CLONE / room)
    return package.parent


def _environment(folder: Path) -> dict[str, str]:
    """Of the stages' processes: imports of the clone, and caches that start empty."""
    paths = [str(link_package(folder)), str(CLONE), str(CLONE / "tests")]
    given = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    made = {
        "PYTHONPATH": os.pathsep.join(paths + given),
        "COLUMBA_CACHE_DIR": str(folder / "columba"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "OMP_WAIT_POLICY": "passive",
    }
    return {**os.environ, **made}


def _run(stage: Stage, seconds: float, given: argparse.Namespace, folder: Path, environment: dict[str, str]) -> Outcome:
    """A stage in its processes, until they are done or its time is over."""
    start = time.monotonic()
    workers = given.workers if stage.parallel else 1
    running = [_Worker(stage.name, n, workers, start + seconds, given, folder, environment) for n in range(workers)]
    while any(worker.goes_on() for worker in running):
        time.sleep(0.05)
    outcome = Outcome(stage.name, stage.title, round(time.monotonic() - start, 1))
    for worker in running:
        outcome.items += worker.items()
        outcome.ended += worker.ended
    return outcome


class _Worker:
    """One process of a stage; another one goes on where it ends in the middle."""

    def __init__(
        self,
        stage: str,
        number: int,
        workers: int,
        deadline: float,
        given: argparse.Namespace,
        folder: Path,
        environment: dict[str, str],
    ) -> None:
        self.file, self.log = folder / f"{stage}-{number}.jsonl", folder / f"{stage}-{number}.log"
        self.file.touch()
        self.deadline, self.environment = deadline, environment
        self.command = [sys.executable, "-m", "benchmarks.acceptance", stage, str(self.file), "--device", given.device]
        self.command += ["--worker", f"{number}/{workers}", *(["--smallest"] if given.smallest else [])]
        self.ended: list[str] = []
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        left = self.deadline - time.monotonic()
        with self.log.open("ab") as log:
            command = [*self.command, "--seconds", f"{left:.1f}", "--after", str(len(self._lines("begun")))]
            return subprocess.Popen(command, cwd=CLONE, env=self.environment, stdout=log, stderr=log)

    def goes_on(self) -> bool:
        """Whether it is still busy; starts another process after one that ended in the middle of something."""
        status = self.process.poll()
        if status is None:
            if time.monotonic() < self.deadline + GRACE:
                return True
            self.process.kill()
            self.process.wait()
            self.ended.append(f"killed {GRACE:.0f} s after its time was over")
            return False
        if status == 0:
            return False
        said = self.log.read_text(errors="replace").strip().splitlines() or [""]
        self.ended.append(f"ended with status {status}: {said[-1][:300]}")
        begun = len(self._lines("begun"))
        if begun == self._begun_before or time.monotonic() > self.deadline:
            return False
        self._begun_before = begun
        self.process = self._start()
        return True

    _begun_before = 0

    def _lines(self, kind: str) -> list[Item]:
        found = []
        for line in self.file.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # cut off in the middle
        return [line for line in found if line["line"] == kind]

    def items(self) -> list[Item]:
        """What was finished, and what was begun and not finished."""
        done = self._lines("done")
        names = {item["what"] for item in done}
        left = [line["what"] for line in self._lines("begun") if line["what"] not in names]
        crashed = any("status" in why for why in self.ended)
        broken = [
            {"what": w, "outcome": "failed" if crashed else "unfinished", "why": "; ".join(self.ended)} for w in left
        ]
        return [{k: v for k, v in item.items() if k != "line"} for item in (*done, *broken)]


# ------------------------------------------------------------------------------------------------ report


def _summary(outcome: Outcome) -> str:
    counts = {
        kind: sum(i["outcome"] == kind for i in outcome.items)
        for kind in ("passed", "measured", "failed", "unfinished", "skipped")
    }
    parts = [f"{n} {kind}" for kind, n in counts.items() if n]
    return f"{outcome.status}: {', '.join(parts) or 'nothing'} in {outcome.seconds:.0f} s"


def _write(out: Path, found: Sequence[Outcome], device: str) -> None:
    """Both files, each replaced whole."""
    report = {"device": device, "stages": [{**asdict(o), "status": o.status} for o in found]}
    texts = {
        "acceptance.json": json.dumps(report, indent=1),
        "acceptance.md": "\n".join(_markdown(found, device)) + "\n",
    }
    for name, text in texts.items():
        beside = out / f".{name}.part"
        beside.write_text(text)
        beside.replace(out / name)


CAUTION = {
    "cuda": "Times are medians of runs that took turns, in milliseconds.",
    "interpreter": "**Triton's interpreter on a CPU: no time here says anything of a GPU.**",
    "stand-in": "**A stand-in for the driver, which launches nothing: no number here says anything of a GPU.**",
}


def _markdown(found: Sequence[Outcome], device: str) -> Iterator[str]:
    yield from ("# GPU acceptance", "", CAUTION[device], "")
    yield from ("| stage | status | items | failed | seconds |", "| --- | --- | ---: | ---: | ---: |")
    for o in found:
        yield f"| {o.title} | {o.status} | {len(o.items)} | {len(o.failed)} | {o.seconds:.0f} |"
    for o in found:
        yield from ("", f"## {o.title}", "")
        yield from (f"- a process {why}" for why in o.ended)
        for item in o.items:
            if item["outcome"] in ("failed", "skipped", "unfinished"):
                yield f"- {item['outcome']}: {item['what']}: {item.get('why', '')}".replace("\n", " ")
        measured = [item for item in o.items if item["outcome"] == "measured"]
        yield from _tables(measured)


def _tables(measured: Sequence[Item]) -> Iterator[str]:
    """A table for each kind of measurement, whose columns are the names of its values."""
    for kind in dict.fromkeys(item.get("kind", "") for item in measured):
        rows = [item for item in measured if item.get("kind", "") == kind]
        columns = list(dict.fromkeys(name for item in rows for name in item["values"]))
        yield from ("", f"| {kind} | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns))
        for item in rows:
            yield f"| {item['what']} | " + " | ".join(_cell(item["values"].get(name)) for name in columns) + " |"


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
