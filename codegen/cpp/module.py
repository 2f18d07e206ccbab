"""Source files for the kernels of one or several plans."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from columba.codegen.cpp.gemm import gemm_reduce_text, gemm_text
from columba.codegen.cpp.names import CppNames
from columba.codegen.cpp.scalars import identifier
from columba.codegen.cpp.scatter import scatter_text
from columba.codegen.cpp.traversal import KernelText, traversal_text
from columba.codegen.templates import template, text
from columba.ir.plan.groups import Group, bounds_of, is_scattered, rooms
from columba.ir.plan.in_place import in_place
from columba.ir.plan.kernels import Buffer, Gemm, GemmReduce, HostCall, Kernel, Traversal, reads, writes
from columba.ir.plan.plan import Plan
from columba.ir.plan.printing import print_kernel
from columba.ir.types import DType

PACKAGE = "columba.codegen.cpp"
"""Where the templates stand."""

SHARED = '__attribute__((visibility("hidden")))'
"""The linkage of kernels that stand in another file than what calls them."""

SMALLEST_PART, LARGEST_PART = 2, 10
"""Kernels in a part: a plan is cut in two for two processors where its parts have at least so many, and further where they had more."""

PRODUCT, HELPERS = 4_000, 10_000
"""What a compiler has to do for a matrix product beside its own text, and once in a part for what all products of its kind share there:
in characters of a traversal, which takes it as long."""

FULL = 1.5
"""How many times its fair share a part may hold before products of one kind go to several parts."""


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


@dataclass
class _Part:
    """What stands in one file: kernels, by name, and entries."""

    kernels: dict[str, str] = field(default_factory=dict)
    stages: list[dict[str, object]] = field(default_factory=list)
    products: set[type[Kernel]] = field(default_factory=set)
    effort: int = 0

    def add(self, name: str, kernel: Kernel, written: str) -> None:
        self.effort += self.more(kernel, written)
        self.kernels[name] = written
        if isinstance(kernel, (Gemm, GemmReduce)):
            self.products.add(type(kernel))

    def more(self, kernel: Kernel, written: str) -> int:
        """What the compiler has to do beyond what it has already, if this kernel is added."""
        if not isinstance(kernel, (Gemm, GemmReduce)):
            return len(written)
        return len(written) + PRODUCT + (0 if type(kernel) in self.products else HELPERS)


def emit(plans: Sequence[Plan], index_dtype: DType) -> str:
    """The C++ source of all kernels of ``plans``, the same text for the same plans.

    Raises:
        UnsupportedDType: a buffer's element type has no kernels here.
    """
    whole = _Part()
    for plan in plans:
        shared = in_place(plan)
        for name, kernel in _kernels(plan).items():
            whole.add(name, kernel, _kernel(plan, kernel, name, "static", shared))
        whole.stages += _entries(plan)
    return _module("Columba: " + ", ".join(plan.name for plan in plans), index_dtype, whole, "static")


def emit_parts(plan: Plan, index_dtype: DType) -> tuple[str, ...]:
    """The kernels of one plan in several files that take a compiler about the same time, and can be built side by side and linked.

    Raises: as :func:`emit`.
    """
    kernels = _kernels(plan)
    count = max(min(2, len(kernels) // SMALLEST_PART), math.ceil(len(kernels) / LARGEST_PART))
    if count < 2:
        return (emit([plan], index_dtype),)
    shared = in_place(plan)
    texts = {name: _kernel(plan, kernel, name, SHARED, shared) for name, kernel in kernels.items()}
    parts = _distributed(kernels, texts, count)
    parts[-1].stages = _entries(plan)
    parameters = {name: _parameters(plan, kernel) for name, kernel in kernels.items()}
    return tuple(
        _module(f"Columba: {plan.name}, part {n + 1} of {count}", index_dtype, part, SHARED, parameters)
        for n, part in enumerate(parts)
    )


def _distributed(kernels: Mapping[str, Kernel], texts: Mapping[str, str], count: int) -> list[_Part]:
    """Kernels in ``count`` parts: products first, those of one kind together where that fills no part, the others where least is."""
    whole = _Part()
    for name, kernel in kernels.items():
        whole.add(name, kernel, texts[name])
    parts = [_Part() for _ in range(count)]

    def place(kernel: Kernel, written: str) -> _Part:
        for part in parts:
            if (
                type(kernel) in part.products
                and part.effort + part.more(kernel, written) <= FULL * whole.effort / count
            ):
                return part
        return min(parts, key=lambda part: part.effort + part.more(kernel, written))

    def order(name: str) -> tuple[bool, str, int]:
        kernel = kernels[name]
        is_product = isinstance(kernel, (Gemm, GemmReduce))
        return not is_product, type(kernel).__name__, -len(texts[name])

    for name in sorted(texts, key=order):
        place(kernels[name], texts[name]).add(name, kernels[name], texts[name])
    return parts


def _kernels(plan: Plan) -> dict[str, Kernel]:
    """What is written in C++, by its name there."""
    return {f"{identifier(plan.name)}_{identifier(k.name)}": k for k in plan.kernels if not isinstance(k, HostCall)}


def _entries(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "plan": plan.name,
            "number": stage.number,
            "entry": stage.entry,
            "kernels": len(stage.kernels),
            "steps": _steps(plan, stage),
        }
        for stage in stages(plan)
        if isinstance(stage, Stage)
    ]


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
        "scatters": is_scattered(kernel),
    }


def _parts(plan: Plan, group: Group, kernels: Sequence[Kernel]) -> dict[str, Any]:
    """How a group goes over its rows."""
    names = CppNames(plan.buffers, plan.index_arrays, ())
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


def _is_grouped(plan: Plan, kernel: Kernel) -> bool:
    return any(kernel.name in group.kernels for group in plan.groups)


def _parameters(plan: Plan, kernel: Kernel) -> str:
    """The parameters of a kernel's function: one in a group is told from which row to which to go, and a sum in which phase it is."""
    found = "void* const* buffers, const void* const* index, const int64_t* counts, int threads"
    if _is_grouped(plan, kernel):
        found += ", int64_t rows_from, int64_t rows_to"
        found += ", Phase phase, Partials* sums" if isinstance(kernel, GemmReduce) else ""
    return found


_DEFINED = re.compile(r"^INLINE \w+ (\w+)\(", re.MULTILINE)
"""Functions that a header defines."""


def _module(
    title: str, index_dtype: DType, part: _Part, linkage: str, all_kernels: Mapping[str, str] | None = None
) -> str:
    """The text of one file. Where it has entries it declares those of ``all_kernels``, by name with parameters, that stand in others."""
    if index_dtype not in (DType.I32, DType.I64):
        raise TypeError(f"index arrays hold i32 or i64, not {index_dtype}")
    headers = text(PACKAGE, "prelude.h") + (text(PACKAGE, "gemm.h") if part.products else "")
    further = text(PACKAGE, "functions.h")
    if any(f"{name}(" in kernel for kernel in part.kernels.values() for name in _DEFINED.findall(further)):
        headers += further
    return template(PACKAGE, "module.cpp.jinja").render(
        title=title,
        index_type="int32_t" if index_dtype is DType.I32 else "int64_t",
        headers=headers,
        linkage=linkage,
        elsewhere=[(n, p) for n, p in (all_kernels or {}).items() if n not in part.kernels] if part.stages else [],
        kernels=list(part.kernels.values()),
        stages=part.stages,
    )


def _kernel(plan: Plan, kernel: Kernel, name: str, linkage: str, shared: Mapping[Buffer, Buffer]) -> str:
    here = {b: out for b, out in shared.items() if out in writes(kernel)}
    names = CppNames(plan.buffers, plan.index_arrays, writes(kernel), here, exact=plan.exact_values[kernel.name])
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
        name=name,
        linkage=linkage,
        parameters=_parameters(plan, kernel),
        grouped=_is_grouped(plan, kernel),
        comment=print_kernel(kernel).splitlines(),
        declarations=names.declarations(),
        **found.fields,
    )
