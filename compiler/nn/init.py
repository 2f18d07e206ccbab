"""Initialization of weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def glorot(weight: Tensor, fan_in: int | None = None, fan_out: int | None = None) -> None:
    """Fills ``weight`` in place from U(-a, a) with a = sqrt(6 / (fan_in + fan_out)); the fans are its last two sizes.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010),
    equation 16.
    """
    fans = (weight.shape[-2] if fan_in is None else fan_in) + (weight.shape[-1] if fan_out is None else fan_out)
    bound = math.sqrt(6 / fans) if fans else 0.0
    with torch.no_grad():
        weight.uniform_(-bound, bound)
