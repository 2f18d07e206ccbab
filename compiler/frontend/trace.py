"""Tracing a function: from a call to a program, and from later calls to the program's inputs."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from columba.frontend import hooks, sparse
from columba.frontend.caches import fill_caches
from columba.frontend.casts import AutocastInside
from columba.frontend.counts import RowCount, Rows, holds_count
from columba.frontend.edge_index import is_edge_index
from columba.frontend.effects import check_nothing_escaped, no_printing
from columba.frontend.errors import NothingToCompile, OneRow, TraceError, UnsupportedOperation, defined, fail
from columba.frontend.failed import keep_attempt
from columba.frontend.gradients import cut_from_gradients
from columba.frontend.guards import Guards, TensorGuard, environment
from columba.frontend.in_place import change, write_into_fresh
from columba.frontend.infer import JOINS, infer, row_carriers
from columba.frontend.layers import traced_layers
from columba.frontend.observe import Observer
from columba.frontend.parts import cut
from columba.frontend.pieces import chosen_by
from columba.frontend.preparation import seen
from columba.frontend.prepare import raise_indices
from columba.frontend.pyg import is_graph_layer, is_layer, numbers
from columba.frontend.record import Record, Recorder, RecordingMode, SymbolicTensor, is_tracing
from columba.frontend.rules import RULES
from columba.frontend.shared_products import unite_products
from columba.frontend.snapshot import Same, TooLarge, snapshot
from columba.frontend.sources import Argument, PlainIndex, Source, walk
from columba.frontend.structure import Structure
from columba.frontend.symbolic import TracedGraph
from columba.frontend.traced import Part, Step, Trace, replayed, wrong_rows
from columba.frontend.translate import translate
from columba.frontend.trees import contents, mapped
from columba.frontend.typed_graphs import LANGUAGE
from columba.ir.spaces import WEIGHT_SPACES, Space
from columba.runtime import autocast
from columba.runtime.graphs.graph import Graph, substituting

# ------------------------------------------------------------------------------------------------ the first call


_one_at_a_time = threading.RLock()
"""Held while user code runs on symbolic values: the modules that it reads are watched meanwhile, by one trace at a time."""


def trace(
    fn: Callable[..., Any],
    owner: nn.Module | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    following: tuple[type, nn.Module | None] | None = None,
    *,
    splits: bool = False,
) -> Trace:
    """Runs ``fn`` once on symbolic values.

    Args:
        fn: a function, or a method bound to ``owner``.
        owner: the module whose parameters and buffers the function reads, if it is a method.
        args, kwargs: of the call, without ``owner``.
        following: for a compiled instance, the class whose ``forward`` is traced, and the module that it was made of.
        splits: whether PyTorch may run, between programs, the torch functions that the language lacks.

    Raises:
        TraceError: the function does something that cannot be compiled.
        ValueError, TypeError: arguments do not fit each other.
    """
    device = _device_of(owner, args, kwargs) if autocast.state() else None
    while True:
        recorder = Recorder(
            LANGUAGE,
            structure=Structure(chosen_by=chosen_by),
            device=device,
            known=RULES,
            change=change,
            sparse=sparse.call,
            is_sparse=sparse.is_of_matrices,
        )
        try:
            traced, device = _traced(recorder, fn, owner, args, kwargs, following, splits)
        except AutocastInside:
            device = _device_of(owner, args, kwargs)
            continue
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
    splits: bool,
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
        call = None if owner is None else recorder.modules.begin(owner, is_graph_layer(owner), 0)
        output = _run(recorder, observer, fn, args, kwargs, following)
        if call is not None:
            recorder.modules.finish(call, len(recorder.records))
        return _finished(recorder, observer, fn, owner, arguments, modes, output, splits)
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
            numbers.kept(),
            RecordingMode(recorder),
        ):
            held_before = contents(symbolic)
            try:
                output = fn(*symbolic[0], **symbolic[1])
                if torch.is_grad_enabled() != recorder.grad:
                    raise fail(
                        f"gradients are switched {'off' if recorder.grad else 'on'} when the function returns, which a compiled one "
                        "cannot do to its caller: use torch.no_grad() as a context",
                        defined(fn),
                    )
            finally:
                torch._C._set_grad_enabled(recorder.grad)
        if not _hold_the_same(held_before, contents(symbolic)):
            raise fail(
                "a list or dictionary that was passed in is changed, and compiled code has a copy of it; change a copy",
                defined(fn),
            )
        observer.finish()
        del symbolic, held_before
        recorder.matrices.clear()
        fill_caches(recorder, observer)
        _check_nothing_kept(observer)
    return walk(output, (), lambda x, path: _output_leaf(recorder, x, path))


def _hold_the_same(before: Sequence[tuple[Any, list[Any]]], now: Sequence[tuple[Any, list[Any]]]) -> bool:
    """Whether containers are the same, and hold the same."""
    same = len(before) == len(now) and all(a is b for (a, _), (b, _) in zip(before, now, strict=True))
    return same and all(
        len(then) == len(held) and all(a is b for a, b in zip(then, held, strict=True))
        for (_, then), (_, held) in zip(before, now, strict=True)
    )


def _finished(
    recorder: Recorder,
    observer: Observer,
    fn: Callable[..., Any],
    owner: nn.Module | None,
    arguments: Any,
    modes: tuple[Any, ...],
    output: Any,
    splits: bool,
) -> tuple[Trace, str]:
    """The trace of a function that has run."""
    check_nothing_escaped(recorder.alive)

    returned: list[Record] = []
    counts: list[RowCount] = []

    def meet(x: Any, records: list[Record]) -> None:
        if isinstance(x, Record):
            records.append(x)
        elif isinstance(x, RowCount):
            counts.append(x)

    walk(output, (), lambda x, path: meet(x, returned))
    wanted: list[Record] = list(recorder.writes.values())
    for phase in recorder.phases:
        for one in phase.hooks:
            mapped(lambda x: meet(x, wanted), one.args)
    copies = raise_indices(recorder, returned, wanted, counts)
    output = walk(output, (), lambda x, path: copies.get(x, x) if isinstance(x, Record) else x)
    wanted += [copies.get(record, record) for record in returned]
    recorder.between |= cut_from_gradients(wanted)
    unite_products(recorder, wanted)
    graphs = _graphs(recorder, fn)
    steps, breaks = _steps(recorder, _name(fn, owner), wanted, splits)
    parts = [step for step in steps if isinstance(step, Part)]
    if not any(part.converted.results or part.converted.postlude for part in parts):
        raise NothingToCompile(
            f"{defined(fn)}: {_name(fn, owner)} returns nothing that it computes on the graph's edges or nodes; columba.compile is for "
            "functions that do: return what depends on a lift or a reduction, or call the function without it"
        )
    rows: dict[Record, Rows] = {}
    for part in parts:
        _check_rows(part, graphs[part.graph])
        for record, space in part.spaces.of.items():
            rows.setdefault(record, Rows(space, part.graph))
        for record in part.spaces.ones:
            one_row = Rows(part.spaces.of[record], part.graph)
            recorder.fixed[one_row] = graphs[part.graph].count(one_row.space)
    _fix_rows_that_become_features(recorder, steps, rows)
    inputs = [r for part in parts for r, _ in part.converted.inputs if r is not None]
    write_into_fresh(replayed(steps), [*wanted, *inputs])
    checks, variables = (*observer.checks(), *recorder.hook_guards), tuple(observer.variables.items())
    fixed_graphs, aliases = _fixed_graphs(observer, recorder), _aliases(observer, recorder)
    guards = Guards(arguments, modes, checks, variables, aliases, fixed_graphs)
    carried, broadcast = _carried(recorder, steps, rows)
    traced = Trace(
        steps,
        guards,
        _tensor_guards(recorder, steps, rows, carried),
        tuple(tuple(dict.fromkeys(g._source for g in recorder.graphs if g.number == n)) for n in range(len(graphs))),
        tuple(graph.is_square for graph in graphs),
        tuple(dict.fromkeys(recorder.node_types)),
        tuple(recorder.layer_sizes),
        dict(recorder.fixed),
        rows,
        output,
        recorder.device,
        tuple(recorder.phases),
        tuple(recorder.writes.items()),
        tuple(recorder.several),
        frozenset(broadcast),
        tuple(breaks.items()),
        frozenset(_passed_in(of, rows) for of in recorder.positive),
        tuple(recorder.same),
        tuple(recorder.less),
        tuple((record.source, seen(value)) for record, value in recorder.structure.read.items() if record.source),
        traced_layers(recorder.modules, owner, [part.computed for part in parts], {**_left(steps, rows), **breaks}),
        tuple(observer.rewritten),
    )
    return traced, graphs[parts[0].graph].device.type


def _left(steps: Sequence[Step], rows: Mapping[Record, Rows]) -> dict[Record, str]:
    """What the language lacks and PyTorch computes of something else than rows, before a program that uses the rows of the result."""
    return {
        record: f"{record.where}: {record.op} runs in PyTorch"
        for record in replayed(steps)
        if record in rows
        and rows[record].space not in (Space.ONE, *WEIGHT_SPACES)
        and record.op not in RULES
        and record.op not in ("part", "declare")
    }


def _steps(
    recorder: Recorder, name: str, wanted: Sequence[Record], splits: bool
) -> tuple[tuple[Step, ...], dict[Record, str]]:
    """Programs, and what PyTorch computes between them; and what the language lacks of that, with the reasons."""
    lacking: dict[Record, str] = {}
    while True:
        try:
            return _parts(recorder, name, wanted, lacking), lacking
        except UnsupportedOperation as e:
            record, e.record = e.record, None
            if not splits or record is None or record.function is None or record in lacking:
                raise
            lacking[record] = str(e)


def _parts(recorder: Recorder, name: str, wanted: Sequence[Record], lacking: dict[Record, str]) -> tuple[Step, ...]:
    steps: list[Step] = []
    done: set[Record] = set()
    stretches = cut(recorder.records, wanted, {*lacking, *recorder.between})
    for stretch in stretches:
        if isinstance(stretch, Record):
            steps.append(stretch)
            done.add(stretch)
            continue
        spaces = infer(stretch.records, stretch.graph)
        given = frozenset(done)
        converted = translate(name, stretch.records, spaces, stretch.wanted, given)
        if len(stretches) == 1 or converted.results or converted.postlude:
            steps.append(Part(converted, spaces, stretch.graph, given))
        else:  # all of it is plain
            steps += converted.prelude
        done.update(r for r in stretch.records if r not in stretch.lifts)
    return tuple(steps)


def _passed_in(of: Any, rows: Mapping[Record, Rows]) -> Any:
    """Of what is computed as many rows as something that is passed in has, or as a space of the graph has: what every call can tell."""
    found = rows.get(of) if isinstance(of, Record) and of.source is None else None
    if found is None or found.space is Space.ONE:
        return of
    return next((record for record, other in rows.items() if record.source is not None and other == found), found)


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
    """TraceError if a traced tensor, or a number that is another one in each call, was stored on an object."""
    for same in observer.objects.values():
        owner = same.value
        for name, value in list(getattr(owner, "__dict__", {}).items()):
            if holds_count(value):
                if isinstance(value, RowCount):
                    owner.__dict__[name] = int.__int__(value)
                raise TraceError(
                    f"{type(owner).__name__}.{name} keeps a number of rows of this call, and would keep it when the next has another one: "
                    "the function is traced once. Return the number instead, and store it outside"
                )
            if isinstance(value, SymbolicTensor):
                object.__delattr__(owner, name)
                raise TraceError(
                    f"{value.record.where}: self.{name} = ... keeps a tensor of a compiled function, computed here; return it instead, "
                    "and store it outside"
                )


def _aliases(observer: Observer, recorder: Recorder) -> tuple[tuple[Source, Source], ...]:
    """The other places of the tensors that the trace reads: they must stay the same tensor."""
    used = ((i, record.source) for i, record in recorder.inputs.items() if record.source is not None)
    found = []
    for i, source in used:
        others: list[Source] = list(dict.fromkeys(observer.others.get(i, ())))
        if isinstance(source, PlainIndex):  # the tensor that an EdgeIndex is, wherever that is
            others = [PlainIndex(other) for other in others]
        found += [(source, other) for other in others if other != source]
    return tuple(found)


_SIZES = {
    "num_src": Space.SRC, "num_dst": Space.DST, "num_nodes": Space.NODE, "num_edges": Space.EDGE, "num_relations": Space.REL,
    "num_node_types": Space.NTYPE, "num_graphs": Space.GRAPH,
}  # fmt: skip
_VIEWS = {
    "edges",
    "nodes",
    "src_nodes",
    "dst_nodes",
    "src_rel",
    "dst_rel",
    "graphs",
    "is_square",
    "device",
    "split_nodes",
    "cat_nodes",
}


def _fixed_graphs(observer: Observer, recorder: Recorder) -> tuple[tuple[Source, Same], ...]:
    """Graphs that are no arguments: the sizes that were read are fixed; where anything else was, it must be the same graph."""
    used = {id(g._real): g._real for g in recorder.graphs}
    fixed: list[tuple[Source, Same]] = []
    for i, sources in observer.graphs.items():
        names = observer.asked_of_graphs.get(i, set())
        graph = used.get(i)
        if graph is not None and names <= _VIEWS | _SIZES.keys():
            number = recorder.number(graph)
            recorder.fixed.update({Rows(_SIZES[n], number): graph.count(_SIZES[n]) for n in names & _SIZES.keys()})
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
        if value.layout is not torch.strided:
            return sparse.symbolic_matrix(recorder, value, source)
        if is_edge_index(value):
            return SymbolicTensor(recorder.edge_index(value, source))
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


def _graphs(recorder: Recorder, fn: Callable[..., Any]) -> list[Graph]:
    """The graphs that the function uses, by their numbers."""
    used: dict[int, Graph] = {g.number: g._real for g in recorder.graphs}
    if not used and is_layer(getattr(fn, "__self__", None)):
        raise NothingToCompile(
            f"{defined(fn)}: {getattr(fn, '__qualname__', fn)} moves nothing along edge_index in a way that the compiler knows: by "
            "choosing rows of the first dimension, and adding to them, by integers that are passed in"
        )
    if not used:
        raise NothingToCompile(
            f"{defined(fn)}: {getattr(fn, '__qualname__', fn)} uses no columba.Graph; pass one, or build it from edge_index with "
            "columba.as_graph (the shipped layers do)"
        )
    return [used[number] for number in sorted(used)]


def _check_rows(part: Part, graph: Graph) -> None:
    for record, space in part.converted.inputs:
        if record is not None and record.source is not None and space is not Space.ONE:
            shape = record.meta.shape
            if not shape or shape[0] != graph.count(space):
                why = record, shape, space, graph, part.spaces.why.get(record, "")
                if shape and graph.count(space) == 1:  # a row that PyTorch combines with several: a module runs there
                    raise OneRow(str(wrong_rows(*why)))
                raise wrong_rows(*why)  # kept in a variable, it would keep this frame, and so the graph, alive


def _diagnose(recorder: Recorder, fn: Callable[..., Any], failed: Record) -> None:
    """Raises what is behind a call that torch refused, if it is something about graphs or spaces."""
    if not recorder.graphs:
        return
    graphs = _graphs(recorder, fn)
    for stretch in cut([*recorder.records, failed], [failed]):
        if isinstance(stretch, Record):
            continue
        spaces, graph = infer(stretch.records, stretch.graph), graphs[stretch.graph]
        for record, space in spaces.of.items():
            if record.source is not None and space is not Space.ONE and record.meta.shape[:1] != (graph.count(space),):
                raise wrong_rows(record, record.meta.shape, space, graph, spaces.why.get(record, ""))


def _fix_rows_that_become_features(recorder: Recorder, steps: Sequence[Step], rows: Mapping[Record, Rows]) -> None:
    """The trace depends on how many rows of a space a tensor has of which PyTorch may make features, as ``x.t()`` does."""
    vary = {record for record, of in rows.items() if of.space not in WEIGHT_SPACES}
    for record in replayed(steps):
        carriers = row_carriers(record)
        if vary.intersection(carriers):
            vary.add(record)
        for operand in vary.intersection(record.operands).difference(carriers):
            count = operand.meta.shape[0]
            if not count or any(n and n % count == 0 for n in record.meta.shape):
                recorder.fixed[operand] = count


def _carried(recorder: Recorder, steps: Sequence[Step], rows: Mapping[Record, Rows]) -> tuple[set[Record], set[Record]]:
    """Plain tensors that were passed in, and may have any number of rows: all that is made of them are rows of a space, of results, or of
    what PyTorch computes between programs. Those of the second set must have several: one row could stand for all of another tensor."""
    computed = dict.fromkeys(replayed(steps))
    users: dict[Record, list[Record]] = {}
    for record in computed:
        for operand in record.operands:
            users.setdefault(operand, []).append(record)
    weights = {
        record
        for step in steps
        if isinstance(step, Part)
        for record, space in step.converted.inputs
        if record is not None and space in WEIGHT_SPACES
    }
    free: set[Record] = set()
    broadcast: set[Record] = set()
    for record in (*reversed(computed), *(r for r in recorder.records if r.source is not None)):
        uses = users.get(record, ())
        if any(user in broadcast or (user.op not in JOINS and len(row_carriers(user)) > 1) for user in uses):
            broadcast.add(record)
        carries = all(user in free and record in row_carriers(user) for user in uses)
        if carries and record not in weights and record.meta.dim():
            free.add(record)
    found = {r for r in free if r.source is not None and r in users and r not in rows}
    found -= {r for r in found & broadcast if r.meta.shape[0] == 1}
    return found, found & broadcast


def _counted(recorder: Recorder, rows: Mapping[Record, Rows]) -> set[Record]:
    """What plain tensors are computed from whose size the function asked for, and which no call may compute again."""
    found: set[Record] = set()
    stack = [r for r in recorder.measured if r.source is None and r not in rows]
    while stack:
        for operand in stack.pop().operands:
            if operand not in found:
                found.add(operand)
                stack.append(operand)
    return found


def _tensor_guards(
    recorder: Recorder, steps: Sequence[Step], rows: Mapping[Record, Rows], carried: Container[Record]
) -> tuple[tuple[Record, TensorGuard], ...]:
    """Guards of the tensors that the trace read, or whose sizes it asked for."""
    needed = {o for r in replayed(steps) if r not in recorder.copies for o in r.operands} | _counted(recorder, rows)
    needed |= {r for step in steps if isinstance(step, Part) for r, _ in step.converted.inputs if r is not None}
    guards = []
    for record in recorder.records:
        if record.source is None:
            continue
        shape: tuple[int | None, ...] | None = None
        if record in recorder.structure.values and record not in needed:
            shape = (None,) * record.meta.dim()
        elif record in needed or record in recorder.measured:
            shape = tuple(record.meta.shape)
            if shape and (record in rows or record in carried or record not in needed):
                shape = (None, *shape[1:])
        if record in recorder.exact:
            shape = tuple(record.meta.shape)
        gradients = recorder.gradients.get(record)
        layout = recorder.real[record].layout
        guards.append((record, TensorGuard(record.source, record.meta.dtype, shape, gradients, layout)))
    return tuple(guards)
