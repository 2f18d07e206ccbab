"""The whole compilation on one page.

program --verify--> --optimize--> forward
        --differentiate--> joint --optimize jointly--> --choose what to save--> forward, backward
each    --lower--> plan --fuse--> plan --emit, build--> kernels --register--> operators
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

from columba.gradient.differentiate import differentiate, without_gradients
from columba.gradient.distinct import Distinct, distinct
from columba.gradient.partition import partition
from columba.gradient.saving import Saving
from columba.ir.plan.plan import Plan
from columba.ir.plan.planned import BackwardSource, Gradient, Planned, ResultPlace, Schedules, is_internal
from columba.ir.plan.verify import verify as verify_plan
from columba.ir.program.program import Program
from columba.ir.program.verify import verify as verify_program
from columba.ir.types import DType
from columba.lowering.kernels import lower
from columba.passes.recipes import Recipe
from columba.runtime.backends import backend_named


@dataclass(frozen=True)
class Compilation:
    """Everything that the compiler made of a program, stage by stage; ``backward`` parts are None without gradients.

    ``schedules`` say how Triton runs the kernels that they name. ``places[i]`` says where result ``i`` of the traced program is found:
    among its inputs or among the forward results.
    """

    traced: Program
    forward: Program
    forward_plan: Plan
    places: tuple[ResultPlace, ...]
    joint: Program | None = None
    backward: Program | None = None
    backward_plan: Plan | None = None
    sources: tuple[BackwardSource, ...] = ()
    gradients: tuple[Gradient, ...] = ()
    schedules: Schedules = field(default_factory=dict)

    @property
    def plans(self) -> tuple[Plan, ...]:
        return tuple(p for p in (self.forward_plan, self.backward_plan) if p is not None)

    @functools.cached_property
    def results(self) -> int:
        """Results of the forward program, without what it saves."""
        return len({n for place, n in self.places if place == "output"})

    @property
    def planned(self) -> Planned:
        """As much of it as running needs."""
        return Planned(
            self.traced.name,
            self.plans,
            self.results,
            self.places,
            self.sources,
            self.gradients,
            schedules=self.schedules,
            program=self.traced,
        )

    @property
    def spare(self) -> tuple[int, ...]:
        """See :attr:`Planned.spare`."""
        return self.planned.spare

    def source(self, index_dtype: DType = DType.I32, backend: str = "cpp") -> str:
        """The source of all kernels, as ``backend`` emits it."""
        return backend_named(backend).emit(self.planned, index_dtype)


def compile_program(
    traced: Program, wrt: Sequence[str] = (), recipe: Recipe | None = None, saving: Saving | None = None
) -> Compilation:
    """Compiles a level-1 program, and its gradient with respect to the inputs called ``wrt``, down to plans."""
    recipe = recipe or Recipe()
    verify_program(traced)
    program = traced if wrt else without_gradients(traced)
    wanted = distinct(recipe.optimize(program, to_differentiate=bool(wrt)))
    wanted, joint = _differentiated(wanted, wrt, recipe) if wrt else (wanted, None)
    if joint is None:
        plan = verify_plan(recipe.schedule(lower(wanted.program)))
        return Compilation(traced, wanted.program, plan, wanted.places)

    inputs, results = len(wanted.program.inputs), len(wanted.program.results)
    parts = partition(joint, inputs, results, saving)
    backward = distinct(parts.backward)
    by_name = dict(zip(wrt, backward.places, strict=True))
    gradients = tuple(_gradient(by_name.get(i.name), parts.sources) for i in traced.inputs)
    saved = [(source[1], n) for n, source in enumerate(parts.sources) if is_internal(source, results, gradients)]
    forward_plan, backward_plan = recipe.schedule_pair(lower(parts.forward), lower(backward.program), saved)
    verify_plan(forward_plan)
    verify_plan(backward_plan)
    return Compilation(
        traced,
        parts.forward,
        forward_plan,
        wanted.places,
        joint,
        backward.program,
        backward_plan if backward.program.results else None,
        parts.sources,
        gradients,
    )


def _differentiated(wanted: Distinct, wrt: Sequence[str], recipe: Recipe) -> tuple[Distinct, Program | None]:
    """The forward program, and the joint one if there is anything to compute.

    Passes may see only the second time that a result is an input, or another result: it is then taken out of the forward program.
    """
    while wanted.program.results:
        joint = recipe.optimize(differentiate(wanted.program, wrt))
        inputs, results = len(wanted.program.inputs), len(wanted.program.results)
        again = distinct(
            Program(wanted.program.name, joint.inputs[:inputs], joint.results[:results], joint.result_names[:results])
        )
        if len(again.program.results) == results:
            return wanted, joint
        # What is left of the program that was differentiated: in the joint one a softmax is no longer one operation.
        left = [joint.results.index(r) for r in again.program.results]
        wanted = Distinct(
            Program(
                wanted.program.name,
                wanted.program.inputs,
                tuple(wanted.program.results[n] for n in left),
                tuple(wanted.program.result_names[n] for n in left),
            ),
            tuple(again.places[n] if kind == "output" else (kind, n) for kind, n in wanted.places),
        )
    return wanted, None


def _gradient(place: ResultPlace | None, sources: Sequence[BackwardSource]) -> Gradient:
    """Where the operator finds the gradient of an input: computed, or one of the backward program's own inputs."""
    if place is None:
        return None
    kind, n = place
    return ("output", n) if kind == "output" else sources[n]
