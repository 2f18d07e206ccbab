"""Snapshots: remembering Python values, to notice later that they have changed."""

from __future__ import annotations

import array
import collections
import enum
import functools
import gc
import random
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from columba.runtime.graphs.graph import Graph
from columba.runtime.graphs.names import TypeNames

ATOMS: tuple[Any, ...] = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    enum.Enum,
    range,
)


class Same:
    """Equal only to the same object, which it does not keep alive, except where Python has no weak references to objects of its kind.

    What a trace remembers of a module must not keep the module: traces live as long as it does.
    """

    __slots__ = ("_get", "_hash")

    def __init__(self, value: Any) -> None:
        self._hash = id(value)
        self._get: Callable[[], Any]
        try:
            self._get = weakref.ref(value)
        except TypeError:
            self._get = functools.partial(_itself, value)

    @property
    def value(self) -> Any:
        """The object; None if it is gone."""
        return self._get()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Same):
            return NotImplemented
        mine = self.value
        return mine is not None and other.value is mine

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"this {type(self.value).__name__}"


def _itself(value: Any) -> Any:
    return value


class Marker:
    """Stands for a tensor or a graph, whose own guards apply, or for what is not there."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


TENSOR, GRAPH, MISSING = Marker("a tensor"), Marker("a graph"), Marker("nothing")

MOST_PARTS = 20_000
"""Values in a container, with all inside it (and eights of bytes of an array), that are compared at every call at most."""

_BY_VALUE = ("datetime", "decimal", "fractions", "uuid", "pathlib", "ipaddress", "zoneinfo")
"""Modules of the standard library whose objects do not change, and say in their ``repr`` all that they are."""


class TooLarge(ValueError):
    """A value is too large to be compared at every call."""


def is_compared_by_identity(value: Any) -> bool:
    """Whether a value counts as changed only when it is another object: functions, modules, classes, and objects whose attributes are
    watched where they are read."""
    if isinstance(value, types.BuiltinMethodType):
        return not _binds_data(value)
    if isinstance(value, (types.MethodType, functools.partial, weakref.ref)):
        return False
    if isinstance(value, (nn.Module, type, types.ModuleType, TypeNames)):
        return True
    return callable(value) and not _is_data(value)


def _is_data(value: Any) -> bool:
    """Whether an object is a graph of PyG's, which can be called, and is what it holds all the same."""
    return any(kind.__module__.startswith("torch_geometric.data.") for kind in type(value).__mro__)


def _binds_data(method: types.BuiltinMethodType) -> bool:
    """Whether a C function is a method of an object (``table.get``)."""
    return not isinstance(method.__self__, (types.ModuleType, type, type(None), random.Random))


def attributes_of(value: Any) -> dict[str, Any]:
    """The attributes that an object itself has, in its dictionary and in slots."""
    found: dict[str, Any] = {}
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            mangled = (
                f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name
            )
            member = kind.__dict__.get(mangled)
            if isinstance(member, types.MemberDescriptorType):
                try:
                    found[mangled] = member.__get__(value, kind)
                except AttributeError:  # a slot that is empty
                    continue
    found.update(getattr(value, "__dict__", {}))
    return found


def is_watchable(value: Any) -> bool:
    """Whether the attributes of an object can be watched: its class is one that Python code made."""
    return bool(type(value).__flags__ & _HEAP_TYPE) and not type(value).__flags__ & _IMMUTABLE_TYPE


_HEAP_TYPE, _IMMUTABLE_TYPE = 1 << 9, 1 << 8


def parts_of(value: Any) -> list[tuple[Any, Any]] | None:
    """What a container holds, each part with the step that leads to it; None if the value is no container.

    A step is ``("item", key)``, ``("attribute", name)``, ``("referent", None)``, or None where no step leads there.
    """
    if isinstance(value, (list, tuple, collections.deque)):
        return [(("item", n), v) for n, v in enumerate(value)]
    if isinstance(value, (dict, types.MappingProxyType)):
        return [(("item", k), v) for k, v in value.items()]
    if isinstance(value, (set, frozenset)):
        return [(None, v) for v in value]
    if isinstance(value, slice):
        return [(None, v) for v in (value.start, value.stop, value.step)]
    if isinstance(value, functools.partial):
        return [(("attribute", name), getattr(value, name)) for name in ("func", "args", "keywords")]
    if isinstance(value, types.MethodType):
        return [(("attribute", "__self__"), value.__self__), (("attribute", "__func__"), value.__func__)]
    if isinstance(value, weakref.ref):
        return [(("referent", None), value())]
    if isinstance(value, types.BuiltinMethodType) and _binds_data(value):
        return [(("attribute", "__self__"), value.__self__)]
    return None


def snapshot(value: Any, by_value: bool = False) -> Any:
    """Something that compares equal to a later snapshot exactly if ``value`` is still what it was.

    Numbers, strings and containers are compared by value, as deep as they go; arrays by their bytes; functions, modules and classes
    by identity; bound methods and partial functions by what they bind. Other objects are compared by identity, since what a trace reads
    of them is guarded for itself, or, ``by_value``, by their class and their attributes. Tensors and graphs are only noted to be there.

    Raises:
        TooLarge: there is too much to compare.
    """
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if kind is int or kind is str:
        return kind, value
    return _Snapshot(by_value).of(value)


class _Snapshot:
    def __init__(self, by_value: bool) -> None:
        self.by_value = by_value
        self.met: dict[int, int] = {}
        self.kept: list[Any] = []
        self.count = 0

    def of(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return TENSOR
        if isinstance(value, Graph):
            return GRAPH
        if value is None or value is True or value is False or value is MISSING:
            return value
        self.add(1)
        kind = type(value)
        if isinstance(value, enum.Enum):
            return Same(value)
        if isinstance(value, (float, complex)):
            return kind, repr(value)  # tells -0.0 from 0.0, and nan is nan
        if isinstance(value, ATOMS):
            return (int, int.__int__(value)) if getattr(value, "recorder", None) is not None else (kind, value)
        if isinstance(value, np.generic):
            return kind, value.dtype.str, value.tobytes()
        if kind.__module__ in _BY_VALUE:
            return kind, repr(value)
        if is_compared_by_identity(value):
            return Same(value) if not isinstance(value, _lru_cache_wrapper) else self.opaque(value)
        if id(value) in self.met:
            return "again", self.met[id(value)]
        self.met[id(value)] = len(self.met)
        self.kept.append(value)
        if isinstance(value, (np.ndarray, bytearray, memoryview, array.array)):
            return self.buffer(value)
        parts = parts_of(value)
        if parts is not None:
            self.add(len(parts))
            return (
                kind,
                getattr(value, "__name__", None),
                self.extra(value),
                tuple([(self.step(step), self.of(part)) for step, part in parts]),
            )
        if is_watchable(value) and not self.by_value:
            return Same(value)
        attributes = attributes_of(value)
        if attributes or is_watchable(value):
            return kind, tuple([(name, self.of(v)) for name, v in attributes.items()])
        return self.opaque(value)

    def add(self, count: int) -> None:
        self.count += count
        if self.count > MOST_PARTS:
            raise TooLarge(f"holds more than {MOST_PARTS} values")

    def step(self, step: Any) -> Any:
        if step is None or type(step[1]) in (str, int):
            return step
        return step[0], type(step[1]), self.of(step[1])  # True is not 1

    def extra(self, value: Any) -> Any:
        """What an instance of a class that is derived from a container has beside what it contains."""
        if type(value) in _PLAIN_CONTAINERS:
            return None
        if isinstance(value, collections.defaultdict):
            return self.of(value.default_factory)
        return Same(value) if is_watchable(value) and not self.by_value and hasattr(value, "__dict__") else None

    def buffer(self, value: Any) -> Any:
        array = np.asarray(value)
        if array.dtype.hasobject:
            return type(value), array.shape, tuple([self.of(v) for v in array.ravel()])
        self.add(array.nbytes // 8)
        return type(value), array.shape, array.dtype.str, array.tobytes()

    def opaque(self, value: Any) -> Any:
        """An object of a class that is written in C: it, its state where it can tell it, and what it refers to."""
        if isinstance(value, (Iterator, random.Random)) and not isinstance(value, types.GeneratorType):
            reduced = value.__reduce__()
            return (
                Same(value),
                repr(value),
                tuple([self.of(v) for v in reduced[1:]]) if isinstance(reduced, tuple) else None,
            )
        refers = [v for v in gc.get_referents(value) if v is not type(value)]
        return Same(value), tuple([self.of(v) for v in refers])


_lru_cache_wrapper = functools._lru_cache_wrapper
_PLAIN_CONTAINERS = (list, tuple, dict, set, frozenset, collections.deque, collections.OrderedDict)
