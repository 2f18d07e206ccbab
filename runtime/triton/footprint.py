"""What the Triton backend allocates for a plan on a GPU: models :func:`columba.runtime.triton.gpu.gpu_memory`."""

from __future__ import annotations

from collections.abc import Sequence

from columba.codegen.triton.launches import Workspace, grid_size
from columba.codegen.triton.module import KernelStep
from columba.ir.counts import Counts
from columba.ir.plan.kernels import HostCall
from columba.ir.plan.memory import PlanMemory, host_bytes
from columba.ir.plan.plan import Plan
from columba.runtime.triton.gpu import gpu_memory


def triton_memory(plan: Plan, steps: Sequence[KernelStep], counts: Counts) -> PlanMemory:
    """What the Triton backend allocates while it runs a plan."""
    memory = gpu_memory(plan, steps, counts, lambda w: _workspace(w, counts))
    made = [b for b in plan.outputs if b not in plan.inputs and b not in memory.from_host]
    held = counts.total(b.type for b in (*made, *memory.passed)) + memory.size
    peak = held
    for step in steps:
        if isinstance(step.kernel, HostCall):
            held += counts.total(b.type for b in step.kernel.results)
            peak = max(peak, held + host_bytes(step.kernel, counts))
    return PlanMemory(counts.total(b.type for b in plan.outputs if b not in plan.inputs), peak)


def _workspace(workspace: Workspace, counts: Counts) -> int:
    return grid_size(workspace.tiles, counts) * workspace.size * workspace.dtype.itemsize
