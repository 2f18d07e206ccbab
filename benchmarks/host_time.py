"""What the host does for a step of Triton kernels: ``python -m benchmarks.host_time``.

No GPU is needed: the tests' stand-in for the driver compiles for sm_90 and launches nothing. What is measured is the host's time in the
plans of a warm training step (allocations, addresses, launches), and the whole step with what autograd does around them, beside a bare
loop over the same compiled kernels with their arguments at hand. All are measured in turn, in the time of the thread: on a busy machine
only the ratios say something.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import columba
from benchmarks.markdown import table
from columba.nn import HGTConv, RGATConv, RGCNConv
from columba.runtime.triton import gpu

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

ROUNDS = 300
SIZE, NODES, EDGES, RELATIONS, TYPES = 64, 300, 1500, 5, 2

LAYERS: dict[str, Callable[[], torch.nn.Module]] = {
    "RGCN": lambda: RGCNConv(SIZE, SIZE, RELATIONS),
    "RGAT": lambda: RGATConv(SIZE, SIZE, RELATIONS),
    "HGT": lambda: HGTConv(SIZE, SIZE, TYPES, RELATIONS),
}


def median(seconds: list[float]) -> float:
    """In microseconds."""
    return sorted(seconds)[len(seconds) // 2] * 1e6


def measure(layer: torch.nn.Module, graph: columba.Graph) -> tuple[int, float, float, float]:
    """Launches of a step; microseconds of a bare loop over them, of the plans, of the step."""
    compiled = columba.compile(layer, backend="triton", passes="-aggregate_first,compact_materialization")
    x, direction = torch.randn(NODES, SIZE, requires_grad=True), torch.ones(NODES, SIZE)

    def step() -> None:
        compiled(x, graph).backward(direction)

    for _ in range(6):  # compiles, then takes the shortcut
        step()
    launches: list[tuple[Callable[..., None], list[Any]]] = []
    run_launch, is_hooked, run_plan = gpu._Compiled.run, gpu.is_hooked, gpu.GpuPlan.run

    def noted(self: gpu._Compiled, tensors: Any, addresses: Any, stream: int) -> None:
        given = [a if isinstance(a, int) else addresses[a[0]] + a[1] for a in self.bound.arguments]
        launches.append((self.kernel[self.bound.grid], [*given, *self.constants]))
        run_launch(self, tensors, addresses, stream)

    gpu._Compiled.run, gpu.is_hooked = noted, lambda: True  # type: ignore[method-assign]
    step()
    gpu._Compiled.run, gpu.is_hooked = run_launch, is_hooked  # type: ignore[method-assign]

    in_plans = [0.0]

    def timed(self: gpu.GpuPlan, *args: Any) -> Any:
        start = time.thread_time()
        found = run_plan(self, *args)
        in_plans[0] += time.thread_time() - start
        return found

    gpu.GpuPlan.run = timed  # type: ignore[method-assign]
    bare, plans, steps = list[float](), list[float](), list[float]()
    for _ in range(ROUNDS):
        start = time.thread_time()
        for launch, arguments in launches:
            launch(*arguments)
        bare.append(time.thread_time() - start)
        in_plans[0] = 0.0
        start = time.thread_time()
        step()
        steps.append(time.thread_time() - start)
        plans.append(in_plans[0])
    gpu.GpuPlan.run = run_plan  # type: ignore[method-assign]
    return len(launches), median(bare), median(plans), median(steps)


def main() -> None:
    import gpu_stand_in
    import pytest

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        gpu_stand_in.install(patch)
        graph = columba.Graph(
            torch.randint(NODES, (2, EDGES)),
            torch.randint(RELATIONS, (EDGES,)),
            num_nodes=NODES,
            num_relations=RELATIONS,
            node_type=torch.arange(NODES) % TYPES,
        )
        rows = []
        for name, make in LAYERS.items():
            n, bare, plans, step = measure(make(), graph)
            rows.append([name, str(n), f"{bare / n:.1f}", f"{plans / n:.1f}", f"{plans / bare:.2f}", f"{step:.0f}"])
    print(table(["", "launches", "bare loop, us a launch", "plans, us a launch", "ratio", "step, us"], rows))


if __name__ == "__main__":
    main()
