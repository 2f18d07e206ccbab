"""Measurements as pictures: grouped bars, one group a case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.records import COLUMBA, MODES, NAMES, Measurement, Record
from benchmarks.report import LARGE, peers_of

DPI = 80
HEIGHT, GROUP = 3.6, 0.55
"""Inches: of one panel, and of one group of bars."""


def draw(record: Record, folder: Path) -> list[Path]:
    """Writes ``speedup.png``, ``roofline.png`` and ``memory.png`` as far as there are figures (system allocator); the files written.

    ImportError without matplotlib (``pip install columba[bench]``).
    """
    measurements = [m for m in record.cases() if not m.keep and m.of(COLUMBA) is not None]
    if not measurements:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, draw_one in (("speedup", _speedup), ("roofline", _roofline), ("memory", _memory)):
        figure = draw_one(measurements)
        if figure is not None:
            drawn.append(folder / f"{name}.png")
            figure.savefig(drawn[-1], dpi=DPI, metadata={"Software": None})
    return drawn


def _bars(axes: Any, cases: Sequence[Measurement], series: dict[str, list[float | None]]) -> None:
    """Groups of bars on a logarithmic axis; what is missing leaves a gap."""
    shown = {name: values for name, values in series.items() if any(v is not None for v in values)}
    width = 0.85 / max(1, len(shown))
    for n, (name, values) in enumerate(shown.items()):
        places = [k + (n - (len(shown) - 1) / 2) * width for k, v in enumerate(values) if v is not None]
        axes.bar(places, [v for v in values if v is not None], width, label=name)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xticks(range(len(cases)), [m.case.title for m in cases], rotation=40, ha="right", fontsize=7)
    axes.set_xlim(-0.6, len(cases) - 0.4)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    if shown:
        axes.legend(fontsize=7, ncols=3)


def _figure(panels: int, groups: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # no display needed

    figure = Figure(figsize=(max(5.0, GROUP * groups + 1.5), HEIGHT * panels), layout="constrained")
    return figure, figure.subplots(panels, 1, squeeze=False)[:, 0]


def _speedup(measurements: Sequence[Measurement]) -> Any:
    """How many times slower each peer is than Columba beside it."""
    peers = peers_of(measurements)
    if not peers:
        return None
    figure, panels = _figure(len(MODES), len(measurements))
    for axes, mode in zip(panels, MODES, strict=True):
        series: dict[str, list[float | None]] = {p: [] for p in peers}
        for m in measurements:
            for p in peers:
                r = m.of(p)
                known = r is not None and mode in r.seconds and r.beside.get(mode)
                series[p].append(r.seconds[mode] / r.beside[mode] if known else None)
        _bars(axes, measurements, series)
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_title(f"{NAMES[mode]}: times slower than Columba", fontsize=9)
    return figure


def _roofline(measurements: Sequence[Measurement]) -> Any:
    """Times over the roofline, of Columba and of the hand-written peers."""
    large = [m for m in measurements if m.edges > LARGE]
    if not large:
        return None
    figure, panels = _figure(len(MODES), len(large))
    for axes, mode in zip(panels, MODES, strict=True):
        series = {}
        for p in (COLUMBA, "compact", "plain"):
            found = [m.of(p) for m in large]
            series[p] = [
                r.seconds[mode] / m.roofline[mode] if r is not None and mode in r.seconds else None
                for m, r in zip(large, found, strict=True)
            ]
        _bars(axes, large, series)
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_title(f"{NAMES[mode]}: time over the roofline", fontsize=9)
    return figure


def _memory(measurements: Sequence[Measurement]) -> Any:
    """Megabytes that a training step adds."""
    figure, (axes,) = _figure(1, len(measurements))
    series = {
        p: [r.bytes / 1e6 if (r := m.of(p)) is not None and r.bytes else None for m in measurements]
        for p in (COLUMBA, *peers_of(measurements))
    }
    if not any(v is not None for values in series.values() for v in values):
        return None
    _bars(axes, measurements, series)
    axes.set_title("memory that a training step adds, MB", fontsize=9)
    return figure
