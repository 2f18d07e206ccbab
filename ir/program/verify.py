"""The verifier of level 1: one function an invariant.

Types are checked when an operation is made; what is left concerns the program as a whole.
"""

from __future__ import annotations

from collections.abc import Callable

from columba.ir.program.ops import Input, Value
from columba.ir.program.printing import print_operation
from columba.ir.program.program import Program
from columba.ir.spaces import Space


class VerificationError(ValueError):
    """A program breaks an invariant; the message names the operation and shows the program around it."""


def check_inputs_are_parameters(program: Program) -> None:
    """Every input that the body reads is a parameter of the program."""
    for value in program.body:
        if isinstance(value, Input) and value not in program.inputs:
            raise _error(program, value, f"input %{value.name} is read but is no parameter of the program")


def check_types_are_current(program: Program) -> None:
    """Every operation has the type that its operands give it."""
    for value in program.body:
        try:
            inferred = value._infer()
        except TypeError as e:
            raise _error(program, value, str(e)) from e
        if inferred != value.type:
            raise _error(program, value, f"{value.op_name} says {value.type}, its operands give {inferred}")


def check_one_kind_of_nodes(program: Program) -> None:
    """A program is about a square graph or about a bipartite one, not both."""
    square = bipartite = False
    for value in program.body:
        square |= value.space is Space.NODE
        bipartite |= value.space in (Space.SRC, Space.DST)
        if square and bipartite:
            raise _error(
                program, value, "the program uses both the nodes of a square graph and those of a bipartite one"
            )


CHECKS: tuple[Callable[[Program], None], ...] = (
    check_inputs_are_parameters,
    check_types_are_current,
    check_one_kind_of_nodes,
)


def verify(program: Program) -> Program:
    """Returns the program if all invariants hold; :class:`VerificationError` otherwise."""
    for check in CHECKS:
        check(program)
    return program


def _error(program: Program, value: Value, message: str) -> VerificationError:
    return VerificationError(f"{message}\n{excerpt(program, value)}")


def excerpt(program: Program, value: Value, around: int = 3) -> str:
    """The lines around one operation, which is marked."""
    names: dict[Value, str] = {}
    lines: list[str] = []
    mark = 0
    for n, v in enumerate(program.body):
        names[v] = f"%{v.name}" if isinstance(v, Input) else f"%{n}"
        mark = n if v is value else mark
        lines.append(f"{'-->' if v is value else '   '} {names[v]}: {v.type} = {print_operation(v, names)}")
    return "\n".join(lines[max(0, mark - around) : mark + around + 1])
