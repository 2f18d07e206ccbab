"""The block graph of a traversal with members: what is stored for its owners and for their members."""

from __future__ import annotations

from columba.codegen.triton.functions import row_stores
from columba.codegen.triton.items import Item, Items
from columba.codegen.triton.levels import MEMBER, WithMembers
from columba.codegen.triton.names import TritonNames
from columba.codegen.triton.parts import Parts
from columba.codegen.triton.schedule import DegreeSchedule, MemberSchedule
from columba.codegen.triton.values import Values
from columba.ir.indices import Hubs, Tiles
from columba.ir.node import Node, topological
from columba.ir.plan.kernels import Store, Traversal
from columba.ir.program.ops import Reduce

SECTOR = 32
"""Bytes that a GPU's memory gives at once."""


NUMBER = 8
"""Bytes of a row's number at most."""


def loops_of(kernel: Traversal) -> int:
    """How many loops over members there are, or one more for each online softmax: reductions, and what members store, below each other."""
    assert kernel.via is not None
    stores = [s for s in kernel.stores if s.buffer.type.size]
    depth: dict[Node, int] = {}
    for v in topological([s.value for s in stores]):
        depth[v] = max((depth[c] for c in v.children), default=0) + isinstance(v, Reduce)
    return max((depth[s.value] + (s.value.space is kernel.via.fine) for s in stores), default=0)


def hubs_of(kernel: Traversal, schedule: MemberSchedule | DegreeSchedule) -> Hubs | None:
    """The owners that programs leave out, if they go over members at all: fewer are enough where they do so more than twice."""
    assert kernel.via is not None
    loops = loops_of(kernel)
    if not loops:
        return None
    steps = ((limit, case, 2 * case.steps // max(2, loops)) for limit, case in schedule.by_degree)
    return Hubs(kernel.via, tuple((limit, case.members * max(1, n)) for limit, case, n in steps))


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
