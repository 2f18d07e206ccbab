"""Recognizing calls whose trace has failed before, by straight-line Python: see :mod:`columba.calls.shortcut`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import nn

from columba.calls.shortcut import MISSED, LongWay, Shortcut, Writer
from columba.frontend import Attempt
from columba.frontend.guards import Guards
from columba.frontend.hooks import HookGuard
from columba.frontend.sources import Arguments
from columba.runtime.graphs.graph import Graph

_RAREST = 256


class Recognizer:
    """Says whether a call would fail as an attempt did: by its guards, or, for calls like the last, by code that was made of them."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self._code: Shortcut | None = None
        self._missed, self._wait = 0, 0

    def __call__(self, owner: nn.Module | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        code = self._code
        if code is not None and code(owner, args, kwargs) is not MISSED:
            return True
        if not self.attempt.would_fail((args, kwargs)):
            return False
        self._missed += 1
        if self._missed > self._wait:  # each time that the code then misses, it is made more rarely
            self._missed, self._wait = 0, min(2 * self._wait + 1, _RAREST)
            try:
                self._code = _GuardWriter(self.attempt.guards, (args, kwargs), owner).code()
            except LongWay:
                self._code = None
        return True


class _GuardWriter(Writer):
    """Checks guards only: any graph will do, and any tensor."""

    def __init__(self, guards: Guards, call: Arguments, owner: nn.Module | None) -> None:
        nothing: Any = SimpleNamespace(guards=guards, tensors=(), graphs=(), parts=())
        bound: Any = SimpleNamespace(call=call, graphs=())
        super().__init__(nothing, bound, owner)

    def graph_argument(self, expression: str, graph: Graph) -> None:
        self.unless(f"type({expression}) is {self.constant(Graph)}")

    def code(self) -> Shortcut:
        """Returns MISSED for calls that it does not know."""
        if any(isinstance(check, HookGuard) for check in self.trace.guards.checks):
            raise LongWay
        self.unless(f"environment() == {self.constant(self.trace.guards.environment)}")
        self.arguments()
        self.write("try:")
        self.checks()
        self.write("except NOT_THERE: return MISSED")
        return self.build()
