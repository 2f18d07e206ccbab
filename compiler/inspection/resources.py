"""What kernels take of a GPU: registers, memory, and how many of them fit, read from binaries that are compiled ahead of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from columba.codegen.triton import emit
from columba.driver import Compilation
from columba.ir.counts import Counts
from columba.ir.plan.plan import spaces_of
from columba.ir.spaces import Space
from columba.ir.types import DType
from columba.runtime.triton.aot import Binary, compile_plans


@dataclass(frozen=True)
class Processor:
    """What one multiprocessor (NVIDIA) or compute unit (AMD) offers to the blocks that run on it at once."""

    registers: int  #: 32-bit registers
    shared: int  #: bytes of shared memory
    warps: int
    blocks: int
    unit: int = 256  #: registers are handed out to warps in multiples of this
    threads: int = 32  #: of a warp


PROCESSORS = {
    "sm_80": Processor(65536, 164 * 1024, 64, 32),
    "sm_89": Processor(65536, 100 * 1024, 48, 24),
    "sm_90": Processor(65536, 228 * 1024, 64, 32),
    "sm_100": Processor(65536, 228 * 1024, 64, 32),
    "gfx942": Processor(131072, 64 * 1024, 32, 32, unit=512, threads=64),
}
"""From the vendors' programming guides: CUDA C++ Programming Guide, table of technical specifications; CDNA 3 ISA reference."""


@dataclass(frozen=True)
class KernelReport:
    """One function on one architecture. ``kernel`` is its name, ``step`` that of the plan's kernel which launches it."""

    plan: str
    step: str
    kernel: str
    target: str
    constants: dict[str, int]
    warps: int
    registers: int
    spilled: int
    shared: int
    occupancy: float | None
    widest_load: int
    tensor_core_instructions: int
    assembly: str

    def as_dict(self) -> dict[str, Any]:
        """Everything but the assembly."""
        return {name: value for name, value in vars(self).items() if name != "assembly"}


def reports(
    compilation: Compilation,
    counts: Counts,
    target: str,
    index_dtype: DType = DType.I32,
    precision: str | None = None,
) -> Iterator[KernelReport]:
    """Compiles the kernels of a program for an architecture, one after the other, in the variants that a graph with ``counts`` runs.

    ``precision`` is how products of float32 are computed; None: as PyTorch's settings say.

    Raises:
        columba.runtime.triton.aot.UnknownTarget: there is no such architecture.
    """
    plans = compilation.plans
    used = {space for plan in plans for space in spaces_of(plan)}
    given = {space: counts[space] if space in used else 0 for space in Space}
    module = emit(plans)
    steps = [step.kernel.name for plan in module.plans for step in module.steps[plan.name] for _ in step.launches]
    for step, binary in zip(steps, compile_plans(plans, index_dtype, target, given, precision=precision), strict=True):
        yield _report(step, binary)


def _report(step: str, binary: Binary) -> KernelReport:
    return KernelReport(
        binary.plan,
        step,
        binary.launch.function,
        binary.target,
        dict(binary.variant.constants),
        binary.variant.warps,
        binary.registers,
        binary.spilled,
        binary.shared,
        occupancy(binary),
        binary.widest_load,
        binary.tensor_core_instructions,
        binary.assembly,
    )


def occupancy(binary: Binary) -> float | None:
    """The share of a processor's warps that can be resident; None for an architecture whose limits are not known here."""
    processor = PROCESSORS.get(binary.target)
    if processor is None:
        return None
    warps = binary.variant.warps
    a_warp = -(-max(1, binary.registers) * processor.threads // processor.unit) * processor.unit
    limits = [processor.blocks, processor.warps // warps, processor.registers // (a_warp * warps)]
    if binary.shared:
        limits.append(processor.shared // (binary.shared + (1024 if binary.target.startswith("sm") else 0)))
    return min(limits) * warps / processor.warps
