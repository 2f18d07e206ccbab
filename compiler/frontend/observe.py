"""Read tracking: what a function reads while it is traced, beside its arguments.

A Python program reads in four ways, and an :class:`Observer` sees each of them while it runs:

- *names*: when a function is entered, the globals and enclosing variables that its code names are written down, with what they hold;
- *attributes*: the classes of the objects that it meets get a ``__getattribute__`` that writes down what is read, and so do modules;
- *contents*: what a container, an array or a closure holds is part of what the place that it was read from holds;
- *calls of C functions*: those that give something else each time are refused by name.

Each becomes a guard, and for each tensor there is a source from which later calls take it.
"""

from __future__ import annotations

import enum
import functools
import gc
import sys
import types
from collections.abc import Callable
from threading import get_ident
from typing import Any

from torch import Tensor, nn

from columba.frontend import hooks, impure
from columba.frontend.code import (
    CodeNames,
    disables,
    is_library,
    is_library_module,
    is_of_torch_compile,
    is_own,
    keeps_account,
    names_of,
    start_of,
)
from columba.frontend.errors import TraceError, fail
from columba.frontend.guards import FunctionGuard, Inherited, OfType, Original, Read
from columba.frontend.patches import Patches
from columba.frontend.record import SymbolicTensor
from columba.frontend.snapshot import (
    MISSING,
    MOST_PARTS,
    Same,
    TooLarge,
    attributes_of,
    is_compared_by_identity,
    is_watchable,
    parts_of,
    snapshot,
)
from columba.frontend.sources import (
    Argument,
    Attribute,
    Closure,
    Environment,
    Global,
    Item,
    Member,
    Object,
    OfClass,
    Referent,
    Registered,
    Source,
    in_class,
)
from columba.runtime.graphs.graph import Graph

_GLOBAL_HOOKS = tuple(
    name for name in vars(nn.modules.module) if name.startswith("_global_") and name.endswith("_hooks")
)
_INTERNAL = {nn.Module.__getattr__.__code__, nn.Module.__setattr__.__code__, nn.Module.__delattr__.__code__}
"""Code that reads the dictionaries of a module in order to find one name, which is written down for itself."""


class Observer:
    """Within ``with``, what the thread reads is written down; complete afterwards.

    Attributes:
        sources: where each tensor that was met is found again, by its identity; ``others`` are further places. ``graphs`` likewise.
        asked_of_graphs: the attributes that were read of each graph.
        rewritten: the guards of attributes that were set without being read, and held something else before.
        variables: names, attributes of classes, and other places that were read, with a snapshot of each.
    """

    def __init__(self, fn: Callable[..., Any], owner: nn.Module | None) -> None:
        self.sources: dict[int, Source] = {}
        self.graphs: dict[int, list[Source]] = {}
        self.others: dict[int, list[Source]] = {}
        self.asked_of_graphs: dict[int, set[str]] = {}
        self.variables: dict[Source, Any] = {}
        self.objects: dict[int, Same] = {}
        self.patches = Patches(self.note)
        self._types: dict[int, OfType] = {}
        self._reads: dict[tuple[int, str], Read | Inherited | None] = {}
        self._paths: dict[int, str] = {}
        self._of_arguments: dict[int, Source] = {}
        self._functions: dict[types.CodeType, list[types.FunctionType]] = {}
        self._guarded: dict[int, FunctionGuard] = {}
        self._entered: dict[tuple[int, int], types.CodeType] = {}
        self._inner: set[int] = set()
        self._classes: dict[type, dict[str, Any]] = {}
        self._frames: dict[int, types.FrameType] = {}
        self._alive: list[Any] = []
        self._written: dict[tuple[int, str], tuple[nn.Module, Any]] = {}
        self.rewritten: list[Read] = []
        self._busy = False
        self._away: types.FrameType | None = None  # of an import, or of Columba: what those read is not of the function
        self._resumed: types.FrameType | None = None  # of a generator that was made before
        self._refusal: TraceError | None = None
        self._thread = get_ident()
        self._fn, self._owner = fn, owner

    # -------------------------------------------------------------------------------------------- scope

    def __enter__(self) -> Observer:
        self._previous = sys.getprofile()
        if self._previous is not None and not callable(self._previous) and not hasattr(self._previous, "enable"):
            raise TraceError(
                "a function cannot be traced while a profiler records Python's stack (torch.profiler's with_stack=True); call it once "
                "before, or profile without"
            )
        self._chained = self._previous if callable(self._previous) else None
        self.patches.add(nn.Module)
        self.patches.add(Graph)
        if self._owner is not None:
            self._paths[id(self._owner)] = ""
        self.meet(self._fn, None, "")
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *exception: Any) -> None:
        sys.setprofile(None)
        if self._chained is not None:
            sys.setprofile(self._chained)
        elif self._previous is not None:
            self._previous.enable()  # type: ignore[attr-defined]
        self.patches.remove()
        self._frames.clear()
        self._alive.clear()  # what the function made for itself is gone
        if self._refusal is not None and exception[1] is not self._refusal:
            raise self._refusal

    def checks(self) -> tuple[OfType | Inherited | Read | FunctionGuard, ...]:
        """Guards of the objects and functions that there still are: others were made by the function itself, and are at every call."""
        self._of_arguments.clear()
        found = (*self._types.values(), *self._reads.values())
        here = [check for check in found if check is not None and check.owner.value is not None]
        return (*here, *self._guarded.values())

    def filled(self) -> list[tuple[Any, str, Any]]:
        """Attributes that were read and held None, and hold something now: the object, the name, and what it is."""
        found = []
        for (_, name), read in self._reads.items():
            owner = read.owner.value if isinstance(read, Read) and read.seen is None else None
            value = None if owner is None else getattr(owner, "__dict__", {}).get(name)
            if value is not None:
                found.append((owner, name, value))
        return found

    def follow(self, kind: type, original: nn.Module | None) -> None:
        """The traced method is the ``forward`` that a class has at present, for a module that was compiled."""
        self._seen(OfClass(Same(kind), "forward"), in_class(kind, "forward"))
        if original is not None:
            self._types[id(original)] = Original(Same(original), type(original))

    def _write(self, frame: types.FrameType) -> None:
        """An attribute of a module is set."""
        owner, name = frame.f_locals["self"], frame.f_locals["name"]
        if frame.f_back is not None and not is_library(frame.f_back.f_code.co_filename):
            self._written.setdefault((id(owner), name), (owner, owner.__dict__.get(name)))

    def finish(self) -> None:
        """Adds what classes that were met hold under the names that the code has, and plain values of attributes that were set."""
        for key, (owner, before) in self._written.items():
            value = owner.__dict__.get(key[1])
            if key not in self._reads and type(value) in _PLAIN:
                self._read(owner, key[1], read := Read(Same(owner), key[1], snapshot(value)))
                if before is not None and before != value:
                    self.rewritten.append(read)
        names = functools.reduce(CodeNames.__or__, (names_of(code) for code in self._entered.values()), CodeNames())
        for kind, held in self._classes.items():
            for name in names.read | names.texts:
                if name not in held and name in names.texts:  # of a library's class, or of none
                    inherited = in_class(kind, name)
                    held[name] = MISSING if inherited is MISSING else _remembered(inherited)
                if name in held:
                    self.variables.setdefault(OfClass(Same(kind), name), held[name])

    # -------------------------------------------------------------------------------------------- what is met

    def arguments(self, value: Any, source: Argument) -> None:
        """An argument that is no tensor: objects count by what they hold, so that an equal one does not retrace."""
        self.meet(value, source, str(source), by_value=True)

    def meet(self, value: Any, source: Source | None, path: str, by_value: bool = False) -> None:
        """Watches a value and all that it holds."""
        pending: list[tuple[Any, Source | None, str]] = [(value, source, path)]
        seen: set[int] = set()
        while pending:
            value, source, path = pending.pop()
            if value is None or isinstance(value, (str, int, float, Tensor, Graph, nn.Module, types.ModuleType)):
                self._leaf(value, source, path)
                continue
            if id(value) in seen:
                continue
            seen.add(id(value))
            if len(seen) > 2 * MOST_PARTS:
                raise fail(f"{path or source} holds too much to be watched; pass what is needed of it as an argument")
            self._alive.append(value)
            pending += reversed(self._inside(value, source, path, by_value))

    def _leaf(self, value: Any, source: Source | None, path: str) -> None:
        if isinstance(value, Tensor):
            if source is not None and self.sources.setdefault(id(value), source) != source:
                self.others.setdefault(id(value), []).append(source)
            self._alive.append(value)
        elif isinstance(value, Graph):
            known = self.graphs.setdefault(id(value), [])
            if source is not None and source not in known:
                known.append(source)
            self._alive.append(value)
        elif isinstance(value, nn.Module):
            self._paths.setdefault(id(value), path)
            self.objects.setdefault(id(value), Same(value))
            self._meet_class(type(value))
            if type(value).__getattribute__ is not nn.Module.__getattribute__:
                self.patches.add(type(value))
        elif isinstance(value, types.ModuleType) and (value in impure.NUMPY or not is_library_module(value.__name__)):
            self.patches.add_module(value)

    def _inside(
        self, value: Any, source: Source | None, path: str, by_value: bool
    ) -> list[tuple[Any, Source | None, str]]:
        """What a value holds, and where it is found."""
        if isinstance(value, types.FunctionType):
            self._meet_function(value)
            return []
        if isinstance(value, type):
            self._meet_class(value)
            return []
        if isinstance(value, enum.Enum):
            return []
        if isinstance(value, (staticmethod, classmethod)):
            return [(value.__func__, None, path)]
        if isinstance(value, property):
            return [(f, None, path) for f in (value.fget, value.fset) if f is not None]
        if isinstance(value, functools._lru_cache_wrapper):
            return [(value.__wrapped__, None, path), *((v, None, path) for v in gc.get_referents(value))]
        if hasattr(type(value), "specialize"):  # a compiled function
            return [(value.fn, None, path)]
        parts = parts_of(value)
        found: list[tuple[Any, Source | None, str]] = []
        if parts is not None:
            found += [(part, *_at(source, path, step)) for step, part in parts]
        if isinstance(value, (types.MethodType, types.BuiltinMethodType)):
            return found
        if is_watchable(value) and not is_library_module(type(value).__module__, classes=True):
            self.patches.add(type(value))
            self.objects.setdefault(id(value), Same(value))
            self._meet_class(type(value))
            if not by_value or is_compared_by_identity(value):
                self._paths.setdefault(id(value), path)
                return found
            if source is not None:
                self._of_arguments[id(value)] = source
        elif is_watchable(value) and not by_value:
            return found
        for name, part in attributes_of(value).items():
            found.append((part, None if source is None else Member(source, name), f"{path}.{name}"))
        if parts is None and not found and not callable(value):
            found = [
                (v, None, path)
                for v in gc.get_referents(value)
                if isinstance(v, (Tensor, nn.Module, dict, list, tuple))
            ]
        return found

    def _meet_function(self, function: types.FunctionType) -> None:
        known = self._functions.setdefault(function.__code__, [])
        if not any(f is function for f in known):
            known.append(function)
            if any(code is function.__code__ for code in self._entered.values()):
                self._guard_function(function)

    def _meet_class(self, kind: type) -> None:
        if kind in self._classes or is_library_module(kind.__module__, classes=True):
            return
        self._classes[kind] = held = {}
        for one in reversed(kind.__mro__):
            if not is_library_module(one.__module__, classes=True):
                for name, value in list(one.__dict__.items()):
                    held[name] = _remembered(value)
                    self.meet(value, OfClass(Same(kind), name), f"{kind.__name__}.{name}")

    # -------------------------------------------------------------------------------------------- attributes

    def note(self, owner: Any, name: str, value: Any) -> None:
        """An attribute is read."""
        if self._busy or self._away is not None or get_ident() != self._thread:
            return
        key = id(owner), name
        if key in self._reads:
            known = self._reads[key]
            if known is None or known.owner.value is owner:
                return
        self._busy = True
        try:
            self._note(owner, name, value)
        finally:
            self._busy = False

    def _note(self, owner: Any, name: str, value: Any) -> None:
        if name == "__class__" or (name == "__dict__" and sys._getframe(3).f_code in _INTERNAL):
            return None
        if isinstance(owner, types.ModuleType):
            if owner in impure.NUMPY:
                if not is_library(sys._getframe(3).f_code.co_filename):
                    impure.check_read(owner, name)
                    self.meet(value, None, name)
                return None
            return (
                self.variable(Global(owner.__dict__, name))
                if value is not MISSING or not name.startswith("__")
                else None
            )
        kind = type(owner)
        if isinstance(owner, Graph):
            if kind is Graph and not is_library(sys._getframe(3).f_code.co_filename):
                self.asked_of_graphs.setdefault(id(owner), set()).add(name)
            return None
        own = object.__getattribute__(owner, "__dict__") if hasattr(kind, "__dict__") and kind.__dictoffset__ else {}
        static = in_class(kind, name)
        is_data = hasattr(type(static), "__set__")
        if static is MISSING or (name in own and not is_data) or isinstance(static, _SLOTS):
            return self._note_own(owner, name, value, own, static)
        if isinstance(static, types.FunctionType) and _is_fixed(static, name):
            return None
        self._seen(OfClass(Same(kind), name), static)
        if not is_data and kind.__dictoffset__ and id(owner) not in self._of_arguments:
            self._read(owner, name, Inherited(Same(owner), name))
        return None

    def _note_own(self, owner: Any, name: str, value: Any, own: Any, static: Any) -> None:
        base = self._of_arguments.get(id(owner))
        if base is not None:
            return self.meet(value, Member(base, name), f"{base}.{name}", by_value=True)
        if isinstance(value, SymbolicTensor):  # which the function has put there itself
            return None
        path = self._paths.get(id(owner), "")
        path = f"{path}.{name}" if path else name
        if static is MISSING and name not in own and not is_library_module(type(owner).__module__, classes=True):
            self.variables[OfClass(Same(type(owner)), name)] = MISSING  # one that is set later would come first
        impure.check_value(value, path)
        self._read(owner, name, Read(Same(owner), name, self._snapshot(value, path)))
        if isinstance(owner, nn.Module) and name in ("_parameters", "_buffers", "_modules"):
            prefix = path[: -len(name)]
            for key, part in value.items():
                self.meet(part, Registered(Same(owner), name, key, prefix + key), prefix + key)
            return None
        return self.meet(value, Attribute(Same(owner), name, path), path)

    def _read(self, owner: Any, name: str, read: Read | Inherited) -> None:
        self._reads[id(owner), name] = read
        self._typed(owner)

    def _typed(self, owner: Any) -> None:
        known = self._types.get(id(owner))
        if (known is None or known.owner.value is not owner) and id(owner) not in self._of_arguments:
            self._types[id(owner)] = OfType(Same(owner), type(owner))
            self.objects[id(owner)] = Same(owner)

    # -------------------------------------------------------------------------------------------- variables

    def variable(self, source: Source) -> None:
        """A variable is read, or will be by the code that is entered."""
        if source in self.variables:
            return
        try:
            value = source.fetch(((), {}))
        except ValueError:  # a cell that is still empty
            return
        impure.check_value(value, str(source))
        self._seen(source, value)

    def _seen(self, source: Source, value: Any) -> None:
        if source in self.variables:
            return
        self.variables[source] = self._snapshot(value, str(source))
        self.meet(value, source, "" if isinstance(value, nn.Module) else str(source))

    def _snapshot(self, value: Any, path: str) -> Any:
        try:
            return snapshot(value)
        except TooLarge as e:
            raise fail(
                f"{path} {e}, which would be compared at every call; pass what is needed of it as an argument, or keep it in a tensor"
            ) from e

    # -------------------------------------------------------------------------------------------- calls

    def _profile(self, frame: types.FrameType, event: Any, arg: Any) -> None:
        if self._away is not None:
            if event == "return" and frame is self._away:
                self._away = None
                if frame.f_code.co_name == "<module>":
                    self._import(frame.f_globals.get("__name__") or "")
        elif not self._busy:
            self._busy = True
            try:
                if event == "call" and (frame.f_code.co_name == "<module>" or is_own(frame.f_code.co_filename)):
                    self._away = frame
                elif event == "call":
                    self._call(frame)
                elif event == "c_call":
                    self._call_of_c(frame, arg)
                elif event == "return" and frame is self._resumed:
                    self._resumed = None
                    self._gave(frame, arg)
            except TraceError as e:
                self._refusal = e
                raise
            finally:
                self._busy = False
        if self._chained is not None:
            self._chained(frame, event, arg)

    def _call(self, frame: types.FrameType) -> None:
        code = frame.f_code
        if code.co_filename == "<string>" and is_library_module(frame.f_globals.get("__name__")):
            return  # what dataclasses generates for a library's classes
        if is_library(code.co_filename):
            if code is impure.GET_ENVIRONMENT:
                self.variable(Environment(frame.f_locals["key"]))
            elif code is impure.IMPORT_MODULE:
                self._import(frame.f_locals["name"])
            elif code is nn.Module.__setattr__.__code__:
                self._write(frame)
            elif (kept := keeps_account(code.co_filename)) is not None:
                raise fail(
                    f"{kept} keeps account of every call, and a compiled function calls it once, when it is traced; compile the module "
                    "that it wraps, or what that calls"
                )
            elif disables(code) is not None and (name := _disabled(frame)) is not None:
                raise fail(
                    f"{name} is marked with torch.compiler.disable, to run as it is; call it outside the compiled function"
                )
            elif is_of_torch_compile(code):
                raise fail(
                    "what is called here is compiled by torch.compile, into kernels of its own. Call what it was made of (of a module, its "
                    "_orig_mod), which becomes part of the program, or call it outside the compiled function"
                )
            elif code in (impure.CALL_MODULE, hooks.call_module.__code__) and ("hooks", 0) not in self._entered:
                self._entered["hooks", 0] = code  # type: ignore[index]
                for name in _GLOBAL_HOOKS:
                    if name in hooks.FORWARD and vars(nn.modules.module)[name]:
                        continue  # guarded where they are called
                    self.variable(Global(vars(nn.modules.module), name))
            return
        if code.co_flags & _GENERATOR:
            if frame.f_lasti > start_of(code) and id(frame) not in self._frames:
                self._resumed = frame  # to give something, or to be closed, wherever garbage is collected
                return
            self._frames[id(frame)] = frame
        first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if isinstance(first, type):
            self._meet_class(first)
        elif is_watchable(first) and not isinstance(first, (Tensor, Graph, enum.Enum)):
            self.meet(first, None, "")
            if not is_library_module(type(first).__module__, classes=True):
                self._typed(first)
        key = id(code), id(frame.f_globals)
        if key in self._entered:
            return
        self._entered[key] = code
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._inner.add(id(constant))
        self._functions_that_run(code, first)
        names = names_of(code)
        for name in names.variables:
            self.variable(Global(frame.f_globals, name))
        for name in names.imports:
            self._import(name)
        if "modules" in names.read and any(frame.f_globals.get(n) is sys for n in names.variables):
            for module in list(sys.modules.values()):
                if type(module) is types.ModuleType and not is_library_module(module.__name__):
                    self.patches.add_module(module)

    def _gave(self, frame: types.FrameType, value: Any) -> None:
        """TraceError if a generator that was made before has been asked for something: it was not merely closed."""
        if value is None and not any(
            type(g) is types.GeneratorType and g.gi_frame is frame and getattr(g, "gi_suspended", False)
            for g in gc.get_objects()
        ):
            return  # closed, or at its end
        code = frame.f_code
        raise fail(
            f"{code.co_qualname if hasattr(code, 'co_qualname') else code.co_name} is a generator that was made before; what it "
            "gives differs at every call. Make it inside, or pass what it gives as arguments"
        )

    def _functions_that_run(self, code: types.CodeType, first: Any) -> None:
        kind = first if isinstance(first, type) else type(first)
        if first is not None and not is_library_module(kind.__module__, classes=True):
            self._method_that_runs(code, kind)
        known = self._functions.get(code)
        if known is None and id(code) not in self._inner:
            known = [f for f in gc.get_referrers(code) if isinstance(f, types.FunctionType)]
        for function in known or ():
            if function.__code__ is code:
                self._guard_function(function)

    def _method_that_runs(self, code: types.CodeType, kind: type) -> None:
        for one in kind.__mro__:
            for name in (code.co_name, *one.__dict__):
                static = one.__dict__.get(name)
                function = getattr(static, "__func__", static)
                if isinstance(function, types.FunctionType) and function.__code__ is code:
                    self._seen(OfClass(Same(one), name), static)
                    if in_class(kind, name) is static:
                        self._seen(OfClass(Same(kind), name), static)
                    self._meet_function(function)
                    return

    def _guard_function(self, function: types.FunctionType) -> None:
        if id(function) in self._guarded and self._guarded[id(function)].function.value is function:
            return
        same, code, name = Same(function), function.__code__, function.__qualname__
        parts = (function.__defaults__, function.__kwdefaults__)
        defaults, keywords = (self._snapshot(part, f"the defaults of {name}") for part in parts)
        self._guarded[id(function)] = FunctionGuard(same, code, defaults, keywords)
        for attribute, part in zip(("__defaults__", "__kwdefaults__"), parts, strict=True):
            self.meet(part, Member(Object(same, name), attribute), f"{name}.{attribute}")
        for index, variable in enumerate(code.co_freevars):
            self.variable(Closure(same, index, variable))

    def _call_of_c(self, frame: types.FrameType, function: Any) -> None:
        impure.check_switch(function)
        if not is_library(frame.f_code.co_filename) or frame.f_code.co_filename == impure.RANDOM:
            impure.check_call(function)
            if isinstance(function.__self__, impure.ContextVar) and function.__name__ == "get":
                self._seen(
                    Referent(Object(Same(function.__self__), function.__self__.name)), function.__self__.get(MISSING)
                )

    def _import(self, name: str) -> None:
        parts = name.split(".")
        for n in range(len(parts)):
            module = sys.modules.get(".".join(parts[: n + 1]))
            if module is not None:
                self._leaf(module, None, name)


def _disabled(frame: types.FrameType) -> str | None:
    """What ``torch.compiler.disable`` was asked to disable, where that is not PyTorch's own."""
    function = frame.f_locals.get("fn")
    module = getattr(function, "__self__", None)
    if isinstance(module, nn.Module):
        return None if is_library_module(type(module).__module__) else type(module).__name__
    code = getattr(function, "__code__", None)
    return None if code is None or is_library(code.co_filename) else str(getattr(function, "__qualname__", function))


_PLAIN = (bool, int, float, complex, str, bytes)
_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)
_GENERATOR = 0x20 | 0x200


_OPEN = (
    *("forward", "propagate", "edge_updater", "collect", "edge_collect"),
    *("message", "aggregate", "update", "edge_update", "message_and_aggregate"),
)
"""Methods that programs replace, those of PyG's layers among them."""


def _is_fixed(method: types.FunctionType, name: str) -> bool:
    """Whether a method is of a library that a program does not change; it may those of ``_OPEN``, and the methods of layers."""
    is_open = name in _OPEN or method.__module__.startswith("columba.nn")
    return not is_open and is_library(method.__code__.co_filename)


def _remembered(value: Any) -> Any:
    try:
        return snapshot(value)
    except TooLarge:
        return Same(value)


def _at(source: Source | None, path: str, step: Any) -> tuple[Source | None, str]:
    """Where a part is found, and what it is called."""
    if source is None or step is None:
        return None, path
    match step:
        case ("item", key):
            return Item(source, key), f"{path}[{key!r}]"
        case ("attribute", name):
            return Member(source, name), f"{path}.{name}"
    return Referent(source), path
