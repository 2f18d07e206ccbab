"""Builds the index arrays of a graph on demand, in linear time, and keeps them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from columba.ir.indices import IndexArray, Lookup, Order, Segments, Tiles
from columba.ir.spaces import PAIR_SPACES, IndexMap, Space

if TYPE_CHECKING:
    from columba.runtime.graph import Graph


@dataclass(frozen=True)
class Pairs:
    """A pair space: distinct (node, relation) pairs, sorted by relation, then node."""

    count: int
    node: Tensor  #: [pairs] the node of each pair
    relation: Tensor  #: [pairs] its relation
    of_edge: Tensor  #: [edges] the pair of each edge
    order: Tensor  #: [edges] the edges sorted by pair


class IndexArrays:
    """The index arrays of one graph. Safe to ask from several threads."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.lock = threading.RLock()
        self.built: dict[IndexArray, Tensor] = {}
        self.pair_spaces: dict[Space, Pairs] = {}
        counts = (graph.num_src, graph.num_dst, graph.num_edges, graph.num_relations, graph.num_node_types)
        self.dtype = torch.int32 if max(counts) < 2**31 - 1 else torch.int64

    def get(self, array: IndexArray) -> Tensor:
        found = self.built.get(array)
        if found is not None:
            return found
        with self.lock:
            if array not in self.built:
                self.built[array] = self._build(array).to(self.dtype).contiguous()
            return self.built[array]

    def known_pairs(self, space: Space) -> Pairs | None:
        return self.pair_spaces.get(space)

    def pairs(self, space: Space) -> Pairs:
        with self.lock:
            if space not in self.pair_spaces:
                self.pair_spaces[space] = self._build_pairs(space)
            return self.pair_spaces[space]

    def _build_pairs(self, space: Space) -> Pairs:
        """Two stable counting sorts, by node and then by relation, put equal pairs side by side."""
        graph = self.graph
        node = graph.edge_index[0 if space is Space.SRC_REL else 1]
        by_node = _stable_order(node)
        order = by_node[_stable_order(graph.edge_type[by_node])]
        node, relation = node[order], graph.edge_type[order]
        first = torch.ones(len(order), dtype=torch.bool, device=graph.device)
        first[1:] = (node[1:] != node[:-1]) | (relation[1:] != relation[:-1])
        position = first.cumsum(0) - 1
        of_edge = torch.empty_like(position)
        of_edge[order] = position
        return Pairs(int(first.sum()), node[first], relation[first], of_edge, order)

    def _build(self, array: IndexArray) -> Tensor:
        match array:
            case Lookup(map, None):
                return self._lookup(map)
            case Lookup(map, order) if order is not None:
                return self._lookup(map)[self.get(Order(order)).long()]
            case Order(map):
                return self._order(map)
            case Segments(map):
                return self._segments(map)
            case Tiles(map, rows):
                return self._tiles(self.get(Segments(map)).long(), rows)
        raise TypeError(f"unknown index array {array}")

    def _lookup(self, map: IndexMap) -> Tensor:
        """The coarse row of every fine row."""
        graph = self.graph
        if map.coarse is Space.ONE:
            return torch.zeros(graph.count(map.fine), dtype=torch.int64, device=graph.device)
        if map.name in ("src_type", "dst_type"):
            end = IndexMap(map.name[:3], map.fine, self._end_space(map.name[:3]))
            return self._lookup(IndexMap("ntype", end.coarse, Space.NTYPE))[self._lookup(end)]
        if map.name == "ntype":
            return self._types(map.fine)
        if map.fine is Space.EDGE:
            if map.coarse in PAIR_SPACES:
                return self.pairs(map.coarse).of_edge
            return graph.edge_type if map.name == "rel" else graph.edge_index[0 if map.name == "src" else 1]
        pairs = self.pairs(map.fine)
        return pairs.relation if map.name == "rel" else pairs.node

    def _end_space(self, end: str) -> Space:
        return Space.NODE if self.graph.is_square else Space(end)

    def _types(self, space: Space) -> Tensor:
        types = self.graph.node_type
        if types is None:
            return torch.zeros(self.graph.count(space), dtype=torch.int64, device=self.graph.device)
        if isinstance(types, tuple):
            return types[0] if space is Space.SRC else types[1]
        return types  # type: ignore[no-any-return]

    def _order(self, map: IndexMap) -> Tensor:
        if map.fine is Space.EDGE and map.coarse in PAIR_SPACES:
            return self.pairs(map.coarse).order
        if map.coarse is Space.ONE or (map.fine in PAIR_SPACES and map.name == "rel"):
            return torch.arange(self.graph.count(map.fine), device=self.graph.device)
        return _stable_order(self._lookup(map))

    def _segments(self, map: IndexMap) -> Tensor:
        rows = self.graph.count(map.coarse)
        counts = torch.bincount(self._lookup(map), minlength=rows)
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    def _tiles(self, offsets: Tensor, rows: int) -> Tensor:
        sizes = offsets[1:] - offsets[:-1]
        tiles = (sizes + rows - 1) // rows
        segment = torch.repeat_interleave(tiles)
        first_tile = tiles.cumsum(0) - tiles
        within = torch.arange(len(segment), device=offsets.device) - first_tile[segment]
        start = offsets[segment] + within * rows
        stop = torch.minimum(start + rows, offsets[segment + 1])
        return torch.cat([segment, start, stop])


def _stable_order(keys: Tensor) -> Tensor:
    """The stable sorting permutation. On the CPU torch sorts integers by radix, in linear time."""
    return torch.sort(keys, stable=True).indices
