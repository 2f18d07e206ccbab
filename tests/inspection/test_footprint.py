"""Predicted memory is what the runtime allocates."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from compiled import PAIRS

import columba
from columba import Graph
from columba.codegen.triton import launches
from columba.codegen.triton.launches import tile_count
from columba.inspection import footprint
from columba.inspection.footprint import footprint as footprint_of
from columba.inspection.footprint import graph_bytes, peak_bytes
from columba.ir.counts import Counts
from columba.ir.indices import Hubs, Tiles
from columba.ir.plan.kernels import HostCall
from columba.ir.spaces import PAIR_SPACES, Space
from columba.nn.samples import LAYERS, sample
from columba.runtime.backends import TRITON
from columba.runtime.cpp import memory

pytestmark = pytest.mark.unoptimized


def typed_graph(nodes: int = 300, edges: int = 2000, relations: int = 2, types: int = 2) -> Graph:
    generator = torch.Generator().manual_seed(5)
    return Graph(
        torch.randint(nodes, (2, edges), generator=generator),
        torch.randint(relations, (edges,), generator=generator),
        num_nodes=nodes,
        num_relations=relations,
        node_type=torch.arange(nodes) * types // nodes,
        num_node_types=types,
    )


class Meter:
    """Bytes that are held, and the most that were."""

    def __init__(self) -> None:
        self.held = self.peak = 0

    def add(self, owner: Any, size: int) -> None:
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(owner, self._drop, size)

    def _drop(self, size: int) -> None:
        self.held -= size


def exact_tiles(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles as this graph has them, where predictions take the most that there can be."""

    def count(tiles: Tiles | Hubs, counts: Any) -> int:
        found = graph.index(tiles).numel() // tiles.columns
        assert found <= tile_count(tiles, counts)
        return found

    monkeypatch.setattr(footprint, "tile_count", count)
    monkeypatch.setattr(launches, "tile_count", count)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("layer", LAYERS)
def test_triton_allocates_what_is_predicted(layer: str, heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly, in forward and in backward, at the fullest moment: launches are left out, what surrounds them is not."""
    pytest.importorskip("triton")
    import gpu_stand_in

    from columba.runtime.triton import gpu as triton_gpu
    from columba.runtime.triton import launch as triton_launch

    gpu_stand_in.install(monkeypatch)
    graph = typed_graph()
    exact_tiles(graph, monkeypatch)
    model, _, _ = sample(layer, features=16, heads=heads)
    x = torch.randn(graph.num_nodes, 16).requires_grad_()
    compilation = columba.explain(columba.compile(model, passes=PAIRS), x, graph).compilation
    predicted = footprint_of(compilation, graph.counts())

    meter = Meter()
    allocate = triton_gpu.Gpu.empty

    def metered(gpu: Any, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        made = allocate(gpu, shape, dtype)
        meter.add(made, made.nbytes)
        return made

    monkeypatch.setattr(triton_gpu.Gpu, "empty", metered)
    monkeypatch.setattr(triton_gpu.GpuPlan, "_compile", _without_launches)
    executable = triton_launch.TritonExecutable(compilation.plans, columba.ir.types.DType.I32)
    counts = [graph.counts().get(space, 0) for space in Space]
    for plan, expected in zip(executable.plans, (predicted.forward, predicted.backward), strict=True):
        meter.peak = meter.held
        before = meter.held
        inputs = [torch.zeros(_shape(b.type, graph)) for b in plan.inputs]
        host = _metered_host(meter, counts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outputs = executable.run(
                plan.name, inputs, [graph.index(a) for a in executable.index_arrays(plan)], counts, host=host
            )
        assert meter.peak - before == expected.peak, plan.name
        assert meter.held - before == expected.outputs
        assert sum(t.nbytes for t in outputs) >= expected.outputs
        del outputs, inputs


def _without_launches(plan: Any, precision: str) -> Any:
    """Host calls alone."""
    return [], [step.kernel for step in plan.emitted if isinstance(step.kernel, HostCall)]


def _shape(t: Any, graph: Graph) -> tuple[int, ...]:
    return t.shape if t.space is Space.ONE else (graph.count(t.space), *t.shape)


def _metered_host(meter: Meter, counts: Sequence[int]) -> Any:
    """Runs host calls and meters their results; what they hold while they run is small, and metered at once."""
    from columba.runtime.host import run_host_program

    def run(program: Any, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        results = run_host_program(program, inputs, counts)
        for r in results:
            meter.add(r, r.nbytes)
        return results

    return run


@pytest.fixture
def most_held(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The bytes that the pool has held whenever memory was taken from it, small temporaries and tensors included."""
    seen: list[int] = []
    take = memory.Pooled.take

    def noted(self: memory.Pooled, size: int) -> memory.Piece:
        piece = take(self, size)
        seen.append(self.held)
        return piece

    monkeypatch.setattr(memory.Pooled, "take", noted)
    monkeypatch.setattr(memory.Pooled, "SMALL", 0)
    yield seen
    gc.collect()
    memory.pooled.release()


@pytest.mark.parametrize("layer", [n if n == "rgat" else pytest.param(n, marks=pytest.mark.slow) for n in LAYERS])
@pytest.mark.slow
def test_cpp_allocates_what_is_predicted(layer: str, most_held: list[int]) -> None:
    """A training step, all that it makes and what it is given to begin with, within 3 %: pieces are of whole pages."""
    graph = typed_graph(nodes=2000, edges=20000)
    model, _, _ = sample(layer)
    compiled = columba.compile(model, passes=PAIRS, backend="cpp")
    x = torch.randn(graph.num_nodes, 64).requires_grad_()
    gradient = torch.randn(graph.num_nodes, 64)
    predicted = footprint_of(columba.explain(compiled, x, graph).compilation, graph.counts(), "cpp")

    def step() -> int:
        most_held.clear()
        out = compiled(x, graph)
        out.backward(gradient.clone())
        x.grad = None
        model.zero_grad()
        del out
        gc.collect()
        return max(most_held)

    step()
    memory.pooled.release()
    before = memory.pooled.held
    measured = step() - before + gradient.nbytes
    assert measured == pytest.approx(predicted.peak - predicted.resident, rel=0.03)
    assert step() - before + gradient.nbytes <= measured, "the second step finds its memory"


@pytest.mark.parametrize("layer", LAYERS)
def test_graph_bytes_are_those_of_its_arrays(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = typed_graph(relations=5, types=3)
    exact_tiles(graph, monkeypatch)
    model, _, _ = sample(layer)
    small = typed_graph()
    x = torch.randn(small.num_nodes, 64).requires_grad_()
    compilation = columba.explain(columba.compile(model, passes=PAIRS), x, small).compilation
    arrays = TRITON.memory(compilation.planned, graph.counts()).arrays
    counts = Counts({s: graph.count(s) for s in (Space.NODE, Space.EDGE, Space.REL, Space.NTYPE, *PAIR_SPACES)})
    fresh = Graph(graph.edge_index, graph.edge_type, num_nodes=300, num_relations=5, node_type=graph.node_type)
    for array in arrays:
        fresh.index(array)
    structure = fresh.structure
    held = [t for t in vars(structure.topology).values() if isinstance(t, torch.Tensor)] + [*structure.built.values()]
    for pairs in structure.pair_spaces.values():
        held += [t for t in vars(pairs).values() if isinstance(t, torch.Tensor)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
    assert graph_bytes(arrays, counts) == pytest.approx(sum(storages.values()), rel=0.02)


def test_a_missing_count_is_named() -> None:
    model, x, graph = sample("rgcn", features=4)
    compilation = columba.explain(model, x, graph).compilation
    with pytest.raises(KeyError, match="number of .* rows is not given"):
        peak_bytes(compilation, Counts({Space.EDGE: 3}))


def test_inference_needs_no_more_than_training() -> None:
    model, x, graph = sample("hgt")
    counts = Counts({**columba.datasets.statistics("fb15k").counts(), Space.NTYPE: 2})
    training = columba.explain(columba.compile(model, passes=PAIRS), x, graph).compilation
    with torch.no_grad():
        inference = columba.explain(columba.compile(model, passes=PAIRS), x, graph).compilation
    first, second = footprint_of(inference, counts), footprint_of(training, counts)
    assert first.backward is None
    assert first.saved == first.gradients == 0
    assert first.peak < second.peak
    for backend in ("triton", "cpp"):
        assert peak_bytes(training, counts, backend) > footprint_of(training, counts).resident
    with pytest.raises(ValueError, match="unknown backend"):
        peak_bytes(training, counts, "metal")
