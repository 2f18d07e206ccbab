"""The Triton executable: runs plans with Triton kernels: on a GPU, or, slowly, on CPU tensors in Triton's interpreter."""

from __future__ import annotations

import contextlib
import functools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from columba.codegen.triton import (
    ArrayArgument,
    BufferArgument,
    CountArgument,
    KernelSchedules,
    KernelStep,
    Launch,
    MostArgument,
    TilesArgument,
    Variant,
    Workspace,
    WorkspaceArgument,
    emit,
    index_arrays,
)
from columba.codegen.triton.launches import Argument, GridSize
from columba.ir.counts import Counts
from columba.ir.indices import IndexArray
from columba.ir.plan.kernels import Buffer, HostCall, reads, writes
from columba.ir.plan.plan import Plan
from columba.ir.spaces import Space
from columba.ir.types import DType
from columba.runtime.dtypes import torch_dtype
from columba.runtime.executable import Executable, HostRunner, Launcher, check_inputs, collecting
from columba.runtime.triton.functions import dot_constants, interpreter_lock, launch_options, load_functions
from columba.runtime.triton.gpu import Gpu, GpuPlan, gpu_of
from columba.runtime.triton.replay import ReplayedPlan

VariantChoice = Callable[[Launch, Mapping[Space, int]], Variant]
"""Which variant of a launch runs on a graph with given row counts."""


class TritonExecutable(Executable):
    """The kernels of some plans, as a module of Triton functions.

    Args:
        plans: what to run.
        index_dtype: of the graph's index arrays.
        choose: which variant of a launch runs; None: as the schedule says by the graph's counts.
        schedules: how kernels run, by the names of plan and kernel; see :func:`columba.codegen.triton.candidates`.
        precision: of products of float32 on a GPU, one of :data:`columba.runtime.backends.PRECISIONS`; None: as PyTorch's
            settings say.
        cuda_graphs: plans that come back run as CUDA graphs.

    Raises:
        columba.codegen.triton.IllegalSchedule: a kernel cannot run as its schedule says.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        index_dtype: DType,
        choose: VariantChoice | None = None,
        *,
        schedules: KernelSchedules | None = None,
        precision: str | None = None,
        cuda_graphs: bool = False,
    ) -> None:
        self.module = emit(plans, schedules)
        self.plans = self.module.plans
        self.runners = {
            plan.name: PlanRunner(
                plan,
                self.module.steps[plan.name],
                self.module.source,
                choose or Launch.variant,
                precision,
                cuda_graphs=cuda_graphs,
            )
            for plan in self.module.plans
        }

    @property
    def source(self) -> str:
        return self.module.source

    def index_arrays(self, plan: Plan) -> tuple[IndexArray, ...]:
        """The index arrays that are bound to a plan, in order: those that its launches read."""
        return index_arrays(self.module.steps[plan.name])

    def bind(
        self,
        plan: str,
        index: Sequence[Tensor],
        counts: Sequence[int],
        host: HostRunner | None = None,
    ) -> Launcher:
        """The plan prepared for one graph. Nothing here waits for the device, or looks at what tensors hold."""
        gpu = gpu_of(index[0].device) if index else None
        bound = _BoundPlan(self.runners[plan], index, counts, host)
        return bound if gpu is None else bound.on(gpu)


class _BoundPlan(Launcher):
    """A plan on one graph whose tensors are the CPU's, or that reads none of it. Nothing is packed."""

    def __init__(
        self, runner: PlanRunner, index: Sequence[Tensor], counts: Sequence[int], host: HostRunner | None
    ) -> None:
        self.runner, self.index, self.counts, self.host = runner, index, counts, host
        self.gpus: dict[torch.device, GpuPlan | ReplayedPlan] = {}
        rows = Counts(counts)
        self.checks = [(b.name, torch_dtype(b.type.dtype), rows.shape(b.type)) for b in runner.plan.inputs]

    def check(self, inputs: Sequence[Tensor]) -> None:
        """ValueError where an input has another dtype or shape than the kernels expect."""
        check_inputs(self.runner.plan.name, inputs, self.checks)

    def run(self, inputs: Sequence[Tensor], spare: tuple[int, ...] = ()) -> list[Tensor]:
        """The outputs. Temporaries are tensors of their own, so ``spare`` inputs are left as they are."""
        gpu = gpu_of(inputs[0].device) if inputs and not self.index else None
        if gpu is not None:
            return self.on(gpu).run(inputs)
        return self.runner.run([x.contiguous() for x in inputs], self.index, self.counts, self.host)

    def on(self, gpu: Gpu) -> GpuPlan | ReplayedPlan:
        """The plan on a GPU. Where it reads no index arrays, its inputs say which."""
        if gpu.device not in self.gpus:
            r = self.runner
            plan = GpuPlan(
                r.plan,
                r.steps,
                r.source,
                r.choose,
                gpu,
                self.index,
                self.counts,
                self.host,
                precision=r.precision,
            )
            self.gpus[gpu.device] = ReplayedPlan(plan) if r.cuda_graphs else plan
        return self.gpus[gpu.device]


Empty = Callable[[Sequence[int], torch.dtype], Tensor]
"""Allocates a tensor of a shape and a dtype."""


def _empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype)


class PlanRunner:
    """One plan: its steps, and when each of its buffers is last read. ``empty`` allocates what runs in the interpreter write."""

    def __init__(
        self,
        plan: Plan,
        steps: Sequence[KernelStep],
        source: str,
        choose: VariantChoice,
        precision: str | None = None,
        empty: Empty = _empty,
        *,
        cuda_graphs: bool = False,
    ) -> None:
        self.plan = plan
        self.precision, self.cuda_graphs = precision, cuda_graphs
        self.steps = steps
        self.source = source
        self.choose = choose
        self.empty = empty
        self.arrays = {array: n for n, array in enumerate(index_arrays(steps))}
        self.dead_after = self._last_reads()

    def _last_reads(self) -> list[list[Buffer]]:
        """For each step, the temporaries that nobody reads after it."""
        last: dict[Buffer, int] = {}
        for n, step in enumerate(self.steps):
            for buffer in (*reads(step.kernel), *writes(step.kernel)):
                last[buffer] = n
        kept = {*self.plan.inputs, *self.plan.outputs}
        return [[b for b, at in last.items() if at == n and b not in kept] for n in range(len(self.steps))]

    def run(
        self, inputs: Sequence[Tensor], index: Sequence[Tensor], counts: Sequence[int], host: HostRunner | None
    ) -> list[Tensor]:
        call = _Call(self, dict(zip(self.plan.inputs, inputs, strict=True)), index, counts)
        with _interpreting():
            times = collecting()
            run = call.step if times is None else functools.partial(call.timed, times.setdefault(self.plan.name, {}))
            for step, dead in zip(self.steps, self.dead_after, strict=True):
                run(step, host)
                for buffer in dead:
                    del call.tensors[buffer]
        return [call.tensors[b] for b in self.plan.outputs]


class _Call:
    """One run of a plan in the interpreter: what its buffers are."""

    def __init__(
        self,
        runner: PlanRunner,
        tensors: dict[Buffer, Tensor],
        index: Sequence[Tensor],
        counts: Sequence[int],
    ) -> None:
        self.runner = runner
        self.tensors = tensors
        self.index = index
        self.counts = Counts(counts)
        self.functions = load_functions(runner.source, interpreted=True)

    def timed(self, times: dict[str, list[float]], step: KernelStep, host: HostRunner | None) -> None:
        """A step, timed; the parts of one kernel of the plan are added up."""
        start = time.perf_counter()
        self.step(step, host)
        if not isinstance(step.kernel, HostCall):
            times.setdefault(step.of, []).append(time.perf_counter() - start)

    def step(self, step: KernelStep, host: HostRunner | None) -> None:
        if isinstance(step.kernel, HostCall):
            if host is None:
                raise ValueError(f"plan {self.runner.plan.name} has host calls; give run(host=...)")
            results = host(step.kernel.program, [self.tensors[b] for b in step.kernel.args])
            self.tensors.update(zip(step.kernel.results, results, strict=True))
            return
        for buffer in writes(step.kernel):
            self.tensors[buffer] = self.allocate(self.counts.shape(buffer.type), torch_dtype(buffer.type.dtype))
        parts: dict[Workspace, Tensor] = {}
        for launch in step.launches:
            for workspace in launch.workspaces:
                shape = (self._size(workspace.tiles), workspace.size)
                parts[workspace] = self.allocate(shape, torch_dtype(workspace.dtype))
                if workspace.zeroed:
                    parts[workspace].zero_()
            for buffer in launch.zeroed:
                self.tensors[buffer].zero_()
            self._launch(launch, parts, rounded=step.rounded)

    def allocate(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return self.runner.empty(shape, dtype)

    def _launch(self, launch: Launch, parts: dict[Workspace, Tensor], *, rounded: bool) -> None:
        variant = self.runner.choose(launch, self.counts)
        grid = tuple(self._size(g) for g in variant.grid)
        if 0 in grid:
            return
        arguments = [self._argument(a, parts) for _, a in launch.arguments]
        constants = dict(variant.constants) | dot_constants(launch, interpreted=True)
        function = getattr(self.functions, launch.function)
        function[grid](*arguments, **constants, **launch_options(variant, nvidia=False, rounded=rounded))

    def _argument(self, argument: Argument, parts: dict[Workspace, Tensor]) -> Tensor | int:
        match argument:
            case BufferArgument(buffer):
                return self.tensors[buffer]
            case ArrayArgument(array):
                return self._array(array)
            case CountArgument(space):
                return self.counts[space]
            case TilesArgument(array):
                return self._array(array).numel() // array.columns
            case MostArgument():
                return argument.of(self.counts)
            case WorkspaceArgument(workspace):
                return parts[workspace]

    def _array(self, array: IndexArray) -> Tensor:
        return self.index[self.runner.arrays[array]]

    def _size(self, size: GridSize) -> int:
        match size.of:
            case int():
                rows = size.of
            case Space():
                rows = self.counts[size.of]
            case table:
                rows = self._array(table).numel() // table.columns
        return size.programs(rows, INTERPRETED_PROCESSORS)


INTERPRETED_PROCESSORS = 3
"""As if a GPU had so few multiprocessors, so that persistent programs take several tiles each."""

_warned = False


@contextlib.contextmanager
def _interpreting() -> Iterator[None]:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            'columba: backend="triton" runs on CPU tensors in Triton\'s interpreter, which is for debugging and very slow; '
            'use backend="cpp" there.',
            RuntimeWarning,
            stacklevel=2,
        )
    with interpreter_lock:
        yield
