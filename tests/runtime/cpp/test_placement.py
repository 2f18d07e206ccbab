"""Order of kernels and places of buffers: how much is alive at once, and that nothing which is still needed is written over."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from itertools import combinations

import pytest
import torch
from compiled import PAIRS, assert_same, leaf, randomized
from eager_graphs import NODE_TYPES, RELATIONS, square_graphs
from torch import Tensor, nn

import columba
from columba.driver import Compilation
from columba.ir.counts import Counts
from columba.ir.plan.kernels import Buffer, HostCall, Kernel, reads, writes
from columba.ir.plan.plan import Plan
from columba.ir.spaces import Space
from columba.passes.plan.order_kernels import OrderKernels
from columba.runtime.cpp import placement
from columba.runtime.cpp.memory import Pooled, pooled
from columba.runtime.cpp.placement import Placement

pytestmark = pytest.mark.unoptimized

GRAPH = square_graphs()["random"]
WIDTH = 64

FB15K = {
    Space.ONE: 1,
    Space.NTYPE: 1,
    Space.REL: 474,
    Space.NODE: 14_541,
    Space.SRC: 14_541,
    Space.DST: 14_541,
    Space.SRC_REL: 149_689,
    Space.DST_REL: 149_689,
    Space.EDGE: 544_230,
}
COUNTS = Counts(FB15K)
TABLE = FB15K[Space.SRC_REL] * WIDTH * 4
"""Bytes of a row of features for each pair."""

LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "rgcn": lambda width: columba.nn.RGCNConv(width, width, RELATIONS),
    "rgat 1": lambda width: columba.nn.RGATConv(width, width, RELATIONS, heads=1),
    "rgat 4": lambda width: columba.nn.RGATConv(width, width // 4, RELATIONS, heads=4),
    "hgt 1": lambda width: columba.nn.HGTConv(width, width, NODE_TYPES, RELATIONS, heads=1),
    "hgt 4": lambda width: columba.nn.HGTConv(width, width, NODE_TYPES, RELATIONS, heads=4),
}


def compilation(layer: str, passes: str = PAIRS) -> Compilation:
    compiled = columba.compile(LAYERS[layer](WIDTH), backend="cpp", passes=passes)
    x = leaf(GRAPH.num_nodes, WIDTH, dtype=torch.float32)
    return columba.explain(compiled, x, GRAPH).compilation


# ------------------------------------------------------------------------------------------------ how much is alive


@pytest.mark.parametrize(("layer", "tables"), [("rgcn", 2), ("rgat 1", 2), ("rgat 4", 2), ("hgt 1", 4), ("hgt 4", 4)])
def test_a_training_step_holds_few_tables_of_pairs(layer: str, tables: int) -> None:
    """At the fullest moment, beside tables with a row a pair: twice what the user gives and gets, and two numbers a head of an edge."""
    c = compilation(layer)
    assert c.backward_plan is not None
    kept = sum(COUNTS.bytes(b.type) for b in c.forward_plan.outputs[c.results :])
    forward = Placement(c.forward_plan).layout(COUNTS).size
    backward = Placement(c.backward_plan).layout(COUNTS, c.spare).size
    inputs, outputs = c.forward_plan.inputs, (*c.forward_plan.outputs[: c.results], *c.backward_plan.outputs)
    compulsory = sum(COUNTS.bytes(b.type) for b in (*inputs, *outputs))
    edges = 2 * 4 * 4 * FB15K[Space.EDGE]
    assert kept + max(forward, backward) <= tables * TABLE + 2 * compulsory + edges
    assert kept + max(forward, backward) > (tables - 1) * TABLE


def test_memory_of_saved_values_is_used_again() -> None:
    c = compilation("hgt 1", f"{PAIRS},-group_kernels")
    assert c.backward_plan is not None
    where = Placement(c.backward_plan)
    apart = where.layout(COUNTS).size
    together = where.layout(COUNTS, c.spare).size
    assert together <= apart - TABLE


@pytest.mark.parametrize("layer", LAYERS)
def test_an_order_is_one_of_the_legal_ones_and_no_worse(layer: str) -> None:
    c = compilation(layer)
    assert c.backward_plan is not None
    shuffled = Plan(
        c.backward_plan.name, c.backward_plan.inputs, c.backward_plan.outputs, breadth_first(c.backward_plan)
    )
    ordered = OrderKernels().run(shuffled)
    assert {k.name for k in ordered.kernels} == {k.name for k in shuffled.kernels}
    written = set(ordered.inputs)
    for kernel in ordered.kernels:
        assert set(reads(kernel)) <= written
        written |= set(writes(kernel))
    assert OrderKernels().run(ordered) is ordered
    size = [Placement(p).layout(COUNTS, c.spare).size for p in (shuffled, ordered)]
    assert size[1] <= size[0]


def breadth_first(plan: Plan) -> tuple[Kernel, ...]:
    """A legal order in which what needs the fewest steps before it comes first."""
    depth = dict.fromkeys(plan.inputs, 0)
    ranked = []
    for n, k in enumerate(plan.kernels):
        level = 1 + max((depth[b] for b in reads(k)), default=0)
        depth.update(dict.fromkeys(writes(k), level))
        ranked.append((level, n, k))
    if any(isinstance(k, HostCall) for k in plan.kernels):
        return plan.kernels
    return tuple(k for _, _, k in sorted(ranked, key=lambda entry: entry[:2]))


# ------------------------------------------------------------------------------------------------ who may stand where


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("layer", ["rgat 4", "hgt 1"])
def test_what_lives_together_stands_apart(layer: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "SMALLEST_SPARE", 1)
    generator = random.Random(seed)
    plan = backward_plan(layer)
    counts = Counts([generator.choice([0, 1, 7, 1000, 5000]) for _ in Space])
    spare = tuple(n for n in range(len(plan.inputs)) if generator.random() < 0.5)
    where = Placement(plan)
    layout = where.layout(counts, spare, 2)
    assert len(set(layout.reused.values())) == len(layout.reused)
    tensors = (*plan.inputs, *where.tensors)
    held = []
    for n, buffer in enumerate(tensors):
        room = layout.reused.get(n, n)
        size = counts.bytes(buffer.type)
        assert size <= counts.bytes(tensors[room].type)
        if n >= len(plan.inputs) or n in spare:
            held.append((room, 0, size, used(plan, buffer), buffer))
    for buffer, (place, at) in zip(where.temporaries, layout.places, strict=True):
        size = where.size_of(buffer, counts, 2)
        assert at % 64 == 0
        assert at + size <= (layout.size if place is None else counts.bytes(tensors[place].type))
        assert place is None or place >= len(plan.inputs) or place in spare
        room = None if place is None else layout.reused.get(place, place)
        held.append((room, at, at + size, where.lives[buffer], buffer))
    for (room, begin, end, (first, last), a), (room_b, begin_b, end_b, (first_b, last_b), b) in combinations(held, 2):
        if room == room_b and begin < end_b and begin_b < end and first <= last_b and first_b <= last:
            assert where.in_place.get(b) is a
            assert last_b == first


@pytest.mark.parametrize("seed", range(5))
def test_a_roomy_layout_holds_smaller_graphs(seed: int) -> None:
    generator = random.Random(seed)
    where = Placement(backward_plan("rgat 4"))
    rows = [generator.choice([0, 1, 7, 1000, 5000]) for _ in Space]
    layout = where.roomy_layout(Counts(rows), 2)
    smaller = Counts([generator.randint(0, n) for n in rows])
    for counts in (Counts(rows), smaller):
        held = []
        for buffer, (place, at) in zip(where.temporaries, layout.places, strict=True):
            assert (place is None) == (buffer not in where.in_place)
            if place is None:
                assert at % 64 == 0
                end = at + where.size_of(buffer, counts, 2)
                assert end <= layout.size
                held.append((at, end, where.lives[buffer]))
        for (begin, end, (first, last)), (begin_b, end_b, (first_b, last_b)) in combinations(held, 2):
            assert end <= begin_b or end_b <= begin or last < first_b or last_b < first


def test_a_new_graph_at_every_step_takes_no_new_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the fifth graph on places are those of the graphs before, until one is larger; never where that takes much memory."""
    made: list[str] = []
    for name in ("layout", "roomy_layout"):
        original = getattr(Placement, name)
        monkeypatch.setattr(
            Placement,
            name,
            lambda self, *args, name=name, original=original: (made.append(name), original(self, *args))[1],
        )

    def layer(g: columba.Graph, x: Tensor) -> Tensor:
        m = torch.sin(g.edges.sum(g.edges.src(x)))
        return g.edges.max(torch.cos(g.edges.src(m) * g.edges.dst(m)), to="src") + m

    def graph(nodes: int) -> columba.Graph:
        ends = torch.randint(nodes, (2, 3 * nodes), generator=torch.Generator().manual_seed(nodes))
        return columba.Graph(ends, num_nodes=nodes)

    compiled = columba.compile(layer, backend="cpp")
    seen = []
    for nodes in (9, 4, 30, 5, 40, 7, 41, 3, 50, 60, 12, 2000, 9, 1999):
        assert_same(compiled, layer, [graph(nodes), leaf(nodes, 3)])
        seen.append(len(made))
        made.clear()
    assert seen == [2, 2, 2, 2, 2, 0, 0, 0, 0, 2, 0, 2, 0, 0]  # forward and backward; 50 is a quarter more than 40
    monkeypatch.setattr("columba.runtime.cpp.launch.ROOMY", 0)
    compiled(graph(21), leaf(21, 3))
    assert made == ["layout"]


def used(plan: Plan, buffer: Buffer) -> tuple[int, int]:
    """From which kernel to which the memory of an input or output is in use, those that run beside it in a group included."""
    last = len(plan.kernels)
    spans = Placement(plan).spans
    touching = [n for n, k in enumerate(plan.kernels) if buffer in (*reads(k), *writes(k))]
    if buffer in plan.outputs:
        return (spans[touching[0]][0], last) if buffer not in Placement(plan).in_place.values() else (touching[0], last)
    return (-1, spans[touching[-1]][1] if touching else -1)


@functools.cache
def backward_plan(layer: str) -> Plan:
    plan = compilation(layer).backward_plan
    assert plan is not None
    return plan


# ------------------------------------------------------------------------------------------------ nobody can tell


@pytest.fixture
def every_saved_value_is_spare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(placement, "SMALLEST_SPARE", 1)
    monkeypatch.setattr(Pooled, "SMALL", 0)
    monkeypatch.setattr("columba.runtime.cpp.launch.SMALL", 0)  # small calls pack what they save
    yield
    pooled.release()


def step(layer: str) -> tuple[Callable[[Tensor], Tensor], Tensor, list[Tensor], list[Tensor]]:
    """A compiled layer, its input, its parameters, and the gradients that it should find."""
    eager = randomized(LAYERS[layer](8), torch.float64)
    compiled = columba.compile(eager, backend="cpp", passes=PAIRS)
    x = leaf(GRAPH.num_nodes, 8)
    leaves = [x, *eager.parameters()]
    wanted = torch.autograd.grad(eager(x, GRAPH).square().sum(), leaves)
    return lambda x: compiled(x, GRAPH).square().sum(), x, leaves, list(wanted)


SOME = [n if n in ("rgat 4", "hgt 1") else pytest.param(n, marks=pytest.mark.slow) for n in LAYERS]


@pytest.mark.usefixtures("every_saved_value_is_spare")
@pytest.mark.parametrize("layer", SOME)
def test_gradients_with_and_without_keeping_the_graph(layer: str) -> None:
    loss, x, leaves, wanted = step(layer)
    for _ in range(2):
        y = loss(x)
        for keep in (True, True, False):
            torch.testing.assert_close(list(torch.autograd.grad(y, leaves, retain_graph=keep)), wanted)


@pytest.mark.usefixtures("every_saved_value_is_spare")
@pytest.mark.parametrize("layer", SOME)
def test_gradients_that_took_over_memory_are_their_own(layer: str) -> None:
    loss, x, leaves, wanted = step(layer)
    found = [torch.autograd.grad(loss(x), leaves) for _ in range(3)]
    for gradients in found:
        torch.testing.assert_close(list(gradients), wanted)
    with torch.no_grad():
        for gradient in found[0]:
            gradient.zero_()
    torch.testing.assert_close(list(found[1]), wanted)


def test_a_gradient_takes_over_the_memory_of_a_saved_value() -> None:
    c = compilation("rgat 1")
    assert c.backward_plan is not None
    where = Placement(c.backward_plan)
    tensors = (*c.backward_plan.inputs, *where.tensors)
    named = {tensors[out].name: tensors[giver].name for out, giver in where.layout(COUNTS, c.spare).reused.items()}
    assert named == {"grad_x": "saved_pointwise_6"}
    assert not where.layout(COUNTS).reused


@pytest.mark.usefixtures("every_saved_value_is_spare")
def test_tensors_that_hooks_keep_are_left_alone() -> None:
    loss, x, leaves, wanted = step("hgt 1")
    kept: list[tuple[Tensor, Tensor]] = []

    def pack(t: Tensor) -> Tensor:
        kept.append((t, t.clone()))
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = loss(x)
    torch.testing.assert_close(list(torch.autograd.grad(y, leaves)), wanted)
    assert kept
    assert all(torch.equal(t, before) for t, before in kept)


@pytest.mark.usefixtures("every_saved_value_is_spare")
def test_what_a_failed_backward_pass_used_up_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = columba.compile(randomized(LAYERS["rgat 1"](8), torch.float64), backend="cpp", passes=PAIRS)
    x = leaf(GRAPH.num_nodes, 8)
    y = layer(x, GRAPH)

    def fail(*args: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("columba.runtime.cpp.launch.CppLauncher.run", fail)
        with pytest.raises(MemoryError):
            torch.autograd.grad(y, [x], torch.ones_like(y))
    with pytest.raises(RuntimeError, match="used up what was saved"):
        torch.autograd.grad(y, [x], torch.ones_like(y))
