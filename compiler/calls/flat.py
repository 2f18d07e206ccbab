"""Flat calls: a specialization as a function of tensors and graphs in a row, which is what an operator can call.

A trace finds its tensors at every call: in arguments, attributes, variables. Whoever compiles the code around finds them there itself, and
passes them in. So the sources of a flat trace are positions; it has no guards beside, which hold before it is called; and it returns, in a
list, what the function returns, and what it stores in buffers.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from columba.calls.built_sizes import built_sizes
from columba.calls.shortcut import MISSED
from columba.calls.specialization import Specialization
from columba.frontend.counts import RealGraph
from columba.frontend.guards import Guards
from columba.frontend.record import Record, RowCount
from columba.frontend.snapshot import snapshot
from columba.frontend.sources import Argument, Prepared, walk
from columba.frontend.symbolic import BuiltGraph
from columba.frontend.traced import Part, Trace
from columba.frontend.trees import mapped
from columba.ir.spaces import Space
from columba.runtime import opaque
from columba.runtime.graphs.from_tensors import as_graph, hypergraph
from columba.runtime.graphs.graph import Graph
from columba.runtime.graphs.tokens import graph_of

SIZES = {
    Space.NODE: "num_src", Space.SRC: "num_src", Space.DST: "num_dst", Space.EDGE: "num_edges", Space.REL: "num_relations",
    Space.NTYPE: "num_node_types", Space.GRAPH: "num_graphs",
}  # fmt: skip
"""The attribute of a graph that has the rows of a space."""


class NotFlat(Exception):
    """Why a specialization cannot be called by an operator."""


@dataclass(frozen=True)
class Token:
    """A graph that is passed by its token."""

    position: int

    def graph(self, tensors: Sequence[Tensor], sizes: Sequence[int]) -> Graph:
        found: Graph = graph_of(tensors[self.position])
        return found


@dataclass(frozen=True)
class Made:
    """A graph that is made of tensors, as :func:`columba.as_graph` does.

    Attributes:
        tensors: ``edge_index``, ``edge_type``, ``node_type``, ``batch``: positions, None, or a pair of them.
        options: sizes: numbers, or, as ``("size", n)``, a number that is passed; and the names of ends, where edges have more than two.
    """

    tensors: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...]

    def graph(self, tensors: Sequence[Tensor], sizes: Sequence[int]) -> Graph:
        given, options = mapped(lambda n: None if n is None else tensors[n], self.tensors), dict(self.sized(sizes))
        return (hypergraph if "ends" in options else as_graph)(*given, **options)

    def sized(self, sizes: Sequence[int]) -> list[tuple[str, Any]]:
        def number(x: Any) -> Any:
            if isinstance(x, tuple) and x[:1] == ("size",):
                return sizes[x[1]]
            return tuple(map(number, x)) if isinstance(x, tuple) else x

        return [(name, number(x)) for name, x in self.options]


GraphMaker = Token | Made


class FlatCall:
    """A specialization, to be called with tensors in a row.

    Args:
        specialization: what runs.
        tensors: the positions of what the trace reads, in its order.
        graphs: how each of its graphs is found, in their order; None: it makes it itself, of tensors that it reads.
        device: of the graphs.
        training: whether gradients are wanted.

    Attributes:
        results: what is returned in the list: records.
        needed: the numbers of rows that the shapes of the results depend on, and that no tensor says: ``(graph, space)``.
    """

    def __init__(
        self,
        specialization: Specialization,
        tensors: Sequence[int],
        graphs: Sequence[GraphMaker | None],
        device: torch.device,
        training: bool,
    ) -> None:
        trace = specialization.trace
        if trace.phases:
            raise NotFlat("hooks of inner modules observe its values; they can be seen outside of torch.compile only")
        self.original, self.positions, self.makers, self.device = trace, tuple(tensors), tuple(graphs), device
        self.number = next(_numbers)
        returned = dict.fromkeys(x for x in _leaves(trace.output) if isinstance(x, Record))
        if trace.read:
            raise NotFlat("Python asks for values of its tensors, on which it depends")
        sources = {record for record, _ in trace.tensors}
        self.results = [r for r in returned if r not in sources]
        self.results += [value for _, value in trace.writes if value not in returned and value not in sources]
        self.rows = rows_of_trace(trace)
        self.dimensions: dict[tuple[int, Space], int] = {}
        for (record, _), position in zip(trace.given, self.positions, strict=True):
            if (found := self.rows.get(record)) is not None and found[1] is not Space.ONE:
                self.dimensions.setdefault(found, position)
        self.needed: list[tuple[int, Space]] = []
        self.offset, self.on = 0, 0
        self.is_random = any(r is None for part in trace.parts for r, _ in part.converted.inputs)
        self.specialization = self._flat(specialization, training)

    def _flat(self, specialization: Specialization, training: bool) -> Specialization:
        trace = self.original
        where = {id(r): n for n, (r, _) in enumerate(trace.given)}
        by_source = {guard.source: n for n, (_, guard) in enumerate(trace.given)}
        count = len(trace.given)
        preparations: dict[Any, Any] = {}

        def position(source: Any) -> Any:
            if source is None or isinstance(source, tuple):
                return None if source is None else tuple(map(position, source))
            if isinstance(source, Prepared):
                known = source.preparation
                if known not in preparations:
                    preparations[known] = known.moved(position)
                return Prepared(preparations[known], source.step)
            if source not in by_source:
                raise NotFlat(f"its graph is made of {source}, which it does not read otherwise")
            return _argument(by_source[source])

        guards = tuple(
            (r, replace(guard, source=_argument(where[id(r)]) if id(r) in where else position(guard.source)))
            for r, guard in trace.tensors
        )
        made: list[Any] = []
        for n, sources in enumerate(trace.graphs):
            source = sources[0]
            if self.makers[n] is None:
                assert isinstance(source, BuiltGraph)
                made.append(replace(source, tensors=position(source.tensors)))
            else:
                made.append(_argument(count + n))
        example = (*(torch.empty(0) for _ in range(count)), *(A_GRAPH for _ in self.makers))
        flat_guards = Guards(
            snapshot((example, {}), by_value=True), (training, (), torch.get_default_dtype()), (), (), (), ()
        )
        found = tuple((g,) for g in made)
        flat = replace(trace, guards=flat_guards, tensors=guards, output=self.results, writes=(), graphs=found)
        made_of_it = Specialization(flat, specialization.options)
        made_of_it.kernels = specialization.kernels
        return made_of_it

    # -------------------------------------------------------------------------------------------- real tensors

    def run(self, tensors: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        graphs = [A_GRAPH if m is None else m.graph(tensors, sizes) for m in self.makers]
        args = (*(tensors[n] for n in self.positions), *graphs)
        shortcut = self.specialization.shortcut
        if shortcut is not None:
            result = shortcut(None, args, {})
            if result is not MISSED:
                return result  # type: ignore[no-any-return]
        trace = self.specialization.trace
        bound = trace.match(args, {})
        if bound is None:
            raise RuntimeError(
                f"columba: what was compiled into a larger program does not fit this call: {trace.difference(args, {})}. Call "
                "torch.compiler.reset(), or torch.export.export again, after such a change"
            )
        results: list[Tensor] = self.specialization(bound, None)
        return results

    # -------------------------------------------------------------------------------------------- shapes

    def fake(self, tensors: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        def count(graph: int, space: Space) -> int:
            if space is Space.ONE:
                return 1
            position = self.dimensions.get((graph, space))
            if position is not None:
                return tensors[position].shape[0]
            if (built := self._rows_of_built(graph, space, values)) is not None:
                return built
            if (graph, space) not in self.needed:
                raise NotFlat(f"the number of rows of space {space} is not known")
            return sizes[self.offset + self.needed.index((graph, space))]

        values = self._values(tensors)
        interpret(self.original, values, count, lambda part, inputs: self._empty(part, count))
        return [_dense(values[r]) for r in self.results]

    def _values(self, tensors: Sequence[Tensor]) -> dict[Record, Any]:
        """Of what the trace reads. What is prepared stands for itself with the sizes that it had: none of a result follows from them."""
        found = {r: tensors[n] for (r, _), n in zip(self.original.given, self.positions, strict=True)}
        for record, guard in self.original.tensors:
            if isinstance(guard.source, Prepared):
                found[record] = torch.empty(record.meta.shape, dtype=record.meta.dtype, device=self.device)
        return found

    def find_needed(self, tensors: Sequence[Tensor], sizes: Callable[[int, Space], int]) -> None:
        """Finds out which numbers of rows the shapes depend on, for tensors of any sizes."""

        def count(graph: int, space: Space) -> int:
            if space is Space.ONE:
                return 1
            position = self.dimensions.get((graph, space))
            if position is not None:
                return int(tensors[position].shape[0])
            if (built := self._rows_of_built(graph, space, values)) is not None:
                return int(built)
            if (graph, space) not in self.needed:
                self.needed.append((graph, space))
            return sizes(graph, space)

        values = self._values(tensors)
        interpret(self.original, values, count, lambda part, inputs: self._empty(part, count))

    def _rows_of_built(self, graph: int, space: Space, values: dict[Record, Any]) -> Any:
        """The rows of a graph that the trace makes of what it reads; None where those do not say it."""

        def now(n: Any) -> Any:
            if not isinstance(n, RowCount):
                return n
            return values[n.of].shape[0] if isinstance(n.of, Record) and n.of in values else None

        sizes = built_sizes(self.original, graph, now)
        return None if sizes is None else sizes.rows(space)

    def _empty(self, part: Part, count: Callable[[int, Space], int]) -> list[Tensor]:
        found = []
        for record in part.converted.results:
            space = part.spaces.of.get(record, Space.ONE)
            meta = record.meta
            shape = tuple(meta.shape) if space is Space.ONE else (count(part.graph, space), *meta.shape[1:])
            found.append(torch.empty(shape, dtype=meta.dtype, device=self.device))
        return found


_numbers = itertools.count()
A_GRAPH = Graph(torch.zeros(2, 0, dtype=torch.int64), num_nodes=1)
"""Stands where a graph is not looked at."""


def interpret(
    trace: Trace,
    values: dict[Record, Any],
    count: Callable[[int, Space], int],
    run: Callable[[Part, list[Any]], Sequence[Any]],
) -> None:
    """Computes all values of a trace from those that it reads, for tensors of any kind.

    Args:
        trace: what is computed.
        values: of the records that it reads; the others are added.
        count: the rows of a space of a graph.
        run: the results of a program, for its inputs; None stands for a seed.
    """
    rows = rows_of_trace(trace)

    def rows_of(of: Any) -> Any:
        if isinstance(of, tuple):
            return rows_of(of[0]) * of[0].meta.shape[1:].numel()
        if isinstance(of, Record):
            if of in values:
                return values[of].shape[0]
            found = rows.get(of)
            return of.meta.shape[0] if found is None or found[1] is Space.ONE else count(*found)
        return count(of.graph, of.space)

    def actual(x: Any) -> Any:
        if isinstance(x, Record):
            return values[x]
        if isinstance(x, slice):
            return slice(actual(x.start), actual(x.stop), actual(x.step))
        if isinstance(x, RealGraph):
            sizes = built_sizes(trace, x.number, actual)
            if sizes is None or sizes.node_slices is None:
                raise NotFlat("tables are taken apart by the node types of a graph that is passed in")
            return sizes
        return rows_of(x.of) if isinstance(x, RowCount) else x

    def compute(records: Sequence[Record]) -> None:
        for record in records:
            args, kwargs = mapped(actual, (record.args, record.kwargs))
            assert record.function is not None
            values[record] = record.function(*args, **kwargs)

    with trace.plain_torch():
        for step in trace.steps:
            if isinstance(step, Record):
                compute((step,))
                continue
            compute(step.converted.prelude)
            inputs = [None if r is None else values[r] for r, _ in step.converted.inputs]
            values.update(zip(step.converted.results, run(step, inputs), strict=True))
            compute(step.converted.postlude)


def register(call: FlatCall, name: str) -> str:
    """The key under which an operator calls it: the same in another process that has compiled the same in the same order."""
    key = f"{name}#{call.number}-{_digest(call)}"
    opaque.register(key, call)
    return key


def _digest(call: FlatCall) -> str:
    trace = call.original
    parts = opaque.schemas()
    parts += [str(part.converted.program) for part in trace.parts]
    parts += [str([(guard.dtype, guard.shape) for _, guard in trace.tensors]), str(call.makers), str(call.needed)]
    parts += [f"{r}{tuple(r.meta.shape)}{r.meta.dtype}" for r in call.results]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _argument(n: int) -> Argument:
    return Argument((0, n), f"argument {n}")


def _dense(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _leaves(tree: Any) -> list[Any]:
    found: list[Any] = []
    walk(tree, (), lambda x, path: found.append(x))
    return found


def rows_of_trace(trace: Trace) -> dict[Record, tuple[int, Space]]:
    """The graph, by its number, and the space, of what has a row for each row of a space."""
    return {r: (rows.graph, rows.space) for r, rows in trace.rows.items()}
