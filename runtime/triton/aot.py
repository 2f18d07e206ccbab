"""Compiles Triton kernels ahead of time, for GPUs that need not be there, and reads from the binaries what they take."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from columba.codegen.triton import (
    ArrayArgument,
    BufferArgument,
    KernelSchedules,
    Launch,
    Variant,
    WorkspaceArgument,
    emit,
)
from columba.codegen.triton.launches import Argument
from columba.ir.plan.plan import Plan
from columba.ir.spaces import Space
from columba.ir.types import DType
from columba.runtime.dtypes import torch_dtype
from columba.runtime.triton.functions import dot_constants, launch_options, load_functions

AMD = "gfx"
"""How the names of AMD's architectures begin."""


class UnknownTarget(ValueError):
    """There is no such GPU architecture, or Triton has no backend for it."""


@dataclass(frozen=True)
class Binary:
    """A compiled kernel.

    ``spilled`` is bytes of a thread's registers kept in memory; ``shared`` is bytes of shared memory a block takes. ``assembly`` is the
    target's own: SASS for NVIDIA's GPUs, with the lines of the source that it comes from, GCN for AMD's.
    """

    plan: str
    launch: Launch
    variant: Variant
    target: str
    registers: int
    spilled: int
    shared: int
    assembly: str = field(repr=False)

    @property
    def widest_load(self) -> int:
        """Bits of the widest load from global memory that a thread makes."""
        widths = [_width(load) for load in re.finditer(_LOAD, self.assembly)]
        amd = {"dwordx4": 128, "dwordx3": 96, "dwordx2": 64, "dword": 32}
        widths += [
            amd[w] for w in re.findall(r"(?:global|buffer)_load_(dwordx4|dwordx3|dwordx2|dword)\b", self.assembly)
        ]
        return max(widths, default=0)

    def loads_by_line(self) -> dict[int, list[int]]:
        """Bits of each load from global memory, by the line of the module's source that it comes from (NVIDIA's GPUs only).

        A load that the tensor memory accelerator makes counts as 128.
        """
        found: dict[int, list[int]] = {}
        line = 0
        for text in self.assembly.splitlines():
            at = re.search(r'//## File "([^"]*)", line (\d+)', text)
            if at is not None:
                line = int(at.group(2)) if "triton/language" not in at.group(1) else line
                continue
            load = re.search(_LOAD, text)
            if load is not None:
                found.setdefault(line, []).append(_width(load))
        return found

    @property
    def tensor_core_instructions(self) -> int:
        """Matrix instructions in the code."""
        return len(re.findall(r"\b(?:HMMA|HGMMA|DMMA|IMMA|UTCHMMA|v_mfma)", self.assembly))


_LOAD = re.compile(r"\b(LDG|LDGSTS|UTMALDG)\.((?:\w+\.?)*)")


def _width(load: re.Match[str]) -> int:
    """Bits of a load, from its instruction's modifiers: ``LDG.E.128``, ``LDG.E.U16``, ``LDGSTS.E.BYPASS.128``."""
    if load.group(1) == "UTMALDG":
        return 128
    sizes = {"128": 128, "64": 64, "U16": 16, "S16": 16, "U8": 8, "S8": 8}
    return next((sizes[part] for part in load.group(2).split(".") if part in sizes), 32)


def architecture(device: torch.device) -> str:
    """The architecture of a GPU that is there."""
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(device).gcnArchName).split(":")[0]
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))


def gpu_target(name: str) -> Any:
    """Triton's description of an architecture: ``sm_80``, ``sm_90``, ``sm_100``; ``gfx90a``, ``gfx942``, ``gfx1100``."""
    from triton.backends.compiler import GPUTarget

    if re.fullmatch(r"gfx\d+[a-f]?", name) is not None:
        return GPUTarget("hip", name, 64 if name.startswith("gfx9") else 32)
    found = re.fullmatch(r"sm_(\d+)a?", name)
    if found is None:
        raise UnknownTarget(f"unknown GPU architecture {name!r}; e.g. sm_80, sm_90, sm_100, gfx942")
    return GPUTarget("cuda", int(found.group(1)), 32)


def compile_plans(
    plans: Sequence[Plan],
    index_dtype: DType,
    target: str,
    counts: Mapping[Space, int] | None = None,
    schedules: KernelSchedules | None = None,
    only: Container[str] | None = None,
    precision: str | None = None,
) -> Iterator[Binary]:
    """Every kernel of ``plans`` compiled for ``target``, one after the other, in all variants, or in those that a graph with ``counts``
    rows would run. Needs no GPU. ``schedules`` say how kernels run, as :func:`columba.codegen.triton.emit` takes them; ``only`` names the
    kernels to compile, as the prepared plans call them, ``precision`` how products of float32 are computed (None: as PyTorch's settings
    say).

    Raises:
        UnknownTarget: there is no such architecture.
    """
    wanted = gpu_target(target)
    module = emit(plans, schedules)
    functions = load_functions(module.source, interpreted=False)
    for plan in module.plans:
        for step in module.steps[plan.name]:
            if only is not None and step.kernel.name not in only:
                continue
            for launch in step.launches:
                for variant in launch.variants if counts is None else [launch.variant(counts)]:
                    function = getattr(functions, launch.function)
                    compiled = compile_launch(
                        function, launch, variant, index_dtype, wanted, rounded=step.rounded, precision=precision
                    )
                    yield _binary(plan.name, launch, variant, target, compiled)


def compile_launch(
    function: Any,
    launch: Launch,
    variant: Variant,
    index_dtype: DType,
    target: Any,
    *,
    rounded: bool,
    precision: str | None = None,
) -> Any:
    """Compiled as a launch on ``target`` would, so that it is found in Triton's cache there: the very key is made as launches make it.

    ``precision`` is that of products of float32; None: what PyTorch's settings say now.
    """
    import triton
    from triton.compiler import ASTSource, make_backend
    from triton.runtime.jit import MockTensor, create_function_from_signature

    backend = make_backend(target)
    bind = create_function_from_signature(function.signature, function.params, backend)
    given = [MockTensor.wrap_dtype(_example(argument, index_dtype)) for _, argument in launch.arguments]
    nvidia = target.backend == "cuda"
    products = dot_constants(launch, interpreted=False, precision=precision, nvidia=nvidia)
    constants = dict(variant.constants) | products
    named = launch_options(variant, nvidia=nvidia, rounded=rounded)
    named["debug"] = bool(function.debug or triton.knobs.runtime.debug)
    bound, specialization, options = bind(*given, **constants, **named)
    options, signature, constexprs, attributes = function._pack_args(
        backend, constants | named, bound, specialization, options
    )
    source = ASTSource(function, signature, constexprs, attributes)
    return triton.compile(source, target=target, options=options.__dict__)


def _example(argument: Argument, index_dtype: DType) -> torch.dtype | int:
    """What stands for an argument: the dtype of what an aligned address leads to, or a number that is not specialized on."""
    match argument:
        case BufferArgument(buffer):
            return torch_dtype(buffer.type.dtype)
        case WorkspaceArgument(workspace):
            return torch_dtype(workspace.dtype)
        case ArrayArgument():
            return torch_dtype(index_dtype)
        case _:
            return 2


def _binary(plan: str, launch: Launch, variant: Variant, target: str, compiled: Any) -> Binary:
    if target.startswith(AMD):
        text = compiled.asm["amdgcn"]
        registers = _number(r"\.vgpr_count:\s+(\d+)", text)
        spilled = 4 * _number(r"\.vgpr_spill_count:\s+(\d+)", text)
        return Binary(plan, launch, variant, target, registers, spilled, compiled.metadata.shared, text)
    usage = _nvidia_tool("cuobjdump", compiled.asm["cubin"], "-res-usage")
    sass = _nvidia_tool("nvdisasm", compiled.asm["cubin"], "-g", "-c")
    spilled = _number(r"STACK:(\d+)", usage) + _number(r"LOCAL:(\d+)", usage)
    registers = _number(r"REG:(\d+)", usage)
    return Binary(plan, launch, variant, target, registers, spilled, compiled.metadata.shared, sass)


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"no {pattern} in what the tool says:\n{text[:2000]}")
    return int(found.group(1))


def _nvidia_tool(name: str, binary: bytes, *options: str) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    with tempfile.NamedTemporaryFile(suffix=".cubin") as f:
        f.write(binary)
        f.flush()
        return subprocess.run([tool, *options, f.name], capture_output=True, text=True, check=True).stdout
