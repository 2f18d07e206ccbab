"""The numeric matrix of Triton kernels: what is run, on which graphs, and how close results have to be.

The factors are programs (the layers of ``columba.nn`` and custom layers), features, heads, dtypes, schedules and passes. Every case runs
on every graph of :func:`graphs`, forward and with all gradients. The full product would be thousands of cases; :func:`covering` takes
about a hundred, among which every *pair* of values of any two factors occurs. The candidates that a tuner chooses from are gone through
apart, all candidates of all kernels of each program, since every kernel has a list of its own.

The same cases run in Triton's interpreter on CPU tensors and on a GPU: see ``--device`` in ``conftest.py``, and
``tools/gpu_acceptance.py``, for which nothing here needs pytest.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from compiled import randomized, tensors_of
from custom_layers import CompositionConv, GatedRelationalConv, RelationPooling, SourceAttention, TwoHops
from eager_graphs import NODE_TYPES, RELATIONS, square_graphs
from interpreter_rounding import round_as_gpus_do
from torch import Tensor

import columba
from columba import nn
from columba.codegen.triton import (
    INTERPRETER,
    DegreeSchedule,
    MemberSchedule,
    OuterSchedule,
    ProductSchedule,
    RowSchedule,
    Schedule,
    candidates,
    default_schedule,
    is_legal,
)
from columba.ir.plan.kernels import Kernel, Traversal
from columba.ir.plan.planned import Planned
from columba.ir.types import DType
from columba.runtime.backends import TritonBackend
from columba.runtime.graphs.graph import Graph
from columba.runtime.self_check.tolerance import scale, tolerance
from columba.runtime.triton.launch import TritonExecutable

round_as_gpus_do()

# ------------------------------------------------------------------------------------------------ factors

SIZES = (1, 7, 16, 64, 100)
HEADS = (1, 3, 4)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
PASSES = ("-aggregate_first,compact_materialization", "aggregate_first,-compact_materialization")


@dataclass(frozen=True)
class Program:
    """A layer of any size: ``build(size, heads)``, called with ``inputs(graph, size, heads)``, whose tensors are float64."""

    build: Callable[[int, int], torch.nn.Module]
    inputs: Callable[[Graph, int, int], tuple[Any, ...]]


def _rows(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def _layer(build: Callable[[int, int], torch.nn.Module]) -> Program:
    return Program(build, lambda g, size, heads: (_rows(g.num_nodes, size), g))


def _rgcn(size: int, heads: int) -> torch.nn.Module:
    """RGCN has no heads; it has other options instead: plain means, sums with bases, blocks."""
    blocks = {1: 1, 7: 7, 16: 4, 64: 4, 100: 5}[size]
    options: dict[int, dict[str, Any]] = {1: {}, 3: {"num_bases": 3, "aggr": "sum"}, 4: {"num_blocks": blocks}}
    return nn.RGCNConv(size, size, RELATIONS, **options[heads])


PROGRAMS = {
    "rgcn": _layer(_rgcn),
    "rgcn max": _layer(lambda size, heads: nn.RGCNConv(size, heads, RELATIONS, aggr="max")),
    "rgat": _layer(lambda size, heads: nn.RGATConv(size, size, RELATIONS, heads=heads)),
    "hgt": _layer(lambda size, heads: nn.HGTConv(size, size * heads, NODE_TYPES, RELATIONS, heads=heads)),
    "gated": Program(
        lambda size, heads: GatedRelationalConv(size, heads, RELATIONS),
        lambda g, size, heads: (g, _rows(g.num_nodes, size), _rows(g.num_edges, heads)),
    ),
    "composition": Program(
        lambda size, heads: CompositionConv(size, heads),
        lambda g, size, heads: (g, _rows(g.num_nodes, size), _rows(g.num_relations, size)),
    ),
    "two_hops": Program(
        lambda size, heads: TwoHops(size, heads + 1, RELATIONS),
        lambda g, size, heads: (g, _rows(g.num_nodes, size)),
    ),
    "source_attention": Program(
        lambda size, heads: SourceAttention(size, heads, RELATIONS),
        lambda g, size, heads: (g, _rows(g.num_nodes, size), _rows(g.num_edges)),
    ),
    "relation_pooling": Program(
        lambda size, heads: RelationPooling(size, NODE_TYPES),
        lambda g, size, heads: (g, _rows(g.num_nodes, size)),
    ),
}
"""Layers by name; where a custom layer has no heads, another of its sizes takes their number."""

Choose = Callable[[Kernel], Schedule | None]
"""The schedule of a kernel, or None for what the backend does by itself."""


def _products(**changes: int | bool) -> Choose:
    def choose(kernel: Kernel) -> Schedule | None:
        default = default_schedule(kernel)
        return replace(default, **changes) if isinstance(default, ProductSchedule) else None  # type: ignore[arg-type]

    return choose


def _of_kind(kind: type, schedule: Schedule) -> Choose:
    def choose(kernel: Kernel) -> Schedule | None:
        if kind is MemberSchedule:
            return schedule if isinstance(kernel, Traversal) and kernel.via is not None else None
        return schedule if isinstance(default_schedule(kernel), kind) else None

    return choose


SCHEDULES: dict[str, Choose] = {
    "default": lambda kernel: None,
    "one matrix a program": _products(matrices=1),
    "columns": _products(columns=16, rows=16, group=3, matrices=1),
    "persistent": _products(persistent=1, rows=16),
    "persistent columns": _products(persistent=1, rows=16, columns=16, group=2, matrices=1),
    "descriptors": _products(descriptors=True, depth=16, matrices=1),
    "persistent descriptors": _products(descriptors=True, depth=16, persistent=2, rows=16, matrices=1),
    "split": _of_kind(MemberSchedule, MemberSchedule(1, 2, split=3)),
    "split, several tiles a program": _of_kind(MemberSchedule, MemberSchedule(4, 2, split=2)),
    "atomic": _of_kind(MemberSchedule, MemberSchedule(2, 2, split=3, atomic=True)),
    "owners": _of_kind(MemberSchedule, DegreeSchedule(((math.inf, MemberSchedule(2, 4)),))),
    "hubs": _of_kind(MemberSchedule, MemberSchedule(2, 1, steps=2)),
    "rows in pieces": _of_kind(RowSchedule, RowSchedule(2, 1, pieces=2)),
    "small outer blocks": _of_kind(OuterSchedule, OuterSchedule(summed=7, rows=16, depth=16, columns=16)),
}
"""Every structure that a kernel can have, in sizes so small that tiny graphs make several blocks of everything."""


@dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    program: str
    size: int
    heads: int
    dtype: torch.dtype
    schedule: str
    passes: str

    def __str__(self) -> str:
        passes = "aggregated" if self.passes.startswith("aggregate_first") else "pairs"
        return f"{self.program} {self.heads}x{self.size} {str(self.dtype)[6:]} {self.schedule} {passes}"


QUICK = (
    Case("rgcn", 7, 1, torch.float32, "default", PASSES[0]),
    Case("rgcn", 16, 4, torch.bfloat16, "persistent", PASSES[1]),
    Case("rgat", 7, 3, torch.float16, "atomic", PASSES[0]),
    Case("hgt", 1, 4, torch.float32, "columns", PASSES[0]),
    Case("relation_pooling", 7, 3, torch.float64, "split, several tiles a program", PASSES[0]),
    Case("two_hops", 7, 1, torch.float32, "split", PASSES[0]),  # degrees of owners that are cut
)
"""A few, of every program, dtype and structure that is most unlike the others."""

FACTORS: tuple[tuple[Any, ...], ...] = (tuple(PROGRAMS), SIZES, HEADS, DTYPES, tuple(SCHEDULES), PASSES)


@functools.cache
def covering() -> tuple[Case, ...]:
    """Cases among which all pairs of values of two factors occur: greedily, those first that have the most pairs not seen yet."""
    left = dict.fromkeys(
        p for (i, a), (j, b) in itertools.combinations(enumerate(FACTORS), 2) for p in _pairs(i, a, j, b)
    )
    rng = random.Random(0)
    found: list[Case] = []
    while left:
        i, a, j, b = next(iter(left))
        tried = []
        for _ in range(60):
            row = [rng.choice(values) for values in FACTORS]
            row[i], row[j] = a, b
            tried.append(tuple(row))
        best = max(tried, key=lambda row: sum(p in left for p in pairs_of(row)))
        found.append(Case(*best))
        for p in pairs_of(best):
            left.pop(p, None)
    return tuple(found)


def _pairs(i: int, a: Sequence[Any], j: int, b: Sequence[Any]) -> Iterator[tuple[int, Any, int, Any]]:
    return ((i, x, j, y) for x, y in itertools.product(a, b))


def pairs_of(row: Sequence[Any]) -> list[tuple[int, Any, int, Any]]:
    """The pairs of values in a case's fields: (factor, value, factor, value)."""
    return [(i, x, j, y) for (i, x), (j, y) in itertools.combinations(enumerate(row), 2)]


@functools.cache
def graphs() -> dict[str, Graph]:
    """The tiny graphs of the other tests (empty relations and node types, isolated nodes, duplicate edges, one node, no edges, no nodes,
    a hub), self loops, and one on which default schedules make several tiles of everything: 700 edges, 560 of them into one node.
    """
    generator = torch.Generator().manual_seed(1)
    many = torch.randint(0, 150, (2, 700), generator=generator)
    many[1, :560] = 5
    loops = torch.tensor([[0, 1, 2, 3, 0, 1, 1], [0, 1, 2, 3, 1, 1, 0]])
    types = (many[0] % 3 + (many[0] > 140)).long()
    return {
        **square_graphs(),
        "self_loops": _graph(loops, torch.tensor([0, 0, 1, 2, 4, 0, 1]), 4),
        "tiles": _graph(many, types, 150),
    }


def random_graph(nodes: int, edges: int) -> Graph:
    """Any graph of that size."""
    generator = torch.Generator().manual_seed(2)
    ends = torch.randint(0, nodes, (2, edges), generator=generator)
    return _graph(ends, torch.randint(0, RELATIONS, (edges,), generator=generator), nodes)


def _graph(edges: Tensor, types: Tensor, nodes: int) -> Graph:
    return Graph(
        edges,
        types,
        num_nodes=nodes,
        num_relations=RELATIONS,
        node_type=torch.arange(nodes) * 7 % 2,
        num_node_types=NODE_TYPES,
    )


TINY = tuple(name for name in graphs() if name != "tiles")

# ------------------------------------------------------------------------------------------------ how close


def assert_close(what: str, got: Tensor, wanted: Tensor, dtype: torch.dtype, eager: Tensor | None = None) -> None:
    """``got`` has the dtype and, but for rounding, the values of the float64 tensor ``wanted``.

    Where large terms cancel, and PyTorch in this dtype (``eager``) is not as near as the tolerance says, half as much again is allowed.
    """
    assert got.dtype is dtype, f"{what} is {got.dtype}"
    assert got.shape == wanted.shape, f"{what}: {tuple(got.shape)}, not {tuple(wanted.shape)}"
    error = (got.detach().to("cpu", torch.float64) - wanted.detach()).abs()
    worst = float(error.max()) if error.numel() else 0.0
    allowed = tolerance(dtype) * scale(wanted)
    if eager is not None and eager.numel():
        allowed = max(allowed, 1.5 * float((eager.detach().to("cpu", torch.float64) - wanted.detach()).abs().max()))
    # The comparison is false for NaN.
    assert worst <= allowed, f"{what}: off by {worst:.3g} where {scale(wanted):.3g} is the scale; allowed {allowed:.3g}"


# ------------------------------------------------------------------------------------------------ running


@dataclass(frozen=True)
class Device:
    """Where kernels run, and the architecture that schedules have to fit."""

    name: str
    target: str

    @property
    def is_gpu(self) -> bool:
        return self.name != "cpu"


INTERPRETED = Device("cpu", INTERPRETER)


def chosen(planned: Planned, choose: Choose, target: str) -> dict[tuple[str, str], Schedule]:
    """The schedules that ``choose`` gives the kernels of plans, where they are legal."""
    return {
        (plan.name, kernel.name): schedule
        for plan in planned.plans
        for kernel in plan.kernels
        if (schedule := choose(kernel)) is not None and is_legal(kernel, schedule, target)
    }


@contextlib.contextmanager
def scheduled(choose: Choose, target: str) -> Iterator[list[Schedule]]:
    """Inside, kernels that are built run as ``choose`` says where that is legal; gives the schedules that were used."""
    used: list[Schedule] = []

    def build(backend: TritonBackend, planned: Planned, index_dtype: DType) -> TritonExecutable:
        schedules = chosen(planned, choose, target)
        used.extend(schedules.values())
        return TritonExecutable(planned.plans, index_dtype, schedules=schedules)

    with patch.object(TritonBackend, "executable", build):
        yield used


@dataclass
class Pair:
    """A layer for the device, with rounded parameters, and the same in float64 on the CPU, run eagerly: the oracle."""

    program: Program
    size: int
    heads: int
    dtype: torch.dtype
    device: Device

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        rounded = randomized(self.program.build(self.size, self.heads), torch.float32).to(self.dtype)
        self.oracle = self.program.build(self.size, self.heads).double()
        self.oracle.load_state_dict(rounded.state_dict())
        self.layer = rounded.to(self.device.name)

    def arguments(self, graph: Graph, seed: int = 0) -> tuple[list[Any], list[Any]]:
        """For the layer and for the oracle: the same numbers, leaves that want gradients."""
        torch.manual_seed(seed)
        made = self.program.inputs(graph, self.size, self.heads)
        ours = [
            x.to(self.device.name)
            if isinstance(x, Graph)
            else x.to(self.device.name, self.dtype, copy=True).requires_grad_()
            for x in made
        ]
        theirs = [
            x if isinstance(x, Graph) else o.detach().to("cpu", torch.float64, copy=True).requires_grad_()
            for x, o in zip(made, ours, strict=True)
        ]
        return ours, theirs

    def check(self, compiled: Callable[..., Any], graph: Graph) -> None:
        """Results and gradients of all arguments and parameters are the oracle's."""
        ours, theirs = self.arguments(graph)
        got, eager, wanted = (
            tensors_of(f(*a)) for f, a in ((compiled, ours), (self.layer, ours), (self.oracle, theirs))
        )
        assert len(got) == len(wanted)
        for n, (g, p, w) in enumerate(zip(got, eager, wanted, strict=True)):
            assert_close(f"result {n}", g, w, self.dtype, p)
        directions = [torch.randn(w.shape, generator=torch.Generator().manual_seed(n)) for n, w in enumerate(wanted)]
        directions = [d.to(self.dtype) for d in directions]
        used = [n for n, w in enumerate(wanted) if w.requires_grad]
        found = self._gradients(ours, self.layer, got, directions, used)
        plain = self._gradients(ours, self.layer, eager, directions, used)
        expected = self._gradients(theirs, self.oracle, wanted, directions, used)
        for name, e in expected.items():
            f = found[name]
            if e is None or f is None:
                assert all(t is None or not t.any() for t in (e, f)), f"gradient of {name}"
            else:
                assert_close(f"gradient of {name}", f, e, self.dtype, plain[name])

    def _gradients(
        self,
        args: Sequence[Any],
        module: torch.nn.Module,
        results: Sequence[Tensor],
        directions: Sequence[Tensor],
        used: Sequence[int],
    ) -> dict[str, Tensor | None]:
        leaves = {f"argument {n}": x for n, x in enumerate(args) if isinstance(x, Tensor)} | dict(
            module.named_parameters()
        )
        chosen = [results[n] for n in used]
        given = [directions[n].to(results[n].device, results[n].dtype) for n in used]
        found = torch.autograd.grad(chosen, list(leaves.values()), given, allow_unused=True)
        return dict(zip(leaves, found, strict=True))


def check_case(case: Case, device: Device, names: Sequence[str]) -> list[Schedule]:
    """A case on some graphs; the schedules that were not the defaults."""
    pair = Pair(PROGRAMS[case.program], case.size, case.heads, case.dtype, device)
    with scheduled(SCHEDULES[case.schedule], device.target) as used:
        compiled = columba.compile(pair.layer, backend="triton", passes=case.passes)
        for name in names:
            try:
                pair.check(compiled, graphs()[name])
            except AssertionError as e:
                raise AssertionError(f"{case} on {name}: {e}") from e
    return used


def candidate_choice(number: int, target: str) -> Choose:
    """Every kernel's candidate of this number, from the first again where it has fewer."""

    def choose(kernel: Kernel) -> Schedule | None:
        found = candidates(kernel, target)
        return found[number % len(found)] if found else None

    return choose


def most_candidates(program: str, size: int, heads: int, dtype: torch.dtype, device: Device) -> int:
    """How many candidates that kernel of a program has that has most."""
    pair = Pair(PROGRAMS[program], size, heads, dtype, INTERPRETED)
    ours, _ = pair.arguments(graphs()["random"])
    compiled = columba.compile(pair.layer, backend="triton", passes=PASSES[0])
    plans = columba.explain(compiled, *ours).compilation.plans
    return max(len(candidates(k, device.target)) for plan in plans for k in plan.kernels)
