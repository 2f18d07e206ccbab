"""What a kernel calls its buffers, index arrays and counts: the parameters of its function."""

from __future__ import annotations

from columba.codegen.names import array_name
from columba.codegen.triton.launches import (
    Argument,
    ArrayArgument,
    BufferArgument,
    CountArgument,
    MostArgument,
    TilesArgument,
    Workspace,
    WorkspaceArgument,
)
from columba.codegen.triton.scalars import identifier
from columba.ir.indices import Hubs, IndexArray, Tiles
from columba.ir.plan.kernels import Buffer
from columba.ir.spaces import Space


class TritonNames:
    """Hands out the parameters of one function, and remembers which were used."""

    def __init__(self) -> None:
        self.arguments: dict[str, Argument] = {}

    def _take(self, name: str, argument: Argument) -> str:
        fresh, n = name, 1
        while self.arguments.get(fresh, argument) != argument:
            n += 1
            fresh = f"{name}_{n}"
        self.arguments[fresh] = argument
        return fresh

    def buffer(self, buffer: Buffer) -> str:
        return self._take(f"{identifier(buffer.name)}_ptr", BufferArgument(buffer))

    def hint(self, buffer: Buffer) -> str:
        """What a row of a buffer is called."""
        name = identifier(buffer.name)
        return f"row_{name}" if name[0].isdigit() or name.startswith("_") else name

    def array(self, array: IndexArray) -> str:
        return self._take(f"{array_name(array)}_ptr", ArrayArgument(array))

    def count(self, space: Space) -> str:
        """The number of rows of a space."""
        return "1" if space is Space.ONE else self._take(f"n_{space}", CountArgument(space))

    def tiles(self, array: Tiles | Hubs) -> str:
        """The number of tiles in a table."""
        return self._take("n_tiles", TilesArgument(array))

    def most(self, array: Hubs) -> str:
        """The most members of an owner that is no hub."""
        return self._take("most_members", MostArgument(array))

    def workspace(self, workspace: Workspace) -> str:
        return self._take(f"{identifier(workspace.name)}_ptr", WorkspaceArgument(workspace))
