"""Products over feature dimensions: linear maps with a weight that the row selects, and dot products.

Every one is an einsum over letters, one a feature dimension. A contraction of two operands becomes a ``linear`` if one of them has
letters of its own to be a matrix, and else a product and a sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from columba.frontend.operands import Operand, aligned, cast_to, mixes, on_weights, pointwise
from columba.frontend.rules.features import reduced
from columba.frontend.rules.registry import Call, rule
from columba.frontend.rules.shapes import reshaped
from columba.ir.program import build as b
from columba.ir.program.ops import Lift, Linear, Value
from columba.ir.spaces import WEIGHT_SPACES, IndexMap, Space
from columba.passes.program.unite_masks import masked

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _is_weight(x: Value) -> bool:
    """Whether a row selects it, rather than computes it."""
    return x.space is Space.ONE or (isinstance(x, Lift) and x.via.coarse in WEIGHT_SPACES)


def _linear(x: Value, w: Value, *, transpose: bool = False) -> Value:
    """Row vectors ``x [*lead, K]`` times ``w``, ``[K, N]`` or ``[*lead, K, N]``, both rows of one space or ``w`` a weight."""
    if isinstance(x, Lift) and isinstance(w, Lift) and x.via == w.via and x.via.coarse in WEIGHT_SPACES:
        return b.lift(masked(Linear(x.x, w.x, None, transpose), x.via), x.via)
    if w.space is Space.ONE and x.space is not Space.ONE:
        if isinstance(x, Lift) and x.via.coarse in WEIGHT_SPACES and x.via.coarse is not Space.ONE:
            return b.lift(masked(_linear(x.x, w, transpose=transpose), x.via), x.via)
        return Linear(x, w, IndexMap("one", x.space, Space.ONE), transpose)
    x = b.to_space(x, w.space)
    if isinstance(w, Lift):
        return Linear(x, w.x, w.via, transpose)
    return Linear(x, w, None, transpose)


def _permuted(x: Value, letters: str, order: str) -> Value:
    return on_weights(lambda v: b.permute(v, [letters.index(c) for c in order]), x)


def _sizes(x: Value, letters: str) -> dict[str, int]:
    return dict(zip(letters, x.shape, strict=True))


def _summed(x: Value, letters: str, keep: str) -> tuple[Value, str]:
    """``x`` summed over the letters that are not in ``keep``."""
    axes = [a for a, c in enumerate(letters) if c not in keep]
    return (reduced(x, "sum", axes, keepdim=False) if axes else x), "".join(c for c in letters if c in keep)


def _product(x: Value, xs: str, w: Value, ws: str, out: str) -> Value:
    """Elementwise product over all letters, summed over those that ``out`` lacks."""
    sizes = {**_sizes(x, xs), **_sizes(w, ws)}
    letters = "".join(dict.fromkeys(xs + ws))

    def spread(v: Value, have: str) -> Value:
        ordered = _permuted(v, have, "".join(c for c in letters if c in have))
        return reshaped(ordered, [sizes[c] if c in have else 1 for c in letters])

    first, second = spread(x, xs), spread(w, ws)
    space = first.space if first.space is not Space.ONE else second.space
    product = pointwise("mul", (b.to_space(first, space), b.to_space(second, space)))
    product, left = _summed(product, letters, out)
    return _permuted(product, left, out)


def contract(x: Value, xs: str, w: Value, ws: str, out: str) -> Value:
    """The einsum ``xs,ws->out`` over feature letters."""
    x, xs = _summed(x, xs, ws + out)
    w, ws = _summed(w, ws, xs + out)
    shared = [c for c in xs if c in ws and c not in out]
    mine = [c for c in xs if c not in ws]
    theirs = [c for c in ws if c not in xs]
    if _is_weight(x) and not _is_weight(w):
        x, xs, w, ws, mine, theirs = w, ws, x, xs, theirs, mine
    if shared and not theirs and mine and not _is_weight(x):
        x, xs, w, ws, mine, theirs = w, ws, x, xs, theirs, mine
    if not shared or not theirs:
        return _product(x, xs, w, ws, out)
    sizes = {**_sizes(x, xs), **_sizes(w, ws)}
    batch = [c for c in xs if c in ws and c in out]
    order = "".join(batch + mine)
    k, n = (math.prod(sizes[c] for c in letters) for letters in (shared, theirs))
    lead = [sizes[c] for c in order]
    rows = reshaped(_permuted(x, xs, order + "".join(shared)), (*lead, k))
    matrix_lead = [sizes[c] for c in batch] + [1] * len(mine) if batch else []
    transpose = ws == "".join(batch + theirs + shared)
    columns = (n, k) if transpose else (k, n)
    ordered = w if transpose else _permuted(w, ws, "".join(batch + shared + theirs))
    matrix = reshaped(ordered, (*matrix_lead, *columns))
    if batch and mine:
        matrix = on_weights(lambda v: b.expand(v, (*lead, *columns)), matrix)
    result = _linear(rows, matrix, transpose=transpose)
    letters = order + "".join(theirs)
    return _permuted(reshaped(result, [sizes[c] for c in letters]), letters, out)


# ------------------------------------------------------------------------------------------------ torch's spellings


def _einsum(call: Call, operands: Sequence[Operand], terms: Sequence[str], out: str) -> Value:
    """An einsum over all dimensions, rows among them."""
    rows = {t[0] for o, t in zip(operands, terms, strict=True) if o.has_rows}
    with_rows = next(o for o in operands if o.has_rows) if rows else None
    stripped = []
    for o, term in zip(operands, terms, strict=True):
        if len(set(term)) != len(term):
            raise call.unsupported(f"a diagonal, in {term!r}")
        mine = term[1:] if o.has_rows else term
        if with_rows is not None and (len(rows) > 1 or rows & set(mine)):
            raise mixes(f"{call.name} {','.join(terms)}->{out}", with_rows, call.where)
        stripped.append(mine)
    if with_rows is not None:
        if out[:1] not in rows or rows & set(out[1:]):
            raise mixes(f"{call.name} {','.join(terms)}->{out}", with_rows, call.where)
        out = out[1:]
    values = [cast_to(o.value, call.dtype) for o in operands]
    result, letters = values[0], stripped[0]
    for n in range(1, len(values)):
        needed = set(out).union(*stripped[n + 1 :])
        both = "".join(dict.fromkeys(letters + stripped[n]))
        target = out if n == len(values) - 1 else "".join(c for c in both if c in needed)
        result, letters = contract(result, letters, values[n], stripped[n], target), target
    if len(values) == 1:
        result, letters = _summed(result, letters, out)
        result = _permuted(result, letters, out)
    space = next((o.value.space for o in operands if o.has_rows), Space.ONE)
    return b.to_space(result, space)


@rule("einsum")
def einsum(call: Call, equation: Any, *operands: Any) -> Value:
    flat = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else list(operands)
    if not isinstance(equation, str):
        raise call.unsupported("the sublist form", 'write the equation as text: "ehi,ehij->ehj"')
    equation = equation.replace(" ", "")
    if "." in equation or "->" not in equation:
        raise call.unsupported(
            f"{equation!r} leaves dimensions implicit", 'name them all, the row first: "ehi,ehij->ehj"'
        )
    terms, out = equation.split("->")
    for x in flat:
        call.value(x)
    return _einsum(call, flat, terms.split(","), out)


@rule("typed_linear")
def typed_linear(call: Call, x: Any, w: Any) -> Value:
    lead = LETTERS[1 : x.rank - 1]
    wide = w.rank - w.has_rows
    out = LETTERS[x.rank - 1 : x.rank - 2 + wide]
    terms = ["a" + lead + "z", ("a" if w.has_rows else "") + "z" + out]
    return _einsum(call, [x, w], terms, "a" + lead + out)


@rule("linear")
def _torch_linear(call: Call, input: Any, weight: Any, bias: Any = None) -> Value:
    lead = LETTERS[: input.rank - 1]
    if weight.rank == 1:
        result = _einsum(call, [input, weight], [lead + "z", "z"], lead)
    else:
        result = _einsum(call, [input, weight], [lead + "z", "yz"], lead + "y")
    return result if bias is None else _plus(call, result, bias)


def _plus(call: Call, result: Value, bias: Operand) -> Value:
    whole = Operand(result, call.record)
    return pointwise("add", aligned([whole, bias], call.where, call.name))


@rule("addmm")
def _addmm(call: Call, input: Any, mat1: Any, mat2: Any, *, beta: Any = 1, alpha: Any = 1) -> Value:
    product = _einsum(call, [mat1, mat2], ["ab", "bc"], "ac")
    if alpha != 1:
        product = pointwise("mul", (product, b.constant_like(product, alpha)))
    scaled = (
        input
        if beta == 1
        else Operand(pointwise("mul", (input.value, b.constant_like(input.value, beta))), input.record)
    )
    return _plus(call, product, scaled)


@rule("matmul", "__matmul__", "mm", "bmm", "mv")
def _matmul(call: Call, input: Any, other: Any) -> Value:
    return _broadcast_matmul(call, input, other)


@rule("__rmatmul__")
def _rmatmul(call: Call, input: Any, other: Any) -> Value:
    return _broadcast_matmul(call, other, input)


def _broadcast_matmul(call: Call, x: Operand, y: Operand) -> Value:
    call.value(x), call.value(y)
    batch = max(x.rank, y.rank, 2) - 2
    names = LETTERS[:batch]

    def term(o: Operand, last: str) -> str:
        if o.rank == 1:
            return last[0] if o is y else last[1]
        return names[batch - (o.rank - 2) :] + last

    xs, ys = term(x, "yz"), term(y, "zx")
    out = names + ("y" if x.rank > 1 else "") + ("x" if y.rank > 1 else "")
    x, xs = _without_ones(x, xs, names, y, ys)
    y, ys = _without_ones(y, ys, names, x, xs)
    missing = [c for c in out if c not in xs + ys]
    kept = "".join(c for c in out if c not in missing)
    result = _einsum(call, [x, y], [xs, ys], kept)
    return reshaped(result, call.record.meta.shape[1:] if x.has_rows or y.has_rows else call.record.meta.shape)


def _without_ones(o: Operand, term: str, batch: str, other: Operand, other_term: str) -> tuple[Operand, str]:
    """Batch dimensions of size 1 dropped where the other operand has the dimension, or nobody needs it."""
    offset = int(o.has_rows)
    drop = [c for a, c in enumerate(term) if a >= offset and c in batch and o.value.shape[a - offset] == 1]
    if not drop:
        return o, term
    shape = [n for c, n in zip(term[offset:], o.value.shape, strict=True) if c not in drop]
    return Operand(reshaped(o.value, shape), o.record), "".join(c for c in term if c not in drop)
