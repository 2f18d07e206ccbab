"""Layers: which module each part of a trace comes from, for people who ask what of a model is compiled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from columba.frontend.recorded import Record
from columba.frontend.snapshot import Same


class ModuleCall:
    """The call of a module while a function is traced.

    Attributes:
        module: which; it may be gone once the function has run.
        kind: its class.
        is_layer: whether it is a graph layer, in which modules are a matter of its own.
        is_leaf: whether it has no modules of its own.
        within: the call that it is part of.
        begin: how many records there were before it, ``end``: and after it.
        route: ``"lowering"`` where something else runs than its own ``forward``, ``"generic"`` where that is traced.
        why: for what reason its lowering does not cover the call.
    """

    def __init__(self, module: nn.Module, is_layer: bool, within: ModuleCall | None, begin: int) -> None:
        children: dict[str, Any] = object.__getattribute__(module, "__dict__")["_modules"]  # not read by the function
        self.module, self.kind = Same(module), type(module).__name__
        self.is_layer, self.is_leaf, self.within = is_layer, all(child is None for child in children.values()), within
        self.begin, self.end = begin, begin
        self.route, self.why = "generic", ""

    @property
    def is_shown(self) -> bool:
        """Whether it stands for itself in a list: layers do, and other modules without modules of their own, outside of layers."""
        if self.is_layer or not self.is_leaf:
            return self.is_layer
        outer = self.within
        while outer is not None and not outer.is_layer:
            outer = outer.within
        return outer is None


class ModuleCalls:
    """Those of one trace, in the order in which they began."""

    def __init__(self) -> None:
        self.calls: list[ModuleCall] = []
        self.current: ModuleCall | None = None

    def begin(self, module: nn.Module, is_layer: bool, count: int) -> ModuleCall:
        self.current = call = ModuleCall(module, is_layer, self.current, count)
        self.calls.append(call)
        return call

    def finish(self, call: ModuleCall, count: int) -> None:
        call.end = count
        self.current = call.within

    def take(self, module: nn.Module, route: str, why: str = "") -> None:
        """Notes by which route a module goes whose call has begun."""
        call = self.current
        if call is not None and call.module.value is module:
            call.route, call.why, call.is_layer = route, why, True


@dataclass(frozen=True)
class TracedLayer:
    """What a trace makes of one module.

    Attributes:
        path: from the module whose ``forward`` was traced; None where it is not one of those within it.
        kind: its class.
        route: how it was read, see :class:`ModuleCall`.
        why: for what reason it was not lowered.
        parts: the numbers of the programs that compute something of it.
        reasons: why PyTorch runs the rest.
    """

    path: str | None
    kind: str
    route: str
    why: str
    parts: tuple[int, ...]
    reasons: tuple[str, ...]


def traced_layers(
    calls: ModuleCalls,
    owner: nn.Module | None,
    parts: Sequence[Iterable[Record]],
    breaks: Mapping[Record, str],
) -> tuple[TracedLayer, ...]:
    """The modules of a trace, one entry each, in order; those that compute nothing are left out, unless they are layers.

    Args:
        calls: of the trace.
        owner: the module whose ``forward`` was traced, if it was one.
        parts: of each program, what it computes.
        breaks: what PyTorch runs, and why.
    """
    paths = {} if owner is None else {id(module): path for path, module in owner.named_modules(remove_duplicate=True)}
    numbers = [sorted(record.number for record in part) for part in parts]
    by_module: dict[int, list[ModuleCall]] = {}
    for call in calls.calls:
        if call.is_shown and (module := call.module.value) is not None:
            by_module.setdefault(id(module), []).append(call)
    found = []
    for i, of_module in by_module.items():
        spans = [(call.begin, call.end) for call in of_module]
        computed = tuple(n for n, part in enumerate(numbers) if any(_is_within(number, spans) for number in part))
        reasons = tuple(dict.fromkeys(reason for record, reason in breaks.items() if _is_within(record.number, spans)))
        first = of_module[0]
        if first.is_layer and not computed:
            reasons = reasons or ("it computes nothing with features of nodes or edges, or nothing of that is used",)
        if computed or reasons:
            found.append(TracedLayer(paths.get(i), first.kind, first.route, first.why, computed, reasons))
    return tuple(found)


def _is_within(number: int, spans: Iterable[tuple[int, int]]) -> bool:
    return any(begin <= number < end for begin, end in spans)
