"""What a trace needs of its structure becomes inputs: results of preparations, which are found at every call as other inputs are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from columba.frontend.counts import Extent, RowCount, Scalar
from columba.frontend.pieces import move_pieces
from columba.frontend.preparation import CountOf, Preparation
from columba.frontend.raising import Raising
from columba.frontend.record import Recorder
from columba.frontend.recorded import Record
from columba.frontend.row_counts import origin_of_count
from columba.frontend.sources import Prepared
from columba.frontend.steps import Held, Number, Size, Step, Value
from columba.frontend.symbolic import BuiltGraph
from columba.frontend.trees import leaves, mapped
from columba.runtime.graphs.from_tensors import as_graph, hypergraph


def raise_indices(
    recorder: Recorder, returned: Sequence[Record], kept: Sequence[Record], counts: Sequence[RowCount] = ()
) -> dict[Record, Record]:
    """Finds the graphs that integer tensors make, and what of them is computed once for each.

    Args:
        recorder: of the function that has run.
        returned: what it returns.
        kept: what else is wanted of a call.
        counts: the numbers of rows that are wanted, too.

    Returns:
        What stands for returned values that are structure: copies, since others share what is remembered.
    """
    move_pieces(recorder, [*returned, *kept])
    raising = Raising(recorder, _reached([*returned, *kept], lambda record: False))
    raised = raising.raise_all()
    structure = recorder.structure
    conversion = _Conversion(recorder, raising)
    if not raised and not structure.depends_on_data and not structure.read and not conversion.counted(counts):
        return {}
    return conversion.run(returned, kept, counts)


@dataclass
class _Draft:
    """A preparation in the making: for all that follows from the same tensors."""

    leaves: list[Record]
    values: dict[Record, Value] = field(default_factory=dict)
    counts: dict[CountOf, Number] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)


class _Conversion:
    def __init__(self, recorder: Recorder, raising: Raising) -> None:
        self.recorder, self.raising = recorder, raising
        self.structure = recorder.structure
        self.drafts: dict[frozenset[Record], _Draft] = {}
        self.depends: dict[Record, frozenset[Record]] = {}
        self.computed: dict[Record, bool] = {}
        self.indices = {
            raising.canonical(record) for _, tensors, _ in raising.made for record in tensors if record is not None
        }

    def run(
        self, returned: Sequence[Record], others: Sequence[Record], counts: Sequence[RowCount]
    ) -> dict[Record, Record]:
        recorder, canonical = self.recorder, self.raising.canonical
        copies: dict[Record, Record] = {}
        for record in dict.fromkeys(returned):
            if self._is_computed(record):
                copy = Record("clone", (record,), {}, record.meta, record.where, torch.clone)
                recorder.add(copy)
                copies[record] = copy
        recorder.copies.update(copies.values())
        wanted = [*(copies.get(r, r) for r in returned), *others]
        kept = _reached(wanted, self._is_computed)
        asked = [
            *recorder.fixed,
            *recorder.positive,
            *(x for pair in (*recorder.same, *recorder.less) for x in pair),
            *(n.of for _, _, sizes in self.raising.made for n in _numbers(list(sizes.values()))),
            *(n.of for n in counts),
        ]
        read = kept | self._measured(kept, asked)
        for record in read:
            record.args, record.kwargs = mapped(
                lambda x: canonical(x) if isinstance(x, Record) and self._is_computed(x) else x,
                (record.args, record.kwargs),
            )
            record.__dict__.pop("operands", None)
        needed = dict.fromkeys(o for record in read for o in record.operands if self._is_computed(o))
        needed.update(dict.fromkeys(canonical(r) for r in others if self._is_computed(r)))
        for _, tensors, _ in self.raising.made:
            needed.update(dict.fromkeys(canonical(r) for r in tensors if r is not None and self._is_computed(r)))
        asked += [n.of for record in read for n in _numbers((record.args, record.kwargs))]
        needed.update(dict.fromkeys(self._counted(asked)))
        needed.update(dict.fromkeys(canonical(r) for r in self.structure.read if self._is_computed(r)))
        sources = {record: self._prepared(record) for record in needed if self._is_computed(record)}
        self._finish(sources, kept, read, counts)
        return copies

    def _measured(self, kept: set[Record], counts: Sequence[Any]) -> set[Record]:
        """What is computed for nobody, but numbers of rows that calls compare follow from its shape: it, and what it is computed from."""
        found: set[Record] = set()
        pending = [*counts, *(n.of for record in kept for n in _numbers((record.args, record.kwargs)))]
        while pending:
            of = pending.pop()
            record = of.record if isinstance(of, (Scalar, Extent)) else of[0] if isinstance(of, tuple) else of
            if not isinstance(record, Record) or self._is_computed(record):
                continue
            more = _reached([record], self._is_computed) - kept - found
            found |= more
            pending += [n.of for r in more for n in _numbers((r.args, r.kwargs))]
        return found

    def _is_computed(self, record: Record) -> bool:
        call = self.structure.calls.get(record)
        if call is None:
            return False
        if record not in self.computed:
            is_computed = bool(self._leaves(record)) or self.raising.canonical(record) in self.indices
            operands = (x for x in leaves((call.args, call.kwargs)) if isinstance(x, Record))
            self.computed[record] = is_computed or any(map(self._is_computed, operands))
        return self.computed[record]

    def counted(self, counts: Iterable[RowCount]) -> list[Record]:
        """The records of structure that numbers are of."""
        return self._counted(count.of for count in counts)

    def _grounded(self, of: Any) -> Any:
        """What a count is of: structure, where a record has as many rows, so that a call can tell before anything is computed."""
        found = origin_of_count(of)
        return found if isinstance(found, Record) and found in self.structure.values else of

    def _counted(self, counts: Iterable[Any]) -> list[Record]:
        """The records of structure that counts are of."""
        found = []
        for of in map(self._grounded, counts):
            record = of.record if isinstance(of, (Scalar, Extent)) else of[0] if isinstance(of, tuple) else of
            if isinstance(record, Record) and self._is_computed(record):
                found.append(self.raising.canonical(record))
        return found

    def _leaves(self, record: Record) -> frozenset[Record]:
        """The tensors that are passed in, of which a record of structure follows: of records that are equal, those of the one computed."""
        record = self.raising.canonical(record)
        known = self.depends.get(record)
        if known is None:
            call = self.structure.calls.get(record)
            if call is None:
                known = frozenset((record,))
            else:
                known = frozenset()
                for x in leaves((call.args, call.kwargs)):
                    if isinstance(x, Record):
                        known |= self._leaves(x)
                for number in _numbers((call.args, call.kwargs)):
                    of = self._of(number)
                    if isinstance(of, (Scalar, Extent)):
                        known |= self._leaves(of.record)
            self.depends[record] = known
        return known

    def _of(self, number: RowCount) -> Any:
        """What a count is of: structure, or something that is passed in."""
        of = number.of
        if isinstance(of, Record) and of in self.structure.values:
            return Extent(of, 0)
        if isinstance(of, (Scalar, Extent)) and of.record in self.structure.values:
            return of
        found = self.raising.passed_in(self.raising.count_key(of))
        if found is not None:
            return Extent(found, 0) if found in self.structure.values else found
        return self.raising.size_of(self.raising.count_key(of))

    # -------------------------------------------------------------------------------------------- preparations

    def _prepared(self, record: Record) -> tuple[_Draft, Value]:
        of = self._leaves(record)
        draft = self.drafts.get(of)
        if draft is None:
            draft = self.drafts[of] = _Draft(sorted(of, key=lambda r: r.number))
            draft.values.update({leaf: Value(n) for n, leaf in enumerate(draft.leaves)})
        return draft, self._step(draft, record)

    def _step(self, draft: _Draft, record: Record) -> Value:
        record = self.raising.canonical(record)
        if record not in draft.values:
            call = self.structure.calls[record]

            def actual(x: Any) -> Any:
                if isinstance(x, Record):
                    return self._step(draft, x)
                if isinstance(x, RowCount):
                    return self._number(draft, x)
                return slice(actual(x.start), actual(x.stop), actual(x.step)) if isinstance(x, slice) else x

            args, kwargs = mapped(actual, (call.args, call.kwargs))
            draft.steps.append(Step(call.function, args, kwargs))
            draft.values[record] = Value(len(draft.leaves) + len(draft.steps) - 1)
        return draft.values[record]

    def _number(self, draft: _Draft, number: RowCount) -> Any:
        of = self._of(number)
        if isinstance(of, Scalar):
            return Held(self._step(draft, of.record).number)
        if isinstance(of, Extent):
            return Size(self._step(draft, of.record).number, of.dim)
        if of is None or of.source is None:
            self.recorder.fix_count(number)
            return int.__int__(number)
        return draft.counts.setdefault(CountOf(of.source), Number(len(draft.counts)))

    def _finish(
        self,
        wanted: dict[Record, tuple[_Draft, Value]],
        kept: set[Record],
        read: set[Record],
        counts: Sequence[RowCount],
    ) -> None:
        recorder, structure = self.recorder, self.structure
        made: dict[int, Preparation] = {}
        for draft in self.drafts.values():
            sources = tuple(leaf.source for leaf in draft.leaves)
            assert all(source is not None for source in sources)
            kept_steps = frozenset(v.number - len(draft.leaves) for d, v in wanted.values() if d is draft)
            made[id(draft)] = Preparation(
                sources,  # type: ignore[arg-type]
                tuple(draft.counts),
                tuple(draft.steps),
                self._device(),
                kept_steps,
            )
        for record, (draft, value) in wanted.items():
            record.op, record.args, record.kwargs, record.function = "input", (), {}, None
            record.__dict__.pop("operands", None)
            record.source = Prepared(made[id(draft)], value.number - len(draft.leaves))
            recorder.real[record] = structure.values[record]
        canonical = self.raising.canonical
        for graph, tensors, sizes in self.raising.made:
            sources = tuple(None if r is None else canonical(r).source for r in tensors)
            make = hypergraph if "ends" in sizes else as_graph
            graph._set(_source=BuiltGraph(sources, tuple(sorted(sizes.items())), make, is_implied=True))
        recorder.fixed = {self._canonical_count(of): n for of, n in recorder.fixed.items()}
        recorder.positive = {self._canonical_count(of) for of in recorder.positive}
        for pairs in (recorder.same, recorder.less):
            found = {(self._canonical_count(a), self._canonical_count(b)): None for a, b in pairs}
            pairs.clear()
            pairs.update(found)
        for record in kept:
            call = structure.calls.get(record)
            if call is not None and record.op.startswith(
                "new_"
            ):  # it asks another tensor for its dtype, and where it is
                record.op, record.function, record.args = record.op[4:], call.function, call.args
                record.kwargs = {"device": self._device(), **call.kwargs}
                record.__dict__.pop("operands", None)
        for number in (
            [n for r in read for n in _numbers((r.args, r.kwargs))]
            + [n for _, _, sizes in self.raising.made for n in _numbers(list(sizes.values()))]
            + list(counts)
        ):
            number.of = self._canonical_count(number.of)
        structure.read = {canonical(r): value for r, value in structure.read.items()}
        recorder.records = [r for r in recorder.records if r.source is not None or r in kept]
        recorder.measured &= set(recorder.records)
        recorder.between |= self._between(recorder.records)

    def _between(self, records: Sequence[Record]) -> set[Record]:
        """What PyTorch chooses and joins, by integers that belong to no graph, of rows that were moved or are moved."""
        values = self.structure.values
        found: set[Record] = set()
        moved: set[Record] = set()
        for record in records:
            if record.graph is not None or any(o in moved for o in record.operands):
                moved.add(record)
            if record.op in ("index_select", "__getitem__", "set_items"):
                index = record.args[2 if record.op == "index_select" else 1] if len(record.args) > 1 else None
                rows = index[0] if isinstance(index, tuple) and index else index
                writes = (
                    record.op == "set_items" and isinstance(rows, slice) and any(o in moved for o in record.operands)
                )
                if writes or any(isinstance(x, Record) and x in values for x in leaves(index)):
                    found.add(record)
            elif record.op in ("cat", "concat", "concatenate") and any(o in moved for o in record.operands):
                dim = record.kwargs.get("dim", record.args[1] if len(record.args) > 1 else 0)
                if dim == 0:
                    found.add(record)
        return found

    def _device(self) -> torch.device:
        """Where what follows from numbers of rows alone is made."""
        return next((t.device for t in self.recorder.real.values() if t.dim()), torch.device("cpu"))

    def _canonical_count(self, of: Any) -> Any:
        canonical, of = self.raising.canonical, self._grounded(of)
        if isinstance(of, (Scalar, Extent)):
            return type(of)(canonical(of.record), *(() if isinstance(of, Scalar) else (of.dim,)))
        return canonical(of) if isinstance(of, Record) else of


def _numbers(tree: Any) -> list[RowCount]:
    found: list[RowCount] = []
    for x in leaves(tree):
        if isinstance(x, RowCount):
            found.append(x)
        elif isinstance(x, slice):
            found += [n for n in (x.start, x.stop, x.step) if isinstance(n, RowCount)]
    return found


def _reached(wanted: Iterable[Record], stop: Any) -> set[Record]:
    """What wanted values are computed from, and they, but for structure."""
    found: set[Record] = set()
    stack = [r for r in wanted if not stop(r)]
    while stack:
        record = stack.pop()
        if record not in found:
            found.add(record)
            stack += [o for o in record.operands if not stop(o)]
    return found
