"""How much memory a compiled program takes on a graph of given size, found as the backends really allocate.

Every backend models what it allocates for a plan; tests compare that with what it does allocate. PyTorch's allocator rounds sizes up
and keeps what is free, which is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from columba.codegen.triton.launches import tile_count
from columba.driver import Compilation
from columba.ir.counts import Counts
from columba.ir.indices import Hubs, IndexArray, Lookup, Order, Segments, Tiles, TileStarts
from columba.ir.plan.memory import PlanMemory
from columba.ir.spaces import NODE_SPACES, PAIR_SPACES, WEIGHT_SPACES, IndexMap, Space
from columba.runtime.backends import backend_named

INDEX_BYTES = 4
"""Of an id or an offset, as a graph holds them."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of a call, or of a training step, by what they are for.

    Attributes:
        weights: inputs with a row a type, or without rows: parameters, in shipped layers. ``features``: all other inputs.
        graph: ids of edges and nodes, and the index arrays that the kernels read.
        results: what the caller gets. ``saved``: values kept for the backward pass.
        result_gradients: what the backward pass is given. ``gradients``: what it returns.
        forward, backward: what the plans make at their fullest moments, results, saved values and gradients included.
    """

    weights: int
    features: int
    graph: int
    results: int
    saved: int
    result_gradients: int
    gradients: int
    forward: PlanMemory
    backward: PlanMemory | None

    @property
    def resident(self) -> int:
        """What is there before the call."""
        return self.weights + self.features + self.graph

    @property
    def peak(self) -> int:
        """The most that is held at one moment of the call, or, with gradients, of forward and backward together."""
        forward = self.resident + self.forward.peak
        if self.backward is None:
            return forward
        alive = self.resident + self.results + self.saved + self.result_gradients
        return max(forward, alive + self.backward.peak)

    def as_dict(self) -> dict[str, int]:
        """Everything, peak included, for scripts."""
        names = ("weights", "features", "graph", "results", "saved", "result_gradients", "gradients", "peak")
        found = {name: getattr(self, name) for name in names}
        found["forward_peak"] = self.forward.peak
        found["backward_peak"] = 0 if self.backward is None else self.backward.peak
        return found


def peak_bytes(compilation: Compilation, counts: Counts, backend: str = "triton") -> int:
    """The most memory that a call of a compiled program needs at one moment, its gradient included where it has one."""
    return footprint(compilation, counts, backend).peak


def footprint(compilation: Compilation, counts: Counts, backend: str = "triton") -> Footprint:
    """The memory of a compiled program on a graph with ``counts`` rows.

    Args:
        compilation: what is run; with a backward plan, a training step is meant.
        counts: rows of every space that it uses; node types are counted if there is more than one.
        backend: the name of what runs it.
    """
    found = backend_named(backend).memory(compilation.planned, counts)
    plans, memories = found.plans, found.memories
    inputs = [i.type for i in compilation.traced.inputs]
    outputs = [b.type for b in plans[0].outputs if b not in plans[0].inputs]
    results = [b.type for b in plans[0].outputs[: compilation.results]]
    training = compilation.backward_plan is not None
    return Footprint(
        weights=counts.total(t for t in inputs if t.space in WEIGHT_SPACES),
        features=counts.total(t for t in inputs if t.space not in WEIGHT_SPACES),
        graph=graph_bytes(found.arrays, counts),
        results=counts.total(results),
        saved=counts.total(outputs) - counts.total(results),
        result_gradients=counts.total(results) if training else 0,
        gradients=memories[1].outputs if training else 0,
        forward=memories[0],
        backward=memories[1] if training else None,
    )


# ------------------------------------------------------------------------------------------------ graphs


def graph_bytes(arrays: Iterable[IndexArray], counts: Counts) -> int:
    """What a graph holds when a program has run on it: its ids, ``arrays``, and what these were made from."""
    closed = dict.fromkeys(part for array in arrays for part in _parts(array, counts))
    lookups = {(a.map.name, a.map.fine) for a in closed if isinstance(a, Lookup) and a.order is None}
    ids = [
        (name, Space.EDGE) for name in ("src", "dst", "rel")
    ]  # they are the lookups of edges, whether or not these are read
    if counts.get(Space.NTYPE, 1) > 1:
        ids += [("ntype", space) for space in NODE_SPACES if space in counts]
    if counts.get(Space.GRAPH, 1) > 1:
        ids += [("graph", space) for space in NODE_SPACES if space in counts]
    unread = sum(counts[space] for name, space in ids if (name, space) not in lookups)
    return INDEX_BYTES * (unread + sum(array_length(array, counts) for array in closed))


def array_length(array: IndexArray | Space, counts: Counts) -> int:
    """Elements of an index array; of a pair space, those of its node and its relation, and of its edges' pair and order."""
    match array:
        case Space():
            return 3 * counts[array] + 1 + 2 * counts[Space.EDGE]
        case Segments() | TileStarts():
            return counts[array.map.coarse] + 1
        case Tiles() | Hubs():
            return array.columns * tile_count(array, counts)
        case _:
            return counts[array.map.fine]


def _parts(array: IndexArray, counts: Counts) -> Iterator[IndexArray | Space]:
    """An index array and all that the graph builds it from; a pair space stands for its arrays."""
    map = array.map
    pair = next((s for s in (map.fine, map.coarse) if s in PAIR_SPACES), None)
    if isinstance(array, Tiles | TileStarts | Hubs):
        yield array
        yield from _parts(Segments(map), counts)
    elif counts[map.coarse] == 1 and map.coarse in (Space.ONE, Space.GRAPH):
        yield array
    elif isinstance(array, Lookup) and array.order is not None:
        yield array
        yield from _parts(Lookup(map), counts)
        yield from _parts(Order(array.order), counts)
    elif isinstance(array, Order) and array.within is not None:
        yield array
        yield from _parts(Order(map), counts)
        yield from _parts(Order(array.within), counts)
    elif pair is not None and (isinstance(array, Lookup) or map.coarse is pair) and map.name in _OF_PAIRS:
        yield from _pair_parts(pair)
    else:
        yield array
        if pair is not None:
            yield from _pair_parts(pair)
        if isinstance(array, Order):
            yield Segments(map)
        if not isinstance(array, Lookup):
            yield from _parts(Lookup(map), counts)


_OF_PAIRS = ("src", "dst", "rel", "src_rel", "dst_rel")
"""Maps that a pair space holds as arrays."""


def _pair_parts(space: Space) -> Iterator[IndexArray | Space]:
    yield space
    end = "src" if space is Space.SRC_REL else "dst"
    yield Lookup(IndexMap(end, Space.EDGE, Space.NODE))
    yield Lookup(IndexMap("rel", Space.EDGE, Space.REL))
