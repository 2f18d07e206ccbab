"""Plans that come back as CUDA graphs: all launches of one at the price of one, for plans whose kernels are shorter than their launches.

A CUDA graph reads and writes the memory that it was recorded with. Inputs that were at the same address in the call before, as
parameters are, are read where they are; others are copied to where the graph reads them. Results are copied out, so that they are the
caller's as any others are: several calls may be under way, and memory lasts as long as somebody has it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from columba.ir.plan.kernels import HostCall
from columba.runtime.executable import Launcher, collecting
from columba.runtime.triton.functions import settled_precision
from columba.runtime.triton.gpu import GpuPlan, is_hooked

WARM = 2
"""Calls before one is recorded: the first compiles, the second shows which inputs stay where they are."""

PATIENCE = 3
"""Recordings of a plan, after which all inputs are copied: some move now and then."""


@dataclass(frozen=True)
class _Recording:
    """A CUDA graph of one call: ``replay`` runs it, ``outputs`` are where its results are.

    ``inputs`` are what it reads, None where that is the input of a call itself, which then has to be at the address in ``addresses``.
    """

    replay: Callable[[], None]
    inputs: list[Tensor | None]
    addresses: list[int]
    outputs: list[Tensor]


class ReplayedPlan(Launcher):
    """A plan on a graph and a GPU whose calls, from the third on, replay a CUDA graph; for each stream and precision one.

    Plans with host calls, and calls whose kernels are timed, seen by hooks, or being recorded by somebody else, run as they are.
    """

    def __init__(self, plan: GpuPlan) -> None:
        self.plan = plan
        self.replays = not any(isinstance(step.kernel, HostCall) for step in plan.emitted)
        self.recordings: dict[tuple[int, str], _Recording] = {}
        self.calls = self.recorded = 0
        self.before: list[int] = []
        self.lock = threading.Lock()

    def check(self, inputs: Sequence[Tensor]) -> None:
        self.plan.check(inputs)

    def packed(self, *, inputs: Sequence[int] = (), outputs: Sequence[int] = ()) -> ReplayedPlan | None:
        packed = self.plan.packed(inputs=inputs, outputs=outputs)
        return None if packed is None else ReplayedPlan(packed)

    def unpacked(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return self.plan.unpacked(inputs)

    def run(self, inputs: Sequence[Tensor], spare: tuple[int, ...] = ()) -> list[Tensor]:
        gpu = self.plan.gpu
        if not self.replays or collecting() is not None or is_hooked() or gpu.is_recording():
            return self.plan.run(inputs, spare)
        with self.lock, gpu.selected():
            key = gpu.stream(), settled_precision(self.plan.precision)
            addresses = [x.data_ptr() for x in inputs]
            recording = self.recordings.get(key)
            if recording is not None and any(
                there is None and a != b
                for there, a, b in zip(recording.inputs, recording.addresses, addresses, strict=True)
            ):
                recording = None
            before, self.before = self.before, addresses
            self.calls += 1
            if recording is None:
                if self.calls <= WARM:
                    return self.plan.run(inputs, spare)
                recording = self.recordings[key] = self._record(inputs, before)
            moved = [(there, x) for there, x in zip(recording.inputs, inputs, strict=True) if there is not None]
            if moved:
                torch._foreach_copy_([there for there, _ in moved], [x for _, x in moved])
            recording.replay()
            results = [torch.empty_like(x) for x in recording.outputs]
            torch._foreach_copy_(results, recording.outputs)
            return results

    def _record(self, inputs: Sequence[Tensor], before: Sequence[int]) -> _Recording:
        self.recorded += 1
        stays = [
            self.recorded <= PATIENCE and x.is_contiguous() and x.data_ptr() == address
            for x, address in zip(inputs, before, strict=True)
        ]
        given = [
            x if stay else torch.empty(x.shape, dtype=x.dtype, device=x.device)
            for x, stay in zip(inputs, stays, strict=True)
        ]
        replay, outputs = self.plan.gpu.record(lambda: self.plan.run(given))
        there = [None if stay else x for x, stay in zip(given, stays, strict=True)]
        return _Recording(replay, there, [x.data_ptr() for x in given], outputs)
