"""Plans bound to a GPU that is not there: what is compiled and launched, and that addresses lead to the right memory."""

from __future__ import annotations

import ast
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gpu_stand_in
import pytest
import torch
from torch import Tensor, nn

import columba
from columba.nn import HGTConv, RGATConv, RGCNConv
from columba.runtime.dtypes import ir_dtype
from columba.runtime.graphs.graph import Graph, is_on
from columba.runtime.triton import gpu as triton_gpu
from columba.runtime.triton.aot import compile_plans
from columba.runtime.triton.functions import is_tf32_allowed, load_functions

pytest.importorskip("triton")

PASSES = "-aggregate_first,compact_materialization"


def random_graph(nodes: int, edges: int, seed: int = 0) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    return Graph(
        torch.randint(nodes, (2, edges), generator=generator),
        torch.randint(3, (edges,), generator=generator),
        num_nodes=nodes,
        num_relations=3,
        node_type=torch.arange(nodes) % 2,
        num_node_types=2,
    )


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "rgcn": lambda: RGCNConv(16, 16, 3),
    "rgat": lambda: RGATConv(16, 8, 3, heads=2),
    "hgt": lambda: HGTConv(16, 16, 2, 3, heads=2),
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> gpu_stand_in.Seen:
    return gpu_stand_in.install(monkeypatch)


def step(layer: nn.Module, x: Tensor, graph: Graph) -> Tensor:
    y: Tensor = layer(x, graph)
    if y.requires_grad:
        y.backward(torch.ones_like(y))
    return y


# ------------------------------------------------------------------------------------------------ what is compiled and launched


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_one_compilation_serves_all_graphs_and_alignments(
    seen: gpu_stand_in.Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: bool
) -> None:
    """And it finds what was compiled ahead of time."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    layer, graph = columba.compile(RGCNConv(16, 16, 3), backend="triton", passes=PASSES), random_graph(30, 50)
    x = torch.randn(30, 16, requires_grad=training)
    layer.requires_grad_(training)
    plans = columba.explain(layer, x, graph).compilation.plans
    made = len(list(compile_plans(plans, ir_dtype(graph.index_dtype), "sm_90")))
    binaries = sorted(tmp_path.rglob("*.cubin"))
    assert len(binaries) == made

    step(layer, x, graph)
    assert sorted(tmp_path.rglob("*.cubin")) == binaries
    launches = len(seen.launches)
    for nodes, edges in ((16, 16), (17, 33), (1, 1), (64, 4000), (200, 0)):
        step(layer, torch.randn(nodes, 16, requires_grad=training), random_graph(nodes, edges))
        assert sorted(tmp_path.rglob("*.cubin")) == binaries, (nodes, edges)
    seen.clear()
    shifted = torch.randn(30 * 16 + 1)[1:].view(30, 16).requires_grad_(training)
    assert shifted.data_ptr() % 16
    step(layer, shifted, random_graph(30, 50))
    assert sorted(tmp_path.rglob("*.cubin")) == binaries
    assert len(seen.launches) == launches
    for launched in seen.launches:
        for address in (a for a in launched.arguments if isinstance(a, int) and a > 1 << 32):
            assert address % 16 == 0, launched


@pytest.mark.slow
def test_a_graph_that_comes_back_is_launched_with_the_same_grids(seen: gpu_stand_in.Seen) -> None:
    layer, graph = columba.compile(RGCNConv(16, 16, 3), backend="triton", passes=PASSES), random_graph(30, 90)
    x = torch.randn(30, 16, requires_grad=True)
    found = []
    for _ in range(4):  # the last ones through the shortcut
        seen.clear()
        step(layer, x, graph)
        found.append([(launched.kernel, launched.grid) for launched in seen.launches])
    assert found[0] == found[1] == found[2] == found[3]
    assert all(min(grid) > 0 for _, grid in found[0])


LAUNCHES = {"rgcn": 15, "rgat": 20, "hgt": 44}
"""Of a training step, on a graph without hubs."""


@pytest.mark.parametrize("name", LAUNCHES)
def test_what_a_training_step_asks_of_the_host(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Launches, and calls of Python functions for all that is not one: some dozens, however many launches there are."""
    launched: list[tuple[Any, ...]] = []
    gpu_stand_in.install_empty(monkeypatch, launched)
    graph, x = random_graph(30, 90), torch.randn(30, 16, requires_grad=True)
    layer = columba.compile(LAYERS[name](), backend="triton", passes=PASSES)
    for _ in range(5):
        step(layer, x, graph)
    launched.clear()
    calls: list[str] = []

    def note(frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename != gpu_stand_in.__file__:
            calls.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        step(layer, x, graph)
    finally:
        sys.setprofile(None)
    assert len(launched) == LAUNCHES[name]
    assert len(calls) <= 150, calls


@pytest.mark.slow
def test_hooks_see_every_launch(seen: gpu_stand_in.Seen) -> None:
    from triton import knobs

    layer, graph = columba.compile(RGCNConv(16, 16, 3), backend="triton", passes=PASSES), random_graph(20, 40)
    x = torch.randn(20, 16, requires_grad=True)
    step(layer, x, graph)
    seen.clear()
    named: list[str] = []

    def note(metadata: Any) -> None:
        named.append(metadata.get()["name"])

    knobs.runtime.launch_enter_hook.add(note)
    try:
        step(layer, x, graph)
    finally:
        knobs.runtime.launch_enter_hook.remove(note)
    assert named == [launched.kernel for launched in seen.launches]
    assert len(named) > 4
    step(layer, x, graph)
    assert len(seen.launches) == 2 * len(named)


def test_one_thread_parses_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython's parser fails where the collector, in the midst of it, lets another thread parse."""
    emitted = Path(__file__).parents[2] / "golden/triton/rgcn_forward.py"
    function = load_functions(emitted.read_text(encoding="utf-8"), interpreted=False).RGCNConv_out_kernel
    parse, active, most = ast.parse, 0, 0

    def slow(source: str) -> ast.Module:
        nonlocal active, most
        active += 1
        most = max(most, active)
        time.sleep(0.01)
        active -= 1
        return parse(source)

    with monkeypatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr(ast, "parse", slow)
        trees = list(pool.map(lambda _: function.parse(), range(8)))
    assert most == 1
    assert {tree.body[0].name for tree in trees} == {"RGCNConv_out_kernel"}


def test_products_of_float32_are_as_precise_as_asked(
    seen: gpu_stand_in.Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At launches, and ahead of them: the one finds what the other has compiled, and PyTorch's settings count where nothing is asked."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))

    def layer(g: Graph, h: Tensor, w: Tensor) -> Tensor:
        return columba.linear(g.nodes(h), w)

    graph, h, w = random_graph(20, 40), torch.randn(20, 16), torch.randn(16, 16)

    def precisions() -> set[str]:
        return {p for path in tmp_path.rglob("*.ttir") for p in re.findall(r"inputPrecision = (\w+)", path.read_text())}

    plain = columba.compile(layer, backend="triton")
    exact, split = (columba.compile(layer, backend="triton", fp32_precision=p) for p in ("ieee", "tf32x3"))
    monkeypatch.setattr("columba.runtime.triton.functions.is_tf32_allowed", lambda: True)
    list(columba.inspect(split, graph, h, w, target="sm_90"))
    assert precisions() == {"tf32x3"}
    binaries = sorted(tmp_path.rglob("*.cubin"))
    split(graph, h, w)
    assert sorted(tmp_path.rglob("*.cubin")) == binaries
    exact(graph, h, w)
    assert precisions() <= {"tf32x3"}  # "ieee" is what Triton does not write out
    assert len(list(tmp_path.rglob("*.cubin"))) == len(binaries) + 1
    plain(graph, h, w)
    assert precisions() == {"tf32x3", "tf32"}
    with pytest.raises(ValueError, match=r"unknown fp32_precision 'high'; one of 'ieee', 'tf32', 'tf32x3', or None"):
        columba.compile(layer, fp32_precision="high")


# ------------------------------------------------------------------------------------------------ addresses


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in, whose launches run in Triton's interpreter on the memory that the addresses lead to."""
    gpu_stand_in.install_interpreted(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", ["rgat", *(pytest.param(n, marks=pytest.mark.slow) for n in ("rgcn", "hgt"))])
def test_addresses_lead_to_the_right_memory(interpreted: None, name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]()
    compiled = columba.compile(layer, backend="triton", passes=PASSES)
    for graph in (random_graph(9, 30), random_graph(5, 0), random_graph(9, 30, seed=1)):
        x = torch.randn(graph.num_nodes, 16, requires_grad=True)
        leaves = [x, *layer.parameters()]
        direction = torch.randn(graph.num_nodes, 16)
        for _ in range(3):
            y, wanted = compiled(x, graph), layer(x, graph)
            torch.testing.assert_close(y, wanted, atol=1e-4, rtol=1e-4)
            found = torch.autograd.grad(y, leaves, direction)
            expected = torch.autograd.grad(wanted, leaves, direction, materialize_grads=True)
            torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_two_calls_may_be_under_way(interpreted: None) -> None:
    """Nothing of one call is overwritten by another before its backward pass."""
    layer, graph = RGATConv(16, 8, 3, heads=2), random_graph(9, 30)
    compiled = columba.compile(layer, backend="triton", passes=PASSES)
    xs = [torch.randn(9, 16, requires_grad=True) for _ in range(2)]
    first, second = compiled(xs[0], graph), compiled(xs[1], graph)
    second.sum().backward()
    first.sum().backward()
    for x in xs:
        (wanted,) = torch.autograd.grad(layer(x, graph).sum(), x)
        torch.testing.assert_close(x.grad, wanted, atol=1e-3, rtol=1e-3)


# ------------------------------------------------------------------------------------------------ devices and settings


def test_tensors_of_another_device_are_refused(seen: gpu_stand_in.Seen) -> None:
    layer, graph = columba.compile(RGCNConv(16, 16, 3), backend="triton", passes=PASSES), random_graph(20, 40)
    with torch.no_grad():
        layer(torch.randn(20, 16), graph)
    plan = next(iter(_plans(layer, torch.randn(20, 16), graph)))
    with pytest.raises(ValueError, match="must be on cpu, is on meta"):
        plan.check([torch.empty(shape, dtype=dtype, device="meta") for _, dtype, shape in plan.checks])


def _plans(layer: Any, x: Tensor, graph: Graph) -> Iterator[triton_gpu.GpuPlan]:
    from columba.calls.function import CompiledFunction
    from columba.runtime.backends import TRITON

    specialization, bound = CompiledFunction.specialize(type(layer).forward, layer, x, graph)
    on_graph = specialization.runnable(graph, bound.inputs, TRITON).on(graph)
    yield on_graph.forward


def test_either_interface_says_whether_products_may_round_to_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.backends.cuda.matmul.fp32_precision, torch.backends.fp32_precision
    try:
        torch.set_float32_matmul_precision("highest")
        assert not is_tf32_allowed()
        torch.set_float32_matmul_precision("high")
        assert is_tf32_allowed()
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        assert not is_tf32_allowed()
        torch.backends.cuda.matmul.fp32_precision = "tf32"  # torch.get_float32_matmul_precision() raises from here on
        assert is_tf32_allowed()
        torch.backends.cuda.matmul.fp32_precision = "none"
        torch.backends.fp32_precision = "tf32"
        assert is_tf32_allowed()
        torch.backends.fp32_precision = "ieee"
        assert not is_tf32_allowed()
    finally:
        torch.backends.cuda.matmul.fp32_precision, torch.backends.fp32_precision = before
        torch.set_float32_matmul_precision("highest")


def test_cuda_is_the_current_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    first, second = torch.device("cuda", 0), torch.device("cuda", 1)
    assert is_on(second, torch.device("cuda"))
    assert not is_on(first, torch.device("cuda"))
    assert is_on(first, first)
    assert not is_on(first, second)
    assert not is_on(torch.device("cpu"), first)
    assert is_on(torch.device("cpu"), torch.device("cpu"))
