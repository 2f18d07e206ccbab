"""What was measured, and its form on disk: a JSON object a line, which later runs append to."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.cases import Case

MODES = ("infer", "train")
NAMES = {"infer": "inference", "train": "training step"}
COLUMBA = "columba"
HAND_WRITTEN = ("compact", "folded", "plain")
DIGITS = 5
"""Significant digits that are written."""


@dataclass
class Result:
    """What was measured of one peer on one case: seconds (medians), bytes that a training step adds.

    ``beside`` and ``beside_bytes`` are Columba's in the same run: ratios are taken to these. ``at_least`` names the modes whose seconds
    are a lower bound, the run having been cut off. ``comparable``: outputs and gradients were compared with the first peer's. ``same_as``
    names, for a mode, the peer that runs the very same kernels and whose times these are. ``note``: what a reader should know of it.
    """

    peer: str
    seconds: dict[str, float] = field(default_factory=dict)
    runs: dict[str, list[float]] = field(default_factory=dict)
    beside: dict[str, float] = field(default_factory=dict)
    beside_bytes: int = 0
    at_least: list[str] = field(default_factory=list)
    same_as: dict[str, str] = field(default_factory=dict)
    bytes: int = 0
    prepare: float = 0.0
    comparable: bool = True
    error: str = ""
    note: str = ""


@dataclass
class Measurement:
    """One case in one run: the machine's limits, the roofline in seconds, and every peer's result."""

    case: Case
    keep: bool
    edges: int
    limits: dict[str, float]
    roofline: dict[str, float]
    results: list[Result]
    machine: str = ""

    def of(self, peer: str) -> Result | None:
        return next((r for r in self.results if r.peer == peer), None)

    @property
    def is_ablation(self) -> bool:
        return any(r.peer.startswith(f"{COLUMBA}:") for r in self.results)


@dataclass
class Overhead:
    """Seconds of something that is not a layer at work.

    ``what`` is ``first call`` (in a new process, imports apart; ``state``: with caches ``cold`` or ``cached``), ``small call`` (on a graph
    of 34 nodes) or ``preparation`` (index arrays of a new graph); ``peer`` is what did it, ``beside`` what it is to be compared with.
    """

    what: str
    layer: str
    mode: str
    peer: str
    seconds: float
    graph: str = ""
    state: str = ""
    beside: float = 0.0
    at_least: bool = False
    error: str = ""


@dataclass
class Record:
    """Everything in some files."""

    measurements: list[Measurement] = field(default_factory=list)
    overheads: list[Overhead] = field(default_factory=list)

    def cases(self) -> list[Measurement]:
        """The peers' measurements, of each case and setting of the allocator merged into one, in the order of cases."""
        return _merged([m for m in self.measurements if not m.is_ablation])

    def ablations(self) -> list[Measurement]:
        """The last ablation of each case."""
        last = {(m.case, m.keep): m for m in self.measurements if m.is_ablation}
        return sorted(last.values(), key=_order)


def to_line(item: Measurement | Overhead) -> str:
    kind = "overhead" if isinstance(item, Overhead) else "case"
    return json.dumps({"kind": kind, **_rounded(asdict(item))})


def load(paths: Iterable[Path]) -> Record:
    """What the files hold, in order. ValueError names the line that is no record."""
    record = Record()
    for path in paths:
        for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                fields = json.loads(line)
                kind = fields.pop("kind")
                if kind == "overhead":
                    record.overheads.append(Overhead(**fields))
                elif kind == "case":
                    fields["case"] = Case(**fields["case"])
                    fields["results"] = [Result(**r) for r in fields["results"]]
                    record.measurements.append(Measurement(**fields))
                else:
                    raise ValueError(f"unknown kind {kind!r}")
            except (ValueError, TypeError, KeyError, AttributeError) as e:
                raise ValueError(f"{path}:{n}: no record of a benchmark ({e!r})") from e
    return record


def append(path: Path, item: Measurement | Overhead) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(to_line(item) + "\n")


def _merged(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Of every peer the last result.

    The roofline, and Columba's own figures, are of the last run with a hand-written peer, or, if there is none, of the last with Columba.
    """
    found: dict[tuple[Case, bool], Measurement] = {}
    for m in measurements:
        before = found.get((m.case, m.keep))
        if before is None:
            found[m.case, m.keep] = replace(m, results=list(m.results))
            continue
        base = m if _weight(m) >= _weight(before) else before
        results = {r.peer: r for r in (*before.results, *m.results)}
        ours = base.of(COLUMBA)
        found[m.case, m.keep] = replace(base, results=list((results | ({COLUMBA: ours} if ours else {})).values()))
    return sorted(found.values(), key=_order)


def _weight(m: Measurement) -> int:
    """How well a run can stand for Columba's own figures."""
    if m.of(COLUMBA) is None:
        return 0
    return 2 if any(m.of(peer) is not None for peer in HAND_WRITTEN) else 1


def _order(m: Measurement) -> tuple[object, ...]:
    return m.case.order, m.keep


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return float(f"{value:.{DIGITS}g}")
        case dict():
            return {k: _rounded(v) for k, v in value.items()}
        case list():
            return [_rounded(v) for v in value]
    return value


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(v) for v in values)) if values else math.nan
