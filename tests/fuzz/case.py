"""One case: a program, the passes that it goes through, the graph and the inputs that it runs on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from columba.ir.program.ops import Value
from columba.ir.program.parsing import parse_program
from columba.ir.program.program import Program
from columba.ir.spaces import Space
from columba.ir.types import DType
from columba.runtime.dtypes import torch_dtype

from .graphs import GraphSpec, build
from .schedules import Names, Schedule, split

LEVELS = ("passes", "plans", "kernels")


@dataclass(frozen=True, eq=False)
class Case:
    """What is checked.

    ``first`` runs on the program; with ``wrt``, the result is differentiated, and ``second`` runs on the joint program; with
    ``cut``, that is partitioned into a forward and a backward program. ``third`` runs on plans. ``seed`` makes the inputs.
    ``level`` says what of it runs: programs or plans, both by the reference, or kernels. ``schedule`` is for these.
    """

    program: Program
    first: Names
    second: Names
    third: Names
    wrt: Names
    cut: bool
    graph: GraphSpec
    seed: int
    schedule: Schedule = ()
    level: str = "passes"

    def __str__(self) -> str:
        lines = [
            f"level: {self.level}",
            f"first: {','.join(self.first)}",
            f"second: {','.join(self.second)}",
            f"third: {','.join(self.third)}",
            f"wrt: {','.join(self.wrt)}",
            f"cut: {self.cut}",
            f"graph: {self.graph}",
            f"seed: {self.seed}",
            f"schedule: {','.join(f'{name}={value}' for name, value in self.schedule)}",
            str(self.program),
        ]
        return "\n".join(lines) + "\n"

    @classmethod
    def parse(cls, text: str) -> Case:
        """The inverse of ``str``; lines that start with # are comments."""
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        start = next(n for n, line in enumerate(lines) if line.startswith("program "))
        fields = dict(line.split(": ", 1) for line in (f"{line} " for line in lines[:start]) if ": " in line)
        of = {name: value.strip() for name, value in fields.items()}
        return cls(
            parse_program("\n".join(lines[start:])),
            split(of["first"]),
            split(of["second"]),
            split(of["third"]),
            tuple(filter(None, of["wrt"].split(","))),
            of["cut"] == "True",
            GraphSpec.parse(of["graph"]),
            int(of["seed"]),
            _schedule(of.get("schedule", "")),
            of["level"],
        )

    def inputs(self) -> dict[str, Tensor]:
        """A tensor for every input: floating ones without ties, uniform in (-1.5, 1.5)."""
        generator = torch.Generator().manual_seed(self.seed)
        return {i.name: _tensor(i, self.graph, generator) for i in self.program.inputs}

    def directions(self) -> list[Tensor | None]:
        """A gradient for every floating result."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        return [_tensor(r, self.graph, generator) if r.dtype.is_float else None for r in self.program.results]


def _schedule(text: str) -> Schedule:
    pairs = [setting.split("=") for setting in text.split(",") if setting]
    return tuple((name, int(value)) for name, value in pairs)


def _tensor(value: Value, spec: GraphSpec, generator: torch.Generator) -> Tensor:
    rows = () if value.space is Space.ONE else (build(spec).count(value.space),)
    shape = (*rows, *value.shape)
    if value.dtype is DType.I64:
        return torch.randint(-(2**40), 2**40, shape, generator=generator)
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64) * 3 - 1.5
    return uniform > 0 if value.dtype is DType.BOOL else uniform.to(torch_dtype(value.dtype))
