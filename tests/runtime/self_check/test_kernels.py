"""Kernels are compared with the oracle: right ones pass, planted faults are found, and what rounding decides is no fault."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

import gpu_stand_in
from compiled import PAIRS
from self_check_jobs import FAULTS, TINY, arguments, job_of, messages, planted, small_job

import columba
from columba.codegen.triton import emit
from columba.ir.indices import Segments
from columba.ir.plan.kernels import Buffer
from columba.ir.spaces import IndexMap, Space
from columba.ir.types import DType, TensorType
from columba.nn.samples import sample
from columba.runtime.graphs.graph import Graph
from columba.runtime.self_check import kernels
from columba.runtime.self_check.graphs import LARGE, LEAST_EDGES, SMALL, Sample, large
from columba.runtime.self_check.job import Job, Verdict
from columba.runtime.self_check.kernels import KernelCheck
from columba.runtime.self_check.oracle import Arithmetic, Expected
from columba.runtime.self_check.process import CouldNotCheck
from columba.runtime.triton.launch import TritonExecutable
from columba.runtime.triton.precompile import Job as PrecompiledJob
from columba.runtime.triton.precompile import PrecompileError, WorkerEnded

pytestmark = [
    pytest.mark.filterwarnings("ignore:columba. backend=.triton. runs on CPU"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter"),
]


def verdict_on(job: Job) -> Verdict:
    said: list[str] = []
    check = KernelCheck(job, said.append)
    check.prepare()
    found = check.run()
    assert said[0] == "starting"
    assert len(said) > 1
    return found


# ------------------------------------------------------------------------------------------------ right kernels


@pytest.mark.slow
def test_right_kernels_pass_forward_and_backward() -> None:
    """Four variants of each of five kernels."""
    job = job_of(messages, *arguments(), samples=[TINY])
    assert Job.from_json(job.to_json()) == job
    assert verdict_on(job) == Verdict(True, kernels=20)


LAYERS = [("rgcn", 1), ("rgat", 1), ("rgat", 4), ("hgt", 1), ("hgt", 4)]


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["rgcn", "rgat"])
def test_layers_pass_on_the_graph_with_hubs(layer: str) -> None:
    model, x, graph = sample(layer, features=8)
    found = verdict_on(job_of(model, x, graph, samples=SMALL[:1]))
    assert found.passed, found


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "heads"), LAYERS)
def test_layers_pass_in_bfloat16_on_the_small_graph(layer: str, heads: int) -> None:
    model, x, graph = sample(layer, features=8, heads=heads, dtype=torch.bfloat16)
    found = verdict_on(job_of(model, x, graph, samples=SMALL[1:]))
    assert found.passed, found


@pytest.mark.parametrize(
    ("layer", "heads"), [c if c[0] == "rgcn" else pytest.param(*c, marks=pytest.mark.slow) for c in LAYERS]
)
def test_layers_pass_on_a_tiny_graph(layer: str, heads: int) -> None:
    model, x, graph = sample(layer, features=8, heads=heads)
    found = verdict_on(job_of(model, x, graph, samples=[TINY], grad=layer != "rgcn"))
    assert found.passed, found


def test_readouts_are_checked_on_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several graphs, whatever the program was compiled for."""

    def readout(g: columba.Graph, x: Tensor) -> Tensor:
        return g.nodes.max(x * g.nodes.graph(g.nodes.sum(x, to="graph")), to="graph")

    sizes: list[int] = []
    check = KernelCheck._check_on
    monkeypatch.setattr(KernelCheck, "_check_on", lambda self, g, s: (sizes.append(g.num_graphs), check(self, g, s)))
    graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    assert verdict_on(job_of(readout, graph, torch.randn(2, 2), samples=[TINY], grad=False)).passed
    assert sizes == [5]


def test_bipartite_graphs_and_index_arrays_of_64_bits() -> None:
    def maximum(g: columba.Graph, x: Tensor) -> Tensor:
        return g.edges.max(g.edges.src(x))

    graph = Graph(torch.tensor([[0, 1], [1, 0]]), num_nodes=(2, 3))
    job = job_of(maximum, graph, torch.randn(2, 2), samples=[TINY], grad=False)
    assert verdict_on(replace(job, index_dtype=DType.I64)).passed


def test_values_that_are_infinite_or_no_numbers() -> None:
    """They are so in the oracle, too: about half of these logarithms are NaN."""

    def logarithms(g: columba.Graph, x: Tensor) -> Tensor:
        return g.edges.src(x).log()

    job = job_of(logarithms, arguments()[0], torch.randn(2, 2), samples=[TINY], grad=False)
    assert verdict_on(job).passed
    wrong = replace(job, source=job.source.replace("tl.log(", "0 * tl.log("))
    assert wrong != job
    found = verdict_on(wrong)
    assert found.kernel == "logarithms out_kernel", found


# ------------------------------------------------------------------------------------------------ planted faults


@pytest.mark.parametrize(
    ("fault", "kernel", "why"),
    [
        (
            "adds a member twice",
            "messages out_kernel",
            r"out is \S+ in row \d+, element \d, where \S+ is right; \d+ of 24",
        ),
        ("skips the last tile", "messages linear_3_kernel", "pointwise_4 is nan in row"),
        (
            "reads out of bounds",
            "messages out_kernel",
            "out is nan in row 23, element 0, where 0 is right; 1 of 24 rows",
        ),
        ("writes out of bounds", "messages out_kernel", "it writes outside of its tensors"),
    ],
)
def test_faults_are_found(fault: str, kernel: str, why: str) -> None:
    found = verdict_on(planted(fault))
    assert not found.passed
    assert found.kernel == kernel
    assert re.search(why, found.why), found.why


# ------------------------------------------------------------------------------------------------ on a GPU


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> list[PrecompiledJob]:
    """Kernels run by their addresses, as on a GPU; gives what is compiled ahead."""
    compiled: list[PrecompiledJob] = []

    def precompile(jobs: list[PrecompiledJob], workers: int, tell: Callable[[int], None]) -> int:
        compiled.extend(jobs)
        tell(1)
        return len(jobs)

    gpu_stand_in.install_interpreted(monkeypatch)
    monkeypatch.setattr(kernels, "gpu_of", gpu_stand_in.StandIn)
    monkeypatch.setattr(kernels, "architecture", lambda device: "sm_90")
    monkeypatch.setattr(kernels, "precompile", precompile)
    monkeypatch.setattr(KernelCheck, "_select", lambda *_: None)
    return compiled


def test_kernels_pass_on_a_gpu(on_gpu: list[PrecompiledJob]) -> None:
    job = job_of(messages, *arguments(), samples=[TINY])
    assert verdict_on(job) == Verdict(True, kernels=20)
    assert {one.launch.function for one in on_gpu} == set(re.findall(r"def (\w+_kernel\w*)", job.source))
    assert {(one.source, one.target, one.precision) for one in on_gpu} == {(job.source, "sm_90", "ieee")}


@pytest.mark.parametrize("fault", [f for f in FAULTS if f not in ("hangs", "ends the process")])
def test_faults_are_found_on_a_gpu(on_gpu: list[PrecompiledJob], fault: str) -> None:
    found = verdict_on(planted(fault))
    assert not found.passed
    assert found.kernel in ("messages out_kernel", "messages linear_3_kernel")


def test_the_large_graph_is_smaller_where_memory_is_short(
    on_gpu: list[PrecompiledJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def check_on(self: KernelCheck, graph: Graph, sample: Sample) -> None:
        tried.append(graph.num_edges)
        if graph.num_edges > 20_000:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(KernelCheck, "_check_on", check_on)
    assert verdict_on(replace(small_job(), large=True)).passed
    assert tried == [60, 100_000, 20_000]


def test_kernels_that_do_not_compile_are_wrong(on_gpu: list[PrecompiledJob], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: PrecompileError) -> Callable[..., int]:
        def precompile(*_: Any) -> int:
            raise error

        return precompile

    monkeypatch.setattr(kernels, "precompile", fail(PrecompileError("kernel a does not compile for sm_90: why\nmore")))
    assert verdict_on(small_job()) == Verdict(False, "all kernels", "kernel a does not compile for sm_90: why")
    monkeypatch.setattr(kernels, "precompile", fail(WorkerEnded("status -9")))
    with pytest.raises(CouldNotCheck, match="status -9"):
        verdict_on(small_job())


@pytest.mark.parametrize(("layer", "heads"), [("rgcn", 1), ("rgat", 4), ("hgt", 1)])
def test_every_launch_has_programs_on_one_of_the_graphs(layer: str, heads: int) -> None:
    """Those for hubs too, whichever rows are many: edges of a node, of a pair, pairs of a node."""
    model, x, graph = sample(layer, heads=heads)
    for passes in ("-aggregate_first,compact_materialization", "aggregate_first,-compact_materialization"):
        compiled = columba.compile(model, backend="triton", passes=passes)
        plans = columba.explain(compiled, x.requires_grad_(), graph).compilation.plans
        graphs = [one.build(square=True) for one in SMALL]
        for steps in emit(plans).steps.values():
            for launch in (x for step in steps for x in step.launches):
                assert any(launch.runs(g.counts(), g.structure.largest_degree) for g in graphs), launch.function


# ------------------------------------------------------------------------------------------------ the oracle

ROWS = Buffer("rows", TensorType(Space.NODE, (2,), DType.F32), "output")


def expected(exact: Any, rounded: Any = None, *margins: Any) -> Expected:
    def held(values: Any) -> dict[Buffer, Tensor]:
        return {ROWS: torch.tensor(values, dtype=torch.float64)}

    return Expected(held(exact), held(exact if rounded is None else rounded), tuple(map(held, margins)))


def test_what_is_wrong_is_said() -> None:
    right, got = [[1.0, 2.0], [3.0, 4.0]], torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    assert expected(right).difference(ROWS, torch.tensor(right), 1e-5) is None
    assert expected(right).difference(ROWS, got, 1e-5) == (
        "rows is 5 in row 1, element 1, where 4 is right; 1 of 2 rows are off by more than 4e-05"
    )
    assert expected(right).difference(ROWS, got, 0.3) is None  # of the scale, which is 4
    for other in (float("nan"), float("inf")):
        got[1, 1] = other
        assert "1 of 2 rows" in str(expected(right).difference(ROWS, got, 0.3))


def test_as_much_is_allowed_as_roundings_and_boundaries_explain() -> None:
    right, got = [[1.0, 2.0], [3.0, 4.0]], torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    near = [[1.0, 2.0], [3.0, 4.8]]
    assert expected(right, near).difference(ROWS, got, 1e-5) is None  # 1.5 * 0.8 > 1
    assert expected(right, None, near, right).difference(ROWS, got, 1e-5) is None
    elsewhere = [[1.0, 9.0], [3.0, 4.0]]
    assert expected(right, None, elsewhere, elsewhere).difference(ROWS, got, 1e-5) is not None
    assert (
        expected(right, elsewhere, elsewhere).difference(ROWS, got, 1e-5) is not None
    )  # one boundary explains no other error


def test_infinities_have_to_be_where_they_are() -> None:
    nan, inf = float("nan"), float("inf")
    right = [[inf, -inf], [nan, 1.0]]
    assert expected(right).difference(ROWS, torch.tensor(right), 1e-5) is None
    for got in ([[inf, inf], [nan, 1.0]], [[inf, -inf], [1.0, 1.0]], [[0.0, -inf], [nan, 1.0]]):
        assert expected(right).difference(ROWS, torch.tensor(got), 1e-5) is not None
    overflow = [[inf, -inf], [nan, 1e300]]  # which is none in float64
    assert expected(overflow, [[inf, -inf], [nan, inf]]).difference(ROWS, torch.tensor(right), 1e-5) is None


def all_jumps(g: columba.Graph, x: Tensor, w: Tensor) -> Tensor:
    y = columba.linear(g.edges.src(x), g.edges.rel(w))
    return g.edges.sum(torch.relu(y) + y.abs() + y.clamp(-0.5, 0.5) + torch.where(y > 0.25, y, -y)) + g.edges.max(y)


def test_comparisons_are_made_with_a_margin() -> None:
    """A gradient that is 1 above 0 and 0 below may be either within the margin, and nowhere else."""

    def rectified(g: columba.Graph, x: Tensor) -> Tensor:
        return torch.relu(g.edges.src(x))

    graph, x, _ = arguments()
    job = job_of(rectified, graph, x, samples=[TINY])
    backward = job.parsed_plans()[1]
    values = torch.tensor([-1.0, -1e-9, 0.0, 1e-9, 1.0], dtype=torch.float64)[:, None].expand(5, 8)
    structure = Graph(torch.arange(5).expand(2, 5)).structure
    inputs = [values if b.name == "x" else torch.ones(5, 8, dtype=torch.float64) for b in backward.inputs]

    def gradients(margin: float) -> list[float]:
        found: list[float] = (
            Arithmetic(margin=margin).run(backward, inputs, structure)[backward.outputs[0]][:, 0].tolist()
        )
        return found

    assert gradients(0.0) == [0, 0, 0, 1, 1]
    assert [a != b for a, b in zip(gradients(1e-6), gradients(-1e-6), strict=True)] == [False, True, True, True, False]


@pytest.mark.slow
def test_kernels_that_round_to_the_other_side_of_a_boundary_pass() -> None:
    """In bfloat16 some values are near enough: kernels compute in float32 what the oracle does in float64."""
    graph, x, w = arguments()
    half = [t.detach().to(torch.bfloat16).requires_grad_() for t in (x, w)]
    found = verdict_on(job_of(all_jumps, graph, *half, samples=[TINY]))
    assert found.passed, found


# ------------------------------------------------------------------------------------------------ graphs


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("square", [True, False])
def test_what_is_on_the_graphs(square: bool, batch: bool) -> None:
    for one in (*SMALL, TINY):
        graph = one.build(square=square, batch=batch)
        assert graph.num_graphs == (5 if batch else 1)
        for nodes in graph.batch if batch and not square else [graph.batch] if batch else []:
            sizes = nodes.bincount(minlength=5)
            assert sizes[4] == 0 < sizes[:3].min() < sizes[3] / 3
        assert graph.num_edges == one.edges
        relations = graph.edge_type.bincount(minlength=graph.num_relations)
        assert relations[0] >= (3 if one.spread else 0.3 * one.edges)
        assert relations[1] >= 1
        assert not relations[-(one.relations // 3) :].any()
        degrees = graph.edge_index[1].bincount(minlength=graph.num_dst)
        assert not degrees[-5:].any()
        assert degrees.max() >= one.hub
        assert graph.edge_index[0].bincount().max() >= one.hub
        types = graph.node_type if square else torch.cat(graph.node_type)
        assert types.max() == graph.num_node_types - 2
        assert (one.build(square=square, batch=batch).edge_index == graph.edge_index).all()


@pytest.mark.parametrize("passes", [PAIRS, "aggregate_first,-compact_materialization"])
@pytest.mark.parametrize(
    ("layer", "heads"),
    [pytest.param("rgcn", 1, marks=pytest.mark.slow), ("rgat", 4), pytest.param("hgt", 4, marks=pytest.mark.slow)],
)
def test_every_launch_of_the_layers_has_work_on_some_graph(layer: str, heads: int, passes: str) -> None:
    """Those for hubs, too."""
    model, x, graph = sample(layer, heads=heads)
    planned = columba.explain(columba.compile(model, passes=passes), x, graph).compilation.planned
    module = TritonExecutable(planned.plans, DType.I32, schedules=planned.schedules).module
    launches = [x for steps in module.steps.values() for step in steps for x in step.launches]
    seen: set[str] = set()
    for one in (*SMALL, large(64)):
        built = one.build(square=True)

        def largest(via: IndexMap, built: Graph = built) -> int:
            return int(built.structure.index(Segments(via)).diff().max())

        seen.update(launch.function for launch in launches if launch.runs(built.counts(), largest))
    assert seen == {launch.function for launch in launches}


def test_the_large_graph_fits_the_program() -> None:
    assert large(64) == replace(LARGE, hub=5000)
    assert large(1024).edges == 8192
    assert large(1 << 20).edges == LEAST_EDGES
