"""Calls on tensors that have no data: what ``torch.export``, ``make_fx`` and fake tensors see of compiled functions.

The call is specialized as any other one, for tensors that stand for those. Then the trace is computed on the tensors that were passed: what
PyTorch runs of it is run, and so recorded by whoever records, and each program is one ``columba::call``, by its text
(:mod:`columba.calls.portable`), so that what is recorded means the same in every process.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.fx import _symbolic_trace

from columba.calls.built_sizes import built_sizes, joined
from columba.calls.flat import Made, NotFlat, interpret, rows_of_trace
from columba.calls.portable import rows_in, text_of
from columba.calls.region_code import largest_guess, stand_in
from columba.frontend.counts import Extent, Scalar
from columba.frontend.errors import location
from columba.frontend.guards import found
from columba.frontend.preparation import Preparation
from columba.frontend.record import Record, RowCount
from columba.frontend.sources import Prepared, walk
from columba.frontend.symbolic import BuiltGraph
from columba.frontend.trees import mapped
from columba.ir.spaces import Space
from columba.runtime.graphs.graph import Graph
from columba.runtime.modes import PLAIN, random_states_kept, without_transforms

_KEYS = torch._C._TorchDispatchModeKey


def is_recorded() -> bool:
    """Whether operators are recorded, or run on fake tensors, by PyTorch's own modes; PyTorch's own operators are in forward mode."""
    return bool(torch._C._len_torch_dispatch_stack() and forward_ad._current_level < 0) and any(
        torch._C._get_dispatch_mode(key) is not None for key in (_KEYS.PROXY, _KEYS.FAKE, _KEYS.FUNCTIONAL)
    )


def check_no_onnx(function: Any) -> None:
    """RuntimeError where ``torch.onnx.export`` asks."""
    if torch.onnx.is_in_onnx_export():
        raise RuntimeError(
            f"columba: {function!r} runs kernels that ONNX has no operators for. Save what torch.export.export gives "
            "(torch.export.save), or compile it with torch._inductor.aoti_compile_and_package"
        )


def call(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a compiled function returns for tensors that may have no data.

    Raises:
        RuntimeError: the call cannot be recorded; says why.
        TraceError: it cannot be traced.
    """
    check_no_onnx(function)
    try:
        return _Call(function, args, kwargs).result
    except NotFlat as e:
        raise RuntimeError(f"columba: {function!r} cannot be exported, or run on fake tensors: {e}") from e


@contextlib.contextmanager
def _unrecorded() -> Iterator[None]:
    """Within, nobody records what is called: neither operators nor, as torch.export does, functions that switch gradients on and off."""
    with without_transforms():
        modes = [torch._C._pop_torch_function_stack() for _ in range(torch._C._len_torch_function_stack())]
        kept = [m for m in modes if not type(m).__module__.startswith(("torch.fx.", "torch.export.", "torch._export."))]
        for mode in reversed(kept):
            torch._C._push_on_torch_function_stack(mode)
        getting = nn.Module.__getattr__
        try:
            nn.Module.__getattr__ = _symbolic_trace._orig_module_getattr  # type: ignore[method-assign]
            yield
        finally:
            nn.Module.__getattr__ = getting  # type: ignore[method-assign]
            for _ in kept:
                torch._C._pop_torch_function_stack()
            for mode in reversed(modes):
                torch._C._push_on_torch_function_stack(mode)


def _behind_proxy(x: Any) -> Any:
    """The module that torch.export hands out a proxy of, a new one at each access, to know by which way a shared module was reached."""
    from torch.fx.experimental import proxy_tensor  # which is there where something is exported

    return x.get_base() if isinstance(x, proxy_tensor._AttrProxy) else x  # type: ignore[attr-defined]


class _Call:
    def __init__(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.function = function
        args = tuple(map(_behind_proxy, args))
        self.owner, rest = function._split(args)
        self.memo: dict[int, tuple[Any, Tensor]] = {}
        specialization, bound = self.specialized(args, kwargs)
        trace = specialization.trace
        if trace.phases:
            raise NotFlat("hooks of inner modules observe its values")
        self.options = specialization.options
        self.graphs, self.trace, self.rows = bound.graphs, trace, rows_of_trace(trace)
        given = rest, kwargs
        self.call = given
        self.prepared: dict[Preparation, tuple[Any, ...]] = {}
        if trace.read:
            raise NotFlat("Python asks for values of its tensors, on which it depends")
        self.values: dict[Record, Any] = {r: self.found(guard.source) for r, guard in trace.tensors}
        self.made = [self.graph(n, sources) for n, sources in enumerate(trace.graphs)]
        self.check_fixed()
        interpret(trace, self.values, self.count, self.run)
        for target, value in trace.writes:  # neither has a gradient
            self.values[target].copy_(self.values[value])
        self.result = walk(trace.output, (), lambda x, path: self.leaf(x))

    def found(self, source: Any) -> Any:
        """What a source gives; what follows from integers is computed by operators as all else, and recorded."""
        if not isinstance(source, Prepared):
            return found(source, self.call)
        preparation = source.preparation
        if preparation not in self.prepared:
            tensors = [self.found(s) for s in preparation.tensors]
            counts = [self.found(count.source).shape[count.dim] for count in preparation.counts]
            self.prepared[preparation] = preparation.compute(tensors, counts)
        return self.prepared[preparation][source.step]

    # -------------------------------------------------------------------------------------------- the trace

    def specialized(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        first: Exception | None = None
        for largest in (0, largest_guess(args, kwargs)):

            def standing(x: Any, largest: int = largest) -> Any:
                return self.standing(x, largest) if isinstance(x, Tensor) else x

            self.memo.clear()
            with _unrecorded(), random_states_kept(), self.standing_parameters(self.owner):
                given = mapped(standing, (args, kwargs))
                try:
                    found: tuple[Any, Any] = self.function.specialize(*given[0], **given[1])
                    return found
                except ValueError as e:  # the number of nodes may be what the largest id says
                    if first is not None or not largest:
                        raise first or e from None
                    first = e
        raise AssertionError

    def standing(self, x: Tensor, largest: int) -> Tensor:
        if type(x) in PLAIN and not torch._is_functional_tensor(x):
            return x
        if id(x) not in self.memo:
            self.memo[id(x)] = x, stand_in(x, largest)
        return self.memo[id(x)][1]

    @contextlib.contextmanager
    def standing_parameters(self, owner: nn.Module | None) -> Iterator[None]:
        """Within, parameters and buffers without data are others."""
        changed: list[tuple[dict[str, Any], str, Tensor]] = []
        for module in () if owner is None else owner.modules():
            places: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for place in places:
                for name, x in place.items():
                    if x is not None and (standing := self.standing(x, 0)) is not x:
                        changed.append((place, name, x))
                        place[name] = standing
        try:
            yield
        finally:
            for place, name, x in changed:
                place[name] = x

    # -------------------------------------------------------------------------------------------- graphs

    def graph(self, number: int, sources: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[tuple[str, Any], ...]]:
        """The tensors that a graph is made of, and its sizes by name."""
        for source in sources:
            if isinstance(source, BuiltGraph):
                tensors = mapped(lambda s: None if s is None else self.found(s), source.tensors)
                known = built_sizes(self.trace, number, self.size)
                if known is not None and known.node_slices is not None:
                    options = ("num_nodes", known.num_nodes), ("num_relations", known.num_relations)
                    return joined(source, tensors[0], known.node_slices), (
                        *options,
                        ("num_node_types", known.num_node_types),
                    )
                sizes = {name: mapped(self.size, size) for name, size in source.sizes}
                return (*tensors, *(None,) * (4 - len(tensors))), _all_sizes(sizes)
        return _tensors_of(self.graphs[number])

    def size(self, n: Any) -> Any:
        if isinstance(n, RowCount) and isinstance(n.of, Extent):
            return self.values[n.of.record].shape[n.of.dim]
        if isinstance(n, RowCount) and isinstance(n.of, Scalar):
            return self.values[n.of.record].item()
        if isinstance(n, RowCount):
            of = n.of[0] if isinstance(n.of, tuple) else n.of
            rows = self.values[of].shape[0] if isinstance(of, Record) and of in self.values else int(n)
            return rows * of.meta.shape[1:].numel() if isinstance(n.of, tuple) else rows
        return n

    def count(self, graph: int, space: Space) -> Any:
        """The rows of a space: a number that may be symbolic."""
        if space is Space.ONE:
            return 1
        for record, _ in self.trace.tensors:
            if self.rows.get(record) == (graph, space):
                return self.values[record].shape[0]
        tensors, sizes = self.made[graph]
        if space is Space.EDGE:
            return tensors[0].shape[1]
        known = dict(sizes)
        nodes = known["num_nodes"]
        if space in (Space.SRC, Space.DST) and isinstance(nodes, tuple):
            return nodes[space is Space.DST]
        n = {
            Space.NODE: nodes,
            Space.REL: known["num_relations"],
            Space.NTYPE: known["num_node_types"],
            Space.GRAPH: known.get("num_graphs"),
        }.get(space)
        if n is None:
            raise NotFlat(f"the number of rows of space {space} shows only when it runs")
        return n

    def check_fixed(self) -> None:
        """Where the trace depends on numbers of rows, symbolic ones become fixed, or are held to what they were found to be."""
        for of, n in self.trace.fixed.items():
            now = self.rows_of(of, n)
            if now != n:
                raise NotFlat(f"it was traced for {n} rows, and has {now}")
        for of in self.trace.positive:
            torch._check(self.rows_of(of, 1) > 0)
        for pairs, holds in ((self.trace.same, operator.eq), (self.trace.less, operator.lt)):
            for pair in pairs:
                first, second = (self.rows_of(of, -1) for of in pair)
                if not any(
                    isinstance(n, int) and n < 0 for n in (first, second)
                ):  # of what is computed inside nobody says it
                    torch._check(holds(first, second))

    def rows_of(self, of: Any, otherwise: int) -> Any:
        """How many rows something has, which may be symbolic; ``otherwise``, where nobody says it."""
        if isinstance(of, int):
            return of
        if isinstance(of, (Extent, Scalar, tuple)):
            return self.size(RowCount(otherwise, of, None))
        if isinstance(of, Record):
            known = self.rows.get(of)
            return self.values[of].shape[0] if of in self.values else otherwise if known is None else self.count(*known)
        return self.count(of.graph, of.space)

    # -------------------------------------------------------------------------------------------- values

    def run(self, part: Any, inputs: Sequence[Any]) -> list[Any]:
        program = part.converted.program
        seeds = [n for n, x in enumerate(inputs) if x is None]
        tensors = [x for x in inputs if x is not None]
        arrays, options = self.made[part.graph]
        sizes: list[Any] = []

        def place(x: Any) -> Any:
            if x is None or isinstance(x, tuple):
                return None if x is None else tuple(map(place, x))
            tensors.append(x)
            return len(tensors) - 1

        def number(n: Any) -> Any:
            if isinstance(n, tuple):
                return tuple(map(number, n))
            if n is None or isinstance(n, (int, str)):
                return n
            sizes.append(n)
            return "size", len(sizes) - 1

        made = Made(tuple(map(place, arrays)), tuple((name, number(n)) for name, n in options))
        text = text_of(program, self.options, made, seeds)
        # What is recorded may be trained later, whatever requires a gradient now.
        grad = torch.is_grad_enabled()
        wanted = [n for n, x in enumerate(tensors) if grad and x.dtype.is_floating_point]
        for space, n in rows_in(program, seeds, tensors).items():
            torch._check(n == self.count(part.graph, space))
        operators = torch.ops.columba
        if seeds:
            results = operators.random_call(tensors[0], text, tensors, sizes, wanted)
        else:
            results = operators.call(text, tensors, sizes, wanted)
        return list(results[:-1])

    def leaf(self, x: Any) -> Any:
        if isinstance(x, Record):
            return self.values[x]
        if isinstance(x, RowCount):
            of = x.of
            if isinstance(of, Record):
                return self.values[of].shape[0]
            return self.count(of.graph, of.space)
        return x


def _all_sizes(sizes: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    known = tuple((name, sizes.get(name)) for name in ("num_nodes", "num_relations", "num_node_types", "num_graphs"))
    return (*known, ("ends", sizes["ends"])) if "ends" in sizes else known


def _tensors_of(graph: Graph) -> tuple[tuple[Any, ...], tuple[tuple[str, Any], ...]]:
    """What a graph that is there is made of again: tensors that are the same at each call."""
    if getattr(graph, "batch", None) is not None:
        raise NotFlat(f"{location()}: a batch of graphs is a constant of the model; pass edge_index tensors")
    nodes = graph.num_nodes if graph.is_square else (graph.num_src, graph.num_dst)
    tensors = graph.keep("exported", lambda: (graph.edge_index, graph.edge_type, graph.node_type))
    types = None if tensors[2] is None else graph.num_node_types
    return tensors, (("num_nodes", nodes), ("num_relations", graph.num_relations), ("num_node_types", types))


__all__ = ["call", "is_recorded"]
