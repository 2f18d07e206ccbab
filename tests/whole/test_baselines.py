"""The operation lists of PyG's layers are what its layers allocate."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.baselines import BASELINES, Sizes, Tape, run
from columba import Graph
from columba.datasets import PUBLISHED, statistics
from columba.nn.samples import LAYERS

pytestmark = pytest.mark.unoptimized


def profiled_peak(call: Callable[[], Any]) -> int:
    """The most bytes that PyTorch's CPU allocator holds during a call, beyond what it held before."""
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = call()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    del kept
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def graph_with(sizes: Sizes) -> Graph:
    """Relations of one size, node types of one size, every relation from one type to one type."""
    generator = torch.Generator().manual_seed(0)
    of = torch.arange(sizes.edges) * sizes.relations // sizes.edges
    starts = (of % sizes.node_types) * sizes.of_type
    ends = torch.stack([starts + torch.randint(sizes.of_type, (sizes.edges,), generator=generator) for _ in range(2)])
    types = torch.arange(sizes.nodes) // sizes.of_type
    return Graph(ends, of, num_nodes=sizes.nodes, num_relations=sizes.relations, node_type=types)


def pyg_layer(name: str, sizes: Sizes, graph: Graph) -> tuple[Callable[[torch.Tensor], torch.Tensor], int]:
    """A call of PyG's layer, and the bytes of what is there before it beside the input."""
    nn = pytest.importorskip("torch_geometric.nn")
    f, relations, heads = sizes.features, sizes.relations, sizes.heads
    index, types = graph.edge_index, graph.edge_type
    if name == "PyG HGTConv":
        kinds = pytest.importorskip("benchmarks.typed_edges").TypedEdges(graph)
        triples = [kinds.triple(r) for r in kinds.relations]
        conv = nn.HGTConv(f, f, (list(kinds.names), triples), heads=heads)
        edges = dict(zip(triples, kinds.edges, strict=True))

        def call(x: torch.Tensor) -> torch.Tensor:
            out = conv(dict(zip(kinds.names, x.split(kinds.sizes), strict=True)), edges)
            return list(out.values())  # type: ignore[return-value]
    else:
        made = {"RGCNConv": nn.RGCNConv, "FastRGCNConv": nn.FastRGCNConv}
        conv = nn.RGATConv(f, f // heads, relations, heads=heads) if name == "RGATConv" else made[name](f, f, relations)

        def call(x: torch.Tensor) -> torch.Tensor:
            return conv(x, index, types)

    return call, sum(p.nbytes for p in conv.parameters()) + index.nbytes + types.nbytes


PYG = [("rgcn", "RGCNConv", 1), ("rgcn", "FastRGCNConv", 1), ("rgat", "RGATConv", 1), ("rgat", "RGATConv", 4)]
PYG += [("hgt", "PyG HGTConv", 1), ("hgt", "PyG HGTConv", 4)]


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize(("layer", "name", "heads"), PYG)
def test_lists_of_operations_are_what_pyg_allocates(layer: str, name: str, heads: int, training: bool) -> None:
    sizes = Sizes(nodes=1200, edges=6000, relations=6, node_types=3, features=32, heads=heads)
    graph = graph_with(sizes)
    call, resident = pyg_layer(name, sizes, graph)
    x = torch.randn(sizes.nodes, sizes.features, requires_grad=training)

    def step() -> Any:
        with torch.set_grad_enabled(training):
            out = call(x)
        outs = out if isinstance(out, list) else [out]
        if training:
            torch.autograd.backward(outs, [torch.ones_like(o) for o in outs])
        return outs

    measured = profiled_peak(step)
    predicted = run(BASELINES[layer][name], sizes, training=training).peak - resident - x.nbytes
    assert predicted == pytest.approx(measured, rel=0.1)


def test_tape_holds_what_autograd_saves() -> None:
    """A product of two matrices, added to itself: by hand."""
    tape = Tape(training=True)
    a, b = tape.leaf(100), tape.leaf(200)
    y = tape.op([a, b], 50, saves=[a, b], flops=7)
    z = tape.op([y], 50, saves_result=True)
    tape.drop(y)
    assert tape.held == 100 + 200 + 50
    tape.backward(z)
    assert tape.peak == 350 + 50 + 50 + 100 + 200 - 50 - 50 + 50
    assert tape.held == 100 + 200 + 50 + 100 + 200
    assert tape.flops == 7 * 3


def test_inference_saves_nothing() -> None:
    for layers in BASELINES.values():
        for name, layer in layers.items():
            sizes = Sizes(1000, 8000, 5, 2, 16, 2)
            first, second = (run(layer, sizes, training=training) for training in (False, True))
            assert first.peak < second.peak, name
            assert first.moved < second.moved, name
            assert first.flops < second.flops, name


@pytest.mark.parametrize("layer", LAYERS)
def test_where_published_systems_run_out_of_memory(layer: str) -> None:
    """Training with 64 features, 24 GB: every layer but DGL's ``RelGraphConv``, which is a gather and one grouped product."""
    for name, baseline in BASELINES[layer].items():
        peaks = [run(baseline, Sizes.of(statistics(n).counts()), training=True).peak for n in PUBLISHED]
        assert (max(peaks) > 24e9) == (name != "RelGraphConv"), name
