"""Inputs that no result needs are dropped."""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.interop.ops import Input
from columba.ir.interop.program import Program
from columba.pipeline import Pass


@dataclass(frozen=True)
class DeadCode(Pass[Program]):
    """``program(%a, %b) { return a=%a } --> program(%a) { return a=%a }``.

    Dead operations need no pass: a program is what its results reach. Only parameters can be left over.
    """

    def run(self, program: Program) -> Program:
        needed = [i for i in program.inputs if i in {v for v in program.body if isinstance(v, Input)}]
        if len(needed) == len(program.inputs):
            return program
        return Program(program.name, tuple(needed), program.results, program.result_names)
