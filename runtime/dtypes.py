"""Element types of the IR and of PyTorch."""

from __future__ import annotations

import torch

from columba.ir.types import DType

_TORCH = {
    DType.F64: torch.float64,
    DType.F32: torch.float32,
    DType.BF16: torch.bfloat16,
    DType.F16: torch.float16,
    DType.I64: torch.int64,
    DType.I32: torch.int32,
    DType.BOOL: torch.bool,
}
_OURS = {theirs: ours for ours, theirs in _TORCH.items()}


def torch_dtype(dtype: DType) -> torch.dtype:
    """The torch dtype of an IR dtype."""
    return _TORCH[dtype]


def ir_dtype(dtype: torch.dtype) -> DType:
    """The IR dtype of a torch dtype; TypeError where there is none.

    >>> ir_dtype(torch.float32)
    <DType.F32: 'f32'>
    """
    try:
        return _OURS[dtype]
    except KeyError:
        names = ", ".join(str(d) for d in _OURS)
        raise TypeError(f"columba: tensors of {dtype} are not supported; convert to one of {names}") from None
