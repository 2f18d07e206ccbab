"""What a compiled program would take of a GPU on a graph of given size: time at the chip's limits, and memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from columba.driver import Compilation
from columba.inspection.footprint import Footprint, footprint
from columba.inspection.resources import KernelReport
from columba.inspection.roofline import KernelCost, plan_costs, total_seconds
from columba.ir.counts import Counts
from columba.selection.chips import CHIPS, Chip

Row = Sequence[str]

CAUTION = (
    "Times are at the chip's published limits, each row read once, with assumptions of the time of a launch and of a step of a program; "
    "none was measured."
)

RESOURCES = ("registers", "spilled", "shared", "warps", "occupancy", "widest load", "matrix instructions")


@dataclass(frozen=True)
class Prediction:
    """The kernels of a program's plans with what they do on a graph, and the memory of a call or of a training step.

    ``precision`` is how fp32 products multiply: ``"ieee"``, ``"tf32"`` or ``"tf32x3"``.
    """

    counts: Counts
    costs: tuple[KernelCost, ...]
    footprint: Footprint
    precision: str = "ieee"

    @property
    def flops(self) -> float:
        return sum(c.flops for c in self.costs)

    @property
    def bytes(self) -> float:
        """Compulsory bytes."""
        return sum(c.bytes for c in self.costs)

    def seconds(self, chip: Chip, *, cached: bool = True) -> float:
        """The time of all kernels, or of the host that launches them if that is longer; without ``cached``, rows of tables beyond the
        chip's cache come from memory each time."""
        return total_seconds(self.costs, chip, self.precision, cached=cached)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for scripts; times in seconds, by the names of chips."""
        return {
            "counts": {str(space): rows for space, rows in self.counts.items()},
            "precision": self.precision,
            "flops": self.flops,
            "bytes": self.bytes,
            "seconds": {name: self.seconds(chip) for name, chip in CHIPS.items()},
            "seconds_uncached": {name: self.seconds(chip, cached=False) for name, chip in CHIPS.items()},
            "memory": self.footprint.as_dict(),
            "kernels": [self._kernel(c) for c in self.costs],
        }

    def _kernel(self, cost: KernelCost) -> dict[str, Any]:
        return {
            "plan": cost.plan,
            "kernel": cost.kernel,
            "dtype": str(cost.dtype),
            "product_flops": cost.products,
            "pointwise_flops": cost.pointwise,
            "bytes": cost.bytes,
            "launches": cost.launches,
            "steps": cost.steps,
            "seconds": {name: cost.seconds(chip, self.precision) for name, chip in CHIPS.items()},
        }

    # -------------------------------------------------------------------------------------------- text

    def table(self, chip: Chip, reports: Sequence[KernelReport] = ()) -> str:
        """A line for every kernel, and for every function if there are ``reports``; then all chips, and memory."""
        return "\n".join(
            [
                aligned(self._rows(chip, reports)),
                "",
                aligned(self._chips()),
                "",
                aligned(self._memory()),
                "",
                CAUTION,
            ]
        )

    def _rows(self, chip: Chip, reports: Sequence[KernelReport]) -> list[Row]:
        resources = RESOURCES if reports else ()
        rows: list[Row] = [("Mflop", "MB", "steps", f"µs, {chip.name}", *resources, "kernel")]
        for cost in self.costs:
            seconds = cost.seconds(chip, self.precision)
            work = (f"{cost.flops / 1e6:.1f}", f"{cost.bytes / 1e6:.2f}", str(cost.steps), f"{seconds * 1e6:.1f}")
            mine = [r for r in reports if (r.plan, r.step) == (cost.plan, cost.kernel)]
            name = f"{cost.plan} {cost.kernel}" + ("" if cost.launches == 1 else f" ({cost.launches} launches)")
            if not mine:
                rows.append((*work, *("" for _ in resources), name))
            for n, report in enumerate(mine):
                start = (
                    (*work, *_resources(report), name)
                    if n == 0
                    else ("", "", "", "", *_resources(report), report.kernel)
                )
                rows.append(start)
        steps = str(sum(c.steps for c in self.costs))
        total = (f"{self.flops / 1e6:.1f}", f"{self.bytes / 1e6:.2f}", steps, f"{self.seconds(chip) * 1e6:.1f}")
        rows.append((*total, *("" for _ in resources), "in all"))
        return rows

    def _chips(self) -> list[Row]:
        rows: list[Row] = [("ms", "ms, no gathered row cached", "of its memory", "chip")]
        for chip in CHIPS.values():
            share = self.footprint.peak / chip.memory
            times = (f"{self.seconds(chip) * 1e3:.3f}", f"{self.seconds(chip, cached=False) * 1e3:.3f}")
            rows.append((*times, f"{share:.1%}", chip.name))
        return rows

    def _memory(self) -> list[Row]:
        return [
            ("MB", "of memory"),
            *((f"{size / 1e6:.2f}", name.replace("_", " ")) for name, size in self.footprint.as_dict().items()),
        ]


def predict(compilation: Compilation, counts: Counts, precision: str = "ieee") -> Prediction:
    """What ``compilation`` takes as the Triton backend runs it, on a graph with ``counts`` rows.

    Raises:
        KeyError: the plans need the rows of a space that ``counts`` lacks.
    """
    costs = tuple(plan_costs(compilation.plans, counts))
    return Prediction(counts, costs, footprint(compilation, counts), precision)


def _resources(report: KernelReport) -> Row:
    return (
        str(report.registers),
        str(report.spilled),
        str(report.shared),
        str(report.warps),
        "" if report.occupancy is None else f"{report.occupancy:.0%}",
        f"{report.widest_load} bits" if report.widest_load else "",
        str(report.tensor_core_instructions or ""),
    )


def aligned(rows: Sequence[Row]) -> str:
    """Rows as text: columns right-aligned, the last one left-aligned.

    >>> print(aligned([("MB", "what"), ("1.50", "weights")]))
      MB  what
    1.50  weights
    """
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.rjust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows
    )
