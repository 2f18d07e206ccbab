"""Measuring candidates side by side.

Candidates run in turn with a reference, round after round, so that what slows the machine slows all of them; what counts is the ratio
within a round, and of the rounds the median. The spread of the ratios says how far the median can be trusted.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from columba.ir.counts import Counts
from columba.ir.program.program import Program
from columba.ir.types import TensorType
from columba.runtime.dtypes import torch_dtype
from columba.runtime.executable import kernel_times
from columba.runtime.graphs.graph import Graph
from columba.runtime.modes import outside_modes
from columba.runtime.program import Runnable
from columba.tuning.decisions import DIRECTIONS

FEWEST, ENOUGH = 3, 16
"""Rounds that are always made, and rounds after which no more are."""

OUT = 1.25
"""A candidate that takes this many times as long as the reference after the first rounds is not run again."""

MARGIN = 0.01
"""A candidate has to be better by this and by twice its noise."""

ClockTimes = dict[tuple[str, str], float]
"""Seconds of each kernel of one run, by direction and name."""


@dataclass(frozen=True)
class Times:
    """One run: all of it, and each kernel where the backend tells."""

    total: float
    kernels: ClockTimes


class Workload:
    """A program on a graph with made-up inputs: one run is a forward call, and a backward one if gradients are wanted."""

    def __init__(self, program: Program, wrt: Sequence[str], graph: Graph) -> None:
        self.graph, self.wrt = graph, tuple(wrt)
        counts = Counts({s: graph.count(s) for s in {i.space for i in program.inputs}})
        with outside_modes():
            generator = torch.Generator(graph.device).manual_seed(0)
            self.inputs = [_made_up(i.type, counts, graph.device, generator) for i in program.inputs]
        self.grads: list[Tensor] = []

    def run(self, runnable: Runnable) -> Times:
        """One run, timed."""
        program, prepared = runnable.program, runnable.on(self.graph)
        backward = prepared.backward  # bound now
        with outside_modes(), torch.no_grad(), kernel_times() as kernels:
            self._wait()
            start = time.perf_counter()
            results = prepared.forward.run(self.inputs)
            if backward is not None:
                if len(self.grads) != program.results:
                    self.grads = [torch.ones_like(x) for x in results[: program.results]]
                given = {"input": self.inputs, "result": results, "grad": self.grads}
                backward.run([given[place][n] for place, n in program.sources])
            self._wait()
            total = time.perf_counter() - start
        names = {plan.name: d for d, plan in zip(DIRECTIONS, runnable.planned.plans, strict=False)}
        return Times(total, {(names[p], k): sum(s) for p, of in kernels.items() for k, s in of.items()})

    def _wait(self) -> None:
        if self.graph.device.type == "cuda":
            torch.cuda.synchronize(self.graph.device)


def _made_up(t: TensorType, counts: Counts, device: torch.device, generator: torch.Generator) -> Tensor:
    shape, dtype = counts.shape(t), torch_dtype(t.dtype)
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype, device=device)
    return (
        torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
        / math.sqrt(max(1, t.shape[-1] if t.shape else 1))
    ).to(dtype)


@dataclass
class Measured:
    """A candidate's runs beside the reference's."""

    ratios: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    kernels: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, mine: Times, reference: Times) -> None:
        self.ratios.append(mine.total / reference.total)
        self.seconds.append(mine.total)
        for where, taken in mine.kernels.items():
            if reference.kernels.get(where):
                self.kernels.setdefault(where, []).append(taken / reference.kernels[where])

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def noise(self) -> float:
        return noise(self.ratios)

    @property
    def wins(self) -> float:
        """The share of the rounds in which the candidate was faster."""
        return sum(r < 1 for r in self.ratios) / len(self.ratios)


def noise(ratios: Sequence[float]) -> float:
    """How far the median of some ratios may be off: its standard error, by the median deviation. Infinite for a single one."""
    if len(ratios) < 2:
        return math.inf
    middle = statistics.median(ratios)
    deviation = 1.4826 * statistics.median(abs(r - middle) for r in ratios)
    return 1.2533 * deviation / math.sqrt(len(ratios))


def is_better(ratio: float, noise: float, margin: float = MARGIN) -> bool:
    """Whether a ratio says that the candidate is faster, by more than chance explains."""
    return ratio + 2 * noise < 1 - margin


def _best_of_two(run: Callable[[Runnable], Times], runnable: Runnable) -> Times:
    """Two runs, and the better of each time: what the system does now and then does not count."""
    first, second = run(runnable), run(runnable)
    kernels = {where: min(taken, second.kernels[where]) for where, taken in first.kernels.items()}
    return Times(min(first.total, second.total), kernels)


def compare(
    run: Callable[[Runnable], Times],
    reference: Runnable,
    candidates: Mapping[str, Runnable],
    seconds: float,
    rounds: int = ENOUGH,
) -> tuple[dict[str, Measured], list[Times]]:
    """Measures candidates beside a reference for about ``seconds``; at least :data:`FEWEST` rounds.

    Every round runs the reference and all candidates, in an order that turns from round to round. Candidates that are hopeless after
    the first rounds stay out of the later ones. Returns what was measured, and the runs of the reference.
    """
    found = {name: Measured() for name in candidates}
    of_reference: list[Times] = []
    for r in (reference, *candidates.values()):
        run(r)  # pages, caches and branch predictors
    begin = time.perf_counter()
    left = dict(candidates)
    for n in range(rounds):
        if n >= FEWEST and time.perf_counter() - begin > seconds:
            break
        turn: list[str | None] = [None, *left]
        turn = turn[n % len(turn) :] + turn[: n % len(turn)]
        times = {name: _best_of_two(run, reference if name is None else left[name]) for name in turn}
        of_reference.append(times[None])
        for name in left:
            found[name].add(times[name], times[None])
        if n + 1 == FEWEST:
            left = {name: r for name, r in left.items() if found[name].ratio < OUT or found[name].kernels}
    return found, of_reference
