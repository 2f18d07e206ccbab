"""Results that are inputs, or that are said twice, are taken out of a program: there is nothing to compute for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from columba.ir.interop.ops import Input, Value
from columba.ir.interop.program import Program

Place = tuple[Literal["input", "output"], int]


@dataclass(frozen=True)
class Distinct:
    """``program`` returns each computed value once; ``places[i]`` says where result ``i`` of the original is found."""

    program: Program
    places: tuple[Place, ...]


def distinct(program: Program) -> Distinct:
    """Splits a program's results into what must be computed and what is merely handed on.

    An operator must not return its own inputs, and a plan writes each buffer once.
    """
    positions: dict[Value, int] = {}
    names: list[str] = []
    places: list[Place] = []
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
