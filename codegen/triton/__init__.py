"""Emits Triton for plans of level 2."""

from columba.codegen.triton.launches import (
    ArrayArgument,
    BufferArgument,
    CountArgument,
    Launch,
    TilesArgument,
    Variant,
    Workspace,
    WorkspaceArgument,
)
from columba.codegen.triton.module import Module, Step, emit

__all__ = [
    "ArrayArgument",
    "BufferArgument",
    "CountArgument",
    "Launch",
    "Module",
    "Step",
    "TilesArgument",
    "Variant",
    "Workspace",
    "WorkspaceArgument",
    "emit",
]
