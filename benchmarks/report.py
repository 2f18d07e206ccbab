"""Measurements as Markdown: sections of documents, or a report of them all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from benchmarks.ablation import ablation_table
from benchmarks.cases import TITLES as CASE_TITLES
from benchmarks.markdown import table
from benchmarks.overheads import overheads_report
from benchmarks.peers import FAMILIES, LIBRARIES
from benchmarks.records import COLUMBA, MODES, NAMES, Measurement, Record, Result, geometric_mean

LARGE = 100_000
BEST_LIBRARY = "best of PyG, DGL"


def sections(record: Record) -> dict[str, str]:
    """What ``docs/performance.md`` and the README show between markers, by the markers' names."""
    cases = record.cases()
    usual, kept = [m for m in cases if not m.keep], [m for m in cases if m.keep]
    nothing = "Not measured."
    return {
        "machine": _machine(record.measurements) if record.measurements else nothing,
        "summary": _summary(usual) if usual else nothing,
        "summary kept": _summary(kept) if kept else nothing,
        "times": _tables(usual) if usual else nothing,
        "times kept": _tables(kept) if kept else nothing,
        "memory": _memory(usual) if usual else nothing,
        "remarks": "\n\n".join(_remarks(cases)) or "Nothing failed.",
        "ablation": ablation_table(record.ablations()),
        "overheads": overheads_report(record.overheads),
        "speed": _speed(usual),
    }


TITLES = {
    "machine": "Machine",
    "summary": "Summary; system allocator",
    "summary kept": "Summary; freed memory kept (mallopt)",
    "times": "Times; system allocator",
    "times kept": "Times; freed memory kept (mallopt)",
    "memory": "Memory that a training step adds, MB",
    "remarks": "Remarks",
    "ablation": "Variants",
    "overheads": "Overheads",
}


def report(record: Record) -> str:
    """All that was measured, under headings."""
    has = {
        "machine": bool(record.measurements),
        "ablation": bool(record.ablations()),
        "overheads": bool(record.overheads),
        "memory": any(not m.keep for m in record.cases()),
        "remarks": bool(record.cases()),
        **{f"{s} kept": any(m.keep for m in record.cases()) for s in ("summary", "times")},
        **{s: any(not m.keep for m in record.cases()) for s in ("summary", "times")},
    }
    texts = sections(record)
    return "\n\n".join(f"### {title}\n\n{texts[name]}" for name, title in TITLES.items() if has[name])


def time_ratios(measurements: Sequence[Measurement], peer: str, mode: str) -> list[float]:
    """How many times longer the peer takes than Columba beside it, for each case. Runs that were cut off count as they are."""
    found = [(r, r.beside.get(mode)) for m in measurements if (r := _choose(m, peer, mode)) is not None]
    return [r.seconds[mode] / ours for r, ours in found if ours]


def roofline_ratios(measurements: Sequence[Measurement], mode: str, peer: str = COLUMBA) -> list[float]:
    """Measured time over the roofline, for graphs of over :data:`LARGE` edges."""
    found = [(m, m.of(peer)) for m in measurements if m.edges > LARGE]
    return [r.seconds[mode] / m.roofline[mode] for m, r in found if r is not None and mode in r.seconds]


def memory_ratios(measurements: Sequence[Measurement], *, libraries: bool) -> list[float]:
    """Growth in Columba's training step over the leanest peer's, or over the leanest library's."""
    found = []
    for m in measurements:
        others = [r for r in m.results if r.peer != COLUMBA and r.bytes and (not libraries or r.peer in LIBRARIES)]
        if others:
            leanest = min(others, key=lambda r: r.bytes)
            if leanest.beside_bytes:
                found.append(leanest.beside_bytes / leanest.bytes)
    return found


def peers_of(measurements: Sequence[Measurement]) -> list[str]:
    """The peers that any case has, in the order of tables."""
    present = {r.peer for m in measurements for r in m.results}
    return [p for family in FAMILIES.values() for p in family if p in present]


def _choose(m: Measurement, peer: str, mode: str) -> Result | None:
    if peer != BEST_LIBRARY:
        result = m.of(peer)
        return result if result is not None and mode in result.seconds else None
    known = [r for r in m.results if r.peer in LIBRARIES and mode in r.seconds]
    return min(known, key=lambda r: r.seconds[mode], default=None)


def _machine(measurements: Sequence[Measurement]) -> str:
    flops = sorted(m.limits["flops"] / 1e9 for m in measurements)
    read = sorted(m.limits["bandwidth"] / 1e9 for m in measurements)
    names = ", ".join(dict.fromkeys(m.machine for m in measurements if m.machine))
    return (
        f"{names or 'A machine of unknown make'}. Measured in the same runs: sgemm {flops[0]:.0f} to {flops[-1]:.0f} GFLOP/s, "
        f"memory read {read[0]:.0f} to {read[-1]:.0f} GB/s."
    )


def _summary(measurements: Sequence[Measurement]) -> str:
    peers = peers_of(measurements)
    rows = []
    for peer in (*peers, *([BEST_LIBRARY] if set(peers) & set(LIBRARIES) else [])):
        ratios = [time_ratios(measurements, peer, mode) for mode in MODES]
        cells = [_mean_and(r, min) for r in ratios]
        rows.append([f"{peer}: times slower than Columba (least)", *cells, _counts(ratios)])
    near = [roofline_ratios(measurements, mode) for mode in MODES]
    rows.append(
        [
            f"Columba over the roofline, graphs of over {LARGE:,} edges (most)",
            *(_mean_and(r, max) for r in near),
            _counts(near),
        ]
    )
    for name, libraries in (("the leanest peer's", False), ("the leaner's of PyG and DGL", True)):
        memory = memory_ratios(measurements, libraries=libraries)
        rows.append([f"Columba's memory growth over {name} (most)", "", _mean_and(memory, max), str(len(memory))])
    return table(["geometric means", "inference", "training step", "cases"], rows)


def _mean_and(ratios: Sequence[float], extreme: Callable[[Sequence[float]], float]) -> str:
    if not ratios:
        return "-"
    return f"{geometric_mean(ratios):.2f} ({extreme(ratios):.2f})"


def _counts(ratios: Sequence[Sequence[float]]) -> str:
    """How many cases: one number, or those of inference and training."""
    counts = list(dict.fromkeys(len(r) for r in ratios))
    return " / ".join(map(str, counts))


def _tables(measurements: Sequence[Measurement]) -> str:
    """For each family of peers and each mode, a table of the cases that any of them ran."""
    parts = []
    for family, members in FAMILIES.items():
        for mode in MODES:
            peers = [p for p in members if any(_choose(m, p, mode) for m in measurements)]
            if peers:
                title = f"**{NAMES[mode].capitalize()}, ms; {family}** (times slower than Columba in the same run)"
                parts.append(f"{title}\n\n{_times(measurements, peers, mode)}")
    return "\n\n".join(parts)


def _times(measurements: Sequence[Measurement], peers: Sequence[str], mode: str) -> str:
    rows = []
    for m in measurements:
        results = [_choose(m, p, mode) for p in peers]
        ours = m.of(COLUMBA)
        if not any(results):
            continue
        mine = ours.seconds.get(mode, math.nan) if ours is not None else math.nan
        row = [m.case.title, f"{m.roofline[mode] * 1e3:.1f}", f"{mine * 1e3:.1f}", f"{mine / m.roofline[mode]:.2f}"]
        rows.append([*row, *(_time(r, mode) for r in results)])
    means = [time_ratios(measurements, p, mode) for p in peers]
    rows.append(["**geometric mean**", "", "", "", *(f"**{geometric_mean(r):.2f}**" if r else "-" for r in means)])
    return table(["case", "roofline", "Columba", "of roofline", *peers], rows)


def _time(result: Result | None, mode: str) -> str:
    if result is None:
        return "-"
    sign = ">" if mode in result.at_least else ""
    seconds, ours = result.seconds[mode], result.beside.get(mode)
    ratio = f" ({sign}{seconds / ours:.2f})" if ours else ""
    return f"{sign}{seconds * 1e3:,.1f}{ratio}"


def _speed(measurements: Sequence[Measurement]) -> str:
    """The table of the README: the hand-written peers on FB15k-237."""
    peers = ("compact", "plain")
    rows = []
    for m in measurements:
        if (m.case.graph, m.case.features, m.case.heads) == ("fb15k237", 64, 1):
            found = [(_choose(m, p, mode), mode) for mode in MODES for p in (COLUMBA, *peers)]
            cells = [f"{r.seconds[mode] * 1e3:.1f}" if r is not None else "-" for r, mode in found]
            rows.append([CASE_TITLES[m.case.layer], *cells])
    head = [f"{NAMES[mode]}: Columba" if n == 0 else p for mode in MODES for n, p in enumerate((COLUMBA, *peers))]
    return table(["", *head], rows) if rows else "Not measured."


def _memory(measurements: Sequence[Measurement]) -> str:
    peers = [p for p in peers_of(measurements) if any((r := m.of(p)) is not None and r.bytes for m in measurements)]
    rows = []
    for m in measurements:
        found = [m.of(p) for p in (COLUMBA, *peers)]
        cells = [f"{r.bytes / 1e6:,.0f}" if r is not None and r.bytes else "-" for r in found]
        rows.append([m.case.title, *cells])
    return table(["case", "Columba", *peers], rows)


def _remarks(measurements: Sequence[Measurement]) -> list[str]:
    """What a reader has to know of single peers."""
    other = {f"{r.peer} ({m.case.layer})": None for m in measurements for r in m.results if not r.comparable}
    failed: dict[tuple[str, str], list[str]] = {}
    for m in measurements:
        for r in m.results:
            if r.error:
                kept = " (kept)" if m.keep else ""
                failed.setdefault((r.peer, r.error), []).append(f"{m.case.title}{kept}")
    notes: dict[tuple[str, str], dict[str, None]] = {}
    for m in measurements:
        for r in m.results:
            if r.note:
                kept = ", freed memory kept" if m.keep else ""
                notes.setdefault((r.note, f"{r.peer}{kept}"), {})[m.case.title] = None
    parts = [f"{note} ({peer}): {'; '.join(titles)}." for (note, peer), titles in notes.items()]
    if other:
        parts.append(f"A different function of the same sizes, outputs not compared: {', '.join(other)}.")
    if any(r.at_least for m in measurements for r in m.results):
        parts.append("Times with > are of runs that were cut off.")
    if failed:
        lines = [f"- {peer}: {error}: {'; '.join(cases)}" for (peer, error), cases in failed.items()]
        parts.append("Failed or cut off:\n\n" + "\n".join(lines))
    return parts
