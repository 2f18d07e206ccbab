"""The whole compilation on one page.

program --verify--> --optimize--> forward
        --differentiate--> joint --optimize jointly--> --choose what to save--> forward, backward
each    --lower--> plan --fuse--> plan --emit, build--> kernels --register--> operators
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from columba.autodiff import differentiate
from columba.codegen.cpp import emit
from columba.distinct import Distinct, Place, copied, distinct
from columba.ir.counts import SPACES
from columba.ir.interop.program import Program
from columba.ir.interop.verify import verify as verify_program
from columba.ir.intraop.plan import Plan, spaces_of
from columba.ir.intraop.verify import verify as verify_plan
from columba.ir.types import DType
from columba.lowering import lower
from columba.partition import Source, partition
from columba.passes.interop.expand_softmax import ExpandSoftmax
from columba.passes.intraop.sort_rows import SortRows, sort_saved
from columba.pipeline import Pipeline, parse_passes
from columba.runtime.graph import Graph
from columba.runtime.host import run_host_program
from columba.runtime.launch import Executable, ExecutableLike, Launcher
from columba.runtime.operators import CompiledProgram, Direction, ProgramOnGraph
from columba.saving import Saving

if TYPE_CHECKING:
    from columba.codegen.triton import Schedules

LEVEL_1 = (
    "canonicalize,legalize_linear,split_linear,common_subexpressions,merge_reductions,reorder_linear,"
    "reassociate_products,fold_factors,merge_linears{wide=False},merge_pads,compact_materialization,aggregate_first{edges_only=True},"
    "aggregate_first{end='src',edges_only=True},hoist_factors,canonicalize,common_subexpressions,pull_negations,"
    "reuse_weighted_sums,factor_sums,expand_softmax,compact_materialization,canonicalize,sink_lifts,inline_thin_linear,"
    "common_subexpressions"
)
LEVEL_2 = "fuse_traversals,fuse_epilogues,group_kernels,order_kernels,sort_rows,round_stored"


@dataclass(frozen=True)
class Recipe:
    """Which passes run, in their command-line spelling, and whether every one is followed by the verifier."""

    level1: str = LEVEL_1
    level2: str = LEVEL_2
    verify: bool = False

    def optimize(self, program: Program, *, to_differentiate: bool = False) -> Program:
        """``to_differentiate``: without what is done to the joint program only."""
        passes = parse_passes(self.level1)
        if to_differentiate:
            passes = tuple(p for p in passes if not isinstance(p, ExpandSoftmax))
        return Pipeline(passes, self.verify).run(program)

    def schedule(self, plan: Plan) -> Plan:
        return Pipeline(parse_passes(self.level2), self.verify).run(plan)


@dataclass(frozen=True)
class Compilation:
    """Everything that the compiler made of a program, stage by stage; ``backward`` parts are None without gradients.

    ``schedules`` say how Triton runs the kernels that they name. ``places[i]`` says where result ``i`` of the traced program is found:
    among its inputs or among the forward results.
    """

    traced: Program
    forward: Program
    forward_plan: Plan
    places: tuple[Place, ...]
    joint: Program | None = None
    backward: Program | None = None
    backward_plan: Plan | None = None
    sources: tuple[Source, ...] = ()
    gradients: tuple[tuple[str, int] | None, ...] = ()
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
        )

    @property
    def spare(self) -> tuple[int, ...]:
        """See :attr:`Planned.spare`."""
        return self.planned.spare

    def source(self, index_dtype: DType = DType.I32, backend: str = "cpp") -> str:
        """The source of all kernels, as ``backend`` emits it."""
        if backend == "triton":
            from columba.codegen.triton import emit as emit_triton

            return emit_triton(self.plans, self.schedules).source
        return "\n".join(emit([plan], index_dtype) for plan in self.plans)


@dataclass(frozen=True)
class Planned:
    """What running needs of a compilation. ``results`` are those that the forward plan returns beside saved values, ``texts`` the
    plans' text, if it is known, ``schedules`` how Triton runs the kernels that they name."""

    name: str
    plans: tuple[Plan, ...]
    results: int
    places: tuple[Place, ...]
    sources: tuple[Source, ...] = ()
    gradients: tuple[tuple[str, int] | None, ...] = ()
    texts: tuple[str, ...] = ()
    schedules: Schedules = field(default_factory=dict)

    @property
    def plan_texts(self) -> tuple[str, ...]:
        """The plans as text: as they were read, if they were."""
        return self.texts or tuple(map(str, self.plans))

    @property
    def spare(self) -> tuple[int, ...]:
        """Backward inputs, by position, that are saved values which nobody else sees: their memory may be used again in that pass."""
        return tuple(n for n, s in enumerate(self.sources) if _is_internal(s, self.results, self.gradients))


def compile_program(
    traced: Program, wrt: Sequence[str] = (), recipe: Recipe | None = None, saving: Saving | None = None
) -> Compilation:
    """Compiles a level-1 program, and its gradient with respect to the inputs called ``wrt``, down to plans."""
    recipe = recipe or Recipe()
    verify_program(traced)
    wanted = distinct(recipe.optimize(traced, to_differentiate=bool(wrt)))
    wanted, joint = _differentiated(wanted, wrt, recipe) if wrt else (wanted, None)
    if joint is None:
        plan = verify_plan(recipe.schedule(lower(wanted.program)))
        return Compilation(traced, wanted.program, plan, wanted.places)

    inputs, results = len(wanted.program.inputs), len(wanted.program.results)
    parts = partition(joint, inputs, results, saving)
    backward = distinct(parts.backward)
    by_name = dict(zip(wrt, backward.places, strict=True))
    gradients = tuple(_gradient(by_name.get(i.name), parts.sources) for i in traced.inputs)
    forward_plan, backward_plan = (recipe.schedule(lower(p)) for p in (parts.forward, backward.program))
    if SortRows() in parse_passes(recipe.level2):
        internal = [
            (forward_plan.outputs[source[1]], backward_plan.inputs[n])
            for n, source in enumerate(parts.sources)
            if _is_internal(source, results, gradients)
        ]
        forward_plan, backward_plan = sort_saved(forward_plan, backward_plan, internal)
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


def _is_internal(source: Source, results: int, gradients: Sequence[tuple[str, int] | None]) -> bool:
    """Whether a backward input is a saved value that nobody sees but the backward plan."""
    return source[0] == "result" and source[1] >= results and source not in gradients


def _gradient(place: Place | None, sources: Sequence[Source]) -> tuple[str, int] | None:
    """Where the operator finds the gradient of an input: computed, or one of the backward program's own inputs."""
    if place is None:
        return None
    kind, n = place
    return ("output", n) if kind == "output" else sources[n]


def build(planned: Planned, index_dtype: DType, backend: str) -> ExecutableLike:
    """The kernels of plans, built by a backend."""
    if backend == "triton":
        from columba.runtime.triton_launch import TritonExecutable  # Triton need not be installed

        return TritonExecutable(planned.plans, index_dtype, schedules=planned.schedules)
    return Executable(planned.plans, index_dtype, planned.plan_texts)


class Runnable:
    """Plans with their kernels built, to be called on a graph and on tensors."""

    def __init__(self, of: Planned | Compilation, index_dtype: DType, backend: str = "cpp") -> None:
        self.planned = planned = of.planned if isinstance(of, Compilation) else of
        self.copied = copied(planned.places)
        self.executable = build(planned, index_dtype, backend)
        plans = self.executable.plans
        self.arrays = tuple(dict.fromkeys(a for plan in plans for a in plan.index_arrays))
        self._lock = threading.Lock()
        self._on: weakref.WeakKeyDictionary[Graph, ProgramOnGraph] = weakref.WeakKeyDictionary()
        self.spaces = {space for plan in plans for space in spaces_of(plan)}
        forward = self._direction(plans[0])
        backward = self._direction(plans[1]) if len(plans) > 1 else None
        self.program = CompiledProgram(
            planned.name, forward, planned.results, backward, planned.sources, planned.gradients, planned.spare
        )

    def _direction(self, plan: Plan) -> Direction:
        def bind(index: Sequence[Tensor], counts: Sequence[int]) -> Launcher:
            host = functools.partial(run_host_program, counts=counts)
            return self.executable.bind(plan.name, index, counts, host)

        index = tuple(self.arrays.index(a) for a in plan.index_arrays)
        return Direction(bind, index, tuple(b.type for b in plan.outputs))

    def on(self, graph: Graph) -> ProgramOnGraph:
        """The program prepared for a graph: made on the first call, kept as long as both live."""
        with self._lock:
            if graph not in self._on:
                self._on[graph] = self._prepare(graph)
            return self._on[graph]

    def _prepare(self, graph: Graph) -> ProgramOnGraph:
        index = [graph.structure.index(a) for a in self.arrays]
        counts = [graph.count(space) if space in self.spaces else 0 for space in SPACES]
        return ProgramOnGraph(self.program, index, counts)

    def __call__(self, inputs: Sequence[Tensor], graph: Graph) -> list[Tensor]:
        """Results of the traced program."""
        outputs = self.on(graph)(inputs) if self.planned.results else []
        found = {"input": inputs, "output": outputs}
        results = [found[kind][n] for kind, n in self.planned.places]
        return [x.clone() if copy else x for x, copy in zip(results, self.copied, strict=True)]
