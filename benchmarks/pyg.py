"""Unmodified layers of PyG beside the same layers compiled: ``python -m benchmarks.pyg``.

Inference and training steps of one layer, in turn with the other peers, each in a process of its own; results and all gradients are
compared before anything is timed. RGCN, RGAT and HGT run on the benchmarks' graphs, those layers of the coverage table that are compiled on
a random graph of 10,000 nodes and 100,000 edges, all with 64 features; heterogeneous models of two layers, and HANConv, on the graphs of
the examples and on one of 100 nodes a type. Markdown on standard output; ``--out`` appends JSON lines.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.cases import GRAPHS, TINY
from benchmarks.markdown import table
from benchmarks.measure import PATIENCE, RUNS, SHARE, Peer, PeerFailed, PeerSlow, compare
from benchmarks.pyg_models import HETEROGENEOUS, models_of
from benchmarks.pyg_worker import RELATIONAL, PygCase
from benchmarks.records import MODES, NAMES, geometric_mean
from benchmarks.worker import PROCESSOR_TIME
from tests.frontend.pyg.coverage import GENERIC, LAYERS, all_cases

PREPARE = 600.0
"""Seconds that a peer may take to compile."""


@dataclass
class Result:
    """What was measured of one peer: medians of seconds by mode, and how far a training step makes the process grow.

    ``runs`` and ``why``: what of the layer Columba compiled. ``error``: why there is nothing, or not all.
    """

    peer: str
    seconds: dict[str, float] = field(default_factory=dict)
    bytes: int = 0
    prepare: float = 0.0
    runs: str = ""
    why: str = ""
    error: str = ""


@dataclass
class Measurement:
    case: PygCase
    results: list[Result]

    def of(self, peer: str) -> Result | None:
        return next((r for r in self.results if r.peer == peer), None)

    def ratio(self, peer: str, mode: str) -> float | None:
        """How many times as long as Columba a peer takes."""
        theirs, ours = self.of(peer), self.of("columba")
        if theirs is None or ours is None or mode not in theirs.seconds or mode not in ours.seconds:
            return None
        return theirs.seconds[mode] / ours.seconds[mode]

    def memory_ratio(self) -> float | None:
        theirs, ours = self.of("eager"), self.of("columba")
        return (
            None if theirs is None or ours is None or not theirs.bytes or not ours.bytes else theirs.bytes / ours.bytes
        )


def cases(layers: Sequence[str], graphs: Sequence[str]) -> list[PygCase]:
    """Relational layers on the benchmarks' graphs, the others on the random one, models on heterogeneous ones."""
    homogeneous = [one.name for one in all_cases() if one.table == LAYERS and one.expected == GENERIC]
    others = ("random", *HETEROGENEOUS)
    found = [PygCase(layer, graph) for graph in graphs if graph not in others for layer in RELATIONAL]
    found += [PygCase(layer) for layer in homogeneous if "random" in graphs]
    found += [PygCase(model, graph) for graph in graphs if graph in HETEROGENEOUS for model in models_of(graph)]
    return [one for one in found if not layers or one.layer in layers]


def measure(case: PygCase, peers: Sequence[str], *, rounds: int, keep: bool = True) -> Measurement:
    """All peers on one case."""
    results = {name: Result(name) for name in peers}
    running: dict[str, Peer] = {}
    try:
        for name in peers:
            running[name] = Peer(name, case, keep=keep, worker="benchmarks.pyg_worker")
        reference: list[list[float]] | None = None
        for name, peer in list(running.items()):
            try:
                peer.ready(PREPARE)
                result = results[name]
                result.prepare = peer.about["prepare"]
                result.runs, result.why = peer.about.get("runs", ""), peer.about.get("why", "")
                prints = peer.ask("check")["prints"]
                if reference is not None:
                    compare(reference, prints)
                reference = reference or prints
            except PeerFailed as e:
                _drop(running, results[name], e)
        for mode in MODES:
            _turns(running, results, mode, rounds)
        for name, peer in list(running.items()):
            try:
                results[name].bytes = peer.ask("memory", 3 * PATIENCE)["bytes"]
            except PeerFailed as e:
                _drop(running, results[name], e)
    finally:
        for peer in running.values():
            peer.close()
    return Measurement(case, list(results.values()))


def _drop(running: dict[str, Peer], result: Result, error: PeerFailed) -> None:
    running.pop(result.peer).close()
    result.error = str(error)


def _turns(running: dict[str, Peer], results: dict[str, Result], mode: str, rounds: int) -> None:
    """Turns of all peers, interleaved, as :func:`benchmarks.measure.measure` makes them."""
    times: dict[str, list[float]] = {}
    turns: dict[str, int] = {}
    for name, peer in list(running.items()):
        try:
            (first,) = peer.ask(mode, PREPARE if name == "torch.compile" else PATIENCE)["seconds"]
        except PeerFailed as e:
            if isinstance(e, PeerSlow):
                results[name].seconds[mode] = e.seconds
            _drop(running, results[name], e)
            continue
        turns[name] = 0 if first > SHARE else max(1, min(rounds, int(SHARE / ((1 + RUNS) * first))))
        times[name] = [] if turns[name] else [first]
    for n in range(rounds):
        for name in turns:
            if n < turns[name]:
                times[name] += running[name].ask(mode, (1 + RUNS) * PATIENCE, warm=1, runs=RUNS)["seconds"]
    for name, seconds in times.items():
        results[name].seconds[mode] = statistics.median(seconds)


def report(measured: Sequence[Measurement], peers: Sequence[str]) -> str:
    """Tables of times, with geometric means; what is slower than PyG is marked."""
    parts = []
    others = [p for p in peers if p != "columba"]
    for title, some in (
        ("Relational layers", [m for m in measured if m.case.graph not in ("random", *HETEROGENEOUS)]),
        ("Homogeneous layers, 10,000 nodes, 100,000 edges", [m for m in measured if m.case.graph == "random"]),
        ("Heterogeneous models", [m for m in measured if m.case.graph in HETEROGENEOUS]),
    ):
        if not some:
            continue
        head = ["layer", *(f"{NAMES[mode]}, ms" for mode in MODES)]
        head += [f"{p}, {NAMES[mode]}" for p in others for mode in MODES] + ["memory", ""]
        rows = [_row(m, others) for m in some]
        means = ["geometric mean", "", ""]
        for ratios in [[m.ratio(p, mode) for m in some] for p in others for mode in MODES]:
            known = [r for r in ratios if r is not None]
            means.append(f"{geometric_mean(known):.2f}" if known else "")
        memory = [r for r in (m.memory_ratio() for m in some) if r is not None]
        means += [f"{geometric_mean(memory):.2f}" if memory else "", ""]
        parts.append(f"### {title}\n\n{table(head, [*rows, means])}\n")
    return "\n".join(parts)


def _row(m: Measurement, others: Sequence[str]) -> list[str]:
    ours = m.of("columba")
    assert ours is not None
    row = [str(m.case), *(f"{1e3 * ours.seconds[mode]:.2f}" if mode in ours.seconds else "" for mode in MODES)]
    notes = [] if ours.runs == "compiled" else [ours.runs]
    for peer in others:
        for mode in MODES:
            ratio = m.ratio(peer, mode)
            row.append("" if ratio is None else f"{ratio:.2f}")
            if ratio is not None and ratio < 1:
                notes.append(f"slower than {peer} ({NAMES[mode]})")
    memory = m.memory_ratio()
    row.append("" if memory is None else f"{memory:.2f}")
    if memory is not None and memory < 1:
        notes.append("more memory")
    notes += [f"{r.peer}: {r.error}" for r in m.results if r.error]
    return [*row, "; ".join(n for n in notes if n)]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", default="", help="only these, separated by commas")
    parser.add_argument(
        "--graphs",
        default=",".join([*GRAPHS, "random", *HETEROGENEOUS]),
        help=f"of these, or {TINY}; separated by commas",
    )
    parser.add_argument("--rounds", type=int, default=5, help=f"turns of each peer, of {RUNS} runs each")
    parser.add_argument(
        "--torch-compile", action="store_true", help="PyG under torch.compile, too, which takes minutes"
    )
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="time what processors do for each process, which is fair beside other work, with one thread (OMP_NUM_THREADS=1)",
    )
    parser.add_argument("--out", type=Path, help="a file to append JSON lines to")
    args = parser.parse_args(argv)
    if args.processor_time:
        os.environ[PROCESSOR_TIME] = "1"  # which the peers inherit
    peers = ("eager", *(("torch.compile",) if args.torch_compile else ()), "columba")
    measured = []
    for case in cases(_words(args.layers), _words(args.graphs)):
        print(case, file=sys.stderr, flush=True)
        m = measure(case, peers, rounds=args.rounds)
        measured.append(m)
        if args.out is not None:
            with args.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(m)) + "\n")
    print(report(measured, peers))
    return 0


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


if __name__ == "__main__":
    sys.exit(main())
