"""From Python functions to programs: tracing."""

from columba.frontend.errors import TraceError, UnsupportedOperation
from columba.frontend.record import is_tracing
from columba.frontend.trace import Bound, Trace, trace

__all__ = ["Bound", "Trace", "TraceError", "UnsupportedOperation", "is_tracing", "trace"]
