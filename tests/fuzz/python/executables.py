"""What runs plans in the fuzzer's compiled functions: the reference, or kernels of many plans that were built as one library."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from columba.codegen.cpp import emit
from columba.ir.plan.plan import Plan
from columba.ir.plan.planned import Planned
from columba.ir.types import DType
from columba.runtime.backends import CppBackend
from columba.runtime.build import build
from columba.runtime.cpp.launch import CppExecutable, _PlanRunner
from columba.runtime.dtypes import torch_dtype
from columba.runtime.executable import Executable, Launcher
from columba.runtime.graphs.graph import Graph
from columba.runtime.plan_reference import run_plan

Build = Callable[[Planned, DType], Executable]


@contextlib.contextmanager
def built_by(function: Build) -> Iterator[None]:
    """Inside, ``function`` takes the place of the step that builds kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CppBackend, "executable", lambda backend, planned, index_dtype: function(planned, index_dtype))
        yield


class OnGraph:
    """The graph of the call that runs. Plans are bound to index arrays, and the reference wants the graph itself."""

    graph: Graph


@dataclass
class Reference(Executable):
    """Runs plans by the reference."""

    plans: tuple[Plan, ...]
    source: str = ""

    def bind(self, plan: str, index: Sequence[Tensor], counts: Sequence[int], host: Any = None) -> _ReferenceLauncher:
        return _ReferenceLauncher(next(p for p in self.plans if p.name == plan), OnGraph.graph)


@dataclass
class _ReferenceLauncher(Launcher):
    plan: Plan
    graph: Graph

    def check(self, inputs: Sequence[Tensor]) -> None:
        for b, x in zip(self.plan.inputs, inputs, strict=True):
            assert x.dtype is torch_dtype(b.type.dtype), (b, x.dtype)

    def run(self, inputs: Sequence[Tensor], spare: tuple[int, ...] = ()) -> list[Tensor]:
        with torch.no_grad():
            found = run_plan(self.plan, [x.contiguous() for x in inputs], self.graph)
            own = {
                b: x.clone(memory_format=torch.contiguous_format) for b, x in zip(self.plan.outputs, found, strict=True)
            }
        return [own[b] for b in self.plan.outputs]


@dataclass
class Collector:
    """Runs plans by the reference, and remembers them."""

    seen: dict[tuple[str, ...], Planned] = field(default_factory=dict)

    def __call__(self, planned: Planned, index_dtype: DType) -> Executable:
        self.seen[planned.plan_texts] = planned
        return Reference(planned.plans)


class Library:
    """Kernels of many plans in one shared library."""

    def __init__(self, wanted: Sequence[Planned]) -> None:
        self.made: dict[tuple[str, ...], Executable] = {}
        renamed = [
            tuple(replace(plan, name=f"{plan.name}_{n}") for plan in planned.plans) for n, planned in enumerate(wanted)
        ]
        library = build(emit([plan for plans in renamed for plan in plans], DType.I32))
        for planned, plans in zip(wanted, renamed, strict=True):
            executable = object.__new__(CppExecutable)
            executable.plans, executable.index_dtype, executable._emitted = plans, torch.int32, DType.I32
            executable.runners = {p.name: _PlanRunner(p, library) for p in plans}
            self.made[planned.plan_texts] = executable

    def __call__(self, planned: Planned, index_dtype: DType) -> Executable:
        return self.made[planned.plan_texts]
