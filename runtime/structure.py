"""What of a graph everything but the graph itself may ask: sizes and index arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, overload

import torch
from torch import Tensor

from columba.ir.indices import IndexArray
from columba.ir.spaces import Space


class Structure(Protocol):
    """As much of a graph as programs and the eager language need. Its tensors are shared: nobody writes to them."""

    @property
    def device(self) -> torch.device: ...

    def count(self, space: Space) -> int:
        """Rows of a space."""

    def index(self, array: IndexArray) -> Tensor:
        """An index array: the one that kernels read."""


class ArraysInPlace(Sequence[Tensor]):
    """Index arrays of a graph, of which it is known where they stand: each becomes a tensor when somebody asks for it.

    Kernels are given addresses and lengths, and a tensor takes longer to make than most of the arrays of a small graph. ``memory`` is what
    they stand in.
    """

    __slots__ = ("addresses", "arrays", "lengths", "memory", "structure")

    def __init__(
        self,
        structure: Structure,
        arrays: Sequence[IndexArray],
        addresses: Sequence[int],
        lengths: Sequence[int],
        memory: tuple[Tensor, ...],
    ) -> None:
        self.structure, self.arrays, self.memory = structure, arrays, memory
        self.addresses, self.lengths = addresses, lengths

    @overload
    def __getitem__(self, n: int) -> Tensor: ...

    @overload
    def __getitem__(self, n: slice) -> list[Tensor]: ...

    def __getitem__(self, n: int | slice) -> Tensor | list[Tensor]:
        if isinstance(n, slice):
            return [self.structure.index(array) for array in self.arrays[n]]
        return self.structure.index(self.arrays[n])

    def __len__(self) -> int:
        return len(self.arrays)


def taken(index: Sequence[Tensor], places: Sequence[int]) -> Sequence[Tensor]:
    """The index arrays at these places."""
    if not isinstance(index, ArraysInPlace):
        return [index[n] for n in places]
    arrays, addresses, lengths = index.arrays, index.addresses, index.lengths
    return ArraysInPlace(
        index.structure,
        [arrays[n] for n in places],
        [addresses[n] for n in places],
        [lengths[n] for n in places],
        index.memory,
    )


def located(index: Sequence[Tensor]) -> tuple[Sequence[int], Sequence[int]]:
    """Where index arrays stand, and how long they are."""
    if isinstance(index, ArraysInPlace):
        return index.addresses, index.lengths
    return [x.data_ptr() for x in index], [x.numel() for x in index]


class GraphLike(Structure, Protocol):
    """What the eager language needs of a graph."""

    @property
    def is_square(self) -> bool: ...

    @property
    def structure(self) -> Structure: ...


class NamedGraph(GraphLike, Protocol):
    """What conversions need of a graph: everything that another one is made of. See :class:`columba.Graph`."""

    @property
    def num_nodes(self) -> int: ...

    @property
    def num_src(self) -> int: ...

    @property
    def num_dst(self) -> int: ...

    @property
    def num_relations(self) -> int: ...

    @property
    def num_node_types(self) -> int: ...

    @property
    def num_graphs(self) -> int: ...

    @property
    def edge_index(self) -> Tensor: ...

    @property
    def edge_type(self) -> Tensor: ...

    @property
    def node_type(self) -> Any: ...

    @property
    def batch(self) -> Any: ...

    @property
    def relation_names(self) -> tuple[Any, ...] | None: ...

    @property
    def node_type_names(self) -> tuple[Any, ...] | None: ...

    @property
    def node_slices(self) -> Mapping[Any, slice] | None: ...


@dataclass(frozen=True, eq=False)
class Topology:
    """Edges, types and sizes of a graph, checked: every id is below its limit. Nobody else holds the tensors.

    All of them are contiguous and of one integer dtype, int32 where every id and offset fits. ``node_types`` is None where
    nodes have no types, ``graphs``, the graph of each node, where there is one graph; a bipartite graph has pairs. ``further`` are the
    ends of edges after the first source and destination, by the names of their maps.
    """

    source: Tensor
    destination: Tensor
    relation: Tensor
    node_types: Tensor | tuple[Tensor, Tensor] | None
    is_square: bool
    num_src: int
    num_dst: int
    num_relations: int
    num_node_types: int
    graphs: Tensor | tuple[Tensor, Tensor] | None = None
    num_graphs: int = 1
    further: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, target: torch.device | str | torch.dtype) -> Topology:
        """The same on another device, or in another integer dtype."""
        return replace(
            self,
            source=self.source.to(target),
            destination=self.destination.to(target),
            relation=self.relation.to(target),
            node_types=_moved(self.node_types, target),
            graphs=_moved(self.graphs, target),
            further={name: ids.to(target) for name, ids in self.further.items()},
        )

    @property
    def num_edges(self) -> int:
        return len(self.source)

    @property
    def dtype(self) -> torch.dtype:
        return self.source.dtype

    @property
    def device(self) -> torch.device:
        return self.source.device


NodeIds = Tensor | tuple[Tensor, Tensor] | None
"""A number for each node: of a bipartite graph for sources and for destinations."""


def _moved(ids: NodeIds, target: torch.device | str | torch.dtype) -> NodeIds:
    if isinstance(ids, tuple):
        return ids[0].to(target), ids[1].to(target)
    return None if ids is None else ids.to(target)
