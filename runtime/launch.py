"""Runs plans: allocates their buffers, and calls their kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from columba.codegen.cpp import Stage, emit, stages
from columba.ir.interop.program import Program
from columba.ir.intraop.kernels import Buffer, HostCall, reads, writes
from columba.ir.intraop.plan import Plan
from columba.ir.spaces import Space
from columba.ir.types import DType, TensorType
from columba.runtime.build import build, load
from columba.runtime.dtypes import torch_dtype

HostRunner = Callable[[Program, Sequence[Tensor]], list[Tensor]]

ALIGNMENT = 64
SPACES = tuple(Space)


class KernelError(RuntimeError):
    """A kernel could not do its work (it ran out of memory)."""


class ExecutableLike(Protocol):
    """The kernels of some plans, whatever they are made of. ``plans`` say which index arrays they read."""

    plans: tuple[Plan, ...]
    source: str

    def run(
        self,
        plan: str,
        inputs: Sequence[Tensor],
        index: Sequence[Tensor],
        counts: Sequence[int],
        *,
        host: HostRunner | None = None,
    ) -> list[Tensor]: ...


class Executable:
    """The built kernels of some plans."""

    def __init__(self, plans: Sequence[Plan], index_dtype: DType) -> None:
        self.plans = tuple(plans)
        self.source = emit(plans, index_dtype)
        self.library = load(build(self.source))
        self.index_dtype = torch_dtype(index_dtype)
        self.runners = {plan.name: _PlanRunner(plan, self.library) for plan in plans}

    def run(
        self,
        plan: str,
        inputs: Sequence[Tensor],
        index: Sequence[Tensor],
        counts: Sequence[int],
        *,
        host: HostRunner | None = None,
    ) -> list[Tensor]:
        """The outputs of a plan.

        Args:
            plan: its name.
            inputs: contiguous tensors for ``plan.inputs``.
            index: the graph's ``plan.index_arrays``.
            counts: rows of every space, in the order of :class:`Space`.
            host: runs the programs of host calls.
        """
        return self.runners[plan].run(inputs, index, counts, host)


@dataclass(frozen=True)
class _Arena:
    """Where the temporaries of a plan stand in one block of memory, for given row counts."""

    offsets: tuple[int, ...]
    size: int


class _PlanRunner:
    """One plan with its entries looked up."""

    def __init__(self, plan: Plan, library: ctypes.CDLL) -> None:
        self.plan = plan
        self.buffers = plan.buffers
        self.position = {b: n for n, b in enumerate(self.buffers)}
        self.steps: list[tuple[Callable[..., int], Stage] | HostCall] = []
        for step in stages(plan):
            self.steps.append(step if isinstance(step, HostCall) else (_entry(library, step), step))
        hosts = {b for k in plan.kernels if isinstance(k, HostCall) for b in (*k.args, *k.results)}
        self.own = {b for k in plan.kernels for b in writes(k)}
        self.torch_made = {b for b in self.own if b in hosts or b in plan.outputs}
        self.temporaries = [b for b in self.buffers if b in self.own and b not in self.torch_made]
        self.lives = {b: self._life(b) for b in self.temporaries}
        self.arenas: dict[tuple[int, ...], _Arena] = {}
        self.checks = [(b.name, torch_dtype(b.type.dtype), b.type) for b in plan.inputs]

    def _life(self, buffer: Buffer) -> tuple[int, int]:
        """The first and the last kernel that touch a buffer."""
        touching = [n for n, k in enumerate(self.plan.kernels) if buffer in writes(k) or buffer in reads(k)]
        return touching[0], touching[-1]

    def run(
        self, inputs: Sequence[Tensor], index: Sequence[Tensor], counts: Sequence[int], host: HostRunner | None
    ) -> list[Tensor]:
        counts = tuple(counts)
        self._check(inputs, counts)
        tensors: list[Tensor | None] = [None] * len(self.buffers)
        pointers = (ctypes.c_void_p * max(1, len(self.buffers)))()
        for buffer, x in zip(self.plan.inputs, inputs, strict=True):
            tensors[self.position[buffer]] = x
            pointers[self.position[buffer]] = x.data_ptr()
        for buffer in self.buffers:
            if buffer in self.torch_made:
                made = torch.empty(shape_of(buffer.type, counts), dtype=torch_dtype(buffer.type.dtype))
                tensors[self.position[buffer]] = made
                pointers[self.position[buffer]] = made.data_ptr()
        arena = self.arenas.get(counts) or self._arena(counts)
        memory = torch.empty(arena.size + ALIGNMENT, dtype=torch.uint8)
        base = -(-memory.data_ptr() // ALIGNMENT) * ALIGNMENT
        for buffer, offset in zip(self.temporaries, arena.offsets, strict=True):
            pointers[self.position[buffer]] = base + offset
        arrays = (ctypes.c_void_p * max(1, len(index)))(*[a.data_ptr() for a in index])
        sizes = (ctypes.c_int64 * (len(counts) + len(index)))(*counts, *[a.numel() // 3 for a in index])
        threads = torch.get_num_threads()
        for step in self.steps:
            if isinstance(step, HostCall):
                self._host(step, tensors, pointers, host)
                continue
            call, stage = step
            failed = call(pointers, arrays, sizes, threads)
            if failed:
                raise KernelError(
                    f"columba: kernel {stage.kernels[failed - 1].name} of {self.plan.name} ran out of memory"
                )
        del memory
        return [tensors[self.position[b]] for b in self.plan.outputs]  # type: ignore[misc]

    def _host(
        self,
        step: HostCall,
        tensors: list[Tensor | None],
        pointers: ctypes.Array[ctypes.c_void_p],
        host: HostRunner | None,
    ) -> None:
        if host is None:
            raise ValueError(f"plan {self.plan.name} has host calls; give run(host=...)")
        args = [tensors[self.position[b]] for b in step.args]
        for buffer, result in zip(step.results, host(step.program, args), strict=True):  # type: ignore[arg-type]
            tensors[self.position[buffer]] = result
            pointers[self.position[buffer]] = result.data_ptr()

    def _check(self, inputs: Sequence[Tensor], counts: tuple[int, ...]) -> None:
        for x, (name, dtype, declared) in zip(inputs, self.checks, strict=True):
            if x.dtype is not dtype or x.shape != shape_of(declared, counts) or not x.is_contiguous():
                raise ValueError(
                    f"{self.plan.name}: input {name} must be contiguous {dtype} of shape {list(shape_of(declared, counts))}, "
                    f"got {x.dtype} {list(x.shape)}"
                )

    def _arena(self, counts: tuple[int, ...]) -> _Arena:
        """First fit over lifetimes: temporaries that never live together share memory."""
        placed: list[tuple[int, int, tuple[int, int]]] = []
        offsets = []
        for buffer in self.temporaries:
            rows = 1 if buffer.type.space is Space.ONE else counts[SPACES.index(buffer.type.space)]
            size = -(-max(1, rows * buffer.type.size * buffer.type.dtype.itemsize) // ALIGNMENT) * ALIGNMENT
            first, last = self.lives[buffer]
            at = 0
            for start, stop, (a, b) in sorted(placed):
                if a <= last and first <= b and start < at + size and at < stop:
                    at = stop
            placed.append((at, at + size, (first, last)))
            offsets.append(at)
        arena = _Arena(tuple(offsets), max((stop for _, stop, _ in placed), default=0))
        if len(self.arenas) > 64:
            self.arenas.clear()
        self.arenas[counts] = arena
        return arena


def shape_of(t: TensorType, counts: Sequence[int]) -> tuple[int, ...]:
    """The tensor shape of a value: rows of its space, then features; a plain value has no rows."""
    return t.shape if t.space is Space.ONE else (counts[SPACES.index(t.space)], *t.shape)


def _entry(library: ctypes.CDLL, stage: Stage) -> Callable[..., int]:
    entry = getattr(library, stage.entry)
    entry.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    entry.restype = ctypes.c_int
    return entry  # type: ignore[no-any-return]
