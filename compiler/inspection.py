"""``columba.inspect``: what a model's Triton kernels take of a GPU, read from their binaries. Needs no GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from columba.explain import compile_for
from columba.ir.intraop.plan import spaces_of
from columba.ir.spaces import Space
from columba.runtime.dtypes import ir_dtype
from columba.runtime.triton_aot import Binary, compile_plans

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")


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
    "sm_90": Processor(65536, 228 * 1024, 64, 32),
    "sm_100": Processor(65536, 228 * 1024, 64, 32),
    "gfx942": Processor(131072, 64 * 1024, 32, 32, unit=512, threads=64),
}
"""From the vendors' programming guides: CUDA C++ Programming Guide, table of technical specifications; CDNA 3 ISA reference."""


@dataclass(frozen=True)
class KernelReport:
    """One kernel on one architecture."""

    plan: str
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


def inspect(model: Any, *args: Any, target: str = "sm_90", **kwargs: Any) -> Iterator[KernelReport]:
    """Compiles every Triton kernel of a model for a GPU architecture, one after the other, and reports on each.

    Args:
        model: what to compile, as :func:`columba.explain` takes it.
        args, kwargs: the arguments of a call; kernels of the backward pass are included where something requires a gradient. The graph
            among them decides which variant of a kernel is compiled.
        target: ``sm_80``, ``sm_90``, ``sm_100`` or ``gfx942``.

    Raises:
        columba.runtime.triton_aot.UnknownTarget: there is no such architecture.
    """
    compilation, graph = compile_for(model, *args, **kwargs)
    used = {space for plan in compilation.plans for space in spaces_of(plan)}
    counts = {space: graph.count(space) if space in used else 0 for space in Space}
    for binary in compile_plans(compilation.plans, ir_dtype(graph.index_dtype), target, counts):
        yield _report(binary)


def _report(binary: Binary) -> KernelReport:
    return KernelReport(
        binary.plan,
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
