"""The C++ target: :func:`emit` turns plans into one source file with a plain C interface."""

from columba.codegen.cpp.module import Stage, emit, stages
from columba.codegen.cpp.scalars import UnsupportedDType

__all__ = ["Stage", "UnsupportedDType", "emit", "stages"]
