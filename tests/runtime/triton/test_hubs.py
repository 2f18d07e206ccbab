"""Owners of many members, cut into tiles: values and gradients as eager has them, at and about the bounds of tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import gpu_stand_in
import pytest
import torch
from compiled import assert_same, leaf, randomized
from torch import Tensor
from triton_matrix import INTERPRETED, scheduled

pytest.importorskip("triton")

import columba
from columba import nn
from columba.codegen.triton import MemberSchedule, Schedule
from columba.ir.indices import Hubs
from columba.ir.plan.kernels import Kernel, Traversal
from columba.ir.spaces import Space, index_map
from columba.runtime.graphs.graph import Graph
from columba.runtime.triton.launch import _Call

pytestmark = [
    pytest.mark.filterwarnings("ignore:columba. backend=.triton. runs on CPU"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter"),
]

MOST = 2
"""Members of an owner that is no hub, and of a tile."""

DEGREES = (0, MOST - 1, MOST, MOST + 1, 2 * MOST, 2 * MOST + 1, 0, 6 * MOST)
RELATIONS = 3

SMALL = MemberSchedule(owners=2, members=1, warps=1, steps=MOST)


def graph_of(degrees: Sequence[int], *, both: bool = False) -> Graph:
    """Nodes with these in-degrees, the other ends the nodes without any in turn; ``both``: and the same edges the other way."""
    many = torch.repeat_interleave(torch.arange(len(degrees)), torch.tensor(degrees))
    few = torch.tensor([n for n, degree in enumerate(degrees) if degree < 2] or [0])
    ends = torch.stack([few[torch.arange(len(many)) % len(few)], many])
    ends = torch.cat([ends, ends.flip(0)], 1) if both else ends
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(ends.shape[1], generator=generator)
    relation = torch.randint(RELATIONS, (ends.shape[1],), generator=generator)
    return Graph(
        ends[:, order],
        relation,
        num_nodes=len(degrees),
        num_relations=RELATIONS,
        node_type=torch.arange(len(degrees)) % 2,
        num_node_types=2,
    )


def small_tiles(kernel: Kernel) -> Schedule | None:
    return SMALL if isinstance(kernel, Traversal) and kernel.via is not None else None


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Small tiles; how many programs the functions have that were launched."""
    found: dict[str, int] = {}
    size = _Call._size

    def note(self: _Call, of: object) -> int:
        found["programs"] = size(self, of)  # type: ignore[arg-type]
        return found["programs"]

    launch = _Call._launch

    def noted(self: _Call, some: object, *args: object, **options: object) -> None:
        launch(self, some, *args, **options)  # type: ignore[arg-type]
        if found["programs"]:
            name = some.function  # type: ignore[attr-defined]
            found[name] = found.get(name, 0) + 1

    monkeypatch.setattr(_Call, "_size", note)
    monkeypatch.setattr(_Call, "_launch", noted)
    with scheduled(small_tiles, INTERPRETED.target):
        yield found


LAYERS: dict[str, Callable[[], torch.nn.Module]] = {
    "rgcn": lambda: nn.RGCNConv(8, 8, RELATIONS),
    "rgcn max": lambda: nn.RGCNConv(8, 8, RELATIONS, aggr="max"),
    "rgat": lambda: nn.RGATConv(8, 8, RELATIONS),
    "rgat 4": lambda: nn.RGATConv(8, 2, RELATIONS, heads=4),
    "hgt": lambda: nn.HGTConv(8, 8, 2, RELATIONS),
    "hgt 4": lambda: nn.HGTConv(8, 8, 2, RELATIONS, heads=4),
}
PASSES = ("-aggregate_first,compact_materialization", "aggregate_first,-compact_materialization")


@pytest.mark.parametrize("passes", [PASSES[0], pytest.param(PASSES[1], marks=pytest.mark.slow)])
@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str, passes: str, launched: dict[str, int]) -> None:
    """Hubs that edges lead to and hubs that they leave from, which the backward pass sums over."""
    torch.manual_seed(0)
    eager = randomized(LAYERS[name](), torch.float64)
    compiled = columba.compile(eager, backend="triton", passes=passes)
    graph = graph_of(DEGREES, both=True)
    assert_same(compiled, eager, [leaf(graph.num_nodes, 8), graph], list(eager.parameters()))
    hubs = {name for name in launched if "_of_hubs" in name}
    assert any(name.endswith("_of_hubs") for name in hubs)
    assert any("_backward_" in name for name in hubs)


def sums(g: Graph, h: Tensor) -> Tensor:
    return g.edges.sum(g.edges.src(h))


def largest(g: Graph, h: Tensor) -> Tensor:
    return g.edges.max(g.edges.src(h))


def smallest(g: Graph, h: Tensor) -> Tensor:
    return g.edges.min(g.edges.src(h))


def attention(g: Graph, h: Tensor) -> Tensor:
    e = g.edges
    return e.sum(e.softmax(e.src(h) * e.dst(h)) * e.src(h))


def weights(g: Graph, h: Tensor) -> Tensor:
    """Members store what they make of their owner's sum and maximum: a second loop."""
    return g.edges.softmax(g.edges.src(h) + g.edges.dst(h))


def variance(g: Graph, h: Tensor) -> Tensor:
    """Three loops: means, squares of distances from them, and distances over deviations, of which the largest."""
    e = g.edges
    centred = e.src(h) - e.dst(e.mean(e.src(h)))
    deviation = torch.sqrt(e.mean(centred * centred) + 1)
    return e.max(centred / e.dst(deviation))


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(sums, marks=pytest.mark.slow),
        largest,
        pytest.param(smallest, marks=pytest.mark.slow),
        pytest.param(attention, marks=pytest.mark.slow),
        pytest.param(weights, marks=pytest.mark.slow),
        pytest.param(variance, marks=pytest.mark.slow),
    ],
)
def test_loops(function: Callable[..., Tensor], launched: dict[str, int]) -> None:
    """All reductions; several loops over the members of one owner, whose results members read back."""
    compiled = columba.compile(function, backend="triton")
    graph = graph_of(DEGREES, both=True)
    assert_same(compiled, function, [graph, leaf(graph.num_nodes, 2)])
    loops = {int(name.rsplit("_", 1)[1]) for name in launched if name.rsplit("_of_hubs_", 1)[-1].isdigit()}
    assert loops >= set(range(1, {"weights": 2, "variance": 3}.get(function.__name__, 1) + 1))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), pytest.param(-float("inf"), marks=pytest.mark.slow)])
def test_what_is_no_number_comes_out_where_eager_has_it(value: float, launched: dict[str, int]) -> None:
    """One source of a hub, and all sources of another one, are NaN or infinite."""
    degrees = (3 * MOST, 2 * MOST + 1, 2, 0, 0)
    many = torch.repeat_interleave(torch.arange(5), torch.tensor(degrees))
    sources = torch.full_like(many, 4)
    sources[5] = sources[3 * MOST - 1] = 3
    sources[many == 1] = 3
    graph = Graph(torch.stack([sources, many]), num_nodes=5)
    h = torch.tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 1.0], [value, 1.0], [2.0, -0.5]], dtype=torch.float64)
    for function in (sums, largest, smallest, attention, weights):
        found = columba.compile(function, backend="triton")(graph, h)
        torch.testing.assert_close(found, function(graph, h), equal_nan=True, msg=lambda m, f=function: f"{f}: {m}")
    assert any("_of_hubs" in name for name in launched)


def test_graphs_without_hubs_launch_nothing_more(launched: dict[str, int]) -> None:
    compiled = columba.compile(attention, backend="triton")
    without = graph_of([MOST, MOST, 1, 0])
    compiled(without, leaf(4, 3)).sum().backward()
    assert launched.keys() - {"programs"}
    backward = {name for name in launched if "_backward_" in name}
    assert not any("_of_hubs" in name for name in launched.keys() - backward)


def test_memory_for_hubs_is_taken_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that is bound to a graph with a hub has parts in its block of memory; no other one has."""
    gpu_stand_in.install(monkeypatch)
    sizes = []
    with scheduled(small_tiles, INTERPRETED.target), torch.no_grad():
        compiled = columba.compile(sums, backend="triton")
        executable = _executable(compiled, graph_of([MOST, 0]))
        (plan,) = executable.plans
        for degrees in ([MOST, 0], [100 * MOST, 0]):
            graph = graph_of(degrees)
            index = [graph.index(a) for a in executable.index_arrays(plan)]
            counts = [graph.counts().get(space, 0) for space in Space]
            sizes.append(executable.bind(plan.name, index, counts).block)
    tiles, lanes, smallest = 13, 64, 256
    assert sizes == [smallest, tiles * lanes * 4]


def _executable(compiled: object, graph: Graph) -> object:
    from columba.ir.types import DType
    from columba.runtime.backends import TRITON

    compilation = columba.explain(compiled, graph, torch.randn(graph.num_nodes, 64)).compilation  # type: ignore[arg-type]
    return TRITON.executable(compilation.planned, DType.I32)


# ------------------------------------------------------------------------------------------------ tables


def test_tables() -> None:
    """Owner, begin, end of each tile; the first tile of the owner, and the one after its last."""
    graph = graph_of([2, 5, 4, 9, 0])
    to_node = index_map("dst", Space.EDGE)
    table = graph.index(Hubs(to_node, ((float("inf"), 4),))).view(5, -1)
    assert table.t().tolist() == [
        [1, 2, 6, 0, 2],
        [1, 6, 7, 0, 2],
        [3, 11, 15, 2, 5],
        [3, 15, 19, 2, 5],
        [3, 19, 20, 2, 5],
    ]
    assert table.dtype is graph.index_dtype
    for most in (9, 10):
        assert graph.index(Hubs(to_node, ((float("inf"), most),))).numel() == 0
    assert graph.structure.largest_degree(to_node) == 9  # type: ignore[attr-defined]
    by_average = Hubs(to_node, ((3.9, 1), (4.0, 4), (float("inf"), 2)))
    assert torch.equal(graph.index(by_average).view(5, -1), table)


def test_tiles_of_a_very_large_hub_have_as_many_members_as_there_are_of_them() -> None:
    to_node = index_map("dst", Space.EDGE)
    hubs = Hubs(to_node, ((float("inf"), 64),))
    assert [hubs.tile_rows(10, 1, largest) for largest in (64, 4096, 4097, 65536, 1 << 20)] == [64, 64, 128, 256, 1024]
