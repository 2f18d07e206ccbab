"""From Python functions to programs: tracing."""

from columba.frontend.attempt import Attempt
from columba.frontend.errors import NothingToCompile, TraceError, UnsupportedOperation, trace_error_in
from columba.frontend.record import is_tracing
from columba.frontend.trace import Bound, Trace, trace

__all__ = [
    "Attempt", "Bound", "NothingToCompile", "Trace", "TraceError", "UnsupportedOperation", "is_tracing", "trace", "trace_error_in",
]  # fmt: skip
