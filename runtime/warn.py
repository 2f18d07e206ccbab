"""Warnings that are given once in a process."""

from __future__ import annotations

import sys
import types
import warnings
from pathlib import Path

import torch

from columba.runtime.fingerprint import folders_of

_warned: set[str] = set()

_LIBRARIES = (
    f"{Path(str(torch.__file__)).parent}/",
    *(f"{folder}/" for name in ("", ".ir", ".codegen", ".runtime") for folder in folders_of(f"columba{name}")),
)
"""Where code stands that no user wrote."""


def warn_once(message: str) -> None:
    """A RuntimeWarning about the line of the user's that called, unless it has been given."""
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=_level())


def _level() -> int:
    """The ``stacklevel``, for who calls this, of the innermost frame that is a user's; in threads of PyTorch's there may be none."""
    level = 1
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((*_LIBRARIES, "<columba ")):
        level, frame = level + 1, frame.f_back
    return level
