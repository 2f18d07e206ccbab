"""Preparation: what follows from integer tensors alone is computed once for each of them, and kept for as long as they live unchanged.

A :class:`Preparation` is what a trace has written down of :mod:`columba.frontend.structure`, as a function of the tensors that calls
pass. Where one of its results is found at every call is a :class:`columba.frontend.sources.Prepared`: to everything else it is an input.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from columba.frontend.sources import Arguments, Source
from columba.frontend.trees import leaves, mapped
from columba.runtime.graphs.from_tensors import Seen
from columba.runtime.modes import outside_modes


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


@dataclass(frozen=True)
class CountOf:
    """How many rows, or what size, the tensor of a source has."""

    source: Source
    dim: int = 0

    def fetch(self, call: Arguments) -> int:
        return int(self.source.fetch(call).shape[self.dim])


_FACTORIES = frozenset(
    (
        *(torch.arange, torch.as_tensor, torch.asarray, torch.empty, torch.eye, torch.full, torch.linspace, torch.logspace, torch.ones),
        *(torch.range, torch.scalar_tensor, torch.tensor, torch.tril_indices, torch.triu_indices, torch.zeros),
    )
)  # fmt: skip
"""Functions that make tensors of none."""


class NotPrepared(IndexError):
    """A step fails for a call: so does the code that was traced, or the trace does not hold."""


@dataclass(eq=False)
class Preparation:
    """What is computed of some tensors of integers, and of numbers of rows.

    Attributes:
        tensors: where they are found.
        counts: likewise.
        steps: what is computed, in order.
        device: where, if of no tensor.
        kept: the numbers of the steps whose results are asked for; others are let go of as soon as no step needs them.
    """

    tensors: tuple[Source, ...]
    counts: tuple[CountOf, ...]
    steps: tuple[Step, ...]
    device: torch.device
    kept: frozenset[int]

    def __post_init__(self) -> None:
        self.key = (*(step.key() for step in self.steps), None if self.tensors else self.device, self.kept)
        count = len(self.tensors)
        last: dict[int, int] = {}
        for n, step in enumerate(self.steps):
            last.update(dict.fromkeys(_used((step.args, step.kwargs)), n))
        self._done: dict[int, list[int]] = {}
        for value, n in last.items():
            if value >= count and value - count not in self.kept:
                self._done.setdefault(n, []).append(value)

    def fetch(self, call: Arguments) -> tuple[Any, ...]:
        """The results for a call, computed or remembered; None for steps that nobody asks for."""
        return self(
            tuple(source.fetch(call) for source in self.tensors), tuple(count.fetch(call) for count in self.counts)
        )

    def __call__(self, tensors: tuple[Tensor, ...], counts: tuple[int, ...]) -> tuple[Any, ...]:
        return _prepared.get(self.key, tensors, counts, lambda: self._run(tensors, counts))

    def moved(self, place: Callable[[Source], Source]) -> Preparation:
        """The same of what is found elsewhere."""
        counts = tuple(CountOf(place(count.source), count.dim) for count in self.counts)
        return Preparation(tuple(map(place, self.tensors)), counts, self.steps, self.device, self.kept)

    def _run(self, tensors: Sequence[Tensor], counts: Sequence[int]) -> tuple[Any, ...]:
        with outside_modes(), torch.no_grad():
            return self.compute(tensors, counts)

    def compute(self, tensors: Sequence[Tensor], counts: Sequence[Any]) -> tuple[Any, ...]:
        """The results, under whatever modes there are.

        Raises:
            NotPrepared: a step fails.
        """
        values: list[Any] = list(tensors)

        def actual(x: Any) -> Any:
            match x:
                case Value(n):
                    return values[n]
                case Number(n):
                    return counts[n]
                case Size(n, dim):
                    return values[n].shape[dim]
                case Held(n):
                    return int(values[n])
                case slice():
                    return slice(actual(x.start), actual(x.stop), actual(x.step))
            return x

        device = tensors[0].device if tensors else self.device
        for n, step in enumerate(self.steps):
            args, kwargs = mapped(actual, (step.args, step.kwargs))
            kwargs.pop("device", None)
            if step.function in _FACTORIES:  # not by a mode, which would be asked about each function
                kwargs["device"] = device
            try:
                values.append(step.function(*args, **kwargs))
            except (RuntimeError, ValueError, TypeError, IndexError) as e:
                raise NotPrepared(str(e)) from e
            for done in self._done.get(n, ()):
                values[done] = None
        return tuple(values[len(tensors) :])


def _used(tree: Any) -> list[int]:
    """The numbers of the values that a step takes."""
    found: list[int] = []
    for x in leaves(tree):
        match x:
            case Value(n) | Size(n, _) | Held(n):
                found.append(n)
            case slice():
                found += _used((x.start, x.stop, x.step))
    return found


class _Remembered:
    """The last results of preparations: as long as the tensors live and hold what they held."""

    def __init__(self, capacity: int = 64) -> None:
        self.capacity = capacity
        self.lock = threading.RLock()
        self.known: OrderedDict[Any, tuple[list[Seen], tuple[Any, ...]]] = OrderedDict()

    def get(
        self, key: Any, tensors: tuple[Tensor, ...], counts: tuple[int, ...], compute: Callable[[], tuple[Any, ...]]
    ) -> tuple[Any, ...]:
        where = (tuple(map(id, tensors)), counts, key)
        found = self.known.get(where)
        if found is not None and all(seen.is_still(t) for seen, t in zip(found[0], tensors, strict=True)):
            return found[1]
        reference = weakref.ref(self)

        def forget(_: Any) -> None:
            remembered = reference()
            if remembered is not None:
                remembered.known.pop(where, None)

        seen = [Seen(t, forget) for t in tensors]
        results = compute()
        with self.lock:
            self.known[where] = (seen, results)
            self.known.move_to_end(where)
            while len(self.known) > self.capacity:
                self.known.popitem(last=False)
        return results


_prepared = _Remembered()


def seen(value: Any) -> Any:
    """A value as later ones are compared with it."""
    return value.clone() if isinstance(value, Tensor) else value


def is_as_seen(value: Any, before: Any) -> bool:
    """Whether a value is what one was."""
    if isinstance(before, Tensor):
        return isinstance(value, Tensor) and value.dtype is before.dtype and torch.equal(value, before)
    return type(value) is type(before) and bool(value == before)
