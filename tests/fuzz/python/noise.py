"""Eager code as it might have been computed as well.

Stochastic arithmetic: every operation, forward and backward, is off by a few units in the last places (Vignes 1993). What such noise
changes much depends on rounding. Equal numbers get equal noise, so that ties stay ties, unless that is not asked for: terms that cancel
each other because they are equal then do not. So with infinities, which cancel each other or not as sums and products are grouped.
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
        if name not in ARITHMETIC:
            return func(*args, **(kwargs or {}))
        found = func(*(self._backward(x) for x in args), **(kwargs or {}))
        return self._noisy(found, ties=self.ties)

    def _backward(self, x: Any) -> Any:
        """``x``, whose gradient from this operation is noisy too: what it gets from others may cancel it."""
        if type(x) is not Tensor or not x.requires_grad or not torch.is_grad_enabled():
            return x
        with torch._C.DisableTorchFunction():
            used = x.view_as(x)
            used.register_hook(lambda gradient: self._noisy(gradient, ties=self.ties))
            return used

    def _noisy(self, x: Any, *, ties: bool) -> Any:
        if type(x) is not Tensor or not x.is_floating_point() or not x.numel():
            return x
        with torch._C.DisableTorchFunction():
            if ties:
                return x * (1 + self.amount * _hashed(x.detach(), self.seed))
            return x * (1 + self.amount * (2 * torch.rand(x.shape, generator=self.generator, dtype=x.dtype) - 1))


LINEAR = frozenset({
    "add", "sub", "mul", "div", "truediv", "true_divide", "matmul", "__matmul__", "__rmatmul__", "linear", "einsum", "sum", "mean",
    "__rsub__", "__rdiv__", "__rtruediv__", "rsub", "index_add", "addmm", "bmm", "mm", "mv", "lerp", "__add__", "__sub__", "__mul__",
    "__truediv__", "__radd__", "__rmul__", "square"
})  # fmt: skip
"""Functions that add and multiply, whose terms and factors may be grouped otherwise."""


class Regrouping(TorchFunctionMode):
    """Has infinities that are added and multiplied cancel each other, or not.

    ``a * x + b * x`` of an infinite ``x`` is NaN if ``a`` and ``b`` have different signs, and ``(a + b) * x`` is an infinity, of either
    sign. So what is NaN because of infinities may be either of them, and an infinity may be NaN; what is finite stays finite, and
    an infinity never becomes the other one. Results are drawn from what they may be; gradients pass.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") not in LINEAR or type(found) is not Tensor or not found.is_floating_point():
            return found
        with torch._C.DisableTorchFunction():
            tensors = [x for x in (*args, found) if type(x) is Tensor and x.is_floating_point()]
            if not any(bool(x.isinf().any()) for x in tensors):
                return found  # without infinities nothing cancels: NaN is NaN in every grouping
            return _Instead.apply(found, self._drawn(found.detach()))

    def _drawn(self, x: Tensor) -> Tensor:
        chance = torch.rand(x.shape, generator=self.generator)
        signed = torch.where(chance < 0.25, -float("inf"), float("inf")).to(x.dtype)
        drawn = torch.where(chance < 0.5, torch.where(x.isnan(), signed, float("nan")), x)
        return torch.where(x.isfinite(), x, drawn)


class _Instead(torch.autograd.Function):
    """Another number in the place of a result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, other: Tensor) -> Tensor:
        return other.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


class WholeVectors(TorchFunctionMode):
    """Has PyTorch compute whole vectors only: its kernels for numbers left over give NaN another gradient in ``hardtanh``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        x = args[0] if args else None
        if getattr(func, "__name__", "") not in ("hardtanh", "relu6") or type(x) is not Tensor:
            return func(*args, **(kwargs or {}))
        flat = torch.cat([x.reshape(-1), x.new_zeros(-x.numel() % 64)])
        return func(flat, *args[1:], **(kwargs or {}))[: x.numel()].view(x.shape)


def _hashed(x: Tensor, seed: int) -> Tensor:
    """A number in (-1, 1) for each element, the same for equal ones."""
    bits = (x.double() + 0.0).view(torch.int64)
    mixed = (bits ^ (bits >> 29)) * 0x2545F4914F6CDD1D + seed * 0x9E3779B97F4A7C1
    mixed = (mixed ^ (mixed >> 32)) * 0x5851F42D4C957F2D
    return ((mixed >> 11).double() / 2.0**52).to(x.dtype)
