"""Runs plans with Triton kernels: on a GPU, or, slowly, on CPU tensors in Triton's interpreter."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import linecache
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from columba.codegen.triton import (
    ArrayArgument,
    BufferArgument,
    CountArgument,
    KernelSchedules,
    KernelStep,
    Launch,
    TilesArgument,
    Variant,
    Workspace,
    WorkspaceArgument,
    emit,
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

VariantChoice = Callable[[Launch, Mapping[Space, int]], Variant]
"""Which variant of a launch runs on a graph with given row counts."""


class TritonNotFound(RuntimeError):
    """Triton is not installed."""


class TritonExecutable(Executable):
    """The kernels of some plans, as a module of Triton functions.

    Args:
        plans: what to run.
        index_dtype: of the graph's index arrays.
        choose: which variant of a launch runs; None: as the schedule says by the graph's counts.
        schedules: how kernels run, by the names of plan and kernel; see :func:`columba.codegen.triton.candidates`.

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
    ) -> None:
        self.module = emit(plans, schedules)
        self.plans = self.module.plans
        self.runners = {
            plan.name: _PlanRunner(plan, self.module.steps[plan.name], self.module.source, choose or Launch.variant)
            for plan in self.module.plans
        }

    @property
    def source(self) -> str:
        return self.module.source

    def run(
        self,
        plan: str,
        inputs: Sequence[Tensor],
        index: Sequence[Tensor],
        counts: Sequence[int],
        *,
        host: HostRunner | None = None,
    ) -> list[Tensor]:
        """The outputs of a plan: see :meth:`columba.runtime.cpp.launch.CppExecutable.run`.

        Nothing here waits for the device or looks at what tensors hold: grids come from ``counts`` and from lengths.
        """
        return self.runners[plan].run(inputs, index, counts, host)

    def bind(
        self,
        plan: str,
        index: Sequence[Tensor],
        counts: Sequence[int],
        host: HostRunner | None = None,
    ) -> Launcher:
        """The plan prepared for one graph: see :meth:`columba.runtime.cpp.launch.CppExecutable.bind`."""
        return _BoundPlan(self.runners[plan], index, counts, host)


class _BoundPlan(Launcher):
    """A plan on one graph. Nothing is packed: kernels take a pointer for each tensor, and launching takes longer than making tensors."""

    def __init__(
        self, runner: _PlanRunner, index: Sequence[Tensor], counts: Sequence[int], host: HostRunner | None
    ) -> None:
        self.runner, self.index, self.counts, self.host = runner, index, counts, host
        rows = Counts(counts)
        self.checks = [(b.name, torch_dtype(b.type.dtype), rows.shape(b.type)) for b in runner.plan.inputs]

    def check(self, inputs: Sequence[Tensor]) -> None:
        """ValueError where an input has another dtype or shape than the kernels expect."""
        check_inputs(self.runner.plan.name, inputs, self.checks)

    def run(self, inputs: Sequence[Tensor], spare: tuple[int, ...] = ()) -> list[Tensor]:
        """The outputs. Temporaries are tensors of their own, so ``spare`` inputs are left as they are."""
        return self.runner.run([x.contiguous() for x in inputs], self.index, self.counts, self.host)


class _PlanRunner:
    """One plan: its steps, and when each of its buffers is last read."""

    def __init__(self, plan: Plan, steps: Sequence[KernelStep], source: str, choose: VariantChoice) -> None:
        self.plan = plan
        self.steps = steps
        self.source = source
        self.choose = choose
        self.arrays = {array: n for n, array in enumerate(plan.index_arrays)}
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
        device = next((x.device for x in (*inputs, *index)), torch.device("cpu"))
        call = _Call(self, dict(zip(self.plan.inputs, inputs, strict=True)), index, counts, device)
        with _on(device):
            times = collecting()
            run = call.step if times is None else functools.partial(call.timed, times.setdefault(self.plan.name, {}))
            for step, dead in zip(self.steps, self.dead_after, strict=True):
                run(step, host)
                for buffer in dead:
                    del call.tensors[buffer]
        return [call.tensors[b] for b in self.plan.outputs]


class _Call:
    """One run of a plan: what its buffers are."""

    def __init__(
        self,
        runner: _PlanRunner,
        tensors: dict[Buffer, Tensor],
        index: Sequence[Tensor],
        counts: Sequence[int],
        device: torch.device,
    ) -> None:
        self.runner = runner
        self.tensors = tensors
        self.index = index
        self.counts = Counts(counts)
        self.device = device
        self.functions = load_functions(runner.source, interpreted=device.type == "cpu")

    def timed(self, times: dict[str, list[float]], step: KernelStep, host: HostRunner | None) -> None:
        """A step, waited for and timed; the parts of one kernel of the plan are added up."""
        self._wait()
        start = time.perf_counter()
        self.step(step, host)
        self._wait()
        if not isinstance(step.kernel, HostCall):
            times.setdefault(step.of, []).append(time.perf_counter() - start)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

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
        return torch.empty(shape, dtype=dtype, device=self.device)

    def _launch(self, launch: Launch, parts: dict[Workspace, Tensor], *, rounded: bool) -> None:
        variant = self.runner.choose(launch, self.counts)
        grid = tuple(self._size(g) for g in variant.grid)
        if 0 in grid:
            return
        if launch.described:
            _align(launch.described, self.tensors)
        arguments = [self._argument(a, parts) for _, a in launch.arguments]
        constants = dict(variant.constants) | dot_constants(launch, interpreted=self.device.type == "cpu")
        function = getattr(self.functions, launch.function)
        nvidia = self.device.type == "cuda" and torch.version.hip is None
        options = launch_options(variant, nvidia=nvidia, rounded=rounded)
        with _scratch(self.device) if launch.described else contextlib.nullcontext():
            function[grid](*arguments, **constants, **options)

    def _argument(self, argument: Argument, parts: dict[Workspace, Tensor]) -> Tensor | int:
        match argument:
            case BufferArgument(buffer):
                return self.tensors[buffer]
            case ArrayArgument(array):
                return self._array(array)
            case CountArgument(space):
                return self.counts[space]
            case TilesArgument(array):
                return self._array(array).numel() // 3
            case WorkspaceArgument(workspace):
                return parts[workspace]

    def _array(self, array: IndexArray) -> Tensor:
        return self.index[self.runner.arrays[array]]

    def _size(self, size: GridSize) -> int:
        if isinstance(size.of, int):
            rows = size.of
        else:
            rows = self.counts[size.of] if isinstance(size.of, Space) else self._array(size.of).numel() // 3
        programs = -(-rows // size.by) * size.times
        return min(programs, size.per_processor * processors(self.device)) if size.per_processor else programs


@functools.cache
def processors(device: torch.device) -> int:
    """The multiprocessors of a device; for the interpreter a few, so that programs take several tiles each."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 3


def launch_options(variant: Variant, *, nvidia: bool, rounded: bool) -> dict[str, int | bool]:
    """How Triton compiles a variant, for an NVIDIA GPU or for another one. ``rounded``: products are, before they are added."""
    options: dict[str, int | bool] = {
        "num_warps": variant.warps,
        "num_stages": variant.stages,
        "enable_fp_fusion": not rounded,
    }
    return options | {"maxnreg": variant.registers} if nvidia else options


def _align(described: Sequence[Buffer], tensors: dict[Buffer, Tensor]) -> None:
    """Tensor descriptors want addresses that are multiples of 16, which a view that starts inside a tensor may not have."""
    for buffer in described:
        if tensors[buffer].data_ptr() % 16:
            tensors[buffer] = tensors[buffer].clone()


@contextlib.contextmanager
def _scratch(device: torch.device) -> Iterator[None]:
    """Inside, Triton takes memory for tensor descriptors from PyTorch, on the current stream."""
    from triton.runtime import _allocation

    token = _allocation._allocator.set(lambda size, *_: torch.empty(size, dtype=torch.int8, device=device))
    try:
        yield
    finally:
        _allocation._allocator.reset(token)


def dot_constants(launch: Launch, *, interpreted: bool) -> dict[str, Any]:
    """How a matrix product multiplies: as ``torch.get_float32_matmul_precision()`` says, if operands are float32.

    The interpreter holds bfloat16 as bits, which it cannot multiply; operands, rounded before, are given to it as float32.
    """
    if launch.dot is None:
        return {}
    import triton.language as tl

    precise = launch.dot is DType.F64 or torch.get_float32_matmul_precision() == "highest"
    types = {DType.F64: tl.float64, DType.F32: tl.float32, DType.BF16: tl.bfloat16, DType.F16: tl.float16}
    operand = tl.float32 if interpreted and launch.dot is DType.BF16 else types[launch.dot]
    return {"PRECISION": "ieee" if precise else "tf32", "OPERAND": operand}


def _on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else _interpreting()


_interpreter = threading.RLock()
_warned = False


@contextlib.contextmanager
def _interpreting() -> Iterator[None]:
    """The interpreter patches ``triton.language`` while it runs: one thread at a time."""
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            'columba: backend="triton" runs on CPU tensors in Triton\'s interpreter, which is for debugging and very slow; '
            'use backend="cpp" there.',
            RuntimeWarning,
            stacklevel=2,
        )
    with _interpreter:
        yield


_loaded: dict[tuple[str, bool], ModuleType] = {}


def load_functions(source: str, *, interpreted: bool) -> ModuleType:
    """The module of emitted ``source``, its functions compiled for a GPU on their first launch, or interpreted."""
    key = (source, interpreted)
    if key not in _loaded:
        with _interpreter:
            if key not in _loaded:
                _loaded[key] = _import(source, interpreted)
    return _loaded[key]


def _import(source: str, interpreted: bool) -> ModuleType:
    try:
        from triton import knobs
    except ImportError as e:
        raise TritonNotFound(
            f"backend='triton' needs Triton, which cannot be imported ({e}); pip install triton"
        ) from e
    name = f"columba_kernels_{hashlib.sha256(source.encode()).hexdigest()[:32]}"
    file = f"<{name}>"
    # Triton reads the source of functions again, from where tracebacks find it, too; no file on a disk is trusted.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    module = ModuleType(name)
    with knobs.runtime.scope():
        knobs.runtime.interpret = interpreted
        exec(compile(source, file, "exec", dont_inherit=True), vars(module))
    if interpreted:
        _simplify_helpers(module)
    return module


def _simplify_helpers(module: ModuleType) -> None:
    """Functions that kernels call become plain Python: the interpreter would patch its language again at every call of one."""
    for name, function in list(vars(module).items()):
        if hasattr(function, "rewrite") and "_ptr" not in "".join(inspect.signature(function.fn).parameters):
            setattr(module, name, function.rewrite())
