"""What single passes are worth, and how good the cost model's choice is: the same cases under recipes that leave nothing to choose."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.markdown import table
from benchmarks.recipes import CHOSEN, RECIPES
from benchmarks.records import COLUMBA, MODES, NAMES, Measurement, geometric_mean

NEAR, FAR = 1.05, 1.20
"""The choice should be this near the best forced recipe on nine cases of ten, and never this far."""

FIRST = f"{COLUMBA}:{CHOSEN}"


def forced() -> list[str]:
    """A peer for each recipe, what the compiler chooses first."""
    return [f"{COLUMBA}:{name}" for name in RECIPES]


def distances(measurements: Sequence[Measurement], mode: str) -> dict[str, float]:
    """For each case the time under the cost model's choice over that under the best forced recipe."""
    found = {}
    for m in measurements:
        times = {r.peer: r.seconds[mode] for r in m.results if mode in r.seconds}
        if len(times) > 1 and FIRST in times:
            found[_title(m)] = times[FIRST] / min(t for p, t in times.items() if p != FIRST)
    return found


def verdict(measurements: Sequence[Measurement]) -> str:
    """How near the choice is to the best forced recipe, over cases and both modes."""
    found = {f"{case}, {NAMES[mode]}": d for mode in MODES for case, d in distances(measurements, mode).items()}
    if not found:
        return "Nothing was measured under forced recipes."
    near = sum(d <= NEAR for d in found.values())
    worst = max(found, key=found.__getitem__)
    far = [f"{case} ({d:.2f})" for case, d in found.items() if d > NEAR]
    text = (
        f"The cost model's choice takes at most {NEAR:.2f} times as long as the best forced recipe in {near} of {len(found)} "
        f"({100 * near / len(found):.0f} %; cases, inference and training counted apart), {geometric_mean(list(found.values())):.3f} times "
        f"in the geometric mean, {found[worst]:.2f} times at worst ({worst})"
    )
    text += f", which is over {FAR:.2f}." if found[worst] > FAR else "."
    return text + (f" Farther off: {'; '.join(far)}." if far else "")


def ablation_table(measurements: Sequence[Measurement]) -> str:
    """For each mode the milliseconds under each recipe; what the choice comes to; and how far it is from the best of them."""
    peers = forced()
    parts = [verdict(measurements)]
    for mode in MODES:
        near = distances(measurements, mode)
        rows = []
        for m in measurements:
            if _title(m) not in near:
                continue
            times = {r.peer: r.seconds[mode] for r in m.results if mode in r.seconds}
            best = min(t for p, t in times.items() if p != FIRST)
            cells = [f"{times[p] * 1e3:.1f}{'*' if times[p] == best else ''}" if p in times else "-" for p in peers]
            rows.append([_title(m), *cells, f"{near[_title(m)]:.2f}"])
        if rows:
            head = ["case", *(p.removeprefix(f"{COLUMBA}:") for p in peers), "chosen over best"]
            parts.append(f"{NAMES[mode].capitalize()}, ms (* the best):\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def _title(m: Measurement) -> str:
    return f"{m.case.title}{' (kept)' if m.keep else ''}"
