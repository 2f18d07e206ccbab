"""Runs peers side by side, each in a process of its own, their runs interleaved."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, load_graph
from benchmarks.device import machine
from benchmarks.peers import SETTINGS, applies
from benchmarks.records import COLUMBA, MODES, Measurement, Result
from benchmarks.roofline import work

ROOT = Path(__file__).resolve().parents[1]
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

    def __init__(
        self,
        name: str,
        case: Any,
        *,
        keep: bool,
        python: str = sys.executable,
        device: str = "cpu",
        worker: str = "benchmarks.worker",
    ) -> None:
        self.about: dict[str, Any] = {}
        command = [python, "-m", worker, name, json.dumps(asdict(case)), *(["--keep"] if keep else [])]
        command += ["--device", device]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [*command, "--memory", str(_most_memory())],
            cwd=ROOT,
            env=os.environ | SETTINGS.get(name, {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def ready(self, patience: float = START) -> None:
        self.about = self._answer(patience)

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


def measure(
    case: Case,
    peers: Sequence[str],
    *,
    rounds: int,
    keep: bool,
    patience: float = PATIENCE,
    pythons: Mapping[str, str] | None = None,
    device: str = "cpu",
    tell: Callable[[str], None] = lambda text: None,
) -> Measurement:
    """All peers that have the layer, on one case. Outputs and gradients are compared with the first peer's before anything is timed.

    Args:
        rounds: turns of each peer in each mode.
        keep: whether freed memory stays in the processes (glibc's mmap and trim thresholds raised).
        patience: seconds after which a run is cut off.
        pythons: interpreters of peers that need another.
        device: where the peers run, ``cpu`` or ``cuda``.
        tell: is told what happens.

    Raises:
        PeerFailed: no peer runs.
    """
    graph = load_graph(case.graph)
    peers = [p for p in peers if applies(p, case)]
    results = {name: Result(name) for name in peers}
    running: dict[str, Peer] = {}
    kernels: dict[str, dict[str, str]] = {}
    limits: dict[str, float] = {}
    try:
        for name in peers:
            running[name] = Peer(name, case, keep=keep, python=(pythons or {}).get(name, sys.executable), device=device)
        reference: list[list[float]] | None = None
        for name, peer in list(running.items()):
            tell(f"{case}: {name} starts")
            try:
                reference = _admit(peer, results[name], reference, patience)
                if name.startswith(f"{COLUMBA}:"):
                    kernels[name] = peer.ask("kernels", patience)
            except PeerFailed as e:
                _drop(running, results[name], e, case)
        for mode in MODES:
            limits = _limits(running, limits)
            tell(f"{case}: {mode}")
            _turns(running, results, kernels, mode, rounds, patience)
        limits = _limits(running, limits)
        for name, peer in list(running.items()):
            tell(f"{case}: {name} memory")
            try:
                results[name].bytes = peer.ask("memory", 3 * patience)["bytes"]
            except PeerFailed as e:
                _drop(running, results[name], e, case)
    finally:
        for peer in running.values():
            peer.close()
    ours = results.get(COLUMBA)
    if ours is not None:
        for result in results.values():
            result.beside, result.beside_bytes = dict(ours.seconds), ours.bytes
    roofline = {mode: work(case, graph, training=mode == "train").seconds(limits) for mode in MODES}
    return Measurement(case, keep, graph.num_edges, limits, roofline, list(results.values()), machine(device))


def _admit(peer: Peer, result: Result, reference: list[list[float]] | None, patience: float) -> list[list[float]]:
    """Runs a peer once in each mode and compares; its times so far are kept in case that they stay the only ones."""
    peer.ready()
    result.prepare, result.comparable = peer.about["prepare"], peer.about["comparable"]
    compiles = result.peer.endswith("+compile")
    for mode, do in zip(MODES, ("infer", "check"), strict=True):
        start = time.perf_counter()
        try:
            answer = peer.ask(do, patience)
        except PeerSlow as e:
            if compiles:  # how long a run takes is not known
                raise PeerFailed(f"torch.compile took more than {patience:.0f} s ({mode})") from None
            result.seconds[mode] = e.seconds
            result.at_least.append(mode)
            raise
        if not compiles:
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


def _drop(running: dict[str, Peer], result: Result, error: PeerFailed, case: object) -> None:
    running.pop(result.peer).close()
    result.error = str(error)
    if not running:
        raise PeerFailed(f"{case}: no peer runs; {result.peer}: {error}") from error


def _turns(
    running: dict[str, Peer],
    results: dict[str, Result],
    kernels: Mapping[str, Mapping[str, str]],
    mode: str,
    rounds: int,
    patience: float,
) -> None:
    """Turns of all peers, interleaved: a warm run, then :data:`RUNS` timed ones. A peer that takes seconds is measured once.

    Of peers with the same ``kernels`` (recipes of Columba that come to the same) one is measured.
    """
    turns: dict[str, int] = {}
    times: dict[str, list[float]] = {}
    made: dict[str, str] = {}
    for name, peer in list(running.items()):
        try:
            if name in kernels and made.setdefault(kernels[name][mode], name) != name:
                results[name].same_as[mode] = made[kernels[name][mode]]
                continue
            (first,) = peer.ask(mode, patience)["seconds"]
        except PeerFailed as e:
            _drop(running, results[name], e, mode)
            made = {k: n for k, n in made.items() if n != name}
            continue
        turns[name] = 0 if first > SHARE else max(1, min(rounds, int(SHARE / ((1 + RUNS) * first))))
        times[name] = [] if turns[name] else [first]
    for n in range(rounds):
        for name in turns:
            if n < turns[name]:
                times[name] += running[name].ask(mode, (1 + RUNS) * patience, warm=1, runs=RUNS)["seconds"]
    for name in running:
        runs = times[results[name].same_as.get(mode, name)]
        results[name].seconds[mode] = statistics.median(runs)
        results[name].runs[mode] = [] if mode in results[name].same_as else runs


def _limits(running: dict[str, Peer], before: dict[str, float]) -> dict[str, float]:
    """The machine's best rates so far."""
    now = next(iter(running.values())).ask("limits")
    return {k: max(v, before.get(k, 0.0)) for k, v in now.items()}


def compare(reference: Sequence[Sequence[float]], prints: Sequence[Sequence[float]]) -> None:
    """:class:`PeerFailed` where fingerprints differ by more than rounding does.

    What is 0 but for rounding, as the gradient of a bias of all scores is, is rounding alone: it counts beside the largest of the tensors.
    """
    if len(reference) != len(prints):
        raise PeerFailed(f"has {len(prints)} tensors, not {len(reference)}")
    least = 1e-5 * max((expected[0] for expected in reference if expected), default=0.0)
    for n, (expected, got) in enumerate(zip(reference, prints, strict=True)):
        if not expected or not got:
            continue  # a parameter that one of them does not have by itself
        scale = max(expected[0], least, 1e-12)
        if any(not abs(e - g) <= TOLERANCE * scale for e, g in zip(expected, got, strict=True)):
            raise PeerFailed(f"differs in tensor {n} (0: output, 1: input's gradient, then parameters)")
