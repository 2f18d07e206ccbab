"""Products of the same rows in one sum become one product: ``x @ v + y + x @ w --> x @ (v + w) + y``.

Layers that have a matrix for each edge type, and a destination's own features among what arrives there, multiply those once for each of
its edge types. Each type moves along a graph of its own, and so is a program of its own: passes see one product at a time. What adds the
weights is PyTorch, with autograd: one product is left of many, and one of each gradient.

It must not fire where a product, or a sum on the way, is wanted for itself, or its size was asked for; where a weight is computed from
rows; and for sums that nothing of the graph goes into, which are PyTorch's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from columba.frontend.record import Recorder
from columba.frontend.recorded import Record, meta_tensor


def unite_products(recorder: Recorder, wanted: Iterable[Record]) -> None:
    """Rewrites the records of a trace.

    Args:
        recorder: of the function that has run.
        wanted: what is computed for its own sake: it stays.
    """
    if any(record.op == "linear" for record in recorder.records):
        _Sums(recorder, {*wanted, *recorder.measured, *recorder.copies, *recorder.between}).rewrite()


class _Sums:
    def __init__(self, recorder: Recorder, kept: set[Record]) -> None:
        self.recorder, self.kept = recorder, kept
        self.users: dict[Record, list[Record]] = {}
        self.moved: set[Record] = set()
        for record in recorder.records:
            for operand in record.operands:
                self.users.setdefault(operand, []).append(record)
            if record.graph is not None or any(o in self.moved for o in record.operands):
                self.moved.add(record)
        self.number = max(record.number for record in recorder.records)
        self.made: dict[Record, list[Record]] = {}
        self.gone: set[Record] = set()

    def rewrite(self) -> None:
        for record in reversed(self.recorder.records):
            if _adds(record) and record in self.moved and not (self._is_inner(record) and _adds(self.users[record][0])):
                self._rewrite(record)
        if self.made:
            records = self.recorder.records
            self.recorder.records = [
                one for r in records if r not in self.gone for one in (*self.made.get(r, ()), r)
            ]  # operands first

    def _is_inner(self, record: Record) -> bool:
        """Whether nothing reads a record but one other."""
        return record not in self.kept and len(self.users.get(record, ())) == 1

    def _rewrite(self, root: Record) -> None:
        terms, sums = self._terms(root)
        groups: dict[tuple[Record, torch.Size], list[Record]] = {}
        for term in terms:
            if self._is_inner(term) and _is_product(term) and term.args[1] not in self.moved:
                groups.setdefault((term.args[0], term.args[1].meta.shape), []).append(term)
        shared = [group for group in groups.values() if len(group) > 1]
        if not shared:
            return
        made = self.made.setdefault(root, [])
        for first, *others in shared:
            args = [first.args[0], self._sum([p.args[1] for p in (first, *others)], made)]
            biases = [p.args[2] for p in (first, *others) if len(p.args) > 2 and p.args[2] is not None]
            args += [self._sum(biases, made)] if biases else []
            made.append(self._record("linear", args, first))
            terms = [made[-1] if t is first else t for t in terms if t not in others]
            self.gone.update((first, *others))
        self.gone.update(sums)
        *before, last = terms
        if before:
            root.args = (self._sum(before, made), last)
        else:
            made.remove(last)
            root.op, root.args, root.kwargs, root.function = "linear", last.args, {}, last.function
        root.__dict__.pop("operands", None)

    def _terms(self, root: Record) -> tuple[list[Record], list[Record]]:
        """What is added up, in order, and the sums on the way."""
        terms: list[Record] = []
        sums: list[Record] = []
        stack = [*reversed(root.operands)]
        while stack:
            record = stack.pop()
            if _adds(record) and self._is_inner(record):
                sums.append(record)
                stack += reversed(record.operands)
            else:
                terms.append(record)
        return terms, sums

    def _sum(self, terms: Sequence[Record], made: list[Record]) -> Record:
        total = terms[0]
        for term in terms[1:]:
            total = self._record("add", (total, term), term)
            made.append(total)
        return total

    def _record(self, op: str, args: Sequence[Record], like: Record) -> Record:
        self.number += 1
        function = torch.add if op == "add" else like.function
        meta = meta_tensor(like.meta.shape, like.meta.dtype)
        return Record(op, tuple(args), {}, meta, like.where, function, number=self.number)


def _adds(record: Record) -> bool:
    """Whether a record is the sum of two others of its own shape."""
    if record.op not in ("add", "__add__") or len(record.args) != 2 or len(record.operands) != 2 or record.kwargs:
        return False
    return all(o.meta.shape == record.meta.shape and o.meta.dtype is record.meta.dtype for o in record.operands)


def _is_product(record: Record) -> bool:
    """Whether a record is ``F.linear`` of several rows."""
    if record.op != "linear" or record.kwargs or len(record.args) not in (2, 3) or record.meta.dim() < 2:
        return False
    return all(isinstance(x, Record) for x in record.args[:2]) and record.args[1].meta.dim() == 2
