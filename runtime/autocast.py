"""Autocast: what PyTorch's autocast does with the operands of which function, on each kind of device.

PyTorch casts below Python, where symbolic tensors never come; so that traces have the same casts, its lists (``ATen/autocast_mode.h`` and
``.cpp``) stand here once more, by the names that functions have in Python, those that call what is listed included. A test holds them to
what PyTorch does. Numbers of 64 bits, and what is no floating point number, it leaves alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

DEVICES = ("cpu", "cuda")
"""The kinds of devices whose autocast counts."""

_PRODUCTS = ("matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "linear", "typed_linear", "einsum", "prelu")


def _is_listed(operator: str) -> bool:
    """Whether this version of PyTorch's autocast has a list that names an operator, for GPUs."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(operator, "AutocastCUDA"))


LOWER: dict[str, frozenset[str]] = {
    "cpu": frozenset(_PRODUCTS),
    "cuda": frozenset((*_PRODUCTS, "mv", "gru_cell", "lstm_cell", "rnn_tanh_cell", "rnn_relu_cell")),
}
"""Functions whose operands are cast to the dtype of autocast: products."""

FLOAT32: dict[str, frozenset[str]] = {
    "cpu": frozenset(("prod",)),
    "cuda": frozenset(
        (
            "exp", "expm1", "log", "log1p", "reciprocal", "rsqrt", "pow", "__pow__", "__rpow__", "square", "__rtruediv__", "__rdiv__",
            "softplus", "layer_norm", "normalize", "logsumexp", "softmax", "log_softmax", "norm", "vector_norm",
            "linalg_vector_norm", "sum", "prod", "cosh", "sinh", "tan", "group_norm", "cosine_similarity",
            *(("rms_norm",) if _is_listed("aten::rms_norm") else ()),  # by later versions
        )
    ),
}  # fmt: skip
"""Functions whose operands are cast to float32."""

GIVES_DTYPE = ("softmax", "log_softmax", "sum", "prod", "norm", "vector_norm", "linalg_vector_norm")
"""Functions that are left alone where they are told a dtype."""


@dataclass(frozen=True)
class Autocast:
    """Autocast as it is active for a kind of device."""

    device: str
    dtype: torch.dtype

    def dtype_for(self, name: str, kwargs: dict[str, Any]) -> torch.dtype | None:
        """What the operands of a function are cast to; None: to nothing."""
        if name in LOWER[self.device]:
            return self.dtype
        if name not in FLOAT32[self.device] or (name in GIVES_DTYPE and kwargs.get("dtype") is not None):
            return None
        return torch.float32

    def enabled(self) -> torch.autocast:
        """A context in which it is active."""
        return torch.autocast(self.device, dtype=self.dtype)


def active(device: str) -> Autocast | None:
    """Autocast for a kind of device, if it is active."""
    if device not in DEVICES or not torch.is_autocast_enabled(device):
        return None
    return Autocast(device, torch.get_autocast_dtype(device))


def state() -> tuple[Autocast, ...]:
    """Autocast as it is active, for all kinds of devices."""
    if not torch._C._is_any_autocast_enabled():
        return ()
    return tuple(found for device in DEVICES if (found := active(device)) is not None)


def is_eligible(dtype: torch.dtype) -> bool:
    """Whether autocast casts tensors of a dtype."""
    return dtype in (torch.float32, torch.float16, torch.bfloat16)


def as_operand(x: Tensor, name: str) -> Tensor:
    """``x`` as autocast gives it to the function of that name: for code that does not call it."""
    found = active(x.device.type) if torch._C._is_any_autocast_enabled() else None
    dtype = None if found is None or not is_eligible(x.dtype) else found.dtype_for(name, {})
    return x if dtype is None else x.to(dtype)


def disabled() -> Any:
    """A context in which no autocast casts: around what has been cast already."""
    return torch._C._DisableAutocast()
