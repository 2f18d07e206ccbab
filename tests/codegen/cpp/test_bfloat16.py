"""bfloat16 in memory, float in registers: the C++ backend against float64, from the same rounded inputs and parameters.

PyTorch rounds the result of every operation to 8 bits of mantissa; compiled kernels round what they store and nothing else. Results
and gradients may thus be off by a few times 2^-8 of the largest element; sums over many edges add nothing to that.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from compiled import PAIRS, leaf, randomized, tensors_of
from custom_layers import CUSTOM_LAYERS, CustomLayer
from eager_graphs import NODE_TYPES, RELATIONS, square_graphs
from torch import Tensor

import columba
from columba import nn
from columba.codegen.cpp import emit
from columba.codegen.cpp.scalars import computed, literal, stored
from columba.ir.types import DType
from columba.runtime.graphs.graph import Graph

GRAPHS = square_graphs()
TOLERANCE = 8 * 2.0**-8
"""Of the largest element; each of the few buffers between input and gradient rounds once."""

LAYERS: dict[str, Callable[[], torch.nn.Module]] = {
    "rgcn 7": lambda: nn.RGCNConv(7, 7, RELATIONS),
    "rgcn 64": lambda: nn.RGCNConv(64, 64, RELATIONS),
    "rgcn max": lambda: nn.RGCNConv(16, 16, RELATIONS, aggr="max"),
    "rgat 1": lambda: nn.RGATConv(64, 64, RELATIONS, heads=1),
    "rgat 4": lambda: nn.RGATConv(16, 16, RELATIONS, heads=4),
    "hgt 1": lambda: nn.HGTConv(64, 64, NODE_TYPES, RELATIONS, heads=1),
    "hgt 3": lambda: nn.HGTConv(7, 21, NODE_TYPES, RELATIONS, heads=3),
}
SIZES = {"rgcn 7": 7, "rgcn 64": 64, "rgcn max": 16, "rgat 1": 64, "rgat 4": 16, "hgt 1": 64, "hgt 3": 7}


def rounded(module: torch.nn.Module) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A module in bfloat16, and one in float64 with the same parameters."""
    narrow = module.to(torch.bfloat16)
    return narrow, copy.deepcopy(narrow).double()


def assert_near(got: Tensor | None, eager: Tensor | None, wanted: Tensor | None, what: str) -> None:
    """Within the tolerance, or, where terms cancel, about as near as PyTorch itself is in bfloat16."""
    if got is None or eager is None or wanted is None:
        assert all(t is None or not t.any() for t in (got, wanted))
        return
    if not wanted.numel():
        return
    error, theirs = (float((t.detach().double() - wanted).abs().max()) for t in (got, eager))
    scale = max(0.1, float(wanted.abs().max()))
    allowed = max(TOLERANCE * scale, 1.5 * theirs)
    assert error <= allowed, (
        f"{what}: off by {error:.3g}, the largest element is {scale:.3g}, PyTorch off by {theirs:.3g}"
    )


def check(
    narrow: torch.nn.Module, wide: torch.nn.Module, call: Callable[..., object], inputs: list[Tensor], where: str
) -> None:
    ours = [x.detach().bfloat16().requires_grad_() if x.is_floating_point() else x for x in inputs]
    theirs = [x.detach().double().requires_grad_() if x.is_floating_point() else x for x in ours]
    got = tensors_of(call(columba.compile(narrow, backend="cpp", passes=PAIRS), ours))
    wanted = tensors_of(call(wide, theirs))
    eager = tensors_of(call(narrow, ours))
    triples = [t for t in zip(got, eager, wanted, strict=True) if t[-1].is_floating_point()]
    for n, (g, e, w) in enumerate(triples):
        assert g.dtype is torch.bfloat16
        assert_near(g, e, w, f"{where}, result {n}")
    results = [list(side) for side in zip(*triples, strict=True)]
    grads = [torch.randn(w.shape, generator=torch.Generator().manual_seed(n)) for n, w in enumerate(results[-1])]
    leaves = [[x for x in side if x.requires_grad] for side in (ours, theirs)]
    leaves[0] += narrow.parameters()
    leaves[1] += wide.parameters()
    if not any(w.requires_grad for w in results[-1]):
        return
    grads = [g.bfloat16() for g in grads]
    found, plain = (torch.autograd.grad(r, leaves[0], grads, allow_unused=True) for r in results[:2])
    expected = torch.autograd.grad(results[-1], leaves[1], [g.double() for g in grads], allow_unused=True)
    for n, (f, p, e) in enumerate(zip(found, plain, expected, strict=True)):
        assert_near(f, p, e, f"{where}, gradient {n}")


SHORT = {"rgcn 64": (), "hgt 3": pytest.mark.unoptimized}
"""Those of every run; the custom layer below has the rest of the language."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=SHORT.get(n, pytest.mark.slow)) for n in LAYERS])
def test_layers(name: str) -> None:
    narrow, wide = rounded(randomized(LAYERS[name](), torch.float32))
    for where, graph in GRAPHS.items():
        x = leaf(graph.num_nodes, SIZES[name], dtype=torch.float32)
        check(narrow, wide, lambda model, args, g=graph: model(*args, g), [x], where)


@pytest.mark.parametrize(
    "custom",
    [pytest.param(c, marks=pytest.mark.unoptimized if c.name == "gated" else pytest.mark.slow) for c in CUSTOM_LAYERS],
    ids=lambda s: s.name,
)
def test_custom_layers(custom: CustomLayer) -> None:
    torch.manual_seed(0)
    narrow, wide = rounded(custom.build(RELATIONS, NODE_TYPES))
    for where in ("random", "hub", "no_edges"):
        graph: Graph = GRAPHS[where]
        inputs = custom.inputs(graph, torch.float32)
        check(narrow, wide, lambda model, args, g=graph: model(g, *args), list(inputs), where)


def test_storing_rounds_to_nearest_even() -> None:
    graph = GRAPHS["random"]
    values = [
        1 + 2.0**-8,
        1 + 3 * 2.0**-8,
        1 + 2.0**-8 + 2.0**-20,
        -1 - 2.0**-8,
        3.4e38,
        float("inf"),
        float("nan"),
        0.0,
        1e-40,
    ]
    h = torch.tensor(values).repeat(graph.num_nodes, 1)

    def narrow(g: Graph, h: Tensor) -> Tensor:
        return g.nodes(h).to(torch.bfloat16)

    got = columba.compile(narrow, backend="cpp")(graph, h)
    assert torch.equal(got.nan_to_num(nan=7.0), h.bfloat16().nan_to_num(nan=7.0))


def test_sums_are_accumulated_in_float() -> None:
    """Ones summed in bfloat16 would stop at 256."""
    nodes = 2
    edges = torch.stack([torch.zeros(3000, dtype=torch.long), torch.ones(3000, dtype=torch.long)])
    graph = Graph(edges, num_nodes=nodes)
    total = columba.compile(lambda g, h: g.edges.sum(g.edges.src(h)), backend="cpp")(
        graph, torch.ones(nodes, 24, dtype=torch.bfloat16)
    )
    assert total.tolist() == [[0.0] * 24, [float(torch.tensor(3000.0).bfloat16())] * 24]


def test_types() -> None:
    assert (stored(DType.BF16), computed(DType.BF16), literal(0.5, DType.BF16)) == ("cb_bf16", "float", "0.5f")
    layer = nn.RGATConv(8, 8, RELATIONS).bfloat16()
    graph = GRAPHS["random"]
    x = torch.randn(graph.num_nodes, 8).bfloat16().requires_grad_()
    compilation = columba.explain(columba.compile(layer, backend="cpp", passes=PAIRS), x, graph).compilation
    source = emit(list(compilation.plans), DType.I32)
    assert "cb_gemm<float>" in source
    assert "cb_gemm<cb_bf16>" not in source
