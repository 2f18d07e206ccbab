"""Gathers and scatters: what chooses rows by integers, and what puts rows together by them, among the functions of PyTorch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from columba.frontend.recorded import Record
from columba.frontend.structure import Structure


@dataclass(eq=False)
class Gather:
    """``record`` has, for each integer of ``index``, that row of ``table``."""

    record: Record
    table: Record
    index: Record


@dataclass(eq=False)
class Scatter:
    """``record`` has in each row those rows of ``source`` put together for which ``index`` says it; ``count`` is how many rows it has."""

    record: Record
    source: Record
    index: Record
    count: Any
    kind: str


Move = Gather | Scatter


def find_moves(records: Iterable[Record], structure: Structure) -> list[Move]:
    """The gathers and scatters among records that are not of structure alone."""
    found: list[Move] = []
    for record in records:
        if record in structure.values or record.source is not None or not record.operands:
            continue
        move = gather(record, structure) or scatter(record, structure)
        if move is not None:
            found.append(move)
    return found


def gather(record: Record, structure: Structure) -> Gather | None:
    """What a record chooses rows of by integers, if it does."""
    args = record.args
    if record.op == "index_select" and len(args) == 3 and not record.kwargs:
        table, dim, index = args
        if not isinstance(dim, int) or not isinstance(table, Record) or dim % max(table.meta.dim(), 1):
            return None
    elif record.op == "__getitem__":
        table, index = args
        if isinstance(index, tuple) and index and all(is_all(i) for i in index[1:]):
            index = index[0]
    else:
        return None
    if not isinstance(index, Record) or not structure.is_index(index) or not table.meta.dtype.is_floating_point:
        return None
    value = structure.values[index]
    if value.dtype is torch.uint8 or (value.numel() and int(value.min()) < 0):
        return None
    return Gather(record, table, index)


def is_all(index: Any) -> bool:
    """Whether an index takes everything of a dimension."""
    if isinstance(index, slice):  # whose bounds are not to be compared: they may be numbers of rows
        return index.start is None and index.stop is None and index.step is None
    return index is Ellipsis


_KINDS = {"sum": "sum", "amax": "max", "amin": "min"}


def scatter(record: Record, structure: Structure) -> Scatter | None:
    """What a record puts together by integers, if it does."""
    args, kwargs = record.args, record.kwargs
    kind = "sum"
    if (record.op == "scatter_add" and len(args) == 4) or (
        record.op == "index_add" and len(args) == 4 and kwargs.get("alpha", 1) == 1
    ):
        base, dim, places, source = args
    elif record.op == "scatter_reduce" and len(args) >= 4:
        base, dim, places, source = args[:4]
        reduce = kwargs.get("reduce", args[4] if len(args) > 4 else None)
        if reduce not in _KINDS or (reduce != "sum" and kwargs.get("include_self", True)):
            return None
        kind = _KINDS[reduce]
    else:
        return None
    if not all(isinstance(x, Record) for x in (base, places, source)) or not isinstance(dim, int):
        return None
    call = structure.calls.get(base)
    index = places if record.op == "index_add" else _expanded(places, structure)
    if call is None or call.function is not torch.zeros or index is None or not structure.is_index(index):
        return None
    if dim % max(base.meta.dim(), 1) or source.meta.shape[1:] != base.meta.shape[1:]:
        return None
    if not source.meta.dtype.is_floating_point or places.meta.shape[0] != source.meta.shape[0]:
        return None
    size = call.args[0]
    count = size[0] if isinstance(size, (tuple, list)) else size
    return Scatter(record, source, index, count, kind)


def _expanded(record: Record, structure: Structure) -> Record | None:
    """The integers, one a row, that were expanded over features."""
    while record.meta.dim() > 1 or record.op in _SPREADS:
        if (
            record.op not in _SPREADS
            or not record.operands
            or record.operands[0].meta.shape[:1] != record.meta.shape[:1]
        ):
            return None
        record = record.operands[0]
    return record


_SPREADS = ("view", "reshape", "unsqueeze", "expand", "expand_as", "broadcast_to")
