"""How many rows PyTorch will give what it has yet to compute: some of a call's graphs have as many nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from columba.frontend.counts import RowCount
from columba.frontend.infer import KEEP_COUNT, Spaces, keeps_rows, row_operands
from columba.frontend.metadata import on_meta
from columba.frontend.recorded import Record
from columba.frontend.structure import is_integer
from columba.frontend.trees import leaves, mapped


def rows_given(record: Record) -> Any:
    """The number of rows that a call asks for: a number of rows of something else, or a number; None where it asks for none."""
    args, kwargs = record.args, record.kwargs
    if record.op in ("randperm", "arange") and len(args) < 2:
        return args[0] if args else kwargs.get("n", kwargs.get("end"))
    first = _SIZE_AT.get(record.op)
    if first is None:
        return None
    size = kwargs.get("size", args[first] if len(args) > first else None)
    if isinstance(size, (tuple, list)):
        return size[0] if size else None
    return size


def same_rows(record: Record) -> list[Any]:
    """What has as many rows as a record in every call: other records, and numbers of rows."""
    if not record.meta.dim():
        return []
    count = rows_given(record)
    if isinstance(count, RowCount):
        return [count]
    if record.op in ("__getitem__", "index_select") and len(record.operands) == 2:
        index = record.args[-1]
        if isinstance(index, Record) and index.meta.dim() == 1 and is_integer(index.meta.dtype):
            return [index] if record.op == "__getitem__" or record.args[1:2] == (0,) else []
    rows = record.meta.shape[0]
    operands = row_operands(Spaces(), record) if rows != 1 and keeps_rows(record) else []
    return [operand for operand in operands if operand.meta.shape[:1] == (rows,)]


def origin_of_count(of: Any) -> Any:
    """The furthest of what something is computed from that has as many rows in every call: what is passed in, if it can be."""
    while isinstance(of, Record) and of.source is None:
        others = [of.operands[0]] if of.op in KEEP_COUNT and of.operands else same_rows(of)
        if not others:
            break
        of = others[0].of if isinstance(others[0], RowCount) else others[0]
    return of


_SIZE_AT = {
    "rand": 0, "randn": 0, "zeros": 0, "ones": 0, "empty": 0, "full": 0, "new_zeros": 1, "new_ones": 1, "new_empty": 1, "new_full": 1,
    "expand": 1, "broadcast_to": 1,
}  # fmt: skip
"""Functions that are told how many rows to give, and which of their arguments has the sizes, or is the first of them."""


def rows_of_result(record: Record, known: Callable[[Record], Tensor | None], number: Callable[[Any], Any]) -> int:
    """The rows of what PyTorch will compute, found from the shapes of what that is computed from.

    Args:
        record: with at least one dimension.
        known: a meta tensor of the shape that a record has in this call; None where it follows from others.
        number: what a number, a slice of numbers or another argument is in this call.
    """
    found: dict[Record, Any] = {}
    pending, wanted = [record], []
    varies = False
    while pending:
        one = pending.pop()
        if one in found:
            continue
        found[one] = None if one is record else known(one)
        if found[one] is not None or one.function is None:
            found[one] = one.meta if found[one] is None else found[one]
            varies |= found[one].shape != one.meta.shape
            continue
        wanted.append(one)
        pending += one.operands
        varies |= any(isinstance(n, (RowCount, slice)) for n in leaves((one.args, one.kwargs)))
    if not varies:
        return int(record.meta.shape[0])
    for one in sorted(wanted, key=lambda r: r.number):
        args, kwargs = mapped(lambda x: found[x] if isinstance(x, Record) else number(x), (one.args, one.kwargs))
        assert one.function is not None
        found[one] = on_meta(one.function, one.op, args, kwargs)
    return int(found[record].shape[0])
