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
from columba.codegen.triton.schedule import (
    DegreeSchedule,
    IllegalSchedule,
    MemberSchedule,
    OuterSchedule,
    ProductSchedule,
    RowSchedule,
    Schedule,
    Schedules,
    as_json,
    from_json,
)

__all__ = [
    "ArrayArgument",
    "BufferArgument",
    "CountArgument",
    "DegreeSchedule",
    "IllegalSchedule",
    "Launch",
    "MemberSchedule",
    "Module",
    "OuterSchedule",
    "ProductSchedule",
    "RowSchedule",
    "Schedule",
    "Schedules",
    "Step",
    "TilesArgument",
    "Variant",
    "Workspace",
    "WorkspaceArgument",
    "as_json",
    "emit",
    "from_json",
]
