"""Errors: what can go wrong while a function is traced; every message names the user's file and line."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from columba import runtime

if TYPE_CHECKING:
    from columba.frontend.attempt import Attempt

_FRONTEND = Path(__file__).parent
_CALLS = _FRONTEND.with_name("calls")
_OWN = tuple(f"{folder}/" for folder in (_FRONTEND, _CALLS, Path(str(runtime.__file__)).parent))
"""Folders whose frames no user wrote; a shipped layer is code as any user's."""


class TraceError(RuntimeError):
    """The function does something that cannot be compiled.

    Attributes:
        attempt: what the trace that failed had read by then; None where it had not begun.
    """

    attempt: Attempt | None = None


class OneRow(TraceError, ValueError):
    """A tensor has several rows where a graph has one node: PyTorch combines the one with each of them, if the graph has no more."""


class FillsCache(TraceError):
    """The function keeps a tensor for later calls, which are traced; this one is not."""


class NothingToCompile(TraceError):
    """The function computes nothing on a graph."""


class UnsupportedOperation(TraceError, NotImplementedError):
    """The function calls a torch function that has no place in a compiled program.

    Attributes:
        record: the call, where it has been written down: PyTorch can make it.
    """

    def __init__(self, message: str, record: Any = None) -> None:
        super().__init__(message)
        self.record = record


def trace_error_in(error: BaseException) -> TraceError | None:
    """The TraceError that an error is, or was raised for: code on the way may have made another one of it."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        if isinstance(found, TraceError):
            return found
        seen.add(id(found))
        found = found.__cause__ or found.__context__
    return None


def location() -> str:
    """``file:line`` of the innermost frame that belongs to the user."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        ours = name.startswith((*_OWN, "<frozen ")) or "/torch/" in name
        if not ours:
            return f"{name}:{frame.f_lineno}"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "<unknown>"


def defined(fn: Any) -> str:
    """``file:line`` where a function is defined, for errors that are about all of it."""
    code = getattr(inspect.unwrap(getattr(fn, "__func__", fn)), "__code__", None)
    return "<unknown>" if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def fail(message: str, where: str | None = None) -> TraceError:
    """A :class:`TraceError` that says where."""
    return TraceError(f"{where or location()}: {message}")
