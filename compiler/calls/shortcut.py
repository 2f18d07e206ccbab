"""Specialized entry code: the last call of a trace, as straight-line Python that recognizes a call like it.

:meth:`Trace.match` interprets guards and sources; that is exact, says what is wrong, and costs more than the kernels of a small graph.
A shortcut checks the same things, specialized to what the last call found: the same graph, tensors of exactly the same sizes, the same
attributes. What cannot have changed since is left out, what is immutable is compared by identity, and everything else by the same
snapshots that guards compare. A call that differs anywhere is :data:`MISSED`, and takes the long way.
"""

from __future__ import annotations

import builtins
import functools
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from columba.calls.freed import freed_after_use
from columba.frontend.code import is_library_module
from columba.frontend.counts import RealGraph, RowCount
from columba.frontend.guards import FunctionGuard, Inherited, OfType, Read, environment, found
from columba.frontend.hooks import HookGuard
from columba.frontend.preparation import Preparation, is_as_seen
from columba.frontend.record import Record
from columba.frontend.snapshot import (
    ATOMS,
    MISSING,
    Same,
    TooLarge,
    is_compared_by_identity,
    snapshot,
)
from columba.frontend.sources import (
    NOT_THERE,
    Argument,
    Attribute,
    Closure,
    Global,
    Item,
    Member,
    Object,
    OfClass,
    Prepared,
    Registered,
    Seed,
    Source,
)
from columba.frontend.symbolic import BuiltGraph
from columba.frontend.traced import Bound, Part, Trace
from columba.ir.plan.planned import copied
from columba.runtime import autocast
from columba.runtime.fast_path import PLAIN, no_modes
from columba.runtime.graphs.from_tensors import Seen, seen_tensors
from columba.runtime.graphs.graph import Graph
from columba.runtime.program import Runnable

MISSED = object()
"""What a shortcut returns for a call that it does not know."""

Shortcut = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""``(owner, args, kwargs)`` to what the function returns, or :data:`MISSED`."""


@dataclass(frozen=True)
class PartRun:
    """What has run a part of a call: its kernels, its inputs, and settings that must be as they are now, if there are such."""

    runnable: Runnable
    inputs: Sequence[Tensor]
    settings: Callable[[], Any] | None


def shortcut_to(trace: Trace, bound: Bound, owner: nn.Module | None, runs: Sequence[PartRun]) -> Shortcut | None:
    """The shortcut for calls like ``bound``; None if such calls need the long way.

    Args:
        trace: what the call matched.
        bound: the call.
        owner: the module whose method was called, if it is one. The shortcut does not keep it alive, nor the graphs.
        runs: what has run each part of it.
    """
    if trace.phases or any(isinstance(check, HookGuard) for check in trace.guards.checks):
        return None
    if not any(run.runnable.planned.results for run in runs):
        return None
    try:
        return Writer(trace, bound, owner).shortcut(runs)
    except LongWay:
        return None


class LongWay(Exception):
    """Something that a shortcut does not check."""


class Writer:
    """Writes the code that recognizes a call: what it checks are the guards, for the values that they have now."""

    def __init__(self, trace: Trace, bound: Bound, owner: nn.Module | None) -> None:
        self.trace, self.bound, self.owner = trace, bound, owner
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self.known: dict[int, str] = {}
        self.names: dict[Record, str] = {}
        self.results: set[Record] = set()
        self.temporaries = 0
        self.owners: dict[int, str] = {}
        self.dictionaries: dict[int, str] = {}
        self.preparations: dict[Preparation, str] = {}

    def shortcut(self, runs: Sequence[PartRun]) -> Shortcut:
        graphs, parts = self.bound.graphs, self.trace.parts
        for n, graph in enumerate(graphs):
            self.write(f"graph{n} = {self.weakly(graph)}")
            self.unless(f"graph{n} is not None")
        for n, (part, run) in enumerate(zip(parts, runs, strict=True)):
            self.write(f"program{n} = {self.weakly(run.runnable.on(graphs[part.graph]))}")
            self.unless(f"program{n} is not None")
        self.unless("no_modes()")
        self.unless(f"environment() == {self.constant(self.trace.guards.environment)}")
        for settings in dict.fromkeys(run.settings for run in runs if run.settings is not None):
            self.unless(f"{self.constant(settings)}() == {self.constant(settings())}")
        checked = len(self.lines)
        self.arguments()
        self.write("try:")
        self.checks()
        self.write("except NOT_THERE: return MISSED")
        n, steps = 0, len(self.lines)
        for step in self.trace.steps:
            if isinstance(step, Record):
                self.replay(step)
            else:
                self.part(n, step, runs[n])
                n += 1
        if self.trace.writes:
            pairs = "".join(f"({self.names[buffer]}, {self.names[value]}), " for buffer, value in self.trace.writes)
            self.write(f"store({pairs})")
        self.write(f"return {self.tree(self.trace.output)}")
        self.lines[steps:] = freed_after_use(self.lines[steps:])
        if self.trace.device is not None:  # what autocast casts is part of the trace
            self.lines[checked:] = ["with autocast_disabled():", *(f"    {line}" for line in self.lines[checked:])]
        return self.build()

    def part(self, n: int, part: Part, run: PartRun) -> None:
        """Runs a program, and what PyTorch computes for it and of its results."""
        for record in part.converted.prelude:
            self.replay(record)
        inputs = self.inputs(part, run.inputs)
        places = run.runnable.planned.places
        if run.runnable.planned.results:
            self.write(f"outputs{n} = program{n}.run_plain([{', '.join(inputs)}])")
        found = {"input": inputs, "output": [f"outputs{n}[{k}]" for k in range(len(part.program.results))]}
        for record, (kind, k), copy in zip(part.converted.results, places, copied(places), strict=True):
            self.names[record] = name = f"r{record.number}"
            self.results.add(record)
            self.write(f"{name} = {found[kind][k]}{'.clone()' if copy else ''}")
        for record in part.converted.postlude:
            self.replay(record)

    def build(self) -> Shortcut:
        parameters = ", ".join(self.constants)
        body = "\n".join("        " + line for line in self.lines)
        text = f"def make({parameters}):\n    def shortcut(owner, args, kwargs):\n{body}\n    return shortcut\n"
        names = {
            "environment": environment, "no_modes": no_modes, "snapshot": snapshot, "MISSED": MISSED, "MISSING": MISSING,
            "NOT_THERE": NOT_THERE, "Tensor": Tensor, "TooLarge": TooLarge, "autocast_disabled": autocast.disabled, "store": _store,
        }  # fmt: skip
        exec(_code(text), names)
        made: Shortcut = names["make"](**self.constants)  # type: ignore[operator]
        return made

    # -------------------------------------------------------------------------------------------- writing

    def write(self, line: str) -> None:
        self.lines.append(line)

    def unless(self, condition: str, indent: str = "") -> None:
        self.write(f"{indent}if not ({condition}): return MISSED")

    def constant(self, value: Any) -> str:
        """The name of a value."""
        name = self.known.get(id(value))
        if name is None:
            name = self.known[id(value)] = f"c{len(self.constants)}"
            self.constants[name] = value
        return name

    def weakly(self, value: Any) -> str:
        """An expression for an object that is compared by identity, and that the shortcut does not keep alive."""
        if isinstance(value, (staticmethod, classmethod, property)):  # of a class, which lives as long as its module
            return self.constant(value)
        try:
            return f"{self.constant(weakref.ref(value))}()"
        except TypeError:  # of a class whose objects cannot be referred to weakly
            raise LongWay from None

    def unchanged(self, expression: str, value: Any, seen: Any) -> str:
        """The condition that ``snapshot(expression)`` is still ``seen``; ``value`` is what it gave before."""
        if isinstance(value, Tensor):
            return f"isinstance({expression}, Tensor)"
        if isinstance(value, ATOMS) or value is MISSING:
            return f"{expression} is {self.constant(value)}"
        if isinstance(seen, Same):
            return f"{expression} is {self.weakly(value)}"
        if type(value) in _EMPTY and not value:
            return f"type({expression}) is {self.constant(type(value))} and not {expression}"
        if type(value) is types.MethodType:
            return self.same_method(expression, value)
        if (same := self.same_items(expression, value)) is not None:
            return same
        condition = f"snapshot({expression}) == {self.constant(seen)}"
        if type(value) is tuple and all(
            isinstance(part, ATOMS) for part in value
        ):  # which cannot change: most are the same one
            return f"({expression} is {self.constant(value)} or {condition})"
        return condition

    def same_items(self, expression: str, value: Any) -> str | None:
        """The condition that a dictionary has the same objects by the same names, as a module has modules; None if it is none of that kind.
        A snapshot of a dozen items takes longer than a small kernel."""
        if type(value) is not dict or not all(type(key) is str for key in value):
            return None
        conditions = [f"type({expression}) is dict", f"list({expression}) == {self.constant(list(value))}"]
        for key, item in value.items():
            if item is None:
                conditions.append(f"{expression}[{key!r}] is None")
            elif item is not self.owner and not isinstance(item, ATOMS) and isinstance(snapshot(item), Same):
                conditions.append(f"{expression}[{key!r}] is {self.weakly(item)}")
            else:
                return None
        return " and ".join(conditions)

    def same_method(self, expression: str, method: types.MethodType) -> str:
        name = self.temporary(expression)
        kind = f"type({name}) is {self.constant(types.MethodType)}"
        return f"{kind} and {name}.__self__ is {self.weakly(method.__self__)} and {name}.__func__ is {self.weakly(method.__func__)}"

    def temporary(self, expression: str) -> str:
        self.temporaries += 1
        self.write(f"    v{self.temporaries} = {expression}")
        return f"v{self.temporaries}"

    # -------------------------------------------------------------------------------------------- guards

    def arguments(self) -> None:
        args, kwargs = self.bound.call
        self.unless(f"len(args) == {len(args)}")
        self.unless(f"list(kwargs) == {self.constant(list(kwargs))}" if kwargs else "not kwargs")
        for n, value in enumerate(args):
            self.argument(f"args[{n}]", value)
        for name, value in kwargs.items():
            self.argument(f"kwargs[{name!r}]", value)

    def argument(self, expression: str, value: Any, depth: int = 6) -> None:
        if isinstance(value, Tensor):
            return self.unless(f"type({expression}) is {self.constant(_plain_type(value))}")
        if isinstance(value, Graph):
            return self.graph_argument(expression, value)
        if type(value) is tuple and depth:
            self.unless(f"type({expression}) is tuple and len({expression}) == {len(value)}")
            for n, part in enumerate(value):
                self.argument(f"{expression}[{n}]", part, depth - 1)
            return None
        if type(value) is dict and depth and all(type(key) is str or _is_name(key) for key in value):
            keys, kinds = self.constant(list(value)), self.constant(list(map(type, value)))
            self.unless(
                f"type({expression}) is dict and list({expression}) == {keys} and list(map(type, {expression})) == {kinds}"
            )
            for key, part in value.items():
                self.argument(f"{expression}[{key!r}]", part, depth - 1)
            return None
        if isinstance(value, ATOMS):
            same, kind = self.constant(value), self.constant(type(value))
            if value != value or value == 0:  # nan is not equal to itself, and 0.0 is to -0.0
                return self.unless(f"{expression} is {same}")
            return self.unless(f"{expression} is {same} or (type({expression}) is {kind} and {expression} == {same})")
        if value is self.owner:
            raise LongWay
        if is_compared_by_identity(value):
            return self.unless(f"{expression} is {self.weakly(value)}")
        return self.unless(f"snapshot({expression}, True) == {self.constant(snapshot(value, True))}")

    def graph_argument(self, expression: str, graph: Graph) -> None:
        self.unless(f"{expression} is {self.name_of_graph(graph)}")

    def name_of_graph(self, graph: Graph) -> str:
        """An expression for a graph of the call; one that nothing uses need not be the same."""
        number = next((n for n, known in enumerate(self.bound.graphs) if known is graph), None)
        return self.weakly(graph) if number is None else f"graph{number}"

    def checks(self) -> None:
        """Attributes, variables, tensors and graphs, inside of ``try``."""
        self.write("    pass")
        read = {guard.source for _, guard in self.trace.tensors}
        for check in self.trace.guards.checks:
            owner = check.owner.value if not isinstance(check, FunctionGuard) else None
            match check:
                case OfType(_, kind):
                    self.unless(f"type({self.object(owner)}) is {self.constant(kind)}", "    ")
                case Inherited(_, name):
                    self.unless(f"{name!r} not in {self.dictionary(owner)}", "    ")
                case Read(_, name, seen):
                    value = getattr(owner, name, MISSING)
                    if isinstance(value, Tensor) and any(
                        isinstance(r, Attribute) and r.owner.value is owner and r.name == name for r in read
                    ):
                        continue  # checked as a tensor
                    if value is self.owner and value is not None:
                        raise LongWay
                    self.unless(self.unchanged(self.attribute(owner, name), value, seen), "    ")
                case FunctionGuard():
                    self.function(check)
        self.classes_lack()
        for source, seen in self.trace.guards.variables:
            if isinstance(source, OfClass) and seen is MISSING:
                continue
            value = found(source, self.bound.call)
            if value is self.owner and value is not None:
                raise LongWay
            self.unless(self.unchanged(self.fetch(source), value, seen), "    ")
        for source, same in self.trace.guards.graphs:
            self.unless(f"{self.fetch(source)} is {self.weakly(same.value)}", "    ")
        for one, other in self.trace.guards.aliases:
            self.unless(f"{self.fetch(one)} is {self.fetch(other)}", "    ")
        needed = {r for part in self.trace.parts for r, _ in part.converted.inputs}
        for record, guard in self.trace.tensors:
            value = guard.source.fetch(self.bound.call)
            kind = _plain_type(value)
            name = self.names[record] = f"t{record.number}"
            self.write(f"    {name} = {self.fetch(guard.source)}")
            if isinstance(guard.source, Prepared):  # which nobody else has, and nobody changes
                self.unless(f"{name} is {self.weakly(value)}", "    ")
                continue
            condition = f"type({name}) is {self.constant(kind)} and {name}.dtype is {self.constant(value.dtype)}"
            if guard.shape is not None or record in needed:
                condition += f" and {name}.shape == {self.constant(value.shape)}"
            if guard.requires_grad is not None:
                condition += f" and {name}.requires_grad is {guard.requires_grad}"
            where = "is_cpu" if value.is_cpu else f"device == {self.constant(value.device)}"
            self.unless(f"{condition} and {name}.{where}", "    ")
        for source, before in self.trace.read:
            if isinstance(source, Prepared):
                self.unless(f"{self.constant(is_as_seen)}({self.fetch(source)}, {self.constant(before)})", "    ")
            else:
                still = Seen(source.fetch(self.bound.call)).is_still
                self.unless(f"{self.constant(still)}({self.fetch(source)})", "    ")
        for sources, graph in zip(self.trace.graphs, self.bound.graphs, strict=True):
            for graph_source in sources:
                if isinstance(graph_source, BuiltGraph):
                    self.built(graph_source, graph)
                elif (
                    not isinstance(graph_source, Argument) or len(graph_source.path) > 2
                ):  # others were compared as arguments
                    self.unless(f"{self.fetch(graph_source)} is {self.name_of_graph(graph)}", "    ")

    def classes_lack(self) -> None:
        """What instances have themselves, their classes still do not have: those that are not of a library, which are left as they are."""
        names: dict[type, list[str]] = {}
        for source, seen in self.trace.guards.variables:
            if isinstance(source, OfClass) and seen is MISSING:
                for kind in source.owner.value.__mro__:
                    if not is_library_module(kind.__module__, classes=True):
                        names.setdefault(kind, []).append(source.name)
        for kind, lacking in names.items():
            self.unless(f"{self.constant(frozenset(lacking))}.isdisjoint({self.object(kind)}.__dict__)", "    ")

    def function(self, guard: FunctionGuard) -> None:
        function = guard.function.value
        name = self.object(function)
        self.unless(f"{name}.__code__ is {self.constant(guard.code)}", "    ")
        for attribute, seen in (("__defaults__", guard.defaults), ("__kwdefaults__", guard.keyword_defaults)):
            value = getattr(function, attribute)
            if attribute == "__defaults__" and _is_frozen(value):
                self.unless(f"{name}.{attribute} is {self.constant(value)}", "    ")
            else:
                self.unless(self.unchanged(f"{name}.{attribute}", value, seen), "    ")

    def object(self, value: Any) -> str:
        """The name of an object that is not kept alive."""
        if value is self.owner and value is not None:
            return "owner"
        if id(value) not in self.owners:
            name = self.owners[id(value)] = f"o{len(self.owners)}"
            self.write(f"    {name} = {self.weakly(value)}")
        return self.owners[id(value)]

    def dictionary(self, owner: Any) -> str:
        """The name of an object's ``__dict__``."""
        if id(owner) not in self.dictionaries:
            expression = f"{self.object(owner)}.__dict__"
            name = self.dictionaries[id(owner)] = f"d{len(self.dictionaries)}"
            self.write(f"    {name} = {expression}")
        return self.dictionaries[id(owner)]

    def attribute(self, owner: Any, name: str) -> str:
        """An expression that finds an attribute: in the dictionary where Python finds it, where it does."""
        kind: Any = type(owner)
        usual = f"getattr({self.object(owner)}, {name!r}, MISSING)"
        if kind.__getattribute__ is not object.__getattribute__ or hasattr(kind, name):
            return usual
        if name in getattr(owner, "__dict__", {}):
            return f"{self.dictionary(owner)}[{name!r}]"
        if isinstance(owner, nn.Module) and kind.__getattr__ is nn.Module.__getattr__:
            for place in ("_parameters", "_buffers", "_modules"):
                if name in owner.__dict__[place]:
                    self.unless(f"{name!r} not in {self.dictionary(owner)}", "    ")
                    return f"{self.dictionary(owner)}[{place!r}][{name!r}]"
        return usual

    def fetch(self, source: Source) -> str:
        """What ``source.fetch`` does."""
        match source:
            case Argument(path):
                which, *keys = path
                if not all(map(_is_spelled, keys)):
                    raise LongWay
                return ("kwargs" if which else "args") + "".join(f"[{k!r}]" for k in keys)
            case Attribute(owner, name):
                return self.tensor_of(owner.value, name)
            case Registered(owner, place, name):
                return f"{self.dictionary(owner.value)}[{place!r}][{name!r}]"
            case Global(variables, name):
                if name in variables:
                    return f"{self.constant(variables)}[{name!r}]"
                return f"{self.constant(variables)}.get({name!r}, MISSING)"
            case Closure(function, index, _):
                return f"{self.object(function.value)}.__closure__[{index}].cell_contents"
            case OfClass(owner, name):
                kind, value = owner.value, source.fetch(self.bound.call)
                if isinstance(value, types.FunctionType) and getattr(kind, name, None) is value:
                    return f"{self.object(kind)}.{name}"
            case Object(same, _):
                return self.object(same.value)
            case Member(base, name):
                return f"{self.fetch(base)}.{name}"
            case Item(base, key):
                return f"{self.fetch(base)}[{self.constant(key)}]"
            case Prepared(preparation, step):
                return f"{self.prepared(preparation)}[{step}]"
            case Seed():
                raise LongWay
        return f"{self.constant(source)}.fetch((args, kwargs))"

    def prepared(self, preparation: Preparation) -> str:
        """The name of what a preparation gives."""
        if preparation not in self.preparations:
            tensors = "".join(f"{self.fetch(source)}, " for source in preparation.tensors)
            counts = "".join(f"{self.fetch(count.source)}.shape[{count.dim}], " for count in preparation.counts)
            name = self.preparations[preparation] = f"p{len(self.preparations)}"
            self.write(f"    {name} = {self.constant(preparation)}(({tensors}), ({counts}))")
        return self.preparations[preparation]

    def tensor_of(self, owner: Any, name: str) -> str:
        """A parameter, buffer or attribute, where :meth:`Attribute.fetch` finds it."""
        if not isinstance(owner, nn.Module):
            return f"{self.object(owner)}.{name}"
        attributes = self.dictionary(owner)
        if name in owner._parameters:
            return f"{attributes}['_parameters'][{name!r}]"
        self.unless(f"{name!r} not in {attributes}['_parameters']", "    ")
        if name in owner._buffers:
            return f"{attributes}['_buffers'][{name!r}]"
        self.unless(f"{name!r} not in {attributes}['_buffers']", "    ")
        return f"{attributes}[{name!r}]" if name in owner.__dict__ else f"{self.object(owner)}.{name}"

    def built(self, source: BuiltGraph, graph: Graph) -> None:
        """The graph is that of the same tensors, unchanged."""

        def tensors(s: Any) -> list[Source]:
            return [] if s is None else [t for part in s for t in tensors(part)] if isinstance(s, tuple) else [s]

        parts = [(part, part.fetch(self.bound.call)) for part in tensors(source.tensors)]
        for part, value in parts:
            if isinstance(part, Prepared):
                self.unless(f"{self.fetch(part)} is {self.weakly(value)}", "    ")
        given = [(part, value) for part, value in parts if value is not None]
        seen = seen_tensors([value for _, value in given], graph)
        if seen is None:
            raise LongWay
        prepared = [g.source.preparation for _, g in self.trace.tensors if isinstance(g.source, Prepared)]
        read = {t for preparation in prepared for t in preparation.tensors}  # of these the results are compared already
        for (part, _), known in zip(given, seen, strict=True):
            if not isinstance(part, Prepared) and part not in read:
                self.unless(f"{self.constant(known.is_still)}({self.fetch(part)})", "    ")

    # -------------------------------------------------------------------------------------------- values

    def inputs(self, part: Part, values: Sequence[Tensor]) -> list[str]:
        """A program's inputs, after checks of what depends on values."""
        names: list[str] = []
        grad = self.trace.guards.environment[0]
        for (record, _), value in zip(part.converted.inputs, values, strict=True):
            if record is None:
                names.append(f"{self.constant(Seed().fetch)}(None)")
                continue
            name = self.names[record]
            if record.source is None and record not in self.results:
                _plain_type(value)
                self.unless(
                    f"{name}.shape == {self.constant(value.shape)} and {name}.dtype is {self.constant(value.dtype)}"
                )
            if grad:
                self.unless(f"{name}.requires_grad is {value.requires_grad}")
            names.append(name)
        return names

    def replay(self, record: Record) -> None:
        """Computes a record by PyTorch, as the trace does."""
        assert record.function is not None
        positional = [self.tree(a) for a in record.args]
        named = [f"{k}={self.tree(v)}" for k, v in record.kwargs.items()]
        self.names[record] = name = f"t{record.number}"
        self.write(f"{name} = {self.constant(record.function)}({', '.join((*positional, *named))})")

    def tree(self, value: Any) -> str:
        """An expression for a structure of records, counts and constants."""
        match value:
            case Record():
                return self.names[value]
            case RealGraph():
                return f"graph{value.number}"
            case slice():
                return f"slice({self.tree(value.start)}, {self.tree(value.stop)}, {self.tree(value.step)})"
            case RowCount():
                return repr(int(self.trace.count(value, self.bound.graphs, self.bound.values)))
            case tuple() if hasattr(value, "_fields"):
                return f"{self.constant(type(value))}({', '.join(map(self.tree, value))})"
            case tuple() if type(value) is tuple:
                return "(" + "".join(f"{self.tree(v)}, " for v in value) + ")"
            case list() if type(value) is list:
                return "[" + ", ".join(map(self.tree, value)) + "]"
            case dict() if type(value) is dict:
                return "{" + ", ".join(f"{self.constant(k)}: {self.tree(v)}" for k, v in value.items()) + "}"
        return self.constant(value)


def _is_name(key: Any) -> bool:
    """Whether a key is a tuple of names, as those of edge types are."""
    return type(key) is tuple and all(type(part) is str for part in key)


def _is_spelled(key: Any) -> bool:
    """Whether a key is what its text is the expression for."""
    return all(map(_is_spelled, key)) if type(key) is tuple else isinstance(key, (int, str))


_EMPTY = (list, dict, set, OrderedDict)


def _is_frozen(value: Any) -> bool:
    """Whether a tuple, or None, holds nothing that can change."""
    return value is None or (
        isinstance(value, tuple) and all(isinstance(v, ATOMS) or is_compared_by_identity(v) for v in value)
    )


def _store(*pairs: tuple[Tensor, Tensor]) -> None:
    """Stores what a call has computed for buffers."""
    with torch.no_grad():
        for buffer, value in pairs:
            buffer.copy_(value)


@functools.lru_cache(maxsize=256)
def _code(text: str) -> CodeType:
    return builtins.compile(text, "<columba shortcut>", "exec")


def _plain_type(tensor: Any) -> type:
    """The class of a tensor that a shortcut may take."""
    if type(tensor) not in PLAIN:
        raise LongWay
    return type(tensor)
