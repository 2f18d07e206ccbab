"""Remembering Python values, to notice later that they have changed."""

from __future__ import annotations

import enum
import functools
import types
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from columba.runtime.graph import Graph
from columba.runtime.names import TypeNames

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
    slice,
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
    """Stands for a tensor or a graph, whose own guards apply."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"a {self.name}"


TENSOR, GRAPH = Marker("tensor"), Marker("graph")


def is_compared_by_identity(value: Any) -> bool:
    """Whether a value counts as changed only when it is another object: functions, modules, classes."""
    if isinstance(value, (types.MethodType, functools.partial)):  # made anew each time that somebody asks
        return False
    return isinstance(value, (nn.Module, type, types.ModuleType, TypeNames)) or callable(value)


def snapshot(value: Any, depth: int = 4) -> Any:
    """Something that compares equal to a later snapshot exactly if ``value`` is still what it was.

    Numbers, strings, containers, and the attributes of plain objects are compared by value, functions, modules and classes by identity,
    bound methods and partial functions by what they bind.
    Tensors and graphs are only noted to be there.
    """
    if isinstance(value, Tensor):
        return TENSOR
    if isinstance(value, Graph):
        return GRAPH
    if isinstance(value, float) and value != value:
        return float, "nan"
    if isinstance(value, ATOMS):
        plain = int.__int__(value) if isinstance(value, int) and not isinstance(value, (bool, enum.Enum)) else value
        return type(plain), plain
    if depth == 0 or is_compared_by_identity(value):
        return Same(value)
    if isinstance(value, types.MethodType):
        return types.MethodType, Same(value.__self__), Same(value.__func__)
    if isinstance(value, functools.partial):
        return functools.partial, snapshot((value.func, value.args, value.keywords), depth - 1)
    if isinstance(value, (tuple, list)):
        return type(value), tuple([snapshot(v, depth - 1) for v in value])
    if isinstance(value, dict):
        return type(value), tuple([(snapshot(k, depth - 1), snapshot(v, depth - 1)) for k, v in value.items()])
    if isinstance(value, (set, frozenset)):
        return type(value), frozenset(snapshot(v, depth - 1) for v in value)
    attributes = getattr(value, "__dict__", None)
    if attributes is None:
        return Same(value)
    return type(value), snapshot(attributes, depth - 1)
