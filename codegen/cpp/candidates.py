"""The schedules that a kernel can have in C++, for a tuner to try, as changes to the one that it has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from columba.ir.plan.kernels import Gemm, GemmReduce, HostCall, Kernel, Traversal

Changes = Mapping[str, Any]
"""Fields of a schedule, and their new values."""

MEMBERS: tuple[Changes, ...] = (
    {"pieces": 8},
    {"pieces": 32},
    {"ahead": 16, "pieces": 8},
    {"scratch": 0, "pieces": 8},
    {"ahead": 4},
    {"lines": 8, "pieces": 8},
    {"scratch": 64},
    {"lines": 2},
)
"""For traversals over members, in the order in which they have proved useful."""

SPLITS: tuple[Changes, ...] = ({"split": 1024}, {"split": 16384})
"""For traversals that cut their owners."""

PRODUCTS: tuple[Changes, ...] = ({"tile_rows": 1024}, {"tile_rows": 256}, {"tile_rows": 128}, {"tile_rows": 2048})

OUTER_PRODUCTS: tuple[Changes, ...] = (
    {"tile_rows": 2048},
    {"tile_rows": 1024},
    {"tile_rows": 4096},
    {"tile_rows": 256},
)

ONE_THREAD: Changes = {"threads": 1}

SHORT = 5e-5
"""Seconds of a kernel for which a second thread may not pay."""


def candidates(kernel: Kernel) -> tuple[Changes, ...]:
    """The schedules that are tried for a kernel."""
    match kernel:
        case Traversal(via=None) | HostCall():
            return ()
        case Traversal():
            return _fitting(kernel, SPLITS if kernel.schedule.split else MEMBERS)
        case Gemm():
            return _fitting(kernel, PRODUCTS)
        case GemmReduce():
            return _fitting(kernel, OUTER_PRODUCTS)


def for_short(kernel: Kernel, seconds: float) -> tuple[Changes, ...]:
    """What is tried, whatever a kernel's share in the time of all, because it takes so few seconds."""
    return (ONE_THREAD,) if seconds < SHORT and not isinstance(kernel, HostCall) else ()


def _fitting(kernel: Traversal | Gemm | GemmReduce, wanted: Sequence[Changes]) -> tuple[Changes, ...]:
    """The choices that change something."""
    now = {f.name: getattr(kernel.schedule, f.name) for f in fields(kernel.schedule)}
    return tuple(c for c in wanted if any(now[name] != value for name, value in c.items()))


def rescheduled(kernel: Kernel, changes: Changes) -> Kernel:
    """A kernel with fields of its schedule changed; ValueError where there are no such fields, or values that cannot be."""
    if not changes:
        return kernel
    if isinstance(kernel, HostCall):
        raise ValueError(f"{kernel.name} is run by PyTorch and has no schedule")
    known = {f.name for f in dataclasses.fields(kernel.schedule)}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise ValueError(
            f"the schedule of kernel {kernel.name} has no field {unknown[0]}; it has {', '.join(sorted(known))}"
        )
    try:
        schedule: Any = replace(kernel.schedule, **changes)  # type: ignore[arg-type]
        return replace(kernel, schedule=schedule)
    except ValueError as e:
        raise ValueError(f"kernel {kernel.name}: {e}") from e
