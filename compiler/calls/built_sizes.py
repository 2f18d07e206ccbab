"""Sizes of graphs that are built inside of a trace, in terms of the tensors that are passed: numbers that may be symbolic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from columba.frontend.symbolic import BuiltGraph
from columba.frontend.traced import Trace
from columba.frontend.trees import mapped
from columba.ir.spaces import Space

Number = Callable[[Any], Any]
"""What a size, which may be a number of rows, is at present."""


@dataclass(frozen=True)
class BuiltSizes:
    """What :func:`columba.frontend.traced.Trace` knows of a graph that it builds.

    Attributes:
        num_nodes: of all nodes, or a pair.
        node_slices: the ids of each type, where types are named.
    """

    num_nodes: Any
    num_relations: int | None
    num_node_types: int | None
    num_graphs: int | None = None
    node_slices: dict[Any, slice] | None = None

    def rows(self, space: Space) -> Any:
        """The rows of a space; None where sizes do not say it."""
        pair = self.num_nodes if isinstance(self.num_nodes, tuple) else (self.num_nodes, self.num_nodes)
        known = {
            Space.SRC: pair[0],
            Space.DST: pair[1],
            Space.REL: self.num_relations,
            Space.NTYPE: self.num_node_types,
            Space.GRAPH: self.num_graphs,
        }
        return pair[0] if space is Space.NODE else known.get(space)


def built_sizes(trace: Trace, number: int, now: Number) -> BuiltSizes | None:
    """The sizes of a graph of a trace, by its number; None if it is not built there."""
    source = next((source for source in trace.graphs[number] if isinstance(source, BuiltGraph)), None)
    if source is None:
        return None
    sizes = {name: mapped(now, size) for name, size in source.sizes}
    if "node_types" not in sizes:
        return BuiltSizes(*map(sizes.get, ("num_nodes", "num_relations", "num_node_types", "num_graphs")))
    counts = sizes["num_nodes"]
    starts = list(accumulate(counts, initial=0))
    slices = {
        kind: slice(start, start + n) for kind, start, n in zip(sizes["node_types"], starts[:-1], counts, strict=True)
    }
    return BuiltSizes(starts[-1], max(len(sizes["relations"]), 1), max(len(counts), 1), node_slices=slices)


def joined(source: BuiltGraph, tables: Sequence[Tensor], slices: dict[Any, slice]) -> tuple[Tensor, Tensor, Tensor]:
    """``edge_index``, ``edge_type`` and ``node_type`` of a graph that is built of a tensor of edges for each edge type."""
    sizes = dict(source.sizes)
    given = dict(zip(sizes["edge_types"], tables, strict=True))
    names = [(n, name) for n, name in enumerate(sizes["relations"]) if name in given]
    device = tables[0].device
    edges = [
        torch.stack([given[name][0] + slices[name[0]].start, given[name][1] + slices[name[-1]].start])
        for _, name in names
    ]
    types = [torch.full((given[name].shape[1],), n, device=device) for n, name in names]
    kinds = [torch.full((rows.stop - rows.start,), n, device=device) for n, rows in enumerate(slices.values())]
    return torch.cat(edges, dim=1), torch.cat(types), torch.cat(kinds)
