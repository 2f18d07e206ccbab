"""Schedules: how Triton kernels run: values that are decided before anything is written, and what is decided where nobody says.

A schedule is frozen, comparable, and goes through JSON: :func:`as_json` and :func:`from_json`. Which schedules a kernel can have,
:mod:`columba.codegen.triton.candidates` says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from columba.ir.types import DType

WARP = 32


class IllegalSchedule(ValueError):
    """A kernel cannot run as a schedule says."""


def _require_powers_of_two(schedule: Any, *names: str) -> None:
    for name in names:
        n = getattr(schedule, name)
        if n < 1 or n & (n - 1):
            raise IllegalSchedule(f"{name}={n}: must be a power of two")


@dataclass(frozen=True)
class RowSchedule:
    """For rows without members: a program takes ``rows`` of them.

    ``pieces``: the first dimension of wide rows is cut into so many pieces, each for programs of its own.
    """

    rows: int
    warps: int = 4
    pieces: int = 1

    def __post_init__(self) -> None:
        _require_powers_of_two(self, "rows", "warps", "pieces")


@dataclass(frozen=True)
class MemberSchedule:
    """For owners and their members.

    A program takes ``owners`` owners, and ``members`` members of each at a time. Owners of which that would be more than ``steps`` steps
    (fewer in traversals of three loops or more) are hubs: functions of their own take them, tile by tile. ``stages`` are steps of loads
    under way (1: as the hardware does it).

    ``split``: the members of all owners are cut into tiles of at most this many (where there are few, of fewer, down to ``least``), and
    programs take tiles instead of owners; a second function adds up the sums of an owner's tiles in their order, so that the result is
    the same in every run. ``atomic``: the sums of tiles are added by atomic operations instead, in the order in which they happen to be
    ready, which saves the second function and is not deterministic.
    """

    owners: int
    members: int
    warps: int = 4
    split: int = 0
    atomic: bool = False
    least: int = 0
    steps: int = 32
    stages: int = 1

    def __post_init__(self) -> None:
        _require_powers_of_two(self, "owners", "members", "warps")
        if self.split < 0 or (self.atomic and not self.split):
            raise IllegalSchedule("what is added by atomic operations is the sums of tiles: give split=")
        if not 0 <= self.least <= self.split or self.steps < 1 or self.stages < 1:
            raise IllegalSchedule(f"{self}: least is at most split, steps and stages are at least 1")

    @property
    def by_degree(self) -> tuple[tuple[float, MemberSchedule], ...]:
        """As cases of a :class:`DegreeSchedule`."""
        return ((math.inf, self),)


@dataclass(frozen=True)
class DegreeSchedule:
    """One of several member schedules, by how many members an owner of the graph has on average.

    ``cases``: up to which average (the last one for all others), and the schedule.
    """

    cases: tuple[tuple[float, MemberSchedule], ...]

    def __post_init__(self) -> None:
        limits = [limit for limit, _ in self.cases]
        if not limits or limits != sorted(limits):
            raise IllegalSchedule("cases of a schedule by degree go from few members to many")
        if any(case.split for _, case in self.cases):
            raise IllegalSchedule(
                "cases of a schedule by degree are launches of one function, which cannot split in some"
            )

    @property
    def by_degree(self) -> tuple[tuple[float, MemberSchedule], ...]:
        """The cases."""
        return self.cases


@dataclass(frozen=True)
class ProductSchedule:
    """For matrix products: a program computes ``rows`` by ``columns`` elements in steps of ``depth``.

    ``rows`` is also the most rows that a tile of the graph's tile table has. ``columns`` 0: all columns, so that the pointwise work
    on a row finds all of it. ``stages`` are steps of loads under way. Where a tile's columns or matrices are several programs' work,
    programs go through ``group`` tiles for one piece of the weights after the other, so that both stay in the L2 cache.
    ``persistent``: so many programs for each multiprocessor go over all tiles in turn (0: a program for each tile).
    ``descriptors``: dense operands are loaded by tensor descriptors (the tensor memory accelerator of sm_90 and newer). ``matrices``: where
    a row has several matrices, a program multiplies by so many, one after the other.
    """

    rows: int
    depth: int
    columns: int = 0
    warps: int = 4
    stages: int = 3
    group: int = 1
    persistent: int = 0
    descriptors: bool = False
    matrices: int = 1

    def __post_init__(self) -> None:
        _require_powers_of_two(self, "rows", "depth", "warps", *(["columns"] if self.columns else []))
        if self.group < 1 or self.persistent < 0 or self.stages < 1 or self.matrices < 1:
            raise IllegalSchedule(f"{self}: group, stages and matrices are at least 1, persistent at least 0")


@dataclass(frozen=True)
class OuterSchedule:
    """For sums of outer products.

    A program sums a tile of at most ``summed`` rows (where there are few, of fewer, down to ``least``), ``rows`` at a time, for ``depth``
    by ``columns`` elements of the sum; a second function adds up the tiles of a segment in order.
    """

    summed: int
    rows: int
    depth: int
    columns: int
    warps: int = 4
    stages: int = 3
    least: int = 0

    def __post_init__(self) -> None:
        _require_powers_of_two(self, "rows", "depth", "columns", "warps")
        if self.summed < 1 or self.stages < 1 or not 0 <= self.least <= self.summed:
            raise IllegalSchedule(f"{self}: summed and stages are at least 1, least is at most summed")


Schedule = RowSchedule | MemberSchedule | DegreeSchedule | ProductSchedule | OuterSchedule

KernelSchedules = Mapping[tuple[str, str], Schedule]
"""Schedules by the names of plan and kernel; kernels without one get what :mod:`columba.codegen.triton.schedule` thinks best."""

_KINDS: dict[str, type] = {
    "rows": RowSchedule,
    "members": MemberSchedule,
    "by_degree": DegreeSchedule,
    "product": ProductSchedule,
    "outer": OuterSchedule,
}


def as_json(schedule: Schedule) -> dict[str, Any]:
    """A schedule as JSON has it.

    >>> as_json(RowSchedule(rows=8, warps=2))
    {'kind': 'rows', 'rows': 8, 'warps': 2, 'pieces': 1}
    """
    kind = next(k for k, cls in _KINDS.items() if cls is type(schedule))
    if isinstance(schedule, DegreeSchedule):
        cases = [[None if math.isinf(limit) else limit, as_json(case)] for limit, case in schedule.cases]
        return {"kind": kind, "cases": cases}
    return {"kind": kind} | {f.name: getattr(schedule, f.name) for f in fields(schedule)}


def from_json(value: Mapping[str, Any]) -> Schedule:
    """The schedule that :func:`as_json` wrote.

    Raises:
        IllegalSchedule: it is none.

    >>> from_json({"kind": "rows", "rows": 8, "warps": 2})
    RowSchedule(rows=8, warps=2, pieces=1)
    """
    try:
        rest = dict(value)
        cls = _KINDS[rest.pop("kind")]
        if cls is DegreeSchedule:
            return DegreeSchedule(tuple(_case_of(limit, case) for limit, case in rest["cases"]))
        known = {f.name: f.type for f in fields(cls)}
        if any(type(rest[name]).__name__ != known[name] for name in rest):
            raise TypeError("wrong type")
        made: Schedule = cls(**rest)
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise IllegalSchedule(f"no schedule: {value!r} ({e})") from e
    return made


def _case_of(limit: float | None, case: Mapping[str, Any]) -> tuple[float, MemberSchedule]:
    schedule = from_json(case)
    if not isinstance(schedule, MemberSchedule):
        raise TypeError("a case is for members")
    return math.inf if limit is None else float(limit), schedule


# ------------------------------------------------------------------------------------------------ where nobody says


ELEMENTS = 2048
"""Elements that a program of a traversal holds of its widest block."""

PRODUCT_ROWS = 64
"""Rows of a tile of a matrix product; segments shorter than this leave lanes idle."""

MOST_STEPS = 64
"""The most steps of a loop that one program does after the other: each waits for memory, about half a microsecond."""


def default_rows(width: int, most_pieces: int = 1) -> RowSchedule:
    """For rows of ``width`` lanes that have no members, and that can be cut into ``most_pieces``."""
    pieces = clamp(width // ELEMENTS, 1, most_pieces)
    rows = clamp(ELEMENTS // width, 1, 128)
    return RowSchedule(rows, warps_for(rows * width // pieces), pieces)


def default_members(width: int, least_bytes: int) -> DegreeSchedule:
    """For members of ``width`` lanes, of which the narrowest rows that are loaded have ``least_bytes``.

    Where owners have few members, a program takes several owners, and a thread more of each; where they have many, several members of one
    at a time.
    """
    cases = []
    for most, owners, members in ((2, 16, 2), (8, 4, 4), (16, 2, 8), (48, 1, 16), (math.inf, 1, 32)):
        members = clamp(2 * ELEMENTS // width, 1, members)
        owners = clamp(ELEMENTS // (width * members), 1, owners)
        warps = member_warps(owners * members, width, least_bytes)
        cases.append((most, MemberSchedule(owners, members, max(1, warps // 2) if most <= FEW_MEMBERS else warps)))
    return DegreeSchedule(tuple(cases))


FEW_MEMBERS = 16
"""Members of an owner, on average, up to which programs are short: what counts is how many there are at once."""


def default_split(width: int, least_bytes: int) -> MemberSchedule:
    """For the tiles of owners with many members, such as the whole graph."""
    members = clamp(2 * ELEMENTS // width, 1, 64)
    warps = member_warps(members, width, least_bytes, most=16)
    return MemberSchedule(1, members, warps, split=MOST_STEPS * members, least=max(1, members // 2))


def default_hubs(width: int, least_bytes: int, most: int) -> MemberSchedule:
    """For the tiles of hubs, of which the smallest are of ``most`` members."""
    members = min(clamp(2 * ELEMENTS // width, 1, 64), clamp(most, 1, 64))
    return MemberSchedule(1, members, member_warps(members, width, least_bytes, most=16))


def member_warps(members: int, width: int, least_bytes: int, most: int = 8) -> int:
    """Warps for so many members at a time: so few that every thread loads 16 bytes at once, of the narrowest rows too."""
    return clamp(min(warps_for(members * width, most), members * least_bytes // (16 * WARP)), 1, most)


def default_product(depth: int, columns: int, lead: int, dtype: DType) -> ProductSchedule:
    """For a product of ``columns`` columns with ``lead`` vectors a row side by side in a block."""
    width = power_of_two(columns) * lead
    is_half = dtype in (DType.BF16, DType.F16)
    # Where tensor cores are not allowed, the operands of a step stand in registers beside the sums: few rows, then, so that all fit.
    rows = clamp((16384 if is_half else 4096) // max(1, width), LEAST, PRODUCT_ROWS if is_half else 32)
    steps = min(power_of_two(depth), 64 if is_half else 32)
    return ProductSchedule(rows, max(LEAST, steps), warps=8 if rows * width >= 8192 or width > 64 else 4)


def default_outer(depth: int, columns: int, dtype: DType) -> OuterSchedule:
    """For a sum of outer products, ``depth`` by ``columns`` elements a row: so many rows that every thread loads 16 bytes at a time."""
    depth, columns = (clamp(power_of_two(n), LEAST, 64) for n in (depth, columns))
    is_half = dtype in (DType.BF16, DType.F16)
    warps = 8 if depth * columns >= 4096 and not is_half else 4
    rows = clamp(warps * WARP * 16 // (min(depth, columns) * dtype.itemsize), 32 if is_half else LEAST, 128)
    return OuterSchedule(MOST_STEPS * LEAST, rows=rows, depth=depth, columns=columns, warps=warps, least=2 * LEAST)


LEAST = 16
"""The smallest side of a block that tensor cores multiply."""


def warps_for(elements: int, most: int = 16) -> int:
    """Warps so that a thread holds about eight elements of a block."""
    return clamp(elements // (8 * WARP), 1, most)


def clamp(n: int, low: int, high: int) -> int:
    """The power of two not above ``n``, between powers of two."""
    return max(low, min(high, 1 << max(0, n.bit_length() - 1)))


def power_of_two(n: int) -> int:
    """The smallest power of two that is not below ``n``."""
    return 1 << max(0, n - 1).bit_length()
