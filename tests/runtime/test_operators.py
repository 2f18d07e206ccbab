"""Compiled programs as operators; building, caching, and what happens where that cannot work."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled import leaf, randomized
from eager_graphs import NODE_TYPES, RELATIONS, square_graphs
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import columba
from columba import nn
from columba.calls.function import CompiledFunction
from columba.ir.counts import SPACES
from columba.runtime import build, operators, warn
from columba.runtime.cpp import launch

pytestmark = pytest.mark.unoptimized

G = square_graphs()["random"]
N = G.num_nodes

LAYERS = {
    "rgcn": lambda: nn.RGCNConv(4, 6, RELATIONS),
    "rgcn bases": lambda: nn.RGCNConv(4, 6, RELATIONS, num_bases=2),
    "rgat": lambda: nn.RGATConv(4, 3, RELATIONS, heads=2),
    "hgt": lambda: nn.HGTConv(4, 6, NODE_TYPES, RELATIONS, heads=2),
}


class Recorded(TorchDispatchMode):
    """Writes down the names of all operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func.name()))
        return func(*args, **(kwargs or {}))


# What moves no data: views, and the bookkeeping of autograd.
FREE = {
    "aten::detach",
    "aten::view",
    "aten::alias",
    "aten::_unsafe_view",
    "aten::t",
    "aten::transpose.int",
    "aten::slice.Tensor",
}


@pytest.mark.parametrize("name", LAYERS)
def test_torch_runs_nothing_but_what_explain_lists(name: str) -> None:
    layer = columba.compile(LAYERS[name](), backend="cpp")
    x = torch.randn(N, 4, requires_grad=True)
    direction = torch.randn_like(layer(x, G))
    leaves = [x, *layer.parameters()]
    torch.autograd.grad(layer(x, G), leaves, direction)
    with Recorded() as recorded:
        y = layer(x, G)
        torch.autograd.grad(y, leaves, direction)
    ours = [n for n in recorded.names if n.startswith("columba::")]
    assert ours == ["columba::forward", "columba::backward"]
    listed = " ".join(columba.explain(layer, x, G).host_calls)
    expected = {"rgcn": set(), "rgcn bases": {"aten::mm"}, "rgat": set(), "hgt": set()}[name]
    others = {n for n in recorded.names if not n.startswith("columba::")} - FREE
    assert others - {"aten::sigmoid", "aten::sigmoid_backward", "aten::mul.Tensor"} <= expected
    for operator in others:
        function = operator.removeprefix("aten::").split(".")[0].removesuffix("_backward")
        assert {"mm": "matmul", "mul": "sigmoid"}.get(function, function) in listed


def test_opcheck() -> None:
    layer = columba.compile(randomized(LAYERS["rgat"](), torch.float64), backend="cpp")
    x = leaf(N, 4)
    specialization, bound = CompiledFunction.specialize(type(layer).forward, layer, x, G)
    runnable = specialization.runnable(G, bound.inputs)
    index = [G.index(a) for a in runnable.arrays]
    counts = [G.count(space) if space in runnable.spaces else 0 for space in SPACES]
    key = runnable.program.key
    inputs = [t.detach().clone().requires_grad_(t.requires_grad) for t in bound.inputs]
    torch.library.opcheck(torch.ops.columba.forward, (key, inputs, index, counts))


def test_torch_compile_and_export_go_through_the_operator() -> None:
    layer = columba.compile(randomized(LAYERS["rgcn"](), torch.float64), backend="cpp")
    specialization, bound = CompiledFunction.specialize(type(layer).forward, layer, leaf(N, 4), G)
    runnable = specialization.runnable(G, bound.inputs)
    index = [G.index(a) for a in runnable.arrays]
    counts = [G.count(space) if space in runnable.spaces else 0 for space in SPACES]

    def program(*inputs: Tensor) -> Tensor:
        return operators.forward(runnable.program.key, list(inputs), index, counts)[0] * 2

    expected = program(*bound.inputs)
    whole = torch.compile(program, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(*bound.inputs), expected)


def test_an_operator_that_is_called_by_itself_has_no_second_derivative() -> None:
    layer = columba.compile(randomized(LAYERS["rgcn"](), torch.float64), backend="cpp")
    specialization, bound = CompiledFunction.specialize(type(layer).forward, layer, x := leaf(N, 4), G)
    runnable = specialization.runnable(G, bound.inputs)
    index = [G.index(a) for a in runnable.arrays]
    counts = [G.count(space) if space in runnable.spaces else 0 for space in SPACES]
    y = operators.forward(runnable.program.key, bound.inputs, index, counts)[0]
    (first,) = torch.autograd.grad(y.square().sum(), [x], create_graph=True)
    with pytest.raises(RuntimeError, match="they are differentiable once.*call the compiled function"):
        first.sum().backward()


def test_gradients_that_nobody_needs_are_not_computed() -> None:
    layer = columba.compile(randomized(LAYERS["rgat"](), torch.float64), backend="cpp")
    for p in layer.parameters():
        p.requires_grad_(False)
    layer.bias.requires_grad_()
    explanation = columba.explain(layer, torch.randn(N, 4, dtype=torch.float64), G)
    assert len(explanation.compilation.backward.results) == 1
    layer.bias.requires_grad_(False)
    explanation = columba.explain(layer, torch.randn(N, 4, dtype=torch.float64), G)
    assert explanation.compilation.backward is None


def test_no_grad_builds_no_backward() -> None:
    layer = columba.compile(LAYERS["rgcn"](), backend="cpp")
    with torch.no_grad():
        y = layer(torch.randn(N, 4), G)
        assert columba.explain(layer, torch.randn(N, 4), G).compilation.backward is None
    assert not y.requires_grad


def test_non_contiguous_inputs() -> None:
    eager = randomized(LAYERS["rgat"](), torch.float64)
    layer = columba.compile(eager, backend="cpp")
    x = torch.randn(4, N, dtype=torch.float64).t()
    torch.testing.assert_close(layer(x, G), eager(x, G))


def test_nan_stays_where_it_belongs() -> None:
    eager = randomized(LAYERS["rgcn"](), torch.float64)
    layer = columba.compile(eager, backend="cpp")
    x = torch.randn(N, 4, dtype=torch.float64)
    x[2, 1] = float("nan")
    torch.testing.assert_close(layer(x, G), eager(x, G), equal_nan=True)


def test_results_are_the_same_every_time() -> None:
    layer = columba.compile(LAYERS["hgt"](), backend="cpp")
    x = torch.randn(N, 4, requires_grad=True)
    runs = [torch.autograd.grad(layer(x, G).square().sum(), [x, *layer.parameters()]) for _ in range(3)]
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize("name", LAYERS)
def test_threads_follow_torch_and_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "SMALL", 0)  # a graph this small would run on one thread
    graph = square_graphs()["random"]
    layer = columba.compile(LAYERS[name](), backend="cpp")
    x = torch.randn(N, 4, requires_grad=True)
    asked = []
    runs = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: asked.append(n) or n)
        runs.append(torch.autograd.grad(layer(x, graph).square().sum(), [x, *layer.parameters()]))
    assert set(asked) == {1, 2, 5}
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16])
def test_dtypes_without_kernels(dtype: torch.dtype) -> None:
    layer = LAYERS["rgat"]().to(dtype)
    x = torch.randn(N, 4, dtype=dtype)
    with pytest.raises(RuntimeError, match=r'has no kernels for .*use backend="torch"'):
        columba.compile(layer, backend="cpp")(x, G)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn._warned.clear()
        y = columba.compile(layer)(x, G)
    assert y.dtype is dtype
    assert any("Falling back" in str(w.message) for w in caught)


def test_meta_tensors_are_on_another_device() -> None:
    layer = columba.compile(LAYERS["rgat"]())
    with pytest.raises(ValueError, match=r"on meta, the graph on cpu; move one"):
        layer(torch.empty(N, 4, device="meta"), G)


# ------------------------------------------------------------------------------------------------ compilers and caches


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("COLUMBA_CACHE_DIR", str(tmp_path))
    eager = LAYERS["rgcn"]()
    x = torch.randn(N, 4)
    with pytest.raises(build.CompilerNotFound, match="Install one"):
        columba.compile(eager, backend="cpp")(x, G)
    warn._warned.clear()
    with pytest.warns(RuntimeWarning, match='Falling back to backend="torch"'):
        y = columba.compile(eager)(x, G)
    torch.testing.assert_close(y, eager(x, G))


SCRIPT = """
import os, sys, traceback
import jinja2, networkx, torch, torch._dynamo, columba
sys.path.insert(0, {tests!r})
from eager_graphs import square_graphs
x = torch.ones(9, 4, requires_grad=True)
def layer(x, g):
    return g.edges.sum(g.edges.softmax(g.edges.src(x)) * 2)
def work():
    g = square_graphs()["random"]
    y = columba.compile(layer, backend="cpp")(x, g)
    y.sum().backward()
    torch.testing.assert_close(y, layer(x, g))
    print("fine", flush=True)
def forked():
    pid = os.fork()
    if not pid:
        try:
            work()
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    return pid
for pid in [forked() for _ in range(2)]:
    os.waitpid(pid, 0)
"""
"""Forks of one process that has imported what takes longer to import than they run."""


@pytest.mark.slow
def test_processes_that_build_at_once(tmp_path: Path) -> None:
    environment = {**os.environ, "COLUMBA_CACHE_DIR": str(tmp_path)}
    code = SCRIPT.format(tests=str(Path(__file__).parents[1]))
    said = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert said.stdout.split() == ["fine"] * 2
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.slow
def test_source_is_the_same_in_every_process() -> None:
    code = """
import torch, columba, hashlib
from columba.nn import HGTConv
g = columba.Graph(torch.tensor([[0, 1], [1, 0]]), node_type=torch.tensor([0, 0]))
layer = columba.compile(HGTConv(4, 6, 1, 1, heads=2), passes='-aggregate_first,compact_materialization')
e = columba.explain(layer, torch.randn(2, 4, requires_grad=True), g)
print(hashlib.sha256(e.source.encode()).hexdigest(), hashlib.sha256(str(e).encode()).hexdigest())
"""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]


def test_members_with_softmax_weights_are_compared_with_their_maximum() -> None:
    """Weights are divided by their sum in the kernel that has all of an owner's, and exponentials of differences elsewhere."""

    def attend(g: columba.Graph, h: Tensor) -> Tensor:
        e = g.edges
        weight = e.softmax((e.src(h) * e.dst(h)).sum(-1))
        return e.max(weight.unsqueeze(-1) * e.src(h))

    generator = torch.Generator().manual_seed(0)
    h = torch.randn(G.num_nodes, 64, generator=generator, requires_grad=True)
    compiled = columba.compile(attend, backend="cpp")
    (ours,) = torch.autograd.grad(compiled(G, h).sum(), [h])
    (wanted,) = torch.autograd.grad(attend(G, h).sum(), [h])
    torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("extremum", ["max", "min"])
def test_members_are_compared_with_their_extremum_to_the_last_bit(extremum: str) -> None:
    """Sums of products, which the compiler might round otherwise in the backward kernels, where they are computed again."""

    def attend(g: columba.Graph, h: Tensor, w: Tensor) -> Tensor:
        e = g.edges
        message = e.src(h[:, :8]) * e.rel(w) + e.dst(h[:, 8:]) * e.src(h[:, 8:])
        return getattr(e, extremum)(message)

    generator = torch.Generator().manual_seed(0)
    h = torch.randn(G.num_nodes, 16, generator=generator, requires_grad=True)
    w = torch.randn(G.num_relations, 8, generator=generator, requires_grad=True)
    compiled = columba.compile(attend, backend="cpp")
    assert "cb_rounded(" in columba.explain(compiled, G, h, w).source
    ours = torch.autograd.grad(compiled(G, h, w).sum(), [h, w])
    for got, wanted in zip(ours, torch.autograd.grad(attend(G, h, w).sum(), [h, w]), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
