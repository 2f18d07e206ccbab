"""Reductions of the rows of a segment, eager: plain PyTorch, differentiable twice.

``index`` names the segment of each row, in any order; segments without rows give 0 in every reduction. Sums of
half-precision values are accumulated in float32, as the compiled kernels do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

KINDS = ("sum", "mean", "max", "min")


def segment_sum(x: Tensor, index: Tensor, rows: int) -> Tensor:
    """Sum of the rows of each segment: ``[n, *features]`` and ``index [n]`` to ``[rows, *features]``."""
    total = x.new_zeros((rows, *x.shape[1:]), dtype=_accumulator(x.dtype))
    return total.index_add(0, index, x.to(total.dtype)).to(x.dtype)


def segment_mean(x: Tensor, index: Tensor, counts: Tensor) -> Tensor:
    """Mean of the rows of each segment; ``counts [rows]`` says how many rows each segment has."""
    wide = x.to(_accumulator(x.dtype))
    divisor = counts.clamp(min=1).to(wide.dtype).view(-1, *[1] * (x.dim() - 1))
    return (segment_sum(wide, index, counts.shape[0]) / divisor).to(x.dtype)


def segment_extremum(x: Tensor, index: Tensor, rows: int, kind: str) -> Tensor:
    """Elementwise maximum or minimum of each segment; the gradient is shared evenly among ties."""
    extremum: Tensor = _SegmentExtremum.apply(x, index, rows, kind)
    return extremum


def segment_softmax(x: Tensor, index: Tensor, rows: int) -> Tensor:
    """Softmax over the rows of each segment, feature by feature, shifted by the segment's maximum."""
    wide = x.to(_accumulator(x.dtype))
    shift = segment_extremum(wide.detach(), index, rows, "max").index_select(0, index)
    exponential = (wide - shift).exp()
    return (exponential / segment_sum(exponential, index, rows).index_select(0, index)).to(x.dtype)


def reduce_all(x: Tensor, kind: str) -> Tensor:
    """One reduction over all rows: ``[n, *features]`` to ``[*features]``."""
    if kind == "sum" or x.shape[0] == 0:
        return x.sum(0, dtype=x.dtype)
    return x.mean(0) if kind == "mean" else torch.amax(x, 0) if kind == "max" else torch.amin(x, 0)


class _SegmentExtremum(torch.autograd.Function):
    """``Tensor.scatter_reduce`` computes the values but not the gradient: it counts the 0 it starts from as a tie."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, index: Tensor, rows: int, kind: str) -> Tensor:
        start = x.new_zeros((rows, *x.shape[1:]))
        positions = index.long().view(-1, *[1] * (x.dim() - 1)).expand_as(x)
        return start.scatter_reduce(0, positions, x, f"a{kind}", include_self=False)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, index, _, _ = inputs
        ctx.save_for_backward(x, index, output)
        ctx.save_for_forward(x, index, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        x, index, output = ctx.saved_tensors
        return _shared_among_ties(x, index, output, grad.index_select(0, index)), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *others: None) -> Tensor:
        x, index, output = ctx.saved_tensors
        return segment_sum(_shared_among_ties(x, index, output, tangent), index, output.shape[0])


def _shared_among_ties(x: Tensor, index: Tensor, extremum: Tensor, of: Tensor) -> Tensor:
    """``of`` for each row that attains its segment's extremum, divided by how many do. Others get 0, whatever it is.

    There are no ties where the extremum is NaN: NaN is everyone's share.
    """
    wins = x.detach() == extremum.detach().index_select(0, index)
    ties = segment_sum(wins.to(_accumulator(x.dtype)), index, extremum.shape[0]).index_select(0, index)
    share = (wins / ties).to(of.dtype) * of
    return torch.where(wins | (ties == 0), share, 0.0)


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
