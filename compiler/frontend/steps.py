"""The steps of a preparation (:mod:`columba.frontend.preparation`), as they are written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from columba.frontend.trees import leaves


@dataclass(frozen=True)
class Value:
    """In a preparation's steps, the value with a number: of its tensors, then of its steps."""

    number: int


@dataclass(frozen=True)
class Number:
    """One of the counts that a preparation is given."""

    number: int


@dataclass(frozen=True)
class Size:
    """A size of a value."""

    value: int
    dim: int


@dataclass(frozen=True)
class Held:
    """The integer that a value holds."""

    value: int


@dataclass(frozen=True)
class Step:
    """One call."""

    function: Callable[..., Any]
    args: Any
    kwargs: Any

    def key(self) -> Any:
        """What is equal for equal calls."""
        return self.function, _frozen(self.args), _frozen(self.kwargs)


def _frozen(x: Any) -> Any:
    if isinstance(x, (tuple, list)):
        return tuple(map(_frozen, x))
    if isinstance(x, dict):
        return tuple((k, _frozen(v)) for k, v in x.items())
    if isinstance(x, slice):
        return "slice", _frozen(x.start), _frozen(x.stop), _frozen(x.step)
    return type(x), x


def used(tree: Any) -> list[int]:
    """The numbers of the values that a step takes."""
    found: list[int] = []
    for x in leaves(tree):
        match x:
            case Value(n) | Size(n, _) | Held(n):
                found.append(n)
            case slice():
                found += used((x.start, x.stop, x.step))
    return found
