"""Segment softmax is as exact as PyTorch's for every logit, forward and backward, however it is compiled."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import columba
from columba.inspection.inspection import compile_for
from columba.nn import HGTConv

INF = math.inf

ROWS: list[list[float]] = [
    [5.0],
    [0.0, 0.0, 0.0],
    [1.0, 2.0, 3.0, 4.0],
    [-1e9, -1e9, -1e9],  # a row that is masked altogether
    [-1e9, 0.0, 1.0],
    [-INF, 0.0, 1.0, -INF],
    [-INF, -INF],
    [INF, 0.0],
    [INF, -INF, INF],
    [math.nan, 0.0, 1.0],
    [1e4, 1e4 + 1, 1e4 - 2],
    [-1e4, -1e4 - 3, -1e4 + 0.5],
    [1048576.0, 1048577.0, 1048575.5],
    [1e8, 1e8 + 8, 1e8 - 8],
    [1e30, 1e30, -1e30, 0.0],
    [3e38, 3e38, -3e38],
    [-3e38, -3e38, -3e38, -3e38],
    [88.0, -88.0, 0.0],
    [100.0 * n for n in range(40)],  # a new maximum at every member
    [-100.0 * n for n in range(40)],
    [0.01 * n for n in range(100)],
]
"""The logits of each destination. The last destination of the graph has no members."""

WRITTEN = {
    0: [1.0],
    1: [0.33333334] * 3,
    2: [0.0320586, 0.08714432, 0.23688282, 0.6439142],
    3: [0.33333334] * 3,
    4: [0.0, 0.26894143, 0.7310586],
    5: [0.0, 0.26894143, 0.7310586, 0.0],
    6: [math.nan, math.nan],
    7: [math.nan, math.nan],
    8: [math.nan, math.nan, math.nan],
    9: [math.nan, math.nan, math.nan],
    10: [0.25949648, 0.7053845, 0.03511903],
    13: [0.00033535013, 0.9996646, 1.12497616e-07],
    14: [0.5, 0.5, 0.0, 0.0],
    15: [0.5, 0.5, 0.0],
    16: [0.25] * 4,
}

ULPS = {torch.float32: 2.0**-23, torch.float64: 2.0**-52, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}


def star_rows(rows: list[list[float]] = ROWS) -> tuple[columba.Graph, Tensor]:
    """A graph whose destination ``n`` has an edge for each logit of ``rows[n]``, shuffled; and the logits in float64."""
    target = torch.tensor([n for n, row in enumerate(rows) for _ in row])
    logits = torch.tensor([x for row in rows for x in row], dtype=torch.float64)
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(0))
    target, logits = target[order], logits[order]
    source = torch.arange(len(target)) % len(rows)
    graph = columba.Graph(torch.stack([source, target]), target % 3, num_nodes=len(rows) + 1, num_relations=3)
    return graph, logits


def attend(g: columba.Graph, logits: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    e = g.edges
    alpha = e.softmax(e(logits))
    return alpha, e.sum(alpha.unsqueeze(-1) * e.src(v))


def weigh(g: columba.Graph, logits: Tensor, v: Tensor) -> tuple[Tensor]:
    """Without the weights themselves as a result."""
    e = g.edges
    return (e.sum(e.softmax(e(logits)).unsqueeze(-1) * e.src(v)),)


def exact(g: columba.Graph, logits: Tensor) -> Tensor:
    """The weights in float64, destination by destination."""
    wide = logits.double()
    found = torch.empty_like(wide)
    for n in range(len(ROWS)):
        members = g.edge_index[1] == n
        found[members] = torch.softmax(wide[members], 0)
    return found


def gradients(f: Callable[..., Any], g: columba.Graph, *args: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    leaves = [x.clone().requires_grad_() for x in args]
    results = list(f(g, *leaves))
    generator = torch.Generator().manual_seed(1)
    ahead = [torch.randn(r.shape, generator=generator, dtype=torch.float64).to(r.dtype) for r in results]
    return results, list(torch.autograd.grad(results, leaves, ahead))


def same(found: Tensor, wanted: Tensor, ulps: float, scale: float = 1.0) -> None:
    """Off by at most so many units in the last place of ``scale`` or of the number itself; NaN exactly where wanted."""
    assert torch.equal(found.isnan(), wanted.isnan())
    bound = ulps * ULPS[found.dtype] * wanted.abs().clamp(min=scale)
    off = ((found.double() - wanted).abs() / bound).nan_to_num(0.0)
    assert off.numel() == 0 or off.max() <= 1, f"off by {off.max().item() * ulps:.3g} units in the last place"


BACKENDS = [
    ("eager", torch.float32, 3),
    ("torch", torch.float32, 3),
    pytest.param("cpp", torch.float32, 1, marks=pytest.mark.slow),
    ("cpp", torch.float32, 4),
    ("cpp", torch.float32, 20),  # wide rows
    pytest.param("cpp", torch.float64, 3, marks=pytest.mark.slow),
    ("cpp", torch.bfloat16, 4),
    ("triton", torch.float32, 3),
    ("triton", torch.float16, 2),
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of infinities in Triton's interpreter
@pytest.mark.parametrize(("backend", "dtype", "heads"), BACKENDS)
def test_rows_of_logits_of_every_size(backend: str, dtype: torch.dtype, heads: int) -> None:
    """Weights, their sums and all gradients, against PyTorch's softmax in float64."""
    graph, logits = star_rows()
    v = torch.randn(graph.num_nodes, heads, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(
        dtype
    )
    x = logits.to(dtype).unsqueeze(-1).expand(-1, heads).contiguous()
    wanted = exact(graph, x)
    functions = (attend,) if backend in ("eager", "torch", "triton") else (attend, weigh)
    for function in functions:
        compiled = function if backend == "eager" else columba.compile(function, backend=backend)  # type: ignore[call-overload]
        results, grads = gradients(compiled, graph, x, v)
        if function is attend:
            same(results[0], wanted, 4, scale=1e-37 if dtype in (torch.float32, torch.float64) else 1.0)
            sums = torch.zeros(graph.num_nodes, heads, dtype=torch.float64)
            sums.index_add_(0, graph.edge_index[1], results[0].detach().double())
            for n in range(len(ROWS)):
                assert sums[n].isnan().all() or ((sums[n] - 1).abs() <= 4 * ULPS[dtype]).all(), ROWS[n]
            if dtype is torch.float32:
                for n, row in WRITTEN.items():
                    found = results[0][graph.edge_index[1] == n, 0].sort().values
                    torch.testing.assert_close(
                        found, torch.tensor(row).sort().values, rtol=1e-6, atol=1e-12, equal_nan=True
                    )
        reference_results, reference = gradients(_reference(function), graph, x.double(), v.double())
        clean = [n for n in range(graph.num_nodes) if not reference_results[-1][n].isnan().any()]
        same(results[-1][clean], reference_results[-1][clean].detach(), 16)
        same(grads[0], reference[0], 32)
        assert torch.equal(results[-1][-1], torch.zeros_like(results[-1][-1]))


def _reference(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same with PyTorch's own softmax of each row."""

    def run(g: columba.Graph, logits: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        alpha = torch.zeros_like(logits)
        for n in range(len(ROWS)):
            (members,) = torch.nonzero(g.edge_index[1] == n, as_tuple=True)
            alpha = alpha.index_copy(0, members, torch.softmax(logits[members], 0))
        message = alpha.unsqueeze(-1) * v[g.edge_index[0]]
        out = torch.zeros(g.num_nodes, *message.shape[1:], dtype=message.dtype).index_add(0, g.edge_index[1], message)
        return (alpha, out) if function is attend else (out,)

    return run


# ------------------------------------------------------------------------------------------------ logits that are computed again


def recomputed(
    g: columba.Graph, a: Tensor, b: Tensor, q: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits of products and sums, whose rounding a compiler may change, of dot products, and of wide rows."""
    e = g.edges
    first = e.softmax(F.leaky_relu(e.src(a) * e.dst(b) + e.dst(a) * e.src(b), 0.3))
    second = e.softmax((e.src(q) * e.dst(k)).sum(-1) * 0.7)
    third = e.softmax(e.src(q[:, 0]) * e.dst(k[:, 0]) * 0.3 + e.dst(q[:, 0]))
    return (
        e.sum(first.unsqueeze(-1) * e.src(v)),
        e.sum(second.unsqueeze(-1) * e.src(v)),
        e.sum(third * e.src(k[:, 1])),
        e.sum(first) + e.sum(second) + e.sum(third).sum(-1, keepdim=True),
    )


def random_graph(nodes: int = 12, edges: int = 90) -> columba.Graph:
    generator = torch.Generator().manual_seed(3)
    ends = torch.randint(0, nodes - 2, (2, edges), generator=generator)
    ends[1, : edges // 3] = 0  # a heavy owner
    return columba.Graph(ends, torch.randint(0, 3, (edges,), generator=generator), num_nodes=nodes, num_relations=3)


SCALES = (1.0, 1e2, 1e4, 1e6, 1e8, 1e15)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("backend", "dtype", "options"),
    [
        ("torch", torch.float32, {}),
        pytest.param("cpp", torch.float32, {}, marks=pytest.mark.slow),
        pytest.param("cpp", torch.float32, {"memory_budget": 0}, marks=pytest.mark.slow),
        ("cpp", torch.float32, {"passes": "-fuse_traversals,-compact_materialization", "memory_budget": 0}),
        pytest.param("cpp", torch.bfloat16, {"memory_budget": 0}, marks=pytest.mark.slow),
        pytest.param("triton", torch.float32, {}, marks=pytest.mark.slow),
        pytest.param("cpp", torch.float64, {}, marks=pytest.mark.slow),
        pytest.param(
            "cpp", torch.float32, {"passes": "-hoist_factors,-reuse_weighted_sums,-factor_sums"}, marks=pytest.mark.slow
        ),
        pytest.param("cpp", torch.float32, {"passes": "aggregate_first,-fuse_epilogues"}, marks=pytest.mark.slow),
        pytest.param("triton", torch.float32, {"memory_budget": 0}, marks=pytest.mark.slow),
        pytest.param("triton", torch.bfloat16, {}, marks=pytest.mark.slow),
    ],
)
def test_weights_sum_to_one_forward_and_backward(backend: str, dtype: torch.dtype, options: dict[str, Any]) -> None:
    """However large logits are, and however often they are computed: what backward kernels weigh gradients by sums to one, too."""
    graph = random_graph()
    compiled = columba.compile(recomputed, backend=backend, **options)  # type: ignore[call-overload]
    owners = int((torch.bincount(graph.edge_index[1], minlength=graph.num_nodes) > 0).sum())
    most = int(torch.bincount(graph.edge_index[1]).max())
    for scale in SCALES:
        generator = torch.Generator().manual_seed(4)

        def draw(*shape: int, by: float = 1.0, generator: torch.Generator = generator) -> Tensor:
            return (torch.randn(graph.num_nodes, *shape, generator=generator) * by).to(dtype).requires_grad_()

        a, b, q, k, v = draw(4, by=scale), draw(4), draw(4, 20, by=scale), draw(4, 20), draw(4, 6)
        *outputs, ones = compiled(graph, a, b, q, k, v)
        heads = ones.detach().double() - ones.detach().double()[-1]
        has = torch.bincount(graph.edge_index[1], minlength=graph.num_nodes) > 0
        torch.testing.assert_close(
            heads[has],
            torch.full_like(heads[has], 22.0),
            rtol=16 * ULPS[dtype],
            atol=0.0,
            msg=lambda m, s=scale: f"{s}: {m}",
        )
        # The sum of what is weighed by one is as if each owner passed on its gradient, whatever the weights are.
        (grad_v,) = torch.autograd.grad([outputs[0].sum() + 2 * outputs[1].sum()], [v], retain_graph=True)
        total = grad_v.double().sum(0)
        torch.testing.assert_close(total, torch.full_like(total, 3.0 * owners), rtol=16 * ULPS[dtype], atol=0.0)
        # Sums of weights do not depend on the logits.
        for x, grad in zip((a, q), torch.autograd.grad([ones.sum()], [a, q], retain_graph=True), strict=True):
            size = float((b if x is a else k).detach().abs().max())
            assert grad.abs().max() <= 16 * most * 20 * size * ULPS[dtype], (scale, grad.abs().max())


def test_maximum_and_inverse_sum_are_saved() -> None:
    """A row per destination each; nothing per edge."""
    graph = random_graph()

    def attend(g: columba.Graph, a: Tensor, b: Tensor, v: Tensor) -> Tensor:
        e = g.edges
        return e.sum(e.softmax(e.src(a) + e.dst(b)).unsqueeze(-1) * e.src(v))

    args = [torch.randn(graph.num_nodes, *shape, requires_grad=True) for shape in ((4,), (4,), (4, 8))]
    compiled = columba.compile(attend, backend="torch")
    compilation, _ = compile_for(compiled, graph, *args)
    saved = compilation.forward.results[compilation.results :]
    assert [str(r.type) for r in saved] == ["node[4] f32", "node[4] f32"]


@pytest.mark.slow
def test_hgt_with_large_features_is_as_near_to_float64_as_eager() -> None:
    torch.manual_seed(5)
    generator = torch.Generator().manual_seed(6)
    nodes, edges = 40, 400
    ends = torch.randint(0, nodes, (2, edges), generator=generator)
    kinds = torch.randint(0, 2, (nodes,), generator=generator)
    graph = columba.Graph(
        ends, torch.randint(0, 3, (edges,), generator=generator), num_nodes=nodes, num_relations=3, node_type=kinds
    )
    layer = HGTConv(16, 16, num_relations=3, num_node_types=2, heads=2)
    x = torch.randn(nodes, 16, generator=generator) * 300
    ahead = torch.randn(nodes, 16, generator=generator)

    def run(layer: Any, dtype: torch.dtype) -> list[Tensor]:
        layer = layer.to(dtype)
        h = x.to(dtype).requires_grad_()
        out = layer(h, graph)
        return [out.detach(), *torch.autograd.grad(out, [h, *layer.parameters()], ahead.to(dtype))]

    wanted = run(copy.deepcopy(layer), torch.float64)
    eager = run(copy.deepcopy(layer), torch.float32)
    compiled = run(columba.compile(copy.deepcopy(layer), backend="cpp"), torch.float32)
    for w, e, c in zip(wanted, eager, compiled, strict=True):
        size = float(w.abs().max())
        off = [float((t.double() - w).abs().max()) / size for t in (e, c)]
        assert off[1] <= 4 * off[0] + 1e-5, off
