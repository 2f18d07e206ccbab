"""Makes a failing case small: drops what the failure does not need, one thing after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from columba.ir.node import topological
from columba.ir.program.ops import Input, Value

from .case import Case
from .grow import NAMES
from .mutate import substituted
from .programs import with_inputs

Fails = Callable[[Case], bool]


def shrink(case: Case, fails: Fails, seconds: float = 30.0) -> Case:
    """The smallest case found within the time for which ``fails`` still holds. It holds for ``case``."""
    stop = time.monotonic() + seconds
    progress = True
    while progress and time.monotonic() < stop:
        progress = False
        for smaller in _candidates(case):
            if time.monotonic() > stop:
                break
            if fails(smaller):
                case, progress = smaller, True
                break
    return case


def _candidates(case: Case) -> Iterator[Case]:
    """Simpler cases, those that lose most first."""
    for field in ("first", "second", "third"):
        passes = getattr(case, field)
        if passes:
            yield replace(case, **{field: ()})
    if case.wrt:
        yield replace(case, wrt=(), second=(), cut=False)
    results = case.program.results
    if len(results) > 1:
        for n in range(len(results)):
            yield _with_program(case, results[:n] + results[n + 1 :])
    for field in ("first", "second", "third"):
        passes = getattr(case, field)
        for n, spelling in enumerate(passes):
            yield replace(case, **{field: passes[:n] + passes[n + 1 :]})
            if "{" in spelling:
                yield replace(case, **{field: (*passes[:n], spelling.split("{")[0], *passes[n + 1 :])})
    for n in range(len(case.wrt) if len(case.wrt) > 1 else 0):
        yield replace(case, wrt=case.wrt[:n] + case.wrt[n + 1 :])
    for n in range(len(case.schedule)):
        yield replace(case, schedule=case.schedule[:n] + case.schedule[n + 1 :])
    if case.cut:
        yield replace(case, cut=False)
    for graph in case.graph.smaller():
        yield replace(case, graph=graph)
    yield from _smaller_programs(case)


def _smaller_programs(case: Case) -> Iterator[Case]:
    """A value replaced by an input, or by something below it; a result by its operands."""
    program = case.program
    for value in reversed(program.body):
        if isinstance(value, Input):
            continue
        below = [v for v in topological(value.children) if isinstance(v, Value) and v.type == value.type]
        free = next(name for name in NAMES if name not in {i.name for i in program.inputs})
        for new in [*below[:3], Input(free, value.type)]:
            try:
                yield _with_program(case, substituted(program, {value: new}).results)
            except TypeError:
                continue
    for n, result in enumerate(program.results):
        for c in result.children:
            if isinstance(c, Value) and c not in program.results:
                yield _with_program(case, (*program.results[:n], c, *program.results[n + 1 :]))


def _with_program(case: Case, results: tuple[Value, ...]) -> Case:
    """The case with other results, with respect to those of its inputs that are left, and to new ones in their place."""
    program = with_inputs(results)
    wrt: tuple[str, ...] = ()
    if case.wrt:
        old = {i.name for i in case.program.inputs}
        wrt = tuple(i.name for i in program.inputs if i.dtype.is_float and (i.name in case.wrt or i.name not in old))
        wrt = wrt or tuple(i.name for i in program.inputs if i.dtype.is_float)
    return replace(case, program=program, wrt=wrt)
