"""What running asks of built kernels, whatever they are made of: executables, and launchers of one plan on one graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import torch
from torch import Tensor

from columba.ir.indices import IndexArray
from columba.ir.plan.plan import Plan
from columba.ir.program.program import Program

HostRunner = Callable[[Program, Sequence[Tensor]], list[Tensor]]

KernelTimes = dict[str, dict[str, list[float]]]
"""Seconds of each run of each kernel, by the names of plan and kernel."""

_times: ContextVar[KernelTimes | None] = ContextVar("columba_kernel_times", default=None)


@contextmanager
def kernel_times() -> Iterator[KernelTimes]:
    """Collects how long every kernel runs that is called inside the block, and in backward passes of what was called there."""
    times: KernelTimes = {}
    with collecting_in(times):
        yield times


@contextmanager
def collecting_in(times: KernelTimes | None) -> Iterator[None]:
    """Inside, the times of kernels are collected there: PyTorch runs backward passes on a GPU in a thread of their own."""
    token = _times.set(times)
    try:
        yield
    finally:
        _times.reset(token)


def collecting() -> KernelTimes | None:
    """Where the times of kernels are collected at the moment, if they are."""
    return _times.get()


class Launcher(Protocol):
    """A plan on one graph. A call, which is ``check`` and ``run``, takes tensors for ``plan.inputs`` and gives ``plan.outputs``."""

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        self.check(inputs)
        return self.run(inputs)

    def check(self, inputs: Sequence[Tensor]) -> None:
        """ValueError if an input has another dtype or shape than the plan says: see :func:`check_inputs`."""
        ...

    def run(self, inputs: Sequence[Tensor], spare: tuple[int, ...] = ()) -> list[Tensor]:
        """The outputs for inputs that passed ``check``. Inputs at the positions ``spare`` may be overwritten once they have been read."""
        ...

    def packed(self, *, inputs: Sequence[int] = (), outputs: Sequence[int] = ()) -> Launcher | None:
        """The same plan, some of whose inputs or outputs, by their positions, stand in one tensor of bytes, which comes last.

        Buffers of the same types that are packed in the same order stand at the same places. None where that gains nothing.
        """
        return None

    def unpacked(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The inputs of the plan that nothing is packed of."""
        return list(inputs)


class Executable(Protocol):
    """The kernels of some plans, whatever they are made of."""

    plans: tuple[Plan, ...]

    @property
    def source(self) -> str: ...

    def index_arrays(self, plan: Plan) -> tuple[IndexArray, ...]:
        """The index arrays that are bound to a plan, in order: those that it lists."""
        return plan.index_arrays

    def bind(
        self,
        plan: str,
        index: Sequence[Tensor],
        counts: Sequence[int],
        host: HostRunner | None = None,
    ) -> Launcher:
        """The plan called ``plan``, prepared for one graph: its index arrays, and the rows of every space."""
        ...

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
            inputs: tensors for ``plan.inputs``.
            index: the graph's ``plan.index_arrays``.
            counts: rows of every space, in the order of :class:`Space`.
            host: runs the programs of host calls.
        """
        return self.bind(plan, index, counts, host)(inputs)


Expected = tuple[str, torch.dtype, tuple[int, ...]]
"""What an input must be: its name, dtype and shape."""


def check_inputs(plan: str, inputs: Sequence[Tensor], expected: Sequence[Expected]) -> None:
    """ValueError if an input has another dtype or shape than expected."""
    for x, (name, dtype, shape) in zip(inputs, expected, strict=True):
        if x.dtype is not dtype or x.shape != shape:
            raise ValueError(
                f"{plan}: input {name} must be {dtype} of shape {list(shape)}, got {x.dtype} {list(x.shape)}"
            )
