"""What a plan takes of memory, whatever runs it."""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.counts import Counts
from columba.ir.plan.kernels import HostCall
from columba.ir.plan.plan import Plan
from columba.ir.program.ops import VIEWS, Input, Value


@dataclass(frozen=True)
class PlanMemory:
    """What a plan makes: ``outputs`` bytes that it returns, ``peak`` bytes at its fullest moment, outputs made until then included."""

    outputs: int
    peak: int


def all_buffers(plan: Plan, counts: Counts) -> PlanMemory:
    """What a plan takes that has each buffer in memory of its own until all kernels have run."""
    made = [b for b in plan.buffers if b not in plan.inputs]
    passing = max((host_bytes(k, counts) for k in plan.kernels if isinstance(k, HostCall)), default=0)
    return PlanMemory(
        counts.total(b.type for b in made if b in plan.outputs), counts.total(b.type for b in made) + passing
    )


def host_bytes(kernel: HostCall, counts: Counts) -> int:
    """Intermediate values of a host call, which PyTorch holds until it is done."""
    made = [v for v in kernel.program.body if isinstance(v, Value) and not isinstance(v, (Input, *VIEWS))]
    return counts.total(v.type for v in made if v not in kernel.program.results)
