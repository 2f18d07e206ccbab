"""Preparation: what follows from integer tensors alone is computed once for each of them, and kept for as long as they live unchanged.

A :class:`Preparation` is what a trace has written down of :mod:`columba.frontend.structure`, as a function of the tensors that calls
pass. Where one of its results is found at every call is a :class:`columba.frontend.sources.Prepared`: to everything else it is an input.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from columba.frontend.integer_programs import translated
from columba.frontend.sources import Arguments, Source
from columba.frontend.steps import Held, Number, Size, Step, Value, used
from columba.frontend.structure import ON_NUMBERS, size_of
from columba.frontend.trees import mapped
from columba.runtime.graphs.from_tensors import Seen, own
from columba.runtime.graphs.integers import IntegerProgram
from columba.runtime.modes import any_modes, outside_modes


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
        self.program: IntegerProgram | None = None
        self.program_is_for: torch.dtype | None = None
        self.key = (*(step.key() for step in self.steps), None if self.tensors else self.device, self.kept)
        count = len(self.tensors)
        last: dict[int, int] = {}
        for n, step in enumerate(self.steps):
            last.update(dict.fromkeys(used((step.args, step.kwargs)), n))
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
        found = None if any_modes() else self._in_one_call(tensors, counts)
        if found is not None:
            return found
        with outside_modes(), torch.no_grad():
            results: list[Any] | None = None if self.program_is_for is torch.get_default_dtype() else []
            found = self.compute(tensors, counts, results)
            if results is None:
                return found
            self.program_is_for = torch.get_default_dtype()  # which tensors of numbers alone are of
            is_on_cpu = all(t.is_cpu for t in tensors) and (bool(tensors) or self.device.type == "cpu")
            self.program = translated(self.steps, sorted(self.kept), tensors, results) if is_on_cpu else None
            return self._in_one_call(tensors, counts) or found  # as all later calls: the last bit of a root may differ

    def _in_one_call(self, tensors: Sequence[Tensor], counts: Sequence[int]) -> tuple[Any, ...] | None:
        """The results, by C++; None where PyTorch has to compute them."""
        if self.program is None or self.program_is_for is not torch.get_default_dtype():
            return None
        found = self.program(tensors, counts)
        if found is None:
            return None
        results: list[Any] = [None] * len(self.steps)
        for n, result in zip(sorted(self.kept), found, strict=True):
            results[n] = result
        return tuple(results)

    def compute(
        self, tensors: Sequence[Tensor], counts: Sequence[Any], shown: list[Any] | None = None
    ) -> tuple[Any, ...]:
        """The results, under whatever modes there are.

        Args:
            tensors, counts: what they are computed of.
            shown: gets for each step a tensor without memory as its result is, kept or not.

        Raises:
            NotPrepared: a step fails.
        """
        values: list[Any] = list(tensors)
        numbers: dict[int, Any] = {}

        def actual(x: Any) -> Any:
            match x:
                case Value(n):
                    return values[n]
                case Number(n):
                    return counts[n]
                case Size(n, dim):
                    return values[n].shape[dim]
                case Held(n):
                    return numbers[n] if n in numbers else int(values[n])
                case slice():
                    return slice(actual(x.start), actual(x.stop), actual(x.step))
            return x

        device = tensors[0].device if tensors else self.device
        for n, step in enumerate(self.steps):
            args, kwargs = mapped(actual, (step.args, step.kwargs))
            kwargs.pop("device", None)
            if step.function in _FACTORIES:  # not by a mode, which would be asked about each function
                kwargs["device"] = device
            if (number := _on_sizes(step, values, numbers)) is not None:
                numbers[len(values)] = number
            try:
                values.append(step.function(*args, **kwargs))
            except (RuntimeError, ValueError, TypeError, IndexError) as e:
                raise NotPrepared(str(e)) from e
            if shown is not None:
                shown.append(values[-1].to("meta") if isinstance(values[-1], Tensor) else values[-1])
            for done in self._done.get(n, ()):
                values[done] = None
        return tuple(values[len(tensors) :])


def _on_sizes(step: Step, values: Sequence[Any], numbers: Mapping[int, Any]) -> Any:
    """The number that a step's result holds, if it follows from sizes: one that may be symbolic, where PyTorch exports a model."""
    if step.function is size_of:
        x, dim = step.args
        return values[x.number].shape[dim]
    function = ON_NUMBERS.get(step.function)
    if function is None or step.kwargs:
        return None
    given = [numbers.get(x.number) if isinstance(x, Value) else x if type(x) is int else None for x in step.args]
    return None if any(n is None for n in given) else function(*given)


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
        for result in results:
            if isinstance(result, Tensor) and not any(result is t for t in tensors):
                own(result)
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
