"""Functions of PyTorch that are recorded as the functions that they are made of: the formulas of ATen's composite kernels.

A conversion rule sees one call whose operands autocast has cast already. What a composite function is made of autocast casts piece by
piece, so that calls of it are taken apart before they are recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from columba.frontend.errors import UnsupportedOperation, location


def _gates(
    x: Tensor, hidden: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None
) -> tuple[Tensor, Tensor]:
    """What input and hidden state add to the gates, side by side."""
    return F.linear(x, w_ih, b_ih), F.linear(hidden, w_hh, b_hh)


def _gru_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    from_input, from_hidden = (g.chunk(3, 1) for g in _gates(input, hx, w_ih, w_hh, b_ih, b_hh))
    reset = torch.sigmoid(from_hidden[0] + from_input[0])
    update = torch.sigmoid(from_hidden[1] + from_input[1])
    new = torch.tanh(from_input[2] + from_hidden[2] * reset)
    return (hx - new) * update + new


def _lstm_cell(
    input: Tensor,
    hx: tuple[Tensor, Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    hidden, cell = hx
    from_input, from_hidden = _gates(input, hidden, w_ih, w_hh, b_ih, b_hh)
    kept_in, forget, new, out = (from_hidden + from_input).chunk(4, 1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(kept_in) * torch.tanh(new)
    return torch.sigmoid(out) * torch.tanh(cell), cell


def _rnn_cell(activation: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def cell(
        input: Tensor,
        hx: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
    ) -> Tensor:
        from_input, from_hidden = _gates(input, hx, w_ih, w_hh, b_ih, b_hh)
        return activation(from_hidden + from_input)

    return cell


def _cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    if dim is None:
        dim = next((d for d, n in enumerate(input.shape) if n == 3), -1)
    if input.shape[dim] != 3 or other.shape[dim] != 3:
        raise RuntimeError(f"cross: dimension {dim} of both operands must have 3 elements")
    return input.roll(-1, dim) * other.roll(-2, dim) - input.roll(-2, dim) * other.roll(-1, dim)


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = {
    "gru_cell": _gru_cell,
    "lstm_cell": _lstm_cell,
    "rnn_tanh_cell": _rnn_cell(torch.tanh),
    "rnn_relu_cell": _rnn_cell(torch.relu),
    "cross": _cross,
    "linalg_cross": lambda input, other, *, dim=-1: _cross(input, other, dim),
}
"""By the names that they have in PyTorch."""


def _not_compiled(what: str) -> UnsupportedOperation:
    return UnsupportedOperation(f"{location()}: {what}; compute it outside the compiled function")


def _segment_of_each(pointers: Tensor) -> Tensor:
    """The segment of each row, of where the segments begin and the last one ends."""
    segments = torch.arange(pointers.numel() - 1, dtype=pointers.dtype, device=pointers.device)
    return segments.repeat_interleave(pointers.diff(), output_size=None)


def _segment_reduce(
    data: Tensor,
    reduce: str,
    *,
    lengths: Tensor | None = None,
    indices: Tensor | None = None,
    offsets: Tensor | None = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: float | None = None,
) -> Tensor:
    pointers = offsets if lengths is None else F.pad(lengths.cumsum(0), (1, 0))
    if pointers is None or indices is not None or pointers.dim() != 1 or axis or reduce not in _SEGMENT_KINDS:
        raise _not_compiled("segment_reduce is compiled for segments of rows, with sum, mean, amax or amin")
    neutral, kind = _SEGMENT_KINDS[reduce]
    if initial is not None and initial != neutral and not (reduce == "mean" and initial == 0):
        raise _not_compiled(f"segment_reduce with initial={initial} is not compiled")
    index = _segment_of_each(pointers)
    start = data.new_zeros((pointers.numel() - 1, *data.shape[1:]))
    sizes = pointers.diff().view(-1, *(1,) * (data.dim() - 1))
    if kind is None:
        total = start.index_add(0, index, data)
        if reduce == "sum":
            return total
        return total / (sizes if initial is None else sizes.clamp(min=1)).to(data.dtype)
    each = index.view(-1, *(1,) * (data.dim() - 1)).expand_as(data)
    found = start.scatter_reduce(0, each, data, kind, include_self=False)
    return torch.where(sizes == 0, neutral, found)


_SEGMENT_KINDS: dict[str, tuple[float, str | None]] = {
    "sum": (0.0, None),
    "mean": (float("nan"), None),
    "amax": (float("-inf"), "amax"),
    "amin": (float("inf"), "amin"),
    "max": (float("-inf"), "amax"),
    "min": (float("inf"), "amin"),
}


def _repeat_interleave(
    input: Tensor, repeats: Tensor, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    if (dim is None and input.dim() != 1) or (dim or 0) % input.dim():
        raise _not_compiled("repeat_interleave is compiled for rows")
    rows = torch.arange(repeats.numel(), dtype=repeats.dtype, device=repeats.device)
    return input.index_select(0, rows.repeat_interleave(repeats, output_size=None))


SEGMENTS: Mapping[str, Callable[..., Any]] = {
    "_segment_reduce": _segment_reduce,
    "segment_reduce": _segment_reduce,
    "repeat_interleave": _repeat_interleave,
}
"""Of rows that integers put together or choose without saying a row for each: as scatters and gathers by integers that do."""
