"""The counting sorts behind index arrays: in PyTorch, for every device, and in C++, for the CPU. Both give the same arrays.

All arrays are one-dimensional, contiguous, and of one integer dtype: that of the keys.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol

import torch
from torch import Tensor

from columba.runtime.build import BuildError, CompilerNotFound, build, is_built
from columba.runtime.structure import Topology


@dataclass(frozen=True)
class Pairs:
    """A pair space: distinct (node, relation) pairs, sorted by relation, then node."""

    count: int
    node: Tensor  #: [pairs] the node of each pair
    relation: Tensor  #: [pairs] its relation
    of_edge: Tensor  #: [edges] the pair of each edge
    order: Tensor  #: [edges] the edges sorted by pair
    segments: Tensor  #: [pairs + 1] where the edges of each pair start in ``order``


class Sorts(Protocol):
    """What index arrays are made with."""

    def sort(self, keys: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """The stable order by key, and the offsets ``[rows + 1]`` of each key in it."""

    def segments(self, keys: Tensor, rows: int) -> Tensor:
        """The offsets alone."""

    def pairs(self, node: Tensor, relation: Tensor, nodes: int, relations: int) -> Pairs:
        """The pair space of these ends and relations of edges."""

    def take(self, table: Tensor, at: Tensor) -> Tensor:
        """``table[at]``."""

    def invert(self, order: Tensor) -> Tensor:
        """The places of rows in an order: ``invert(order)[order[i]]`` is ``i``."""

    def tiles(self, segments: Tensor, rows: int) -> Tensor:
        """The tile table of :class:`columba.ir.indices.Tiles`."""

    def tile_starts(self, segments: Tensor, rows: int) -> Tensor:
        """Where the tiles of each segment start in that table."""

    def zeros(self, rows: int, like: Tensor) -> Tensor:
        """A zero for every row, as integers of ``like``, and where it is."""

    def numbers(self, rows: int, like: Tensor) -> Tensor:
        """The number of every row."""

    def whole(self, rows: int, like: Tensor) -> Tensor:
        """The offsets ``[0, rows]`` of one segment."""


def checksum_of(address: int, size: int) -> int | None:
    """64 bits that follow from ``size`` bytes of memory and from where they stand in it; None where that code is not built (yet)."""
    function = native_function("checksum")
    return None if function is None else int(function(address, size, torch.get_num_threads()))


def native_function(name: str) -> Callable[..., Any] | None:
    """A function in C++ that is not of one integer dtype; None where that code is not built (yet)."""
    return _library()[name, torch.uint8] if _library.cache_info().currsize else None


WORTH_BUILDING = 1 << 20
"""Edges that PyTorch sorts in the time in which the sorts in C++ are built."""


def sorts_for(device: torch.device, edges: int = WORTH_BUILDING) -> Sorts:
    """The fastest implementation for ``edges`` edges on ``device``: C++ on a CPU, if there is a compiler, and it is built or worth it."""
    if device.type != "cpu" or _failed:
        return TorchSorts()
    try:
        is_loaded = _library.cache_info().currsize > 0
        if edges < WORTH_BUILDING and not is_loaded and not is_built(_source()):
            return TorchSorts()
        return NativeSorts(_library())
    except CompilerNotFound:
        return TorchSorts()
    except BuildError as e:
        _failed.append(e)
        warnings.warn(f"columba: graphs are prepared by PyTorch, which is slower: {e}", RuntimeWarning, stacklevel=2)
        return TorchSorts()


_failed: list[BuildError] = []
"""Why the sorts could not be built: a compiler that failed is not tried again for every graph."""


class _InPyTorch:
    """What is made with PyTorch in either case."""

    def tile_starts(self, segments: Tensor, rows: int) -> Tensor:
        starts = torch.zeros_like(segments)
        torch.cumsum((segments.diff() + rows - 1) // rows, 0, dtype=segments.dtype, out=starts[1:])
        return starts

    def zeros(self, rows: int, like: Tensor) -> Tensor:
        return torch.zeros(rows, dtype=like.dtype, device=like.device)

    def numbers(self, rows: int, like: Tensor) -> Tensor:
        return torch.arange(rows, dtype=like.dtype, device=like.device)

    def whole(self, rows: int, like: Tensor) -> Tensor:
        return torch.arange(2, dtype=like.dtype, device=like.device) * rows


class TorchSorts(_InPyTorch):
    """In PyTorch, which sorts integers by radix on a CPU.

    On a GPU nothing here waits for the device but for two numbers, which only the data know and lengths depend on: how many pairs
    there are, and how many tiles. Each is asked for once, when a graph is prepared; launches ask for nothing.
    """

    def sort(self, keys: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        return torch.sort(keys, stable=True).indices.to(keys.dtype), self.segments(keys, rows)

    def segments(self, keys: Tensor, rows: int) -> Tensor:
        # Not bincount, which looks for the largest key.
        after = torch.zeros(rows + 1, dtype=torch.int64, device=keys.device)
        after.index_add_(0, keys.long() + 1, torch.ones((), dtype=torch.int64, device=keys.device).expand(len(keys)))
        return after.cumsum(0).to(keys.dtype)

    def pairs(self, node: Tensor, relation: Tensor, nodes: int, relations: int) -> Pairs:
        by_node, _ = self.sort(node, nodes)
        by_relation, _ = self.sort(relation.index_select(0, by_node), relations)
        order = by_node.index_select(0, by_relation)
        node, relation = node.index_select(0, order), relation.index_select(0, order)
        first = torch.ones(len(order), dtype=torch.bool, device=order.device)
        first[1:] = (node[1:] != node[:-1]) | (relation[1:] != relation[:-1])
        position = (first.cumsum(0) - 1).to(order.dtype)
        of_edge = torch.empty_like(position)
        of_edge[order.long()] = position
        count = int(position[-1]) + 1 if len(order) else 0  # waits for the device
        starts = torch.nonzero_static(first, size=count).flatten()
        segments = torch.cat([starts, starts.new_full((1,), len(order))]).to(order.dtype)
        return Pairs(count, node.index_select(0, starts), relation.index_select(0, starts), of_edge, order, segments)

    def take(self, table: Tensor, at: Tensor) -> Tensor:
        return table.index_select(0, at)

    def invert(self, order: Tensor) -> Tensor:
        places = torch.empty_like(order)
        places[order.long()] = torch.arange(len(order), dtype=order.dtype, device=order.device)
        return places

    def tiles(self, segments: Tensor, rows: int) -> Tensor:
        offsets = segments.long()
        tiles = (offsets.diff() + rows - 1) // rows
        owner = torch.repeat_interleave(tiles, output_size=int(tiles.sum()))  # waits for the device
        first = tiles.cumsum(0) - tiles
        within = torch.arange(len(owner), device=offsets.device) - first[owner]
        start = offsets[owner] + within * rows
        stop = torch.minimum(start + rows, offsets[owner + 1])
        return torch.cat([owner, start, stop]).to(segments.dtype)


class NativeSorts(_InPyTorch):
    """In C++ (``prepare.cpp``), on as many threads as PyTorch uses."""

    def __init__(self, library: _Library) -> None:
        self.library = library

    def sort(self, keys: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        order, segments = torch.empty_like(keys), keys.new_empty(rows + 1)
        if self._call("sort", keys, len(keys), rows, torch.get_num_threads(), order, segments):
            raise MemoryError("columba: no memory to sort the edges of a graph")
        return order, segments

    def segments(self, keys: Tensor, rows: int) -> Tensor:
        segments = keys.new_empty(rows + 1)
        self._call("count", keys, len(keys), rows, segments)
        return segments

    def count_pairs(self, node: Tensor, relation: Tensor, nodes: int, relations: int) -> int | None:
        """How many pairs there are; None where finding that takes as long as finding them."""
        count = self._call("count_pairs", node, relation, len(node), nodes, relations)
        return count if count >= 0 else None

    def count_both_pairs(self, topology: Topology) -> tuple[int | None, int | None]:
        """The same of both ends of the edges of a graph, by one call."""
        found = (ctypes.c_int64 * 2)()
        t = topology
        self.library["count_both", t.dtype](
            t.source.data_ptr(), t.destination.data_ptr(), t.relation.data_ptr(), t.num_edges, t.num_src, t.num_dst, t.num_relations,
            torch.get_num_threads(), ctypes.addressof(found),
        )  # fmt: skip
        src, dst = found
        return src if src >= 0 else None, dst if dst >= 0 else None

    def pairs(self, node: Tensor, relation: Tensor, nodes: int, relations: int) -> Pairs:
        n = len(node)
        of_edge, order = torch.empty_like(node), torch.empty_like(node)
        tables = node.new_empty(n), node.new_empty(n), node.new_empty(n + 1)
        count = self._call(
            "pairs", node, relation, n, nodes, relations, torch.get_num_threads(), of_edge, order, *tables
        )
        if count < 0:
            raise MemoryError("columba: no memory to find the pairs of a graph")
        pair_node, pair_relation, segments = (
            t[:rows].clone() for t, rows in zip(tables, (count, count, count + 1), strict=True)
        )
        return Pairs(count, pair_node, pair_relation, of_edge, order, segments)

    def take(self, table: Tensor, at: Tensor) -> Tensor:
        out = torch.empty_like(at)
        self._call("take", table, at, len(at), torch.get_num_threads(), out)
        return out

    def invert(self, order: Tensor) -> Tensor:
        out = torch.empty_like(order)
        self._call("invert", order, len(order), torch.get_num_threads(), out)
        return out

    def tiles(self, segments: Tensor, rows: int) -> Tensor:
        owners = len(segments) - 1
        count = self._call("count_tiles", segments, owners, rows)
        out = segments.new_empty(3 * count)
        self._call("fill_tiles", segments, owners, rows, count, out)
        return out

    def prepare(
        self,
        dtype: torch.dtype,
        steps: ctypes.Array[ctypes.c_int64],
        stages: ctypes.Array[ctypes.c_int64],
        arrays: ctypes.Array[ctypes.c_void_p],
        lengths: ctypes.Array[ctypes.c_int64],
        sizes: ctypes.Array[ctypes.c_int64],
        edges: int,
    ) -> None:
        """Does the steps of a recipe (:mod:`columba.runtime.graphs.recipes`). Tables of tiles may become shorter: ``lengths`` says so."""
        call, at = self.library["prepare", dtype], ctypes.addressof
        if call(
            at(steps), at(stages), len(stages) - 1, at(arrays), at(lengths), at(sizes), edges, torch.get_num_threads()
        ):
            raise MemoryError("columba: no memory to prepare a graph")

    def _call(self, function: str, *args: Tensor | int | None) -> int:
        """Calls the function's version for the dtype of the tensors."""
        dtype = next(a.dtype for a in args if isinstance(a, Tensor))
        values: list[int | None] = []
        for a in args:
            if isinstance(a, Tensor):
                assert a.dtype is dtype, "index arrays of one graph have one dtype"
                assert a.is_contiguous()
                values.append(a.data_ptr())
            else:
                values.append(a)
        return self.library[function, dtype](*values)  # type: ignore[no-any-return]


_Library = dict[tuple[str, torch.dtype], Callable[..., Any]]

# p: pointer, n: 64-bit number, t: number of threads
_SIGNATURES: dict[str, tuple[Any, str]] = {
    "sort": (ctypes.c_int, "pnntpp"),
    "count": (None, "pnnp"),
    "pairs": (ctypes.c_int64, "ppnnntppppp"),
    "count_pairs": (ctypes.c_int64, "ppnnn"),
    "count_both": (None, "pppnnnntp"),
    "prepare": (ctypes.c_int, "ppnpppnt"),
    "take": (None, "ppntp"),
    "invert": (None, "pntp"),
    "count_tiles": (ctypes.c_int64, "pnn"),
    "fill_tiles": (None, "pnnnp"),
}
_OTHERS: dict[str, tuple[Any, str]] = {
    "checksum": (ctypes.c_uint64, "pnt"),
    "compute_integers": (ctypes.c_int, "ppnppn"),
    "narrow_ids": (None, "pnpp"),
}
"""Of no dtype, or of one."""
_TYPES = {"p": ctypes.c_void_p, "n": ctypes.c_int64, "t": ctypes.c_int}


@functools.cache
def _source() -> str:
    return "".join(resources.files(__package__).joinpath(name).read_text() for name in ("prepare.cpp", "integers.cpp"))


@functools.cache
def start_building_sorts() -> threading.Thread:
    """Builds the sorts in C++ in another thread, once in a process, so that graphs find them.

    Nobody waits for it but a graph that is worth it: a smaller one is sorted by PyTorch meanwhile. Whether the sorts could be built is
    seen where they are used.
    """
    thread = threading.Thread(target=_build_sorts, name="columba sorts")
    thread.start()
    return thread


def _build_sorts() -> None:
    with suppress(CompilerNotFound, BuildError):
        build(_source())


@functools.cache
def _library() -> _Library:
    library = build(_source())
    functions: _Library = {}
    for name, (result, arguments) in (*_SIGNATURES.items(), *_OTHERS.items()):
        for suffix, dtype in (
            (("", torch.uint8),) if name in _OTHERS else (("_i32", torch.int32), ("_i64", torch.int64))
        ):
            try:
                function = getattr(library, f"{name}{suffix}")
            except AttributeError as e:
                raise BuildError(f"the library that the C++ compiler made has no function {name}{suffix}") from e
            function.restype = result
            function.argtypes = [_TYPES[a] for a in arguments]
            functions[name, dtype] = function
    return functions
