"""Measurements as Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from benchmarks.measure import MODES, Measurement, Result, geometric_mean
from benchmarks.peers import COLUMBA, LIBRARIES

NAMES = {"infer": "inference", "train": "training step"}
LARGE = 100_000
BEST_LIBRARY = "best of PyG, DGL"


def report(measurements: Sequence[Measurement]) -> str:
    """Times, ratios and memory of all cases, and their geometric means."""
    peers = list(dict.fromkeys(r.peer for m in measurements for r in m.results if r.peer != COLUMBA))
    parts = [_machine(measurements)]
    for keep in sorted({m.keep for m in measurements}):
        chosen = [m for m in measurements if m.keep == keep]
        title = "freed memory kept (mallopt)" if keep else "system allocator"
        parts.append(f"### Summary; {title}\n\n{_summary(chosen, peers)}")
        for mode in MODES:
            parts.append(f"### {NAMES[mode].capitalize()}, ms; {title}\n\n{_times(chosen, peers, mode)}")
        parts.append(f"### Memory that a training step adds, MB; {title}\n\n{_memory(chosen, peers)}")
    return "\n\n".join([*parts, *_remarks(measurements)])


def time_ratios(measurements: Sequence[Measurement], peer: str, mode: str) -> list[float]:
    """How many times longer the peer takes than Columba, for each case that both ran. Runs that were cut off count as they are."""
    found = []
    for m in measurements:
        ours, theirs = m.of(COLUMBA), _choose(m, peer, mode)
        if ours is not None and theirs is not None and mode in ours.seconds:
            found.append(theirs.seconds[mode] / ours.seconds[mode])
    return found


def roofline_ratios(measurements: Sequence[Measurement], mode: str, peer: str = COLUMBA) -> list[float]:
    """Measured time over the roofline, for graphs of over :data:`LARGE` edges."""
    found = [(m, m.of(peer)) for m in measurements if m.edges > LARGE]
    return [r.seconds[mode] / m.roofline[mode] for m, r in found if r is not None and mode in r.seconds]


def memory_ratios(measurements: Sequence[Measurement], *, libraries: bool) -> list[float]:
    """Growth in Columba's training step over the leanest peer's, or over the leanest library's."""
    found = []
    for m in measurements:
        ours = m.of(COLUMBA)
        others = [
            r.bytes for r in m.results if r.peer != COLUMBA and r.bytes and (not libraries or r.peer in LIBRARIES)
        ]
        if ours is not None and ours.bytes and others:
            found.append(ours.bytes / min(others))
    return found


def _choose(m: Measurement, peer: str, mode: str) -> Result | None:
    if peer != BEST_LIBRARY:
        result = m.of(peer)
        return result if result is not None and mode in result.seconds else None
    known = [r for r in m.results if r.peer in LIBRARIES and mode in r.seconds]
    return min(known, key=lambda r: r.seconds[mode], default=None)


def _machine(measurements: Sequence[Measurement]) -> str:
    flops = sorted(m.limits["flops"] / 1e9 for m in measurements)
    read = sorted(m.limits["bandwidth"] / 1e9 for m in measurements)
    return (
        f"Measured in the same run: sgemm {flops[0]:.0f} to {flops[-1]:.0f} GFLOP/s, "
        f"memory read {read[0]:.0f} to {read[-1]:.0f} GB/s."
    )


def _summary(measurements: Sequence[Measurement], peers: Sequence[str]) -> str:
    rows = []
    for peer in (*peers, *([BEST_LIBRARY] if set(peers) & set(LIBRARIES) else [])):
        ratios = [time_ratios(measurements, peer, mode) for mode in MODES]
        cells = [f"{geometric_mean(r):.2f} ({min(r):.2f})" if r else "-" for r in ratios]
        rows.append([f"{peer}: times slower (least)", *cells, str(max(map(len, ratios)))])
    near = [roofline_ratios(measurements, mode) for mode in MODES]
    cells = [f"{geometric_mean(r):.2f} ({max(r):.2f})" if r else "-" for r in near]
    rows.append([f"roofline, over {LARGE:,} edges: times above it (most)", *cells, str(len(near[0]))])
    for name, libraries in (("the leanest peer's", False), ("the leaner's of PyG and DGL", True)):
        memory = memory_ratios(measurements, libraries=libraries)
        cell = f"{geometric_mean(memory):.2f} ({max(memory):.2f})" if memory else "-"
        rows.append([f"memory growth over {name} (most)", "", cell, str(len(memory))])
    return table(["geometric means", "inference", "training step", "cases"], rows)


def _times(measurements: Sequence[Measurement], peers: Sequence[str], mode: str) -> str:
    rows = []
    for m in measurements:
        ours = m.of(COLUMBA)
        mine = ours.seconds.get(mode, math.nan) if ours is not None else math.nan
        row = [str(m.case), f"{m.roofline[mode] * 1e3:.1f}", f"{mine * 1e3:.1f}", f"{mine / m.roofline[mode]:.2f}"]
        rows.append([*row, *(_time(m.of(p), mode, mine) for p in peers)])
    return table(["case", "roofline", COLUMBA, "of roofline", *(f"{p} (ratio)" for p in peers)], rows)


def _time(result: Result | None, mode: str, mine: float) -> str:
    if result is None or mode not in result.seconds:
        return "-"
    sign = ">" if mode in result.at_least else ""
    seconds = result.seconds[mode]
    return f"{sign}{seconds * 1e3:.1f} ({sign}{seconds / mine:.2f})"


def _memory(measurements: Sequence[Measurement], peers: Sequence[str]) -> str:
    rows = []
    for m in measurements:
        found = [m.of(p) for p in (COLUMBA, *peers)]
        rows.append([str(m.case), *(f"{r.bytes / 1e6:.0f}" if r is not None and r.bytes else "-" for r in found)])
    return table(["case", COLUMBA, *peers], rows)


def _remarks(measurements: Sequence[Measurement]) -> list[str]:
    """What a reader has to know of single peers."""
    other = {f"{r.peer} ({m.case.layer})" for m in measurements for r in m.results if not r.comparable}
    failed = {(r.peer, str(m.case), r.error) for m in measurements for r in m.results if r.error}
    parts = []
    if other:
        parts.append(f"A different function of the same sizes, outputs not compared: {', '.join(sorted(other))}.")
    if any(r.at_least for m in measurements for r in m.results):
        parts.append("Times with > are of runs that were cut off.")
    if failed:
        parts.append("Failed:\n\n" + "\n".join(f"- {p} on {c}: {e}" for p, c, e in sorted(failed)))
    return parts


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; columns but the first are numbers."""
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join([' --- ', *(' ---: ' for _ in head[1:])])}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
