"""Triton's interpreter cuts float32 off where it stores bfloat16; GPUs round to the nearest, and to even in the middle, as here."""

from __future__ import annotations

from typing import Any

import numpy as np


def round_as_gpus_do() -> None:
    """Makes the interpreter of this process round."""
    import triton.language as tl
    from triton.runtime import interpreter

    convert = interpreter._convert_float
    if getattr(convert, "rounds", False):
        return

    def rounding(x: Any, source: Any, target: Any, mode: Any) -> Any:
        if source != tl.float32 or target != tl.bfloat16:
            return convert(x, source, target, mode)
        bits = np.ascontiguousarray(x).view(np.uint32).astype(np.uint64)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        nan = (bits & 0x7FFFFFFF) > 0x7F800000
        return np.where(nan, (bits >> 16) | 0x40, rounded).astype(np.uint16).reshape(np.shape(x))

    vars(rounding)["rounds"] = True
    interpreter._convert_float = rounding
