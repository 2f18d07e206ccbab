"""Small random changes of a case: of its program, its passes, its graph, or several of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from columba.ir.node import rewrite, topological
from columba.ir.program import build as b
from columba.ir.program.ops import Constant, Input, Lift, Permute, Reshape, Value
from columba.ir.program.program import Program
from columba.ir.types import DType

from .case import Case
from .graphs import random_graph
from .grow import Grower
from .idioms import IDIOMS
from .programs import random_program, with_inputs
from .schedules import Names, mixed_in, mutate_passes, random_passes, random_schedule


def random_case(rng: random.Random) -> Case:
    """A program with everything else at random; the passes that look for what is in it are likelier to run."""
    square = rng.random() < 0.7
    program, passes = random_program(rng, square)
    case = Case(
        program,
        mixed_in(rng, random_passes(rng, "program"), passes, 0.8),
        mixed_in(rng, random_passes(rng, "program"), passes, 0.5),
        random_passes(rng, "plan", 3),
        (),
        rng.random() < 0.5,
        random_graph(rng, square),
        rng.randrange(2**31),
        random_schedule(rng),
    )
    return replace(case, wrt=random_wrt(rng, program))


def random_wrt(rng: random.Random, program: Program) -> Names:
    """Some of the floating inputs; a third of the time none: forward only."""
    names = [i.name for i in program.inputs if i.dtype.is_float]
    if rng.random() < 0.33 or not names:
        return ()
    return tuple(names if rng.random() < 0.5 else sorted(rng.sample(names, rng.randint(1, len(names)))))


def mutate(rng: random.Random, case: Case, other: Case) -> Case:
    """``case`` with one to three changes; ``other`` lends its passes, its graph."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        case = rng.choices((_program, _passes, _idiom, _graph, _crossed), (5, 4, 3, 1, 0.5))[0](rng, case, other)
    return replace(case, seed=rng.randrange(2**31))


def _program(rng: random.Random, case: Case, other: Case) -> Case:
    change = rng.choice(PROGRAM_CHANGES)
    try:
        program = change(rng, case.program, case.graph.square)
    except TypeError:  # the change does not fit what reads the changed value
        return case
    if not program.results or len(program.body) > 40:
        return case
    names = {i.name for i in program.inputs}
    wrt = tuple(n for n in case.wrt if n in names)
    return replace(case, program=program, wrt=wrt if wrt else random_wrt(rng, program))


def _idiom(rng: random.Random, case: Case, other: Case) -> Case:
    """What a pass looks for, grown on what is there, and the pass."""
    grower = _grower(rng, case.program, case.graph.square, case.program.body)
    idiom = rng.choice(tuple(IDIOMS))
    made = grower.by(idiom)
    if made is None or len(case.program.body) > 30:
        return case
    program = with_inputs((*case.program.results, made)[-5:])
    return replace(
        case,
        program=program,
        first=mixed_in(rng, case.first, IDIOMS[idiom], 0.6)[:14],
        second=mixed_in(rng, case.second, IDIOMS[idiom], 0.4)[:14],
        wrt=case.wrt and random_wrt(rng, program),
    )


def _passes(rng: random.Random, case: Case, other: Case) -> Case:
    match rng.randrange(5):
        case 0 | 1:
            return replace(case, first=mutate_passes(rng, case.first, "program"))
        case 2 | 3:
            return replace(case, second=mutate_passes(rng, case.second, "program"))
        case _:
            third = mutate_passes(rng, case.third, "plan")
            return replace(case, third=third, schedule=random_schedule(rng))


def _graph(rng: random.Random, case: Case, other: Case) -> Case:
    return replace(case, graph=random_graph(rng, case.graph.square))


def _crossed(rng: random.Random, case: Case, other: Case) -> Case:
    return replace(case, first=other.first, second=other.second, third=other.third, cut=other.cut)


# ------------------------------------------------------------------------------------------------ changes of programs


def substituted(program: Program, changes: dict[Value, Value]) -> Program:
    """The program with some values replaced; TypeError if what reads them does not take the new types."""
    return with_inputs(rewrite(program.results, lambda node: node, dict(changes.items())))


def _grower(rng: random.Random, program: Program, square: bool, values: Sequence[Value] = ()) -> Grower:
    float_type = next((v.dtype for v in program.body if v.dtype.is_float), DType.F64)
    grower = Grower(rng, square, float_type, values)
    grower.names.update(i.name for i in program.inputs)
    return grower


def _floating(rng: random.Random, program: Program) -> Value:
    found = [v for v in program.body if v.dtype.is_float]
    return rng.choice(found or program.body)


def _replace(rng: random.Random, program: Program, square: bool) -> Program:
    """A value computed in another way from what comes before it."""
    old = _floating(rng, program)
    grower = _grower(rng, program, square, topological(old.children))  # type: ignore[arg-type]
    return substituted(program, {old: grower.replacement(old.type)})


def _insert(rng: random.Random, program: Program, square: bool) -> Program:
    """Something between a value and its readers."""
    old = _floating(rng, program)
    rank = len(old.shape)
    via = _grower(rng, program, square).map_from(old.space)
    choices: list[Callable[[], Value]] = [
        lambda: b.pointwise(rng.choice(("neg", "tanh", "relu", "sin")), old),
        lambda: b.pointwise("mul", old, rng.choice((1.0, 0.5, -1.0))),
        lambda: b.pointwise("add", old, old),
        lambda: Reshape(Reshape(old, (1, old.type.size)), old.shape),
        lambda: Permute(Permute(old, tuple(reversed(range(rank)))), tuple(reversed(range(rank)))),
    ]
    if via is not None:
        choices += [lambda: Lift(b.reduce_sum(old, via), via)] * 2
    return substituted(program, {old: rng.choice(choices)()})


def _delete(rng: random.Random, program: Program, square: bool) -> Program:
    """A value replaced by what it was computed from, or by an input."""
    old = _floating(rng, program)
    below = [v for v in topological(old.children) if isinstance(v, Value) and v.type == old.type]
    new = (
        rng.choice(below) if below and rng.random() < 0.7 else _grower(rng, program, square).input(old.space, old.shape)
    )
    return substituted(program, {old: new})


def _change_space(rng: random.Random, program: Program, square: bool) -> Program:
    """An input that comes from a coarser space, or that is computed in a finer one."""
    inputs = [v for v in program.body if isinstance(v, Input) and v.dtype.is_float]
    if not inputs:
        return program
    old = rng.choice(inputs)
    grower = _grower(rng, program, square)
    via = grower.map_from(old.space) if rng.random() < 0.7 else None
    if via is not None:
        return substituted(program, {old: Lift(grower.input(via.coarse, old.shape), via)})
    via = grower.map_to(old.space)
    return program if via is None else substituted(program, {old: b.reduce_sum(grower.input(via.fine, old.shape), via)})


def _share(rng: random.Random, program: Program, square: bool) -> Program:
    """One value read in place of another of its type."""
    old = _floating(rng, program)
    twins = [v for v in program.body if v.type == old.type and v is not old and old not in topological((v,))]
    return substituted(program, {old: rng.choice(twins)}) if twins else _insert(rng, program, square)


def _grow(rng: random.Random, program: Program, square: bool) -> Program:
    """One more operation on top."""
    made = _grower(rng, program, square, program.body).step()
    kept = [r for r in program.results if rng.random() < 0.6]
    return with_inputs((*kept, made)[-5:])


def _add_result(rng: random.Random, program: Program, square: bool) -> Program:
    """A value inside becomes a result."""
    return with_inputs((*program.results, rng.choice(program.body))[-5:])


def _drop_result(rng: random.Random, program: Program, square: bool) -> Program:
    if len(program.results) == 1:
        return _grow(rng, program, square)
    gone = rng.randrange(len(program.results))
    return with_inputs([r for n, r in enumerate(program.results) if n != gone])


def _constant(rng: random.Random, program: Program, square: bool) -> Program:
    """A value becomes a constant."""
    old = _floating(rng, program)
    if not old.dtype.is_float:
        return program
    new = b.expand(Constant(old.space, rng.choice((0.0, 1.0, 0.5)), old.dtype), old.shape)
    return substituted(program, {old: new})


PROGRAM_CHANGES: tuple[Callable[[random.Random, Program, bool], Program], ...] = (
    _replace,
    _replace,
    _insert,
    _insert,
    _delete,
    _change_space,
    _change_space,
    _share,
    _grow,
    _grow,
    _add_result,
    _drop_result,
    _constant,
)
