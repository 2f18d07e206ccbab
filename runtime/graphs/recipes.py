"""All index arrays that a program reads, made by one call into C++.

On a small graph most of what index arrays cost is the way to each of them: Python finds out what it follows from, PyTorch makes a tensor,
and C++ is called. That way is the same for all graphs of a kind. So it is gone once, with numbers in the place of tensors, and what would
have been computed is noted: a recipe. On a graph it is followed in one call, steps that need nothing of each other on several threads.
What an array is, :class:`IndexArrays` alone says.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from columba.ir.counts import SPACES
from columba.ir.indices import Hubs, IndexArray, Order, Segments, Tiles
from columba.ir.spaces import Space
from columba.runtime.graphs.index_arrays import IndexArrays
from columba.runtime.graphs.prepared import PARTS, Prepared
from columba.runtime.graphs.sorts import NativeSorts, Pairs
from columba.runtime.modes import any_modes, outside_modes
from columba.runtime.structure import ArraysInPlace, Topology


def prepare(structure: IndexArrays, arrays: Sequence[IndexArray]) -> list[Tensor]:
    """Several index arrays of a graph: those that it lacks are made together, where there is C++ for it."""
    return list(Preparation(arrays)(structure))


class _Way(NamedTuple):
    """How a program's index arrays are made where others are there already, if any is missing; and where each then stands: the number of
    the recipe that made it among those that the graph has followed, and its place there."""

    recipe: Recipe | None
    places: list[tuple[int, int]]


MOST_WAYS = 64
"""Ways that a program keeps."""


class Preparation:
    """Makes the index arrays that a program reads, of all graphs that come."""

    def __init__(self, arrays: Sequence[IndexArray]) -> None:
        self.arrays = tuple(arrays)
        self.has_hubs = any(isinstance(a, Hubs) for a in arrays)
        self.ways: dict[Any, _Way] = {}

    def __call__(self, structure: IndexArrays) -> Sequence[Tensor]:
        sorts = structure.sorts
        if not isinstance(sorts, NativeSorts):
            return [structure.index(array) for array in self.arrays]
        with structure.lock:
            if any_modes():
                with outside_modes():
                    return self._prepared(structure, sorts)
            return self._prepared(structure, sorts)

    def _prepared(self, structure: IndexArrays, sorts: NativeSorts) -> Sequence[Tensor]:
        kind = _kind(structure.topology)
        if self.has_hubs or not structure.is_prepared:
            self._make_missing(structure, kind, sorts)
            return [structure.index(array) for array in self.arrays]
        prepared = structure.prepared
        while True:
            alone = structure.pairs_alone
            # Recipes are hashed by identity, the arrays that they make by what these are.
            key = kind, alone, tuple([p.recipe for p in prepared])
            way = self.ways.get(key)
            if way is None:
                if len(self.ways) >= MOST_WAYS:
                    self.ways.clear()
                way = self.ways[key] = self._way(structure, kind)
            if way.recipe is None:
                break
            sizes = way.recipe.sizes(structure)
            if structure.pairs_alone is alone:  # else pairs have been found where they were to be counted
                prepared.append(way.recipe.follow(structure, sizes, sorts))
                break
        return ArraysInPlace(
            structure,
            self.arrays,
            [prepared[made].addresses[n] for made, n in way.places],
            [prepared[made].lengths[n] for made, n in way.places],
            tuple([p.memory for p in prepared]),
        )

    def _way(self, structure: IndexArrays, kind: _Kind) -> _Way:
        before = structure.prepared
        known = dict.fromkeys(a for p in before for a in p.arrays)
        spaces = tuple(dict.fromkeys((*(s for p in before for s in p.spaces), *structure.pairs_alone)))
        missing = tuple(a for a in self.arrays if a not in known)
        recipe = _recipe(missing, kind, (tuple(known), spaces)) if missing else None
        arrays = [p.arrays for p in before] + ([] if recipe is None else [recipe.arrays])
        return _Way(recipe, [next((n, made[a]) for n, made in enumerate(arrays) if a in made) for a in self.arrays])

    def _make_missing(self, structure: IndexArrays, kind: _Kind, sorts: NativeSorts) -> None:
        """Makes what is missing where some have been made by themselves."""
        missing = tuple(a for a in self.arrays if a not in structure.built and not isinstance(a, Hubs))
        while missing:
            spaces = tuple(structure.pair_spaces)
            recipe = _recipe(missing, kind, (tuple(structure.built), spaces))
            sizes = recipe.sizes(structure)
            if tuple(structure.pair_spaces) == spaces:
                structure.prepared.append(recipe.follow(structure, sizes, sorts))
                return


_Kind = tuple[bool, int, int, bool, tuple[str, ...]]
"""Whether a graph is square, in how many tensors it has node types, and graphs; whether it is one graph; and its further ends."""

_Known = tuple[tuple[IndexArray, ...], tuple[Space, ...]]
"""The index arrays, and the pair spaces, that a graph has already."""


def _kind(topology: Topology) -> _Kind:
    types, graphs = _parts(topology.node_types), _parts(topology.graphs)
    return topology.is_square, types, graphs, topology.num_graphs == 1, tuple(topology.further)


def _parts(ids: Any) -> int:
    return 0 if ids is None else 2 if isinstance(ids, tuple) else 1


@functools.lru_cache(maxsize=256)
def _recipe(wanted: tuple[IndexArray, ...], kind: _Kind, known: _Known) -> Recipe:
    recorded = _Recorded(kind, known)
    for array in sorted(wanted, key=lambda array: not isinstance(array, Order)):  # sorting counts too
        recorded.index(array)
    return Recipe(recorded)


# ------------------------------------------------------------------------------------------------ noting

OPERATIONS = ("sort", "count", "pairs", "take", "invert", "tiles", "tile_starts", "zeros", "numbers", "whole")
"""As ``prepare.cpp`` numbers them."""

LONGEST_FIRST = ("pairs", "sort", "take", "invert", "count")
"""In which order the steps of a stage are handed to threads: a long one that came last would run alone. Others take no time."""

_ROWS = {space: place for place, space in enumerate(SPACES)}
"""Where the rows of each space stand in the table of sizes. After them, for each table of tiles: the rows of a tile, and the most integers
that the table may have."""


class _Length(NamedTuple):
    """The length of an array: what stands at a place in the table of sizes, and so many more."""

    place: int
    more: int = 0


class _Step(NamedTuple):
    operation: int
    stage: int
    operands: tuple[int, ...]
    sizes: tuple[int, ...]
    outputs: tuple[int, ...]


class _Recorder:
    """The sorts, which note what they are asked for: arrays are given by their numbers, rows by their places in the table of sizes."""

    def __init__(self) -> None:
        self.lengths: list[_Length] = []
        self.stages: list[int] = []
        self.steps: list[_Step] = []
        self.tables: list[int] = []

    def array(self, length: _Length, stage: int = 0) -> Any:
        """Another array, which is there before steps of that stage run."""
        self.lengths.append(length)
        self.stages.append(stage)
        return len(self.lengths) - 1

    def _step(self, operation: str, operands: Sequence[int], sizes: Sequence[int], lengths: Iterable[_Length]) -> Any:
        stage = max((self.stages[n] for n in operands), default=0)
        outputs = tuple(self.array(length, stage + 1) for length in lengths)
        self.steps.append(_Step(OPERATIONS.index(operation), stage, tuple(operands), tuple(sizes), outputs))
        return outputs if len(outputs) > 1 else outputs[0]

    def sort(self, keys: int, rows: int) -> Any:
        return self._step("sort", [keys], [rows], [self.lengths[keys], _Length(rows, 1)])

    def segments(self, keys: int, rows: int) -> Any:
        return self._step("count", [keys], [rows], [_Length(rows, 1)])

    def pairs(self, space: Space, node: Any, relation: Any, nodes: int, relations: int) -> Pairs:
        edges, count = self.lengths[node], _ROWS[space]
        lengths = edges, edges, _Length(count), _Length(count), _Length(count, 1)
        made = self._step("pairs", [node, relation], [nodes, relations], lengths)
        return Pairs(count, **dict(zip(PARTS, made, strict=True)))

    def take(self, table: int, at: int) -> Any:
        return self._step("take", [table, at], [], [self.lengths[at]])

    def invert(self, order: int) -> Any:
        return self._step("invert", [order], [], [self.lengths[order]])

    def tiles(self, segments: int, rows: int) -> Any:
        self.tables.append(len(self.lengths))
        return self._step("tiles", [segments], [rows], [_Length(rows + 1)])

    def tile_starts(self, segments: int, rows: int) -> Any:
        return self._step("tile_starts", [segments], [rows], [self.lengths[segments]])

    def zeros(self, rows: int, like: int) -> Any:
        return self._step("zeros", [], [rows], [_Length(rows)])

    def numbers(self, rows: int, like: int) -> Any:
        return self._step("numbers", [], [rows], [_Length(rows)])

    def whole(self, rows: int, like: int) -> Any:
        return self._step("whole", [], [rows], [_Length(_ROWS[Space.ONE], 1)])


class _Recorded(IndexArrays):
    """Index arrays of any graph of a kind, by their numbers."""

    def __init__(self, kind: _Kind, known: _Known) -> None:
        self.inputs: dict[int, tuple[Any, Any]] = {}  # where what stands at each number is found on a graph
        self.recorder = recorder = _Recorder()
        self.tiles: dict[Tiles, int] = {}
        self.known, self.known_spaces = known

        def given(what: Any, length: _Length) -> Any:
            number = recorder.array(length)
            self.inputs[number] = what
            return number

        is_square, types, graphs, is_one, names = kind
        self.given = given
        edges = _Length(_ROWS[Space.EDGE])
        ends = [given((name, None), edges) for name in ("source", "destination", "relation")]
        of_nodes = [
            tuple(given((name, None if parts == 1 else n), _Length(_ROWS[_node_space(n, parts)])) for n in range(parts))
            for name, parts in (("node_types", types), ("graphs", graphs))
        ]
        ids: list[Any] = [None if not one else one[0] if len(one) == 1 else one for one in of_nodes]
        source, destination, relation = ends
        graphs_of, count = ids[1], 1 if is_one else 2
        further = {name: given(("further", name), edges) for name in names}
        super().__init__(
            Topology(source, destination, relation, ids[0], is_square, 0, 0, 0, 0, graphs_of, count, further)
        )

    @property
    def sorts(self) -> Any:
        return self.recorder

    def count(self, space: Space) -> int:
        return _ROWS[space]

    def _tile_rows(self, tiles: Tiles) -> int:
        return len(SPACES) + 2 * self.tiles.setdefault(tiles, len(self.tiles))

    def index(self, array: IndexArray) -> Any:
        if array in self.known and array not in self._built:
            space, more = (array.map.coarse, 1) if isinstance(array, Segments) else (array.map.fine, 0)
            self._built[array] = self.given(("built", array), _Length(_ROWS[space], more))
        return super().index(array)

    def pairs(self, space: Space) -> Pairs:
        if space not in self._pair_spaces:
            self._pair_spaces[space] = self._known_pairs(space) or self.recorder.pairs(
                space, *self._ends_of_pairs(space)
            )  # type: ignore[arg-type]
        return self._pair_spaces[space]

    def _known_pairs(self, space: Space) -> Pairs | None:
        if space not in self.known_spaces:
            return None
        count, edges = _ROWS[space], _Length(_ROWS[Space.EDGE])
        lengths = edges, edges, _Length(count), _Length(count), _Length(count, 1)
        parts = {part: self.given((space, part), length) for part, length in zip(PARTS, lengths, strict=True)}
        return Pairs(count, **parts)


def _node_space(n: int, parts: int) -> Space:
    return Space.NODE if parts == 1 else (Space.SRC, Space.DST)[n]


# ------------------------------------------------------------------------------------------------ following


class Recipe:
    """How index arrays of a kind of graphs are made: what was noted, as ``prepare.cpp`` reads it."""

    def __init__(self, noted: _Recorded) -> None:
        recorder = noted.recorder
        rank = {OPERATIONS.index(name): n for n, name in enumerate(LONGEST_FIRST)}
        steps = sorted(recorder.steps, key=lambda step: (step.stage, rank.get(step.operation, len(rank))))
        stages = [n for n, step in enumerate(steps) if not n or step.stage != steps[n - 1].stage]
        made = {n: at for at, n in enumerate(n for step in steps for n in step.outputs)}
        given = {n: at for at, n in enumerate(noted.inputs)}
        places = {**given, **{n: len(given) + at for n, at in made.items()}, 0: 0}
        numbers = [
            n
            for step in steps
            for n in (
                step.operation,
                *_filled([places[n] for n in step.operands], 2),
                *_filled(step.sizes, 2),
                *_filled([places[n] for n in step.outputs], 5),
            )
        ]
        self.steps = (ctypes.c_int64 * max(1, len(numbers)))(*numbers)
        self.stages = (ctypes.c_int64 * (len(stages) + 1))(*stages, len(steps))
        self.inputs = list(noted.inputs.values())
        self.lengths = [recorder.lengths[n] for n in made]
        self.tiles = list(noted.tiles)
        used = {place for step in steps for place in step.sizes}.union(length.place for length in self.lengths)
        self.spaces = [space if place in used else None for space, place in _ROWS.items()]
        found: Any = noted
        self.arrays: dict[IndexArray, int] = {
            array: places[n] for array, n in found.built.items() if n in made or array not in noted.known
        }
        self.pair_spaces: dict[Space, list[int]] = {
            space: [places[vars(pairs)[part]] for part in PARTS]
            for space, pairs in noted.pair_spaces.items()
            if pairs.order in made
        }
        count = len(given) + len(made)
        self.pointers, self.counts = ctypes.c_void_p * count, ctypes.c_int64 * count
        self.table = ctypes.c_int64 * (len(SPACES) + 2 * len(self.tiles))

    def sizes(self, structure: IndexArrays) -> list[int]:
        """The table of sizes. Counting pairs may build them."""
        known = structure.rows
        counts = [0 if s is None else n if (n := known.get(s)) is not None else structure.count(s) for s in self.spaces]
        for tiles in self.tiles:
            fine, coarse = structure.count(tiles.map.fine), structure.count(tiles.map.coarse)
            rows = tiles.most(fine)
            counts += (rows, tiles.columns * (fine // rows + min(fine, coarse)))
        return counts

    def follow(self, structure: IndexArrays, sizes: list[int], sorts: NativeSorts) -> Prepared:
        """Makes the arrays for a graph. All of them stand in one piece of memory."""
        dtype = structure.dtype
        inputs = [_input(structure, where, part) for where, part in self.inputs]
        lengths = [sizes[place] + more for place, more in self.lengths]
        memory = torch.empty(sum(lengths), dtype=dtype)
        size, at = dtype.itemsize, memory.data_ptr()
        addresses = [x.data_ptr() for x in inputs]
        for length in lengths:
            addresses.append(at)
            at += length * size
        all_lengths = self.counts(*[x.numel() for x in inputs], *lengths)
        edges = structure.topology.num_edges
        sorts.prepare(dtype, self.steps, self.stages, self.pointers(*addresses), all_lengths, self.table(*sizes), edges)
        return Prepared(self, self.arrays, self.pair_spaces, inputs, memory, addresses, all_lengths[:])


def _filled(numbers: Sequence[int], count: int) -> tuple[int, ...]:
    return (*numbers, *(0,) * (count - len(numbers)))


def _input(structure: IndexArrays, where: Any, part: Any) -> Tensor:
    """A tensor that a graph has: a part of its topology, an index array, or a part of a pair space."""
    if isinstance(where, Space):
        return vars(structure.pairs(where))[part]
    if where == "built":
        return structure.index(part)
    found = getattr(structure.topology, where)
    return found if part is None else found[part]
