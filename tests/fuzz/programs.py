"""Random well-typed programs."""

from __future__ import annotations

import random
from collections.abc import Sequence

from columba.ir.node import topological, users
from columba.ir.program.ops import Input, Value
from columba.ir.program.program import Program
from columba.ir.types import DType

from . import rules
from .grow import Grower
from .idioms import IDIOMS

assert rules, "imported for the rules that it registers"

FOCUSED = 0.75
"""This part of the programs is little more than one to three idioms."""


def random_program(rng: random.Random, square: bool) -> tuple[Program, tuple[str, ...]]:
    """A program of about 3 to 20 operations, and the passes that look for what is in it."""
    grower = Grower(rng, square, DType.F32 if rng.random() < 0.08 else DType.F64)
    passes: list[str] = []
    if rng.random() < FOCUSED:
        for _ in range(rng.choice((1, 1, 2, 2, 3))):
            idiom = rng.choice(tuple(IDIOMS))
            passes += IDIOMS[idiom] if grower.by(idiom) is not None else ()
        for _ in range(rng.choice((0, 0, 1, 2))):
            grower.step()
    if not passes:
        for _ in range(rng.randint(1, 3)):
            grower.input(grower.space(), grower.shape())
        for _ in range(rng.randint(1, 9)):
            grower.step()
    return assemble(rng, grower.values), tuple(passes)


def assemble(rng: random.Random, values: Sequence[Value], wanted: Sequence[Value] = ()) -> Program:
    """A program of ``wanted`` results, or of some of ``values``: what nobody reads, mostly."""
    if not wanted:
        readers = users(values)
        unread = [v for v in values if not readers[v] and not isinstance(v, Input)] or list(values[-1:])
        wanted = unread[-rng.randint(1, 4) :]
        if rng.random() < 0.25:
            wanted = [*wanted, rng.choice(values)]
    return with_inputs(wanted)


def with_inputs(results: Sequence[Value]) -> Program:
    """The program of some results, whose inputs are those that they need."""
    inputs = [v for v in topological(results) if isinstance(v, Input)]
    return Program("fuzz", tuple(inputs), tuple(results), tuple(f"r{n}" for n in range(len(results))))
