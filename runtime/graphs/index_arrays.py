"""Builds the index arrays of a graph on demand, in linear time, and keeps them.

This is preparation, done once for a graph. On a GPU it waits for the device where a length depends on what the edges are: once for
each pair space, once for each tile table, once for the largest degree along each map. Launching kernels on a prepared graph never does.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from columba.ir.indices import Hubs, IndexArray, Lookup, Order, Segments, Tiles, TileStarts
from columba.ir.spaces import NODE_SPACES, PAIR_SPACES, IndexMap, Space
from columba.runtime.graphs.prepared import Prepared
from columba.runtime.graphs.sorts import NativeSorts, Pairs, Sorts, sorts_for
from columba.runtime.modes import outside_modes
from columba.runtime.structure import Topology

_PAIR_SPACES = frozenset(PAIR_SPACES)


class IndexArrays:
    """The structure of one graph, with its index arrays. Safe to ask from several threads.

    Whoever asks first, and under whatever modes: arrays serve all later calls too, so they are made outside of modes.
    """

    def __init__(self, topology: Topology, sorts: Sorts | None = None) -> None:
        self.topology = topology
        self.lock = threading.RLock()
        self.given_sorts = sorts
        self._built: dict[IndexArray, Tensor] = {}
        self._pair_spaces: dict[Space, Pairs] = {}
        self.prepared: list[Prepared] = []
        self.is_prepared = True  # all index arrays are of those, and pair spaces but for pairs_alone
        self.pairs_alone: tuple[Space, ...] = ()
        self.rows: dict[Space, int] = {}
        self.largest_degrees: dict[IndexMap, int] = {}

    @property
    def built(self) -> dict[IndexArray, Tensor]:
        """All index arrays that there are."""
        self._settle()
        return self._built

    @property
    def pair_spaces(self) -> dict[Space, Pairs]:
        """All pair spaces that there are."""
        self._settle()
        return self._pair_spaces

    def _settle(self) -> None:
        """Makes tensors of all that was prepared."""
        with self.lock, outside_modes():
            for prepared in self.prepared:
                for array in prepared.arrays:
                    if array not in self._built:
                        self._built[array] = prepared.array(array)
                for space in prepared.spaces:
                    if space not in self._pair_spaces:
                        self._pair_spaces[space] = prepared.pairs(space, self.rows[space])

    @property
    def dtype(self) -> torch.dtype:
        return self.topology.dtype

    @property
    def device(self) -> torch.device:
        return self.topology.device

    def count(self, space: Space) -> int:
        """Rows of a space."""
        found = self.rows.get(space)
        return self._count(space) if found is None else found

    def _count(self, space: Space) -> int:
        """The same where it is first asked for."""
        if space in PAIR_SPACES:
            return self._count_pairs(space)
        topology = self.topology
        if space is Space.NODE and not topology.is_square:
            raise ValueError("a bipartite graph has no num_nodes; it has num_src and num_dst")
        self.rows |= {
            Space.SRC: topology.num_src,
            Space.DST: topology.num_dst,
            Space.EDGE: topology.num_edges,
            Space.REL: topology.num_relations,
            Space.NTYPE: topology.num_node_types,
            Space.GRAPH: topology.num_graphs,
            Space.ONE: 1,
        }
        if topology.is_square:
            self.rows[Space.NODE] = topology.num_src
        return self.rows[space]

    def index(self, array: IndexArray) -> Tensor:
        """An index array, built on the first request: the tensor that kernels read, which nobody writes to."""
        found = self._built.get(array)
        if found is not None:
            return found
        with self.lock:
            if array not in self._built:
                with outside_modes():
                    prepared = next((p for p in self.prepared if array in p.arrays), None)
                    if prepared is None and not isinstance(array, Hubs):
                        self.is_prepared = False
                    self._built[array] = self._build(array) if prepared is None else prepared.array(array)
            return self._built[array]

    def known_pairs(self, space: Space) -> int | None:
        """How many pairs there are, if that is known."""
        return self.rows.get(space)

    def _count_pairs(self, space: Space) -> int:
        with self.lock:
            if space not in self.rows:
                sorts, count = self.sorts, None
                if isinstance(sorts, NativeSorts):
                    count = sorts.count_pairs(*self._ends_of_pairs(space))
                self.rows[space] = self.pairs(space).count if count is None else count
            return self.rows[space]

    def count_pairs(self) -> None:
        """Counts the pairs of both ends: together, where C++ does it."""
        sorts = self.sorts
        if isinstance(sorts, NativeSorts) and not self.rows.keys() & _PAIR_SPACES:
            with self.lock:
                counts = zip(PAIR_SPACES, sorts.count_both_pairs(self.topology), strict=True)
                self.rows |= {space: n for space, n in counts if n is not None}

    def pairs(self, space: Space) -> Pairs:
        found = self._pair_spaces.get(space)
        if found is not None:
            return found
        with self.lock:
            if space not in self._pair_spaces:
                with outside_modes():
                    prepared = next((p for p in self.prepared if space in p.spaces), None)
                    if prepared is None:
                        self.pairs_alone += (space,)
                        found = self.sorts.pairs(*self._ends_of_pairs(space))
                    else:
                        found = prepared.pairs(space, self.rows[space])
                    self._pair_spaces[space], self.rows[space] = found, found.count
            return self._pair_spaces[space]

    def largest_degree(self, map: IndexMap) -> int:
        """The most fine rows that lead to one coarse row. The device is waited for when a map is first asked about."""
        found = self.largest_degrees.get(map)
        if found is not None:
            return found
        with self.lock:
            if map not in self.largest_degrees:
                with outside_modes():
                    self.largest_degrees[map] = self._largest_degree(map)
            return self.largest_degrees[map]

    def _largest_degree(self, map: IndexMap) -> int:
        fine = self.count(map.fine)
        if self._is_whole(map) or not fine:
            return fine
        return int(self.index(Segments(map)).diff().max())

    @property
    def sorts(self) -> Sorts:
        if self.given_sorts is not None:
            return self.given_sorts
        sorts = sorts_for(self.device, self.topology.num_edges)
        if isinstance(sorts, NativeSorts):  # else they may be built by the next time
            self.given_sorts = sorts
        return sorts

    def _ends_of_pairs(self, space: Space) -> tuple[Tensor, Tensor, int, int]:
        """Node and relation of every edge, and how many of either there are."""
        topology = self.topology
        of_source = space is Space.SRC_REL
        nodes = self.count(Space.NODE if topology.is_square else Space.SRC if of_source else Space.DST)
        ids = topology.source if of_source else topology.destination
        return ids, topology.relation, nodes, self.count(Space.REL)

    def _build(self, array: IndexArray) -> Tensor:
        match array:
            case Lookup(map, None):
                return self._lookup(map)
            case Lookup(map, order) if order is not None:
                return self.sorts.take(self.index(Lookup(map)), self.index(Order(order)))
            case Order(map, None):
                return self._order(map)
            case Order(map, within) if within is not None:
                places = self.sorts.invert(self.index(Order(within)))
                return self.sorts.take(places, self.index(Order(map)))
            case Segments(map):
                return self._segments(map)
            case Tiles(map):
                return self.sorts.tiles(self.index(Segments(map)), self._tile_rows(array))
            case TileStarts(tiles):
                return self.sorts.tile_starts(self.index(Segments(tiles.map)), self._tile_rows(tiles))
            case Hubs(map):
                return self._hubs(array)
        raise TypeError(f"unknown index array {array}")

    def _lookup(self, map: IndexMap) -> Tensor:
        """The coarse row of every fine row."""
        if self._is_whole(map):
            return self.sorts.zeros(self.count(map.fine), self.topology.source)
        if map.name.endswith("_type"):
            return self._through_node("ntype", map, map.name.removesuffix("_type"))
        if map.name in ("ntype", "graph") and map.fine in NODE_SPACES:
            return self._of_nodes(map)
        if map.name == "graph":  # of both ends
            return self._through_node("graph", map, "dst" if map.fine is Space.DST_REL else "src")
        if map.fine is Space.EDGE:
            if map.coarse in PAIR_SPACES:
                return self.pairs(map.coarse).of_edge
            return self._edge_lookup(map.name)
        pairs = self.pairs(map.fine)
        return pairs.relation if map.name == "rel" else pairs.node

    def _edge_lookup(self, name: str) -> Tensor:
        """An end or the relation of every edge."""
        topology = self.topology
        if name == "rel":
            key, ids = Lookup(IndexMap("rel", Space.EDGE, Space.REL)), topology.relation
        else:
            space = Space.NODE if topology.is_square else Space(name[:3])
            key = Lookup(IndexMap(name, Space.EDGE, space))
            ids = {"src": topology.source, "dst": topology.destination, **topology.further}[name]
        return self._built.setdefault(key, ids)

    def _through_node(self, name: str, map: IndexMap, end: str) -> Tensor:
        """What the node at an end of every edge, or pair, maps to."""
        space = Space.NODE if self.topology.is_square else Space(end[:3])
        of_node = self.index(Lookup(IndexMap(name, space, map.coarse)))
        return self.sorts.take(of_node, self.index(Lookup(IndexMap(end, map.fine, space))))

    def _of_nodes(self, map: IndexMap) -> Tensor:
        """The type or the graph of every node."""
        ids = self.topology.node_types if map.name == "ntype" else self.topology.graphs
        if ids is None:
            return self.sorts.zeros(self.count(map.fine), self.topology.source)
        if isinstance(ids, tuple):
            ids = ids[0] if map.fine is Space.SRC else ids[1]
        return ids

    def _is_whole(self, map: IndexMap) -> bool:
        """Whether all fine rows lead to the one coarse row that there is."""
        return map.coarse is Space.ONE or (map.coarse is Space.GRAPH and self.topology.num_graphs == 1)

    def _order(self, map: IndexMap) -> Tensor:
        if map.fine is Space.EDGE and map.coarse in PAIR_SPACES:
            return self.pairs(map.coarse).order
        if self._is_whole(map) or (map.fine in PAIR_SPACES and map.name == "rel"):
            return self.sorts.numbers(self.count(map.fine), self.topology.source)
        order, segments = self.sorts.sort(self.index(Lookup(map)), self.count(map.coarse))
        self._built.setdefault(Segments(map), segments)
        return order

    def _segments(self, map: IndexMap) -> Tensor:
        if self._is_whole(map):
            return self.sorts.whole(self.count(map.fine), self.topology.source)
        if map.fine is Space.EDGE and map.coarse in PAIR_SPACES:
            return self.pairs(map.coarse).segments
        return self.sorts.segments(self.index(Lookup(map)), self.count(map.coarse))

    def _tile_rows(self, tiles: Tiles) -> int:
        return tiles.most(self.count(tiles.map.fine))

    def _hubs(self, hubs: Hubs) -> Tensor:
        fine, coarse = self.count(hubs.map.fine), self.count(hubs.map.coarse)
        largest, most = self.largest_degree(hubs.map), hubs.most(fine, coarse)
        if largest <= most:
            return torch.empty(0, dtype=self.dtype, device=self.device)
        table = hub_table(self.index(Segments(hubs.map)).long(), most, hubs.tile_rows(fine, coarse, largest))
        return table.to(self.dtype)


def hub_table(segments: Tensor, most: int, rows: int) -> Tensor:
    """The table of :class:`columba.ir.indices.Hubs` for segments of more than ``most`` rows, in tiles of at most ``rows``.

    ``segments`` are int64 offsets.
    """
    degrees = segments.diff()
    tiles = torch.where(degrees > most, (degrees + rows - 1) // rows, 0)
    owner = torch.repeat_interleave(tiles, output_size=int(tiles.sum()))  # waits for the device
    first = (tiles.cumsum(0) - tiles)[owner]
    begin = segments[owner] + (torch.arange(len(owner), device=segments.device) - first) * rows
    end = torch.minimum(begin + rows, segments[owner + 1])
    return torch.cat([owner, begin, end, first, first + tiles[owner]])
