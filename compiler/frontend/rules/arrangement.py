"""Rearrangements of the feature dimensions that add or move elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from columba.frontend.operands import feature_axis, mixes, on_weights
from columba.frontend.rules.registry import Call, rule
from columba.frontend.rules.shapes import sliced
from columba.ir.program import build as b
from columba.ir.program.ops import Concat, Value


@rule("pad", "constant_pad_nd")
def _pad(call: Call, input: Any, pad: Sequence[int], mode: Any = "constant", value: float | None = None) -> Value:
    if call.name == "constant_pad_nd":
        mode, value = "constant", 0.0 if mode == "constant" else mode
    x = call.value(input)
    if mode != "constant":
        raise call.unsupported(f"mode={mode!r}", "join slices of the features with torch.cat, or pad outside")
    for n in range(len(pad) // 2):
        before, after = pad[2 * n], pad[2 * n + 1]
        if before == after == 0:
            continue
        axis = feature_axis(input, -1 - n, call.name, call.where)
        x = sliced(x, axis, max(-before, 0), x.shape[axis] + min(after, 0))
        parts = [_filled(x, axis, before, value or 0.0), x, _filled(x, axis, after, value or 0.0)]
        kept = [p for p in parts if p is not None]
        if len(kept) > 1:
            x = on_weights(lambda *vs, axis=axis: Concat(vs, axis), *kept)
    return x


def _filled(x: Value, axis: int, size: int, value: float) -> Value | None:
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    return b.expand(b.constant_like(x, value), shape) if size > 0 else None


@rule("roll")
def _roll(call: Call, input: Any, shifts: Any, dims: Any = None) -> Value:
    x = call.value(input)
    shifts = list(shifts) if isinstance(shifts, (tuple, list)) else [shifts]
    dims = list(dims) if isinstance(dims, (tuple, list)) else [] if dims is None else [dims]
    if not dims:
        raise mixes(f"{call.name} without dims", input, call.where)
    for shift, dim in zip(shifts, dims, strict=True):
        axis = feature_axis(input, dim, call.name, call.where)
        size = x.shape[axis]
        at = (size - shift) % size if size else 0
        if at:
            x = on_weights(
                lambda v, axis=axis, at=at, size=size: Concat(
                    (sliced(v, axis, at, size), sliced(v, axis, 0, at)), axis
                ),
                x,
            )
    return x
