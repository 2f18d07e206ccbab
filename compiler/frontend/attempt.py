"""Traces that failed: what they had read by then, so that a call that would fail likewise need not be traced."""

from __future__ import annotations

from dataclasses import dataclass, replace

from columba.frontend.guards import Guards
from columba.frontend.sources import Arguments


@dataclass(frozen=True)
class Attempt:
    """A trace that did not come to its end.

    Attributes:
        guards: of what it had read when it failed. Sizes, dtypes and graphs are not among them: what is outside the language mostly is so
            for all of them, and a call that is taken for one that fails still gives what it should.
        met_graph: whether a graph was among the arguments, or had been used.
        lacks_graph: whether the function ran to its end, and used no graph.
    """

    guards: Guards
    met_graph: bool
    lacks_graph: bool = False

    def would_fail(self, call: Arguments) -> bool:
        """Whether a call looks, so far, like the one that failed."""
        return next(self.guards.mismatches(call), None) is None

    def of_later_calls(self, call: Arguments) -> Attempt:
        """Without the guards that do not hold for the call that failed itself: a counter that it counts, a list to which it adds."""
        guards = self.guards
        checks = tuple(check for check in guards.checks if check.mismatch() is None)
        variables = tuple((source, seen) for source, seen in guards.variables if guards.holds(source, seen, call))
        return replace(self, guards=replace(guards, checks=checks, variables=variables))
