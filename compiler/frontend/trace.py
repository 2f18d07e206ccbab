"""Tracing a function: from a call to a program, and from later calls to the program's inputs."""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from columba.frontend import hooks
from columba.frontend.batch_norm import store
from columba.frontend.effects import check_nothing_escaped, no_printing
from columba.frontend.errors import NothingToCompile, TraceError, defined, fail
from columba.frontend.failed import keep_attempt
from columba.frontend.guards import Guards, TensorGuard, environment, found
from columba.frontend.infer import Spaces, infer
from columba.frontend.observe import Observer
from columba.frontend.record import Record, Recorder, RecordingMode, RowCount, SymbolicTensor, is_tracing
from columba.frontend.rules import RULES
from columba.frontend.snapshot import Same, TooLarge, snapshot
from columba.frontend.sources import Argument, Arguments, Seed, Source, walk
from columba.frontend.symbolic import LANGUAGE, BuiltGraph, GraphSource, TracedGraph
from columba.frontend.translate import Translated, translate
from columba.frontend.trees import mapped
from columba.ir.program.program import Program
from columba.ir.spaces import Space
from columba.runtime import autocast
from columba.runtime.graphs.from_tensors import as_graph
from columba.runtime.graphs.graph import Graph, substituting
from columba.runtime.modes import random_states, restore_random_states


@dataclass
class Bound:
    """One call: the graph, the program's inputs, and the value of every record that PyTorch computes."""

    graph: Graph
    inputs: list[Tensor]
    values: dict[Record, Any]
    call: Arguments
    fetched: list[tuple[Tensor, int]] = field(default_factory=list)


@dataclass
class Trace:
    """A traced function.

    Attributes:
        program: what is compiled.
        prelude: what PyTorch computes before it, in order: functions of weights and other plain tensors.
        postlude: what PyTorch computes after it, of values that are one for the whole graph.
        phases: the hooks that run after all.
        writes: buffers, and what is stored there once a call has succeeded; ``several`` must have more than one row.
        device: the kind of device that autocast was looked up for, where it is active for any: its casts are part of the trace.
    """

    converted: Translated
    guards: Guards
    tensors: tuple[tuple[Record, TensorGuard], ...]
    graphs: tuple[GraphSource, ...]
    is_square: bool
    layer_sizes: tuple[dict[str, Any], ...]
    fixed: dict[Any, int]
    spaces: Spaces
    output: Any
    device: str | None = None
    phases: tuple[hooks.Phase, ...] = ()
    writes: tuple[tuple[Record, Record], ...] = ()
    several: tuple[Record, ...] = ()
    program: Program = field(init=False)

    def __post_init__(self) -> None:
        self.program = self.converted.program

    @property
    def prelude(self) -> list[Record]:
        return self.converted.prelude

    @property
    def postlude(self) -> list[Record]:
        return self.converted.postlude

    # -------------------------------------------------------------------------------------------- calls

    def match(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bound | None:
        """The call bound to the program's inputs; None if the trace does not hold for it.

        Raises:
            ValueError: something that PyTorch computed for this call does not have a row per row of its space.
        """
        call = args, kwargs
        if next(self.guards.mismatches(call), None) is not None:
            return None
        values: dict[Record, Any] = {}
        fetched: list[tuple[Tensor, int]] = []
        for record, guard in self.tensors:
            tensor = found(guard.source, call)
            if self.phases and isinstance(tensor, Tensor):
                fetched.append((tensor, hooks.version(tensor)))
            if guard.mismatch(tensor) is not None:
                return None
            values[record] = tensor
        graph = self._graph(call, values)
        if graph is None or not self._counts_hold(graph, values) or self.device not in (None, graph.device.type):
            return None
        before = random_states() if self.prelude else None
        with self.plain_torch():
            for record in self.prelude:
                values[record] = self._replay(record, graph, values)
        inputs = self._inputs(graph, values)
        if inputs is None:
            if before is not None:  # the trace that holds will draw what this one's functions have drawn
                restore_random_states(before)
            return None
        return Bound(graph, inputs, values, call, fetched)

    def difference(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Why the trace does not hold for a call, in words."""
        call = args, kwargs
        for reason in self.guards.mismatches(call):
            return reason
        for _, guard in self.tensors:
            if (mismatch := guard.mismatch(found(guard.source, call))) is not None:
                return mismatch
        return "the graph is of another kind, on another device, or has other sizes where the function asked for them"

    def plain_torch(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which PyTorch casts nothing: what autocast casts is part of the trace."""
        return contextlib.nullcontext() if self.device is None else autocast.disabled()

    def _graph(self, call: Arguments, values: dict[Record, Any]) -> Graph | None:
        only: Graph | None = None
        for source in self.graphs:
            graph = self._built(source, call, values) if isinstance(source, BuiltGraph) else found(source, call)
            if not isinstance(graph, Graph) or graph.is_square != self.is_square:
                return None
            if only is not None and graph is not only:
                return None
            only = graph
        assert only is not None
        for sizes in self.layer_sizes:
            as_graph(only, **sizes)
        return only

    def _built(self, source: BuiltGraph, call: Arguments, values: dict[Record, Any]) -> Graph:
        def fetch(s: Any) -> Any:
            return None if s is None else tuple(map(fetch, s)) if isinstance(s, tuple) else s.fetch(call)

        sizes = {name: mapped(lambda n: self.count(n, None, values), size) for name, size in source.sizes}
        return as_graph(*(fetch(s) for s in source.tensors), **sizes)

    def count(self, count: Any, graph: Graph | None, values: dict[Record, Any]) -> Any:
        """A number of rows as it is in this call."""
        return self._rows(count.of, graph, values) if isinstance(count, RowCount) else count

    def _rows(self, of: Any, graph: Graph | None, values: dict[Record, Any]) -> int:
        if isinstance(of, tuple):
            record: Record = of[0]
            return self._rows(record, graph, values) * record.meta.shape[1:].numel()
        if isinstance(of, Record):
            if of in values:
                return int(values[of].shape[0])
            space = self.spaces.of.get(of)
            if space is None or space is Space.ONE or graph is None:
                return int(of.meta.shape[0])  # of features, or of a tensor whose shape is guarded
            return graph.count(space)
        assert graph is not None
        return graph.count(of)

    def _counts_hold(self, graph: Graph, values: dict[Record, Any]) -> bool:
        fixed = all(self._rows(of, graph, values) == n for of, n in self.fixed.items())
        if not fixed or any(self._rows(of, graph, values) == 1 for of in self.several):
            return False
        return all(
            values[record].shape[0] == graph.count(space)
            for record, space in self.converted.inputs
            if record is not None and record.source is not None and space is not Space.ONE
        )

    def _replay(self, record: Record, graph: Graph, values: dict[Record, Any]) -> Any:
        def actual(x: Any) -> Any:
            if isinstance(x, Record):
                return values[x]
            return self.count(x, graph, values)

        args, kwargs = mapped(actual, (record.args, record.kwargs))
        assert record.function is not None
        return record.function(*args, **kwargs)

    def _inputs(self, graph: Graph, values: dict[Record, Any]) -> list[Tensor] | None:
        inputs: list[Any] = []
        for (record, space), wanted in zip(self.converted.inputs, self.program.inputs, strict=True):
            if record is None:
                inputs.append(None)
                continue
            tensor = values[record]
            features = tensor.shape if space is Space.ONE else tensor.shape[1:]
            if tuple(features) != wanted.shape or tensor.dim() < (space is not Space.ONE):
                return None
            if space is not Space.ONE and tensor.shape[0] != graph.count(space):
                raise _wrong_rows(record, tensor.shape, space, graph)
            if tensor.device != graph.device:
                raise ValueError(
                    f"{record} is on {tensor.device}, the graph on {graph.device}; move one of them: graph.to({str(tensor.device)!r})"
                )
            inputs.append(tensor)
        # A call that does not match draws no seeds.
        return [Seed().fetch(((), {}), graph.device) if x is None else x for x in inputs]

    def rebuild(self, bound: Bound, results: Sequence[Tensor]) -> Any:
        """What the function returns, from the program's results."""
        values = bound.values
        values.update(zip(self.converted.results, results, strict=True))
        with self.plain_torch():
            for record in self.postlude:
                values[record] = value = self._replay(record, bound.graph, values)
                if record.op == "declare" and value.shape[0] != bound.graph.count(record.kwargs["space"]):
                    raise _wrong_rows(record.operands[0], value.shape, record.kwargs["space"], bound.graph)

        if self.phases:
            hooks.run(
                self.phases, values, bound.graph, lambda n: self.count(n, bound.graph, values), self.converted.inner
            )
            self.check_unchanged(bound)
        store(self.writes, values)

        def leaf(x: Any, path: Any) -> Any:
            if isinstance(x, Record):
                return values[x]
            return self.count(x, bound.graph, values)

        return walk(self.output, (), leaf)

    def check_unchanged(self, bound: Bound) -> None:
        """TraceError if hooks have changed what the trace reads, for which they come too late."""
        reason = next(self.guards.mismatches(bound.call, but=hooks.HookGuard), None)
        if reason is None:
            for (_, guard), (tensor, version) in zip(self.tensors, bound.fetched, strict=True):
                if found(guard.source, bound.call) is not tensor or hooks.version(tensor) != version:
                    reason = f"{guard.source} has changed"
        if reason is not None:
            names = {hooks.name_of(one.hook.value): None for phase in self.phases for one in phase.hooks}
            raise TraceError(
                f"a hook of a module that is called inside a compiled function ({', '.join(names)}) changes what the function reads, and "
                f"it runs only after the program has: {reason}. Return what it computes, or compute it in forward, or in a hook of the "
                "compiled module itself"
            )


_DECLARED = {
    Space.REL: "relations (num_relations)", Space.NTYPE: "node types (num_node_types)", Space.NODE: "nodes", Space.EDGE: "edges",
    Space.SRC: "source nodes", Space.DST: "destination nodes", Space.GRAPH: "graphs (num_graphs)",
}  # fmt: skip


def _wrong_rows(record: Record, shape: Sequence[int], space: Space, graph: Graph, why: str = "") -> ValueError:
    kind = _DECLARED.get(space, f"rows of {space}")
    why = f" ({why})" if why else ""
    return ValueError(
        f"{record.where}: {record} has shape {list(shape)}, but is used with one row per row of space {space}{why}, and the graph has "
        f"{graph.count(space)} {kind}"
    )


# ------------------------------------------------------------------------------------------------ the first call


_one_at_a_time = threading.RLock()
"""Held while user code runs on symbolic values: the modules that it reads are watched meanwhile, by one trace at a time."""


def trace(
    fn: Callable[..., Any],
    owner: nn.Module | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    following: tuple[type, nn.Module | None] | None = None,
) -> Trace:
    """Runs ``fn`` once on symbolic values.

    Args:
        fn: a function, or a method bound to ``owner``.
        owner: the module whose parameters and buffers the function reads, if it is a method.
        args, kwargs: of the call, without ``owner``.
        following: for a compiled instance, the class whose ``forward`` is traced, and the module that it was made of.

    Raises:
        TraceError: the function does something that cannot be compiled.
        ValueError, TypeError: arguments do not fit each other.
    """
    device = _device_of(owner, args, kwargs) if autocast.state() else None
    while True:
        recorder = Recorder(LANGUAGE, device=device, known=RULES)
        try:
            traced, device = _traced(recorder, fn, owner, args, kwargs, following)
        finally:  # however it ends
            recorder.close()
        if traced.device in (None, device):
            return traced


def _device_of(owner: nn.Module | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The kind of device that a call is probably about: that of its graph is known once the function has run."""
    found: list[Any] = []
    walk((args, kwargs), (), lambda x, path: found.append(x) if isinstance(x, (Tensor, Graph)) else None)
    found += [] if owner is None else owner.parameters()
    devices: list[str] = [x.device.type for x in found if isinstance(x, Graph) or x.dim()]
    return devices[0] if devices else "cpu"


def _traced(
    recorder: Recorder,
    fn: Callable[..., Any],
    owner: nn.Module | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    following: tuple[type, nn.Module | None] | None,
) -> tuple[Trace, str]:
    """The trace, and the kind of device that the graph is on."""
    observer = Observer(fn, owner)
    recorder.sources = observer.sources
    recorder.diagnose = lambda failed: _diagnose(recorder, fn, failed)
    try:
        arguments = snapshot((args, kwargs), by_value=True)
    except TooLarge as e:
        raise TraceError(
            f"{_name(fn, owner)}: an argument {e}, which would be compared at every call; pass a tensor instead"
        ) from e
    modes = environment()
    try:
        output = _run(recorder, observer, fn, args, kwargs, following)
        return _finished(recorder, observer, fn, owner, arguments, modes, output)
    except Exception as e:
        read = Guards(arguments, modes, observer.checks(), tuple(observer.variables.items()), (), ())
        keep_attempt(e, read, bool(recorder.graphs or observer.graphs), (args, kwargs))
        raise


def _run(
    recorder: Recorder,
    observer: Observer,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    following: tuple[type, nn.Module | None] | None,
) -> Any:
    """What the function returns for symbolic values, as records; the observer and the recorder have then seen all of it."""
    parameters = _positional(fn, len(args))

    def held(graph: Graph) -> Graph:
        return _held(recorder, observer, graph)

    with _one_at_a_time:
        walk((args, kwargs), (), lambda x, path: _meet_argument(observer, x, _argument(path, parameters)))
        symbolic = walk((args, kwargs), (), lambda x, path: _symbolic(recorder, x, _argument(path, parameters)))
        if following is not None:
            observer.follow(*following)
        with (
            observer,
            substituting(held),
            no_printing(is_tracing),
            hooks.intercepting(),
            RecordingMode(recorder),
        ):
            output = fn(*symbolic[0], **symbolic[1])
        observer.finish()
        del symbolic
        _check_nothing_kept(observer)
    return walk(output, (), lambda x, path: _output_leaf(recorder, x, path))


def _finished(
    recorder: Recorder,
    observer: Observer,
    fn: Callable[..., Any],
    owner: nn.Module | None,
    arguments: Any,
    modes: tuple[Any, ...],
    output: Any,
) -> tuple[Trace, str]:
    """The trace of a function that has run."""
    check_nothing_escaped(recorder.alive)

    graph = _one_graph(recorder, fn)
    spaces = infer(recorder.records)
    wanted: list[Record] = list(recorder.writes.values())
    walk(output, (), lambda x, path: wanted.append(x) if isinstance(x, Record) else None)
    for phase in recorder.phases:
        for one in phase.hooks:
            mapped(lambda x: wanted.append(x) if isinstance(x, Record) else None, one.args)
    converted = translate(_name(fn, owner), recorder.records, spaces, wanted)
    if not converted.results and not converted.postlude:
        raise NothingToCompile(
            f"{defined(fn)}: {_name(fn, owner)} returns nothing that it computes on the graph's edges or nodes; columba.compile is for "
            "functions that do: return what depends on a lift or a reduction, or call the function without it"
        )
    _check_rows(converted, graph, spaces)
    checks, variables = (*observer.checks(), *recorder.hook_guards), tuple(observer.variables.items())
    graphs, aliases = _fixed_graphs(observer, recorder), _aliases(observer, recorder)
    guards = Guards(arguments, modes, checks, variables, aliases, graphs)
    for record in spaces.ones:
        recorder.fixed[spaces.of[record]] = graph.count(spaces.of[record])
    traced = Trace(
        converted,
        guards,
        _tensor_guards(recorder, converted, spaces),
        tuple(dict.fromkeys(g._source for g in recorder.graphs)),
        graph.is_square,
        tuple(recorder.layer_sizes),
        dict(recorder.fixed),
        spaces,
        output,
        recorder.device,
        tuple(recorder.phases),
        tuple(recorder.writes.items()),
        tuple(recorder.several),
    )
    return traced, graph.device.type


def _name(fn: Callable[..., Any], owner: nn.Module | None) -> str:
    name = type(owner).__name__ if owner is not None else getattr(fn, "__name__", "program")
    name = "".join(c if c.isalnum() and c.isascii() else "_" for c in name).strip("_")[:_LONGEST_NAME]
    return f"program_{name}" if name[:1].isdigit() else name or "program"


_LONGEST_NAME = 64
"""Characters of a program's name: it is part of names in generated code, and in messages."""


def _meet_argument(observer: Observer, value: Any, source: Argument) -> None:
    if not isinstance(value, (Tensor, Graph)):
        observer.arguments(value, source)


def _check_nothing_kept(observer: Observer) -> None:
    """TraceError if a traced tensor was stored on an object."""
    for same in observer.objects.values():
        owner = same.value
        for name, value in list(getattr(owner, "__dict__", {}).items()):
            if isinstance(value, SymbolicTensor):
                object.__delattr__(owner, name)
                raise fail(
                    f"self.{name} = ... keeps a tensor of a compiled function; return it instead, and store it outside"
                )


def _aliases(observer: Observer, recorder: Recorder) -> tuple[tuple[Source, Source], ...]:
    """The other places of the tensors that the trace reads: they must stay the same tensor."""
    used = ((i, record.source) for i, record in recorder.inputs.items() if record.source is not None)
    return tuple(
        (source, other) for i, source in used for other in dict.fromkeys(observer.others.get(i, ())) if other != source
    )


_SIZES = {
    "num_src": Space.SRC, "num_dst": Space.DST, "num_nodes": Space.NODE, "num_edges": Space.EDGE, "num_relations": Space.REL,
    "num_node_types": Space.NTYPE, "num_graphs": Space.GRAPH,
}  # fmt: skip
_VIEWS = {"edges", "nodes", "src_nodes", "dst_nodes", "src_rel", "dst_rel", "graphs", "is_square", "device"}


def _fixed_graphs(observer: Observer, recorder: Recorder) -> tuple[tuple[Source, Same], ...]:
    """Graphs that are no arguments: the sizes that were read are fixed; where anything else was, it must be the same graph."""
    used = {id(g._real): g._real for g in recorder.graphs}
    fixed: list[tuple[Source, Same]] = []
    for i, sources in observer.graphs.items():
        names = observer.asked_of_graphs.get(i, set())
        graph = used.get(i)
        if graph is not None and names <= _VIEWS | _SIZES.keys():
            recorder.fixed.update({_SIZES[n]: graph.count(_SIZES[n]) for n in names & _SIZES.keys()})
        elif names:
            fixed += [(source, Same(source.fetch(((), {})))) for source in sources]
    return tuple(fixed)


def _positional(fn: Callable[..., Any], count: int) -> list[str]:
    """The names of the parameters that ``count`` positional arguments go to; more than there are parameters are numbered."""
    names: list[str] = []
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}[{n}]" for n in range(count - len(names))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    return names + [f"argument {n + 1}" for n in range(len(names), count)]


def _argument(path: tuple[Any, ...], parameters: Sequence[str]) -> Argument:
    which, key = path[:2]
    return Argument(path, key if which else parameters[key])


def _symbolic(recorder: Recorder, value: Any, source: Argument) -> Any:
    if isinstance(value, Tensor):
        return SymbolicTensor(recorder.new_input(value, source))
    if isinstance(value, Graph):
        traced = TracedGraph(value, source, recorder)
        recorder.graphs.append(traced)
        return traced
    return value


def _held(recorder: Recorder, observer: Observer, graph: Graph) -> Graph:
    """The traced graph for one that is no argument."""
    if isinstance(graph, TracedGraph):
        return graph
    sources = observer.graphs.get(id(graph), ())
    before = [known for known in recorder.graphs if known._real is graph]
    if not sources and not before:
        raise fail("a graph is made inside the compiled function; make it outside, and pass it in")
    for source in sources:
        if not any(known._source == source for known in before):
            before.append(TracedGraph(graph, source, recorder))
            recorder.graphs.append(before[-1])
    return before[0]


def _output_leaf(recorder: Recorder, value: Any, path: tuple[Any, ...]) -> Any:
    if isinstance(value, Tensor):
        return recorder.operand(value)
    if isinstance(value, (Graph, nn.Module)) or not (
        value is None or isinstance(value, (int, float, str, complex, bytes))
    ):
        raise TraceError(
            f"a compiled function returns tensors and numbers, in tuples, lists, or dicts; not {type(value).__name__}"
        )
    return value


def _one_graph(recorder: Recorder, fn: Callable[..., Any]) -> Graph:
    used = {id(g._real): g._real for g in recorder.graphs}
    name = getattr(fn, "__qualname__", fn)
    if not used:
        raise NothingToCompile(
            f"{defined(fn)}: {name} uses no columba.Graph; pass one, or build it from edge_index with columba.as_graph "
            "(the shipped layers do)"
        )
    if len(used) > 1:
        raise TraceError(f"{defined(fn)}: {name} uses {len(used)} graphs; compile the parts that use one graph each")
    return next(iter(used.values()))


def _check_rows(converted: Translated, graph: Graph, spaces: Spaces) -> None:
    for record, space in converted.inputs:
        if record is not None and record.source is not None and space is not Space.ONE:
            shape = record.meta.shape
            if not shape or shape[0] != graph.count(space):
                raise _wrong_rows(record, shape, space, graph, spaces.why.get(record, ""))


def _diagnose(recorder: Recorder, fn: Callable[..., Any], failed: Record) -> None:
    """Raises what is behind a call that torch refused, if it is something about graphs or spaces."""
    if not recorder.graphs:
        return
    graph = _one_graph(recorder, fn)
    records = [*recorder.records, failed]
    spaces = infer(records)
    for record in records:
        space = spaces.of.get(record, Space.ONE)
        if record.source is not None and space is not Space.ONE and record.meta.shape[:1] != (graph.count(space),):
            raise _wrong_rows(record, record.meta.shape, space, graph, spaces.why.get(record, ""))


def _counted(recorder: Recorder, spaces: Spaces) -> set[Record]:
    """What plain tensors are computed from whose size the function asked for, and which no call may compute again."""
    found: set[Record] = set()
    stack = [r for r in recorder.measured if r.source is None and r not in spaces.of]
    while stack:
        for operand in stack.pop().operands:
            if operand not in found:
                found.add(operand)
                stack.append(operand)
    return found


def _tensor_guards(recorder: Recorder, converted: Translated, spaces: Spaces) -> tuple[tuple[Record, TensorGuard], ...]:
    """Guards of the tensors that the trace read, or whose sizes it asked for."""
    replayed = {o for r in (*converted.prelude, *converted.postlude) for o in r.operands}
    needed = replayed | {r for r, _ in converted.inputs if r is not None} | _counted(recorder, spaces)
    guards = []
    for record in recorder.records:
        if record.source is None:
            continue
        shape: tuple[int | None, ...] | None = None
        if record in needed or record in recorder.measured:
            shape = tuple(record.meta.shape)
            if shape and (record in spaces.of or record not in needed):
                shape = (None, *shape[1:])
        if record in recorder.exact:
            shape = tuple(record.meta.shape)
        gradients = recorder.gradients.get(record)
        guards.append((record, TensorGuard(record.source, record.meta.dtype, shape, gradients)))
    return tuple(guards)
