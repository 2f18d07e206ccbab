"""Whole compilations: several cases are compiled to plans, built into one library, and run."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from columba.driver import Compilation, compile_program
from columba.ir.node import topological
from columba.ir.plan.kernels import Traversal, roots_of
from columba.ir.plan.plan import Plan, spaces_of
from columba.ir.spaces import Space
from columba.ir.types import DType
from columba.passes.pipeline import parse_passes
from columba.passes.recipes import Recipe
from columba.runtime.cpp.launch import CppExecutable
from columba.runtime.executable import Executable
from columba.runtime.host import run_host_program
from columba.runtime.plan_reference import run_plan

from .case import Case
from .check import Failure, Reject, compare, expected, failure_of
from .graphs import build as build_graph
from .schedules import rescheduled

LOWERABLE = ("expand_softmax", "legalize_linear")
"""Passes after which a program can be lowered, whatever ran before."""


def compile_case(case: Case, name: str = "fuzz") -> Compilation:
    """The plans of a case; ``first`` serves for the forward and for the joint program."""
    recipe = Recipe(parse_passes(",".join([*case.first, *LOWERABLE])), parse_passes(",".join(case.third)))
    compilation = compile_program(replace(case.program, name=name), case.wrt, recipe)
    backward = compilation.backward_plan
    return replace(
        compilation,
        forward_plan=rescheduled(compilation.forward_plan, case.schedule),
        backward_plan=None if backward is None else rescheduled(backward, case.schedule),
    )


def check_plans(case: Case, compilation: Compilation) -> Failure | None:
    """What the plans mean, by the reference.

    Raises:
        Reject: the case says nothing.
    """
    graph = build_graph(case.graph)
    want = expected(case)
    results, gradients = _run(case, compilation, lambda plan, inputs: run_plan(plan, inputs, graph))
    return compare(case, want, results, gradients)


def plan_features(compilation: Compilation) -> set[str]:
    """What kernels there are, and how large."""
    found = set()
    for plan in compilation.plans:
        for kernel in plan.kernels:
            kind = type(kernel).__name__.lower()
            roots = roots_of(kernel)
            names = sorted({getattr(v, "op_name", "") for v in topological(roots)})
            via = f" {kernel.via}" if isinstance(kernel, Traversal) else ""
            found.add(f"kernel {kind}{via} stores {min(len(roots), 4)}")
            found.update(f"kernel {kind} {name}" for name in names)
            found.add(f"kernel {kind} {' '.join(names)}")
    return found


Build = Callable[[Sequence[Plan], DType], Executable]


def check_kernels(cases: Sequence[Case], build: Build = CppExecutable) -> list[Failure | Reject | None]:
    """Compiles all cases into one library and runs each; what went wrong with each, if anything did."""
    found: list[Failure | Reject | None] = [None] * len(cases)
    compiled: dict[int, Compilation] = {}
    for n, case in enumerate(cases):
        try:
            compiled[n] = compile_case(case, f"fuzz_{n}")
        except Exception as e:
            found[n] = failure_of(e)
    try:
        executable = build([p for c in compiled.values() for p in c.plans], DType.I32)
    except Exception as e:
        if len(compiled) == 1:
            return [failure_of(e) if n in compiled else failure for n, failure in enumerate(found)]
        for n in compiled:
            (found[n],) = check_kernels([cases[n]], build)
        return found
    for n, compilation in compiled.items():
        try:
            found[n] = _check(cases[n], compilation, executable)
        except Reject as e:
            found[n] = e
        except Exception as e:
            found[n] = failure_of(e)
    return found


def _check(case: Case, compilation: Compilation, executable: Executable) -> Failure | None:
    want = expected(case)
    with _threads(random.Random(case.seed).randint(1, 3)), _poisoned():
        results, gradients = _run(case, compilation, functools.partial(_run_kernels, case, executable))
    return compare(case, want, results, gradients)


RunPlan = Callable[[Plan, Sequence[Tensor]], list[Tensor]]


def _run(case: Case, compilation: Compilation, run: RunPlan) -> tuple[list[Tensor], list[Tensor]]:
    """Results and gradients, as :class:`columba.runtime.program.Runnable` and its operators find them."""
    given = case.inputs()
    inputs = [given[i.name] for i in compilation.traced.inputs]
    outputs = run(compilation.forward_plan, inputs)
    places: dict[str, Callable[[int], Tensor]] = {"input": inputs.__getitem__, "output": outputs.__getitem__}
    results = [places[kind](n) for kind, n in compilation.places]
    if not case.wrt:
        return results, []
    # Results that are handed on have no operator of their own: torch adds their gradients outside.
    directions: list[Tensor] = [torch.zeros_like(o) for o in outputs[: compilation.results]]
    handed_on = {name: torch.zeros_like(x) for name, x in given.items()}
    for (kind, n), direction in zip(compilation.places, case.directions(), strict=True):
        if direction is None:
            continue
        if kind == "output":
            directions[n] += direction
        else:
            handed_on[compilation.traced.inputs[n].name] += direction
    sources = {"input": inputs.__getitem__, "result": outputs.__getitem__, "grad": directions.__getitem__}
    found: list[Tensor] = []
    if compilation.backward_plan is not None:
        tensors = [sources[kind](n) for kind, n in compilation.sources]
        found = run(compilation.backward_plan, tensors)
    sources["output"] = found.__getitem__
    gradients = []
    for name in case.wrt:
        position = [i.name for i in compilation.traced.inputs].index(name)
        place = compilation.gradients[position] if compilation.gradients else None
        gradients.append(handed_on[name] if place is None else handed_on[name] + sources[place[0]](place[1]))
    return results, gradients


def _run_kernels(case: Case, executable: Executable, plan: Plan, inputs: Sequence[Tensor]) -> list[Tensor]:
    graph = build_graph(case.graph)
    (plan,) = (p for p in executable.plans if p.name == plan.name)
    used = spaces_of(plan)
    counts = [graph.count(space) if space in used else 0 for space in Space]
    index = [graph.index(array) for array in executable.index_arrays(plan)]
    host = functools.partial(run_host_program, counts=counts)
    return executable.bind(plan.name, index, counts, host)([x.contiguous() for x in inputs])


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _poisoned() -> Iterator[None]:
    """New memory is full of NaN, so that an element that a kernel forgets does not look like a zero."""
    torch.use_deterministic_algorithms(True)  # which fills what torch.empty gives
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
