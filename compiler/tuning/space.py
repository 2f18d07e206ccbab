"""The search space: what there is to try: variants of the plan, and schedules of its kernels; and what the cost model leaves of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from columba.driver import Compilation
from columba.ir.counts import Counts
from columba.ir.plan.kernels import HostCall
from columba.ir.program.program import Program
from columba.runtime.backends import Backend
from columba.selection.cost import plan_seconds
from columba.selection.rates import Rates
from columba.selection.variants import ALTERNATIVES, Variants, recipe_of
from columba.selection.work import kernel_work
from columba.tuning.decisions import DIRECTIONS, BadDecision, Changes, Decision, ScheduleChanges, scheduled

OPTIONAL = (
    "reorder_linear",
    "fold_factors",
    "hoist_factors",
    "reuse_weighted_sums",
    "factor_sums",
    "merge_pads",
    "inline_thin_linear",
    "sink_lifts",
    "fuse_epilogues",
    "fuse_traversals",
)
"""Passes that usually pay, and are tried without: one at a time, beside each of the alternatives."""

OPEN: tuple[Mapping[str, bool], ...] = ({"merge_linears": True}, {"merge_linears": False})
"""Choices that depart from the standard recipe otherwise: wide products merged too, and none at all."""

PRICES = (0.25, 4.0)
"""Of saved bytes: to save more, and to compute more again."""

HOPELESS = 1.6
"""A variant that is predicted to take this many times as long as the best is not built: predictions are seldom that wrong."""

MOST_PLANS = 10
"""Variants of the plan that are built and measured."""


@dataclass(frozen=True)
class Candidate:
    """A decision, what it compiles to, and how long that is predicted to take, in seconds."""

    decision: Decision
    compilation: Compilation
    predicted: float


def plan_decisions(*, gradients: bool) -> Iterator[Decision]:
    """All variants of a plan: the alternatives, each as it is, without one of the optional passes, and with other prices."""
    for alternative in ALTERNATIVES:
        yield Decision(_spelled(alternative))
        for name in OPTIONAL:
            yield Decision(_spelled({**alternative, name: False}))
        for choice in OPEN:
            yield Decision(_spelled({**alternative, **choice}))
        if gradients:
            for price in PRICES:
                yield Decision(_spelled(alternative), price)


def _spelled(choices: Mapping[str, bool]) -> str:
    return ",".join(name if on else f"-{name}" for name, on in choices.items())


def plan_candidates(
    program: Program, wrt: Sequence[str], counts: Counts, rates: Rates, most: int = MOST_PLANS
) -> list[Candidate]:
    """The variants of a program's plan that are worth a measurement, the one that is predicted to be the fastest first.

    Of variants with the same plans one remains; of the others those that are predicted to come near the best.
    """
    found: dict[str, Candidate] = {}
    for decision in plan_decisions(gradients=bool(wrt)):
        compilation = decision.compile(program, tuple(wrt))
        text = "\n".join(str(plan) for plan in compilation.plans)
        if text not in found:
            predicted = sum(plan_seconds(plan, counts, rates) for plan in compilation.plans)
            found[text] = Candidate(decision, compilation, predicted)
    ordered = sorted(found.values(), key=lambda c: c.predicted)
    return [c for c in ordered if c.predicted <= HOPELESS * ordered[0].predicted][:most]


def default_decision(variants: Variants, counts: Counts) -> Decision:
    """What the cost model chooses, as a decision."""
    name = variants.choose(counts)
    for alternative in ALTERNATIVES:
        if variants.recipes[name] == recipe_of(alternative):
            return Decision(_spelled(alternative))
    raise ValueError(f"variant {name} was not made by the standard alternatives")


# ------------------------------------------------------------------------------------------------ schedules


NEGLIGIBLE = 0.004
"""The share of a kernel in the time of all below which its schedule is left alone, but for the number of threads."""


def sweeps(
    compilation: Compilation, seconds: Mapping[tuple[str, str], float], backend: Backend, architecture: str
) -> list[ScheduleChanges]:
    """ScheduleChanges for all kernels at once: the first choice of each, the second of each, and so on.

    Kernels are timed one by one, so that one run tries a choice of every kernel. ``seconds`` are the times of the kernels as they are.
    """
    total = sum(seconds.values())
    lists: dict[tuple[str, str], tuple[Changes, ...]] = {}
    for direction, plan in zip(DIRECTIONS, compilation.plans, strict=False):
        for kernel in plan.kernels:
            where = (direction, kernel.name)
            taken = seconds.get(where)
            if taken is None or isinstance(kernel, HostCall):
                continue
            found = backend.candidates(kernel, architecture) if taken >= NEGLIGIBLE * total else ()
            lists[where] = (*backend.candidates_if_short(kernel, taken), *found)
    longest = max(map(len, lists.values()), default=0)
    rows = [{where: c[n] for where, c in lists.items() if n < len(c)} for n in range(longest)]
    return [row for row in (_legal(compilation, row) for row in rows) if row]


def _legal(compilation: Compilation, row: dict[tuple[str, str], Changes]) -> ScheduleChanges:
    """The row without what the verifier refuses."""
    try:
        scheduled(compilation, row)
        return row
    except BadDecision:
        return {where: c for where, c in row.items() if _is_legal(compilation, {where: c})}


def _is_legal(compilation: Compilation, schedules: ScheduleChanges) -> bool:
    try:
        scheduled(compilation, schedules)
    except BadDecision:
        return False
    return True


def kernel_predictions(compilation: Compilation, counts: Counts, rates: Rates) -> dict[tuple[str, str], float]:
    """The predicted seconds of every kernel."""
    return {
        (direction, kernel.name): rates.seconds(kernel_work(kernel, counts, rates.cache))
        for direction, plan in zip(DIRECTIONS, compilation.plans, strict=False)
        for kernel in plan.kernels
    }
