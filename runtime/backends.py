"""The backends: what emits kernels for plans, builds them, runs them, and knows how they may be scheduled.

Everything that depends on which of them it is asks the backend: names are compared in the registry alone. What a backend needs is
imported when it is used: Triton need not be installed, and takes a while to import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from columba.ir.counts import Counts
from columba.ir.indices import IndexArray
from columba.ir.plan.kernels import Kernel
from columba.ir.plan.memory import PlanMemory, all_buffers
from columba.ir.plan.plan import Plan
from columba.ir.plan.planned import Planned
from columba.ir.types import DType
from columba.runtime.cpp.launch import (
    CppExecutable,  # which nearly every process uses: not to be paid for by the first call
)
from columba.runtime.executable import Executable

Changes = Mapping[str, Any]
"""What tuning changes in the schedule of one kernel, as it is written to JSON: some fields and their new values, or, with a ``kind``,
a whole schedule."""

PRECISIONS = ("ieee", "tf32", "tf32x3")
"""How products of float32 are computed on a GPU: as IEEE has them, outside NVIDIA's tensor cores; with operands rounded to TF32; or as
three such products, of what operands are rounded to and of what is left of them, nearly as precise as the first."""

KIND = "kind"
"""The field that a whole schedule has."""


@dataclass(frozen=True)
class Memory:
    """The plans of a program as a backend runs them, what it allocates for each on a graph, and the index arrays that they read."""

    plans: tuple[Plan, ...]
    memories: tuple[PlanMemory, ...]
    arrays: tuple[IndexArray, ...]


def _arrays(plans: Sequence[Plan]) -> tuple[IndexArray, ...]:
    return tuple(dict.fromkeys(a for plan in plans for a in plan.index_arrays))


class Backend(Protocol):
    """One way to make kernels of plans. What has a body here is what a backend has that derives from this and does not say otherwise."""

    name: str
    """What users call it."""

    def obstacle(self, devices: Sequence[torch.device], dtypes: Sequence[torch.dtype]) -> str | None:
        """Why it cannot run on tensors of these devices and dtypes, to follow its name in a sentence; None if it can."""
        return None

    def missing(self) -> str | None:
        """What has to be installed for it to run, and how, to follow "needs"; None if it is there, or if building says so."""
        return None

    def settings(self) -> Callable[[], Any] | None:
        """What tells the settings of PyTorch on which depends how its kernels compute, and what :meth:`objection` says of them; None where
        there are neither."""
        return None

    def objection(
        self, planned: Planned, executable: Executable, index_dtype: DType, device: torch.device, *, by_name: bool
    ) -> str | None:
        """Why a program's kernels should not run on a device, to follow "the NAME kernels of PROGRAM"; None if they may.

        ``by_name``: whether the backend was asked for by its name. This may take minutes the first time: callers keep the answer.
        """
        return None

    def standing(self, planned: Planned, index_dtype: DType, device: torch.device, *, by_name: bool) -> str:
        """What is known of a program's kernels on a device, without finding out more: follows "the NAME kernels"; may be empty."""
        return ""

    def emit(self, planned: Planned, index_dtype: DType) -> str:
        """The source of all kernels."""
        ...

    def executable(self, planned: Planned, index_dtype: DType) -> Executable:
        """The kernels, built."""
        ...

    def memory(self, planned: Planned, counts: Counts) -> Memory:
        """What it allocates on a graph: a tensor for each buffer."""
        return Memory(planned.plans, tuple(all_buffers(plan, counts) for plan in planned.plans), _arrays(planned.plans))

    def architecture(self, device: torch.device) -> str:
        """What its kernels for a device are compiled for: its processor."""
        return "native"

    def untimed(self, device: torch.device) -> str | None:
        """Why times of its kernels on a device say nothing, in a sentence; None if they do."""
        return None

    def candidates(self, kernel: Kernel, architecture: str) -> tuple[Changes, ...]:
        """The schedules that are tried for a kernel. Those whose results differ from run to run are not."""
        return ()

    def candidates_if_short(self, kernel: Kernel, seconds: float) -> tuple[Changes, ...]:
        """What is tried for a kernel because it takes so few seconds."""
        return ()

    def scheduled(self, kernel: Kernel, changes: Changes) -> tuple[Kernel, Any]:
        """The kernel with its schedule changed, and the schedule, where it is no part of the kernel (else None).

        Raises:
            ValueError: there is no such schedule, or the kernel cannot run under it.
        """
        raise ValueError(f"kernel {kernel.name}: the {self.name} backend has no schedules")


class CppBackend(Backend):
    """C++ kernels, for tensors on the CPU."""

    name = "cpp"

    def obstacle(self, devices: Sequence[torch.device], dtypes: Sequence[torch.dtype]) -> str | None:
        for device in devices:
            if device.type != "cpu":
                return f"runs on CPU tensors, not on {device}"
        return f"has no kernels for {torch.float16}" if torch.float16 in dtypes else None

    def emit(self, planned: Planned, index_dtype: DType) -> str:
        from columba.codegen.cpp import emit

        return "\n".join(emit([plan], index_dtype) for plan in planned.plans)

    def executable(self, planned: Planned, index_dtype: DType) -> Executable:
        return CppExecutable(planned.plans, index_dtype, planned.plan_texts)

    def memory(self, planned: Planned, counts: Counts) -> Memory:
        from columba.runtime.cpp.footprint import cpp_memory

        spares = ((), planned.spare)
        memories = tuple(cpp_memory(p, counts, s) for p, s in zip(planned.plans, spares, strict=False))
        return Memory(planned.plans, memories, _arrays(planned.plans))

    def untimed(self, device: torch.device) -> str | None:
        return None if device.type == "cpu" else f"C++ kernels run on the CPU, and the graph is on {device}"

    def candidates(self, kernel: Kernel, architecture: str) -> tuple[Changes, ...]:
        from columba.codegen.cpp.candidates import candidates

        return candidates(kernel)

    def candidates_if_short(self, kernel: Kernel, seconds: float) -> tuple[Changes, ...]:
        from columba.codegen.cpp.candidates import for_short

        return for_short(kernel, seconds)

    def scheduled(self, kernel: Kernel, changes: Changes) -> tuple[Kernel, Any]:
        from columba.codegen.cpp.candidates import rescheduled

        return rescheduled(kernel, changes), None


class TritonBackend(Backend):
    """Triton kernels, for tensors on a GPU; on CPU tensors they run in Triton's interpreter."""

    name = "triton"

    MOST = 16
    """Schedules of a kernel that are tried, of some dozens that are legal."""

    def missing(self) -> str | None:
        from columba.runtime.triton.functions import missing

        return missing()

    def settings(self) -> Callable[[], Any] | None:
        from columba.runtime.triton.functions import is_tf32_allowed

        return is_tf32_allowed

    def objection(
        self, planned: Planned, executable: Executable, index_dtype: DType, device: torch.device, *, by_name: bool
    ) -> str | None:
        """What the self-check says: :mod:`columba.runtime.self_check`."""
        from columba.runtime.self_check import verdicts
        from columba.runtime.triton.launch import TritonExecutable

        assert isinstance(executable, TritonExecutable)
        if by_name and verdicts.mode() != "force":
            return None
        return verdicts.objection(verdicts.Subject(planned, executable.module, index_dtype, device))

    def standing(self, planned: Planned, index_dtype: DType, device: torch.device, *, by_name: bool) -> str:
        from columba.codegen.triton import emit
        from columba.runtime.self_check import verdicts

        if by_name and verdicts.mode() != "force":
            return ", unchecked, as they were asked for by name"
        module = emit(planned.plans, planned.schedules)
        return f", {verdicts.standing(verdicts.Subject(planned, module, index_dtype, device))}"

    def emit(self, planned: Planned, index_dtype: DType) -> str:
        from columba.codegen.triton import emit

        return emit(planned.plans, planned.schedules).source

    def executable(self, planned: Planned, index_dtype: DType) -> Executable:
        from columba.runtime.triton.launch import TritonExecutable

        return TritonExecutable(
            planned.plans,
            index_dtype,
            schedules=planned.schedules,
            precision=planned.precision,
            cuda_graphs=planned.cuda_graphs,
        )

    def memory(self, planned: Planned, counts: Counts) -> Memory:
        from columba.codegen.triton import emit, index_arrays
        from columba.runtime.triton.footprint import triton_memory

        module = emit(planned.plans, planned.schedules)
        memories = tuple(triton_memory(plan, module.steps[plan.name], counts) for plan in module.plans)
        arrays = dict.fromkeys(a for plan in module.plans for a in index_arrays(module.steps[plan.name]))
        return Memory(module.plans, memories, tuple(arrays))

    def architecture(self, device: torch.device) -> str:
        if device.type == "cpu":
            from columba.codegen.triton import INTERPRETER

            return INTERPRETER
        from columba.runtime.triton.aot import architecture

        return architecture(device)

    def untimed(self, device: torch.device) -> str | None:
        if device.type != "cpu":
            return None
        return "Triton kernels run in the interpreter on the CPU, whose times say nothing; tune them on a GPU"

    def candidates(self, kernel: Kernel, architecture: str) -> tuple[Changes, ...]:
        from columba.codegen import triton

        _, *others = triton.candidates(kernel, architecture) or [None]
        legal = [triton.as_json(s) for s in others if not getattr(s, "atomic", False)]  # type: ignore[arg-type]
        return tuple(legal[:: -(-len(legal) // self.MOST) or 1])

    def scheduled(self, kernel: Kernel, changes: Changes) -> tuple[Kernel, Any]:
        """Legal on the largest GPU at least."""
        from columba.codegen import triton

        try:
            schedule = triton.from_json(changes)
            triton.check(kernel, schedule, triton.INTERPRETER)
        except ValueError as e:
            raise ValueError(f"kernel {kernel.name}: {e}") from e
        return kernel, schedule


CPP, TRITON = CppBackend(), TritonBackend()

BACKENDS: Mapping[str, Backend] = {backend.name: backend for backend in (CPP, TRITON)}
"""By name."""


def backend_named(name: str) -> Backend:
    """The backend of that name; ValueError if there is none."""
    try:
        return BACKENDS[name]
    except KeyError:
        raise ValueError(f"unknown backend {name!r}; one of {', '.join(BACKENDS)}") from None


def is_gpu(device: torch.device) -> bool:
    """Whether a device is a GPU that Triton compiles for; ROCm's are ``cuda``, too."""
    return device.type == "cuda"


@dataclass(frozen=True)
class Choice:
    """What ``columba.compile(backend=name)`` leaves to choose: whose kernels run where, and whether PyTorch runs what those cannot."""

    name: str
    on_cpu: Backend | None = None
    on_gpu: Backend | None = None
    falls_back: bool = False

    def backend(self, device: torch.device) -> Backend | None:
        """Whose kernels run on a device; None: PyTorch's."""
        return self.on_gpu if is_gpu(device) else self.on_cpu


CHOICES: Mapping[str, Choice] = {
    "auto": Choice("auto", on_cpu=CPP, on_gpu=TRITON, falls_back=True),
    **{name: Choice(name, backend, backend) for name, backend in BACKENDS.items()},
    "torch": Choice("torch"),
}
"""By name. ``torch`` has no kernels: PyTorch runs every operation."""


def choice_named(name: str) -> Choice:
    """The choice of that name; ValueError if there is none."""
    try:
        return CHOICES[name]
    except KeyError:
        raise ValueError(f"unknown backend {name!r}; one of {', '.join(CHOICES)}") from None


def backend_shown(choice: str, device: torch.device) -> Backend:
    """The backend whose kernels are shown of what ``columba.compile(backend=choice)`` makes for a device: C++ where it makes none."""
    return CHOICES[choice].backend(device) or CPP


def backend_of(changes: Changes) -> Backend:
    """The backend whose schedules are written like this."""
    return TRITON if KIND in changes else CPP
