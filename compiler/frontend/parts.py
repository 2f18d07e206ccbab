"""Where a trace is cut: into parts that are compiled, one program over one graph each, and what PyTorch runs between them.

Data moves along one graph at a time, and no kernel walks two. What is traced is therefore a sequence of *parts*, each of which belongs
to one graph: all of it, where a function uses a single graph and nothing that the language lacks. A function over several graphs (sampled
blocks, meta-paths, nodes to hyperedges and back) has a part for each stretch along one of them. What the language lacks, where it may, is
called as it stands, between the part that computes its operands and the one that uses its result.

Operations that act on each row alone stay where their operands are computed, so that kernels that compute these do them as well; of those
that have no such operand (the transformation of a feature that was passed in), it is where they are first used.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

from columba.frontend.record import Record
from columba.ir.spaces import TYPE_SPACES


def chooses_rows(record: Record) -> bool:
    """Whether a record joins or cuts tables of rows, which PyTorch always does, between programs: it moves no data, or copies it once."""
    if record.op == "__getitem__":
        rows = record.args[1][0] if isinstance(record.args[1], tuple) and record.args[1] else record.args[1]
        return isinstance(rows, slice) and not (rows.start is None and rows.stop is None and rows.step is None)
    return record.op in ("cat_nodes", "nodes_of_type")


@dataclass
class Stretch:
    """Consecutive work along one graph, by its number.

    Attributes:
        graph: along which graph.
        records: what is computed, operands first.
        wanted: those of them that are asked for from outside.
        lifts: those that stand in several stretches, since nothing is computed.
    """

    graph: int
    records: list[Record] = field(default_factory=list)
    wanted: list[Record] = field(default_factory=list)
    lifts: set[Record] = field(default_factory=set)


def cut(
    records: Sequence[Record], wanted: Iterable[Record], in_pytorch: Container[Record] = ()
) -> list[Stretch | Record]:
    """The steps of a trace: stretches, and what PyTorch runs between them, in an order in which everything is computed before it is used.

    Args:
        records: all that were written down, operands first.
        wanted: what the function returns, and what else is kept of a call.
        in_pytorch: what is left to PyTorch although it has rows.
    """
    wanted = list(dict.fromkeys(wanted))
    graphs = {r.graph for r in records if r.graph is not None}
    if len(graphs) <= 1 and not any(r in in_pytorch or chooses_rows(r) for r in records):
        return [Stretch(min(graphs, default=0), list(records), wanted)]
    needed = _reached(wanted)
    places = _places([r for r in records if r in needed], wanted, in_pytorch)
    stretches = [Stretch(graph) for graph in places.graphs]
    between = []
    asked = set(wanted)
    for record in places.records:
        slot = places.slot.get(record)
        if slot is None:
            if record.source is None:
                between.append(record)
            continue
        users = places.users.get(record, ())
        if record in places.weights:  # it is computed nowhere, and stands in each part that uses it
            for other in dict.fromkeys(places.slot[user] for user in users):
                stretches[other].records.append(record)
                stretches[other].lifts.add(record)
            continue
        stretches[slot].records.append(record)
        if record in asked or any(places.slot.get(user) != slot for user in users):
            stretches[slot].wanted.append(record)
    steps: list[Stretch | Record] = []
    for slot, stretch in enumerate(stretches):
        ready = [r for r in between if places.least[r] <= slot]
        between = [r for r in between if places.least[r] > slot]
        steps += [*ready, stretch]
    return [*steps, *between]


def _reached(wanted: Iterable[Record]) -> set[Record]:
    """What the wanted values are computed from, and they."""
    found: set[Record] = set()
    stack = list(wanted)
    while stack:
        record = stack.pop()
        if record not in found:
            found.add(record)
            stack += record.operands
    return found


def _places(records: Sequence[Record], wanted: Iterable[Record], in_pytorch: Container[Record]) -> _Places:
    """Where each record is computed."""
    computed: set[Record] = set(wanted)
    while True:
        places = _Places(records, in_pytorch, computed)
        lifts = {r for r in places.weights if not places.stands_with_its_users(r)}
        if not lifts:
            return places
        computed |= lifts


class _Places:
    """In which slot each record is computed; slots follow each other, and have a graph each.

    Attributes:
        graphs: of each slot.
        slot: of each record that has one: PyTorch computes the others.
        least: the first slot in which a record can be used.
        weights: lifts that only say which row of a weight belongs to each row, and that stand in each slot in which one is used.
    """

    def __init__(self, records: Sequence[Record], in_pytorch: Container[Record], computed: Container[Record]) -> None:
        self.records = records
        self.in_pytorch = in_pytorch
        self.graphs: list[int] = []
        self.slot: dict[Record, int] = {}
        self.least: dict[Record, int] = {}
        self.users: dict[Record, list[Record]] = {}
        self.weights = {r for r in records if _lifts_a_weight(r) and r not in computed}
        for record in records:
            for operand in record.operands:
                self.users.setdefault(operand, []).append(record)
            self._place(record)
        for record in reversed(records):
            if record not in self.slot and record.source is None and not self._is_left(record):
                self._place_by_use(record)
        for record in records:
            if record.op == "part":
                whole = self.slot.get(record.operands[0])
                self.slot.pop(record, None)
                if whole is not None:
                    self.slot[record] = whole

    def stands_with_its_users(self, record: Record) -> bool:
        """Whether a lift is used in programs over its graph alone."""
        slots = [self.slot.get(user) for user in self.users.get(record, ())]
        return bool(slots) and all(slot is not None and self.graphs[slot] == record.graph for slot in slots)

    def _is_left(self, record: Record) -> bool:
        whole = record.operands[0] if record.op == "part" else record
        return whole in self.in_pytorch or chooses_rows(whole)

    def _place(self, record: Record) -> None:
        """By what a record is computed from."""
        least = max((self.least[o] for o in record.operands), default=-1)
        if record.graph is not None and record not in self.weights:
            slots = range(max(least, 0), len(self.graphs))
            found = next((s for s in slots if self.graphs[s] == record.graph), None)
            if found is None:
                found = len(self.graphs)
                self.graphs.append(record.graph)
            self.slot[record] = self.least[record] = found
        elif self._is_left(record):
            # After the slots in which its operands are computed.
            self.least[record] = max((self.least[o] + (o in self.slot) for o in record.operands), default=-1)
        else:
            self.least[record] = least
            if any(self.slot.get(o) == least for o in record.operands):
                self.slot[record] = least

    def _place_by_use(self, record: Record) -> None:
        """Where it is first used, unless PyTorch needs it, which may be before."""
        users = self.users.get(record, ())
        if users and all(user in self.slot for user in users):
            self.slot[record] = min(self.slot[user] for user in users)


def _lifts_a_weight(record: Record) -> bool:
    """Whether a record only says which row of a weight belongs to each row."""
    return record.op == "lift" and record.kwargs["via"].coarse in TYPE_SPACES
