"""What tuning decides: which passes run, what a saved byte costs, and the schedules of kernels.

A decision is frozen and has one text form, JSON with sorted keys. Reading one back checks everything that can be checked: the names of
passes, plans, kernels and fields, and the range of every number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from columba.driver import Compilation, compile_program
from columba.gradient.saving import Saving
from columba.ir.plan.kernels import Kernel
from columba.ir.plan.plan import Plan
from columba.ir.plan.verify import verify
from columba.ir.program.program import Program
from columba.passes.recipes import Recipe
from columba.runtime.backends import KIND, Changes, backend_of
from columba.selection.variants import parse_choices, recipe_of

DIRECTIONS = ("forward", "backward")

ScheduleChanges = Mapping[tuple[str, str], Changes]
"""By direction and name of kernel."""


DEEPEST = 12
"""Levels of a decision: what is nested deeper was not written by this module."""


class BadDecision(ValueError):
    """A text is no decision, or the decision does not fit the program; the message says why."""


@dataclass(frozen=True, eq=False)
class Decision:
    """One candidate, or a winner.

    Attributes:
        passes: choices of passes, as ``columba.compile(passes=...)`` takes them; what they leave out is as in the standard recipe.
        price: what a saved byte costs, against the standard price: more is saved where it is low.
        schedules: changes to the schedules of kernels.
    """

    passes: str = ""
    price: float = 1.0
    schedules: ScheduleChanges = field(default_factory=dict)

    def __str__(self) -> str:
        nested: dict[str, dict[str, dict[str, Any]]] = {}
        for (direction, kernel), changes in self.schedules.items():
            if changes:
                nested.setdefault(direction, {})[kernel] = dict(changes)
        return json.dumps({"passes": self.passes, "price": self.price, "schedules": nested}, sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decision) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def label(self) -> str:
        """A few words for people."""
        words = [self.passes or "standard passes"]
        if self.price != 1.0:
            words.append(f"a saved byte costs {self.price:g}")
        kinds: dict[str, int] = {}
        for changes in self.schedules.values():
            for name, value in sorted(changes.items()):
                if name == KIND or not isinstance(value, (int, str)):
                    continue
                kinds[f"{name}={value}"] = kinds.get(f"{name}={value}", 0) + 1
        words += [f"{what} for {n} kernel{'s' if n > 1 else ''}" for what, n in sorted(kinds.items())]
        return "; ".join(words)

    @property
    def recipe(self) -> Recipe:
        return recipe_of(parse_choices(self.passes))

    @property
    def saving(self) -> Saving | None:
        return None if self.price == 1.0 else Saving(price=self.price)

    def with_schedules(self, more: ScheduleChanges) -> Decision:
        """The decision with further changes to schedules."""
        merged = {where: dict(changes) for where, changes in self.schedules.items()}
        for where, changes in more.items():
            merged[where] = dict(changes) if KIND in changes else {**merged.get(where, {}), **changes}
        return replace(self, schedules=merged)

    def compile(self, program: Program, wrt: tuple[str, ...]) -> Compilation:
        """What the decision makes of a program.

        Raises:
            BadDecision: a kernel that it speaks of is not there, or cannot run under that schedule.
        """
        return scheduled(compile_program(program, wrt, self.recipe, self.saving), self.schedules)


def scheduled(compilation: Compilation, schedules: ScheduleChanges) -> Compilation:
    """A compilation with the schedules of some kernels changed; :class:`BadDecision` where that cannot be."""
    if not any(schedules.values()):
        return compilation
    plans = dict(zip(DIRECTIONS, (compilation.forward_plan, compilation.backward_plan), strict=True))
    kernels = {(d, k.name): k for d, plan in plans.items() if plan is not None for k in plan.kernels}
    apart: dict[tuple[str, str], Any] = {}
    for (direction, name), changes in schedules.items():
        if (direction, name) not in kernels:
            raise BadDecision(f"the program has no kernel {name} in its {direction} plan")
        try:
            kernel, schedule = backend_of(changes).scheduled(kernels[direction, name], changes)
        except ValueError as e:
            raise BadDecision(str(e)) from e
        kernels[direction, name] = kernel
        if schedule is not None:
            apart[plans[direction].name, name] = schedule  # type: ignore[union-attr]
    changed = {d: None if plan is None else _with_kernels(plan, d, kernels) for d, plan in plans.items()}
    forward = changed["forward"]
    assert forward is not None
    return replace(compilation, forward_plan=forward, backward_plan=changed["backward"], schedules=apart)


def _with_kernels(plan: Plan, direction: str, kernels: Mapping[tuple[str, str], Kernel]) -> Plan:
    found = tuple(kernels[direction, k.name] for k in plan.kernels)
    if all(a is b for a, b in zip(found, plan.kernels, strict=True)):
        return plan
    try:
        return verify(replace(plan, kernels=found))
    except ValueError as e:
        raise BadDecision(str(e).splitlines()[0]) from e


def parse_decision(text: str) -> Decision:
    """The decision that a text says; :class:`BadDecision` where it says none."""
    try:
        content = json.loads(text)
    except ValueError as e:
        raise BadDecision(f"the decision is not JSON: {e}") from e
    except RecursionError as e:
        raise BadDecision("the decision is nested too deeply") from e
    if _depth_exceeds(content, DEEPEST):
        raise BadDecision("the decision is nested too deeply")
    if not isinstance(content, dict) or set(content) != {"passes", "price", "schedules"}:
        raise BadDecision("a decision has the fields passes, price and schedules")
    passes, price = content["passes"], content["price"]
    if not isinstance(passes, str):
        raise BadDecision("passes must be a string")
    try:
        parse_choices(passes)
    except ValueError as e:
        raise BadDecision(str(e)) from e
    if not isinstance(price, float) or not 0 < price < math.inf:
        raise BadDecision(f"price must be a positive number, not {price!r}")
    return Decision(passes, price, _parse_schedules(content["schedules"]))


def _depth_exceeds(content: Any, most: int) -> bool:
    """Whether lists and objects are nested more than ``most`` levels deep."""
    level = [content]
    for _ in range(most + 1):
        level = [x for nested in level for x in _members(nested)]
    return bool(level)


def _members(content: Any) -> Iterable[Any]:
    return content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()


def _parse_schedules(nested: Any) -> ScheduleChanges:
    found: dict[tuple[str, str], dict[str, int]] = {}
    if not isinstance(nested, dict) or not set(nested) <= set(DIRECTIONS):
        raise BadDecision(f"schedules must be given for {' and '.join(DIRECTIONS)}")
    for direction, kernels in nested.items():
        if not isinstance(kernels, dict):
            raise BadDecision(f"the schedules of the {direction} plan must be given by kernel")
        for kernel, changes in kernels.items():
            if not isinstance(changes, dict) or not (KIND in changes or all(type(v) is int for v in changes.values())):
                raise BadDecision(f"the schedule of kernel {kernel} must be given by field, in integers")
            found[direction, kernel] = changes
    return found
