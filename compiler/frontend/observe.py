"""What a function reads beside its arguments: attributes of modules, globals, variables of enclosing functions."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from columba.frontend.errors import fail
from columba.frontend.snapshot import snapshot
from columba.frontend.sources import Attribute, Closure, Global, Source
from columba.runtime.graph import Graph

_OWN_PACKAGES = ("torch", "columba", "builtins", "math", "numpy")


@dataclass
class Surroundings:
    """Where tensors and values outside of the arguments may come from.

    ``sources`` maps the identity of a tensor to where it is found again; ``variables`` are the globals and enclosing variables that the
    code names; ``modules`` are those whose attributes are watched.
    """

    sources: dict[int, Source] = field(default_factory=dict)
    variables: list[Source] = field(default_factory=list)
    modules: dict[nn.Module, None] = field(default_factory=dict)
    graphs: dict[int, Source] = field(default_factory=dict)

    def add_module(self, root: nn.Module) -> None:
        """The module and all inside it."""
        if root in self.modules:
            return
        for prefix, module in root.named_modules():
            self.modules[module] = None
            for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
                self.add_function(hook)
            for place in (module._parameters, module._buffers, module.__dict__):
                for name, value in place.items():
                    self._add(value, Attribute.of(root, f"{prefix}.{name}" if prefix else name))

    def add_function(self, fn: Callable[..., Any]) -> None:
        """The globals and enclosing variables of a function, and of the functions of the user's that it names."""
        for function in _functions_from(fn):
            self._add_variables(function)

    def _add_variables(self, function: types.FunctionType) -> None:
        code = function.__code__
        for name in _names(code):
            if name in function.__globals__:
                self._add_variable(function.__globals__[name], Global(function.__globals__, name))
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # a cell that is still empty
                self._add_variable(cell.cell_contents, Closure(cell, name))

    def _add_variable(self, value: Any, source: Source) -> None:
        self.variables.append(source)
        if isinstance(value, nn.Module):
            self.add_module(value)
        self._add(value, source)

    def _add(self, value: Any, source: Source) -> None:
        if isinstance(value, Tensor):
            self.sources.setdefault(id(value), source)
        elif isinstance(value, Graph):
            self.graphs.setdefault(id(value), source)


def _names(code: types.CodeType) -> list[str]:
    """The global names that code and the code inside it use."""
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names += _names(constant)
    return list(dict.fromkeys(names))


def _functions_from(fn: Callable[..., Any]) -> Iterator[types.FunctionType]:
    """``fn`` and the user's functions that it names, and those that they name."""
    seen: set[types.CodeType] = set()
    pending: list[Any] = [fn]
    while pending:
        function = pending.pop()
        function = getattr(function, "fn", function)  # a compiled function
        function = getattr(function, "__func__", function)
        if not isinstance(function, types.FunctionType) or function.__code__ in seen:
            continue
        if (function.__module__ or "").split(".")[0] in _OWN_PACKAGES:
            continue
        seen.add(function.__code__)
        yield function
        pending += [function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__]
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):
                pending.append(cell.cell_contents)


# ------------------------------------------------------------------------------------------------ attributes


Reads = dict[tuple[nn.Module, str], Any]
"""Attributes read while a function was traced, with a snapshot of each."""

_IGNORED = {"__dict__", "__class__", "_parameters", "_buffers", "_non_persistent_buffers_set"}


@functools.cache
def _watched_type(original: Any) -> type[nn.Module]:
    """A subclass that writes down which attributes are read."""

    def read(self: nn.Module, name: str) -> Any:
        value = original.__getattribute__(self, name)
        _note(self, name, value)
        return value

    def missing(self: nn.Module, name: str) -> Any:
        value = original.__getattr__(self, name)
        _note(self, name, value)
        return value

    members = {
        "__getattribute__": read,
        "__getattr__": missing,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
    }
    return type(original.__name__, (original,), members)


_reads: dict[nn.Module, dict[str, Any]] = {}


def _note(module: nn.Module, name: str, value: Any) -> None:
    notes = _reads.get(module)
    if notes is None or name in notes or name in _IGNORED or isinstance(value, Tensor):
        return
    own = name in object.__getattribute__(module, "__dict__")
    registered = any(
        name in object.__getattribute__(module, place) for place in ("_parameters", "_buffers", "_modules")
    )
    if own or registered or not (callable(value) or isinstance(getattr(type(module), name, None), property)):
        notes[name] = snapshot(value)


@contextlib.contextmanager
def watching(modules: dict[nn.Module, None]) -> Iterator[Reads]:
    """Within, what is read of the modules is written down; the result is complete afterwards."""
    reads: Reads = {}
    swapped: list[tuple[nn.Module, type[nn.Module]]] = []
    try:
        for module in modules:
            original = type(module)
            try:
                module.__class__ = _watched_type(original)  # type: ignore[arg-type]
            except TypeError:  # a module whose class cannot be changed (of TorchScript, say) is left alone
                continue
            swapped.append((module, original))
            _reads[module] = {}
        yield reads
    finally:
        for module, original in swapped:
            module.__class__ = original
            for name, value in _reads.pop(module).items():
                reads[module, name] = value


def check_nothing_kept(modules: dict[nn.Module, None], symbolic: type) -> None:
    """TraceError if a traced tensor was stored on a module."""
    for module in modules:
        for name, value in module.__dict__.items():
            if isinstance(value, symbolic):
                delattr(module, name)
                raise fail(
                    f"self.{name} = ... keeps a tensor of a compiled function; return it instead, and store it outside"
                )
