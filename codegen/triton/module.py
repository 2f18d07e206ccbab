"""One source file for the kernels of one or several plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from columba.codegen.templates import template
from columba.codegen.triton import prelude
from columba.codegen.triton.functions import Function
from columba.codegen.triton.gemm import gemm_function
from columba.codegen.triton.gemm_reduce import gemm_reduce_functions
from columba.codegen.triton.launches import ArrayArgument, CountArgument, Launch, MostArgument, TilesArgument
from columba.codegen.triton.prepare import prepared
from columba.codegen.triton.scalars import identifier
from columba.codegen.triton.schedule import KernelSchedules, OuterSchedule, ProductSchedule, Schedule
from columba.codegen.triton.summaries import summary, summary_of_parts
from columba.codegen.triton.traversal import traversal_functions
from columba.ir.indices import IndexArray
from columba.ir.plan.exact import may_be_product
from columba.ir.plan.kernels import Gemm, GemmReduce, HostCall, Kernel, Traversal
from columba.ir.plan.plan import Plan
from columba.ir.plan.printing import print_kernel

PACKAGE = "columba.codegen.triton"
"""Where the templates stand."""


@dataclass(frozen=True)
class KernelStep:
    """What a kernel of a plan became: launches, or a host call."""

    kernel: Kernel
    launches: tuple[Launch, ...]
    of: str  #: the kernel of the plan that this is, or is a part of
    rounded: bool  #: whether products are rounded before they are added, so that sums are the same in every kernel


@dataclass(frozen=True)
class Module:
    """Triton source, and for each plan, under its name, the steps that run it.

    ``plans`` are the plans with the schedules that the source was made for. Which index arrays a plan reads, its launches say:
    :func:`index_arrays`.
    """

    source: str
    plans: tuple[Plan, ...]
    steps: dict[str, tuple[KernelStep, ...]]


def index_arrays(steps: Sequence[KernelStep]) -> tuple[IndexArray, ...]:
    """The index arrays that the launches of ``steps`` are given, each once, in order."""
    arguments = (a for step in steps for launch in step.launches for _, a in launch.arguments)
    return tuple(dict.fromkeys(a.array for a in arguments if isinstance(a, ArrayArgument)))


def emit(plans: Sequence[Plan], schedules: KernelSchedules | None = None) -> Module:
    """The Triton source of all kernels of ``plans``, the same text for the same plans and schedules.

    Args:
        plans: what to emit.
        schedules: how kernels run, by the names of plan and kernel; those that are not in it run as this module thinks best.

    Raises:
        IllegalSchedule: a kernel cannot run as its schedule says.
    """
    made_plans = []
    functions: list[str] = []
    steps: dict[str, tuple[KernelStep, ...]] = {}
    for given in plans:
        plan, scheduled = prepared(given, schedules)
        made_plans.append(plan)
        found: list[KernelStep] = []
        for kernel, schedule, of in ((s.kernel, s.schedule, s.of) for s in scheduled):
            made = _functions(kernel, f"{identifier(plan.name)}_{identifier(kernel.name)}", schedule)
            functions += [
                _text(
                    f,
                    (f.about or summary_of_parts(kernel)) if n else summary(kernel),
                    [] if n else print_kernel(kernel).splitlines(),
                )
                for n, f in enumerate(made)
            ]
            rounded = any(map(may_be_product, plan.exact_values[kernel.name]))
            found.append(KernelStep(kernel, tuple(f.launch for f in made), of, rounded))
        steps[plan.name] = tuple(found)
    body = "\n".join(functions)
    source = template(PACKAGE, "module.py.jinja").render(
        title="Columba: " + ", ".join(plan.name for plan in plans), prelude=prelude.needed_by(body), functions=functions
    )
    return Module(source, tuple(made_plans), steps)


def _functions(kernel: Kernel, name: str, schedule: Schedule | None) -> list[Function]:
    match kernel, schedule:
        case Traversal(), _:
            return traversal_functions(kernel, name, schedule)
        case Gemm(), ProductSchedule():
            return [gemm_function(kernel, name, schedule)]
        case GemmReduce(), OuterSchedule():
            return gemm_reduce_functions(kernel, name, schedule)
        case HostCall(), None:
            return []
    raise TypeError(f"{kernel.name} is not prepared")


def _text(function: Function, about: str, comment: Sequence[str]) -> str:
    launch = function.launch
    constants = [name for name, _ in launch.variants[0].constants] + (["PRECISION", "OPERAND"] if launch.dot else [])
    counts = [name for name, a in launch.arguments if isinstance(a, (CountArgument, TilesArgument, MostArgument))]
    return template(PACKAGE, function.template).render(
        name=function.name,
        summary=about,
        comment=comment,
        counts=[f'"{c}"' for c in counts],
        parameters=[*(name for name, _ in launch.arguments), *(f"{c}: tl.constexpr" for c in constants)],
        **function.fields,
    )
