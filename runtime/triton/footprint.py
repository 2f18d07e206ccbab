"""What the Triton backend allocates for a plan.

It makes a tensor for each buffer when its kernel runs and drops it after its last reader; partial sums between the two launches of a
kernel live while that kernel runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from columba.codegen.triton.launches import Workspace, grid_size
from columba.codegen.triton.module import KernelStep
from columba.ir.counts import Counts
from columba.ir.plan.kernels import Buffer, HostCall, reads, writes
from columba.ir.plan.memory import PlanMemory, host_bytes
from columba.ir.plan.plan import Plan


def triton_memory(plan: Plan, steps: Sequence[KernelStep], counts: Counts) -> PlanMemory:
    """What the Triton backend allocates while it runs a plan."""
    given, last = set(plan.inputs), _last_uses(steps)
    alive: dict[Buffer, int] = {}
    peak = 0
    for n, step in enumerate(steps):
        alive |= {b: counts.bytes(b.type) for b in writes(step.kernel)}
        passing = sum(_workspace(w, counts) for launch in step.launches for w in launch.workspaces)
        if isinstance(step.kernel, HostCall):
            passing = host_bytes(step.kernel, counts)
        peak = max(peak, sum(alive.values()) + passing)
        for buffer in [b for b in alive if last[b] == n and b not in plan.outputs]:
            del alive[buffer]
    return PlanMemory(sum(size for b, size in alive.items() if b not in given), peak)


def _last_uses(steps: Sequence[KernelStep]) -> dict[Buffer, int]:
    return {b: n for n, step in enumerate(steps) for b in (*reads(step.kernel), *writes(step.kernel))}


def _workspace(workspace: Workspace, counts: Counts) -> int:
    return grid_size(workspace.tiles, counts) * workspace.size * workspace.dtype.itemsize
