"""How close results of kernels have to be to those in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROUNDINGS = 8
"""How often a value is rounded to the storage type on its way from inputs to a gradient, at most, in units of the type's epsilon: the
longest chains of the shipped layers (HGT's backward direction) pass eight kernels that store what the next ones load."""

TF32_EPSILON = 2.0**-10
"""Of the operands of products in TF32."""

TERMS = 560
"""Of the longest sums that the tolerance of float32 and float64 is for; it grows with the square root of more."""


def tolerance(dtype: torch.dtype, *, tf32: bool = False, terms: int = TERMS) -> float:
    """The largest error, over the scale of the tensor that it is in.

    All kernels add in float32 or wider, so that sums add no error of the storage type: a sum of n rounded terms is off by at most the
    mean error of its terms relative to the sum of their sizes, whatever n is. In 16 bits what counts is thus how often values are rounded
    to be stored, :data:`ROUNDINGS`; with ``tf32``, how often operands are. In float32 sums of 560 terms of random sign are off by about
    the square root of that, 24, times epsilon / 2, which is 1.4e-6: 1e-5 leaves a factor for chains of them. float64 kernels compute in
    float64, and get the same 84 epsilons (1e-5 in float32) with a factor of 50 for functions that Triton approximates.

    Args:
        dtype: of what is stored.
        tf32: whether products of float32 round their operands to TF32.
        terms: of the longest sum.
    """
    if dtype in (torch.bfloat16, torch.float16):
        return ROUNDINGS * torch.finfo(dtype).eps
    if dtype is torch.float32 and tf32:
        return ROUNDINGS * TF32_EPSILON
    return (1e-12 if dtype is torch.float64 else 1e-5) * math.sqrt(max(1.0, terms / TERMS))


def scale(wanted: Tensor) -> float:
    """The largest value of the tensor in float64; at least 1, the size of inputs, parameters and incoming gradients: what is small because
    terms of that size cancel has their error."""
    return max(1.0, float(wanted.detach().abs().max()) if wanted.numel() else 1.0)
