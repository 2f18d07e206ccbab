"""One source file for the kernels of one or several plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from columba.codegen.cpp.gemm import gemm_reduce_text, gemm_text
from columba.codegen.cpp.names import Names
from columba.codegen.cpp.scalars import identifier
from columba.codegen.cpp.scatter import scatter_text
from columba.codegen.cpp.traversal import KernelText, traversal_text
from columba.codegen.templates import template, text
from columba.ir.intraop.groups import Group, bounds_of, is_scattered, rooms
from columba.ir.intraop.kernels import Gemm, GemmReduce, HostCall, Kernel, Traversal, reads, writes
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
    a tile table. ``seconds`` is null, or zeros, to which the time of each kernel is added.
    Buffers that are local to a group have room for a part of their rows.
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
            in_groups = {name for group in plan.groups for name in group.kernels}
            kernels += [_kernel(plan, k, grouped=k.name in in_groups) for k in stage.kernels]
            entries.append(
                {
                    "plan": plan.name,
                    "number": stage.number,
                    "entry": stage.entry,
                    "kernels": len(stage.kernels),
                    "steps": _steps(plan, stage),
                }
            )
            gemms |= any(isinstance(k, (Gemm, GemmReduce)) for k in stage.kernels)
    headers = text(PACKAGE, "prelude.h") + (text(PACKAGE, "gemm.h") if gemms else "")
    return template(PACKAGE, "module.cpp.jinja").render(
        title="Columba: " + ", ".join(plan.name for plan in plans),
        index_type="int32_t" if index_dtype is DType.I32 else "int64_t",
        headers=headers,
        kernels=kernels,
        stages=entries,
    )


def _steps(plan: Plan, stage: Stage) -> list[dict[str, Any]]:
    """The kernels of a stage, those of a group together, with their numbers in the stage."""
    number = {k.name: n for n, k in enumerate(stage.kernels)}
    steps: list[dict[str, Any]] = []
    for group, kernels in plan.units:
        if kernels[0].name in number:
            calls = [_call(plan, k, number[k.name]) for k in kernels]
            steps.append({"kernels": calls, "group": None if group is None else _parts(plan, group, kernels)})
    return steps


def _call(plan: Plan, kernel: Kernel, number: int) -> dict[str, Any]:
    return {
        "function": f"{identifier(plan.name)}_{identifier(kernel.name)}",
        "number": number,
        "sums": isinstance(kernel, GemmReduce),
        "meets": is_scattered(kernel),
    }


def _parts(plan: Plan, group: Group, kernels: Sequence[Kernel]) -> dict[str, Any]:
    """How a group goes over its rows."""
    names = Names(plan.buffers, plan.index_arrays, ())
    bounds = bounds_of(kernels)
    one = rooms(group, kernels, 1)
    row = {b: b.type.size * b.type.dtype.itemsize for b in group.local}
    meeting = {b for k in kernels if is_scattered(k) for b in reads(k)}
    return {
        "space": group.space,
        "count": names.count_slot(group.space),
        "rows": group.schedule.rows,
        "parts": group.schedule.parts,
        "table": None if bounds.tiles is None else names.array_slots[bounds.tiles],
        "tiles": None if bounds.tiles is None else names.tiles(bounds.tiles),
        "multiple": bounds.rows,
        "buffers": len(plan.buffers),
        "of_chunk": [(names.buffer_slots[b], row[b], b.name) for b in group.local if b in meeting],
        "of_part": [(names.buffer_slots[b], row[b], one[b].each, b.name) for b in group.local if b not in meeting],
    }


def _kernel(plan: Plan, kernel: Kernel, *, grouped: bool) -> str:
    names = Names(plan.buffers, plan.index_arrays, writes(kernel))
    found: KernelText
    match kernel:
        case Traversal():
            found = scatter_text(kernel, names) if kernel.schedule.scatter else traversal_text(kernel, names)
        case Gemm():
            found = gemm_text(kernel, names)
        case GemmReduce():
            found = gemm_reduce_text(kernel, names)
        case HostCall():
            raise TypeError("host calls have no C++")
    return template(PACKAGE, found.template).render(
        name=f"{identifier(plan.name)}_{identifier(kernel.name)}",
        comment=print_kernel(kernel).splitlines(),
        declarations=names.declarations(),
        grouped=grouped,
        **found.fields,
    )
