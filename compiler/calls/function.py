"""Compiled functions: one call, from the shortcut to a new trace."""

from __future__ import annotations

import functools
import sys
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from columba.calls.options import Options
from columba.calls.shortcut import MISSED
from columba.calls.specialization import Specialization
from columba.calls.warn import warn_once
from columba.frontend import Bound, TraceError, hooks, is_tracing, trace
from columba.runtime.modes import without_transforms

MOST_TRACES = 64
"""Traces that a function, or a module, keeps: those used last. A Python argument that never repeats would make them grow for ever."""

MANY_TRACES = 16
"""Traces after which a warning says what keeps changing."""


class CompiledFunction:
    """A function, or a method of a module, that runs compiled. Call it as the original, which is ``fn``.

    Pickled as functions are, by the name that it has taken over from ``fn``; where another object has that name (``fast =
    columba.compile(f)``, a bound method), as ``fn`` and the options. What was traced and built is never pickled.
    """

    def __init__(self, fn: Callable[..., Any], options: Options) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.options = options
        self.is_method = False
        self._reset()

    def _reset(self) -> None:
        self._own: list[Specialization] = []
        self._of_modules: weakref.WeakKeyDictionary[Any, list[Specialization]] = weakref.WeakKeyDictionary()
        self._lock = threading.RLock()

    def __set_name__(self, owner: type, name: str) -> None:
        self.is_method = True
        if not _has_its_name(self):  # an inherited forward that is compiled for a subclass is found there
            self.__module__, self.__qualname__ = owner.__module__, f"{owner.__qualname__}.{name}"

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        return self if owner is None else types.MethodType(self, owner)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__qualname__ if _has_its_name(self) else super().__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_own", "_of_modules", "_lock", "fn", "__wrapped__")
        # A bound method is pickled as "its name, looked up on the object", which by then is this very function.
        parts = (self.fn.__func__, self.fn.__self__) if isinstance(self.fn, types.MethodType) else (self.fn,)
        return {**{k: v for k, v in self.__dict__.items() if k not in left_out}, "fn": parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        parts = state["fn"]
        self.fn = self.__wrapped__ = types.MethodType(*parts) if len(parts) == 2 else parts[0]
        self._reset()

    def __repr__(self) -> str:
        return f"<columba.compile({getattr(self.fn, '__qualname__', self.fn)}), backend={self.options.backend!r}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():  # torch.compile would trace what traces, and look into what is kept
            return torch._dynamo.disable(self.__call__)(*args, **kwargs)  # type: ignore[no-untyped-call]
        if is_tracing():  # part of a larger compiled function
            return self.current()(*args, **kwargs)
        owner, rest = self._split(args)
        for known in self._own if owner is None else self._of_modules.get(owner, ()):
            shortcut = known.shortcut
            if shortcut is not None:
                result = shortcut(owner, rest, kwargs)
                if result is not MISSED:
                    return result
        with hooks.meeting() as met:
            try:
                specialization, bound = self.specialize(*args, **kwargs)
            except Exception:
                if not met:
                    raise
                return self._first_of_hooks(None, met, args, kwargs)
        if unknown := hooks.unsettled(specialization.trace.phases):
            return self._first_of_hooks((specialization, bound), unknown, args, kwargs)
        return specialization(bound, owner)

    def _first_of_hooks(
        self,
        found: tuple[Specialization, Bound] | None,
        met: list[hooks.Met],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """The call as it is, not compiled: shows which hooks of inner modules return something, and so belong to the program."""
        with hooks.noting():
            result = self.current()(*args, **kwargs)
        hooks.settle(met)
        if found is not None:
            found[0].trace.check_unchanged(found[1])
        self.specialize(*args, **kwargs)  # what cannot be compiled is an error at this call, not at the next
        return result

    def specialize(self, *args: Any, **kwargs: Any) -> tuple[Specialization, Bound]:
        """The specialization that a call with these arguments runs, traced now if there is none yet, and the call bound to it."""
        owner, rest = self._split(args)
        with self._lock:
            known = self._own if owner is None else self._of_modules.setdefault(owner, [])
            for n, candidate in enumerate(known):
                bound = candidate.trace.match(rest, kwargs)
                if bound is not None:
                    if n:
                        known.insert(0, known.pop(n))
                    return candidate, bound
            fn = self.current() if owner is None else types.MethodType(self.current(), owner)
            for attempt in range(
                2
            ):  # in the second run there is what the first only sets up: a cache, a module that is built late
                with without_transforms():  # a trace serves calls outside of them too
                    made = Specialization(trace(fn, owner, rest, kwargs, self.following(owner)), self.options)
                bound = made.trace.match(rest, kwargs)
                if bound is not None:
                    break
                if attempt:
                    raise TraceError(
                        f"{_name_of(self)} changes, while it runs, something that its own result depends on: "
                        f"{made.trace.difference(rest, kwargs)}. That would happen once, where it is traced, and not at every call; do it "
                        "outside the compiled function"
                    )
            assert bound is not None
            if len(known) == MANY_TRACES:
                _warn_many_traces(self, known[0].trace.difference(rest, kwargs))
            known.insert(0, made)
            del known[MOST_TRACES:]
            return made, bound

    def current(self) -> Callable[..., Any]:
        """The function as it is to be traced now."""
        return self.fn

    def following(self, owner: nn.Module | None) -> tuple[type, nn.Module | None] | None:
        """For a compiled instance: the class whose ``forward`` counts, and the module that it was made of."""
        return None

    def _split(self, args: tuple[Any, ...]) -> tuple[nn.Module | None, tuple[Any, ...]]:
        """The module whose method this is, if any, and the remaining arguments."""
        if self.is_method and args and isinstance(args[0], nn.Module):
            return args[0], args[1:]
        return None, args


def _has_its_name(function: CompiledFunction) -> bool:
    """Whether the function's module and qualified name lead to it, so that another process finds it by them."""
    found: Any = sys.modules.get(function.__module__)
    for part in getattr(function, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    return found is function


def _name_of(function: CompiledFunction) -> str:
    name: str = getattr(function.fn, "__qualname__", str(function.fn))
    return name


def _warn_many_traces(function: CompiledFunction, difference: str) -> None:
    warn_once(
        f"columba: {_name_of(function)} has been traced {MANY_TRACES} times, and is traced again because {difference}. Each trace is "
        "compiled, which takes far longer than a call; keep what changes out of the compiled function, or pass it as a tensor."
    )
