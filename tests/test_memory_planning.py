"""Order of kernels and places of buffers: how much is alive at once, and that nothing which is still needed is written over."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator

import pytest
import torch
from compiled import PAIRS, leaf, randomized
from eager_graphs import NODE_TYPES, RELATIONS, square_graphs
from torch import Tensor, nn

import columba
from columba.driver import Compilation
from columba.ir.intraop.kernels import HostCall, Kernel, reads, writes
from columba.ir.intraop.plan import Plan
from columba.ir.spaces import Space
from columba.passes.intraop.order_kernels import OrderKernels
from columba.runtime import placement
from columba.runtime.memory import Pooled, pooled
from columba.runtime.placement import Placement, bytes_of

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
COUNTS = [FB15K[space] for space in Space]
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
    kept = sum(bytes_of(b.type, COUNTS) for b in c.forward_plan.outputs[c.results :])
    _, forward = Placement(c.forward_plan).place_temporaries(COUNTS)
    _, backward = Placement(c.backward_plan).place_temporaries(COUNTS, c.spare)
    inputs, outputs = c.forward_plan.inputs, (*c.forward_plan.outputs[: c.results], *c.backward_plan.outputs)
    compulsory = sum(bytes_of(b.type, COUNTS) for b in (*inputs, *outputs))
    edges = 2 * 4 * 4 * FB15K[Space.EDGE]
    assert kept + max(forward, backward) <= tables * TABLE + 2 * compulsory + edges
    assert kept + max(forward, backward) > (tables - 1) * TABLE


def test_memory_of_saved_values_is_used_again() -> None:
    c = compilation("hgt 1", f"{PAIRS},-group_kernels")
    assert c.backward_plan is not None
    where = Placement(c.backward_plan)
    _, apart = where.place_temporaries(COUNTS)
    _, together = where.place_temporaries(COUNTS, c.spare)
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
    size = [Placement(p).place_temporaries(COUNTS, c.spare)[1] for p in (shuffled, ordered)]
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
    counts = [generator.choice([0, 1, 7, 1000, 5000]) for _ in Space]
    spare = tuple(n for n in range(len(plan.inputs)) if generator.random() < 0.5)
    where = Placement(plan)
    places, size = where.place_temporaries(counts, spare, 2)
    for n, (room, at) in enumerate(places):
        buffer = where.temporaries[n]
        end = at + where.size_of(buffer, counts, 2)
        first, last = where.lives[buffer]
        assert at % 64 == 0
        assert end <= (size if room is None else bytes_of(plan.inputs[room].type, counts))
        if room is not None:
            assert room in spare
            assert all(plan.inputs[room] not in reads(k) for k in plan.kernels[first:])
        for m in range(n):
            other_room, other_at = places[m]
            other = where.temporaries[m]
            other_first, other_last = where.lives[other]
            if room == other_room and first <= other_last and other_first <= last:
                assert end <= other_at or other_at + where.size_of(other, counts, 2) <= at


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


@pytest.mark.usefixtures("every_saved_value_is_spare")
@pytest.mark.parametrize("layer", LAYERS)
def test_gradients_with_and_without_keeping_the_graph(layer: str) -> None:
    loss, x, leaves, wanted = step(layer)
    for _ in range(2):
        y = loss(x)
        for keep in (True, True, False):
            torch.testing.assert_close(list(torch.autograd.grad(y, leaves, retain_graph=keep)), wanted)


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
        patch.setattr("columba.runtime.launch.Launch.run", fail)
        with pytest.raises(MemoryError):
            torch.autograd.grad(y, [x], torch.ones_like(y))
    with pytest.raises(RuntimeError, match="used up what was saved"):
        torch.autograd.grad(y, [x], torch.ones_like(y))
