"""Stochastic arithmetic: eager code whose every operation is off by a few units in the last places (Vignes 1993).

What such noise changes much depends on rounding. Equal numbers get equal noise, so that ties stay ties, unless that is not asked for: terms
that cancel each other because they are equal then do not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

ARITHMETIC = frozenset({
    "add", "sub", "mul", "div", "truediv", "true_divide", "matmul", "__matmul__", "__rmatmul__", "linear", "einsum", "sum", "mean",
    "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "tanh", "sigmoid", "pow", "__pow__", "__rpow__", "__rsub__", "__rdiv__",
    "__rtruediv__", "rsub", "reciprocal", "softmax", "log_softmax", "logsumexp", "norm", "vector_norm", "var", "std", "layer_norm",
    "rms_norm", "normalize", "gelu", "silu", "mish", "elu", "selu", "softplus", "logsigmoid", "erf", "sin", "cos", "index_add",
    "addmm", "bmm", "mm", "mv", "lerp", "linalg_vector_norm", "cosine_similarity", "softmin", "__add__", "__sub__", "__mul__",
    "__truediv__", "__radd__", "__rmul__", "square", "softsign"
})  # fmt: skip
"""Functions whose results are rounded."""

CENTERED = frozenset({"layer_norm", "var", "std"})
"""Functions that subtract a mean, whose rounding is all that is left of rows of equal numbers: it is noise of what they are given."""


class Noise(TorchFunctionMode):
    """Multiplies what arithmetic gives by 1 + ``amount`` times a number in (-1, 1).

    The number follows from ``seed`` and, with ``ties``, from the result's bits.
    """

    def __init__(self, amount: float, seed: int, *, ties: bool = True) -> None:
        super().__init__()
        self.amount, self.seed, self.ties = amount, seed, ties
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in CENTERED:
            args = (self._noisy(args[0], ties=False), *args[1:])
        found = func(*args, **(kwargs or {}))
        return self._noisy(found, ties=self.ties) if name in ARITHMETIC else found

    def _noisy(self, x: Any, *, ties: bool) -> Any:
        if type(x) is not Tensor or not x.is_floating_point() or not x.numel():
            return x
        with torch._C.DisableTorchFunction():
            if ties:
                return x * (1 + self.amount * _hashed(x.detach(), self.seed))
            return x * (1 + self.amount * (2 * torch.rand(x.shape, generator=self.generator, dtype=x.dtype) - 1))


def _hashed(x: Tensor, seed: int) -> Tensor:
    """A number in (-1, 1) for each element, the same for equal ones."""
    bits = (x.double() + 0.0).view(torch.int64)
    mixed = (bits ^ (bits >> 29)) * 0x2545F4914F6CDD1D + seed * 0x9E3779B97F4A7C1
    mixed = (mixed ^ (mixed >> 32)) * 0x5851F42D4C957F2D
    return ((mixed >> 11).double() / 2.0**52).to(x.dtype)
