"""Compiled programs with their kernels built, to be called on graphs and tensors."""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections.abc import Sequence

from torch import Tensor

from columba.ir.counts import SPACES, Counts
from columba.ir.plan.plan import Plan, spaces_of
from columba.ir.plan.planned import Planned, copied
from columba.ir.types import DType
from columba.runtime.backends import CPP, Backend
from columba.runtime.executable import Launcher
from columba.runtime.fast_path import ProgramOnGraph
from columba.runtime.graphs.graph import Graph
from columba.runtime.graphs.recipes import Preparation
from columba.runtime.host import run_host_program
from columba.runtime.logs import logger
from columba.runtime.operators import CompiledProgram, Direction

LOG = logger("memory")


class Runnable:
    """Plans with their kernels built, to be called on a graph and on tensors.

    Args:
        planned: what to run.
        index_dtype: of the index arrays of the graphs that it will run on.
        backend: what builds the kernels.
    """

    def __init__(self, planned: Planned, index_dtype: DType, backend: Backend = CPP) -> None:
        self.planned = planned
        self.copied = copied(planned.places)
        self.executable = backend.executable(planned, index_dtype)
        plans = self.executable.plans
        self.arrays = tuple(dict.fromkeys(a for plan in plans for a in self.executable.index_arrays(plan)))
        self.preparation = Preparation(self.arrays)
        self._lock = threading.Lock()
        self._on: weakref.WeakKeyDictionary[Graph, ProgramOnGraph] = weakref.WeakKeyDictionary()
        self.spaces = {space for plan in plans for space in spaces_of(plan)}
        forward = self._direction(plans[0])
        backward = self._direction(plans[1]) if len(plans) > 1 else None
        self.program = CompiledProgram(
            planned.name,
            forward,
            planned.results,
            backward,
            planned.sources,
            planned.gradients,
            planned.spare,
            planned.program,
            tuple(planned.places.index(("output", n)) for n in range(planned.results)),
        )

    def _direction(self, plan: Plan) -> Direction:
        def bind(index: Sequence[Tensor], counts: Sequence[int]) -> Launcher:
            host = functools.partial(run_host_program, counts=counts)
            return self.executable.bind(plan.name, index, counts, host)

        index = tuple(self.arrays.index(a) for a in self.executable.index_arrays(plan))
        return Direction(bind, index, tuple(b.type for b in plan.outputs))

    def on(self, graph: Graph) -> ProgramOnGraph:
        """The program prepared for a graph: made on the first call, kept as long as both live."""
        with self._lock:
            if graph not in self._on:
                self._on[graph] = self._prepare(graph)
            return self._on[graph]

    def _prepare(self, graph: Graph) -> ProgramOnGraph:
        index = self.preparation(graph.structure)
        counts = [graph.count(space) if space in self.spaces else 0 for space in SPACES]
        if LOG.isEnabledFor(logging.INFO):
            rows, outputs = Counts(counts), self.program.forward.outputs
            results, kept = (
                sum(map(rows.bytes, types))
                for types in (outputs[: self.program.results], outputs[self.program.results :])
            )
            LOG.info(
                "%s on %s: %d bytes of results, %d bytes kept for the gradient beside inputs and results, %d bytes of index arrays",
                self.planned.name, graph, results, kept, sum(x.nbytes for x in index),
            )  # fmt: skip
        return ProgramOnGraph(self.program, index, counts, graph.structure)

    def __call__(self, inputs: Sequence[Tensor], graph: Graph) -> list[Tensor]:
        """Results of the traced program."""
        outputs = self.on(graph)(inputs) if self.planned.results else []
        found = {"input": inputs, "output": outputs}
        results = [found[kind][n] for kind, n in self.planned.places]
        return [x.clone() if copy else x for x, copy in zip(results, self.copied, strict=True)]
