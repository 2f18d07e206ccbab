"""Runs peers side by side, each in a process of its own, their runs interleaved."""

from __future__ import annotations

import contextlib
import json
import math
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, load_graph
from benchmarks.peers import applies
from benchmarks.roofline import work

ROOT = Path(__file__).resolve().parents[1]
MODES = ("infer", "train")
TOLERANCE = 2e-3
PATIENCE = 60.0
"""Seconds after which one run of a peer is cut off."""
SHARE = 3.0
"""Seconds that the turns of one peer in one mode may take; a run that takes longer is made once."""
RUNS = 3
"""Timed runs in a turn, after one that is not: a process that idled while others ran finds its memory reclaimed by the machine, and pays
page faults that a training loop does not have."""
START = 120.0
"""Seconds that a peer may take to start and prepare."""


class PeerFailed(RuntimeError):
    """A peer's process ended or its results differ."""


class PeerSlow(PeerFailed):
    """A peer did not answer in time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"took more than {seconds:.0f} s")
        self.seconds = seconds


class Peer:
    """A worker process. Its first answer, :attr:`about`, is waited for by :meth:`ready`."""

    def __init__(self, name: str, case: Case, *, keep: bool, python: str = sys.executable) -> None:
        self.about: dict[str, Any] = {}
        command = [python, "-m", "benchmarks.worker", name, json.dumps(asdict(case)), *(["--keep"] if keep else [])]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [*command, "--memory", str(_most_memory())],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def ready(self) -> None:
        self.about = self._answer(START)

    def ask(self, do: str, patience: float = PATIENCE, **how: int) -> dict[str, Any]:
        try:
            print(json.dumps({"do": do, **how}), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise PeerFailed(self._why()) from None
        return self._answer(patience)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()
        self._errors.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # libraries may print lines of their own
                self._lines.put(line)
        self._lines.put(None)

    def _answer(self, patience: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=patience)
        except queue.Empty:
            raise PeerSlow(patience) from None
        if line is None:
            raise PeerFailed(self._why())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _why(self) -> str:
        status = self.process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1][:200] if lines else f"ended with status {status} (out of memory?)"


def _most_memory() -> int:
    """Four fifths of the memory that is available now."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 * 4 // 5
    raise RuntimeError("no MemAvailable in /proc/meminfo")


@dataclass
class Result:
    """What was measured of one peer on one case: seconds (medians), bytes that a training step adds.

    ``at_least`` names the modes whose seconds are a lower bound, the run having been cut off. ``comparable``: outputs and gradients
    were compared with the first peer's.
    """

    case: Case
    peer: str
    keep: bool
    seconds: dict[str, float] = field(default_factory=dict)
    runs: dict[str, list[float]] = field(default_factory=dict)
    at_least: list[str] = field(default_factory=list)
    bytes: int = 0
    prepare: float = 0.0
    comparable: bool = True
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

    def of(self, peer: str) -> Result | None:
        return next((r for r in self.results if r.peer == peer), None)

    def records(self) -> Iterator[dict[str, Any]]:
        """For JSON lines."""
        shared = {"edges": self.edges, "roofline": self.roofline, "limits": self.limits}
        for result in self.results:
            record = asdict(result)
            yield {**record.pop("case"), **record, **shared}


def measure(
    case: Case,
    peers: Sequence[str],
    *,
    rounds: int,
    keep: bool,
    pythons: Mapping[str, str] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Measurement:
    """All peers that have the layer, on one case. Outputs and gradients are compared with the first peer's before anything is timed."""
    graph = load_graph(case.graph)
    peers = [p for p in peers if applies(p, case)]
    results = {name: Result(case, name, keep) for name in peers}
    running: dict[str, Peer] = {}
    limits: dict[str, float] = {}
    try:
        for name in peers:
            running[name] = Peer(name, case, keep=keep, python=(pythons or {}).get(name, sys.executable))
        reference: list[list[float]] | None = None
        for name, peer in list(running.items()):
            tell(f"{case}: {name} starts")
            try:
                reference = _admit(peer, results[name], reference)
            except PeerFailed as e:
                _drop(running, results[name], e, case)
        for mode in MODES:
            limits = _limits(running, limits)
            tell(f"{case}: {mode}")
            _rounds(running, results, mode, rounds)
        limits = _limits(running, limits)
        for name, peer in list(running.items()):
            tell(f"{case}: {name} memory")
            try:
                results[name].bytes = peer.ask("memory", 3 * PATIENCE)["bytes"]
            except PeerFailed as e:
                _drop(running, results[name], e, case)
    finally:
        for peer in running.values():
            peer.close()
    roofline = {mode: work(case, graph, training=mode == "train").seconds(limits) for mode in MODES}
    return Measurement(case, keep, graph.num_edges, limits, roofline, list(results.values()))


def _admit(peer: Peer, result: Result, reference: list[list[float]] | None) -> list[list[float]]:
    """Runs a peer once in each mode and compares; its times so far are kept in case that they stay the only ones."""
    peer.ready()
    result.prepare, result.comparable = peer.about["prepare"], peer.about["comparable"]
    for mode, do in zip(MODES, ("infer", "check"), strict=True):
        start = time.perf_counter()
        try:
            answer = peer.ask(do)
        except PeerSlow as e:
            result.seconds[mode] = e.seconds
            result.at_least.append(mode)
            raise
        result.runs[mode] = [time.perf_counter() - start]
        result.seconds[mode] = result.runs[mode][0]
    prints: list[list[float]] = answer["prints"]
    if reference is not None and result.comparable:
        try:
            compare(reference, prints)
        except PeerFailed:
            result.seconds.clear()
            raise
    return prints if reference is None else reference


def _drop(running: dict[str, Peer], result: Result, error: PeerFailed, case: Case) -> None:
    running.pop(result.peer).close()
    result.error = str(error)
    if not running:
        raise PeerFailed(f"{case}: no peer runs; {result.peer}: {error}") from error


def _rounds(running: dict[str, Peer], results: dict[str, Result], mode: str, rounds: int) -> None:
    """Turns of all peers, interleaved: a warm run, then :data:`RUNS` timed ones. A peer that takes seconds is measured once."""
    turns: dict[str, int] = {}
    times: dict[str, list[float]] = {name: [] for name in running}
    for name, peer in list(running.items()):
        try:
            (first,) = peer.ask(mode)["seconds"]
        except PeerFailed as e:
            _drop(running, results[name], e, results[name].case)
            continue
        turns[name] = 0 if first > SHARE else max(1, min(rounds, int(SHARE / ((1 + RUNS) * first))))
        if not turns[name]:
            times[name] = [first]
    for n in range(rounds):
        for name, peer in running.items():
            if n < turns[name]:
                times[name] += peer.ask(mode, warm=1, runs=RUNS)["seconds"]
    for name in running:
        results[name].seconds[mode] = statistics.median(times[name])
        results[name].runs[mode] = times[name]


def _limits(running: dict[str, Peer], before: dict[str, float]) -> dict[str, float]:
    """The machine's best rates so far."""
    now = next(iter(running.values())).ask("limits")
    return {k: max(v, before.get(k, 0.0)) for k, v in now.items()}


def compare(reference: Sequence[Sequence[float]], prints: Sequence[Sequence[float]]) -> None:
    """:class:`PeerFailed` where fingerprints differ by more than rounding does."""
    if len(reference) != len(prints):
        raise PeerFailed(f"has {len(prints)} tensors, not {len(reference)}")
    for n, (expected, got) in enumerate(zip(reference, prints, strict=True)):
        if not expected or not got:
            continue  # a parameter that one of them does not have by itself
        scale = max(expected[0], 1e-12)
        if any(not abs(e - g) <= TOLERANCE * scale for e, g in zip(expected, got, strict=True)):
            raise PeerFailed(f"differs in tensor {n} (0: output, 1: input's gradient, then parameters)")


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(v) for v in values)) if values else math.nan
