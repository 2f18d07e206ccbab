"""Emits Triton for plans of level 2."""

from columba.codegen.triton.launches import (
    ArrayArgument,
    BufferArgument,
    CountArgument,
    Grid,
    Launch,
    TilesArgument,
    Workspace,
    WorkspaceArgument,
)
from columba.codegen.triton.module import Module, Step, emit

__all__ = [
    "ArrayArgument",
    "BufferArgument",
    "CountArgument",
    "Grid",
    "Launch",
    "Module",
    "Step",
    "TilesArgument",
    "Workspace",
    "WorkspaceArgument",
    "emit",
]
