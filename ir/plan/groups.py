"""Groups: consecutive kernels that run together over the rows that they all go over, part by part.

A thread takes a part of the rows through all kernels of the group. What passes from one kernel to another is then read while it is in
cache, and if nobody else reads it, it needs memory for a part only. Sums at nodes, where the parts of several threads meet, are
added up chunk by chunk, a chunk being several parts; what they read needs memory for a chunk. What may be a group, and where its parts
may end, follows from the kernels; see :func:`check`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from columba.ir.indices import Tiles
from columba.ir.node import topological
from columba.ir.plan.kernels import (
    Buffer,
    Gemm,
    GemmReduce,
    HostCall,
    Kernel,
    Load,
    Schedule,
    Store,
    Traversal,
    limited,
    product_of,
    reads,
    values_of,
    writes,
)
from columba.ir.program.ops import Lift, Reduce
from columba.ir.spaces import PAIR_SPACES, IndexMap, Space
from columba.ir.types import DType

WHOLE_FLOATS = (DType.F32, DType.F64)
"""Types in which sums are kept as they are stored."""


@dataclass(frozen=True)
class GroupSchedule(Schedule):
    """How a group runs.

    ``rows``: a thread takes so many rows, or one tile, through all kernels at a time. ``parts``: after so many such parts for each
    thread, which make a chunk, what they leave is added up.
    """

    rows: int = limited(512, 1, 1 << 24)
    parts: int = limited(16, 1, 1 << 16)


@dataclass(frozen=True)
class Group:
    """Kernels, by name, that go over the rows of ``space`` together. ``local`` are the buffers that exist a part or a chunk at a time."""

    space: Space
    kernels: tuple[str, ...]
    local: tuple[Buffer, ...]
    schedule: GroupSchedule = field(default_factory=GroupSchedule)


@dataclass(frozen=True)
class Bounds:
    """Where parts may end: after a tile of a table, or, without one, after any multiple of ``rows`` rows."""

    tiles: Tiles | None
    rows: int


class NoGroup(ValueError):
    """Kernels that cannot run part by part; the message says why."""


def is_sorted(via: IndexMap) -> bool:
    """Whether the fine rows are stored in the order of ``via`` already, on every graph."""
    return via.coarse is Space.ONE or (via.fine in PAIR_SPACES and via.name == "rel")


def rows_of(kernel: Kernel) -> Space | None:
    """The space over whose rows, as they are stored, a kernel can go range by range; None if it cannot."""
    match kernel:
        case Traversal():
            if kernel.schedule.scatter:
                return None if kernel.via is None else kernel.via.fine
            return None if kernel.schedule.split else kernel.owner
        case Gemm():
            product = product_of(kernel)
            return product.space if product.via is not None and is_sorted(product.via) else None
        case GemmReduce():
            return kernel.via.fine if is_sorted(kernel.via) else None
        case HostCall():
            return None


def bounds_of(kernels: Iterable[Kernel]) -> Bounds:
    """Where the parts of a group may end.

    A sum of outer products adds up tiles: no part cuts one. Tables of one map nest if their sizes divide each other.

    Raises:
        NoGroup: there are no such places.
    """
    tables: dict[IndexMap, set[int]] = {}
    whole: set[int] = set()
    for kernel in kernels:
        via = product_of(kernel).via if isinstance(kernel, Gemm) else getattr(kernel, "via", None)
        if not isinstance(kernel, (Gemm, GemmReduce)) or via is None:
            continue
        if via.coarse is not Space.ONE:
            tables.setdefault(via, set()).add(kernel.schedule.tile_rows)
        elif isinstance(kernel, GemmReduce):
            whole.add(kernel.schedule.tile_rows)
    if len(tables) + bool(whole) > 1:
        raise NoGroup("rows are cut into tiles along several maps")
    sizes = whole.union(*tables.values())
    most = max(sizes, default=1)
    if any(most % size for size in sizes):
        raise NoGroup(f"tiles of {', '.join(map(str, sorted(sizes)))} rows do not nest")
    return Bounds(Tiles(next(iter(tables)), most) if tables else None, most)


@dataclass(frozen=True)
class Room:
    """Rows that there is memory for, of a local buffer: ``each`` for one thread, ``threads`` times.

    One thread's alone are shared by all, a chunk at a time.
    """

    each: int
    threads: int

    def of(self, rows: int) -> int:
        """Rows in all, if the whole buffer has ``rows``: never more than these."""
        return min(rows, self.each * self.threads)


def rooms(group: Group, kernels: Sequence[Kernel], threads: int) -> dict[Buffer, Room]:
    """What each local buffer of a group needs. ``kernels`` are those of the group, or of the whole plan."""
    own = [k for k in kernels if k.name in group.kernels]
    part = max(group.schedule.rows, bounds_of(own).rows)
    chunk = max(group.schedule.rows * group.schedule.parts * threads, part)
    meeting = {b for k in own if is_scattered(k) for b in reads(k)}
    return {b: Room(chunk, 1) if b in meeting else Room(part, threads) for b in group.local}


def is_scattered(kernel: Kernel) -> bool:
    """Whether a kernel adds its rows to owners, where those of several threads meet."""
    return isinstance(kernel, Traversal) and kernel.schedule.scatter == 1


def reads_own_rows(kernel: Kernel, buffer: Buffer, space: Space) -> bool:
    """Whether a kernel that goes over the rows of ``space`` reads, of ``buffer``, no other row than the one that it is at."""
    loads = [v for v in values_of(kernel) if isinstance(v, Load) and v.buffer is buffer]
    return len(loads) > 0 and all(v.via is None and v.at is space for v in loads)


def scattered_sums(kernel: Traversal) -> dict[Store, Reduce]:
    """For a traversal whose members can be walked as they are stored and added to their owners: the sum that each store is made of.

    The sums are kept where the stores write, so each store has one of its own, as many numbers wide, and so are its numbers.

    Raises:
        NoGroup: the members cannot be walked so.
    """
    if kernel.via is None:
        raise NoGroup("only members are added to owners")
    values = values_of(kernel)
    if any(isinstance(v, Lift) for v in values):
        raise NoGroup("members read what their owner has")
    if any(isinstance(v, Reduce) and v.op != "sum" for v in values):
        raise NoGroup("only sums are added up where they are stored")
    found: dict[Store, Reduce] = {}
    for store in kernel.stores:
        sums = [v for v in topological((store.value,)) if isinstance(v, Reduce)]
        if len(sums) != 1 or sums[0] in found.values():
            raise NoGroup(f"the store to {store.buffer} has no sum of its own")
        (total,) = sums
        if total.type.size != store.buffer.type.size or total.dtype is not store.buffer.type.dtype:
            raise NoGroup(f"the sum for {store.buffer} is of another size or type")
        if total.dtype not in WHOLE_FLOATS:
            raise NoGroup(f"sums of {total.dtype} are rounded at the end only")
        found[store] = total
    return found


def check(group: Group, kernels: Sequence[Kernel], outputs: Iterable[Buffer], others: Iterable[Kernel]) -> None:
    """Whether ``kernels`` can run part by part, with ``group.local`` in memory a part, or a chunk, at a time.

    Args:
        group: what they are to be.
        kernels: its kernels, in order.
        outputs: the plan's.
        others: the plan's other kernels.

    Raises:
        NoGroup: they cannot.
    """
    for kernel in kernels:
        if rows_of(kernel) is not group.space:
            raise NoGroup(f"kernel {kernel.name} does not go over the rows of {group.space} as they are stored")
    bounds_of(kernels)
    made = {b for k in kernels for b in writes(k)}
    for kernel in kernels:
        for buffer in (*reads(kernel), *writes(kernel)):
            if buffer.order is not None and buffer.type.space is group.space:
                raise NoGroup(f"the rows of {buffer} are sorted along {buffer.order}")
        for buffer in reads(kernel):
            if buffer in made and not reads_own_rows(kernel, buffer, group.space):
                raise NoGroup(f"kernel {kernel.name} reads rows of {buffer} that are written in another part")
    beyond = {*outputs, *(b for k in others for b in reads(k))}
    for buffer in group.local:
        if buffer not in made or buffer.type.space is not group.space or buffer in beyond:
            raise NoGroup(f"{buffer} is needed beyond its part")
