"""Instrumentation: classes and modules that tell, for a while, which attributes are read."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

from columba.frontend.snapshot import MISSING
from columba.frontend.sources import in_class

Note = Callable[[Any, str, Any], None]
"""Takes the owner, the name, and the value of an attribute that is read; MISSING where there is none."""


class Patches:
    """Calls ``note`` at each read of an attribute of an instance of the classes that are added, and of the modules.

    Classes are changed in place rather than instances: ``type(x)`` stays what it is, and classes with slots can be watched. Reads of other
    threads are noted, too; ``note`` tells them apart.
    """

    def __init__(self, note: Note) -> None:
        self.note = note
        self.classes: dict[type, Any] = {}
        self.modules: dict[int, tuple[types.ModuleType, type]] = {}

    def add(self, kind: Any) -> None:
        original = kind.__getattribute__
        if kind in self.classes or hasattr(original, "notes_reads"):
            return
        before = kind.__dict__.get("__getattribute__", MISSING)
        try:
            type.__setattr__(kind, "__getattribute__", _reading(self.note, original))
        except TypeError:  # a class that is written in C: its objects are compared by what they hold
            return
        self.classes[kind] = before

    def add_module(self, module: types.ModuleType) -> None:
        if id(module) in self.modules:
            return
        kind: Any = type(module)
        try:
            module.__class__ = _watched_module(kind)
        except TypeError:  # of a class with another layout
            return
        self.modules[id(module)] = module, kind
        _notes[id(module)] = self.note

    def remove(self) -> None:
        for kind, before in reversed(self.classes.items()):
            if before is MISSING:
                type.__delattr__(kind, "__getattribute__")
            else:
                type.__setattr__(kind, "__getattribute__", before)
        for module, original in self.modules.values():
            del _notes[id(module)]
            module.__class__ = original  # type: ignore[assignment]
        self.classes.clear()
        self.modules.clear()


def _reading(note: Note, original: Any) -> Any:
    """A ``__getattribute__`` that finds what the original and ``__getattr__`` find, as Python does, and notes it."""

    def read(self: Any, name: str) -> Any:
        try:
            value = original(self, name)
        except AttributeError:
            otherwise = in_class(type(self), "__getattr__")
            if otherwise is MISSING:
                note(self, name, MISSING)
                raise
            try:
                value = otherwise(self, name)
            except AttributeError:
                note(self, name, MISSING)
                raise
        note(self, name, value)
        return value

    read.notes_reads = True  # type: ignore[attr-defined]
    return read


_notes: dict[int, Note] = {}
"""Who wants to know what is read of a module, by the module's identity."""


@functools.cache
def _watched_module(kind: type[types.ModuleType]) -> Any:
    def read(self: types.ModuleType, name: str) -> Any:
        note = _notes.get(id(self))
        try:
            value = kind.__getattribute__(self, name)
        except AttributeError:
            if note is not None:
                note(self, name, MISSING)
            raise
        if note is not None:
            note(self, name, value)
        return value

    return type(kind.__name__, (kind,), {"__getattribute__": read, "__module__": kind.__module__})
