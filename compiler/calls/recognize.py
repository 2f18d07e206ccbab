"""Recognizing calls by their guards alone, in straight-line Python: those whose trace has failed before, and those on new graphs.

See :mod:`columba.calls.shortcut`, which recognizes calls on a graph that comes back.
"""

from __future__ import annotations

import weakref
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from columba.calls.shortcut import MISSED, LongWay, Shortcut, Writer
from columba.frontend import Attempt, Bound, Trace
from columba.frontend.guards import Guards, environment, found
from columba.frontend.hooks import HookGuard
from columba.frontend.snapshot import ATOMS, Same, is_compared_by_identity, snapshot
from columba.frontend.sources import Arguments, Source
from columba.frontend.trees import leaves
from columba.runtime.graphs.graph import Graph

_RAREST = 256


class _GuardCode:
    """Code made of guards, for calls like the last that they held for, whatever graphs and tensors these have."""

    def __init__(self, guards: Guards, wait: int) -> None:
        self.guards = guards
        self._code: Shortcut | None = None
        self._missed, self._wait = 0, wait

    def knows(self, owner: nn.Module | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the guards hold, as far as the code says: where it does not, they may."""
        code = self._code
        return code is not None and code(owner, args, kwargs) is not MISSED

    def held(self, owner: nn.Module | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Is told of a call that the code did not know. Each time that it misses some, it is made more rarely."""
        self._missed += 1
        if self._missed > self._wait:
            self._missed, self._wait = 0, min(2 * self._wait + 1, _RAREST)
            try:
                self._code = _GuardWriter(self.guards, (args, kwargs), owner).code()
            except LongWay:
                self._code = None


class Recognizer:
    """Says whether a call would fail as an attempt did: by its guards, or, for calls like the last, by code that was made of them."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self._guards = _GuardCode(attempt.guards, 0)

    def __call__(self, owner: nn.Module | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if self._guards.knows(owner, args, kwargs):
            return True
        if not self.attempt.would_fail((args, kwargs)):
            return False
        self._guards.held(owner, args, kwargs)
        return True


class Matcher:
    """Binds calls that a trace holds for: as :meth:`Trace.match` does, or, for calls like the last, with code in place of the guards.

    Where each call has a new graph, guards would be interpreted each time. A call that has a shortcut comes here twice or thrice only.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._guards = _GuardCode(trace.guards, 2)

    def __call__(self, owner: nn.Module | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bound | None:
        if self._guards.knows(owner, args, kwargs):
            return self.trace.bind(args, kwargs)
        bound = self.trace.match(args, kwargs)
        if bound is not None:
            self._guards.held(owner, args, kwargs)
        return bound


class _GuardWriter(Writer):
    """Checks guards only: any graph will do, and any tensor."""

    def __init__(self, guards: Guards, call: Arguments, owner: nn.Module | None) -> None:
        nothing: Any = SimpleNamespace(guards=guards, tensors=(), graphs=(), parts=(), read=())
        bound: Any = SimpleNamespace(call=call, graphs=())
        super().__init__(nothing, bound, owner)

    def graph_argument(self, expression: str, graph: Graph) -> None:
        self.unless(f"type({expression}) is {self.constant(Graph)}")

    def code(self, whole: bool = True) -> Shortcut:
        """Returns MISSED for calls that it does not know; looks at arguments and PyTorch's modes only as part of the ``whole``."""
        if any(isinstance(check, HookGuard) for check in self.trace.guards.checks):
            raise LongWay
        if whole:
            self.unless(f"environment() == {self.constant(self.trace.guards.environment)}")
            self.arguments()
        self.write("try:")
        self.checks()
        self.write("except NOT_THERE: return MISSED")
        return self.build()


def _is_fixed(x: Any) -> bool:
    return isinstance(x, (Tensor, Graph, *ATOMS)) or is_compared_by_identity(x)


class Holds:
    """Whether what a trace depends on, beside its arguments and PyTorch's modes, is as it was: for those who guard these themselves.

    Args:
        guards: of the trace.
        call: arguments like those of the call: the objects among them are looked into.
        owner: the module whose method was called.
        places: sources that must still give the same objects.
    """

    def __init__(
        self, guards: Guards, call: Arguments, owner: nn.Module | None, places: tuple[tuple[Source, Any], ...]
    ) -> None:
        self.guards, self.call = guards, call
        self.owner = None if owner is None else weakref.ref(owner)
        self.places = [(source, Same(value)) for source, value in places]
        # Others guard that the objects among them are the same, and not what these hold.
        self.arguments = None if all(map(_is_fixed, leaves(call))) else snapshot(call, by_value=True)
        self._code: Shortcut | None = None
        try:
            self._code = _GuardWriter(guards, call, owner).code(whole=False)
        except (LongWay, TypeError):  # of some objects there are no weak references
            self._code = None

    @property
    def still(self) -> bool:
        owner = None if self.owner is None else self.owner()
        if self.owner is not None and owner is None:
            return False
        if any(found(source, self.call) is not same.value for source, same in self.places):
            return False
        if self.arguments is not None and snapshot(self.call, by_value=True) != self.arguments:
            return False
        if self._code is not None and self._code(owner, *self.call) is not MISSED:
            return True
        parts = replace(self.guards, arguments=snapshot(self.call, by_value=True), environment=environment())
        return next(parts.mismatches(self.call), None) is None
