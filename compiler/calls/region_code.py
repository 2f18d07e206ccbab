"""The functions that make calls within ``torch.compile``, as text, which Dynamo reads."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from columba.calls.flat import A_GRAPH, SIZES, FlatCall, GraphMaker, Made, NotFlat, Token, register
from columba.calls.recognize import Holds
from columba.frontend.counts import Extent, RowCount, Rows
from columba.frontend.record import Record
from columba.frontend.sources import Argument, Attribute, Prepared, Registered, Source
from columba.frontend.symbolic import BuiltGraph
from columba.frontend.trees import mapped
from columba.ir.spaces import Space
from columba.runtime.graphs.from_tensors import TensorGraph, as_graph
from columba.runtime.graphs.graph import Graph


def _hint(n: Any) -> int:
    """A size, without fixing it."""
    return n if isinstance(n, int) else int(n.node.hint)


def stand_in(x: Tensor, largest: int = 0) -> Tensor:
    """A tensor like another one, which may be fake, of the sizes that it has now. Integers are ids: of 0, and where they may be an
    ``edge_index``, one of ``largest``."""
    shape = tuple(map(_hint, x.shape))
    made = torch.zeros((), dtype=x.dtype, device=x.device).expand(shape)
    if largest and made.dim() == 2 and shape[0] == 2 and shape[1] and not made.dtype.is_floating_point:
        made = made.clone()
        made[:, 0] = largest
    return made.detach().requires_grad_(x.requires_grad)


def largest_guess(*trees: Any) -> int:
    """What the largest id of a node may be: one less than the most rows of a tensor of numbers."""
    rows = [1]
    mapped(
        lambda x: (
            rows.append(_hint(x.shape[0])) if isinstance(x, Tensor) and x.dim() and x.dtype.is_floating_point else None
        ),
        trees,
    )
    return max(rows) - 1


class RegionCode:
    """One call, as a function of what Dynamo has: see :mod:`columba.calls.dynamo`.

    Args:
        frame: the call, as Dynamo knows it.

    Attributes:
        name: the attribute of the compiled function's ``regions`` that is the function.
    """

    def __init__(self, frame: Any) -> None:
        self.frame = frame
        self.constants: dict[str, Any] = {}
        self.inputs: list[str] = []
        self.sizes: list[str] = []
        self.arguments: dict[tuple[Any, ...], TensorGraph] = {}
        self.found: dict[int, tuple[Any, Any]] = {}
        self.memo: dict[int, tuple[Any, Tensor]] = {}
        self.largest, self.most_rows = 0, 1
        function = frame.function
        specialization, bound, call_made = self._specialized(function)
        trace = specialization.trace
        self.owner, _ = function._split(call_made[0])
        self.check_unchanged(trace)
        self.shift = 0 if self.owner is None else 1
        self.owners = _paths(self.owner)
        training = torch.is_grad_enabled()
        tensors = [self.fetch(guard.source, bound.values[record]) for record, guard in trace.given]
        positions = [self.input(text) for text in tensors]
        wanted = [n for n, (record, guard) in enumerate(trace.given) if training and _wants(bound.values[record])]
        self.names = {record: text for (record, _), text in zip(trace.given, tensors, strict=True)}
        graphs = bound.graphs
        self.graphs: list[str | None] = []
        makers = [self.graph(s, g) for s, g in zip(trace.graphs, graphs, strict=True)]
        flat = FlatCall(specialization, positions, makers, graphs[0].device, bool(wanted))
        flat.on = next((n for n, x in enumerate(bound.values[r] for r, _ in trace.given) if x.device == flat.device), 0)
        self.checks = self.fixed(trace, bound)
        _find_needed(flat, [self.standing(n, trace, bound) for n in range(len(self.inputs))], graphs)
        flat.offset = len(self.sizes)
        self.sizes += [self.size(n, space) for n, space in flat.needed]
        self.name = self.kept(flat, trace, wanted, call_made)

    # -------------------------------------------------------------------------------------------- the trace

    def _specialized(self, function: Any) -> tuple[Any, Any, Any]:
        """The specialization, the call of stand-ins that is bound to it, and that call."""
        first: Exception | None = None
        for guesses in (False, True):
            self.memo = {}
            self.largest = self.most_rows - 1 if guesses else 0
            args = self.frame.value(self.frame.args, (0,), self.leaf)
            kwargs = self.frame.value(self.frame.kwargs, (1,), self.leaf)
            try:
                return *function.specialize(*args, **kwargs), (args, kwargs)
            except ValueError as e:  # the number of nodes may be what the largest id says
                if first is not None or not self.memo:
                    raise first or e from None
                first = e
        raise AssertionError

    def check_unchanged(self, trace: Any) -> None:
        """NotFlat where an attribute that the trace depends on has been set by the code that Dynamo reads: the trace has not seen that."""
        watched = {id(m) for m in (() if self.owner is None else self.owner.modules())}
        watched |= {id(check.owner.value) for check in trace.guards.checks if hasattr(check, "owner")}
        for i, (value, name) in self.frame.changed().items():
            if i in watched:
                raise NotFlat(
                    f"the attribute {name!r} of a {type(value).__name__} has been set before, in the same compiled code"
                )

    def leaf(self, value: Any, path: tuple[Any, ...]) -> Any:
        if isinstance(value, Graph):
            return value
        if isinstance(value, TensorGraph):
            self.arguments[path] = value
            tensors, sizes = value.parts()
            return as_graph(*_each(self.leaf_tensor, tensors), **{k: _each(_hint_or_none, v) for k, v in sizes})
        return self.leaf_tensor(value)

    def leaf_tensor(self, value: Any) -> Any:
        if value is None:
            return None
        if id(value) not in self.memo:
            self.memo[id(value)] = value, stand_in(value, self.largest)
            if value.dtype.is_floating_point and value.dim():
                self.most_rows = max(self.most_rows, _hint(value.shape[0]))
        return self.memo[id(value)][1]

    def standing(self, position: int, trace: Any, bound: Any) -> Tensor:
        """Any tensor of the sizes and dtype of an input."""
        if position < len(trace.given):
            value: Tensor = bound.values[trace.given[position][0]]
            return value
        return torch.zeros((), dtype=torch.int64)

    # -------------------------------------------------------------------------------------------- the text

    def constant(self, value: Any) -> str:
        for name, known in self.constants.items():
            if known is value:
                return name
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def input(self, text: str) -> int:
        self.inputs.append(text)
        return len(self.inputs) - 1

    def at(self, path: tuple[Any, ...]) -> str:
        """An expression for part of an argument; ``path`` counts the owner among the arguments."""
        which, *keys = path
        return ("kwargs" if which else "args") + "".join(f"[{k!r}]" for k in keys)

    def shifted(self, path: tuple[Any, ...]) -> tuple[Any, ...]:
        """A path in the arguments without the owner, as one in those with it."""
        return path if path[0] else (0, path[1] + self.shift, *path[2:])

    def module(self, value: Any) -> str:
        path = self.owners.get(id(value))
        if path is None:
            return self.constant(value)
        text = "args[0]"
        for name in path:
            text = f"getattr({text}, {name!r})"
        return text

    def fetch(self, source: Source, value: Any) -> str:
        """An expression for what a source gives; where Dynamo could not follow, the value itself, which is compared at each call."""
        match source:
            case Argument(path):
                return self.at(self.shifted(path))
            case Attribute(owner, name) if isinstance(owner.value, nn.Module):
                return f"getattr({self.module(owner.value)}, {name!r})"
            case Registered(owner, _, name):
                return f"getattr({self.module(owner.value)}, {name!r})"
        self.found[id(value)] = source, value
        return self.constant(value)

    def graph(self, sources: Sequence[Any], graph: Graph) -> GraphMaker | None:
        source = sources[0]
        if len(sources) > 1:
            places = ", ".join(map(str, sources))
            raise NotFlat(f"it finds the same graph in several places ({places}); pass it once")
        if isinstance(source, BuiltGraph):
            self.graphs.append(None)
            return None
        if isinstance(source, Argument):
            path = self.shifted(source.path)
            made = self.arguments.get(path)
            if made is not None:
                return self.made(path, made)
        text = self.fetch(source, graph)
        self.graphs.append(text)
        return Token(self.input(f"{text}._token"))

    def made(self, path: tuple[Any, ...], graph: TensorGraph) -> Made:
        text = self.at(path)
        self.graphs.append(None)
        tensors, sizes = graph.parts()

        def tensor(x: Any, expression: str) -> Any:
            if isinstance(x, tuple):
                return tuple(tensor(part, f"{expression}[{n}]") for n, part in enumerate(x))
            return None if x is None else self.input(expression)

        def number(x: Any, expression: str) -> Any:
            if isinstance(x, tuple):
                return tuple(number(part, f"{expression}[{n}]") for n, part in enumerate(x))
            if x is None or isinstance(x, int):
                return x
            self.sizes.append(expression)
            return "size", len(self.sizes) - 1

        names = TensorGraph.FIELDS
        places = tuple(tensor(x, f"{text}.{name}") for x, name in zip(tensors, names, strict=False))
        return Made(places, tuple((name, number(x, f"{text}.{name}")) for name, x in sizes))

    def size(self, graph: int, space: Space) -> str:
        """An expression for a number of rows of a graph."""
        text = self.graphs[graph]
        if text is None or space not in SIZES:
            raise NotFlat(
                f"the shape of what it returns depends on the number of rows of space {space}, which shows only when it runs"
            )
        return f"{text}.{SIZES[space]}"

    def fixed(self, trace: Any, bound: Any) -> list[str]:
        """Conditions for numbers of rows that the trace depends on."""
        checks = []
        prepared = {r for r, guard in trace.tensors if isinstance(guard.source, Prepared)}

        def is_seen(*counts: Any) -> bool:
            """Whether the code around has what has so many rows; of what is prepared, the call itself looks."""
            return not any(getattr(of, "record", of) in prepared for of in counts if not isinstance(of, tuple))

        for of, n in trace.fixed.items():
            if is_seen(of):
                checks.append(f"{self.rows(of)} == {int(n)}")
        for pairs, relation in ((trace.same, "=="), (trace.less, "<")):
            checks += [f"{self.rows(a)} {relation} {self.rows(b)}" for a, b in pairs if is_seen(a, b)]
        checks += [f"{self.rows(of)} > 0" for of in trace.positive if is_seen(of)]
        for text, square in zip(self.graphs, trace.square, strict=True):
            if text is not None:
                checks.append(f"{text}.is_square is {square}")
        return checks

    def tree(self, value: Any, results: dict[Record, str]) -> str:
        match value:
            case Record():
                return results.get(value) or self.names[value]
            case RowCount():
                return self.rows(value.of)
            case tuple() if hasattr(value, "_fields"):
                return f"{self.constant(type(value))}({', '.join(self.tree(v, results) for v in value)})"
            case tuple():
                return "(" + "".join(f"{self.tree(v, results)}, " for v in value) + ")"
            case list():
                return "[" + ", ".join(self.tree(v, results) for v in value) + "]"
            case dict():
                return "{" + ", ".join(f"{k!r}: {self.tree(v, results)}" for k, v in value.items()) + "}"
        return self.constant(value)

    def rows(self, of: Any) -> str:
        if isinstance(of, int):
            return str(of)
        if isinstance(of, Record) and of in self.names:
            return f"{self.names[of]}.shape[0]"
        if isinstance(of, Extent) and of.record in self.names:
            return f"{self.names[of.record]}.shape[{of.dim}]"
        if isinstance(of, Rows):
            return self.size(of.graph, of.space)
        raise NotFlat("it returns, or depends on, a number of rows that is computed inside")

    def kept(self, flat: FlatCall, trace: Any, wanted: Sequence[int], call_made: Any) -> str:
        """Writes the function, and keeps it with the compiled function, under a name."""
        results = {record: f"r[{n}]" for n, record in enumerate(flat.results)}
        lines = [f"if not ({check}): raise AssertionError" for check in self.checks]
        operators = torch.ops.columba
        operator = self.constant((operators.random_call if flat.is_random else operators.call).default)
        key = f"c{len(self.constants)}"
        self.constants[key] = _NOT_YET  # nothing that the function may return
        on = f"{self.inputs[flat.on]}, " if flat.is_random else ""
        arguments = f"[{', '.join(self.inputs)}], [{', '.join(self.sizes)}], {list(wanted)!r}"
        lines.append(f"r = {operator}({on}{key}, {arguments})")
        if trace.writes:
            lines.append(f"with {self.constant(torch.no_grad)}():")
            written = {**self.names, **results}
            lines += [f"    {self.names[target]}.copy_({written[value]})" for target, value in trace.writes]
        lines.append(f"return {self.tree(trace.output, results)}")
        body = "\n".join(f"        {line}" for line in lines)
        text = f"def make({', '.join(self.constants)}):\n    def region(args, kwargs):\n{body}\n    return region\n"

        regions = self.frame.function.regions
        same = (id(trace), text, *(id(c) for c in self.constants.values()))
        name: str | None = regions.known.get(same)
        if name is None:
            name = f"region_{len(regions.known)}"
            self.constants[key] = register(flat, _name_of(trace))
            made: dict[str, Any] = {}
            exec(builtins.compile(text, f"<columba {name}>", "exec"), made)
            holds = Holds(trace.guards, _without_tensors(call_made, self.shift), self.owner, tuple(self.found.values()))
            setattr(regions, name, made["make"](**self.constants))
            setattr(regions, f"{name}_holds", holds)
            regions.known[same] = name
            regions.kept.append((flat, list(self.constants.values())))
        self.frame.guard("regions", f"{name}_holds", "still")
        return name


_NOT_YET = object()


def new_regions() -> SimpleNamespace:
    """What a compiled function keeps for :func:`call`."""
    return SimpleNamespace(known={}, kept=[])


def _find_needed(flat: FlatCall, tensors: Sequence[Tensor], graphs: Sequence[Graph]) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fakes = [mode.from_tensor(t.detach()) for t in tensors]
    with torch.no_grad(), mode:
        flat.find_needed(fakes, lambda n, space: graphs[n].count(space))


def _wants(x: Tensor) -> bool:
    return x.requires_grad and (x.dtype.is_floating_point or x.dtype.is_complex)


def _paths(owner: nn.Module | None) -> dict[int, tuple[str, ...]]:
    """The way to each module within another one."""
    if owner is None:
        return {}
    return {id(m): tuple(name.split(".")) if name else () for name, m in owner.named_modules()}


def _each(function: Callable[[Any], Any], tree: Any) -> Any:
    return tuple(_each(function, x) for x in tree) if isinstance(tree, tuple) else function(tree)


def _hint_or_none(n: Any) -> Any:
    return None if n is None else _hint(n)


def _without_tensors(call_made: Any, shift: int) -> Any:
    """The call, with something small in the place of tensors and graphs, for guards that look at other arguments."""
    nothing = torch.empty(0)
    args, kwargs = mapped(
        lambda x: nothing if isinstance(x, Tensor) else A_GRAPH if isinstance(x, Graph) else x, call_made
    )
    return args[shift:], kwargs


def _name_of(trace: Any) -> str:
    return str(trace.parts[0].converted.program.name)
