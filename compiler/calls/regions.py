"""Regions: what of a model that cannot be compiled as one program is compiled nevertheless.

A module whose ``forward`` is outside of the language runs in Python. The modules that it calls are then called by :meth:`Regions.take`,
which compiles each of them by the same rule: as one program where it can be traced, else in Python with the modules that it calls compiled.
The modules themselves stay as they are. Who takes calls is a matter of the thread, and of the time that the outer ``forward`` runs.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from columba.calls.module_call import call_with
from columba.calls.options import Options
from columba.calls.recognize import Recognizer
from columba.frontend import Attempt, hooks, pyg
from columba.frontend.code import disables
from columba.runtime.graphs.graph import Graph, substituting
from columba.runtime.logs import logger

LOG = logger("regions")

MOST_FAILURES = 16
"""Traces that may fail for a module in training, or in evaluation, before it is taken for one that is outside of the language."""


@dataclass(frozen=True)
class Break:
    """A module that runs in Python.

    Attributes:
        name: its path from the model, as in ``named_modules``; the model itself is ``""``.
        kind: its class.
        reason: what is outside of the language: ``file:line: why``.
        is_layer: whether it is one of PyG's layers.
    """

    name: str
    kind: str
    reason: str
    is_layer: bool = False

    def __str__(self) -> str:
        return f"{called(self.name, self.kind)}: {self.reason}"


@dataclass(frozen=True)
class Failure:
    """A trace that failed.

    Attributes:
        reason: why.
        attempt: what it had read, by which calls like it are recognized; None where it had not begun.
        in_training: the mode of the module.
        is_unsure: whether the reason may be an error of the user's, until the call runs in Python without one.
        is_passing: whether the call fills a cache, so that the next will be another.
    """

    reason: str
    attempt: Attempt | None
    in_training: bool | None
    is_unsure: bool = False
    is_passing: bool = False

    @functools.cached_property
    def recognizes(self) -> Recognizer | None:
        return None if self.attempt is None else Recognizer(self.attempt)

    @property
    def lacks_graph(self) -> bool:
        return self.attempt is not None and self.attempt.lacks_graph

    @property
    def met_graph(self) -> bool:
        return self.attempt is None or self.attempt.met_graph


@dataclass
class Failures:
    """Of one module, or of a function: those that are remembered, the last first."""

    known: tuple[Failure, ...] = ()

    def of(self, owner: nn.Module | None, rest: tuple[Any, ...], kwargs: dict[str, Any]) -> Failure | None:
        """The failure that a call like this would be."""
        for one in self.known:
            if one.recognizes is not None and one.recognizes(owner, rest, kwargs):
                return one
        return None

    def last(self, owner: nn.Module | None) -> Failure | None:
        """The last one, where there are so many that no call of this mode is traced any more."""
        mode = None if owner is None else owner.training
        alike = [failure for failure in self.known if failure.in_training == mode]
        return alike[0] if len(alike) >= MOST_FAILURES else None

    def add(self, failure: Failure) -> None:
        if failure.attempt is None or any(one.attempt is failure.attempt for one in self.known):
            return
        alike = [one for one in self.known if one.in_training == failure.in_training]
        dropped = alike[MOST_FAILURES - 1 :]
        self.known = (failure, *(one for one in self.known if not any(one is other for other in dropped)))


Seen = Callable[[Any, Any, Any, Any], None]
"""Is told of a region: the module, what is compiled of its class, its specialization, and the call bound to it."""


@dataclass(eq=False)
class _Met:
    """What became of a module, or of a function, in a call."""

    kind: str
    failure: Failure | None = None
    reaches_graph: bool = True
    is_layer: bool = False


@dataclass(eq=False)
class Regions:
    """One call of a model that runs in regions.

    Attributes:
        options: with which regions are compiled.
        compiled: from a class of modules and options to what is compiled of it: a :class:`columba.calls.function.Forward`.
        seen: for :func:`columba.explain`: regions are shown to it, and run uncompiled.
        collects: whether to write down what becomes of which module.
    """

    options: Options
    compiled: Callable[..., Any]
    seen: Seen | None = None
    collects: bool = True
    met: dict[int, _Met] = field(default_factory=dict)
    running: list[_Met] = field(default_factory=list)

    def take(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of a module while a forward around it runs in Python."""
        if _is_left_alone(module, args, kwargs):
            return hooks.as_it_is(module, args, kwargs)
        if _is_disabled():
            with hooks.taking(None):
                return hooks.as_it_is(module, args, kwargs)
        return call_with(module, functools.partial(self._forward, module), args, kwargs)

    def _forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        compiled = self.compiled(type(module), self.options)  # a hook may have changed the class
        if not self.collects:
            return compiled(module, *args, **kwargs)
        met = self.met.setdefault(id(module), _Met(type(module).__name__))
        if self.seen is None:
            result = compiled(module, *args, **kwargs)
        else:
            result = compiled.shown(self.seen, module, *args, **kwargs)
        if self.met.get(id(module)) is met and met.failure is None:
            self._reach_graph()
        return result

    def _reach_graph(self) -> None:
        for one in self.running:
            one.reaches_graph = True

    def _used(self, graph: Graph) -> Graph:
        self._reach_graph()
        return graph

    @contextlib.contextmanager
    def in_python(self, owner: Any, name: str, failure: Failure) -> Iterator[None]:
        """Within, a forward runs in Python, and the modules that it calls are compiled.

        Args:
            owner: the module whose forward it is, or the function.
            name: what to call it.
            failure: why.
        """
        if failure.lacks_graph and not _has_layers(owner):  # nothing within has anything to gain
            self.met.pop(id(owner), None)
            if self.collects and pyg.is_graph_layer(owner):  # but people ask for it
                self.met[id(owner)] = _Met(name, failure, is_layer=True)
            with hooks.taking(None):
                yield
            return
        outer = _state.regions
        _state.regions = self
        try:
            with hooks.taking(self.take), self._collecting(owner, name, failure):
                yield
        finally:
            _state.regions = outer

    @contextlib.contextmanager
    def _collecting(self, owner: Any, name: str, failure: Failure) -> Iterator[None]:
        if not self.collects:
            yield
            return
        self.met[id(owner)] = met = _Met(name, failure, failure.met_graph, pyg.is_graph_layer(owner))
        self.running.append(met)
        if met.reaches_graph:
            self._reach_graph()
        try:
            with substituting(self._used):
                yield
        finally:
            self.running.pop()

    def breaks(self, root: Any) -> list[Break]:
        """The modules that reach a graph, or are layers of PyG's, and run in Python."""
        return [
            Break(name, met.kind, met.failure.reason, met.is_layer)
            for name, met in self._named(root)
            if met.failure is not None and (met.reaches_graph or met.is_layer)
        ]

    def names(self, root: Any) -> list[tuple[str, str]]:
        """Path and class of each region."""
        return [(name, met.kind) for name, met in self._named(root) if met.failure is None]

    def _named(self, root: Any) -> list[tuple[str, _Met]]:
        names = named(root)
        return [(names.get(i, f"<{met.kind}>"), met) for i, met in self.met.items()]

    def tell(self, root: Any, what: str) -> None:
        """One message about a model: what of it is compiled, and why not the rest."""
        breaks, regions = self.breaks(root), self.names(root)
        if not breaks:
            return
        lines = [f"  compiled: {called(name, kind)}" for name, kind in regions]
        lines += [f"  in Python: {one}" for one in breaks]
        count = f"{len(regions)} compiled region{'' if len(regions) == 1 else 's'}"
        LOG.info("%s runs as %s, with PyTorch between:\n%s", what, count, "\n".join(lines))


def tell_split(what: str, programs: int, reasons: list[str]) -> None:
    """One message about a trace that has torch functions between its programs."""
    count = f"{programs} program{'' if programs == 1 else 's'}"
    LOG.info(
        "%s runs as %s, with PyTorch between:\n%s", what, count, "\n".join(f"  in PyTorch: {why}" for why in reasons)
    )


_told: set[str] = set()


def tell_layer(kind: str, reason: str) -> None:
    """One warning about a class of PyG's layers that run in PyTorch."""
    if kind not in _told:
        _told.add(kind)
        LOG.warning(
            "%s runs in PyTorch: %s (columba.explain says more; columba.compile(..., strict=True) makes it an error)",
            kind,
            reason,
        )


def named(root: Any) -> dict[int, str]:
    """The path of each module within another, by its identity."""
    if not isinstance(root, nn.Module):
        return {id(root): ""}
    return {id(module): name for name, module in root.named_modules()}


class _State(threading.local):
    regions: Regions | None = None


_state = _State()


def current() -> Regions | None:
    """What takes the calls of modules in this thread."""
    return _state.regions


def called(name: str, kind: str) -> str:
    """A module in messages."""
    return kind if name in ("", f"<{kind}>") else f"{name} ({kind})"


def _is_left_alone(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a module has nothing to gain, is compiled for itself, or runs what nobody else can."""
    kind = type(module)
    return (
        _is_of_torch(module, args, kwargs)
        or ("forward" in module.__dict__ and pyg.own_forward(module) is None)
        or hasattr(kind.forward, "specialize")
        or isinstance(module, torch.jit.ScriptModule)
        or torch._C._get_tracing_state() is not None
        or _is_checkpointed()
    )


def _has_layers(owner: Any) -> bool:
    """Whether there are layers of PyG's within a module, of each of which is said why it is not compiled."""
    return isinstance(owner, nn.Module) and any(pyg.is_layer(one) for one in owner.modules() if one is not owner)


def _is_of_torch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a module, and all within, is one of PyTorch's, and gets no graph."""
    if not type(module).__module__.startswith("torch.nn."):
        return False
    if any(isinstance(x, Graph) for x in (*args, *kwargs.values())):
        return False
    return all(child is None or _is_of_torch(child, (), {}) for child in module._modules.values())


def _is_checkpointed() -> bool:
    """Whether ``torch.utils.checkpoint`` will run this again in the backward pass, where nothing is compiled, and compare."""
    found = torch._C._autograd._top_saved_tensors_default_hooks(False)
    return found is not None and getattr(found[0], "__module__", "") == "torch.utils.checkpoint"


def _is_disabled() -> bool:
    """Whether a frame around a call is of what ``torch.compiler.disable`` wrapped, with all that it calls."""
    if "torch._dynamo.eval_frame" not in sys.modules:
        return False
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != _CALLER:
        if disables(frame.f_code) == "all":
            return True
        frame = frame.f_back
    return False


_CALLER = __file__.replace("regions.py", "function.py")
