"""Tensor provenance: where the tensors of a trace are found again at every call."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from columba.frontend.edge_index import data_of
from columba.frontend.snapshot import MISSING, Same
from columba.frontend.sparse_parts import part_of

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Argument:
    """Part of an argument: a path of keys into ``(args, kwargs)``, and the parameter's name for messages."""

    path: tuple[Any, ...]
    parameter: str

    def fetch(self, call: Arguments) -> Any:
        value: Any = call
        for key in self.path:
            value = value[key]
        return value

    def __str__(self) -> str:
        return self.parameter + "".join(f"[{k!r}]" for k in self.path[2:])


@dataclass(frozen=True)
class Attribute:
    """An attribute of an object, which it does not keep alive; ``path`` is what messages and programs call it."""

    owner: Same
    name: str
    path: str

    def fetch(self, call: Arguments) -> Any:
        owner = self.owner.value
        if isinstance(owner, nn.Module):
            for place in (owner._parameters, owner._buffers, owner.__dict__):
                if self.name in place:
                    return place[self.name]
        return getattr(owner, self.name)

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Registered:
    """A parameter or buffer (``place`` says which), by the module that it is registered with."""

    owner: Same
    place: str
    name: str
    path: str

    def fetch(self, call: Arguments) -> Any:
        return getattr(self.owner.value, self.place)[self.name]

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Member:
    """An attribute of what another source gives."""

    base: Source
    name: str

    def fetch(self, call: Arguments) -> Any:
        return getattr(self.base.fetch(call), self.name)

    def __str__(self) -> str:
        return f"{self.base}.{self.name}"


@dataclass(frozen=True)
class Item:
    """An item of what another source gives."""

    base: Source
    key: Any

    def fetch(self, call: Arguments) -> Any:
        return self.base.fetch(call)[self.key]

    def __hash__(self) -> int:
        return hash((self.base, str(self.key)))

    def __str__(self) -> str:
        return f"{self.base}[{self.key!r}]"


@dataclass(frozen=True)
class Referent:
    """What the weak reference, or the context variable, that another source gives has at present."""

    base: Source

    def fetch(self, call: Arguments) -> Any:
        value = self.base.fetch(call)
        return value() if isinstance(value, weakref.ref) else value.get(MISSING)

    def __str__(self) -> str:
        return f"{self.base}()"


@dataclass(frozen=True)
class Object:
    """An object itself, which it does not keep alive."""

    same: Same
    name: str

    def fetch(self, call: Arguments) -> Any:
        return self.same.value

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class OfClass:
    """An attribute as the dictionary of a class, or of one that it is derived from, holds it, before any descriptor changes it."""

    owner: Same
    name: str

    def fetch(self, call: Arguments) -> Any:
        return in_class(self.owner.value, self.name)

    def __str__(self) -> str:
        return f"{getattr(self.owner.value, '__name__', 'class')}.{self.name}"


@dataclass(frozen=True)
class Environment:
    """A variable of the environment of the process."""

    name: str

    def fetch(self, call: Arguments) -> Any:
        return os.environ.get(self.name)

    def __str__(self) -> str:
        return f"os.environ[{self.name!r}]"


@dataclass(frozen=True, eq=False)
class Global:
    """A global variable of a traced function; MISSING where there is none of the name, so that a built-in one is found."""

    variables: dict[str, Any]
    name: str

    def fetch(self, call: Arguments) -> Any:
        return self.variables.get(self.name, MISSING)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Global) and other.variables is self.variables and other.name == self.name

    def __hash__(self) -> int:
        return hash((id(self.variables), self.name))

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Closure:
    """A variable that a function encloses: by the function, which it does not keep alive, since what is enclosed may be a module."""

    function: Same
    index: int
    name: str

    def fetch(self, call: Arguments) -> Any:
        return self.function.value.__closure__[self.index].cell_contents

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Seed:
    """A fresh seed for random numbers at every call, drawn from PyTorch's default generator: on a GPU the GPU's own."""

    def fetch(self, call: Arguments, device: torch.device | None = None) -> Any:
        return torch.randint(2**62, (), device=device)

    def __str__(self) -> str:
        return "seed"


@dataclass(frozen=True)
class Prepared:
    """A result of a :class:`columba.frontend.preparation.Preparation`."""

    preparation: Any
    step: int

    def fetch(self, call: Arguments) -> Any:
        return self.preparation.fetch(call)[self.step]

    def __str__(self) -> str:
        function = self.preparation.steps[self.step].function
        return f"{getattr(function, '__name__', 'value')}(...)"


@dataclass(frozen=True)
class PlainIndex:
    """The tensor that the ``EdgeIndex`` is which another source gives."""

    base: Source

    def fetch(self, call: Arguments) -> Any:
        return data_of(self.base.fetch(call))

    def __str__(self) -> str:
        return str(self.base)


@dataclass(frozen=True)
class Component:
    """A part of the sparse matrix that another source gives, as :func:`columba.frontend.sparse_parts.part_of` says."""

    base: Source
    name: str
    layout: torch.layout
    coalesced: bool

    def fetch(self, call: Arguments) -> Any:
        return self.fetch_from(self.base.fetch(call))

    def fetch_from(self, matrix: Any) -> Tensor:
        return part_of(matrix, self.name, self.layout, self.coalesced)

    def __str__(self) -> str:
        return f"{self.base}.{self.name}()"


Source = (
    Argument
    | Attribute
    | Registered
    | Member
    | Item
    | Referent
    | Object
    | OfClass
    | Environment
    | Global
    | Closure
    | Seed
    | Prepared
    | Component
    | PlainIndex
)

NOT_THERE = (AttributeError, KeyError, IndexError, TypeError, ValueError)
"""What :meth:`fetch` raises where the way to a value has changed."""


def is_of_argument(source: Source) -> bool:
    """Whether a source is an argument, or leads through what one holds."""
    while isinstance(source, (Member, Item, Referent)):
        source = source.base
    return isinstance(source, Argument)


def in_class(kind: Any, name: str) -> Any:
    """What the dictionaries of a class and of those that it is derived from have under a name; MISSING if nothing."""
    for one in kind.__mro__:
        if name in one.__dict__:
            return one.__dict__[name]
    return MISSING


def walk(value: Any, path: tuple[Any, ...], visit: Callable[[Any, tuple[Any, ...]], Any]) -> Any:
    """``value`` with ``visit`` applied to whatever is no tuple, list or dict."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(walk(v, (*path, n), visit) for n, v in enumerate(value)))
    if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
        return type(value)(walk(v, (*path, n), visit) for n, v in enumerate(value))
    if type(value) is dict:
        return {k: walk(v, (*path, k), visit) for k, v in value.items()}
    return visit(value, path)
