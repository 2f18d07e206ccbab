"""Traced functions: what runs of a call, and whether a call is one that the trace holds for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from columba.frontend import hooks
from columba.frontend.batch_norm import store
from columba.frontend.counts import Extent, RealGraph, RowCount, Rows, Scalar
from columba.frontend.errors import TraceError
from columba.frontend.guards import Guards, Read, TensorGuard, found
from columba.frontend.infer import Spaces, keeps_rows, row_carriers
from columba.frontend.layers import TracedLayer
from columba.frontend.preparation import Preparation, is_as_seen
from columba.frontend.record import Record, meta_tensor
from columba.frontend.row_counts import rows_of_result
from columba.frontend.snapshot import MISSING
from columba.frontend.sources import NOT_THERE, Arguments, Prepared, Seed, Source, walk
from columba.frontend.symbolic import BuiltGraph, GraphSource
from columba.frontend.translate import Translated
from columba.frontend.trees import mapped
from columba.ir.program.program import Program
from columba.ir.spaces import Space
from columba.runtime import autocast
from columba.runtime.graphs.from_tensors import as_graph
from columba.runtime.graphs.graph import Graph
from columba.runtime.modes import random_states, restore_random_states


@dataclass(eq=False)
class Part:
    """What is compiled as one program, over one graph.

    Attributes:
        converted: the program, and what PyTorch computes for it, and of its results.
        spaces: of the values that it computes, and that it is given.
        graph: the graph's number.
        given: what was computed before, and is not computed again.
    """

    converted: Translated
    spaces: Spaces
    graph: int
    given: frozenset[Record] = frozenset()

    @property
    def program(self) -> Program:
        return self.converted.program

    @property
    def computed(self) -> frozenset[Record]:
        """What the program computes."""
        return self.converted.inner.union(self.converted.results)


Step = Part | Record
"""A part, or what PyTorch computes between parts."""


@dataclass
class Bound:
    """One call: its graphs, by their numbers; the values known so far; and the inputs of the first part."""

    graphs: tuple[Graph, ...]
    values: dict[Record, Any]
    call: Arguments
    fetched: list[tuple[Tensor, int]] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    first: int = 0

    @property
    def graph(self) -> Graph:
        """That of the first part."""
        return self.graphs[self.first]


@dataclass
class Trace:
    """A traced function.

    Attributes:
        steps: what runs, in order: programs, and what PyTorch computes between them.
        graphs: where each graph is found, which may be several places, by its number.
        square: whether it is square.
        node_types: the names of a graph's node types, where tensors are taken apart by them; its number stands before.
        layer_sizes: what layers say of the sizes and names of a graph, likewise.
        fixed: numbers of rows that the trace depends on.
        rows: what has a row for each row of a space, and of which graph.
        several_rows: plain tensors that must have more than one row.
        writes: buffers, and what is stored there once a call has succeeded; ``several`` must have more than one row.
        phases: the hooks that run after all.
        device: the kind of device that autocast was looked up for, where it is active for any: its casts are part of the trace.
        breaks: what the language lacks, and PyTorch therefore runs, with the reasons.
        positive: numbers of rows that must not be 0.
        same: those that must be equal; ``less`` those of which the first must be the smaller one.
        read: what Python asked for of the structure, and got.
        layers: which modules it is made of, and which programs compute them.
        rewritten: the guards of attributes that the traced call has set to something else than they held.
    """

    steps: tuple[Step, ...]
    guards: Guards
    tensors: tuple[tuple[Record, TensorGuard], ...]
    graphs: tuple[tuple[GraphSource, ...], ...]
    square: tuple[bool, ...]
    node_types: tuple[tuple[int, tuple[Any, ...]], ...]
    layer_sizes: tuple[tuple[int, dict[str, Any]], ...]
    fixed: dict[Any, int]
    rows: dict[Record, Rows]
    output: Any
    device: str | None = None
    phases: tuple[hooks.Phase, ...] = ()
    writes: tuple[tuple[Record, Record], ...] = ()
    several: tuple[Record, ...] = ()
    several_rows: frozenset[Record] = frozenset()
    breaks: tuple[tuple[Record, str], ...] = ()
    positive: frozenset[Any] = frozenset()
    same: tuple[tuple[Any, Any], ...] = ()
    less: tuple[tuple[Any, Any], ...] = ()
    read: tuple[tuple[Source, Any], ...] = ()
    layers: tuple[TracedLayer, ...] = ()
    rewritten: tuple[Read, ...] = ()

    def __post_init__(self) -> None:
        self.parts = tuple(step for step in self.steps if isinstance(step, Part))
        self.given = tuple((r, guard) for r, guard in self.tensors if not isinstance(guard.source, Prepared))
        """Of what it reads, that which follows from nothing else."""
        self.inner = frozenset().union(*(part.converted.inner for part in self.parts))
        self._computes = any(part.converted.prelude for part in self.parts[:1]) or isinstance(self.steps[0], Record)

    @property
    def program(self) -> Program:
        """The only program."""
        (part,) = self.parts
        return part.program

    @property
    def replayed(self) -> list[Record]:
        """All that PyTorch computes."""
        return replayed(self.steps)

    # -------------------------------------------------------------------------------------------- calls

    def match(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bound | None:
        """The call bound to the first program's inputs; None if the trace does not hold for it.

        Raises:
            ValueError: something that PyTorch computed for this call does not have a row per row of its space.
        """
        return None if next(self.guards.mismatches((args, kwargs)), None) is not None else self.bind(args, kwargs)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bound | None:
        """The same for a call that the guards hold for."""
        call = args, kwargs
        values: dict[Record, Any] = {}
        fetched: list[tuple[Tensor, int]] = []
        prepared: dict[Preparation, tuple[Any, ...]] = {}
        for record, guard in self.tensors:
            tensor = fetched_once(guard.source, call, prepared)
            if self.phases and isinstance(tensor, Tensor):
                fetched.append((tensor, hooks.version(tensor)))
            if guard.mismatch(tensor) is not None:
                return None
            if record in self.several_rows and tensor.shape[0] == 1:  # which could stand for as many as there are
                return None
            values[record] = tensor
        if not all(is_as_seen(fetched_once(source, call, prepared), value) for source, value in self.read):
            return None
        graphs = self._graphs(call, values, prepared)
        if graphs is None or not self._counts_hold(graphs, values):
            return None
        bound = Bound(graphs, values, call, fetched, first=self.parts[0].graph)
        before = random_states() if self._computes else None
        for step in self.steps:
            if isinstance(step, Record):
                self.compute((step,), bound)
                continue
            inputs = self.inputs(step, bound)
            if inputs is None:
                if before is not None:  # the trace that holds will draw what this one's functions have drawn
                    restore_random_states(before)
                return None
            bound.inputs = inputs
            break
        return bound

    def runs(self, bound: Bound) -> Iterator[tuple[int, Part, list[Tensor]]]:
        """The parts of a call, numbered, each with its inputs; what one gives goes to :meth:`finish` before the next is asked for."""
        number, is_bound = 0, False
        for step in self.steps:
            if isinstance(step, Part):
                inputs = self.inputs(step, bound) if is_bound else bound.inputs
                if inputs is None:
                    raise TraceError(self._other_features(step, bound))
                yield number, step, inputs
                number, is_bound = number + 1, True
            elif is_bound:
                self.compute((step,), bound)

    def difference(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Why the trace does not hold for a call, in words."""
        call = args, kwargs
        for reason in self.guards.mismatches(call):
            return reason
        for _, guard in self.tensors:
            if (mismatch := guard.mismatch(found(guard.source, call))) is not None:
                return mismatch
        return "the graph is of another kind, on another device, or has other sizes where the function asked for them"

    def plain_torch(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which PyTorch casts nothing: what autocast casts is part of the trace."""
        return contextlib.nullcontext() if self.device is None else autocast.disabled()

    def _graphs(
        self, call: Arguments, values: dict[Record, Any], prepared: dict[Preparation, tuple[Any, ...]]
    ) -> tuple[Graph, ...] | None:
        graphs: list[Graph] = []
        for sources, is_square in zip(self.graphs, self.square, strict=True):
            only: Graph | None = None
            for source in sources:
                graph = (
                    self._built(source, call, values, prepared, graphs)
                    if isinstance(source, BuiltGraph)
                    else found(source, call)
                )
                if not isinstance(graph, Graph) or graph.is_square != is_square:
                    return None
                if only is not None and graph is not only:
                    return None
                only = graph
            if only is None or self.device not in (None, only.device.type):
                return None
            graphs.append(only)
        for number, names in self.node_types:
            if tuple(graphs[number].node_slices or ()) != names:
                return None
        for number, sizes in self.layer_sizes:
            as_graph(graphs[number], **sizes)
        return tuple(graphs)

    def _built(
        self,
        source: BuiltGraph,
        call: Arguments,
        values: dict[Record, Any],
        prepared: dict[Preparation, tuple[Any, ...]],
        graphs: Sequence[Graph],
    ) -> Graph | None:
        def fetch(s: Any) -> Any:
            return None if s is None else tuple(map(fetch, s)) if isinstance(s, tuple) else of_call(s, call, prepared)

        sizes = {name: mapped(lambda n: self.count(n, graphs, values), size) for name, size in source.sizes}
        try:
            return source.make(*(fetch(s) for s in source.tensors), **sizes)
        except ValueError:
            if source.is_implied:  # a trace of this call says what is wrong
                return None
            raise

    def count(self, count: Any, graphs: Sequence[Graph], values: dict[Record, Any]) -> Any:
        """A number of rows, a slice up to one, or a graph, as it is in this call; anything else as it is."""
        if isinstance(count, RealGraph):
            return graphs[count.number]
        if isinstance(count, slice):
            return slice(*(self.count(n, graphs, values) for n in (count.start, count.stop, count.step)))
        return self._rows(count.of, graphs, values) if isinstance(count, RowCount) else count

    def _rows(self, of: Any, graphs: Sequence[Graph], values: dict[Record, Any]) -> int:
        if isinstance(of, int):
            return of
        if isinstance(of, Scalar):
            return int(values[of.record])
        if isinstance(of, Extent):
            return int(values[of.record].shape[of.dim])
        if isinstance(of, tuple):
            record: Record = of[0]
            if record in values:
                return int(values[record].numel())
            return self._rows(record, graphs, values) * record.meta.shape[1:].numel()
        if isinstance(of, Record):
            if of in values:
                return int(values[of].shape[0])
            rows = self.rows.get(of)
            if rows is None or rows.space is Space.ONE or rows.graph >= len(graphs):
                return self._rows_of_operands(of, graphs, values)
            of = rows
        assert isinstance(of, Rows)
        return graphs[of.graph].count(of.space)

    def _rows_of_operands(self, record: Record, graphs: Sequence[Graph], values: dict[Record, Any]) -> int:
        """How many rows PyTorch will give a record that it has yet to compute."""

        def rows(x: Record) -> int:
            return self._rows(x, graphs, values)

        carriers = row_carriers(record)
        if record.op in ("cat", "concat", "concatenate") and len(carriers) == len(record.operands):
            return sum(map(rows, carriers))
        if record.op == "__getitem__" and carriers:
            if len(carriers) > 1:
                return rows(carriers[1])
            index = record.args[1][0] if isinstance(record.args[1], tuple) else record.args[1]
            taken = self.count(index, graphs, values) if isinstance(index, slice) else slice(None)
            return len(range(*taken.indices(rows(carriers[0]))))
        if record.op in ("nodes_of_type", "cat_nodes") and graphs:
            graph: Graph = graphs[record.args[0].number]
            part = (graph.node_slices or {}).get(record.args[-1]) if record.op == "nodes_of_type" else None
            return graph.num_nodes if part is None else part.stop - part.start
        if record.op == "index_select" and carriers:
            return rows(carriers[-1])
        cut = record.operands[0] if record.op == "part" else record
        takes_some = cut.op in ("chunk", "narrow", "split") and not keeps_rows(cut)
        if carriers and record.meta.shape[0] == carriers[0].meta.shape[0] and not takes_some:
            return rows(carriers[0])

        def known(x: Record) -> Tensor | None:
            if x in values:
                return meta_tensor(values[x].shape, values[x].dtype)
            of = self.rows.get(x)
            if of is None or of.space is Space.ONE or of.graph >= len(graphs) or not x.meta.dim():
                return None
            return meta_tensor((graphs[of.graph].count(of.space), *x.meta.shape[1:]), x.meta.dtype)

        return rows_of_result(record, known, lambda n: self.count(n, graphs, values))

    def _counts_hold(self, graphs: Sequence[Graph], values: dict[Record, Any]) -> bool:
        fixed = all(self._rows(of, graphs, values) == n for of, n in self.fixed.items())
        if not fixed or any(self._rows(of, graphs, values) == 1 for of in self.several):
            return False
        if not all(self._rows(of, graphs, values) > 0 for of in self.positive):
            return False
        if any(self._rows(a, graphs, values) != self._rows(b, graphs, values) for a, b in self.same):
            return False
        if any(self._rows(a, graphs, values) >= self._rows(b, graphs, values) for a, b in self.less):
            return False
        return all(
            values[record].shape[0] == graphs[part.graph].count(space)
            for part in self.parts
            for record, space in part.converted.inputs
            if record is not None and record.source is not None and space is not Space.ONE
        )

    def compute(self, records: Sequence[Record], bound: Bound) -> None:
        """Has PyTorch compute some records."""
        if not records:
            return
        values = bound.values

        def actual(x: Any) -> Any:
            return values[x] if isinstance(x, Record) else self.count(x, bound.graphs, values)

        with self.plain_torch():
            for record in records:
                args, kwargs = mapped(actual, (record.args, record.kwargs))
                assert record.function is not None
                values[record] = value = record.function(*args, **kwargs)
                if record.op == "declare" and record.graph is not None:
                    graph, space = bound.graphs[record.graph], record.kwargs["space"]
                    if value.shape[0] != graph.count(space):
                        raise wrong_rows(record.operands[0], value.shape, space, graph)

    def inputs(self, part: Part, bound: Bound) -> list[Tensor] | None:
        """The inputs of a part's program, for which PyTorch computes what it must; None where their features are not those of the trace."""
        self.compute(part.converted.prelude, bound)
        graph = bound.graphs[part.graph]
        device = graph.device
        inputs: list[Any] = []
        for (record, space), wanted in zip(part.converted.inputs, part.program.inputs, strict=True):
            if record is None:
                inputs.append(None)
                continue
            tensor = bound.values[record]
            shape = tensor.shape
            if space is Space.ONE:
                if shape != wanted.shape:
                    return None
            elif shape[1:] != wanted.shape or not shape:
                return None
            elif shape[0] != graph.count(space):
                raise wrong_rows(record, shape, space, graph)
            if tensor.device != device:
                raise ValueError(
                    f"{record} is on {tensor.device}, the graph on {device}; move one of them: graph.to({str(tensor.device)!r})"
                )
            inputs.append(tensor)
        # A call that does not match draws no seeds.
        return [Seed().fetch(((), {}), graph.device) if x is None else x for x in inputs]

    def _other_features(self, part: Part, bound: Bound) -> str:
        for (record, space), wanted in zip(part.converted.inputs, part.program.inputs, strict=True):
            if record is not None and tuple(bound.values[record].shape[space is not Space.ONE :]) != wanted.shape:
                shape = list(bound.values[record].shape)
                return (
                    f"{record.where}: {record} has shape {shape} in this call, and had features of shape {list(wanted.shape)} when the "
                    "function was traced; pass what its features depend on as an argument whose shape says it"
                )
        return "the inputs of a program have other features than when the function was traced"

    def finish(self, part: Part, bound: Bound, results: Sequence[Tensor]) -> None:
        """Takes a part's results, and has PyTorch compute what follows from them alone."""
        bound.values.update(zip(part.converted.results, results, strict=True))
        self.compute(part.converted.postlude, bound)

    def rebuild(self, bound: Bound) -> Any:
        """What the function returns, once all steps are done."""
        values = bound.values
        if self.phases:
            hooks.run(
                self.phases,
                values,
                lambda n: self.count(n, bound.graphs, values),
                self.inner,
            )
            self.check_unchanged(bound)
        if self.writes:
            store(self.writes, values)

        def leaf(x: Any, path: Any) -> Any:
            return values[x] if isinstance(x, Record) else self.count(x, bound.graphs, values)

        return walk(self.output, (), leaf)

    def check_unchanged(self, bound: Bound, has_stored: bool = False) -> None:
        """TraceError if hooks have changed what the trace reads, for which they come too late.

        Args:
            bound: the call.
            has_stored: whether the call has stored its buffers, which are then no others for that.
        """
        stored = {target for target, _ in self.writes} if has_stored else set()
        reason = next(self.guards.mismatches(bound.call, but=hooks.HookGuard), None)
        if reason is None:
            for (record, guard), (tensor, version) in zip(self.tensors, bound.fetched, strict=True):
                is_as_it_was = record in stored or hooks.version(tensor) == version
                if found(guard.source, bound.call) is not tensor or not is_as_it_was:
                    reason = f"{guard.source} has changed"
        if reason is not None:
            names = {hooks.name_of(one.hook.value): None for phase in self.phases for one in phase.hooks}
            raise TraceError(
                f"a hook of a module that is called inside a compiled function ({', '.join(names)}) changes what the function reads, and "
                f"it runs only after the program has: {reason}. Return what it computes, or compute it in forward, or in a hook of the "
                "compiled module itself"
            )


def of_call(source: Any, call: Arguments, prepared: dict[Preparation, tuple[Any, ...]]) -> Any:
    """What a source gives for a call, of which each preparation runs once."""
    if not isinstance(source, Prepared):
        return source.fetch(call)
    if source.preparation not in prepared:
        prepared[source.preparation] = source.preparation.fetch(call)
    return prepared[source.preparation][source.step]


def fetched_once(source: Any, call: Arguments, prepared: dict[Preparation, tuple[Any, ...]]) -> Any:
    """As :func:`of_call`; MISSING where the way to a value has changed."""
    if not isinstance(source, Prepared):
        return found(source, call)
    try:
        return of_call(source, call, prepared)
    except NOT_THERE:  # a trace of this call says what is wrong
        return MISSING


def replayed(steps: Sequence[Step]) -> list[Record]:
    """What PyTorch computes, in order."""
    found: list[Record] = []
    for step in steps:
        found += [step] if isinstance(step, Record) else [*step.converted.prelude, *step.converted.postlude]
    return found


_DECLARED = {
    Space.REL: "relations (num_relations)", Space.NTYPE: "node types (num_node_types)", Space.NODE: "nodes", Space.EDGE: "edges",
    Space.SRC: "source nodes", Space.DST: "destination nodes", Space.GRAPH: "graphs (num_graphs)",
}  # fmt: skip


def wrong_rows(record: Record, shape: Sequence[int], space: Space, graph: Graph, why: str = "") -> ValueError:
    """The error for a tensor that does not have one row per row of a space."""
    kind = _DECLARED.get(space, f"rows of {space}")
    why = f" ({why})" if why else ""
    return ValueError(
        f"{record.where}: {record} has shape {list(shape)}, but is used with one row per row of space {space}{why}, and the graph has "
        f"{graph.count(space)} {kind}"
    )
