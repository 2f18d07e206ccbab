"""What is kept with the error of a trace that failed."""

from __future__ import annotations

from typing import Any

from columba.frontend.attempt import Attempt
from columba.frontend.errors import NothingToCompile, trace_error_in
from columba.frontend.guards import Guards
from columba.frontend.sources import Arguments


def keep_attempt(error: Exception, read: Guards, met_graph: bool, call: Arguments) -> None:
    """Keeps what the trace had read; the frame that failed does not get to hold the error, which holds the frame."""
    cause: Any = trace_error_in(error) or error
    if getattr(cause, "attempt", None) is None:
        cause.attempt = Attempt(read, met_graph, isinstance(cause, NothingToCompile)).of_later_calls(call)
