"""Random sequences of passes, whatever ``columba.passes`` holds, in any order, with any options; and schedules of kernels."""

from __future__ import annotations

import dataclasses
import functools
import random
from dataclasses import replace
from typing import Any

from columba.ir.plan.kernels import HostCall, Kernel
from columba.ir.plan.plan import Plan
from columba.ir.plan.verify import check_groups, check_scatter, check_split
from columba.ir.program.verify import VerificationError
from columba.passes.pipeline import Pass, discover, parse_passes
from columba.passes.recipes import LEVEL_1, LEVEL_2

Names = tuple[str, ...]

ENDS = ("src", "dst")
NUMBERS = (0, 1, 2, 4, 8, 16, 64)


@functools.cache
def passes_of(level: str) -> tuple[type[Pass[Any]], ...]:
    """The passes of ``program`` or ``plan``, by name."""
    return tuple(cls for _, cls in sorted(discover().items()) if cls.__module__.startswith(f"columba.passes.{level}."))


@functools.cache
def parse_pass(spelling: str) -> Pass[Any]:
    """One pass. (``parse_passes`` looks for new modules every time.)"""
    return parse_passes(spelling)[0]


def split(text: str) -> Names:
    """A sequence in its command-line spelling, one pass an element."""
    return tuple(map(str, parse_passes(text)))


def random_pass(rng: random.Random, level: str) -> str:
    """A pass with random options."""
    return _with_options(rng, rng.choice(passes_of(level)))


def _with_options(rng: random.Random, cls: type[Pass[Any]]) -> str:
    """A pass with its standard options, or with random ones."""
    options = {f.name: _option(rng, f.default) for f in dataclasses.fields(cls)} if rng.random() < 0.5 else {}
    return str(cls(**options))


def _option(rng: random.Random, default: Any) -> Any:
    """Another value of the type of ``default``; options of other types keep theirs."""
    if isinstance(default, bool):
        return rng.random() < 0.5
    if isinstance(default, int):
        return rng.choice(NUMBERS)
    if isinstance(default, float):
        return rng.choice((0.0, 0.5, 1.0, default))
    if default in ENDS:
        return rng.choice(ENDS)
    return default


def random_passes(rng: random.Random, level: str, longest: int = 4) -> Names:
    """The standard sequence, a shuffle of all passes, or a few at random."""
    kind = rng.random()
    if kind < 0.08:
        return tuple(map(str, LEVEL_1 if level == "program" else LEVEL_2))
    if kind < 0.16:
        every = [cls.name for cls in passes_of(level)]
        return tuple(rng.sample(every, len(every)))
    return tuple(random_pass(rng, level) for _ in range(rng.randint(0, longest)))


def mixed_in(rng: random.Random, passes: Names, more: Names, chance: float) -> Names:
    """``passes`` and, each with this chance, those called ``more`` anywhere between."""
    mixed = list(passes)
    for cls in passes_of("program"):
        for _ in range(more.count(cls.name)):
            if rng.random() < chance:
                mixed.insert(rng.randrange(len(mixed) + 1), _with_options(rng, cls))
    return tuple(mixed)


def mutate_passes(rng: random.Random, passes: Names, level: str) -> Names:
    """One pass inserted, dropped, replaced or moved."""
    changed = list(passes)
    at = rng.randrange(len(changed) + 1)
    action = rng.choice(("insert", "drop", "replace", "swap"))
    if action == "insert" or not changed:
        changed.insert(at, random_pass(rng, level))
    elif action == "drop":
        changed.pop(at % len(changed))
    elif action == "replace":
        changed[at % len(changed)] = random_pass(rng, level)
    else:
        other = rng.randrange(len(changed))
        changed[at % len(changed)], changed[other] = changed[other], changed[at % len(changed)]
    return tuple(changed[:12])


# ------------------------------------------------------------------------------------------------ schedules of kernels

Schedule = tuple[tuple[str, int], ...]
"""Fields of kernels' schedules, and what they are set to wherever a kernel has such a field and can run so."""

SETTINGS: dict[str, tuple[int, ...]] = {
    "split": (0, 1, 3, 64),
    "scratch": (0, 1, 4, 64),
    "tile_rows": (1, 8, 48, 1024),
}


def random_schedule(rng: random.Random) -> Schedule:
    """A third of the time the standard one."""
    if rng.random() < 0.33:
        return ()
    return tuple((name, rng.choice(values)) for name, values in sorted(SETTINGS.items()) if rng.random() < 0.5)


def rescheduled(plan: Plan, schedule: Schedule) -> Plan:
    """The plan with other schedules. Kernels that then cannot run in groups do not."""
    changed = replace(plan, kernels=tuple(_rescheduled(kernel, schedule) for kernel in plan.kernels))
    try:
        check_groups(changed)
    except VerificationError:
        changed = replace(changed, groups=())
    return changed


def _rescheduled(kernel: Kernel, schedule: Schedule) -> Kernel:
    for name, value in schedule:
        if isinstance(kernel, HostCall) or not hasattr(kernel.schedule, name):
            continue
        changed = replace(kernel, schedule=replace(kernel.schedule, **{name: value}))
        try:
            check_split(Plan("one", (), (), (changed,)))
            check_scatter(Plan("one", (), (), (changed,)))
        except VerificationError:  # these owners cannot be cut
            continue
        kernel = changed
    return kernel
