"""Runs the source of a case: eagerly, or compiled, one call after the other."""

from __future__ import annotations

import copy
import hashlib
import linecache
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import columba
from columba.runtime.graphs.graph import Graph
from columba.selection.variants import recipes_for

from .case import Case
from .values import direction

FILE = "fuzzed_program_"


@dataclass(frozen=True)
class Outcome:
    """What a call gave: the shape of what it returned, its leaves in order, the gradients of inputs, and the inputs themselves."""

    structure: str
    leaves: tuple[Any, ...]
    gradients: dict[str, Tensor]
    inputs: dict[str, Tensor]

    def named(self) -> dict[str, Tensor]:
        """Results and gradients that are tensors."""
        found = {f"result {n}": x for n, x in enumerate(self.leaves) if isinstance(x, Tensor)}
        return {**found, **{f"gradient of {name}": x for name, x in self.gradients.items()}}


def load(source: str) -> dict[str, Any]:
    """The namespace of a source text, whose lines errors can show."""
    name = f"{FILE}{hashlib.sha256(source.encode()).hexdigest()[:8]}.py"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": name.removesuffix(".py")}
    exec(compile(source, name, "exec"), namespace)
    return namespace


class Session:
    """The program of a case, to be called several times. ``compiled`` leaves it to Columba."""

    def __init__(self, case: Case, *, compiled: bool = False) -> None:
        self.case, self.is_compiled = case, compiled
        namespace = load(case.source)
        self.is_module = "Program" in namespace
        self.target = namespace["Program" if self.is_module else "program"]
        if compiled:
            self.target = columba.compile(self.target, **_options(case))
        self.module: Any = None

    def call(self, graph: Graph, tensors: dict[str, Tensor], *, grad: bool = True, around: Any = None) -> Outcome:
        """One call; with ``grad``, its backward pass too. ``around`` is a context for the call alone."""
        case = self.case
        given = {}
        for name, x in tensors.items():
            wanted = grad and name in case.grad
            x = x.clone()
            given[name] = torch.nn.Parameter(x, wanted) if name in case.parameters else x.requires_grad_(wanted)
        function = self._function(given)
        arguments = [given[v.name] for v in case.inputs if v.name not in case.parameters]
        with torch.set_grad_enabled(grad):
            returned = function((graph, copy.copy(graph)) if case.twin else graph, *arguments)
        leaves: list[Any] = []
        structure = _walk(returned, leaves)
        gradients = _gradients(leaves, {n: given[n] for n in case.grad}, case.seed) if grad else {}
        return Outcome(structure, tuple(leaves), gradients, given)

    def _function(self, given: dict[str, Tensor]) -> Callable[..., Any]:
        if not self.is_module:
            return self.target  # type: ignore[no-any-return]
        parameters = [given[name] for name in self.case.parameters]
        if self.module is None:
            self.module = self.target(*parameters)
        for name, x in zip(self.case.parameters, parameters, strict=True):
            setattr(self.module, name, x)
        return self.module  # type: ignore[no-any-return]


def _options(case: Case) -> dict[str, Any]:
    if case.backend == "torch":
        return {"backend": "torch", "fullgraph": False if case.twin else None}
    backend = "triton" if case.backend == "triton" else "cpp"
    return {
        "backend": backend,
        "fullgraph": False if case.twin else None,
        **({"recipe": recipes_for({})[case.variant]} if case.variant else {}),
    }


def _walk(value: Any, leaves: list[Any]) -> str:
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}({', '.join(_walk(v, leaves) for v in value)})"
    if isinstance(value, dict):
        return f"{type(value).__name__}({', '.join(f'{k}: {_walk(v, leaves)}' for k, v in value.items())})"
    leaves.append(value)
    return "tensor" if isinstance(value, Tensor) else "number"


def _gradients(leaves: list[Any], wanted: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Gradients in random directions; zero where there are none."""
    roots = [
        (x, direction(x, seed + n))
        for n, x in enumerate(leaves)
        if isinstance(x, Tensor) and x.is_floating_point() and x.requires_grad
    ]
    if not roots or not wanted:
        return {name: torch.zeros_like(x) for name, x in wanted.items()}
    inputs = list(wanted.values())
    found = torch.autograd.grad([r for r, _ in roots], inputs, [d for _, d in roots], allow_unused=True)
    return {name: torch.zeros_like(x) if g is None else g for (name, x), g in zip(wanted.items(), found, strict=True)}
