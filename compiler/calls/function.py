"""Compiled functions: one call, from the shortcut to a new trace."""

from __future__ import annotations

import functools
import logging
import sys
import threading
import types
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.compiler import is_dynamo_compiling

from columba.calls import dynamo as within_dynamo
from columba.calls import exporting, regions
from columba.calls.options import Options
from columba.calls.region_code import new_regions
from columba.calls.regions import Break, Failure, Failures, Regions, Seen
from columba.calls.rollback import State
from columba.calls.shortcut import MISSED
from columba.calls.specialization import Specialization
from columba.frontend import (
    Attempt,
    Bound,
    FillsCache,
    NothingToCompile,
    TraceError,
    hooks,
    is_tracing,
    pyg,
    trace,
    trace_error_in,
)
from columba.runtime.logs import logger
from columba.runtime.modes import skipped_by_dynamo, without_transforms
from columba.runtime.warn import warn_once

TRACES, GUARDS, RECOMPILES = logger("traces"), logger("guards"), logger("recompiles")

_MOST_REWRITES = 8
"""Traces of a function that may differ in what they set attributes to."""

MOST_TRACES = 64
"""Traces that a function, or a module, keeps: those used last. A Python argument that never repeats would make them grow for ever."""

MANY_TRACES = 16
"""Traces after which a warning says what keeps changing."""


OF_FUNCTIONS = (
    "A module that is given to columba.compile runs such parts in PyTorch, and compiles the modules that it calls; so does a function with "
    "fullgraph=False."
)


NO_SCRIPT = "torch.jit.script cannot read; use torch.export.export in its place, or script the function or module that it was made of"
"""What ``torch.jit.script`` is told."""


class _NotTraced(Exception):
    """PyTorch's stance is that what was not compiled before runs as it is."""


class _MustNotTrace(RuntimeError):
    """PyTorch's stance is that what was not compiled before is an error."""


class CompiledFunction:
    """A function, or a method of a module, that runs compiled. Call it as the original, which is ``fn``.

    Where it cannot be traced it is an error, or, if it :attr:`may_break`, runs in Python, with the modules that it calls compiled.

    Pickled as functions are, by the name that it has taken over from ``fn``; where another object has that name (``fast =
    columba.compile(f)``, a bound method), as ``fn`` and the options. What was traced and built is never pickled.
    """

    def __init__(self, fn: Callable[..., Any], options: Options) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.options = options
        self.is_method = False
        self.is_model = False
        self._reset()

    def _reset(self) -> None:
        self._own: list[Specialization] = []
        self._of_modules: weakref.WeakKeyDictionary[Any, list[Specialization]] = weakref.WeakKeyDictionary()
        self._failures: weakref.WeakKeyDictionary[Any, Failures] = weakref.WeakKeyDictionary()
        self._told: weakref.WeakSet[Any] = weakref.WeakSet()
        self._intercepts: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.RLock()
        self.regions = new_regions()
        self._method = _method_of(self)

    def __set_name__(self, owner: type, name: str) -> None:
        self.is_method = True
        if not _has_its_name(self):  # an inherited forward that is compiled for a subclass is found there
            self.__module__, self.__qualname__ = owner.__module__, f"{owner.__qualname__}.{name}"

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None:
            return self
        if is_dynamo_compiling():  # which of function.__get__ and types.MethodType Dynamo knows depends on its version
            return functools.partial(self._method, owner)
        return self._method.__get__(owner)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__qualname__ if _has_its_name(self) else super().__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        left_out = (
            "_own",
            "_of_modules",
            "_failures",
            "_told",
            "_intercepts",
            "_lock",
            "regions",
            "_method",
            "fn",
            "__wrapped__",
        )
        # A bound method is pickled as "its name, looked up on the object", which by then is this very function.
        parts = (self.fn.__func__, self.fn.__self__) if isinstance(self.fn, types.MethodType) else (self.fn,)
        return {**{k: v for k, v in self.__dict__.items() if k not in left_out}, "fn": parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        parts = state["fn"]
        self.fn = self.__wrapped__ = types.MethodType(*parts) if len(parts) == 2 else parts[0]
        self._reset()

    def __prepare_scriptable__(self) -> Any:
        """What ``torch.jit.script`` asks for."""
        raise RuntimeError(f"columba: {_name_of(self)} is compiled, which {NO_SCRIPT}")

    def __repr__(self) -> str:
        return f"<columba.compile({getattr(self.fn, '__qualname__', self.fn)}), backend={self.options.backend!r}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if is_dynamo_compiling():
            return within_dynamo.call(self, args, kwargs)
        if is_tracing():  # part of a larger compiled function
            return self._of(args)(*args, **kwargs)
        dynamo: Any = sys.modules.get("torch._dynamo.eval_frame")
        if dynamo is not None and dynamo._stance.stance == "force_eager":
            with hooks.taking(None):
                return self._of(args)(*args, **kwargs)
        owner, rest = self._split(args)
        for known in self._own if owner is None else self._of_modules.get(owner, ()):
            shortcut = known.shortcut
            if shortcut is not None:
                result = shortcut(owner, rest, kwargs)
                if result is not MISSED:
                    return result
        if (
            torch._C._get_tracing_state() is not None
        ):  # kernels are no TorchScript, and what is kept must not be recorded
            exporting.check_no_onnx(self)
            raise RuntimeError(
                f"columba: {_name_of(self)} is compiled, which torch.jit.trace cannot record; trace the module that it was made of"
            )
        if exporting.is_recorded():
            return self._exported(owner, args, kwargs)
        failure, found = self._failure(owner, rest, kwargs), None
        if failure is None:
            with hooks.meeting() as met:
                try:
                    found = self.specialize(*args, **kwargs)
                except _NotTraced:
                    with hooks.taking(None):
                        return self.current(owner)(*args, **kwargs)
                except Exception as e:
                    failure = self._break(e, owner, remembers=not met)
                    if failure is None and not met:
                        raise
            unknown = met if found is None else hooks.unsettled(found[0].trace.phases)
            if unknown:
                return self._first_of_hooks(found, unknown, args, kwargs)
            if found is not None and self.may_break and (why := hooks.touching(found[0].trace.phases)) is not None:
                failure = self._break(_late(TraceError(why), found), owner)
        if failure is not None:
            result = self._in_python(failure, owner, args, kwargs)
            if failure.is_unsure:
                self._remember(failure, owner)
            return result
        assert found is not None
        return found[0](found[1], owner)

    def _exported(self, owner: nn.Module | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call where operators are recorded."""
        try:
            return exporting.call(self, args, kwargs)
        except TraceError as e:
            failure = self._break(e, owner, remembers=False)
            if failure is None:
                raise
        return self._in_python(failure, owner, args, kwargs)

    def _first_of_hooks(
        self,
        found: tuple[Specialization, Bound] | None,
        met: list[hooks.Met],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """The call as it is, not compiled: shows which hooks of inner modules return something, and so belong to the program."""
        with hooks.noting():
            result = self._of(args)(*args, **kwargs)
        hooks.settle(met)
        owner, _ = self._split(args)
        try:
            if found is not None:
                found[0].trace.check_unchanged(found[1], has_stored=True)
            self.specialize(*args, **kwargs)  # what cannot be compiled is an error at this call, not at the next
        except Exception as e:
            if self._break(e if found is None else _late(e, found), owner) is None:
                raise
        return result

    # -------------------------------------------------------------------------------------------- what cannot be traced

    @property
    def may_break(self) -> bool:
        """Whether it runs in Python where it cannot be traced."""
        if self.options.fullgraph is None:
            return self.is_model or regions.current() is not None
        return not self.options.fullgraph

    def _failure(self, owner: nn.Module | None, rest: tuple[Any, ...], kwargs: dict[str, Any]) -> Failure | None:
        """The failure that the trace of such a call was before."""
        failures = self._failures.get(self if owner is None else owner)
        return None if failures is None or not self.may_break else failures.of(owner, rest, kwargs)

    def _break(self, error: Exception, owner: nn.Module | None, remembers: bool = True) -> Failure | None:
        """What is remembered of a trace that failed; None where the error is the user's, or nothing may fail."""
        cause = _cause(error)
        if cause is None or not self.may_break:
            return None
        is_unsure = not isinstance(cause, TraceError)
        reason = f"{type(cause).__name__} in the trace: {cause}" if is_unsure else str(cause)
        attempt: Attempt | None = getattr(cause, "attempt", None)
        is_passing = isinstance(cause, FillsCache)
        failure = Failure(reason, attempt, None if owner is None else owner.training, is_unsure, is_passing)
        if remembers and not is_unsure and not is_passing:
            self._remember(failure, owner)
        return failure

    def _remember(self, failure: Failure, owner: nn.Module | None) -> None:
        with self._lock:
            self._failures.setdefault(self if owner is None else owner, Failures()).add(failure)

    def _in_python(
        self,
        failure: Failure,
        owner: nn.Module | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """The call as it is, with the modules that it calls compiled."""
        root, name, around = self if owner is None else owner, self._name(owner), regions.current()
        if pyg.is_layer(owner) and not failure.is_passing and not pyg.has_result(owner):
            self._tell_layer(failure, owner)
        if around is not None and owner is not None and around.compiled(type(owner), around.options) is self:
            with around.in_python(root, name, failure):
                return self.current(owner)(*args, **kwargs)
        here = self._regions(owner, None, collects=root not in self._told and not failure.is_passing)
        with here.in_python(root, name, failure):
            result = self.current(owner)(*args, **kwargs)
        if here.collects:
            self._told.add(root)
            here.tell(root, name)
        return result

    def _tell_layer(self, failure: Failure, owner: Any) -> None:
        """An error, or a warning, about a layer of PyG's that does not run compiled."""
        name = getattr(owner, "original_type", type(owner)).__name__
        if self.options.strict:
            raise TraceError(f"{name} runs in PyTorch, which strict=True makes an error: {failure.reason}")
        regions.tell_layer(name, failure.reason)

    def _regions(self, owner: nn.Module | None, seen: Seen | None, collects: bool) -> Regions:
        root = self if owner is None else owner
        if root not in self._intercepts:
            self._intercepts.add(root)
            hooks.intercept_while_alive(root)
        return Regions(self.options, forward_of, seen, collects)

    def _name(self, owner: nn.Module | None) -> str:
        return _name_of(self) if owner is None else type(owner).__name__

    def explained(self, seen: Seen, *args: Any, **kwargs: Any) -> list[Break]:
        """What does not run compiled of a call, and why; of what does ``seen`` is told.

        Raises:
            TraceError: it cannot be traced, and may not break.
        """
        owner, rest = self._split(args)
        failure, found = self._found(owner, rest, args, kwargs)
        if failure is None:
            seen(self if owner is None else owner, self, *found)
            return []
        here = self._regions(owner, seen, collects=True)
        with here.in_python(self if owner is None else owner, self._name(owner), failure):
            self.current(owner)(*args, **kwargs)
        breaks = here.breaks(self if owner is None else owner)
        if not breaks:
            raise NothingToCompile(failure.reason)
        return breaks

    def shown(self, seen: Seen, *args: Any, **kwargs: Any) -> Any:
        """A call within one that is explained: what would be compiled of it is told, and all of it runs in PyTorch."""
        owner, rest = self._split(args)
        failure, found = self._found(owner, rest, args, kwargs)
        if failure is not None:
            return self._in_python(failure, owner, args, kwargs)
        seen(owner, self, *found)
        with hooks.taking(None):
            return self.current(owner)(*args, **kwargs)

    def _found(
        self, owner: nn.Module | None, rest: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Failure | None, Any]:
        failure = self._failure(owner, rest, kwargs)
        if failure is None:
            try:
                return None, self.specialize(*args, **kwargs)
            except Exception as e:
                failure = self._break(e, owner)
                if failure is None:
                    raise
        return failure, None

    # -------------------------------------------------------------------------------------------- traces

    def specialize(self, *args: Any, **kwargs: Any) -> tuple[Specialization, Bound]:
        """The specialization that a call with these arguments runs, traced now if there is none yet, and the call bound to it."""
        owner, rest = self._split(args)
        with self._lock:
            known = self._own if owner is None else self._of_modules.setdefault(owner, [])
            for n, candidate in enumerate(known):
                bound = candidate.match(owner, rest, kwargs)
                if bound is not None:
                    if n:
                        known.insert(0, known.pop(n))
                    return candidate, bound
            self._check_may_trace(owner, known, rest, kwargs)
            before = State(owner if self.may_break else None, (rest, kwargs))
            try:
                made, bound = self._traced(owner, rest, kwargs)
                if made.trace.rewritten and len(known) >= _MOST_REWRITES:
                    raise self._rewrites(made, rest, kwargs)
            except Exception as e:
                if _cause(e) is not None:
                    before.put_back()
                if (
                    isinstance(e, TraceError)
                    and self.options.fullgraph is None
                    and not self.may_break
                    and OF_FUNCTIONS not in str(e)
                ):
                    e.args = (f"{e} ({OF_FUNCTIONS})",)
                raise
            self._tell(made, known, rest, kwargs)
            if len(known) == MANY_TRACES:
                _warn_many_traces(self, known[0].trace.difference(rest, kwargs))
            if made.trace.breaks:
                regions.tell_split(self._name(owner), len(made.kernels), [why for _, why in made.trace.breaks])
            known.insert(0, made)
            del known[MOST_TRACES:]
            return made, bound

    def _tell(
        self, made: Specialization, known: list[Specialization], rest: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Logs a new trace."""
        if known and RECOMPILES.isEnabledFor(logging.INFO):
            why = known[0].trace.difference(rest, kwargs)
            RECOMPILES.info("%s has %d traces, and is traced again because %s", _name_of(self), len(known), why)
        TRACES.info("%s is traced", _name_of(self))
        if GUARDS.isEnabledFor(logging.INFO):
            read = ", ".join(dict.fromkeys(str(source) for source, _ in made.trace.guards.variables))
            GUARDS.info(
                "the trace of %s holds for its arguments, and while nothing changes of: %s", _name_of(self), read
            )

    def _check_may_trace(
        self, owner: nn.Module | None, known: list[Specialization], rest: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        dynamo: Any = sys.modules.get("torch._dynamo.eval_frame")
        stance = "default" if dynamo is None else dynamo._stance.stance
        if stance == "eager_on_recompile":
            raise _NotTraced
        if stance == "fail_on_recompile":
            why = f": {known[0].trace.difference(rest, kwargs)}" if known else ""
            raise _MustNotTrace(
                f"columba: {_name_of(self)} would be traced while torch.compiler's stance is 'fail_on_recompile'{why}"
            )
        failures = self._failures.get(self if owner is None else owner)
        last = None if failures is None or not self.may_break else failures.last(owner)
        if last is not None:
            given_up = TraceError(last.reason)
            given_up.attempt = last.attempt
            raise given_up

    def _traced(
        self, owner: nn.Module | None, rest: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Specialization, Bound]:
        fn = self.current() if owner is None else types.MethodType(pyg.lowered(owner, self.current(owner)), owner)
        # In the second run there is what the first only sets up: a cache, a module that is built late.
        for is_last in (False, True):
            with without_transforms():  # a trace serves calls outside of them too
                traced = trace(fn, owner, rest, kwargs, self.following(owner), splits=self.may_break)
                made = Specialization(traced, self.options)
            bound = made.trace.match(rest, kwargs)
            if bound is not None:
                return made, bound
            if is_last:
                break
        error = TraceError(
            f"{_name_of(self)} changes, while it runs, something that its own result depends on: "
            f"{made.trace.difference(rest, kwargs)}. That would happen once, where it is traced, and not at every call; do it "
            "outside the compiled function"
        )
        error.attempt = Attempt(made.trace.guards, met_graph=True).of_later_calls((rest, kwargs))
        raise error

    def _rewrites(self, made: Specialization, rest: tuple[Any, ...], kwargs: dict[str, Any]) -> TraceError:
        """The error for attributes that one call sets to this and another to that: a trace would do so only where it is traced."""
        guards, rewritten = made.trace.guards, made.trace.rewritten
        error = TraceError(
            f"{_name_of(self)} sets {', '.join(read.name for read in rewritten)} to one value in some calls and to another in others, "
            "and is traced anew each time; do it outside the compiled function"
        )
        checks = tuple(check for check in guards.checks if check not in rewritten)
        error.attempt = Attempt(replace(guards, checks=checks), met_graph=True).of_later_calls((rest, kwargs))
        return error

    def current(self, owner: nn.Module | None = None) -> Callable[..., Any]:
        """The function as it is to be traced now."""
        return self.fn

    def _of(self, args: tuple[Any, ...]) -> Callable[..., Any]:
        return self.current(self._split(args)[0])

    def following(self, owner: nn.Module | None) -> tuple[type, nn.Module | None] | None:
        """For a compiled instance: the class whose ``forward`` counts, and the module that it was made of."""
        return None

    def _split(self, args: tuple[Any, ...]) -> tuple[nn.Module | None, tuple[Any, ...]]:
        """The module whose method this is, if any, and the remaining arguments."""
        if self.is_method and args and isinstance(args[0], nn.Module):
            return args[0], args[1:]
        return None, args


skipped_by_dynamo(CompiledFunction.__get__)  # what it would make of the method alone calls itself


class Forward(CompiledFunction):
    """``forward`` of the modules of a class, as the class has it at each call."""

    def __init__(self, kind: type[nn.Module], options: Options) -> None:
        self.kind = kind
        super().__init__(self.current(), options)
        self.is_method = self.is_model = True

    def current(self, owner: nn.Module | None = None) -> Callable[..., Any]:
        own = None if owner is None else pyg.own_forward(owner)
        if own is not None:
            return own
        forward: Any = self.kind.forward
        return forward.current() if isinstance(forward, CompiledFunction) else forward  # type: ignore[no-any-return]

    def following(self, owner: nn.Module | None) -> tuple[type, nn.Module | None] | None:
        return self.kind, None


@functools.cache
def forward_of(kind: type[nn.Module], options: Options) -> Forward:
    """What is compiled of a class, for its modules that are called by a model that runs in regions."""
    return Forward(kind, options)


def _cause(error: Exception) -> Exception | None:
    """Why something is outside of the language; None where an error is the user's own.

    PyTorch, and code of others, may fail on symbols with errors of all kinds. Whether such an error is the user's shows when the code runs
    in Python, unless it is of a kind that says that what was passed in does not fit, which Columba's own checks raise.
    """
    certain = (ValueError, TypeError, LookupError, _NotTraced, _MustNotTrace)
    return trace_error_in(error) or (None if isinstance(error, certain) else error)


def _late(error: Exception, found: tuple[Specialization, Bound]) -> Exception:
    """An error that shows only after a trace: calls that match the trace fail."""
    cause = trace_error_in(error)
    if cause is not None and cause.attempt is None:
        specialization, bound = found
        cause.attempt = Attempt(specialization.trace.guards, met_graph=True).of_later_calls(bound.call)
    return error


def _method_of(function: CompiledFunction) -> Callable[..., Any]:
    """A function as Python's own, of which it makes methods: PyTorch's tools ask methods for their code, and Dynamo reads it."""

    call = function.__call__  # which Python finds faster than what function(...) calls

    def forward(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs)

    forward.__name__ = forward.__qualname__ = getattr(function, "__name__", "forward")
    forward.compiled = forward.__wrapped__ = function  # type: ignore[attr-defined]
    return forward


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
