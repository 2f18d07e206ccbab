"""Address expressions: where the rows of a kernel's loads and stores stand in memory, as C++ expressions."""

from __future__ import annotations

from typing import Any

from columba.codegen.cpp.names import CppNames
from columba.codegen.cpp.rows import Array, Rows
from columba.codegen.cpp.scalars import stored
from columba.ir.indices import Lookup, Order
from columba.ir.plan.kernels import Buffer, Load, Store
from columba.ir.plan.plan import is_sorted, is_stored_along
from columba.ir.program.ops import Uniform, Value
from columba.ir.spaces import IndexMap, Space
from columba.ir.types import DType


class RowPlaces:
    """Where the rows of a kernel's loads and stores stand, in terms of the loop variables.

    ``o`` is the number of an owner. Members, or a product's rows, are walked in the order of ``walk``: ``k`` is the position, ``e``
    the row's own number, which is the same where rows are stored in that order, or are walked ``as_stored``.
    """

    def __init__(self, names: CppNames, owner: Space | None, walk: Any, *, as_stored: bool = False) -> None:
        self.names = names
        self.owner = owner
        self.walk = walk
        self.member = None if walk is None else walk.fine
        self.as_stored = as_stored
        self.sorted = walk is None or as_stored or is_sorted(walk)
        self._counter = 0

    def fresh(self, name: str) -> str:
        self._counter += 1
        return f"{name}_{self._counter}"

    def rows(self) -> Rows:
        return Rows(self.number, self.fresh, rounded=self.names.rounded)

    def number(self, v: Value, position: str = "k", order: IndexMap | None = None) -> str:
        """The number of the row that ``v`` is at, when members are at ``position`` and rows stand in ``order``."""
        if v.space is not self.member or v.space is self.owner:
            return "o"
        if self._is_stored_along(order):
            return position
        if order is None and position == "k":
            return "e"
        return f"{self.names.index(Order(self.walk, order))}[{position}]"

    def follows(self, buffer: Buffer) -> bool:
        """Whether members read or write the rows of a buffer of theirs one after the other."""
        return self._is_stored_along(buffer.order)

    def _is_stored_along(self, order: IndexMap | None) -> bool:
        return order is None if self.as_stored else is_stored_along(order, self.walk)

    def load(self, v: Load, position: str = "k", owner: str = "o") -> Array:
        """The row that a load reads, when members are at ``position`` and it is ``owner``'s turn."""
        buffer = self.names.buffer(v.buffer)
        if v.buffer.type.space is Space.ONE:
            return Array(buffer, "0", v.shape, v.dtype)
        in_walk = v.at is self.member and v.at is not self.owner
        along = self.walk if in_walk and not self.sorted else None
        if v.via is not None:
            row = f"{self.names.index(Lookup(v.via, along))}[{position if in_walk else owner}]"
        else:
            row = self.number(v, position, v.buffer.order)
        return Array(buffer, offset_of(row, v.type.size), v.shape, v.dtype)

    def target(self, store: Store, position: str = "k") -> Array:
        """The row that a store writes, when members are at ``position``."""
        t = store.buffer.type
        offset = (
            "0" if t.space is Space.ONE else offset_of(self.number(store.value, position, store.buffer.order), t.size)
        )
        return Array(self.names.buffer(store.buffer), offset, t.shape, t.dtype)

    def store(self, rows: Rows, store: Store) -> None:
        """Writes a value to its row."""
        target = self.target(store)
        if target.dtype is DType.BOOL and store.buffer.type.size > 1:
            # Bytes may be any memory, that of the pointer itself too: one of its own keeps the loop from reading it again.
            name = self.fresh("truths")
            rows.lines.append(f"{stored(target.dtype)}* __restrict {name} = {target.base} + {target.offset};")
            target = Array(name, "0", target.shape, target.dtype)
        rows.assign(target, store.value)

    def reads_own_number(self, v: Value) -> bool:
        """Whether computing member value ``v`` needs the member's own number."""
        direct = isinstance(v, Load) and v.via is None and v.buffer.order is None
        return v.space is self.member and (direct or isinstance(v, Uniform))

    def own_number(self) -> list[str]:
        return [] if self.sorted else [f"const int64_t e = {self.names.index(Order(self.walk))}[k];"]


def offset_of(row: str, size: int) -> str:
    return f"(int64_t){row}" if size == 1 else f"(int64_t){row} * {size}"
