"""Gradients in 16 bits: as near to float64 as PyTorch's own, from the same rounded inputs and parameters, on every layer.

Compiled kernels round what they store, PyTorch what every operation gives. A compiled layer is rarely farther from float64, then; it
could be by chance where a number decides (on which side of the kink of a leaky ReLU a score lies), which is why scores have 32 bits
(:mod:`columba.passes.program.widen_small_rows`).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from compiled import randomized
from torch import Tensor, nn

import columba
from columba.nn import HGTConv, RGATConv, RGCNConv
from columba.runtime.graphs.graph import Graph

NODES, EDGES, RELATIONS, TYPES, SIZE = 40, 400, 4, 3, 16

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "rgcn": lambda: RGCNConv(SIZE, SIZE, RELATIONS),
    "rgat 1": lambda: RGATConv(SIZE, SIZE, RELATIONS, heads=1),
    "rgat 4": lambda: RGATConv(SIZE, SIZE // 4, RELATIONS, heads=4),
    "hgt 1": lambda: HGTConv(SIZE, SIZE, TYPES, RELATIONS, heads=1),
    "hgt 4": lambda: HGTConv(SIZE, SIZE, TYPES, RELATIONS, heads=4),
}
UNIT = {torch.bfloat16: 2.0**-9, torch.float16: 2.0**-12}
"""By how much rounding to the nearest changes a number, on average about half of the most that it can."""

VARIANTS = {
    "pairs": "-aggregate_first,compact_materialization",
    "sums first": "aggregate_first,compact_materialization",
    "edges": "-aggregate_first,-compact_materialization",
}


@pytest.fixture(autouse=True)
def rounding_interpreter() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def graph(seed: int) -> Graph:
    draw = torch.Generator().manual_seed(seed)
    return Graph(
        torch.randint(NODES, (2, EDGES), generator=draw),
        torch.randint(RELATIONS, (EDGES,), generator=draw),
        num_nodes=NODES,
        num_relations=RELATIONS,
        node_type=torch.randint(TYPES, (NODES,), generator=draw),
        num_node_types=TYPES,
    )


def gradients(
    layer: nn.Module, model: Callable[..., Tensor], x: Tensor, g: Graph, direction: Tensor
) -> dict[str, Tensor]:
    """The result, and the gradients of the input and of all parameters, in float64."""
    y = model(x, g)
    found = torch.autograd.grad(y, [x, *layer.parameters()], direction.to(y.dtype))
    names = ["result", "x", *(name for name, _ in layer.named_parameters())]
    return {name: t.detach().double() for name, t in zip(names, (y, *found), strict=True)}


def three_ways(
    name: str, dtype: torch.dtype, backend: str, passes: str, g: Graph, seed: int, *, autocast: bool = False
) -> list[dict[str, Tensor]]:
    """What compiled, eager and float64 code gives: in ``dtype``, or under autocast to it."""
    if backend == "triton":
        from interpreter_rounding import round_as_gpus_do

        round_as_gpus_do()
    torch.manual_seed(seed)
    given = torch.float32 if autocast else dtype
    layer = randomized(LAYERS[name](), given)
    wide = copy.deepcopy(layer).double()
    x = torch.randn(NODES, SIZE).to(given).requires_grad_()
    direction = torch.randn(NODES, SIZE).to(given)
    compiled = columba.compile(layer, backend=backend, passes=passes)

    def under(model: nn.Module) -> Callable[..., Tensor]:
        def call(*args: object) -> Tensor:
            with torch.autocast("cpu", dtype=dtype, enabled=autocast):
                y: Tensor = model(*args)
            return y

        return call

    return [
        gradients(layer, under(compiled), x, g, direction),
        gradients(layer, under(layer), x, g, direction),
        gradients(wide, wide, x.detach().double().requires_grad_(), g, direction),
    ]


def check_errors(
    name: str,
    dtype: torch.dtype,
    backend: str,
    passes: str = VARIANTS["pairs"],
    seeds: int = 1,
    *,
    autocast: bool = False,
) -> None:
    for seed in range(seeds):
        compiled, eager, exact = three_ways(name, dtype, backend, passes, graph(seed), seed, autocast=autocast)
        for key, wanted in exact.items():
            ours, theirs = ((t[key] - wanted).norm() / wanted.norm() for t in (compiled, eager))
            assert ours <= 2 * theirs + UNIT[dtype], f"{key}: off by {ours:.2e}, PyTorch by {theirs:.2e} (seed {seed})"


# ------------------------------------------------------------------------------------------------ every layer


@pytest.mark.parametrize(
    ("dtype", "backend"), [(torch.bfloat16, "cpp"), pytest.param(torch.float16, "triton", marks=pytest.mark.slow)]
)
def test_no_farther_from_float64_than_twice_pytorch(dtype: torch.dtype, backend: str) -> None:
    check_errors("rgat 4", dtype, backend, seeds=1)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("dtype", "backend"), [(torch.bfloat16, "cpp"), (torch.bfloat16, "triton"), (torch.float16, "triton")]
)
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer(name: str, dtype: torch.dtype, backend: str, variant: str) -> None:
    check_errors(name, dtype, backend, VARIANTS[variant], seeds=4 if backend == "cpp" else 1)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("backend", ["cpp", "triton"])
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_under_autocast(name: str, backend: str, variant: str) -> None:
    check_errors(name, torch.bfloat16, backend, VARIANTS[variant], seeds=4 if backend == "cpp" else 1, autocast=True)


# ------------------------------------------------------------------------------------------------ terms that cancel

ATTENDING = {"rgat 4": ("att_src", "att_dst"), "hgt 4": ("k_weight", "k_bias", "q_weight", "q_bias", "att", "prior")}
"""The parameters that only weights of edges depend on."""


def equal_members() -> Graph:
    """Every destination has several edges, all from one source by one relation."""
    target = torch.arange(EDGES) % NODES
    source = (7 * target + 3) % NODES
    kinds = torch.arange(NODES) % TYPES
    return Graph(
        torch.stack([source, target]),
        target % RELATIONS,
        num_nodes=NODES,
        num_relations=RELATIONS,
        node_type=kinds,
        num_node_types=TYPES,
    )


def check_cancelled(name: str, dtype: torch.dtype, backend: str, passes: str) -> None:
    found, _, exact = three_ways(name, dtype, backend, passes, equal_members(), 0)
    scale = max(float(t.abs().max()) for t in exact.values())
    for key in ATTENDING[name]:
        assert exact[key].abs().max() < 1e-12 * scale
        assert found[key].abs().max() < 1e-5 * scale, key


def test_equal_messages_have_no_gradient_of_attention() -> None:
    """Weights are equal whatever the scores: their gradient is a difference of equal numbers, which must be computed of the same ones."""
    check_cancelled("rgat 4", torch.bfloat16, "cpp", VARIANTS["pairs"])


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("dtype", "backend"), [(torch.bfloat16, "cpp"), (torch.bfloat16, "triton"), (torch.float16, "triton")]
)
@pytest.mark.parametrize("name", ATTENDING)
def test_equal_messages_in_all_ways(name: str, dtype: torch.dtype, backend: str, variant: str) -> None:
    check_cancelled(name, dtype, backend, VARIANTS[variant])
