"""Integers that are others in another form: copies, and those that are found again of the pointers that were made of them."""

from __future__ import annotations

from columba.frontend.recorded import Record


def unchanged(record: Record) -> Record | None:
    """What a record is the same integers as, if it is a copy or another form of something."""
    same = len(record.operands) == 1 and (
        record.op in _COPIES or (record.op in ("view", "reshape", "flatten") and record.operands[0].meta.dim() == 1)
    )
    operand = record.operands[0] if same else record
    return (
        operand if same and (operand.meta.shape, operand.meta.dtype) == (record.meta.shape, record.meta.dtype) else None
    )


def pointers_of(record: Record) -> Record | None:
    """The pointers ``[rows + 1]`` of which a record has each row as often as they are apart, as ``ptr2index`` of PyG does."""
    if record.op != "repeat_interleave" or len(record.args) != 2 or not all(isinstance(x, Record) for x in record.args):
        return None
    numbers, times = record.args
    if numbers.op != "arange" or len(numbers.args) != 1:
        return None
    if times.op == "diff" and len(times.args) == 1 and not times.kwargs:
        return times.operands[0]
    if times.op == "sub" and len(times.operands) == len(times.args) == 2:
        ends, starts = times.operands
        slices = [x.args[1] if x.op == "__getitem__" else None for x in (ends, starts)]
        if slices == [slice(1, None), slice(None, -1)] and ends.operands[0] is starts.operands[0]:
            return ends.operands[0]
    return None


_COPIES = ("contiguous", "clone", "long", "detach", "to", "int")
"""Functions that give the integers that they are given, or integers of another kind that are equal."""


def plain(record: Record) -> Record:
    """What integers are, without copies and conversions among kinds of integers."""
    while (same := unchanged(record)) is not None or (record.op == "long" and record.operands):
        record = record.operands[0] if same is None else same
    return record
