"""Emits Triton for plans of level 2."""

from columba.codegen.triton.candidates import INTERPRETER, candidates, check, default_schedule, is_legal
from columba.codegen.triton.launches import (
    ArrayArgument,
    BufferArgument,
    CountArgument,
    Launch,
    MostArgument,
    TilesArgument,
    Variant,
    Workspace,
    WorkspaceArgument,
)
from columba.codegen.triton.module import KernelStep, Module, emit, index_arrays
from columba.codegen.triton.schedule import (
    DegreeSchedule,
    IllegalSchedule,
    KernelSchedules,
    MemberSchedule,
    OuterSchedule,
    ProductSchedule,
    RowSchedule,
    Schedule,
    as_json,
    from_json,
)

__all__ = [
    "INTERPRETER",
    "ArrayArgument",
    "BufferArgument",
    "CountArgument",
    "DegreeSchedule",
    "IllegalSchedule",
    "KernelSchedules",
    "KernelStep",
    "Launch",
    "MemberSchedule",
    "Module",
    "MostArgument",
    "OuterSchedule",
    "ProductSchedule",
    "RowSchedule",
    "Schedule",
    "TilesArgument",
    "Variant",
    "Workspace",
    "WorkspaceArgument",
    "as_json",
    "candidates",
    "check",
    "default_schedule",
    "emit",
    "from_json",
    "index_arrays",
    "is_legal",
]
