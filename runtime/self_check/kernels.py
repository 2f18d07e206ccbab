"""Runs every kernel of a program, in every variant, on graphs of its own, and compares what each writes with the oracle."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from columba.codegen.triton import KernelStep, Launch, Variant, index_arrays
from columba.ir.counts import Counts
from columba.ir.plan.kernels import Buffer, HostCall, reads, writes
from columba.ir.plan.plan import Plan, spaces_of
from columba.ir.spaces import NODE_SPACES, Space
from columba.ir.types import TensorType
from columba.runtime.dtypes import torch_dtype
from columba.runtime.executable import HostRunner
from columba.runtime.graphs.graph import Graph
from columba.runtime.host import run_host_program
from columba.runtime.self_check.graphs import LEAST_EDGES, Sample, large
from columba.runtime.self_check.job import Job, Verdict
from columba.runtime.self_check.memory import GuardedMemory
from columba.runtime.self_check.oracle import Arithmetic, Expected, jumps, tolerance_of
from columba.runtime.self_check.process import CouldNotCheck
from columba.runtime.triton.aot import architecture
from columba.runtime.triton.gpu import Gpu, GpuPlan, gpu_of
from columba.runtime.triton.launch import PlanRunner, TritonExecutable
from columba.runtime.triton.precompile import PrecompileError, WorkerEnded, jobs_of, precompile


class _Wrong(Exception):
    """A kernel is wrong; says how."""


def _guarded(gpu: Gpu, memory: GuardedMemory) -> Gpu:
    """The same GPU, which allocates guarded memory."""
    found = copy.copy(gpu)
    vars(found)["empty"] = memory.empty
    return found


class KernelCheck:
    """One check. ``say`` is told what comes next; ``running`` is the kernel that is being compiled or run."""

    def __init__(self, job: Job, say: Callable[[str], None] = lambda at: None) -> None:
        self.job, self.say = job, say
        self.running = ""
        self.kernels = 0
        self.device = torch.device(job.device)
        self.gpu = gpu_of(self.device)

    def prepare(self) -> None:
        """Takes the device.

        Raises:
            CouldNotCheck: it is another one than the job is for.
            RuntimeError: PyTorch cannot use it.
        """
        self.say("starting")
        if self.gpu is not None:
            self._select(self.gpu)
        torch.empty(1, device=self.device).fill_(0).item()
        plans = self.job.parsed_plans()
        self.executable = TritonExecutable(
            plans, self.job.index_dtype, schedules=self.job.parsed_schedules(), precision=self.job.precision
        )
        self.module = self.executable.module
        for runner in self.executable.runners.values():
            runner.source = self.job.source  # which is what will run, whatever would be emitted here

    def _select(self, gpu: Gpu) -> None:
        torch.cuda.set_device(gpu.device)
        name = torch.cuda.get_device_name(gpu.device)
        if name != self.job.gpu:
            raise CouldNotCheck(f"{gpu.device} is {name} in the process that checks, not {self.job.gpu}")

    def run(self) -> Verdict:
        """What came of it; exceptions are those of kernels that do not compile, or do not run."""
        plans = self.module.plans
        square = Space.NODE in (found := {space for plan in plans for space in spaces_of(plan)}) or not (
            found & set(NODE_SPACES)
        )
        batch = Space.GRAPH in found
        try:
            if self.gpu is not None:
                self._compile_all()
            for sample in self.job.samples:
                self._check_on(sample.build(square=square, batch=batch, device=self.device), sample)
            if self.job.large:
                width = max((b.type.size for plan in plans for b in plan.buffers if b.type.space in FINE), default=1)
                self._check_on_large(large(width), square=square, batch=batch)
        except _Wrong as e:
            return Verdict(False, self.running, str(e), self.kernels)
        return Verdict(True, kernels=self.kernels)

    # -------------------------------------------------------------------------------------------- one graph

    def _check_on_large(self, sample: Sample, *, square: bool, batch: bool) -> None:
        """On fewer edges where there is no memory for all."""
        try:
            self._check_on(sample.build(square=square, batch=batch, device=self.device), sample)
            return
        except torch.OutOfMemoryError:
            if sample.edges <= LEAST_EDGES:
                raise
        torch.cuda.empty_cache()  # after what the exception kept alive is freed
        self._check_on_large(sample.with_edges(max(LEAST_EDGES, sample.edges // 5)), square=square, batch=batch)

    def _check_on(self, graph: Graph, sample: Sample) -> None:
        """All kernels of all plans.

        Raises:
            _Wrong: one of them is wrong.
        """
        plans, structure, counts = self.module.plans, graph.structure, graph.counts()
        generator = torch.Generator().manual_seed(0)
        forward = plans[0]
        given = [self._random(b.type, counts, generator) for b in forward.inputs]
        allowed = tolerance_of(plans, precision=self.job.precision, terms=sample.edges)
        margins = (allowed, -allowed) if jumps(plans) else ()
        ways = [Arithmetic(), Arithmetic(rounded=True), *(Arithmetic(margin=m) for m in margins)]
        inputs: list[list[Tensor]] = [_as(way, given) for way in ways]
        got = given
        for plan in plans:
            held = [way.run(plan, x, structure) for way, x in zip(ways, inputs, strict=True)]
            expected = Expected(held[0], held[1], tuple(held[2:]))
            outputs = self._check_plan(plan, got, graph, sample, expected, allowed)
            if plan is forward and len(plans) > 1:
                directions = [self._random(b.type, counts, generator) for b in plan.outputs]
                results = [[h[b] for b in plan.outputs] for h in held]
                inputs = [
                    self._backward_inputs(x, r, _as(way, directions))
                    for way, x, r in zip(ways, inputs, results, strict=True)
                ]
                got = self._backward_inputs(given, outputs, directions)

    def _backward_inputs(
        self, inputs: Sequence[Tensor], results: Sequence[Tensor], directions: Sequence[Tensor]
    ) -> list[Tensor]:
        places = {"input": inputs, "result": results, "grad": directions}
        return [places[kind][n] for kind, n in self.job.sources]

    def _check_plan(
        self, plan: Plan, inputs: Sequence[Tensor], graph: Graph, sample: Sample, expected: Expected, allowed: float
    ) -> list[Tensor]:
        """The outputs of a plan, each of whose kernels was run by itself in all variants, and then all together."""
        counts = graph.counts()
        host = functools.partial(run_host_program, counts=counts.in_order)
        held: dict[Buffer, Tensor] = dict(zip(plan.inputs, inputs, strict=True))
        for step in self.module.steps[plan.name]:
            args = [held[b] for b in reads(step.kernel)]
            for variant in range(max((len(launch.variants) for launch in step.launches), default=1)):
                self._now(plan, step.of, sample)
                found = self._run_step(step, args, variant, graph, host)
                self._compare(writes(step.kernel), found, expected, allowed, sample)
                self.kernels += 1
            held.update(zip(writes(step.kernel), found, strict=True))
        self._now(plan, "all kernels together", sample)
        launcher = self.executable.bind(
            plan.name, self._index(self.module.steps[plan.name], graph), counts.in_order, host
        )
        found = launcher([x.clone() for x in inputs])
        self._wait()
        self._compare(plan.outputs, found, expected, allowed, sample)
        return found

    def _compare(
        self, buffers: Sequence[Buffer], found: Sequence[Tensor], expected: Expected, allowed: float, sample: Sample
    ) -> None:
        for buffer, rows in zip(buffers, found, strict=True):
            wrong = expected.difference(buffer, rows, allowed)
            if wrong is not None:
                raise _Wrong(f"on {sample.name}, {wrong}")

    def _run_step(
        self, step: KernelStep, args: Sequence[Tensor], variant: int, graph: Graph, host: HostRunner
    ) -> list[Tensor]:
        """What a kernel writes; every tensor that it gets stands between guards of its own.

        Raises:
            _Wrong: it wrote to a guard.
        """
        if isinstance(step.kernel, HostCall):
            return host(step.kernel.program, args)
        alone = Plan(step.kernel.name, reads(step.kernel), writes(step.kernel), (step.kernel,))
        memory = GuardedMemory(self.device)
        inputs, index = [memory.copy(x) for x in args], [memory.copy(x) for x in self._index((step,), graph)]
        counts = graph.counts().in_order

        def choose(launch: Launch, counts: Mapping[Space, int]) -> Variant:
            return launch.variants[min(variant, len(launch.variants) - 1)]

        if self.gpu is None:
            runner = PlanRunner(alone, (step,), self.job.source, choose, empty=memory.empty)
            found = runner.run(inputs, index, counts, host)
        else:
            gpu = _guarded(self.gpu, memory)
            precision = self.job.precision
            plan = GpuPlan(alone, (step,), self.job.source, choose, gpu, index, counts, host, precision=precision)
            found = plan.run(inputs)
        self._wait()
        if not memory.is_intact():
            raise _Wrong("it writes outside of its tensors")
        return found

    # -------------------------------------------------------------------------------------------- the rest

    def _compile_all(self) -> None:
        """All variants of all kernels, in several processes: they are then in Triton's cache.

        Raises:
            _Wrong: one of them does not compile.
            CouldNotCheck: a process that compiles ended.
        """
        module = replace(self.module, source=self.job.source)
        target, precision = architecture(self.device), self.job.precision
        jobs = list(jobs_of(module, self.job.index_dtype, [target], [precision]))
        self.running = "all kernels"
        self.say(f"compiling {len(jobs)} kernels")
        try:
            workers = min(MOST_WORKERS, len(os.sched_getaffinity(0)))
            precompile(jobs, workers, lambda done: self.say(f"compiling, with {done} of {len(jobs)} kernels done"))
        except WorkerEnded as e:  # killed, perhaps, for want of memory
            raise CouldNotCheck(str(e).partition("\n")[0]) from e
        except PrecompileError as e:
            raise _Wrong(str(e).partition("\n")[0]) from e

    def _now(self, plan: Plan, kernel: str, sample: Sample) -> None:
        self.running = f"{plan.name} {kernel}"
        self.say(f"{self.running} on {sample.name}")

    def _index(self, steps: Sequence[KernelStep], graph: Graph) -> list[Tensor]:
        dtype = torch_dtype(self.job.index_dtype)
        return [graph.structure.index(array).to(dtype) for array in index_arrays(steps)]

    def _wait(self) -> None:
        """Until the device is done, so that what went wrong is known here."""
        if self.gpu is not None:
            self.gpu.wait()

    def _random(self, of: TensorType, counts: Counts, generator: torch.Generator) -> Tensor:
        """Numbers of size 1; of matrices, so that products are; small integers, truth values."""
        shape, dtype = counts.shape(of), torch_dtype(of.dtype)
        if of.dtype.is_float:
            size = max(1, max(of.shape[-2:], default=1)) if len(of.shape) > 1 else 1
            found = torch.randn(shape, generator=generator, dtype=torch.float64) / size**0.5
        else:
            found = torch.randint(2 if dtype is torch.bool else 8, shape, generator=generator)
        return found.to(self.device, dtype)


MOST_WORKERS = 16
"""Processes that compile: each takes half a gigabyte."""

FINE = (Space.EDGE, Space.SRC_REL, Space.DST_REL, *NODE_SPACES)
"""Spaces that have many rows."""


def _as(way: Arithmetic, tensors: Sequence[Tensor]) -> list[Tensor]:
    return [x.double() if x.is_floating_point() and not way.rounded else x for x in tensors]
