"""Alias analysis of results: which of them share memory with an input or with each other where the code runs uncompiled.

A program's results each own their memory. What PyTorch returns as a view (or as the very tensor) of an input, or of something that is a
result as well, is therefore not compiled: PyTorch makes that view of the input, or of the program's result, at every call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from columba.frontend.record import Record

_VIEWS = {
    "view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze", "transpose", "swapaxes", "swapdims",
    "permute", "movedim", "moveaxis", "t", "mT", "expand", "expand_as", "broadcast_to", "narrow", "select", "split", "chunk", "unbind",
    "contiguous", "declare", "detach",
}  # fmt: skip
"""Functions whose result shares memory with the first operand, or may be it."""

_CASTS = {"to", "type", "float", "double", "half", "bfloat16", "int", "long", "bool", "type_as"}
"""Functions that return their operand where it has the dtype already."""

_SLICES = {"__getitem__", "narrow", "select"}
"""Views of some of a tensor's features."""


def viewed(record: Record) -> Record | None:
    """What a value is a view of, or itself, where the code runs uncompiled; None if it has memory of its own."""
    if not record.operands:
        return None
    x, name = record.operands[0], record.op
    if name == "part":
        return viewed(x)
    if name in _VIEWS:
        return x
    if name in _CASTS:
        return x if x.meta.dtype is record.meta.dtype and not _asks_for_a_copy(record) else None
    if name == "dropout":
        return x if _drops_nothing(record) else None
    return x if name == "__getitem__" and len(record.operands) == 1 and _is_basic(record.args[1]) else None


def _asks_for_a_copy(record: Record) -> bool:
    """Whether ``x.to(...)`` copies all the same: ``copy`` is its last positional flag, after ``non_blocking``."""
    return bool(record.kwargs.get("copy")) or [a for a in record.args[1:] if isinstance(a, bool)][1:2] == [True]


def _drops_nothing(record: Record) -> bool:
    given = dict(zip(("input", "p", "training"), record.args, strict=False)) | record.kwargs
    return not given.get("training", True) or given.get("p", 0.5) == 0


def _is_basic(index: object) -> bool:
    """Whether an index makes a view."""
    items = index if isinstance(index, tuple) else (index,)
    return all(i is None or i is Ellipsis or (isinstance(i, (slice, int)) and not isinstance(i, bool)) for i in items)


def left_to_pytorch(wanted: Sequence[Record], is_compiled: Callable[[Record], bool]) -> set[Record]:
    """The results, and what leads to them, that are views of something which the caller holds as well: of no computed value, or of one
    that another result is, or is a view of."""
    chains = {record: _chain(record) for record in wanted}
    holders: dict[Record, list[Record]] = {}
    for record, chain in chains.items():
        holders.setdefault(chain[-1], []).append(record)
    left: set[Record] = set()
    for base, records in holders.items():
        for record in records:
            others = [chains[other] for other in records if other is not record]
            if not is_compiled(base) or not all(_are_disjoint(chains[record], other) for other in others):
                left.update(chains[record][:-1])
    return left


def _chain(record: Record) -> list[Record]:
    """A value, what it is a view of, and so on, up to what has memory of its own."""
    chain = [record]
    while (x := viewed(chain[-1])) is not None:
        chain += [chain[-1].operands[0]] if chain[-1].op == "part" else []
        chain.append(x)
    return chain


def _are_disjoint(a: Sequence[Record], b: Sequence[Record]) -> bool:
    """Whether two views of one value have no number in common."""
    shared = next(r for r in a if r in b)
    first, second = a[: a.index(shared)], b[: b.index(shared)]
    if not first or not second:
        return False
    if first[-1].op == second[-1].op == "part":  # of one split: each number is in one part
        return True
    if any(r.op not in _SLICES or len(r.operands) > 1 for r in (first[-1], second[-1])):
        return False
    return not _features(first[-1], shared) & _features(second[-1], shared)


def _features(view: Record, of: Record) -> set[int]:
    """The features of a row, by number, that are in a slice."""
    shape = of.meta.shape[1:]
    row = torch.arange(shape.numel()).reshape(1, *shape)
    assert view.function is not None
    try:
        found = view.function(row, *view.args[1:], **view.kwargs)
    except (IndexError, RuntimeError):  # of the rows, of which there is one here
        found = row
    return set(found.flatten().tolist())
