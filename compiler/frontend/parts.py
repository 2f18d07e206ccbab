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
    """

    graph: int
    records: list[Record] = field(default_factory=list)
    wanted: list[Record] = field(default_factory=list)


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
    places = _Places([r for r in records if r in needed], in_pytorch)
    stretches = [Stretch(graph) for graph in places.graphs]
    between = []
    asked = set(wanted)
    for record in places.records:
        slot = places.slot.get(record)
        if slot is None:
            if record.source is None:
                between.append(record)
            continue
        stretches[slot].records.append(record)
        if record in asked or any(places.slot.get(user) != slot for user in places.users.get(record, ())):
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


class _Places:
    """In which slot each record is computed; slots follow each other, and have a graph each.

    Attributes:
        graphs: of each slot.
        slot: of each record that has one: PyTorch computes the others.
        least: the first slot in which a record can be used.
    """

    def __init__(self, records: Sequence[Record], in_pytorch: Container[Record]) -> None:
        self.records = records
        self.in_pytorch = in_pytorch
        self.graphs: list[int] = []
        self.slot: dict[Record, int] = {}
        self.least: dict[Record, int] = {}
        self.users: dict[Record, list[Record]] = {}
        for record in records:
            for operand in record.operands:
                self.users.setdefault(operand, []).append(record)
            self._place(record)
        for record in reversed(records):
            if record not in self.slot and record.source is None and not self._is_left(record):
                self._place_by_use(record)

    def _is_left(self, record: Record) -> bool:
        whole = record.operands[0] if record.op == "part" else record
        return whole in self.in_pytorch or chooses_rows(whole)

    def _place(self, record: Record) -> None:
        """By what a record is computed from."""
        least = max((self.least[o] for o in record.operands), default=-1)
        if record.graph is not None and not (least < 0 and _lifts_a_weight(record)):
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
        slots = [self.slot.get(user, self.least[user] - 1) for user in users]  # the last in which it may be computed
        if record.graph is not None:
            fitting = [s for s in range(min(slots, default=-1) + 1) if self.graphs[s] == record.graph]
            if not fitting:
                self._add_first(record.graph)
            self.slot[record] = max(fitting, default=0)
        elif users and all(user in self.slot for user in users):
            self.slot[record] = min(slots)

    def _add_first(self, graph: int) -> None:
        self.graphs.insert(0, graph)
        self.slot = {record: slot + 1 for record, slot in self.slot.items()}
        self.least = {record: least + (least >= 0) for record, least in self.least.items()}


def _lifts_a_weight(record: Record) -> bool:
    """Whether a record only says which row of a weight belongs to each row: it belongs where it is used."""
    return record.op == "lift" and record.kwargs["via"].coarse in TYPE_SPACES
