"""What the C++ backend allocates for a plan: see :class:`columba.runtime.cpp.placement.Placement`, which is what is modelled here."""

from __future__ import annotations

from collections.abc import Sequence

from columba.ir.counts import Counts
from columba.ir.plan.kernels import HostCall
from columba.ir.plan.memory import PlanMemory, host_bytes
from columba.ir.plan.plan import Plan
from columba.runtime.cpp.placement import Placement


def cpp_memory(plan: Plan, counts: Counts, spare: Sequence[int] = ()) -> PlanMemory:
    """The tensors of a plan, all at once, and the block of temporaries, whose memory later tensors use again.

    ``spare`` are the inputs whose memory is used again once they have been read, or taken over by outputs, by position.
    """
    placement = Placement(plan)
    layout = placement.layout(counts, spare)
    made = [b for n, b in enumerate(placement.tensors, len(plan.inputs)) if n not in layout.reused]
    tensors = counts.total(b.type for b in (*made, *placement.from_host))
    passing = max((host_bytes(k, counts) for k in plan.kernels if isinstance(k, HostCall)), default=0)
    outputs = counts.total(b.type for b in dict.fromkeys(plan.outputs) if b not in plan.inputs)
    return PlanMemory(outputs, tensors + passing + layout.size)
