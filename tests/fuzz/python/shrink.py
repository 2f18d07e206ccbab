"""Makes a failing case small, at the level of its text: fewer results, lines, inputs, edges, calls."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from columba.ir.spaces import Space

from ..graphs import GraphSpec, build
from .assemble import NAME
from .case import Case
from .kinds import ROWS, Kind, Value
from .session import Session
from .values import tensors

Fails = Callable[[Case], bool]

LINE = re.compile(r"^( +)([\w, ]+?),? = (.*)$")


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
    for n in range(len(case.phases)):
        yield replace(case, phases=case.phases[:n] + case.phases[n + 1 :])
    if case.special:
        yield replace(case, special="")
    if "second" not in case.phases and case.second != case.graph:
        yield replace(case, second=case.graph)
    yield from _fewer_results(case)
    yield from _fewer_lines(case)
    if case.parameters:
        yield _as_function(case)
    for n in range(len(case.grad)):
        yield replace(case, grad=case.grad[:n] + case.grad[n + 1 :])
    special, *named = case.special.split() or [""]
    for n in range(len(named) if len(named) > 1 else 0):
        yield replace(case, special=" ".join([special, *named[:n], *named[n + 1 :]]))
    for graph in case.graph.smaller():
        yield replace(case, graph=graph, second=_fitting(case.second, graph))
    if "second" in case.phases:
        for graph in case.second.smaller():
            if graph.relations == case.graph.relations and graph.types == case.graph.types:
                yield replace(case, second=graph)
    if case.dtype == "f32":
        yield replace(case, dtype="f64")
    if not case.variant:
        yield replace(case, variant="plain")
    yield from _inputs_for_values(case)


def _fitting(graph: GraphSpec, like: GraphSpec) -> GraphSpec:
    """``graph`` with as many relations and types as another one."""
    return replace(
        graph,
        relations=like.relations,
        types=like.types,
        edges=tuple((s, r % like.relations, d) for s, r, d in graph.edges),
        source_types=tuple(t % like.types for t in graph.source_types),
        destination_types=tuple(t % like.types for t in graph.destination_types),
    )


def _with_source(case: Case, lines: list[str]) -> Case:
    """The case with other lines, without inputs that they do not name."""
    source = "\n".join(lines) + "\n"
    used = set(NAME.findall("\n".join(line for line in lines if not line.lstrip().startswith("def "))))
    kept = tuple(v for v in case.inputs if v.name in used or v.name in case.parameters)
    names = {v.name for v in kept}
    dropped = [v.name for v in case.inputs if v.name not in names]
    for name in dropped:
        source = re.sub(rf", {name}\b", "", source)
    special, *named = case.special.split() or [""]
    named = [n for n in named if n in names]
    return replace(
        case,
        source=source,
        inputs=kept,
        grad=tuple(n for n in case.grad if n in names),
        special=" ".join([special, *named]) if named else "",
    )


def _fewer_results(case: Case) -> Iterator[Case]:
    lines = case.source.splitlines()
    position = max(n for n, line in enumerate(lines) if line.lstrip().startswith("return "))
    indent, result = lines[position].split("return ", 1)
    names = list(dict.fromkeys(NAME.findall(result)))
    if result in names:
        return
    for name in names:
        yield _with_source(case, [*lines[:position], f"{indent}return {name}", *lines[position + 1 :]])
    for name in names:
        kept = ", ".join(n for n in names if n != name)
        if kept and kept != result:
            yield _with_source(case, [*lines[:position], f"{indent}return {kept}", *lines[position + 1 :]])


def _fewer_lines(case: Case) -> Iterator[Case]:
    """A line less: one that nobody reads, or one whose value another name takes the place of."""
    lines = case.source.splitlines()
    for n in range(len(lines) - 1, -1, -1):
        found = LINE.match(lines[n])
        if found is None or "self" in lines[n]:
            continue
        rest = [*lines[:n], *lines[n + 1 :]]
        targets = NAME.findall(found[2])
        if not any(re.search(rf"\b{t}\b", line) for t in targets for line in rest):
            yield _with_source(case, rest)
            continue
        if len(targets) == 1:
            for name in dict.fromkeys(NAME.findall(found[3])):
                yield _with_source(case, [re.sub(rf"\b{targets[0]}\b", name, line) for line in rest])
            continue
        for name in dict.fromkeys(NAME.findall(found[3])):
            pattern = rf"\b({'|'.join(targets)})\b"
            yield _with_source(case, [re.sub(pattern, name, line) for line in rest])


def _as_function(case: Case) -> Case:
    """A module as the function that its forward is."""
    lines = case.source.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("class "))
    forward = next(n for n, line in enumerate(lines) if line.startswith("    def forward"))
    arguments = ", ".join(["g", *(v.name for v in case.inputs)])
    body = [line[4:] for line in lines[forward + 1 :] if " = self." not in line]
    return replace(case, source="\n".join([*lines[:start], f"def program({arguments}):", *body]) + "\n", parameters=())


def _inputs_for_values(case: Case) -> Iterator[Case]:
    """A new input in the place of a line's value."""
    lines = case.source.splitlines()
    if case.parameters or "def helper" in case.source:
        return
    graph = build(case.graph)
    for n in range(len(lines) - 2, -1, -1):
        found = LINE.match(lines[n])
        targets = NAME.findall(found[2]) if found else []
        if found is None or len(targets) != 1 or not NAME.findall(found[3]):
            continue
        try:
            watched = replace(case, source="\n".join([*lines[: n + 1], f"    return {targets[0]}"]) + "\n", grad=())
            given = tensors(case.inputs, graph, case.dtype, case.seed)
            value = Session(watched).call(graph, given, grad=False).leaves[0]
            shape, is_float = tuple(value.shape), value.is_floating_point()
        except Exception:  # whatever it is, the next candidate may do
            continue
        name = f"h{1 + max((int(v.name[1:]) for v in case.inputs), default=0)}"
        spaces = [s for s in ROWS if shape and _count(case, s) == shape[0]]
        for kind in [*(Kind(s, shape[1:]) for s in spaces), Kind("one", shape)] if is_float else ():
            rest = [re.sub(rf"\b{targets[0]}\b", name, line) for line in (*lines[:n], *lines[n + 1 :])]
            rest = [line.replace("):", f", {name}):") if line.startswith("def program") else line for line in rest]
            made = Value(name, kind, is_input=True)
            yield _with_source(replace(case, inputs=(*case.inputs, made), grad=(*case.grad, name)), rest)


def _count(case: Case, space: str) -> int:
    if (space == "node") != case.graph.square and space in ("node", "src", "dst"):
        return -1
    return int(build(case.graph).count(Space(space)))
