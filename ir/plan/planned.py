"""Compiled programs as running sees them: plans, and how the values that pass between and around them are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from columba.ir.plan.plan import Plan
from columba.ir.program.program import Program

ResultPlace = tuple[Literal["input", "output"], int]
"""Where a result of a program is found: among its inputs, or among what its forward plan returns, by position."""

BackwardSource = tuple[Literal["input", "result", "grad"], int]
"""Where a backward input comes from: an input or a result of the forward program, or the gradient of a result, by position."""

Gradient = tuple[str, int] | None
"""Where the gradient of an input is found: an output of the backward plan, or a backward input that it equals; None: there is none."""

Schedules = Mapping[tuple[str, str], Any]
"""How kernels run, by the names of plan and kernel, for backends whose schedules are no part of the plan."""


@dataclass(frozen=True)
class Planned:
    """What running needs of a compilation. ``results`` are those that the forward plan returns beside saved values, ``texts`` the
    plans' text, if it is known, ``schedules`` those that are no part of the plans, ``precision`` how a GPU computes products of float32
    (None: as PyTorch's settings say), ``cuda_graphs`` whether a GPU replays plans that come back, ``program`` what was compiled, for what
    there are no plans of: derivatives of higher order."""

    name: str
    plans: tuple[Plan, ...]
    results: int
    places: tuple[ResultPlace, ...]
    sources: tuple[BackwardSource, ...] = ()
    gradients: tuple[Gradient, ...] = ()
    texts: tuple[str, ...] = ()
    schedules: Schedules = field(default_factory=dict)
    precision: str | None = None
    cuda_graphs: bool = False
    program: Program | None = None

    @property
    def plan_texts(self) -> tuple[str, ...]:
        """The plans as text: as they were read, if they were."""
        return self.texts or tuple(map(str, self.plans))

    @property
    def spare(self) -> tuple[int, ...]:
        """Backward inputs, by position, that are saved values which nobody else sees: their memory may be used again in that pass."""
        return tuple(n for n, s in enumerate(self.sources) if is_internal(s, self.results, self.gradients))


def is_internal(source: BackwardSource, results: int, gradients: Sequence[Gradient]) -> bool:
    """Whether a backward input is a saved value that nobody sees but the backward plan."""
    return source[0] == "result" and source[1] >= results and source not in gradients


def copied(places: Sequence[tuple[str, int]]) -> list[bool]:
    """Which results have to be copied to where they are handed out, so that each owns its memory: inputs, and what was handed out before.

    >>> copied([("output", 0), ("input", 1), ("output", 1), ("output", 0)])
    [False, True, False, True]
    """
    return [place[0] == "input" or place in places[:n] for n, place in enumerate(places)]
