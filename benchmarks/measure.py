"""Runs peers side by side, each in a process of its own, their runs interleaved."""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, load_graph
from benchmarks.roofline import work

ROOT = Path(__file__).resolve().parents[1]
MODES = ("infer", "train")
SLOW = 5.0
TOLERANCE = 2e-3


class PeerFailed(RuntimeError):
    """A peer's process ended or its results differ."""


class Peer:
    """A worker process."""

    def __init__(self, name: str, case: Case, *, keep: bool, python: str = sys.executable) -> None:
        self.name = name
        command = [python, "-m", "benchmarks.worker", name, json.dumps(asdict(case)), *(["--keep"] if keep else [])]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.about = self._answer()

    def ask(self, do: str) -> dict[str, Any]:
        try:
            print(json.dumps({"do": do}), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise PeerFailed(self._why()) from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # libraries may print lines of their own
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise PeerFailed(self._why())

    def _why(self) -> str:
        _, errors = self.process.communicate()
        lines = errors.strip().splitlines()
        return lines[-1] if lines else f"ended with status {self.process.returncode} (out of memory?)"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()


@dataclass
class Result:
    """What was measured of one peer on one case: seconds (medians), bytes that a training step adds."""

    case: Case
    peer: str
    keep: bool
    seconds: dict[str, float] = field(default_factory=dict)
    runs: dict[str, list[float]] = field(default_factory=dict)
    bytes: int = 0
    prepare: float = 0.0
    error: str = ""


@dataclass
class Measurement:
    """One case: the machine's limits in the same run, the roofline in seconds, and every peer's result."""

    case: Case
    keep: bool
    edges: int
    limits: dict[str, float]
    roofline: dict[str, float]
    results: list[Result]

    def of(self, peer: str) -> Result:
        return next(r for r in self.results if r.peer == peer)

    def records(self) -> Iterator[dict[str, Any]]:
        """For JSON lines."""
        for result in self.results:
            yield {
                **asdict(result.case),
                "peer": result.peer,
                "keep": self.keep,
                "edges": self.edges,
                "seconds": result.seconds,
                "runs": result.runs,
                "bytes": result.bytes,
                "prepare": result.prepare,
                "error": result.error,
                "roofline": self.roofline,
                "limits": self.limits,
            }


def measure(
    case: Case,
    peers: Sequence[str],
    *,
    rounds: int,
    keep: bool,
    pythons: dict[str, str] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Measurement:
    """All peers on one case. Outputs and gradients are compared with the first peer's before anything is timed."""
    graph = load_graph(case.graph)
    results = {name: Result(case, name, keep) for name in peers}
    running: dict[str, Peer] = {}
    try:
        reference: list[list[float]] | None = None
        for name in peers:
            tell(f"{case}: {name} starts")
            try:
                running[name] = Peer(name, case, keep=keep, python=(pythons or {}).get(name, sys.executable))
                results[name].prepare = running[name].about["prepare"]
                prints = running[name].ask("check")["prints"]
                reference = reference or prints
                _compare(reference, prints)
            except PeerFailed as e:
                results[name].error = str(e)
                if name in running:
                    running.pop(name).close()
        if not running:
            raise PeerFailed(f"{case}: no peer runs: " + "; ".join(f"{r.peer}: {r.error}" for r in results.values()))
        limits = _limits(running, None)
        for mode in MODES:
            tell(f"{case}: {mode}")
            _rounds(running, results, mode, rounds)
            limits = _limits(running, limits)
        for name, peer in running.items():
            tell(f"{case}: {name} memory")
            results[name].bytes = peer.ask("memory")["bytes"]
    finally:
        for peer in running.values():
            peer.close()
    roofline = {mode: work(case, graph, training=mode == "train").seconds(limits) for mode in MODES}
    return Measurement(case, keep, graph.num_edges, limits, roofline, list(results.values()))


def _rounds(running: dict[str, Peer], results: dict[str, Result], mode: str, rounds: int) -> None:
    """Interleaved runs; a peer that takes seconds is measured less often, and its first run counts."""
    times: dict[str, list[float]] = {name: [] for name in running}
    for n in range(rounds + 1):
        for name, peer in running.items():
            mine = times[name]
            if mine and mine[0] > SLOW and len(mine) >= 2:
                continue
            seconds = peer.ask(mode)["seconds"]
            if n == 0 and seconds < SLOW:
                peer.ask(mode)  # warm-up, twice
                continue
            mine.append(seconds)
    for name, mine in times.items():
        results[name].seconds[mode] = statistics.median(mine)
        results[name].runs[mode] = mine


def _limits(running: dict[str, Peer], before: dict[str, float] | None) -> dict[str, float]:
    """The machine's best rates so far."""
    now = next(iter(running.values())).ask("limits")
    return now if before is None else {k: max(v, before[k]) for k, v in now.items()}


def _compare(reference: list[list[float]], prints: list[list[float]]) -> None:
    if len(reference) != len(prints):
        raise PeerFailed(f"has {len(prints)} tensors, not {len(reference)}")
    for n, (expected, got) in enumerate(zip(reference, prints, strict=True)):
        if not expected or not got:
            continue  # a parameter that one of them does not have by itself
        scale = max(expected[0], 1e-12)
        if any(abs(e - g) > TOLERANCE * scale for e, g in zip(expected, got, strict=True)):
            raise PeerFailed(f"differs in tensor {n} (0: output, 1: input's gradient, then parameters)")


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(v) for v in values)) if values else math.nan
