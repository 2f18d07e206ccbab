"""How the functions of an emitted module are launched: everything that the host decides, known before a graph is."""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.indices import IndexArray, Tiles
from columba.ir.intraop.kernels import Buffer
from columba.ir.spaces import Space
from columba.ir.types import DType


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

    array: Tiles


@dataclass(frozen=True)
class Workspace:
    """Partial results between two launches: for each tile ``size`` elements."""

    name: str
    tiles: GridSize
    size: int
    dtype: DType


@dataclass(frozen=True)
class WorkspaceArgument:
    """A pointer to partial results."""

    workspace: Workspace


Argument = BufferArgument | ArrayArgument | CountArgument | TilesArgument | WorkspaceArgument


@dataclass(frozen=True)
class GridSize:
    """``of`` divided by ``by``, rounded up; ``of`` is a number of rows, of tiles, or a constant."""

    of: Space | Tiles | int
    by: int = 1


Grid = tuple[GridSize, ...]


@dataclass(frozen=True)
class Launch:
    """One launch of a function of the module.

    ``constants`` are its compile-time parameters beside ``PRECISION`` and ``OPERAND``, which the runtime gives where
    ``dot`` names the type of a matrix product's operands.
    """

    function: str
    arguments: tuple[tuple[str, Argument], ...]
    grid: Grid
    constants: tuple[tuple[str, int], ...] = ()
    warps: int = 4
    stages: int = 2
    dot: DType | None = None
    workspaces: tuple[Workspace, ...] = ()
