"""Index arrays that one call has made: pieces of one tensor, which become tensors of their own when somebody asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from columba.ir.indices import IndexArray
from columba.ir.spaces import Space
from columba.runtime.graphs.sorts import Pairs

PARTS = ("of_edge", "order", "node", "relation", "segments")
"""The arrays of a pair space, in the order in which they are made."""


class Prepared:
    """What a recipe was followed to.

    Args:
        recipe: what was followed.
        arrays, spaces: at which places the index arrays, and the parts of pair spaces, stand.
        given: the tensors of the first places, which the graph had before.
        memory: what those of all other places stand in.
        addresses, lengths: of every place.
    """

    __slots__ = ("addresses", "arrays", "given", "lengths", "memory", "recipe", "spaces", "tensors")

    def __init__(
        self,
        recipe: Any,
        arrays: Mapping[IndexArray, int],
        spaces: Mapping[Space, Sequence[int]],
        given: Sequence[Tensor],
        memory: Tensor,
        addresses: Sequence[int],
        lengths: Sequence[int],
    ) -> None:
        self.recipe, self.arrays, self.spaces = recipe, arrays, spaces
        self.given, self.memory, self.addresses, self.lengths = given, memory, addresses, lengths
        self.tensors: dict[int, Tensor] = {}

    def array(self, array: IndexArray) -> Tensor:
        return self._tensor(self.arrays[array])

    def pairs(self, space: Space, count: int) -> Pairs:
        return Pairs(count, **{part: self._tensor(n) for part, n in zip(PARTS, self.spaces[space], strict=True)})

    def _tensor(self, place: int) -> Tensor:
        if place < len(self.given):
            return self.given[place]
        found = self.tensors.get(place)
        if found is None:
            begin = (self.addresses[place] - self.memory.data_ptr()) // self.memory.itemsize
            found = self.tensors[place] = self.memory.narrow(0, begin, self.lengths[place])
        return found
