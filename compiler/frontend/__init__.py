"""From Python functions to programs: tracing."""

from columba.frontend.attempt import Attempt
from columba.frontend.errors import FillsCache, NothingToCompile, TraceError, UnsupportedOperation, trace_error_in
from columba.frontend.record import is_tracing
from columba.frontend.trace import trace
from columba.frontend.traced import Bound, Part, Trace

__all__ = [
    "Attempt", "Bound", "FillsCache", "NothingToCompile", "Part", "Trace", "TraceError", "UnsupportedOperation", "is_tracing", "trace",
    "trace_error_in",
]  # fmt: skip
