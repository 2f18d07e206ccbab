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
