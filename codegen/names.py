"""Readable names of index arrays, the same in every backend's source."""

from __future__ import annotations

from columba.ir.indices import Hubs, IndexArray, Lookup, Order, Segments, Tiles, TileStarts
from columba.ir.spaces import IndexMap


def array_name(array: IndexArray) -> str:
    """A readable name for an index array.

    >>> from columba.ir.spaces import Space, index_map
    >>> array_name(Lookup(index_map("src_rel", Space.EDGE), index_map("dst", Space.EDGE)))
    'src_rel_of_edge_by_dst'
    """
    match array:
        case Lookup(map, None):
            return _of(map)
        case Lookup(map, by) if by is not None:
            return f"{_of(map)}_by_{by.name}"
        case Order(map, None):
            return f"order_{_by(map)}"
        case Order(map, within) if within is not None:
            return f"order_{_by(map)}_within_{within.name}"
        case Segments(map):
            return f"segments_{_by(map)}"
        case Tiles(map, rows, least):
            return f"tiles_{_by(map)}_{rows}" if not least else f"tiles_{_by(map)}_{least}_to_{rows}"
        case TileStarts(tiles):
            return f"starts_of_{array_name(tiles)}"
        case Hubs(map):
            return f"hubs_{_by(map)}"
    raise TypeError(f"unknown index array {array}")


def _of(map: IndexMap) -> str:
    return f"{map.name}_of_{map.fine}"


def _by(map: IndexMap) -> str:
    return f"{map.fine}_by_{map.name}"
