"""What a kernel calls its buffers, index arrays and counts, and where it finds them among its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from columba.codegen.cpp.scalars import MASK, identifier, stored
from columba.codegen.names import array_name
from columba.ir.indices import IndexArray, Tiles
from columba.ir.plan.exact import may_be_product
from columba.ir.plan.kernels import Buffer
from columba.ir.program.ops import Value
from columba.ir.spaces import Space


class CppNames:
    """Hands out names for one kernel, and remembers which were used, so that only those are declared.

    ``in_place`` are the buffers that the kernel reads in the memory of one that it writes. ``exact``: values that are the
    same wherever they are computed.
    """

    def __init__(
        self,
        buffers: Sequence[Buffer],
        arrays: Sequence[IndexArray],
        written: Sequence[Buffer],
        in_place: Mapping[Buffer, Buffer] | None = None,
        *,
        exact: frozenset[Value] = frozenset(),
    ) -> None:
        self.rounded = frozenset(v for v in exact if may_be_product(v))
        self.buffer_slots = {b: n for n, b in enumerate(buffers)}
        self.array_slots = {a: n for n, a in enumerate(arrays)}
        self.written = set(written)
        self.in_place = dict(in_place or {})
        self.sharing = {*self.in_place, *self.in_place.values()}
        self.used_buffers: dict[Buffer, None] = {}
        self.used_arrays: dict[IndexArray, None] = {}
        self.used_counts: dict[Space, None] = {}

    def buffer(self, buffer: Buffer) -> str:
        self.used_buffers[buffer] = None
        return f"b_{identifier(buffer.name)}"

    def index(self, array: IndexArray) -> str:
        self.used_arrays[array] = None
        return array_name(array)

    def count(self, space: Space) -> str:
        """The number of rows of a space."""
        if space is Space.ONE:
            return "1"
        self.used_counts[space] = None
        return f"n_{space}"

    def tiles(self, array: Tiles) -> str:
        """The number of tiles in a table."""
        return f"counts[{len(Space) + self.array_slots[array]}]"

    def count_slot(self, space: Space) -> int:
        """Where the number of rows of a space stands among the counts."""
        return list(Space).index(space)

    def declarations(self) -> list[str]:
        lines = [f"const int64_t n_{space} = counts[{self.count_slot(space)}];" for space in self.used_counts]
        for b in self.used_buffers:
            const = "" if b in self.written else "const "
            alone = "" if b in self.sharing else " __restrict"
            lines.append(
                f"{const}{stored(b.type.dtype)}*{alone} {self.buffer(b)} = "
                f"({const}{stored(b.type.dtype)}*)buffers[{self.buffer_slots[b]}];"
            )
        for a in self.used_arrays:
            lines.append(f"const index_t* __restrict {array_name(a)} = (const index_t*)index[{self.array_slots[a]}];")
        return [*lines, MASK] if self.rounded else lines
