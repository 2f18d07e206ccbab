"""What calls do to the first dimension of a tensor: they combine what stands in it, as ``x.mean(0)`` and ``x.std()`` do, or move it.

Where that dimension is the rows of a space, a call that combines it is a reduction of the graph, to the one row of space ``one``; where it
is one of a plain tensor, PyTorch's as ever. Which of the two shows only when the whole function has run.
"""

from __future__ import annotations

import math
from typing import Any

from columba.frontend.recorded import Record

_NORMS = ("norm", "vector_norm", "linalg_vector_norm")

_DIMS: dict[str, int] = {
    **dict.fromkeys(("sum", "mean", "amax", "amin", "max", "min", "any", "all", "var", "std", "var_mean", "std_mean"), 1),
    **dict.fromkeys(_NORMS, 2),
}  # fmt: skip
"""Functions that have a rule for rows, and where their dimensions stand among the arguments."""


def needs_rows(record: Record) -> bool:
    """Whether a call is an error where there are no rows: of nothing there is no extremum."""
    extremum = record.op in ("amax", "amin", "max", "min")
    if record.op in _NORMS:
        extremum = any(isinstance(p, float) and math.isinf(p) for p in (*record.args[1:2], *record.kwargs.values()))
    return extremum and reduces_rows(record)


def dims_of(record: Record) -> tuple[int, ...] | None:
    """The dimensions that a reduction is over, counted from the front; None if it is no reduction, or one with a rule of its own."""
    place = _DIMS.get(record.op)
    if place is None or len(record.operands) != 1:
        return None
    rank = record.operands[0].meta.dim()
    dim = _dim(record, place)
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return tuple(range(rank))
    dims = dim if isinstance(dim, (tuple, list)) else (dim,)
    if not rank or not all(isinstance(d, int) for d in dims):
        return None
    if record.op in ("max", "min"):  # of one dimension they say where the extremum stands, which rows do not
        return None
    return tuple(sorted({d % rank for d in dims}))


def _dim(record: Record, place: int) -> Any:
    args, kwargs = record.args, record.kwargs
    for name in ("dim", "axis"):
        if name in kwargs:
            return kwargs[name]
    given = args[place] if len(args) > place else None
    return (
        None if isinstance(given, bool) else given
    )  # the second argument of var may say whether it is that of a sample


def reduces_rows(record: Record) -> bool:
    """Whether a call combines what stands in the first dimension, among others or alone."""
    if record.op == "_row_count":
        return True
    dims = dims_of(record)
    return dims is not None and 0 in dims


def is_single_row(record: Record) -> bool:
    """Whether a value with a first dimension of size 1 has it whatever numbers of rows there are: it stands beside all of them."""
    seen: set[Record] = set()
    pending = [record]
    while pending:
        one = pending.pop()
        if one in seen:
            continue
        seen.add(one)
        if one.meta.dim() == 0 or reduces_rows(one) or _adds_a_dimension(one):
            continue
        wide = [o for o in one.operands if o.meta.dim() == one.meta.dim()]
        if one.source is not None or one.graph is not None or not wide:
            return False
        pending += wide
    return True


def adds_first(record: Record) -> bool:
    """Whether a call adds a first dimension, and does nothing else."""
    dim = _only(record) if record.op == "unsqueeze" else None
    return isinstance(dim, int) and dim % record.meta.dim() == 0


def transposes(record: Record) -> bool:
    """Whether a call exchanges the dimensions of a matrix."""
    if record.op == "t":
        return record.meta.dim() == 2
    dims = record.args[1:] if record.op in ("transpose", "swapaxes", "swapdims") and not record.kwargs else ()
    return record.meta.dim() == 2 and all(isinstance(d, int) for d in dims) and {d % 2 for d in dims} == {0, 1}


def undone(record: Record) -> Record | None:
    """What a call gives back of which a view was taken before: ``x.t().t()``, ``x.unsqueeze(0).squeeze(0)``."""
    if len(record.operands) != 1:
        return None
    before = record.operands[0]
    while before.op == "expand_as" and before.args[0] is before.args[1]:  # which stands for what was given back
        before = before.args[0]
    if transposes(record) and transposes(before):
        return before.operands[0]
    dim = _only(record) if record.op == "squeeze" else None
    return before.operands[0] if isinstance(dim, int) and dim % before.meta.dim() == 0 and adds_first(before) else None


def _only(record: Record) -> Any:
    """The dimension that a call is given."""
    return record.kwargs.get("dim", record.args[1] if len(record.args) > 1 else None)


def _adds_a_dimension(record: Record) -> bool:
    """Whether the first dimension is one that the call adds."""
    if record.op in ("view", "reshape"):
        sizes = record.args[1:]
        first = (
            sizes[0][0] if sizes and isinstance(sizes[0], (tuple, list)) and sizes[0] else sizes[0] if sizes else None
        )
        return type(first) is int and first == 1
    return adds_first(record)
