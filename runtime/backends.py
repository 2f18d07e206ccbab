"""The backends: what emits kernels for plans, builds them and runs them.

Everything that depends on which of them it is asks the backend: names are compared in the registry alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from columba.ir.intraop.planned import Planned
from columba.ir.types import DType
from columba.runtime.executable import Executable


class Backend(Protocol):
    """One way to make kernels of plans."""

    @property
    def name(self) -> str:
        """What users call it."""
        ...

    def obstacle(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run on tensors of this kind, to follow its name in a sentence; None if it can."""
        ...

    def emit(self, planned: Planned, index_dtype: DType) -> str:
        """The source of all kernels."""
        ...

    def executable(self, planned: Planned, index_dtype: DType) -> Executable:
        """The kernels, built."""
        ...


class CppBackend:
    """C++ kernels, for tensors on the CPU."""

    name = "cpp"

    def obstacle(self, device: torch.device, dtype: torch.dtype) -> str | None:
        if device.type != "cpu":
            return f"runs on CPU tensors, not on {device}"
        return f"has no kernels for {dtype}" if dtype is torch.float16 else None

    def emit(self, planned: Planned, index_dtype: DType) -> str:
        from columba.codegen.cpp import emit

        return "\n".join(emit([plan], index_dtype) for plan in planned.plans)

    def executable(self, planned: Planned, index_dtype: DType) -> Executable:
        from columba.runtime.launch import CppExecutable

        return CppExecutable(planned.plans, index_dtype, planned.plan_texts)


class TritonBackend:
    """Triton kernels, for tensors on a GPU; on CPU tensors they run in Triton's interpreter. Triton is imported when it is needed."""

    name = "triton"

    def obstacle(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return None

    def emit(self, planned: Planned, index_dtype: DType) -> str:
        from columba.codegen.triton import emit

        return emit(planned.plans, planned.schedules).source

    def executable(self, planned: Planned, index_dtype: DType) -> Executable:
        from columba.runtime.triton_launch import TritonExecutable

        return TritonExecutable(planned.plans, index_dtype, schedules=planned.schedules)


BACKENDS: Mapping[str, Backend] = {backend.name: backend for backend in (CppBackend(), TritonBackend())}
"""By name."""


def backend_shown(choice: str) -> Backend:
    """The backend whose kernels are shown of what ``columba.compile(backend=choice)`` makes: C++ where none is named."""
    return BACKENDS.get(choice, BACKENDS[CppBackend.name])


def backend_named(name: str) -> Backend:
    """The backend of that name; ValueError if there is none."""
    try:
        return BACKENDS[name]
    except KeyError:
        raise ValueError(f"unknown backend {name!r}; one of {', '.join(BACKENDS)}") from None
