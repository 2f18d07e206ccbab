"""Forward hooks of modules that traced code calls: those that compute are traced, those that observe run after every call.

A hook that returns a value changes what the program computes, and is traced like the code around it. One that returns None only looks: it
is *put off*. What it would have been handed become results of the program, and it gets them, with their values, once the program has run.
Which of the two a hook is shows only when it is called, and a call on symbols would leave its side effects behind. So the first call
that meets a hook is not compiled: the function runs as it is, with every effect once, and what its hooks return is noted.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from columba.frontend import pyg
from columba.frontend.counts import RealGraph
from columba.frontend.edge_index import is_edge_index
from columba.frontend.effects import hooked
from columba.frontend.errors import TraceError, fail, location
from columba.frontend.record import Record, Recorder, current
from columba.frontend.snapshot import Same, TooLarge, snapshot
from columba.frontend.symbolic import traced
from columba.frontend.trees import leaves, mapped
from columba.runtime.graphs.graph import Graph

_original: Callable[..., Any] = nn.Module._call_impl
_globals = vars(nn.modules.module)


class _State(threading.local):
    """Of a thread: how many want hooks noted, the hooks that its traces met, and who takes its calls of modules."""

    noting = 0
    met: list[Met] | None = None
    take: Take | None = None


_state = _State()
_lock = threading.Lock()
_users = 0
_noted: weakref.WeakKeyDictionary[nn.Module, dict[int, tuple[Same, bool]]] = weakref.WeakKeyDictionary()
"""For each module, by the number of the hook: the hook, and whether it has ever returned something for this module."""

_touching: weakref.WeakKeyDictionary[nn.Module, dict[int, tuple[Same, str]]] = weakref.WeakKeyDictionary()
"""For each module, by the number of the hook: a hook that does something to the tensors that it is handed, and what."""

Met = tuple[Same, int, Same]
"""A module, the number of a hook that it has, and the hook."""

Take = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]
"""Calls a module with these arguments."""

FORWARD = ("_global_forward_pre_hooks", "_forward_pre_hooks", "_global_forward_hooks", "_forward_hooks")
_BACKWARD = ("_backward_hooks", "_backward_pre_hooks")
_REPLACED = {WeightNorm: "weight_norm", SpectralNorm: "spectral_norm"}


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Of a module; looking there is not noted as a read of the traced function."""
    found: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return found


def _registered(module: nn.Module, name: str) -> dict[int, Any]:
    found: dict[int, Any] = _globals[name] if name.startswith("_global") else _attributes(module)[name]
    return found


def name_of(hook: Any) -> str:
    """A hook in messages."""
    hook = getattr(hook, "func", hook)
    return str(getattr(hook, "__qualname__", type(hook).__name__))


# ------------------------------------------------------------------------------------------------ which of the two


def computes(module: nn.Module, number: int, hook: Any) -> bool | None:
    """Whether a hook returns something; None where it was never called for this module."""
    known = _noted.get(module, {}).get(number)
    return known[1] if known is not None and known[0].value is hook else None


def note(module: nn.Module, number: int, hook: Any, returned: bool) -> None:
    before = computes(module, number, hook)
    _noted.setdefault(module, {})[number] = Same(hook), returned or bool(before)


@contextlib.contextmanager
def intercepting() -> Iterator[None]:
    """Within, calls of modules come by :func:`call_module`, in all threads."""
    _install()
    try:
        yield
    finally:
        _uninstall()


def _install() -> None:
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            nn.Module._call_impl = call_module  # type: ignore[method-assign]


def _uninstall() -> None:
    global _users
    with _lock:
        _users -= 1
        if not _users:
            nn.Module._call_impl = _original  # type: ignore[method-assign]


def intercept_while_alive(owner: Any) -> None:
    """Calls of modules come by :func:`call_module` for as long as an object lives.

    Not for each of its calls: a class that has changed often enough loses Python's cache of its attributes.
    """
    _install()
    weakref.finalize(owner, _uninstall).atexit = False


@contextlib.contextmanager
def taking(take: Take | None) -> Iterator[None]:
    """Within, calls of modules in this thread go to ``take``, outside of traces; None: they are as they are.

    :func:`intercept_while_alive` must have been asked for.
    """
    outer, _state.take = _state.take, take
    try:
        yield
    finally:
        _state.take = outer


def as_it_is(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a module as PyTorch does."""
    return _original(module, *args, **kwargs)


@contextlib.contextmanager
def noting() -> Iterator[None]:
    """Within, what forward hooks return in this thread is noted."""
    _state.noting += 1
    try:
        with intercepting():
            yield
    finally:
        _state.noting -= 1


@contextlib.contextmanager
def _hooks_noted(module: nn.Module) -> Iterator[None]:
    """Within, the hooks of a module say what they return."""
    swapped: list[tuple[dict[int, Any], int, Any, Any]] = []
    for name in FORWARD:
        hooks = _registered(module, name)
        for number, hook in list(hooks.items()):
            if not hasattr(hook, "notes_results"):
                hooks[number] = noted = _noting(number, hook)
                swapped.append((hooks, number, noted, hook))
    try:
        yield
    finally:
        for hooks, number, noted, hook in swapped:
            if hooks.get(number) is noted:  # it may have been removed meanwhile
                hooks[number] = hook


def _noting(number: int, hook: Any) -> Any:
    def noted(module: nn.Module, *args: Any) -> Any:
        before = [(x, version(x), _wants_gradient(x)) for x in leaves(args) if isinstance(x, Tensor)]
        result = hook(module, *args)
        note(module, number, hook, result is not None)
        if any(version(x) != seen for x, seen, _ in before):
            _touching.setdefault(module, {})[number] = Same(hook), "changes a tensor in place"
        elif any(_wants_gradient(x) != wanted for x, _, wanted in before):
            _touching.setdefault(module, {})[number] = Same(hook), "asks for the gradient of a tensor"
        return result

    noted.notes_results = True  # type: ignore[attr-defined]
    return noted


def _wants_gradient(x: Tensor) -> tuple[bool, int]:
    return x.retains_grad, len(x._backward_hooks or ())


def touching(phases: tuple[Phase, ...]) -> str | None:
    """What a hook that is put off does to tensors that it is handed, where it was seen to do that, in words."""
    for phase in phases:
        known = _touching.get(phase.module.value, {})
        for one in phase.hooks:
            hook, what = known.get(one.number, (None, ""))
            if hook is not None and hook.value is one.hook.value:
                return f"the hook {name_of(one.hook.value)} of {type(phase.module.value).__name__} {what}"
    return None


@contextlib.contextmanager
def meeting() -> Iterator[list[Met]]:
    """Gives the hooks that traces of this thread meet within, and of which nothing was noted."""
    met: list[Met] = []
    outer, _state.met = _state.met, met
    try:
        yield met
    finally:
        _state.met = outer


def settle(met: list[Met]) -> None:
    """Hooks that only the trace has met count as observing until they return something."""
    for module, number, hook in met:
        if module.value is not None and hook.value is not None:
            note(module.value, number, hook.value, False)


# ------------------------------------------------------------------------------------------------ while traced


@dataclass(eq=False)
class PutOff:
    """A hook, with what it is handed: records, counts, and whatever is the same at every call."""

    number: int
    hook: Same
    args: tuple[Any, ...]
    is_always_called: bool


@dataclass(eq=False)
class Phase:
    """The hooks of one call of a module before, or after, its ``forward`` that are put off."""

    module: Same
    hooks: list[PutOff] = field(default_factory=list)


@dataclass
class HookGuard:
    """The hooks that a module (or, for ``_global...``, any) has, and which of them are put off."""

    owner: Same
    name: str
    seen: tuple[Any, ...]

    def mismatch(self) -> str | None:
        module = self.owner.value
        if module is None or _seen(module, self.name) != self.seen:
            return f"the hooks of a {type(module).__name__} have changed"
        return None


def _seen(module: nn.Module, name: str) -> tuple[Any, ...]:
    """The hooks in order: one that is put off by identity, since what it holds is its own; one that is traced by what it holds."""
    found = []
    for number, hook in _registered(module, name).items():
        put_off = not computes(module, number, hook)
        try:
            found.append((number, put_off, Same(hook) if put_off else snapshot(hook)))
        except TooLarge:
            found.append((number, put_off, Same(hook)))
    return tuple(found)


def call_module(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """``nn.Module._call_impl`` while functions are traced, their hooks noted, or models run in regions."""
    if torch.compiler.is_dynamo_compiling():
        return _original(self, *args, **kwargs)
    recorder = current()
    if recorder is None:
        if _state.noting:
            with _hooks_noted(self):
                return _original(self, *args, **kwargs)
        return _original(self, *args, **kwargs) if _state.take is None else _state.take(self, args, kwargs)
    call = recorder.modules.begin(self, pyg.is_graph_layer(self), len(recorder.records))
    try:
        return _call_traced(recorder, self, args, kwargs)
    finally:
        recorder.modules.finish(call, len(recorder.records))


def _call_traced(recorder: Recorder, self: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a module while a function is traced."""
    args, kwargs = mapped(lambda x: _plain(recorder, x), (args, kwargs))
    forward = pyg.forward_of(self)
    if not any(_registered(self, name) for name in FORWARD) and (forward is None or not _has_backward_hooks(self)):
        return _original(self, *args, **kwargs) if forward is None else forward(*args, **kwargs)
    if torch.is_grad_enabled() and _has_backward_hooks(self):
        raise fail(
            f"{hooked(self)} is called inside a compiled function, where no gradient of its own passes through it; hook the compiled "
            "module itself, or its results (out.register_hook(...)), or leave columba.compile away while hooking"
        )
    for name in FORWARD:
        hooks = _registered(self, name)
        for hook in hooks.values():
            if type(hook) in _REPLACED:
                old = _REPLACED[type(hook)]
                raise fail(
                    f"torch.nn.utils.{old} sets {hook.name!r} of this {type(self).__name__} in a hook, which a compiled function cannot; "
                    f"use torch.nn.utils.parametrizations.{old}"
                )
        if name.startswith("_global") or any(not computes(self, n, hook) for n, hook in hooks.items()):
            recorder.hook_guards.append(HookGuard(Same(self), name, _seen(self, name)))
        else:
            getattr(self, name)  # noted as what the function reads
    phase = Phase(Same(self))
    with_kwargs = _attributes(self)["_forward_pre_hooks_with_kwargs"]
    for number, hook in [*_globals[FORWARD[0]].items(), *_attributes(self)[FORWARD[1]].items()]:
        handed: tuple[Any, ...] = (args, kwargs) if number in with_kwargs else (args,)
        if _put_off(recorder, phase, number, hook, handed):
            continue
        changed = hook(self, *handed)
        if changed is not None and number in with_kwargs:
            if not (isinstance(changed, tuple) and len(changed) == 2):
                raise RuntimeError(
                    f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {changed}."
                )
            args, kwargs = changed
        elif changed is not None:
            args = changed if isinstance(changed, tuple) else (changed,)
    _add(recorder, phase)
    result = self.forward(*args, **kwargs) if forward is None else forward(*args, **kwargs)
    phase = Phase(Same(self))
    with_kwargs = _attributes(self)["_forward_hooks_with_kwargs"] | _globals["_global_forward_hooks_with_kwargs"]
    for number, hook in [*_globals[FORWARD[2]].items(), *_attributes(self)[FORWARD[3]].items()]:
        handed = (args, kwargs, result) if number in with_kwargs else (args, result)
        if not _put_off(recorder, phase, number, hook, handed):
            changed = hook(self, *handed)
            result = result if changed is None else changed
    _add(recorder, phase)
    return result


def _plain(recorder: Recorder, x: Any) -> Any:
    """What a module is called with; of an ``EdgeIndex`` that an argument holds, the tensor that it is."""
    stand_in = recorder.of_argument(x) if isinstance(x, Tensor) and is_edge_index(x) else None
    return x if stand_in is None else stand_in


def _has_backward_hooks(module: nn.Module) -> bool:
    return any(getattr(module, n) or _globals[f"_global{n}"] for n in _BACKWARD)


def _add(recorder: Recorder, phase: Phase) -> None:
    if phase.hooks:
        recorder.phases.append(phase)


def _put_off(recorder: Recorder, phase: Phase, number: int, hook: Any, handed: tuple[Any, ...]) -> bool:
    """Whether a hook is put off."""
    module = phase.module.value
    known = computes(module, number, hook)
    if known:
        return False
    if known is None and _state.met is not None:
        _state.met.append((phase.module, number, Same(hook)))

    def recorded(x: Any) -> Any:
        if isinstance(x, Tensor):
            return recorder.operand(x)
        if isinstance(x, Graph):
            return RealGraph(traced(x).number)
        if any(isinstance(v, (Tensor, Recorder)) for v in getattr(x, "__dict__", {}).values()) and not isinstance(
            x, nn.Module
        ):
            raise fail(
                f"the hook {name_of(hook)} of {type(module).__name__} is handed a {type(x).__name__} that holds tensors of the compiled "
                "function; hand on tensors, in tuples, lists and dicts"
            )
        return x

    always = (
        number in _attributes(module)["_forward_hooks_always_called"]
        or number in _globals["_global_forward_hooks_always_called"]
    )
    phase.hooks.append(PutOff(number, Same(hook), mapped(recorded, handed), always))
    return True


# ------------------------------------------------------------------------------------------------ at every call


def unsettled(phases: tuple[Phase, ...]) -> list[Met]:
    """The hooks that are put off, and were never called for their module."""
    return [
        (phase.module, one.number, one.hook)
        for phase in phases
        for one in phase.hooks
        if computes(phase.module.value, one.number, one.hook.value) is None
    ]


def run(
    phases: tuple[Phase, ...],
    values: Mapping[Record, Any],
    count: Callable[[Any], Any],
    partial: frozenset[Record],
) -> None:
    """Runs the hooks that were put off, in the order in which they would have run.

    Args:
        values: of every record that a hook is handed.
        count: gives what stands for a number of rows, or for a graph, as it is in this call.
        partial: records from which the program itself computes further: their gradients are not known outside of it.

    Raises:
        TraceError: a hook changes what it is handed, asks for a gradient that is not there, or returns something.
    """

    def actual(x: Any) -> Any:
        return values[x] if isinstance(x, Record) else count(x)

    for phase in phases:
        module: nn.Module = phase.module.value
        registered = {n: hook for name in FORWARD for n, hook in _registered(module, name).items()}
        pending = [(one, one.hook.value) for one in phase.hooks if registered.get(one.number) is one.hook.value]
        while pending:
            one, hook = pending.pop(0)
            try:
                _run(one, hook, module, mapped(actual, one.args), values, partial)
            except Exception:
                for other, left in pending:
                    if other.is_always_called:
                        _silenced(left, module, mapped(actual, other.args))
                raise


def _run(
    one: PutOff,
    hook: Any,
    module: nn.Module,
    handed: Any,
    values: Mapping[Record, Any],
    partial: frozenset[Record],
) -> None:
    records: list[Record] = []
    mapped(lambda x: records.append(x) if isinstance(x, Record) else None, one.args)
    tensors = [(record, values[record]) for record in records if isinstance(values[record], Tensor)]
    before = [version(tensor) for _, tensor in tensors]
    result = hook(module, *handed)
    who = f"the hook {name_of(hook)} of {type(module).__name__}"
    if result is not None:
        note(module, one.number, hook, True)
        raise TraceError(
            f"{location()}: {who} has returned a value, and nothing when it was called before: the compiled function has gone on without "
            "it. Let a hook always return something (what it was handed), or nothing; from the next call on it is traced"
        )
    for (record, tensor), seen in zip(tensors, before, strict=True):
        if version(tensor) != seen:
            raise TraceError(
                f"{record.where}: {who} changes a tensor in place, which a compiled function cannot; return a new one instead"
            )
        if record in partial and (tensor.retains_grad or tensor._backward_hooks):
            raise TraceError(
                f"{record.where}: {who} asks for the gradient of {record} (retain_grad, register_hook), but a compiled function goes on "
                "from it without passing its gradients through it; return it from the compiled function and pass it to the rest, or leave "
                "columba.compile away while hooking"
            )


def _silenced(hook: Any, module: nn.Module, handed: Any) -> None:
    try:
        hook(module, *handed)
    except Exception as e:
        warnings.warn(
            f"module forward hook with ``always_call=True`` raised an exception that was silenced as another error was raised: {e}",
            stacklevel=2,
        )


def version(tensor: Tensor) -> int:
    """Changes with the tensor's memory; tensors of inference mode do not count."""
    return 0 if tensor.is_inference() else tensor._version
