"""A new graph at every step, as sampling makes them: ``python -m benchmarks.new_graphs``.

A training step of a layer of 64 features on a graph that it has not seen, beside the same step on one that it knows, in turn. All
graphs are of about one size and none is of another's; making the graph itself is timed apart.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence

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


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def main(arguments: Sequence[str]) -> None:
    rows = []
    for layer in arguments or LAYERS:
        for nodes, edges in SIZES:
            made, new, old = measure(layer, nodes, edges)
            size = f"{nodes:,} nodes, {edges:,} edges"
            rows.append(
                [
                    f"{TITLES[layer]}, {size}",
                    f"{made:.2f}",
                    f"{new:.2f}",
                    f"{old:.2f}",
                    f"{new - old:.2f}",
                    f"{new / old:.2f}",
                ]
            )
    print(table(["training step", "graph made, ms", "new graph, ms", "known graph, ms", "difference", "ratio"], rows))


if __name__ == "__main__":
    main(sys.argv[1:])
