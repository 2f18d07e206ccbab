"""A GPU that is not there: Triton compiles for it, launches do nothing but count, and CPU tensors pass for the GPU's.

What would be slow or fail at first use becomes visible: what is compiled, and when; how many launches a step takes; which grids and
addresses they get; what the host does for each.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from columba.runtime import backends
from columba.runtime.self_check import verdicts
from columba.runtime.triton import functions
from columba.runtime.triton import gpu as triton_gpu
from columba.runtime.triton import launch as triton_launch

MULTIPROCESSORS = 132

NAME = "a GPU that is not there"


@dataclass(frozen=True)
class Launched:
    """One launch: the kernel's name, its grid, and the addresses and numbers that it got."""

    kernel: str
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]


@dataclass
class Seen:
    """What reached the driver."""

    launches: list[Launched] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def clear(self) -> None:
        self.launches.clear()
        self.loaded.clear()


class _Utils:
    """What Triton asks a driver's library for."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def load_binary(self, name: str, *_: Any) -> tuple[Any, ...]:
        self.seen.loaded.append(name)
        return name, name, 32, 0, 1024

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {
            "max_shared_mem": 232448,
            "max_num_regs": 65536,
            "multiprocessor_count": MULTIPROCESSORS,
            "warpSize": 32,
            "sm_clock_rate": 1,
            "mem_clock_rate": 1,
            "mem_bus_width": 1,
        }

    def unload_module(self, *_: Any) -> None: ...

    def set_printf_fifo_size(self, *_: Any) -> None: ...

    def fill_tma_descriptor(self, *_: Any) -> None: ...


class _Driver:
    """As much of a driver as launching needs."""

    def __init__(self, seen: Seen, arch: int) -> None:
        self.utils, self.arch = _Utils(seen), arch

        class Launcher:
            def __init__(self, source: Any, metadata: Any) -> None:
                self.global_scratch_size = getattr(metadata, "global_scratch_size", 0)
                self.global_scratch_align = getattr(metadata, "global_scratch_align", 1)
                self.launch_cooperative_grid = False

            def __call__(self, x: int, y: int, z: int, stream: int, function: str, *rest: Any) -> None:
                if self.global_scratch_size:
                    from triton.runtime import _allocation

                    size = self.global_scratch_size * x * y * z
                    given = _allocation._allocator.get()(size, self.global_scratch_align, stream)
                    assert given.numel() >= size
                _, metadata, enter, leave, *arguments = rest
                for hook in (enter, leave):
                    if hook is not None:
                        hook(metadata)
                seen.launches.append(Launched(function, (x, y, z), tuple(arguments)))

        self.launcher_cls = Launcher

    def is_active(self) -> bool:
        return True

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None: ...

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_device_capability(self, device: int | None = None) -> tuple[int, int]:
        return divmod(self.arch, 10)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def map_python_to_cpp_type(self, kind: str) -> str:
        return "int32_t"

    def get_device_interface(self) -> Any:
        return torch.cuda


class StandIn(triton_gpu.Gpu):
    """What the runtime takes for a GPU."""

    processors = MULTIPROCESSORS  # type: ignore[assignment]

    @property
    def is_nvidia(self) -> bool:
        return True

    def stream(self) -> int:
        return 0

    @contextmanager
    def selected(self) -> Iterator[None]:
        yield

    def timer(self) -> Callable[[], Callable[[], float]]:
        """Marks moments of the host."""
        before = time.perf_counter()

        def mark() -> Callable[[], float]:
            nonlocal before
            start, before = before, time.perf_counter()
            seconds = before - start
            return lambda: seconds

        return mark

    def wait(self) -> None: ...

    def is_recording(self) -> bool:
        return False

    def record(self, run: Callable[[], list[torch.Tensor]]) -> tuple[Callable[[], None], list[torch.Tensor]]:
        """A replay runs the same again, in the same memory."""
        kept: list[torch.Tensor] = []
        empty = triton_gpu.Gpu.empty

        def recorded(self: StandIn, shape: Any, dtype: torch.dtype) -> torch.Tensor:
            kept.append(empty(self, shape, dtype))
            return kept[-1]

        StandIn.empty = recorded  # type: ignore[method-assign]
        try:
            outputs = run()
        finally:
            del StandIn.empty  # which is Gpu's again

        def replay() -> None:
            again = iter(kept)
            StandIn.empty = lambda self, shape, dtype: next(again)  # type: ignore[method-assign]
            try:
                run()
            finally:
                del StandIn.empty  # which is Gpu's again

        replay()
        return replay, outputs


class Patch(Protocol):
    """As much of ``pytest.MonkeyPatch`` as is needed."""

    def setattr(self, target: Any, name: str, value: Any, raising: bool = True) -> None: ...


def install(monkeypatch: Patch, arch: int = 90) -> Seen:
    """Puts the stand-in where the GPU would be, until the test is over."""
    from triton.compiler.compiler import CompiledKernel
    from triton.runtime import driver

    if hasattr(CompiledKernel, "__del__"):
        del CompiledKernel.__del__  # kernels outlive the stand-in, and nothing was loaded that could be unloaded
    seen = Seen()
    monkeypatch.setattr(driver, "_active", _Driver(seen, arch))
    monkeypatch.setattr(functions, "_loaded", {})  # kernels know the driver that they were loaded by
    monkeypatch.setattr(triton_launch, "gpu_of", lambda device: StandIn(device))
    monkeypatch.setattr(backends.TRITON, "architecture", lambda device: f"sm_{arch}", raising=False)
    return seen


def choose(monkeypatch: Patch) -> None:
    """CPU tensors pass for the GPU's also where ``backend="auto"`` chooses what runs, and where kernels are checked."""
    monkeypatch.setattr(backends, "is_gpu", lambda device: True)
    monkeypatch.setattr(verdicts, "device_name", lambda device: NAME)
    monkeypatch.setattr(verdicts, "_known", {})


def install_empty(monkeypatch: Patch, launched: list[tuple[Any, ...]]) -> None:
    """The same, but nothing is compiled: grids and arguments of launches go into ``launched``."""
    install(monkeypatch)

    class Kernel:
        function = packed_metadata = None
        run = staticmethod(lambda *arguments, append=launched.append: append(arguments))

    def compile(self: Any, precision: str, nvidia: bool) -> Any:
        return triton_gpu._Compiled(self, Kernel, tuple(self.constants.values()))

    monkeypatch.setattr(triton_gpu._BoundLaunch, "compile", compile)
    monkeypatch.setattr(triton_gpu._BoundLaunch, "compile_others", lambda *_: None)


def install_interpreted(monkeypatch: Patch) -> None:
    """The same, but launches run in Triton's interpreter, on the memory that their addresses lead to."""
    install(monkeypatch)

    class Kernel:
        function = packed_metadata = None

        def __init__(self, bound: Any, constants: dict[str, Any]) -> None:
            self.bound, self.constants = bound, constants

        def run(self, x: int, y: int, z: int, *rest: Any) -> None:
            given = []
            for value, of in zip(rest[6:], self.bound.signature, strict=False):
                given.append(_at_address(value, of) if isinstance(of, torch.dtype) else value)
            function = getattr(
                functions.load_functions(self.bound.source, interpreted=True), self.bound.launch.function
            )
            options = {k: v for k, v in self.bound.options.items() if k != "maxnreg"}
            function[x, y, z](*given, **self.constants, **options)

    def compile(self: Any, precision: str, nvidia: bool) -> Any:
        products = triton_gpu.dot_constants(self.launch, interpreted=True, precision=precision, nvidia=nvidia)
        constants = self.constants | products
        return triton_gpu._Compiled(self, Kernel(self, constants), tuple(constants.values()))

    monkeypatch.setattr(triton_gpu._BoundLaunch, "compile", compile)
    monkeypatch.setattr(triton_gpu._BoundLaunch, "compile_others", lambda *_: None)


def _at_address(address: int, dtype: torch.dtype) -> torch.Tensor:
    if not address:
        return torch.empty(0, dtype=dtype)
    memory = (ctypes.c_char * dtype.itemsize).from_address(address)
    return torch.frombuffer(memory, dtype=dtype)
