"""One source file for the kernels of one or several plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from columba.codegen.cpp.gemm import gemm_reduce_text, gemm_text
from columba.codegen.cpp.names import Names
from columba.codegen.cpp.scalars import identifier
from columba.codegen.cpp.traversal import KernelText, traversal_text
from columba.codegen.templates import template, text
from columba.ir.intraop.kernels import Gemm, GemmReduce, HostCall, Kernel, Traversal, writes
from columba.ir.intraop.plan import Plan
from columba.ir.intraop.text import print_kernel
from columba.ir.types import DType

PACKAGE = "columba.codegen.cpp"
"""Where the templates stand."""


@dataclass(frozen=True)
class Stage:
    """Kernels that run in one call: ``extern "C" int entry(buffers, index, counts, threads, seconds)``, 0 meaning success.

    ``buffers`` are pointers to ``plan.buffers``, ``index`` to ``plan.index_arrays``, in order; ``counts`` are the rows of every space
    in the order of :class:`columba.ir.spaces.Space`, then for every index array a third of its length, the number of tiles if it is
    a tile table. ``seconds`` is null, or room for the time of each kernel.
    """

    plan: str
    number: int
    kernels: tuple[Kernel, ...]

    @property
    def entry(self) -> str:
        return f"{identifier(self.plan)}_stage_{self.number}"


def stages(plan: Plan) -> list[Stage | HostCall]:
    """A plan cut at its host calls."""
    found: list[Stage | HostCall] = []
    run: list[Kernel] = []
    count = 0

    def close() -> None:
        nonlocal count
        if run:
            found.append(Stage(plan.name, count, tuple(run)))
            count += 1
            run.clear()

    for kernel in plan.kernels:
        if isinstance(kernel, HostCall):
            close()
            found.append(kernel)
        else:
            run.append(kernel)
    close()
    return found


def emit(plans: Sequence[Plan], index_dtype: DType) -> str:
    """The C++ source of all kernels of ``plans``, the same text for the same plans.

    Raises:
        UnsupportedDType: a buffer's element type has no kernels here.
    """
    if index_dtype not in (DType.I32, DType.I64):
        raise TypeError(f"index arrays hold i32 or i64, not {index_dtype}")
    kernels, entries = [], []
    gemms = False
    for plan in plans:
        for stage in stages(plan):
            if isinstance(stage, HostCall):
                continue
            names = [f"{identifier(plan.name)}_{identifier(k.name)}" for k in stage.kernels]
            kernels += [_kernel(plan, k, name) for k, name in zip(stage.kernels, names, strict=True)]
            entries.append({"plan": plan.name, "number": stage.number, "entry": stage.entry, "kernels": names})
            gemms |= any(isinstance(k, (Gemm, GemmReduce)) for k in stage.kernels)
    headers = text(PACKAGE, "prelude.h") + (text(PACKAGE, "gemm.h") if gemms else "")
    return template(PACKAGE, "module.cpp.jinja").render(
        title="Columba: " + ", ".join(plan.name for plan in plans),
        index_type="int32_t" if index_dtype is DType.I32 else "int64_t",
        headers=headers,
        kernels=kernels,
        stages=entries,
    )


def _kernel(plan: Plan, kernel: Kernel, name: str) -> str:
    names = Names(plan.buffers, plan.index_arrays, writes(kernel))
    found: KernelText
    match kernel:
        case Traversal():
            found = traversal_text(kernel, names)
        case Gemm():
            found = gemm_text(kernel, names)
        case GemmReduce():
            found = gemm_reduce_text(kernel, names)
        case HostCall():
            raise TypeError("host calls have no C++")
    return template(PACKAGE, found.template).render(
        name=name, comment=print_kernel(kernel).splitlines(), declarations=names.declarations(), **found.fields
    )
