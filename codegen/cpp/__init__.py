"""The C++ target: :func:`emit` turns plans into one source file with a plain C interface, :func:`emit_parts` into several."""

from columba.codegen.cpp.module import Stage, emit, emit_parts, stages
from columba.codegen.cpp.scalars import UnsupportedDType

__all__ = ["Stage", "UnsupportedDType", "emit", "emit_parts", "stages"]
