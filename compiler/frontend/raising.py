"""Raising of indices: rows that are chosen and summed by integer tensors move along a graph that those tensors are.

``x.index_select(0, edge_index[0])`` gives each edge the row of its source, ``out.scatter_add_(0, edge_index[1], message)`` sums the rows of
each destination's edges: a lift and a reduction, without the words of the language. What a traced function does so is found once it
has run. Integers that choose rows of the same *edges* (two rows of one ``edge_index``, or what meets row by row) make one graph: what is
summed by is a destination, ``edge_index[0]`` a source, and a choice among rows of parameters a relation. Integers of the nodes of such a
graph that are the same at both ends of each edge say which graph of a batch each node is of. What does not fit stays PyTorch's.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Container, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from columba.frontend.copies import pointers_of, unchanged
from columba.frontend.counts import Extent, RowCount, Scalar
from columba.frontend.moves import Gather, Move, Scatter, find_moves
from columba.frontend.record import Recorder
from columba.frontend.recorded import Record
from columba.frontend.row_classes import RowClasses, RowOf, row_of
from columba.frontend.row_counts import origin_of_count, same_rows
from columba.frontend.sources import Attribute, Registered
from columba.frontend.structure import Call
from columba.frontend.symbolic import BuiltGraph, TracedGraph
from columba.frontend.trees import mapped
from columba.ir.spaces import FURTHER_ENDS, IndexMap, Space, index_map
from columba.runtime.graphs.from_tensors import as_graph, hypergraph


@dataclass(eq=False)
class _Plan:
    """A graph in the making.

    Attributes:
        src, dst, relation: the integers that are its ends and its relation.
        further: those that are further ends, by the names of their maps.
        by_index: what is moved by them.
        is_graph: whether anything is gained by it, were it no batch of another one.
        batch: the integers that are the graph of each of its nodes.
        of_graphs: what is moved by those after what moves along the graph, in one program with it.
    """

    src: RowOf
    dst: RowOf
    relation: RowOf | None
    further: dict[str, RowOf]
    by_index: dict[RowOf, list[Move]]
    is_graph: bool
    batch: RowOf | None = None
    of_graphs: list[Move] = field(default_factory=list)

    @property
    def ends(self) -> dict[str, RowOf]:
        """All ends by the names of their maps."""
        return {"src": self.src, "dst": self.dst, **self.further}

    def last_before(self, move: Move) -> int:
        """The number of the last move along the graph before one; negative where all come after it."""
        numbers = [one.record.number for some in self.by_index.values() for one in some]
        return max((n for n in numbers if n < move.record.number), default=-min(numbers) - 1)


class Raising:
    """Finds the graphs of a trace, and rewrites what moves along them.

    Args:
        recorder: of the function that has run.
        live: what is computed for anything.
    """

    def __init__(self, recorder: Recorder, live: Container[Record]) -> None:
        self.recorder, self.structure, self.live = recorder, recorder.structure, live
        self.classes = RowClasses()
        self.moves = find_moves(recorder.records, self.structure)
        self.made: list[tuple[TracedGraph, tuple[Record | None, ...], dict[str, Any]]] = []
        self._equal: dict[Record, Record] = {}
        self._known: dict[Hashable, Record] = {}
        self._roots: dict[Hashable, Hashable] = {}
        self._unite_rows()

    def canonical(self, record: Record) -> Record:
        """Of records of structure that compute the same, the first."""
        return self._equal.get(record, record)

    def index_of(self, move: Move) -> RowOf:
        record, before = self.canonical(move.index), None
        found = row_of(record)
        while record is not before:  # rows of matrices are made of others, which may be rows of matrices
            before, record = record, self.canonical(found.record)
            found = row_of(record) if found.row is None else RowOf(record, found.row)
        table = move.table if isinstance(move, Gather) else move.record
        return dataclasses.replace(found, rows=table.meta.shape[0])

    def _unite_rows(self) -> None:
        """Finds what has the same rows, and which records of structure are equal: some are once counts are known to be equal."""
        while True:
            for known in (self._equal, self._known, self._roots):
                known.clear()
            self._unite_once()
            if all(self.classes.find(of) == root for of, root in self._roots.items()):
                return

    def _unite_once(self) -> None:
        """Finds what has the same rows, for certain or by having as many in this call and being chosen from by the same integers."""
        unite = self.classes.unite
        by_record = {move.record: move for move in self.moves}
        for a, b in self.recorder.same:
            if not any(isinstance(x, (Scalar, Extent)) for x in (a, b)):
                unite(a, b)
        for record in self.recorder.records:
            if record in self.structure.calls:
                same = unchanged(record) or self._compressed(record)
                key = None if same is not None else self._key(self.structure.calls[record])
                self._equal[record] = self._known.setdefault(key, record) if same is None else self.canonical(same)
            move = by_record.get(record)
            if move is not None:
                index = self.index_of(move)
                unite(index.key, move.record if isinstance(move, Gather) else move.source)
                unite(("nodes", index), move.table if isinstance(move, Gather) else move.record)
                if isinstance(move, Scatter):
                    unite(move.record, self._count_of(move.count))
                continue
            for other in same_rows(record):
                unite(
                    self.canonical(record),
                    self._count_of(other) if isinstance(other, RowCount) else self.canonical(other),
                )
        for a, b in self.recorder.same:
            unite(self.count_key(a), self.count_key(b))

    def _compressed(self, record: Record) -> Record | None:
        """Of integers that are made of pointers to where each row begins, those that the pointers were made of, or others made of these."""
        pointers = pointers_of(record)
        if pointers is None:
            return None
        pointers = self.canonical(pointers)
        made_of = pointers.args[0] if pointers.op == "_convert_indices_from_coo_to_csr" else None
        values = self.structure.values
        if isinstance(made_of, Record) and made_of.meta.dtype is record.meta.dtype:
            # They are the same whenever they are sorted, and those that are not have no pointers.
            same = torch.equal(values[made_of], values[record])
            return made_of if same else None
        return self._known.setdefault(("rows", pointers), record)

    def _key(self, call: Call) -> Hashable:
        """What is equal for calls that compute the same."""

        def key(x: Any) -> Any:
            if isinstance(x, RowCount):
                of = self.count_key(x.of)
                return "count", self._roots.setdefault(of, self.classes.find(of))
            if isinstance(x, Record):
                return self.canonical(x)
            if isinstance(x, (tuple, list)):
                return tuple(map(key, x))
            if isinstance(x, dict):
                return tuple((k, key(v)) for k, v in x.items())
            if isinstance(x, slice):
                return "slice", key(x.start), key(x.stop), key(x.step)
            return type(x), x

        return call.function, key(call.args), key(call.kwargs)

    def _count_of(self, count: Any) -> Hashable:
        return self.count_key(count.of) if isinstance(count, RowCount) else ("number", int(count))

    def count_key(self, of: Any) -> Hashable:
        if isinstance(of, Scalar):
            return Scalar(self.canonical(of.record))
        if isinstance(of, Extent):
            record = self.canonical(of.record)
            return ("edges", record) if of.dim == 1 and record.meta.shape[0] == 2 else Extent(record, of.dim)
        return of  # type: ignore[no-any-return]

    # -------------------------------------------------------------------------------------------- graphs

    def raise_all(self) -> bool:
        """Rewrites what moves along a graph; whether there is any."""
        groups: dict[Hashable, list[Move]] = {}
        for move in self.moves:
            if move.record in self.live:
                groups.setdefault(self.classes.find(self.index_of(move).key), []).append(move)
        plans = [plan for moves in groups.values() if (plan := self._plan(moves)) is not None]
        plans = [plan for plan in plans if not self._joins_batch(plan, plans) and plan.is_graph]
        for plan in plans:
            self._raise(plan)
        if plans:
            raise_softmax(self.recorder.records)
        return bool(plans)

    def _plan(self, moves: Sequence[Move]) -> _Plan | None:
        """The ends and the relation of a graph along which rows move; None if they move along none."""
        by_index: dict[RowOf, list[Move]] = {}
        for move in moves:
            by_index.setdefault(self.index_of(move), []).append(move)
        relations = [key for key, some in by_index.items() if key.row is None and self._chooses_parameters(some)]
        nodes = sorted(
            (key for key in by_index if key not in relations), key=lambda key: _preference(key, by_index[key])
        )
        if not nodes:
            return None
        src, dst = self._roles(nodes)
        is_graph = any(isinstance(move, Scatter) for move in moves) or len(by_index) > 1  # PyTorch chooses rows as well
        further = self._further(src, dst, nodes)
        return _Plan(src, dst, relations[0] if relations else None, further, by_index, is_graph)

    def _further(self, src: RowOf, dst: RowOf, nodes: Sequence[RowOf]) -> dict[str, RowOf]:
        """What other integers are further sources and destinations: those that choose among the same rows as ``src`` or ``dst``."""
        names = {end: [name for name in FURTHER_ENDS if name.startswith(end)] for end in ("src", "dst")}
        found: dict[str, RowOf] = {}
        for key in nodes:
            if key not in (src, dst):
                ends = (end for end, first in (("src", src), ("dst", dst)) if self._same_rows(key, first))
                end = next((end for end in ends if names[end]), None)
                if end is not None:
                    found[names[end].pop(0)] = key
        return found

    def _joins_batch(self, plan: _Plan, plans: Sequence[_Plan]) -> bool:
        """Whether integers are the graph of each node of graphs along which rows move: these are batches of graphs, then."""
        if plan.src != plan.dst or plan.relation is not None:
            return False
        rows = self.classes.find(plan.dst.key)

        def has_batch(other: _Plan) -> bool:
            if other is plan or other.src == other.dst or other.batch not in (None, plan.dst) or not other.is_graph:
                return False
            is_of_nodes = all(self.classes.find(("nodes", end)) == rows for end in other.ends.values())
            return is_of_nodes and self._is_batch(plan.dst, other)

        found = [other for other in plans if has_batch(other)]
        for move in plan.by_index[plan.dst] if found else ():
            last = max(found, key=lambda other: other.last_before(move))
            last.batch = plan.dst
            last.of_graphs.append(move)
        return bool(found)

    def _is_batch(self, index: RowOf, plan: _Plan) -> bool:
        """Whether all ends of each edge of a graph have the same integer."""
        with torch._C.DisableTorchFunction(), torch.no_grad():
            of_node = self._value(index)
            first, *others = (of_node.index_select(0, self._value(end)) for end in plan.ends.values())
            return all(torch.equal(first, other) for other in others)

    def _value(self, key: RowOf) -> torch.Tensor:
        value: torch.Tensor = self.structure.values[key.record]
        return value if key.row is None else value[key.row]

    def _raise(self, plan: _Plan) -> None:
        graph = self._graph(plan)
        names = {key: name for name, key in plan.ends.items()}  # where an end is both, dst
        for key, some in plan.by_index.items():
            name = "rel" if key == plan.relation else names.get(key)
            if name is not None:
                for move in some:
                    _rewrite(move, graph, index_map(name, Space.EDGE, square=graph.is_square))
        for move in plan.of_graphs:
            _rewrite(move, graph, index_map("graph", Space.NODE))

    def _chooses_parameters(self, moves: Sequence[Move]) -> bool:
        """Whether rows are chosen among those of what the model has learnt alone."""
        return all(isinstance(move, Gather) and self._is_learnt(move.table) for move in moves)

    def _is_learnt(self, record: Record) -> bool:
        if record.source is not None:
            return isinstance(record.source, (Attribute, Registered))
        return bool(record.operands) and all(self._is_learnt(o) for o in record.operands)

    def _roles(self, nodes: Sequence[RowOf]) -> tuple[RowOf, RowOf]:
        """Which integers are sources and which destinations."""
        first = nodes[0]  # what rows are put together by comes first
        second = next((key for key in nodes if (key.record, key.row) != (first.record, first.row)), None)
        if second is None:
            return first, first
        if first.record is second.record and None not in (first.row, second.row):
            return (first, second) if first.row == 0 else (second, first)
        if (first.row, second.row) == (0, 1):
            return first, second
        return second, first

    def _graph(self, plan: _Plan) -> TracedGraph:
        """The graph of this call, and how those of others are made."""
        src, dst, relation, by_index = plan.src, plan.dst, plan.relation, plan.by_index
        for key in dict.fromkeys((*plan.ends.values(), relation)):
            self._depend_on_equality(by_index[key] if key is not None else ())
        self._depend_on_equality(plan.of_graphs)
        counts = {key: self._count(key, by_index[key]) for key in (src, dst)}
        square = src == dst or self._same_rows(src, dst)
        sizes: dict[str, Any] = {"num_nodes": counts[dst] if square else (counts[src], counts[dst])}
        if relation is not None:
            sizes["num_relations"] = self._count(relation, by_index[relation])
        if plan.further:
            sizes["ends"] = tuple(plan.ends)
        matrix = self._matrix(*plan.ends.values())
        types = None if relation is None else self._vector(relation)
        batch = None
        if plan.batch is not None:
            sizes["num_graphs"] = self._count(plan.batch, plan.of_graphs)
            batch = self._vector(plan.batch)
        tensors = (matrix, types, None, batch)
        values = self.structure.values
        plain = mapped(lambda n: int.__int__(n) if isinstance(n, RowCount) else n, sizes)
        with torch._C.DisableTorchFunction():
            given: list[Any] = [None if t is None else values[t] for t in tensors]
            real = (hypergraph if plan.further else as_graph)(*given, **plain)
        found = TracedGraph(real, BuiltGraph((), ()), self.recorder)
        self.made.append((found, tensors, sizes))
        self.recorder.graphs.append(found)
        return found

    def _depend_on_equality(self, moves: Sequence[Move]) -> None:
        """The trace depends on there being one number of rows in what integers choose from and put together."""
        found: dict[Hashable, Any] = {}
        for move in moves:
            table, of = (move.table, move.table) if isinstance(move, Gather) else (move.record, move.count)
            found.setdefault(self._certain.find(table), origin_of_count(of.of if isinstance(of, RowCount) else of))
        first, *others = found.values() if found else (None,)
        for other in others:
            self.recorder.same[first, other] = None

    @functools.cached_property
    def _certain(self) -> RowClasses:
        """What has the same rows in every call."""
        found = RowClasses()
        by_record = {move.record: move for move in self.moves}
        for a, b in self.recorder.same:
            found.unite(a, b)
        for record in self.recorder.records:
            move = by_record.get(record)
            if move is not None:
                found.unite(row_of(move.index).key, move.record if isinstance(move, Gather) else move.source)
                if isinstance(move, Scatter) and isinstance(move.count, RowCount):
                    found.unite(record, move.count.of)
                continue
            for other in same_rows(record):
                found.unite(record, other.of if isinstance(other, RowCount) else other)
        return found

    def _same_rows(self, src: RowOf, dst: RowOf) -> bool:
        return self.classes.find(("nodes", src)) == self.classes.find(("nodes", dst))

    def _count(self, key: RowOf, moves: Sequence[Move]) -> Any:
        """The number of rows of the tables of an index."""
        found = self.passed_in(("nodes", key))
        if found is not None:
            return RowCount(found.meta.shape[0], found, self.recorder)
        root = self.classes.find(("nodes", key))
        for move in self.moves:
            if isinstance(move, Scatter) and self.classes.find(move.record) == root:
                return move.count
        table = next(move.table for move in moves if isinstance(move, Gather))
        return RowCount(table.meta.shape[0], table, self.recorder)

    def passed_in(self, key: Hashable) -> Record | None:
        """What is passed in and has the rows of a class, if anything is."""
        root = self.classes.find(key)
        for record in self.recorder.records:
            if record.source is not None and record.meta.dim() and self.classes.find(record) == root:
                return record
        return None

    def size_of(self, key: Hashable) -> Extent | None:
        """The number of edges, as a size of the integers that they are, where it is that of a class."""
        root = self.classes.find(key)
        for move in self.moves:
            index = self.index_of(move)
            if self.classes.find(index.key) == root:
                return Extent(index.record, 0 if index.row is None else 1)
        return None

    def _matrix(self, src: RowOf, dst: RowOf, *further: RowOf) -> Record:
        if src.record is dst.record and (src.row, dst.row) == (0, 1) and not further:
            return src.record
        rows = tuple(self._vector(end) for end in (src, dst, *further))
        return self.recorder.structural(Call(torch.stack, (rows,), {}), "stack")

    def _vector(self, key: RowOf) -> Record:
        if key.row is None:
            return key.record
        return self.recorder.structural(Call(operator.getitem, (key.record, key.row), {}), "__getitem__")


def _preference(key: RowOf, moves: Sequence[Move]) -> tuple[int, int]:
    return -any(isinstance(move, Scatter) for move in moves), -len(moves)


def _rewrite(move: Move, graph: TracedGraph, via: IndexMap) -> None:
    record = move.record
    operand = move.table if isinstance(move, Gather) else move.source
    record.op = "lift" if isinstance(move, Gather) else "reduce"
    record.args, record.kwargs, record.function, record.graph = (operand,), {"via": via}, None, graph.number
    if isinstance(move, Scatter):
        record.kwargs["kind"] = move.kind
    record.__dict__.pop("operands", None)


# ------------------------------------------------------------------------------------------------ softmax


def raise_softmax(records: Sequence[Record]) -> None:
    """Rewrites a quotient of exponentials and their sums, from which the maximum was taken first, as the softmax that it is."""
    for record in records:
        found = _softmax(record)
        if found is not None:
            operand, via, graph = found
            record.op, record.args, record.kwargs = "segment_softmax", (operand,), {"via": via}
            record.function, record.graph = None, graph
            record.__dict__.pop("operands", None)


def _softmax(record: Record) -> tuple[Record, Any, int] | None:
    exponential, total = _pair(record, "div", "true_divide")
    if exponential is None or exponential.op != "exp":
        return None
    total, least = _along(total), None
    if total is not None and total[0].op == "add" and len(total[0].operands) == 1:
        least = total[0].args[1]
    if total is None or not (least is None or (isinstance(least, float) and 0 <= least <= _NOTHING)):
        return None
    summed = total[0].operands[0] if least is not None else total[0]
    if summed.op != "reduce" or summed.kwargs["kind"] != "sum" or summed.operands[0] is not exponential:
        return None
    x, shift = _pair(exponential.operands[0], "sub", "subtract")
    largest = _along(shift)
    if x is None or largest is None or largest[0].op != "reduce" or largest[0].kwargs["kind"] != "max":
        return None
    of = largest[0].operands[0]
    if of is not x and not (of.op == "detach" and of.operands[0] is x):
        return None
    ways = {(r.kwargs["via"], r.graph) for r in (summed, largest[0])} | {total[1], largest[1]}
    return (x, *ways.pop()) if len(ways) == 1 else None  # type: ignore[return-value]


_NOTHING = 1e-15
"""What may be added to a sum of which one term is 1, so that it is not 0, without a difference in 64 bits that anybody sees."""


def _pair(record: Record | None, *names: str) -> tuple[Record | None, Record | None]:
    if record is None or record.op not in names or len(record.args) != 2 or record.kwargs:
        return None, None
    a, b = record.args
    return (a, b) if isinstance(a, Record) and isinstance(b, Record) else (None, None)


def _along(record: Record | None) -> Any:
    """Of what is lifted: of what, and along which map of which graph."""
    if record is None or record.op != "lift":
        return None
    return record.operands[0], (record.kwargs["via"], record.graph)
