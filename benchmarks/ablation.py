"""What single passes are worth: the same cases under recipes that force or forbid them."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measure import MODES, Measurement, geometric_mean
from benchmarks.peers import COLUMBA
from benchmarks.recipes import CHOSEN, RECIPES
from benchmarks.report import NAMES, table

NEAR = 1.05


def forced() -> list[str]:
    """A peer for each recipe, what the compiler chooses first."""
    return [f"{COLUMBA}:{name}" for name in sorted(RECIPES, key=lambda name: name != CHOSEN)]


def ablation_table(measurements: Sequence[Measurement]) -> str:
    """For each mode the milliseconds under each recipe, and how far the choice is from the best of them."""
    peers = forced()
    parts = []
    for mode in MODES:
        rows, distances = [], []
        for m in measurements:
            times = {r.peer: r.seconds[mode] for r in m.results if mode in r.seconds}
            if peers[0] not in times:
                continue
            best = min(times.values())
            distances.append(times[peers[0]] / best)
            cells = [f"{times[p] * 1e3:.1f}{'*' if times[p] == best else ''}" if p in times else "-" for p in peers]
            rows.append([f"{m.case}{' (kept)' if m.keep else ''}", *cells, f"{distances[-1]:.2f}"])
        if not rows:
            continue
        near = sum(d <= NEAR for d in distances)
        said = (
            f"The choice is within 5 % of the best on {near} of {len(distances)} cases, {geometric_mean(distances):.3f} times the best "
            f"in the geometric mean, {max(distances):.2f} times at worst."
        )
        head = ["case", *(p.removeprefix(f"{COLUMBA}:") for p in peers), "chosen over best"]
        parts.append(f"### {NAMES[mode].capitalize()} by recipe, ms (* the best)\n\n{table(head, rows)}\n\n{said}")
    return "\n\n".join(parts)
