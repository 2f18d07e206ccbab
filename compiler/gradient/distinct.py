"""Deduplication of results: those that are inputs, or that stand there twice, are taken out of a program."""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.plan.planned import ResultPlace
from columba.ir.program.ops import Cast, Expand, Input, Lift, Permute, Reshape, Slice, Value
from columba.ir.program.program import Program
from columba.ir.spaces import Space


@dataclass(frozen=True)
class Distinct:
    """``program`` returns each computed value once; ``places[i]`` says where result ``i`` of the original is found."""

    program: Program
    places: tuple[ResultPlace, ...]


def distinct(program: Program) -> Distinct:
    """Splits a program's results into what must be computed and what is merely handed on.

    An operator must not return its own inputs, and a plan writes each buffer once.
    """
    positions: dict[Value, int] = {}
    names: list[str] = []
    places: list[ResultPlace] = []
    for name, result in zip(program.result_names, program.results, strict=True):
        if isinstance(result, Input):
            places.append(("input", program.inputs.index(result)))
            continue
        if result not in positions:
            positions[result] = len(positions)
            names.append(name)
        places.append(("output", positions[result]))
    smaller = Program(program.name, program.inputs, tuple(positions), tuple(names))
    return Distinct(smaller, tuple(places))


def shares_memory(program: Program) -> list[bool]:
    """Which results would share memory with an input, with an earlier result or among their own rows where each operation is a call of
    PyTorch, as in :mod:`columba.runtime.reference`: there views are no copies."""
    roots: set[Value] = set(program.inputs)
    found = []
    for result in program.results:
        value, overlaps = result, False
        while (x := _viewed(value)) is not None:
            overlaps |= isinstance(value, (Expand, Lift))
            value = x
        found.append(overlaps or value in roots)
        roots.add(value)
    return found


def _viewed(value: Value) -> Value | None:
    """What an operation returns a view of."""
    match value:
        case Reshape(x) | Permute(x) | Expand(x) | Slice(x):
            return x
        case Lift(x, via) if via.coarse is Space.ONE:
            return x
        case Cast(x, to) if x.dtype is to:
            return x
    return None
