"""A new graph at every step, as sampling makes them: ``python -m benchmarks.new_graphs``.

A training step of a layer of 64 features on a graph that it has not seen, beside the same step on one that it knows, in turn. All
graphs are of about one size and none is of another's; making the graph itself is timed apart. Layers of PyG,
``python -m benchmarks.new_graphs GATConv RGATConv``, make it of ``edge_index`` within the step, with self-loops and what else the layer
computes of it; PyG runs such steps after them.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

import columba
from benchmarks.cases import LAYERS, TITLES, Case, make_layer
from benchmarks.markdown import table

SIZES = ((100, 1_500), (1_000, 10_000), (10_000, 100_000))
"""Nodes and edges."""

FEATURES, RELATIONS, TYPES = 64, 8, 2
WARM, TURNS = 12, 25


def make_graph(nodes: int, edges: int, seed: int) -> columba.Graph:
    """A random graph of nearly that size."""
    generator = torch.Generator().manual_seed(seed)
    nodes, edges = nodes + seed % 7, edges + seed % 13
    return columba.Graph(
        torch.randint(nodes, (2, edges), generator=generator),
        torch.randint(RELATIONS, (edges,), generator=generator),
        num_nodes=nodes,
        num_relations=RELATIONS,
        node_type=torch.arange(nodes) % TYPES,
        num_node_types=TYPES,
    )


def measure(layer: str, nodes: int, edges: int) -> tuple[float, float, float]:
    """Milliseconds of making a graph, of a step on a new one, and of a step on a known one: medians of interleaved runs."""
    known = make_graph(nodes, edges, 0)
    compiled = columba.compile(make_layer(Case(layer, "", FEATURES), known))

    def step(graph: columba.Graph) -> None:
        x = torch.randn(graph.num_nodes, FEATURES, requires_grad=True)
        compiled(x, graph).sum().backward()

    for seed in range(WARM):
        step(make_graph(nodes, edges, seed))
        step(known)
    made, new, old = list[float](), list[float](), list[float]()
    for seed in range(WARM, WARM + TURNS):
        graph = make_graph(nodes, edges, seed)
        for times, call in (
            (made, lambda seed=seed: make_graph(nodes, edges, seed)),
            (new, lambda graph=graph: step(graph)),
            (old, lambda: step(known)),
        ):
            times.append(_milliseconds(call))  # type: ignore[arg-type]
    return statistics.median(made), statistics.median(new), statistics.median(old)


def make_indices(nodes: int, edges: int, seed: int) -> tuple[int, tuple[torch.Tensor, ...]]:
    """A random graph of nearly that size, as PyG takes it: how many nodes, ``edge_index``, ``edge_type``."""
    generator = torch.Generator().manual_seed(seed)
    nodes, edges = nodes + seed % 7, edges + seed % 13
    indices = torch.randint(nodes, (2, edges), generator=generator)
    return nodes, (indices, torch.randint(RELATIONS, (edges,), generator=generator))


def measure_pyg(layer: str, nodes: int, edges: int) -> tuple[float, float, float, float]:
    """Milliseconds of making a graph of index tensors, as they are, and of a step of a layer of PyG: compiled, on new tensors and on known
    ones, and uncompiled on new ones."""
    from torch_geometric import nn as pyg

    relational = layer in ("RGCNConv", "FastRGCNConv", "RGATConv")
    conv = getattr(pyg, layer)(FEATURES, FEATURES, *([RELATIONS] if relational else []))
    compiled = columba.compile(copy.deepcopy(conv))

    def step(model: torch.nn.Module, graph: tuple[int, tuple[torch.Tensor, ...]]) -> None:
        count, indices = graph
        x = torch.randn(count, FEATURES, requires_grad=True)
        model(x, *indices[: 2 if relational else 1]).sum().backward()

    known = make_indices(nodes, edges, 0)
    for seed in range(WARM):
        step(compiled, make_indices(nodes, edges, seed))
        step(compiled, known)
    made, new, old, eager = list[float](), list[float](), list[float](), list[float]()
    for seed in range(WARM, WARM + TURNS):
        graph = make_indices(nodes, edges, seed)
        count, (edge_index, edge_type) = graph
        types = edge_type if relational else None
        made.append(_milliseconds(partial(columba.Graph, edge_index.clone(), types, num_nodes=count)))
        new.append(_milliseconds(partial(step, compiled, graph)))
        old.append(_milliseconds(partial(step, compiled, known)))
    for seed in range(TURNS // (3 if edges > 50_000 else 1)):  # apart: its tensors would push ours out of the caches
        graph = make_indices(nodes, edges, seed)
        eager.append(_milliseconds(partial(step, conv, graph)))
    return statistics.median(made), statistics.median(new), statistics.median(old), statistics.median(eager)


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def main(arguments: Sequence[str]) -> None:
    ours = [layer for layer in arguments or LAYERS if layer in LAYERS]
    theirs = [layer for layer in arguments if layer not in LAYERS]
    rows = []
    for layer in ours:
        for nodes, edges in SIZES:
            made, new, old = measure(layer, nodes, edges)
            rows.append([f"{TITLES[layer]}, {_size(nodes, edges)}", *_shown(made, new, old, new - old, new / old)])
    if rows:
        head = ["training step", "graph made, ms", "new graph, ms", "known graph, ms", "difference", "ratio"]
        print(table(head, rows))
    rows = []
    for layer in theirs:
        for nodes, edges in SIZES:
            print(layer, _size(nodes, edges), file=sys.stderr, flush=True)
            made, new, old, eager = measure_pyg(layer, nodes, edges)
            figures = _shown(made, new, old, new - old, new / old, (new - made) / old, eager, eager / new)
            rows.append([f"PyG's {layer}, {_size(nodes, edges)}", *figures])
    if rows:
        head = [
            "training step",
            "graph made, ms",
            "new graph, ms",
            "known graph, ms",
            "difference",
            "ratio",
            "without making it",
        ]
        head += ["PyG, new graph, ms", "ratio to PyG"]
        print(table(head, rows))


def _size(nodes: int, edges: int) -> str:
    return f"{nodes:,} nodes, {edges:,} edges"


def _shown(*numbers: float) -> list[str]:
    return [f"{number:.2f}" for number in numbers]


if __name__ == "__main__":
    main(sys.argv[1:])
