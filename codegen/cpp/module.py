"""Source files for the kernels of one or several plans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

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

SHARED = '__attribute__((visibility("hidden")))'
"""The linkage of kernels that stand in another file than what calls them."""

SMALLEST_PART, LARGEST_PART = 2, 10
"""Kernels in a part: a plan is cut in two for two processors where its parts have at least so many, and further where they had more."""


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


@dataclass
class _Part:
    """What stands in one file: kernels, by name, and entries."""

    kernels: dict[str, str] = field(default_factory=dict)
    stages: list[dict[str, object]] = field(default_factory=list)
    gemms: bool = False

    @property
    def size(self) -> int:
        return sum(map(len, self.kernels.values()))


def emit(plans: Sequence[Plan], index_dtype: DType) -> str:
    """The C++ source of all kernels of ``plans``, the same text for the same plans.

    Raises:
        UnsupportedDType: a buffer's element type has no kernels here.
    """
    whole = _Part()
    for plan in plans:
        for name, kernel in _kernels(plan).items():
            whole.kernels[name] = _kernel(plan, kernel, name, "static")
            whole.gemms |= isinstance(kernel, (Gemm, GemmReduce))
        whole.stages += _entries(plan)
    return _module("Columba: " + ", ".join(plan.name for plan in plans), index_dtype, whole, "static")


def emit_parts(plan: Plan, index_dtype: DType) -> tuple[str, ...]:
    """The kernels of one plan in several files of about the same length, which can be built side by side and linked.

    Raises: as :func:`emit`.
    """
    kernels = _kernels(plan)
    count = max(min(2, len(kernels) // SMALLEST_PART), math.ceil(len(kernels) / LARGEST_PART))
    if count < 2:
        return (emit([plan], index_dtype),)
    texts = {name: _kernel(plan, kernel, name, SHARED) for name, kernel in kernels.items()}
    parts = [_Part() for _ in range(count)]
    for name in sorted(texts, key=lambda name: -len(texts[name])):
        part = min(parts, key=lambda part: part.size)
        part.kernels[name] = texts[name]
        part.gemms |= isinstance(kernels[name], (Gemm, GemmReduce))
    parts[-1].stages = _entries(plan)
    return tuple(
        _module(f"Columba: {plan.name}, part {n + 1} of {count}", index_dtype, part, SHARED, tuple(kernels))
        for n, part in enumerate(parts)
    )


def _kernels(plan: Plan) -> dict[str, Kernel]:
    """What is written in C++, by its name there."""
    return {f"{identifier(plan.name)}_{identifier(k.name)}": k for k in plan.kernels if not isinstance(k, HostCall)}


def _entries(plan: Plan) -> list[dict[str, object]]:
    return [
        {
            "plan": plan.name,
            "number": stage.number,
            "entry": stage.entry,
            "kernels": [f"{identifier(plan.name)}_{identifier(k.name)}" for k in stage.kernels],
        }
        for stage in stages(plan)
        if isinstance(stage, Stage)
    ]


def _module(title: str, index_dtype: DType, part: _Part, linkage: str, all_kernels: Sequence[str] = ()) -> str:
    """The text of one file. Where it has entries it declares those of ``all_kernels`` that stand in others."""
    if index_dtype not in (DType.I32, DType.I64):
        raise TypeError(f"index arrays hold i32 or i64, not {index_dtype}")
    headers = text(PACKAGE, "prelude.h") + (text(PACKAGE, "gemm.h") if part.gemms else "")
    return template(PACKAGE, "module.cpp.jinja").render(
        title=title,
        index_type="int32_t" if index_dtype is DType.I32 else "int64_t",
        headers=headers,
        linkage=linkage,
        elsewhere=[name for name in all_kernels if name not in part.kernels] if part.stages else [],
        kernels=list(part.kernels.values()),
        stages=part.stages,
    )


def _kernel(plan: Plan, kernel: Kernel, name: str, linkage: str) -> str:
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
        name=name,
        linkage=linkage,
        comment=print_kernel(kernel).splitlines(),
        declarations=names.declarations(),
        **found.fields,
    )
