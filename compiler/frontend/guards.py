"""Guards: what a trace depends on, checked at every call."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from columba.frontend.snapshot import MISSING, Same, TooLarge, snapshot
from columba.frontend.sources import NOT_THERE, Arguments, Source
from columba.runtime import autocast


@dataclass(frozen=True)
class TensorGuard:
    """A tensor's dtype and layout, and those of its sizes that matter (None: any)."""

    source: Source
    dtype: torch.dtype
    shape: tuple[int | None, ...] | None
    requires_grad: bool | None = None
    layout: torch.layout = torch.strided

    def mismatch(self, tensor: Any) -> str | None:
        if not isinstance(tensor, Tensor):
            return f"{self.source} is no tensor any more"
        if tensor.dtype != self.dtype:
            return f"{self.source} has dtype {tensor.dtype}, was traced with {self.dtype}"
        if tensor.layout != self.layout:
            return f"{self.source} has layout {tensor.layout}, was traced with {self.layout}"
        if self.requires_grad is not None and tensor.requires_grad is not self.requires_grad:
            return f"{self.source}.requires_grad has changed"
        shape = tensor.shape
        if self.shape is None or shape == self.shape:  # most are parameters, of which all sizes matter
            return None
        if len(shape) != len(self.shape) or any(
            a is not None and a != n for a, n in zip(self.shape, shape, strict=True)
        ):
            return f"{self.source} has shape {list(shape)}, was traced with {[n if n is not None else '*' for n in self.shape]}"
        return None


def environment() -> tuple[Any, ...]:
    """The modes of PyTorch that a trace depends on."""
    return torch.is_grad_enabled(), autocast.state(), torch.get_default_dtype()


_ENVIRONMENT = ("whether gradients are enabled", "autocast", "the default dtype")


@dataclass(frozen=True)
class Read:
    """An attribute that was read of an object, or looked for, and what was found (MISSING: nothing)."""

    owner: Same
    name: str
    seen: Any

    def mismatch(self) -> str | None:
        owner = self.owner.value
        if owner is None or not _is(getattr(owner, self.name, MISSING), self.seen):
            return f"{type(owner).__name__}.{self.name} has changed"
        return None


@dataclass(frozen=True)
class Inherited:
    """An attribute that an object takes from its class: one of its own, set later, would hide that."""

    owner: Same
    name: str

    def mismatch(self) -> str | None:
        owner = self.owner.value
        if owner is None or self.name in owner.__dict__:
            return f"{type(owner).__name__}.{self.name} has been set on the object"
        return None


@dataclass(frozen=True)
class OfType:
    """The class of an object."""

    owner: Same
    kind: type

    def mismatch(self) -> str | None:
        owner = self.owner.value
        return (
            None
            if type(owner) is self.kind
            else f"an object of class {self.kind.__name__} is gone, or of another class"
        )


@dataclass(frozen=True)
class Original(OfType):
    """The class of the module that a compiled one was made of, while that is there."""

    def mismatch(self) -> str | None:
        return None if self.owner.value is None else super().mismatch()


@dataclass(frozen=True)
class FunctionGuard:
    """A function that ran, by what it is: its code can be replaced in place, its defaults can be changed."""

    function: Same
    code: types.CodeType
    defaults: Any
    keyword_defaults: Any

    def mismatch(self) -> str | None:
        function = self.function.value
        if function is None or function.__code__ is not self.code:
            return f"the code of {self.code.co_name} has been replaced"
        if not (_is(function.__defaults__, self.defaults) and _is(function.__kwdefaults__, self.keyword_defaults)):
            return f"the defaults of {self.code.co_name} have changed"
        return None


def _is(value: Any, seen: Any) -> bool:
    try:
        return bool(snapshot(value) == seen)
    except TooLarge:
        return False


@dataclass(frozen=True)
class Guards:
    """Everything beside tensors and graphs that a trace depends on.

    Attributes:
        arguments: a snapshot of the call.
        environment: the modes of PyTorch.
        checks: of objects and functions.
        variables: other places that were read, with a snapshot of each.
        aliases: pairs of places that had the same tensor.
        graphs: graphs that must be the same, since more than their sizes was asked.
    """

    arguments: Any
    environment: tuple[Any, ...]
    checks: tuple[OfType | Inherited | Read | FunctionGuard, ...]
    variables: tuple[tuple[Source, Any], ...]
    aliases: tuple[tuple[Source, Source], ...]
    graphs: tuple[tuple[Source, Same], ...]

    @staticmethod
    def holds(source: Source, seen: Any, call: Arguments) -> bool:
        """Whether a variable is as it was seen."""
        return _is(found(source, call), seen)

    def mismatches(self, call: Arguments, but: Any = ()) -> Iterator[str]:
        """What has changed since the trace, in words; ``but`` are classes of checks that are left out."""
        try:
            if snapshot(call, by_value=True) != self.arguments:
                yield "the arguments differ in structure, or in a value that is no tensor"
        except TooLarge as e:
            yield f"an argument {e}"
        now = environment()
        if now != self.environment:
            yield from (what for what, a, b in zip(_ENVIRONMENT, now, self.environment, strict=True) if a != b)
        for check in self.checks:
            if not isinstance(check, but) and (reason := check.mismatch()) is not None:
                yield reason
        for source, seen in self.variables:
            if not self.holds(source, seen, call):
                yield f"{source} has changed"
        for one, other in self.aliases:
            if found(one, call) is not found(other, call):
                yield f"{one} and {other} are no longer the same tensor"
        for source, same in self.graphs:
            if found(source, call) is not same.value:
                yield f"{source} is another graph"


def found(source: Source, call: Arguments) -> Any:
    """What a source gives at present; MISSING where the way to it has changed."""
    try:
        return source.fetch(call)
    except NOT_THERE:
        return MISSING
