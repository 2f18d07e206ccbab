"""Launch descriptions: how the functions of an emitted module are launched: everything that the host decides, known before a graph is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from columba.codegen.triton.schedule import MOST_STEPS, WARP
from columba.ir.counts import Counts
from columba.ir.indices import Hubs, IndexArray, Tiles
from columba.ir.plan.kernels import Buffer
from columba.ir.spaces import IndexMap, Space
from columba.ir.types import DType

REGISTERS, THREAD_REGISTERS = 65536, 192
"""Of a multiprocessor (CUDA C++ Programming Guide, technical specifications by compute capability), and of one thread at most: three
quarters of the 255 that it can have."""


@dataclass(frozen=True)
class BufferArgument:
    """A pointer to a buffer of the plan."""

    buffer: Buffer


@dataclass(frozen=True)
class ArrayArgument:
    """A pointer to an index array of the graph."""

    array: IndexArray


@dataclass(frozen=True)
class CountArgument:
    """The number of rows of a space."""

    space: Space


@dataclass(frozen=True)
class TilesArgument:
    """The number of tiles in a table."""

    array: Tiles | Hubs


@dataclass(frozen=True)
class MostArgument:
    """The most members of an owner that is no hub."""

    array: Hubs

    def of(self, counts: Mapping[Space, int]) -> int:
        """The number, on a graph with these row counts."""
        map = self.array.map
        return self.array.most(counts[map.fine], counts[map.coarse])


@dataclass(frozen=True)
class Workspace:
    """Partial results between two launches: for each tile ``size`` elements. ``zeroed``: they are 0 before the first."""

    name: str
    tiles: GridSize
    size: int
    dtype: DType
    zeroed: bool = False


@dataclass(frozen=True)
class WorkspaceArgument:
    """A pointer to partial results."""

    workspace: Workspace


Argument = BufferArgument | ArrayArgument | CountArgument | TilesArgument | MostArgument | WorkspaceArgument


@dataclass(frozen=True)
class GridSize:
    """``of`` divided by ``by``, rounded up, ``times`` so many; ``of`` is a number of rows, of tiles, or a constant.

    ``per_processor``: but no more than so many for each multiprocessor of the device, unless one would do more than :data:`MOST_STEPS`
    in turn.
    """

    of: Space | Tiles | Hubs | int
    by: int = 1
    times: int = 1
    per_processor: int = 0

    def programs(self, rows: int, processors: int) -> int:
        """How many there are, where ``of`` stands for so many rows, on a device with so many multiprocessors."""
        programs = -(-rows // self.by) * self.times
        if not self.per_processor:
            return programs
        return min(programs, max(self.per_processor * processors, -(-programs // MOST_STEPS)))


Grid = tuple[GridSize, ...]

Largest = Callable[[IndexMap], int]
"""The most rows of one segment, by map."""


@dataclass(frozen=True)
class Loop:
    """A loop of each program: over the rows of an owner or of a tile, or over the tiles of an owner; or so many elements.

    ``of`` says over what: ``"owner"`` (rows of one that is no hub, where ``table`` is of hubs), ``"tile"``, ``"tiles"``, or a number.
    ``at_once`` names the constant that says how many a step takes; the loop is done ``times`` in turn.
    """

    of: str | int
    table: Tiles | Hubs | None
    at_once: str
    times: int = 1

    def length(self, counts: Mapping[Space, int], largest: Largest) -> int:
        """The longest that there is on a graph."""
        if isinstance(self.of, int) or self.table is None:
            return self.of if isinstance(self.of, int) else 0
        map = self.table.map
        most = largest(map)
        if isinstance(self.table, Tiles):
            rows = self.table.most(counts[map.fine])
        elif self.of == "owner":
            return min(most, self.table.most(counts[map.fine], counts[map.coarse]))
        elif most <= self.table.most(counts[map.fine], counts[map.coarse]):
            return 0
        else:
            rows = self.table.tile_rows(counts[map.fine], counts[map.coarse], most)
        return min(rows, most) if self.of == "tile" else -(-most // rows)


@dataclass(frozen=True)
class Variant:
    """One way to launch a function; ``constants`` are compile-time parameters."""

    grid: Grid
    constants: tuple[tuple[str, int], ...] = ()
    warps: int = 4
    stages: int = 2

    @property
    def registers(self) -> int:
        """The most registers that a thread may have on an NVIDIA GPU, out of those that a block of so many warps can have.

        Where nothing is said, the assembler keeps a few values in memory to fit one more block on a multiprocessor; where it may take
        all that there are, it fetches so far ahead that a few are kept in memory, too. Three quarters leave room on both sides: kernels
        that need 60 to 120 have none in memory with anything between 144 and 224.
        """
        return min(THREAD_REGISTERS, REGISTERS // (WARP * self.warps))


@dataclass(frozen=True)
class Launch:
    """One launch of a function of the module.

    ``members_per_owner`` says by what one of several variants is chosen: rows of one space for each row of another, on average over
    the graph, and up to how many each variant is for (the last one for all others). ``dot`` names the type of a matrix product's
    operands; the runtime gives such functions the parameters ``PRECISION`` and ``OPERAND``. Buffers that are ``zeroed`` are 0 before
    the launch; those that are ``described`` are read by tensor descriptors, which want their addresses to be multiples of 16.
    """

    function: str
    arguments: tuple[tuple[str, Argument], ...]
    variants: tuple[Variant, ...]
    members_per_owner: tuple[Space, Space | int, tuple[float, ...]] | None = None
    dot: DType | None = None
    workspaces: tuple[Workspace, ...] = ()
    zeroed: tuple[Buffer, ...] = ()
    described: tuple[Buffer, ...] = ()
    loops: tuple[Loop, ...] = ()

    def variant(self, counts: Mapping[Space, int]) -> Variant:
        """The variant for a graph with these row counts."""
        if self.members_per_owner is None:
            return self.variants[0]
        members, owners, limits = self.members_per_owner
        rows = owners if isinstance(owners, int) else counts[owners]
        average = counts[members] / max(1, rows)
        return next((v for v, limit in zip(self.variants, limits, strict=True) if average <= limit), self.variants[-1])

    def runs(self, counts: Mapping[Space, int], largest: Largest) -> bool:
        """Whether it has programs on a graph; one for hubs has none where there are no hubs."""
        for size in self.variants[0].grid:
            if isinstance(size.of, Hubs):
                map = size.of.map
                return largest(map) > size.of.most(counts[map.fine], counts[map.coarse])
            if isinstance(size.of, Space) and not counts[size.of]:
                return False
        return True

    def steps(self, counts: Mapping[Space, int], largest: Largest, processors: int) -> int:
        """The most steps that one program does after the other, on a graph and on a device with so many multiprocessors."""
        variant = self.variant(counts)
        constants = dict(variant.constants)
        lengths = [(loop.length(counts, largest), loop) for loop in self.loops]
        found = sum(-(-length // constants[loop.at_once]) * loop.times for length, loop in lengths)
        turns = 1
        for size in variant.grid:
            if size.per_processor:
                whole, known = replace(size, per_processor=0), Counts(counts)
                programs = grid_size(whole, known) * size.times
                turns *= -(-programs // max(1, size.programs(programs // size.times * size.by, processors)))
        return found * turns


def grid_size(size: GridSize, counts: Counts) -> int:
    """How many programs, or parts, a launch has; tiles are counted as :func:`tile_count` does."""
    if isinstance(size.of, int):
        return -(-size.of // size.by)
    of = counts[size.of] if isinstance(size.of, Space) else tile_count(size.of, counts)
    return -(-of // size.by)


def tile_count(tiles: Tiles | Hubs, counts: Counts) -> int:
    """The most tiles that a table can have: full ones, and one that is not for every segment that has tiles; none where none is a hub."""
    fine, coarse = counts[tiles.map.fine], counts[tiles.map.coarse]
    if isinstance(tiles, Tiles):
        return min(fine, fine // tiles.most(fine) + coarse)
    most = tiles.most(fine, coarse)
    known = counts.largest_degree is not None and tiles.map.coarse is not Space.GRAPH
    if known and counts.largest(tiles.map) <= most:
        return 0
    return fine // most + min(coarse, fine // (most + 1))
