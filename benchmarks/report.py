"""Measurements as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.measure import MODES, Measurement, geometric_mean

NAMES = {"infer": "inference", "train": "training step"}


def report(measurements: Sequence[Measurement]) -> str:
    """Times, ratios and memory of all cases, and their geometric means."""
    peers = list(dict.fromkeys(r.peer for m in measurements for r in m.results))
    parts = [_machine(measurements)]
    for keep in sorted({m.keep for m in measurements}):
        chosen = [m for m in measurements if m.keep == keep]
        title = "freed memory kept (mallopt)" if keep else "system allocator"
        for mode in MODES:
            parts.append(f"### {NAMES[mode].capitalize()}, ms; {title}\n\n{_times(chosen, peers, mode)}")
        parts.append(f"### Memory that a training step adds, MB; {title}\n\n{_memory(chosen, peers)}")
    failed = {(r.peer, str(m.case), r.error) for m in measurements for r in m.results if r.error}
    if failed:
        parts.append("Not measured:\n\n" + "\n".join(f"- {p} on {c}: {e}" for p, c, e in sorted(failed)))
    return "\n\n".join(parts)


def _machine(measurements: Sequence[Measurement]) -> str:
    flops = sorted(m.limits["flops"] / 1e9 for m in measurements)
    read = sorted(m.limits["bandwidth"] / 1e9 for m in measurements)
    return (
        f"Measured in the same run: sgemm {flops[0]:.0f} to {flops[-1]:.0f} GFLOP/s, "
        f"memory read {read[0]:.0f} to {read[-1]:.0f} GB/s."
    )


def _times(measurements: Sequence[Measurement], peers: Sequence[str], mode: str) -> str:
    ours, others = peers[0], peers[1:]
    head = ["case", "roofline", ours, "of roofline", *(f"{p} (ratio)" for p in others)]
    rows = []
    ratios: dict[str, list[float]] = {p: [] for p in others}
    distances = []
    for m in measurements:
        mine = m.of(ours).seconds.get(mode)
        if mine is None:
            continue
        distances.append(mine / m.roofline[mode])
        row = [str(m.case), f"{m.roofline[mode] * 1e3:.1f}", f"{mine * 1e3:.1f}", f"{distances[-1]:.2f}"]
        for p in others:
            other = m.of(p).seconds.get(mode)
            if other is None:
                row.append("-")
                continue
            ratios[p].append(other / mine)
            row.append(f"{other * 1e3:.1f} ({other / mine:.2f})")
        rows.append(row)
    means = ["geometric mean", "", "", f"{geometric_mean(distances):.2f}"]
    return table(head, [*rows, [*means, *(f"({geometric_mean(ratios[p]):.2f})" for p in others)]])


def _memory(measurements: Sequence[Measurement], peers: Sequence[str]) -> str:
    rows = []
    for m in measurements:
        found = [m.of(p) for p in peers]
        rows.append([str(m.case), *("-" if r.error else f"{r.bytes / 1e6:.0f}" for r in found)])
    return table(["case", *peers], rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; columns but the first are numbers."""
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join([' --- ', *(' ---: ' for _ in head[1:])])}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
