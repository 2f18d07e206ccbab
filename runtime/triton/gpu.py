"""Plans on a GPU: everything that a graph decides is in place before a call, which launches compiled kernels with addresses.

A bound plan knows its grids, constants and the addresses of index arrays; temporaries and partial sums stand at fixed offsets in one
block that a call allocates. Kernels are compiled by Triton for addresses that are multiples of 16, and launched through what it
compiled: neither a graph, nor sizes, nor how an input is aligned makes it compile again.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from columba.codegen.triton import (
    ArrayArgument,
    BufferArgument,
    CountArgument,
    KernelStep,
    Launch,
    MostArgument,
    TilesArgument,
    Variant,
    Workspace,
    WorkspaceArgument,
    index_arrays,
)
from columba.codegen.triton.launches import Argument, GridSize
from columba.ir.counts import Counts
from columba.ir.plan.kernels import Buffer, HostCall, reads, writes
from columba.ir.plan.plan import Plan
from columba.ir.spaces import Space
from columba.runtime.dtypes import torch_dtype
from columba.runtime.executable import HostRunner, Launcher, check_inputs, collecting
from columba.runtime.offsets import Life, offsets
from columba.runtime.packing import Packing
from columba.runtime.triton.functions import dot_constants, launch_options, load_functions, settled_precision

ALIGNMENT = 256
"""Bytes: of what PyTorch allocates on a GPU is no less."""

ADDRESS = 16
"""Kernels are compiled for addresses that are multiples of this."""


@dataclass(frozen=True)
class Gpu:
    """One GPU, as PyTorch and Triton know it."""

    device: torch.device

    @functools.cached_property
    def processors(self) -> int:
        """Its multiprocessors."""
        return torch.cuda.get_device_properties(self.device).multi_processor_count

    @property
    def is_nvidia(self) -> bool:
        return torch.version.hip is None

    def stream(self) -> int:
        """The handle of the current stream."""
        return torch._C._cuda_getCurrentRawStream(self.device.index)

    def selected(self) -> contextlib.AbstractContextManager[Any]:
        """Inside, it is the current one."""
        if torch._C._cuda_getDevice() == self.device.index:
            return contextlib.nullcontext()
        return torch.cuda.device(self.device)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def timer(self) -> Callable[[], Callable[[], float]]:
        """Marks a moment on the stream, and gives what tells the seconds since the mark before, once the GPU is done."""
        before = torch.cuda.Event(enable_timing=True)
        before.record()

        def mark() -> Callable[[], float]:
            nonlocal before
            start, before = before, torch.cuda.Event(enable_timing=True)
            before.record()
            stop = before
            return lambda: start.elapsed_time(stop) * 1e-3

        return mark

    def wait(self) -> None:
        torch.cuda.synchronize(self.device)

    def is_recording(self) -> bool:
        """Whether what is launched now goes into a CUDA graph, and is not run."""
        return torch.cuda.is_current_stream_capturing()

    def record(self, run: Callable[[], list[Tensor]]) -> tuple[Callable[[], None], list[Tensor]]:
        """A CUDA graph of what ``run`` launches, as a function that runs it on the current stream, and what ``run`` gives, which the
        graph writes anew each time."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = run()
        return graph.replay, outputs


def gpu_of(device: torch.device) -> Gpu | None:
    """The GPU that a device is; None for the CPU, where Triton's interpreter runs."""
    if device.type != "cuda":
        return None
    return Gpu(device if device.index is not None else torch.device("cuda", torch.cuda.current_device()))


Place = tuple[int, int]
"""Where a buffer stands: the number of a tensor of the call, and an offset in bytes."""


class _BoundLaunch:
    """One launch on one graph: arguments among which a call fills in the addresses of buffers."""

    def __init__(self, source: str, launch: Launch, variant: Variant, grid: Sequence[int], options: Any) -> None:
        self.source, self.launch, self.options = source, launch, options
        self.grid = (*grid, 1, 1)[:3]
        self.constants = dict(variant.constants)
        self.arguments: list[int | Place] = []
        self.signature: list[Any] = []
        self.zeroed: list[tuple[Place, int]] = []

    def add(self, value: int | Place, of: torch.dtype | None = None) -> None:
        """A number, or the address of values of the dtype ``of``: of an index array, or of where a buffer stands."""
        self.arguments.append(value)
        self.signature.append(value if of is None else of)

    def compile(self, precision: str, nvidia: bool) -> _Compiled:
        """Compiled for a precision of products of float32 (:func:`settled_precision`)."""
        constants = self.constants | dot_constants(self.launch, interpreted=False, precision=precision, nvidia=nvidia)
        return _Compiled(self, self._warmed_up(constants, self.options), tuple(constants.values()))

    def compile_others(self, precision: str, nvidia: bool, options: Callable[[Variant], dict[str, Any]]) -> None:
        """The variants for graphs of other degrees, which Triton then finds in its caches."""
        products = dot_constants(self.launch, interpreted=False, precision=precision, nvidia=nvidia)
        for variant in self.launch.variants:
            self._warmed_up(dict(variant.constants) | products, options(variant))

    def _warmed_up(self, constants: dict[str, Any], options: dict[str, Any]) -> Any:
        function = getattr(load_functions(self.source, interpreted=False), self.launch.function)
        return function.warmup(*self.signature, grid=(1, 1, 1), **constants, **options)


@dataclass(frozen=True)
class _Compiled:
    """A launch whose kernel is compiled."""

    bound: _BoundLaunch
    kernel: Any
    constants: tuple[Any, ...]

    def run(self, tensors: Sequence[Tensor], addresses: Sequence[int], stream: int) -> None:
        """The launch through Triton's own launcher, which calls hooks."""
        for (tensor, offset), size in self.bound.zeroed:
            _zero(tensors[tensor], offset, size)
        given = [a if isinstance(a, int) else addresses[a[0]] + a[1] for a in self.bound.arguments]
        self.kernel[self.bound.grid](*given, *self.constants, stream=stream)

    def lines(self, n: int, names: dict[str, Any]) -> Iterator[str]:
        """The same as Python, without hooks. ``names`` gets what it names."""
        for (tensor, offset), size in self.bound.zeroed:
            yield f"zero(tensors[{tensor}], {offset}, {size})"
        kernel = self.kernel
        names |= {f"run_{n}": kernel.run, f"function_{n}": kernel.function, f"metadata_{n}": kernel.packed_metadata}
        names |= {f"constant_{n}_{k}": value for k, value in enumerate(self.constants)}
        grid = ", ".join(map(str, self.bound.grid))
        given = [str(a) if isinstance(a, int) else f"a{a[0]} + {a[1]}" for a in self.bound.arguments]
        given += [f"constant_{n}_{k}" for k in range(len(self.constants))]
        yield f"run_{n}({grid}, stream, function_{n}, metadata_{n}, None, None, None, {', '.join(given)})"


def _straight(launches: Sequence[_Compiled], tensors: int) -> Callable[[Sequence[Tensor], Sequence[int], int], None]:
    """Launches as one straight-line function of the tensors of a call, their addresses and the stream."""
    names: dict[str, Any] = {"zero": _zero}
    lines = [line for n, launch in enumerate(launches) for line in launch.lines(n, names)] or ["pass"]
    unpacked = "".join(f"a{n}, " for n in range(tensors))
    body = "\n    ".join([f"{unpacked}*_ = addresses", *lines])
    exec(f"def launches(tensors, addresses, stream):\n    {body}", names)
    return names["launches"]  # type: ignore[no-any-return]


def is_hooked() -> bool:
    """Whether somebody, a profiler perhaps, wants to see launches."""
    runtime = _runtime_knobs()
    enter, leave = runtime.launch_enter_hook, runtime.launch_exit_hook
    return bool(getattr(enter, "calls", enter) or getattr(leave, "calls", leave))


@functools.cache
def _runtime_knobs() -> Any:
    from triton import knobs

    return knobs.runtime


@dataclass(frozen=True)
class GpuMemory:
    """Where the buffers of a plan are: outputs and what host calls read (``passed``) are tensors of their own.

    ``temporaries`` and ``parts`` (partial sums, by the step that needs them) stand at offsets in a block of ``size`` bytes.
    """

    from_host: list[Buffer]
    passed: list[Buffer]
    temporaries: dict[Buffer, int]
    parts: dict[tuple[int, Workspace], int]
    size: int


def gpu_memory(
    plan: Plan, steps: Sequence[KernelStep], counts: Counts, bytes_of: Callable[[Workspace], int]
) -> GpuMemory:
    """The memory plan of a plan on a graph."""
    calls = [step.kernel for step in steps if isinstance(step.kernel, HostCall)]
    for_host, from_host = {b for c in calls for b in c.args}, [b for c in calls for b in c.results]
    own = dict.fromkeys(b for step in steps for b in writes(step.kernel) if b not in from_host)
    passed = [b for b in own if b in for_host and b not in plan.outputs]
    temporaries = [b for b in own if b not in passed and b not in plan.outputs]
    parts = [(n, w) for n, step in enumerate(steps) for x in step.launches for w in x.workspaces]
    sizes = [counts.bytes(b.type) for b in temporaries] + [bytes_of(w) for _, w in parts]
    lives = [_life(b, steps) for b in temporaries] + [(n, n) for n, _ in parts]
    at, size = offsets(sizes, lives, ALIGNMENT)
    return GpuMemory(
        from_host,
        passed,
        dict(zip(temporaries, at, strict=False)),
        dict(zip(parts, at[len(temporaries) :], strict=True)),
        size,
    )


class GpuPlan(Launcher):
    """A plan on one graph and one GPU. Calls may overlap, on several streams and from several threads.

    Args:
        plan, steps, source: what was emitted.
        choose: which variant of a launch runs.
        index, counts: the index arrays and counts of the graph.
        host: runs the programs of host calls.
        packing: inputs or outputs that stand in one tensor.
        precision: of products of float32; None: as PyTorch's settings say at each call.
    """

    def __init__(
        self,
        plan: Plan,
        steps: Sequence[KernelStep],
        source: str,
        choose: Callable[[Launch, Counts], Variant],
        gpu: Gpu,
        index: Sequence[Tensor],
        counts: Sequence[int],
        host: HostRunner | None,
        packing: Packing | None = None,
        precision: str | None = None,
    ) -> None:
        if host is None and any(isinstance(step.kernel, HostCall) for step in steps):
            raise ValueError(f"plan {plan.name} has host calls; give run(host=...)")
        self.plan, self.emitted, self.source, self.choose = plan, steps, source, choose
        self.gpu, self.index, self.host, self.counts = gpu, tuple(index), host, Counts(counts)
        self.precision = precision
        self.arrays = dict(zip(index_arrays(steps), self.index, strict=True))
        self.packing = packing or Packing((), self.counts, ALIGNMENT)
        inputs, outputs = self.packing.unpacked(plan.inputs), self.packing.unpacked(plan.outputs)
        self.checks = [("saved" if b is None else b.name, *self._about(b)) for b in inputs]

        memory = gpu_memory(plan, steps, self.counts, self._bytes)
        self.from_host = memory.from_host
        given = [b for b in outputs if b not in self.from_host]
        self.made = [self._about(b) for b in (*given, *memory.passed)]
        tensors = (*inputs, *given, *memory.passed)
        self.places: dict[Buffer, Place] = {}
        for n, b in enumerate(tensors):
            packed = self.packing.offsets if b is None else {b: 0}
            self.places |= {buffer: (n, offset) for buffer, offset in packed.items()}
        block = len(tensors)
        self.places |= {b: (block + 1 + n, 0) for n, b in enumerate(self.from_host)}
        self.returned = [self.places[self.packing.first_of(b)][0] for b in outputs]

        self.block = memory.size
        self.places |= {b: (block, offset) for b, offset in memory.temporaries.items()}
        self.parts = {key: (block, offset) for key, offset in memory.parts.items()}
        self.tensors = block + 1
        self.bound = [self._bound(n, step) for n, step in enumerate(steps)]
        self.compiled: dict[str, tuple[list[list[_Compiled]], list[Any]]] = {}
        self.has_products = any(launch.dot is not None for step in steps for launch in step.launches)
        self.is_described = any(launch.described for step in steps for launch in step.launches)

    # -------------------------------------------------------------------------------------------- what a graph decides

    def _about(self, buffer: Buffer | None) -> tuple[torch.dtype, tuple[int, ...]]:
        """Dtype and shape of the tensor of a buffer, or of the one that packed buffers stand in."""
        if buffer is None:
            return torch.uint8, (self.packing.size,)
        return torch_dtype(buffer.type.dtype), self.counts.shape(buffer.type)

    def _size(self, size: GridSize) -> int:
        match size.of:
            case int():
                rows = size.of
            case Space():
                rows = self.counts[size.of]
            case table:
                rows = self.arrays[table].numel() // table.columns
        return size.programs(rows, self.gpu.processors)

    def _bytes(self, workspace: Workspace) -> int:
        return self._size(workspace.tiles) * workspace.size * workspace.dtype.itemsize

    def _bound(self, n: int, step: KernelStep) -> list[_BoundLaunch]:
        found = []
        for launch in step.launches:
            variant = self.choose(launch, self.counts)
            grid = [self._size(g) for g in variant.grid]
            zeroed = [(self.places[b], self.counts.bytes(b.type)) for b in launch.zeroed]
            zeroed += [(self.parts[n, w], self._bytes(w)) for w in launch.workspaces if w.zeroed]
            options = launch_options(variant, nvidia=self.gpu.is_nvidia, rounded=step.rounded)
            bound = _BoundLaunch(self.source, launch, variant, grid, options)
            bound.zeroed = [(place, size) for place, size in zeroed if size]
            for _, argument in launch.arguments:
                self._add(bound, argument, n)
            found.append(bound)
        return found

    def _add(self, bound: _BoundLaunch, argument: Argument, n: int) -> None:
        match argument:
            case BufferArgument(buffer):
                bound.add(self.places[buffer], torch_dtype(buffer.type.dtype))
            case WorkspaceArgument(workspace):
                bound.add(self.parts[n, workspace], torch_dtype(workspace.dtype))
            case ArrayArgument(array):
                bound.add(self.arrays[array].data_ptr(), self.arrays[array].dtype)
            case CountArgument(space):
                bound.add(self.counts[space])
            case TilesArgument(array):
                bound.add(self.arrays[array].numel() // array.columns)
            case MostArgument():
                bound.add(argument.of(self.counts))

    # -------------------------------------------------------------------------------------------- calls

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        self.check(inputs)
        return self.run(inputs)

    def check(self, inputs: Sequence[Tensor]) -> None:
        """ValueError where an input has another dtype, shape or device than the kernels expect: they are given addresses alone."""
        check_inputs(self.plan.name, inputs, self.checks)
        for x, (name, *_) in zip(inputs, self.checks, strict=True):
            if x.device != self.gpu.device:
                raise ValueError(f"{self.plan.name}: input {name} must be on {self.gpu.device}, is on {x.device}")

    def run(self, inputs: Sequence[Tensor], spare: tuple[int, ...] = ()) -> list[Tensor]:
        """The outputs, for inputs that passed ``check``. The memory of ``spare`` inputs is left as it is."""
        empty = self.gpu.empty
        with self.gpu.selected(), _scratch(self.gpu) if self.is_described else contextlib.nullcontext():
            stream, precision = self.gpu.stream(), settled_precision(self.precision) if self.has_products else "ieee"
            tensors = [x if x.is_contiguous() else x.contiguous() for x in inputs]
            tensors += [empty(shape, dtype) for dtype, shape in self.made]
            tensors.append(empty((self.block,), torch.uint8))
            addresses = [x.data_ptr() for x in tensors]
            for n in range(len(inputs)):
                if addresses[n] % ADDRESS:
                    tensors[n] = tensors[n].clone()
                    addresses[n] = tensors[n].data_ptr()
            steps, straight = self.compiled.get(precision) or self._compile(precision)
            times = collecting()
            if times is not None:
                self._timed(times.setdefault(self.plan.name, {}), steps, tensors, addresses, stream)
            elif is_hooked():
                for step, launches in zip(self.emitted, steps, strict=True):
                    self._step(step, launches, tensors, addresses, stream)
            else:
                for run in straight:
                    if isinstance(run, HostCall):
                        self._host(run, tensors, addresses)
                    else:
                        run(tensors, addresses, stream)
        return [tensors[n] for n in self.returned]

    def _compile(self, precision: str) -> tuple[list[list[_Compiled]], list[Any]]:
        """The launches of each step, and the whole plan as straight-line functions with host calls between them."""
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            waiting = [
                pool.submit(self._compile_all, n, launch, precision) for n, ls in enumerate(self.bound) for launch in ls
            ]
            for done in waiting:
                done.result()
        nvidia = self.gpu.is_nvidia
        steps = [
            [launch.compile(precision, nvidia) for launch in launches if 0 not in launch.grid]
            for launches in self.bound
        ]
        straight: list[Any] = []
        known, pending = self.tensors, list[_Compiled]()
        for step, launches in zip(self.emitted, steps, strict=True):
            if isinstance(step.kernel, HostCall):
                straight += [_straight(pending, known), step.kernel]
                known, pending = known + len(step.kernel.results), []
            pending += launches
        straight.append(_straight(pending, known))
        self.compiled[precision] = steps, straight
        return self.compiled[precision]

    def _compile_all(self, n: int, launch: _BoundLaunch, precision: str) -> None:
        """All variants of a launch of step ``n``, in a thread of a pool: what another graph will need is compiled now."""

        def options(variant: Variant) -> dict[str, Any]:
            return launch_options(variant, nvidia=self.gpu.is_nvidia, rounded=self.emitted[n].rounded)

        with self.gpu.selected():
            launch.compile_others(precision, self.gpu.is_nvidia, options)

    def _step(
        self,
        step: KernelStep,
        launches: Sequence[_Compiled],
        tensors: list[Tensor],
        addresses: list[int],
        stream: int,
    ) -> None:
        if isinstance(step.kernel, HostCall):
            self._host(step.kernel, tensors, addresses)
        for launch in launches:
            launch.run(tensors, addresses, stream)

    def _timed(
        self,
        times: dict[str, list[float]],
        steps: Sequence[Sequence[_Compiled]],
        tensors: list[Tensor],
        addresses: list[int],
        stream: int,
    ) -> None:
        """The steps between marks on the stream; the parts of one kernel of the plan are added up."""
        mark = self.gpu.timer()
        found: list[tuple[str, Callable[[], float]]] = []
        for step, launches in zip(self.emitted, steps, strict=True):
            self._step(step, launches, tensors, addresses, stream)
            seconds = mark()
            if not isinstance(step.kernel, HostCall):
                found.append((step.of, seconds))
        self.gpu.wait()
        sums: dict[str, float] = {}
        for name, seconds in found:
            sums[name] = sums.get(name, 0.0) + seconds()
        for name, total in sums.items():
            times.setdefault(name, []).append(total)

    def _tensor(self, buffer: Buffer, tensors: Sequence[Tensor]) -> Tensor:
        n, offset = self.places[buffer]
        dtype, shape = self._about(buffer)
        found = tensors[n]
        if found.dtype is dtype and found.shape == shape:
            return found
        return found[offset : offset + self.counts.bytes(buffer.type)].view(dtype).view(shape)

    def _host(self, call: HostCall, tensors: list[Tensor], addresses: list[int]) -> None:
        assert self.host is not None
        results = self.host(call.program, [self._tensor(b, tensors) for b in call.args])
        for result in results:
            kept = result.contiguous()
            kept = kept.clone() if kept.data_ptr() % ADDRESS else kept
            tensors.append(kept)
            addresses.append(kept.data_ptr())

    # -------------------------------------------------------------------------------------------- packing

    def packed(self, *, inputs: Sequence[int] = (), outputs: Sequence[int] = ()) -> GpuPlan | None:
        """See :meth:`columba.runtime.executable.Launcher.packed`: one tensor is made where there would be several."""
        buffers = [*(self.plan.inputs[n] for n in inputs), *(self.plan.outputs[n] for n in outputs)]
        if len(set(buffers)) < max(2, len(buffers)) or set(buffers) & set(self.from_host):
            return None
        packing = Packing(buffers, self.counts, ALIGNMENT)
        return GpuPlan(
            self.plan,
            self.emitted,
            self.source,
            self.choose,
            self.gpu,
            self.index,
            self.counts.in_order,
            self.host,
            packing,
            self.precision,
        )

    def unpacked(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """See :meth:`columba.runtime.executable.Launcher.unpacked`."""
        return [self._tensor(b, inputs) for b in self.plan.inputs]


def _life(buffer: Buffer, steps: Sequence[KernelStep]) -> Life:
    """The first and the last step that touch a buffer."""
    found = [n for n, step in enumerate(steps) if buffer in writes(step.kernel) or buffer in reads(step.kernel)]
    return found[0], found[-1]


def _zero(tensor: Tensor, offset: int, size: int) -> None:
    """Puts zeros into ``size`` bytes of a contiguous tensor."""
    tensor.view(-1).view(torch.uint8)[offset : offset + size].zero_()


@contextlib.contextmanager
def _scratch(gpu: Gpu) -> Iterator[None]:
    """Inside, Triton takes memory for tensor descriptors from PyTorch, on the current stream."""
    from triton.runtime import _allocation

    token = _allocation._allocator.set(lambda size, *_: gpu.empty((size,), torch.int8))
    try:
        yield
    finally:
        _allocation._allocator.reset(token)
