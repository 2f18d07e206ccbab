"""The block graph of a traversal with members: what is stored for its owners and for their members."""

from __future__ import annotations

from columba.codegen.triton.functions import row_stores
from columba.codegen.triton.items import Item, Items
from columba.codegen.triton.levels import MEMBER, WithMembers
from columba.codegen.triton.names import TritonNames
from columba.codegen.triton.parts import Parts
from columba.codegen.triton.values import Values
from columba.ir.indices import Hubs, Tiles
from columba.ir.node import topological
from columba.ir.plan.kernels import Store, Traversal
from columba.ir.program.ops import Reduce

SECTOR = 32
"""Bytes that a GPU's memory gives at once."""


NUMBER = 8
"""Bytes of a row's number at most."""


def has_loops(kernel: Traversal) -> bool:
    """Whether programs go over members: there is a reduction, or something to store for each of them."""
    assert kernel.via is not None
    values = [s.value for s in kernel.stores if s.buffer.type.size]
    return any(isinstance(v, Reduce) for v in topological(values)) or any(v.space is kernel.via.fine for v in values)


class Owners:
    """Owners and their members, in tiles (``tiles``) or whole, but for ``hubs``.

    Attributes:
        own, of_members: the statements that store.
    """

    def __init__(self, kernel: Traversal, tiles: Tiles | Hubs | None, hubs: Hubs | None, parts: Parts) -> None:
        assert kernel.via is not None
        self.kernel = kernel
        self.parts = parts
        self.items, self.names = Items(), TritonNames()
        self.level = WithMembers(self.items, self.names, kernel.via, tiles, hubs)
        self.values = Values(self.items, self.names, 2, self.level, parts)
        self.level.values = self.values
        self.own: list[Item] = []
        self.of_members: list[Item] = []
        for store in kernel.stores:
            if not store.buffer.type.size:
                continue
            if store.value.space is kernel.via.fine:
                self.of_members += row_stores(self.values, store, self.level.number(store.value.space))
            else:
                self._add_own(store)

    def _add_own(self, store: Store) -> None:
        self.own += row_stores(self.values, store, self.level.owners.position)

    @property
    def roots(self) -> list[Item]:
        return [*self.own, *self.of_members]

    @property
    def phases(self) -> int:
        """Loops over the members."""
        return max([f.phase for f in self.level.folds] + [s.phase + 1 for s in self.of_members] + [0])

    @property
    def least_bytes(self) -> int:
        """Bytes of the narrowest rows of features that are loaded of members. What is less than a sector is a handful of scalars."""
        found = [n for item, n in self.values.row_bytes.items() if MEMBER in item.axes and n >= SECTOR]
        return min(found, default=SECTOR)

    @property
    def member_bytes(self) -> int:
        """Bytes that are loaded of each member: its rows, and the numbers that lead there."""
        rows = sum(n for item, n in self.values.row_bytes.items() if MEMBER in item.axes)
        return rows + NUMBER * len(self.names.arguments)
