"""What a trace that failed has changed is put back, so that what runs in its place does so once."""

from __future__ import annotations

import collections
import contextlib
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from columba.frontend.snapshot import is_watchable
from columba.frontend.trees import leaves
from columba.runtime.graphs.graph import Graph
from columba.runtime.modes import random_states, restore_random_states

_DEPTH = 4
_MAPPINGS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)
_OTHERS = (list, collections.deque, set)


class State:
    """The attributes of a module and of all within, and of objects that are passed in; the containers and objects that these hold; and the
    default generators.

    Tensors are not changed by code that is traced. What else it reaches is not put back.
    """

    def __init__(self, owner: nn.Module | None, arguments: Any = ()) -> None:
        self._mappings: list[tuple[type, Any, dict[Any, Any], dict[Any, Any]]] = []
        self._others: list[tuple[Any, list[Any]]] = []
        self._seen: set[int] = set()
        for module in () if owner is None else owner.modules():
            self._object(module, _DEPTH)
        for value in leaves(arguments):
            if _has_attributes(value) and id(value) not in self._seen:  # PyG's Data can be called
                self._seen.add(id(value))
                self._object(value, _DEPTH + 1)
        self._random = random_states()

    def _object(self, value: Any, depth: int) -> None:
        self._mappings.append((type(value), value, value.__dict__, dict(value.__dict__)))
        for part in list(value.__dict__.values()):
            self._part(value, part, depth - 1)

    def _part(self, owner: Any, value: Any, depth: int) -> None:
        kind = type(value)
        if not depth or id(value) in self._seen:
            return
        if kind in _MAPPINGS:
            self._seen.add(id(value))
            self._mappings.append((type(owner), owner, value, dict(value)))
            for part in list(value.values()):
                self._part(owner, part, depth - 1)
        elif kind in _OTHERS:
            self._seen.add(id(value))
            self._others.append((value, list(value)))
            for part in list(value):
                self._part(owner, part, depth - 1)
        elif _is_plain_object(value):
            self._seen.add(id(value))
            self._object(value, depth)

    def put_back(self) -> None:
        """Everything as it was; but what has become of another class, as lazy modules do, stays so."""
        for kind, owner, mapping, before in self._mappings:
            if type(owner) is kind:
                _put_back(mapping, before)
        for value, parts in self._others:
            if isinstance(value, set):
                if value != set(parts):
                    value.clear()
                    value.update(parts)
            elif len(value) != len(parts) or any(a is not b for a, b in zip(value, parts, strict=True)):
                value.clear()
                value.extend(parts)
        restore_random_states(self._random)


@contextlib.contextmanager
def unchanged(owner: nn.Module) -> Iterator[None]:
    """Within, a module may run; then its state is as it was, the contents of buffers too."""
    state, buffers = State(owner), [(buffer, buffer.detach().clone()) for buffer in owner.buffers()]
    try:
        yield
    finally:
        state.put_back()
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


def _put_back(mapping: dict[Any, Any], before: dict[Any, Any]) -> None:
    """One key at a time: other threads may be reading."""
    for key in [k for k in mapping if k not in before]:
        del mapping[key]
    for key, value in before.items():
        if key not in mapping or mapping[key] is not value:
            mapping[key] = value


def _is_plain_object(value: Any) -> bool:
    """Whether a value is an object of a class of Python's that has attributes, and is no function, class, module or graph."""
    return _has_attributes(value) and not callable(value)


def _has_attributes(value: Any) -> bool:
    return (
        (is_watchable(value) or isinstance(value, types.SimpleNamespace))
        and isinstance(getattr(value, "__dict__", None), dict)
        and not isinstance(value, (nn.Module, Tensor, Graph, type, types.FunctionType, types.MethodType))
    )
