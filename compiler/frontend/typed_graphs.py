"""Typed graphs that are built inside of traced functions, of a tensor of edges for each edge type."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from columba.frontend.counts import RealGraph, RowCount
from columba.frontend.errors import fail
from columba.frontend.infer import origin_of_rows
from columba.frontend.record import Record, Recorder
from columba.frontend.sources import Source
from columba.frontend.symbolic import LANGUAGE as OF_GRAPHS
from columba.frontend.symbolic import BuiltGraph, TracedGraph, size_of_inputs
from columba.runtime.graphs.from_tensors import typed_graph, typed_graph_of
from columba.runtime.graphs.graph import Graph


def _trace_typed_graph(
    recorder: Recorder, edges: Mapping[Any, Any], num_nodes: Mapping[Any, int], *, relations: Sequence[Any]
) -> Graph:
    """Builds the real graph of this call, and remembers how."""
    sources, real = [], []
    for name, tensor in edges.items():
        record = recorder.operand(tensor)
        if record.source is None:
            raise fail(
                f"the edges of {name} must be an argument or attribute, not computed inside the compiled function"
            )
        sources.append(record.source)
        real.append(recorder.real[record])
    names = {"edge_types": tuple(edges), "node_types": tuple(num_nodes), "relations": tuple(relations)}
    counts = tuple(int.__int__(n) for n in num_nodes.values())
    with torch._C.DisableTorchFunction():
        graph = typed_graph_of(tuple(real), num_nodes=counts, **names)
    sizes = {**names, "num_nodes": tuple(_of_inputs(recorder, kind, n) for kind, n in num_nodes.items())}
    tensors: tuple[tuple[Source, ...]] = (tuple(sources),)
    source = BuiltGraph(tensors, tuple(sorted(sizes.items())), typed_graph_of)
    before = [known for known in recorder.graphs if known._real is graph]
    traced = TracedGraph(graph, source, recorder)
    if not any(known._source == source for known in before):
        recorder.graphs.append(traced)
    return before[0] if before else traced


def _of_inputs(recorder: Recorder, kind: Any, n: Any) -> Any:
    """The number of nodes of a type in terms of what is passed in: what a layer before it has given has as many as went into that."""
    found = size_of_inputs(recorder, n)
    if not isinstance(found, RowCount) or not isinstance(found.of, Record) or found.of.source is not None:
        return found
    origin = origin_of_rows(found.of)
    number = origin.args[0].number if origin.args and isinstance(origin.args[0], RealGraph) else None
    for known in recorder.graphs:
        if known.number != number and number is not None:
            continue
        sizes = dict(known._source.sizes) if isinstance(known._source, BuiltGraph) else {}
        before = dict(zip(sizes.get("node_types", ()), sizes.get("num_nodes", ()), strict=False))
        if kind in before and int.__int__(before[kind]) == int.__int__(n):
            return before[kind]
    return found


LANGUAGE: dict[Any, Callable[..., Any]] = {**OF_GRAPHS, typed_graph: _trace_typed_graph}
"""Functions of the language that go through PyTorch's protocol."""
