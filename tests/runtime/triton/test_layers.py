"""Triton kernels, executed by Triton's interpreter, against the same layers run eagerly."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compiled import assert_same, leaf, randomized, tensors_of
from custom_layers import CUSTOM_LAYERS, CustomLayer
from eager_graphs import NODE_TYPES, RELATIONS, bipartite_graph, square_graphs
from extremes import CASES
from extremes import check as check_extremes
from fuzz.check import Reject
from fuzz.kernels import check_kernels
from fuzz.mutate import random_case
from interpreter_rounding import round_as_gpus_do
from torch import Tensor

pytest.importorskip("triton")

import columba
from columba import nn
from columba.codegen.triton import Launch, emit
from columba.driver import Compilation
from columba.ir.spaces import Space
from columba.ir.types import DType
from columba.passes.pipeline import parse_passes
from columba.passes.recipes import Recipe
from columba.runtime.graphs.graph import Graph
from columba.runtime.triton import launch as triton_launch
from columba.runtime.triton.aot import Binary, compile_plans
from columba.runtime.triton.launch import TritonExecutable

round_as_gpus_do()

pytestmark = [
    pytest.mark.filterwarnings("ignore:columba. backend=.triton. runs on CPU"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter"),
]

GRAPHS = square_graphs()
SQUARE_SPACES = [space for space in Space if space not in (Space.SRC, Space.DST)]
SIZES = (1, 7, 16, 64, 100)

Build = Callable[[int, int], torch.nn.Module]

LAYERS: dict[str, Build] = {
    "rgcn": lambda size, heads: nn.RGCNConv(size, size, RELATIONS),
    "rgat": lambda size, heads: nn.RGATConv(size, size, RELATIONS, heads=heads),
    "hgt": lambda size, heads: nn.HGTConv(size, size * heads, NODE_TYPES, RELATIONS, heads=heads),
}

OTHERS: dict[str, tuple[Callable[[], torch.nn.Module], int]] = {
    "rgcn bases": (lambda: nn.RGCNConv(7, 7, RELATIONS, num_bases=3), 7),
    "rgcn blocks": (lambda: nn.RGCNConv(16, 16, RELATIONS, num_blocks=4, aggr="sum"), 16),
    "rgcn max": (lambda: nn.RGCNConv(7, 7, RELATIONS, aggr="max"), 7),
    "rgat mean of heads": (lambda: nn.RGATConv(7, 7, RELATIONS, heads=3, concat=False), 7),
    "hgt skip": (lambda: nn.HGTConv(6, 6, NODE_TYPES, RELATIONS, heads=2), 6),
}


def check(layer: torch.nn.Module, size: int, dtype: torch.dtype, graphs: Sequence[str], **options: Any) -> None:
    torch.manual_seed(0)
    eager = randomized(layer, dtype)
    compiled = columba.compile(eager, backend="triton", **options)
    for name in graphs:
        graph = GRAPHS[name]
        assert_same(compiled, eager, [leaf(graph.num_nodes, size, dtype=dtype), graph], list(eager.parameters()))


def statistics(g: Graph, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A norm over all nodes and features, and what is reduced of all nodes and edges."""
    m = g.edges.sum(g.edges.src(h))
    m = m - m.mean()
    message = g.edges.dst(m / (m.std(unbiased=False) + 1e-5)) - g.edges.src(h).amax(0)
    return g.edges.sum(message), message.mean(0), torch.cat([m.norm(dim=0), m.var(0), m.amax(0)])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_statistics_of_all_rows(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    compiled = columba.compile(statistics, backend="triton")
    for nodes, edges in ((300, 700), (2, 3)):
        graph = Graph(torch.randint(nodes, (2, edges), generator=generator), num_nodes=nodes)
        assert_same(compiled, statistics, [graph, leaf(nodes, 5, dtype=dtype)])


@pytest.mark.parametrize("heads", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("name", ["rgcn", "rgat", pytest.param("hgt", marks=pytest.mark.slow)])
def test_layers_on_all_graphs(name: str, heads: int) -> None:
    check(LAYERS[name](7, heads), 7, torch.float64, list(GRAPHS))


@pytest.mark.parametrize("size", [1, pytest.param(16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["rgat", *(pytest.param(n, marks=pytest.mark.slow) for n in ("rgcn", "hgt"))])
def test_sizes_in_float32(name: str, size: int) -> None:
    check(LAYERS[name](size, 4), size, torch.float32, ["random", "hub"])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("heads", [1, 3, 4])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LAYERS)
def test_more_sizes(name: str, size: int, heads: int, dtype: torch.dtype) -> None:
    check(LAYERS[name](size, heads), size, dtype, list(GRAPHS))


@pytest.mark.parametrize("variant", [*(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1, 2)), 3])
@pytest.mark.parametrize("name", ["rgat", *(pytest.param(n, marks=pytest.mark.slow) for n in ("rgcn", "hgt"))])
def test_all_variants(name: str, variant: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variants differ in blocks of owners and members; which one runs depends on the graph."""
    monkeypatch.setattr(Launch, "variant", lambda self, counts: self.variants[min(variant, len(self.variants) - 1)])
    check(LAYERS[name](5, 2), 5, torch.float64, ["random", "hub", "no_edges"])


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n not in ("rgcn blocks", "rgcn max") else ()) for n in OTHERS]
)
def test_other_layers(name: str) -> None:
    build, size = OTHERS[name]
    check(build(), size, torch.float64, ["random", "no_edges", "hub"])


@pytest.mark.parametrize("name", ["rgat", *(pytest.param(n, marks=pytest.mark.slow) for n in ("rgcn", "hgt"))])
def test_fused_epilogues(name: str) -> None:
    """Matrix products with pointwise work on the product, and without (Recipe decides)."""
    for level2 in ("fuse_traversals,fuse_epilogues", ""):
        check(LAYERS[name](7, 3), 7, torch.float64, ["random", "no_edges"], recipe=Recipe(level2=parse_passes(level2)))


def _heads(g: Graph, h: Tensor, w: Tensor) -> Tensor:
    """A product of several matrices a row: [nodes, 3, 5]."""
    return torch.einsum("nhi,nhij->nhj", h.view(h.shape[0], 3, 4), g.nodes.type(w))


def normalized_heads(g: Graph, h: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    x = _heads(g, h, w)
    return F.layer_norm(x.reshape(-1, 15), (15,)) + b, x.sum(1)


def transposed_heads(g: Graph, h: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    x = _heads(g, h, w).transpose(1, 2)
    return torch.tanh(x.reshape(-1, 15)) * b, x


def mixed_heads(g: Graph, h: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.layer_norm(torch.tanh(_heads(g, h, w).transpose(1, 2)).reshape(-1, 3, 5), (5,)) + b.view(3, 5)


@pytest.mark.parametrize("function", [normalized_heads, transposed_heads, mixed_heads])
def test_epilogues_across_matrices(function: Callable[..., Any]) -> None:
    """The product of all heads in one block; where its elements are needed in an order that no block has, in a buffer."""
    compiled = columba.compile(
        function, backend="triton", recipe=Recipe(level2=parse_passes("fuse_traversals,fuse_epilogues"))
    )
    for name in ("random", "one_node", "no_nodes"):
        g = GRAPHS[name]
        args = [g, leaf(g.num_nodes, 12), leaf(NODE_TYPES, 3, 4, 5, seed=1), leaf(15, seed=2)]
        assert_same(compiled, function, args)


@pytest.mark.parametrize(
    "custom",
    [pytest.param(c, marks=() if c.name == "composition" else pytest.mark.slow) for c in CUSTOM_LAYERS],
    ids=lambda s: s.name,
)
def test_custom_layers(custom: CustomLayer) -> None:
    """Others are in the quick part of the numeric matrix and among the checks of memory."""
    torch.manual_seed(0)
    eager = custom.build(RELATIONS, NODE_TYPES).double()
    compiled = columba.compile(eager, backend="triton")
    for graph in GRAPHS.values():
        inputs = [t.requires_grad_() for t in custom.inputs(graph, torch.float64)]
        assert_same(compiled, eager, [graph, *inputs], list(eager.parameters()))


def test_bipartite_graphs() -> None:
    eager = randomized(LAYERS["hgt"](7, 3), torch.float64)
    compiled = columba.compile(eager, backend="triton")
    graph = bipartite_graph()

    def run(layer: torch.nn.Module) -> Callable[..., Tensor]:
        return lambda src, dst: layer((src, dst), graph)

    args = [leaf(graph.num_src, 7), leaf(graph.num_dst, 7, seed=1)]
    assert_same(run(compiled), run(eager), args, list(eager.parameters()))


HALF = {torch.float16: 1e-2, torch.bfloat16: 8e-2}


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [
        pytest.param(name, dtype, tolerance, marks=() if quick is dtype else pytest.mark.slow)
        for name, quick in (("rgcn", torch.float16), ("rgat", torch.bfloat16), ("hgt", None))
        for dtype, tolerance in HALF.items()
    ],
)
def test_half_precision(name: str, dtype: torch.dtype, tolerance: float) -> None:
    """Stored in 16 bits, computed in 32: close to float64 on the same rounded inputs, or, where terms cancel, as close as PyTorch is."""
    torch.manual_seed(0)
    half = randomized(LAYERS[name](16, 4), torch.float32).to(dtype)
    exact = LAYERS[name](16, 4).double()
    exact.load_state_dict(half.state_dict())
    graph = GRAPHS["random"]
    x = leaf(graph.num_nodes, 16, dtype=torch.float32).detach().to(dtype).requires_grad_()
    y = x.detach().double().requires_grad_()
    got, wanted = columba.compile(half, backend="triton")(x, graph), exact(y, graph)
    assert got.dtype is dtype
    direction = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = torch.autograd.grad(got, [x, *half.parameters()], direction)
    expected = torch.autograd.grad(wanted, [y, *exact.parameters()], direction.double())
    plain = half(x, graph)
    eager = torch.autograd.grad(plain, [x, *half.parameters()], direction)
    for f, p, e in zip((got, *found), (plain, *eager), (wanted, *expected), strict=True):
        ours, theirs = (float((t.detach().double() - e.detach()).abs().max()) for t in (f, p))
        assert ours <= max(tolerance * max(1e-6, float(e.detach().abs().max())), 1.5 * theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_numbers_are_the_same_bits(dtype: torch.dtype) -> None:
    def dropped(g: Graph, h: Tensor) -> tuple[Tensor, Tensor]:
        return g.edges.sum(F.dropout(g.edges.src(h), 0.5, True)), F.dropout(h, 0.25, True)

    h = torch.ones(9, 7, dtype=dtype)
    results = []
    for backend in ("torch", "triton"):
        torch.manual_seed(3)
        results.append(columba.compile(dropped, backend=backend)(GRAPHS["random"], h))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "expm1": torch.expm1,
    "log1p": lambda x: torch.log1p(x.abs()),
    "softplus": F.softplus,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "elu": F.elu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "sign": torch.sign,
    "clamp": lambda x: x.clamp(-0.5, 0.25),
    "pow": lambda x: x.abs() ** 1.7,
    "cube": lambda x: x**3,
    "pow_tensor": lambda x: (x.abs() + 0.1) ** x,
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 0.1),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "trigonometric": lambda x: torch.sin(x) * torch.cos(x),
    "erf": torch.erf,
}


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_functions(name: str, dtype: torch.dtype) -> None:
    function = POINTWISE[name]

    def on_nodes(g: Graph, h: Tensor) -> Tensor:
        return function(g.nodes(h))

    h = torch.cat([torch.linspace(-6, 6, 49), torch.tensor([0.0, 1e-6, -1e-6, 1e-3, -1e-3, 0.7, -0.7])])
    graph = Graph(torch.zeros(2, 0, dtype=torch.long), num_nodes=len(h))
    h = h.to(dtype).unsqueeze(1)
    eps = torch.finfo(dtype).eps
    got = columba.compile(on_nodes, backend="triton")(graph, h)
    torch.testing.assert_close(got, function(h.double()).to(dtype), rtol=64 * eps, atol=4 * eps)


def test_extreme_arguments() -> None:
    names = (
        "relu",
        "tanh",
        "elu",
        "log1p",
        "hardtanh",
        "pow -0.5",
        "pow of -2.0",
        "maximum (pair)",
        "pow (pair)",
        "max (row)",
        "logsumexp (row)",
    )
    for kind in ("single", "pair", "row"):
        wrong = check_extremes([c for c in CASES if c.kind == kind and c.name in names], "triton", torch.float32)
        assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:(std|var).*:UserWarning")
@pytest.mark.parametrize("kind", ["single", "pair", "row"])
def test_all_extreme_arguments(kind: str) -> None:
    wrong = check_extremes([c for c in CASES if c.kind == kind], "triton", torch.float32)
    assert not wrong, "\n".join(wrong)


def test_views_and_concatenation() -> None:
    def views(g: Graph, h: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        e = g.edges
        x = e.src(h).reshape(g.num_edges, 3, 4)
        y = x.transpose(1, 2).reshape(g.num_edges, 2, 6)
        z = torch.cat([y[:, :, ::2], y[:, :, 1:3] * e.dst(h)[:, :4].reshape(-1, 2, 2)], dim=-1)
        return e.sum(z), e.max(z.sum(1)), e.mean((x.amax(-1, keepdim=True) * x).reshape(g.num_edges, 12) @ w)

    for name in ("random", "no_edges", "duplicate_edges"):
        g = GRAPHS[name]
        assert_same(columba.compile(views, backend="triton"), views, [g, leaf(g.num_nodes, 12), leaf(12, 5, seed=1)])


@pytest.mark.parametrize("seeds", [range(16), pytest.param(range(16, 80), marks=pytest.mark.slow)])
def test_random_programs(seeds: range) -> None:
    """What the fuzzer makes: all operations in all spaces, passes at random, degenerate graphs, forward and backward."""
    for seed in seeds:
        rng = random.Random(seed)
        case = replace(random_case(rng), schedule=())
        (failure,) = check_kernels([case], TritonExecutable)
        assert failure is None or isinstance(failure, Reject), f"{failure}\n{case}"


# ------------------------------------------------------------------------------------------------ launching


def _compilation(layer: torch.nn.Module, size: int, dtype: torch.dtype = torch.float32) -> Compilation:
    x = torch.randn(GRAPHS["random"].num_nodes, size, dtype=dtype, requires_grad=True)
    return columba.explain(columba.compile(layer.to(dtype), backend="triton"), x, GRAPHS["random"]).compilation


def test_the_same_source_every_time() -> None:
    sources = {emit(_compilation(LAYERS["hgt"](7, 3), 7).plans).source for _ in range(2)}
    assert len(sources) == 1


def test_source_says_what_kernels_hold() -> None:
    compilation = _compilation(LAYERS["rgat"](7, 3), 7)
    source = compilation.source(backend="triton")
    for plan in compilation.plans:
        for kernel in plan.kernels:
            assert f" {kernel.name}(" in source


def test_running_on_the_cpu_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_launch, "_warned", False)
    layer = columba.compile(nn.RGCNConv(3, 3, RELATIONS), backend="triton")
    x = torch.randn(9, 3)
    with pytest.warns(RuntimeWarning, match="interpreter"):
        layer(x, GRAPHS["random"])
    assert tensors_of(layer(x, GRAPHS["random"]))


# ------------------------------------------------------------------------------------------------ ahead of time


def _binaries(
    name: str, size: int, heads: int, dtype: torch.dtype, target: str, *, all_variants: bool = False
) -> list[Binary]:
    compilation = _compilation(
        LAYERS[name](size // heads, heads) if name == "rgat" else LAYERS[name](size, 1), size, dtype
    )
    return list(compile_plans(compilation.plans, DType.I32, target))


def _check_binaries(binaries: list[Binary], dtype: torch.dtype) -> None:
    products = [b for b in binaries if b.launch.dot is not None]
    assert products
    for binary in binaries:
        assert binary.spilled == 0, binary
    for binary in products:
        assert binary.widest_load == 128, binary
        if dtype is not torch.float32:
            assert binary.tensor_core_instructions > 0, binary


@pytest.mark.slow
def test_binaries() -> None:
    _check_binaries(_binaries("rgcn", 64, 1, torch.bfloat16, "sm_80"), torch.bfloat16)


@pytest.mark.slow
def test_tensor_cores_take_float32_when_allowed() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        binaries = _binaries("rgcn", 64, 1, torch.float32, "sm_80")
    finally:
        torch.set_float32_matmul_precision("highest")
    assert all(b.tensor_core_instructions > 0 for b in binaries if b.launch.dot is not None)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("name", LAYERS)
def test_more_binaries(name: str, size: int, dtype: torch.dtype, target: str) -> None:
    for heads in (1, 4) if name != "rgcn" else (1,):
        binaries = _binaries(name, size, heads, dtype, target, all_variants=True)
        if target in ("sm_80", "sm_90") and dtype is not torch.float64:
            _check_binaries(binaries, dtype)
