"""Builds the index arrays of a graph on demand, in linear time, and keeps them.

This is preparation, done once for a graph. On a GPU it waits for the device where a length depends on what the edges are: once for
each pair space, once for each tile table. Launching kernels on a prepared graph never does.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from columba.ir.indices import IndexArray, Lookup, Order, Segments, Tiles
from columba.ir.spaces import PAIR_SPACES, IndexMap, Space
from columba.runtime.sorts import NativeSorts, Pairs, Sorts, sorts_for

if TYPE_CHECKING:
    from columba.runtime.graph import Graph


class IndexArrays:
    """The index arrays of one graph. Safe to ask from several threads."""

    def __init__(self, graph: Graph, sorts: Sorts | None = None) -> None:
        self.graph = graph
        self.lock = threading.RLock()
        self.given_sorts = sorts
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
                with torch.inference_mode(False):  # whoever asks first: arrays serve training too
                    self.built[array] = self._build(array)
            return self.built[array]

    def known_pairs(self, space: Space) -> Pairs | None:
        return self.pair_spaces.get(space)

    def pairs(self, space: Space) -> Pairs:
        found = self.pair_spaces.get(space)
        if found is not None:
            return found
        with self.lock:
            if space not in self.pair_spaces:
                with torch.inference_mode(False):
                    self.pair_spaces[space] = self._build_pairs(space)
            return self.pair_spaces[space]

    @property
    def _sorts(self) -> Sorts:
        if self.given_sorts is not None:
            return self.given_sorts
        sorts = sorts_for(self.graph.device, self.graph.num_edges)
        if isinstance(sorts, NativeSorts):  # else they may be built by the next time
            self.given_sorts = sorts
        return sorts

    def _build_pairs(self, space: Space) -> Pairs:
        graph, end = self.graph, "src" if space is Space.SRC_REL else "dst"
        node = self._edge_lookup(end)
        nodes = graph.num_src if end == "src" else graph.num_dst
        return self._sorts.pairs(node, self._edge_lookup("rel"), nodes, graph.num_relations)

    def _build(self, array: IndexArray) -> Tensor:
        match array:
            case Lookup(map, None):
                return self._lookup(map)
            case Lookup(map, order) if order is not None:
                return self._sorts.take(self.get(Lookup(map)), self.get(Order(order)))
            case Order(map, None):
                return self._order(map)
            case Order(map, within) if within is not None:
                places = self._sorts.invert(self.get(Order(within)))
                return self._sorts.take(places, self.get(Order(map)))
            case Segments(map):
                return self._segments(map)
            case Tiles(map, rows):
                return self._sorts.tiles(self.get(Segments(map)), rows)
        raise TypeError(f"unknown index array {array}")

    def _lookup(self, map: IndexMap) -> Tensor:
        """The coarse row of every fine row."""
        graph = self.graph
        if map.coarse is Space.ONE:
            return torch.zeros(graph.count(map.fine), dtype=self.dtype, device=graph.device)
        if map.name in ("src_type", "dst_type"):
            end = map.name[:3]
            space = Space.NODE if graph.is_square else Space(end)
            types = self.get(Lookup(IndexMap("ntype", space, Space.NTYPE)))
            return self._sorts.take(types, self.get(Lookup(IndexMap(end, map.fine, space))))
        if map.name == "ntype":
            return self._types(map.fine)
        if map.fine is Space.EDGE:
            if map.coarse in PAIR_SPACES:
                return self.pairs(map.coarse).of_edge
            return self._edge_lookup(map.name)
        pairs = self.pairs(map.fine)
        return pairs.relation if map.name == "rel" else pairs.node

    def _edge_lookup(self, name: str) -> Tensor:
        """Source, destination or relation of every edge, in the index dtype."""
        graph = self.graph
        if name == "rel":
            key, ids = Lookup(IndexMap("rel", Space.EDGE, Space.REL)), graph.edge_type
        else:
            space = Space.NODE if graph.is_square else Space(name)
            key, ids = Lookup(IndexMap(name, Space.EDGE, space)), graph.edge_index[0 if name == "src" else 1]
        with self.lock:
            if key not in self.built:
                self.built[key] = ids.to(self.dtype)
            return self.built[key]

    def _types(self, space: Space) -> Tensor:
        types = self.graph.node_type
        if types is None:
            return torch.zeros(self.graph.count(space), dtype=self.dtype, device=self.graph.device)
        if isinstance(types, tuple):
            types = types[0] if space is Space.SRC else types[1]
        return types.to(self.dtype)  # type: ignore[no-any-return]

    def _order(self, map: IndexMap) -> Tensor:
        if map.fine is Space.EDGE and map.coarse in PAIR_SPACES:
            return self.pairs(map.coarse).order
        if map.coarse is Space.ONE or (map.fine in PAIR_SPACES and map.name == "rel"):
            return torch.arange(self.graph.count(map.fine), dtype=self.dtype, device=self.graph.device)
        order, segments = self._sorts.sort(self.get(Lookup(map)), self.graph.count(map.coarse))
        self.built.setdefault(Segments(map), segments)
        return order

    def _segments(self, map: IndexMap) -> Tensor:
        if map.coarse is Space.ONE:
            return torch.arange(2, dtype=self.dtype, device=self.graph.device) * self.graph.count(map.fine)
        if map.fine is Space.EDGE and map.coarse in PAIR_SPACES:
            return self.pairs(map.coarse).segments
        return self._sorts.segments(self.get(Lookup(map)), self.graph.count(map.coarse))
