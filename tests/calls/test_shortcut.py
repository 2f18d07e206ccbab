"""The short way of a call: what it saves, and that nobody can tell it from the long one."""

from __future__ import annotations

import collections
import copy
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from compiled import PAIRS, assert_same, leaf, randomized
from eager_graphs import NODE_TYPES, RELATIONS, square_graphs
from torch import Tensor

import columba
from columba import nn
from columba.calls import shortcut as shortcuts
from columba.frontend import Trace
from columba.runtime import fast_path
from columba.runtime.cpp.launch import _pattern, _strides
from columba.runtime.cpp.memory import Block, Pooled, Scratch, pooled, scratch

pytestmark = pytest.mark.unoptimized

GRAPHS = square_graphs()
G, HUB = GRAPHS["random"], GRAPHS["hub"]
N = G.num_nodes

LAYERS: dict[str, Callable[[], torch.nn.Module]] = {
    "rgcn": lambda: nn.RGCNConv(4, 6, RELATIONS),
    "rgcn bases": lambda: nn.RGCNConv(4, 6, RELATIONS, num_bases=2),
    "rgat": lambda: nn.RGATConv(4, 3, RELATIONS, heads=2),
    "hgt": lambda: nn.HGTConv(4, 6, NODE_TYPES, RELATIONS, heads=2),
}


SOME = [n if n in ("rgcn", "hgt") else pytest.param(n, marks=pytest.mark.slow) for n in LAYERS]


def layer_of(name: str) -> torch.nn.Module:
    return randomized(LAYERS[name](), torch.float64)


def warm(layer: Any, *args: Any, calls: int = 4) -> Any:
    for _ in range(calls):
        result = layer(*args)
    return result


@pytest.fixture
def long_ways(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Counts the calls that a trace binds, whether their guards are matched one by one or not."""
    seen: list[int] = []
    original = Trace.bind

    def bind(self: Any, *args: Any) -> Any:
        seen.append(1)
        return original(self, *args)

    monkeypatch.setattr(Trace, "bind", bind)
    return seen


# ------------------------------------------------------------------------------------------------ the same results


@pytest.mark.parametrize("name", SOME)
def test_a_call_that_comes_back_takes_the_shortcut(name: str, long_ways: list[int]) -> None:
    eager = layer_of(name)
    layer = columba.compile(eager, backend="cpp")
    warm(layer, leaf(N, 4), G)
    long_ways.clear()
    for seed in range(3):
        assert_same(layer, eager, [leaf(N, 4, seed=seed), G], list(eager.parameters()))
    assert not long_ways
    with torch.no_grad():
        warm(layer, leaf(N, 4), G)
        long_ways.clear()
        torch.testing.assert_close(layer(leaf(N, 4), G), eager(leaf(N, 4), G))
    assert not long_ways


@pytest.mark.parametrize("name", SOME)
def test_graphs_given_as_tensors(name: str, long_ways: list[int]) -> None:
    eager = layer_of(name)
    layer = columba.compile(eager, backend="cpp")
    edge_index, edge_type = G.edge_index.clone(), G.edge_type.clone()
    rest = (G.node_type,) if name == "hgt" else ()
    warm(layer, leaf(N, 4), edge_index, edge_type, *rest)
    long_ways.clear()
    assert_same(layer, eager, [leaf(N, 4, seed=1), edge_index, edge_type, *rest])
    assert not long_ways
    edge_index[0, 0] = (edge_index[0, 0] + 1) % N  # changed in place: another graph
    assert_same(layer, eager, [leaf(N, 4), edge_index, edge_type, *rest])


@pytest.mark.parametrize("name", SOME)
def test_graphs_in_turn(name: str) -> None:
    eager = layer_of(name)
    layer = columba.compile(eager, backend="cpp")
    for graph in (G, G, G, HUB, HUB, G, HUB, G, *GRAPHS.values()):
        assert_same(layer, eager, [leaf(graph.num_nodes, 4), graph], list(eager.parameters()))


def _replace_weight(m: Any) -> None:
    m.weight = torch.nn.Parameter(torch.randn_like(m.weight))


CHANGES: dict[str, Callable[[Any], Any]] = {
    "replaced parameter": _replace_weight,
    "data": lambda m: m.weight.data.mul_(2),
    "swapped data": lambda m: setattr(m.weight, "data", torch.randn_like(m.weight)),
    "frozen parameter": lambda m: m.weight.requires_grad_(False),
    "no bias": lambda m: setattr(m, "bias", None),
    "attribute": lambda m: setattr(m, "aggr", "sum"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_after_the_shortcut_was_made(change: str) -> None:
    eager = layer_of("rgcn")
    layer = columba.compile(eager, backend="cpp")
    warm(layer, leaf(N, 4), G)
    CHANGES[change](eager)
    for _ in range(3):
        assert_same(layer, eager, [leaf(N, 4), G], [p for p in eager.parameters() if p.requires_grad])


def test_wrong_inputs_after_the_shortcut_was_made() -> None:
    layer = columba.compile(layer_of("rgcn"), backend="cpp")
    warm(layer, leaf(N, 4), G)
    with pytest.raises(ValueError, match="space node"):
        layer(leaf(N + 1, 4), G)
    with pytest.raises(ValueError, match="on meta"):
        layer(torch.empty(N, 4, dtype=torch.float64, device="meta"), G)


def test_other_tensors_than_at_the_first_call() -> None:
    eager = layer_of("rgcn")
    layer = columba.compile(eager, backend="cpp")
    warm(layer, leaf(N, 4), G)
    x = torch.randn(4, N, dtype=torch.float64).t()
    torch.testing.assert_close(layer(x, G), eager(x, G))
    doubled = {"weight": 2 * eager.weight.detach()}
    wanted = torch.func.functional_call(eager, doubled, (x, G))
    torch.testing.assert_close(torch.func.functional_call(layer, doubled, (x, G)), wanted)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x.clone(), G), eager(x, G))


def test_globals_and_arguments_after_the_shortcut_was_made() -> None:
    factor = 2.0

    @columba.compile(backend="cpp")
    def layer(g: columba.Graph, pair: tuple[Tensor, Tensor], *, power: int = 1) -> dict[str, Any]:
        out = g.edges.sum(g.edges.src(pair[0]) * g.edges.dst(pair[1])) * factor
        return {"out": out if power == 1 else out * out, "nodes": g.num_nodes, "power": (power,)}

    a, b = leaf(N, 3), leaf(N, 3, seed=1)
    first = warm(layer, G, (a, b))
    assert first["nodes"] == N
    assert first["power"] == (1,)
    factor = 3.0
    torch.testing.assert_close(layer(G, (a, b))["out"], first["out"] * 1.5)
    torch.testing.assert_close(warm(layer, G, (a, b), calls=5)["out"], first["out"] * 1.5)
    squared = warm(layer, G, (a, b)) and [layer(G, (a, b), power=2) for _ in range(4)][-1]
    torch.testing.assert_close(squared["out"], (first["out"] * 1.5).square())
    torch.testing.assert_close(layer(G, (b, b))["out"], G.edges.sum(G.edges.src(b) * G.edges.dst(b)) * 3)


# ------------------------------------------------------------------------------------------------ who is looking


def test_profilers_see_programs_by_name() -> None:
    layer = columba.compile(layer_of("rgcn"), backend="cpp")
    x = leaf(N, 4)
    y = warm(layer, x, G)
    with torch.profiler.profile() as profile:
        y.sum().backward()
        layer(x, G)
    assert [e.name for e in profile.events() if e.name.startswith("columba::")] == [
        "columba::RGCNConv backward",
        "columba::RGCNConv forward",
    ]


@pytest.mark.filterwarnings("ignore:columba. there are no kernels for second derivatives")
def test_a_second_derivative_on_the_short_way() -> None:
    eager = layer_of("rgcn")
    layer = columba.compile(eager, backend="cpp")
    x = leaf(N, 4)
    warm(layer, x, G)
    penalties = []
    for one in (layer, eager):
        (first,) = torch.autograd.grad(one(x, G).square().sum(), [x], create_graph=True)
        penalties.append(torch.autograd.grad(first.square().sum(), [x, *eager.parameters()], allow_unused=True))
    torch.testing.assert_close(*penalties)


def test_saved_tensors_that_were_changed_are_noticed() -> None:
    layer = columba.compile(layer_of("rgcn"), backend="cpp")
    x = leaf(N, 4)
    y = warm(layer, x, G)
    with torch.no_grad():
        x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("small", [0, 2**17])
def test_parameters_that_were_given_other_data_are_noticed(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("columba.runtime.cpp.launch.SMALL", small)
    eager = layer_of("hgt")
    y = warm(columba.compile(eager, backend="cpp"), leaf(N, 4), copy.deepcopy(G))
    eager.half()  # autograd does not see that
    with pytest.raises(ValueError, match="must be torch.float64"):
        y.sum().backward()


def test_gradients_twice_and_under_hooks() -> None:
    eager = layer_of("rgat")
    layer = columba.compile(eager, backend="cpp")
    x = leaf(N, 4)
    y = warm(layer, x, G).square().sum()
    first = torch.autograd.grad(y, [x, *eager.parameters()], retain_graph=True)
    warm(layer, leaf(N, 4, seed=5), G).square().sum().backward()  # others use the same memory in between
    second = torch.autograd.grad(y, [x, *eager.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with torch.autograd.graph.save_on_cpu():
        y = layer(x, G).square().sum()
    assert torch.equal(torch.autograd.grad(y, [x])[0], first[0])


@pytest.mark.parametrize("name", [pytest.param("rgat", marks=pytest.mark.slow), "hgt"])
def test_saved_values_of_a_small_call_are_one_tensor(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    eager = layer_of(name)
    layer = columba.compile(eager, backend="cpp")
    x = leaf(N, 4)
    leaves = [x, *eager.parameters()]
    y = warm(layer, x, G)
    assert [t.dtype for t in y.grad_fn.saved_tensors].count(torch.uint8) == 1
    packed = torch.autograd.grad(y.square().sum(), leaves, retain_graph=True)
    unpacked = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)  # through the operators
    monkeypatch.setattr("columba.runtime.cpp.launch.SMALL", 0)
    y = warm(layer, x, copy.deepcopy(G))
    assert all(t.dtype is not torch.uint8 for t in y.grad_fn.saved_tensors)
    apart = torch.autograd.grad(y.square().sum(), leaves)
    for a, b, c in zip(packed, unpacked, apart, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 7, 1), (0, 16), (16, 0), (3,), (5, 4, 1), (34, 16)])
def test_tensors_like_a_pattern_are_contiguous(shape: tuple[int, ...]) -> None:
    made = torch.empty_like(_pattern(shape, torch.bfloat16))
    assert (made.shape, made.dtype, made.stride()) == (torch.Size(shape), torch.bfloat16, torch.empty(shape).stride())
    assert made.untyped_storage().nbytes() == 2 * made.numel()


# ------------------------------------------------------------------------------------------------ memory


def test_results_that_are_kept_do_not_change() -> None:
    layer = columba.compile(layer_of("hgt"), backend="cpp")
    kept = [layer(leaf(N, 4, seed=n), G) for n in range(6)]
    copies = [y.detach().clone() for y in kept]
    view = kept[0][1:, :2]
    deep = copy.deepcopy(kept[1].detach())
    for n in range(6, 12):
        layer(leaf(N, 4, seed=n), G).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))
    assert torch.equal(view, copies[0][1:, :2])
    assert torch.equal(deep, copies[1])


def test_threads() -> None:
    eager = layer_of("rgat")
    layer = columba.compile(eager, backend="cpp")
    inputs = [(leaf(g.num_nodes, 4, seed=n), g) for n, g in enumerate([G, HUB] * 4)]
    wanted = [torch.autograd.grad(eager(x, g).square().sum(), [x])[0] for x, g in inputs]
    wrong: list[int] = []

    def work(n: int) -> None:
        x, g = inputs[n]
        for _ in range(40):
            (found,) = torch.autograd.grad(layer(x, g).square().sum(), [x])
            if not torch.allclose(found, wanted[n]):
                wrong.append(n)

    running = [threading.Thread(target=work, args=(n,)) for n in range(len(inputs))]
    for t in running:
        t.start()
    for t in running:
        t.join()
    assert not wrong


@pytest.mark.parametrize("shape", [(), (3,), (0,), (0, 4), (3, 0, 2), (2, 3, 4), (5, 0), (1, 1)])
def test_strides_are_those_of_contiguous_tensors(shape: tuple[int, ...]) -> None:
    assert _strides(shape) == torch.empty(shape).stride()


def test_scratch_blocks() -> None:
    pool = Scratch(limit=10_000)
    first = pool.take(4_000)
    assert first.base % 64 == 0
    pool.give(first)
    assert pool.take(100) is first
    pool.give(first)
    larger = pool.take(5_000)
    assert larger is not first
    assert pool.kept == 0  # a block that was too small is given up
    others = [pool.take(4_000) for _ in range(3)]
    assert len({b.base for b in (larger, *others)}) == 4
    for b in (larger, *others):
        pool.give(b)
    assert pool.kept == 9_000
    assert pool.release() == 9_000
    assert pool.kept == 0
    pool.give(Block(20_000))
    assert pool.kept == 0


def test_scratch_is_kept_between_calls_and_can_be_released() -> None:
    layer = columba.compile(layer_of("rgcn"), backend="cpp", passes=PAIRS)  # the other variants need none
    warm(layer, leaf(N, 4), G)
    assert scratch.kept > 0
    scratch.release()
    assert scratch.kept == 0
    torch.testing.assert_close(layer(leaf(N, 4), G), layer_of("rgcn")(leaf(N, 4), G))


def test_a_graph_is_not_kept_alive() -> None:
    layer = columba.compile(layer_of("rgcn"), backend="cpp")
    graph = columba.Graph(G.edge_index, G.edge_type, num_nodes=N, num_relations=RELATIONS)
    warm(layer, leaf(N, 4), graph)
    seen = weakref.ref(graph)
    del graph
    gc.collect()
    assert seen() is None
    assert layer(leaf(N, 4), G).shape == (N, 6)


def test_copies_of_graphs_run_for_themselves() -> None:
    eager = layer_of("rgcn")
    layer = columba.compile(eager, backend="cpp")
    warm(layer, leaf(N, 4), G)
    other = copy.deepcopy(G)
    assert other is not G
    assert_same(layer, eager, [leaf(N, 4), other])


def test_shortcuts_are_given_up_where_they_do_not_help(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = shortcuts._code
    monkeypatch.setattr(shortcuts, "_code", lambda text: made.append(1) or original(text))
    layer = columba.compile(layer_of("rgcn"), backend="cpp")
    for n in range(60):
        graph = columba.Graph(G.edge_index, G.edge_type, num_nodes=N, num_relations=RELATIONS)
        layer(leaf(N, 4, seed=n), graph)
    assert len(made) == 1, "a new graph every time, as with mini-batches: guards alone become code, once"
    for _ in range(100):  # two graphs in turn, each twice
        warm(layer, leaf(N, 4), G, calls=2)
        warm(layer, leaf(HUB.num_nodes, 4), HUB, calls=2)
    assert len(made) < 12


def test_no_modes() -> None:
    assert fast_path.no_modes()
    with torch.profiler.profile():
        assert not fast_path.no_modes()
    with torch._subclasses.FakeTensorMode():
        assert not fast_path.no_modes()
    assert not torch.func.vmap(lambda x: x * fast_path.no_modes())(torch.ones(2)).any()


def test_saved_values_are_not_shared_while_a_graph_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pooled, "SMALL", 0)  # every tensor comes from the pool
    eager = layer_of("hgt")
    layer = columba.compile(eager, backend="cpp")
    graph = copy.deepcopy(G)
    inputs = [leaf(N, 4, seed=n) for n in range(4)]
    pending = [layer(x, graph).square().sum() for x in inputs]
    for x, y in reversed(list(zip(inputs, pending, strict=True))):
        (wanted,) = torch.autograd.grad(eager(x, graph).square().sum(), [x])
        torch.testing.assert_close(torch.autograd.grad(y, [x], retain_graph=True)[0], wanted)
        torch.testing.assert_close(torch.autograd.grad(y, [x])[0], wanted)
    del pending, y
    gc.collect()
    assert pooled.release() > 0
    assert pooled.kept == 0


def test_a_view_keeps_its_block() -> None:
    pool = Pooled(limit=2**30)
    value = pool.empty((512, 1024), torch.float32)
    value.fill_(3)
    view = value[100:101]
    del value
    gc.collect()
    assert pool.kept == 0
    pool.empty((512, 1024), torch.float32).fill_(4)
    assert bool((view == 3).all())
    del view
    gc.collect()
    assert pool.kept > 0


def test_batch_norm_in_training(long_ways: list[int]) -> None:
    class Normed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = layer_of("rgat"), torch.nn.BatchNorm1d(6).double()

        def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
            return self.norm(self.conv(h, g))  # type: ignore[no-any-return]

    eager = Normed()
    model = columba.compile(copy.deepcopy(eager))
    for step in range(8):
        h = torch.randn(N, 4, dtype=torch.float64, requires_grad=True)
        results = []
        for one in (model, eager):
            out = one(G, h)
            results.append((out, torch.autograd.grad(out.square().sum(), h), dict(one.state_dict())))
        torch.testing.assert_close(*results)
        if step == 4:
            long_ways.clear()
    assert not long_ways


def test_what_cannot_be_referred_to_weakly() -> None:
    pair = collections.namedtuple("pair", "a b")

    @columba.compile(backend="cpp")
    def both(g: columba.Graph, h: Tensor) -> Any:
        found = pair(g.edges.sum(g.edges.src(h)), h)
        return found.a * 2

    h = torch.randn(N, 4, dtype=torch.float64)
    for _ in range(4):
        torch.testing.assert_close(both(G, h), both.fn(G, h))


def test_class_members_and_keys_of_typed_tables() -> None:
    """A static method that a class gives away by calling it, and tables whose keys are tuples, as those of edge types are."""

    class Collected(NamedTuple):
        first: Tensor
        second: Tensor

    @columba.compile(backend="cpp")
    def both(g: columba.Graph, tables: dict[Any, Tensor]) -> Any:
        found = Collected(g.edges.sum(g.edges.src(tables["a", "to", "b"])), tables["b", "to", "a"])
        return found.first * found.second

    tables = {
        ("a", "to", "b"): torch.randn(N, 4, dtype=torch.float64),
        ("b", "to", "a"): torch.randn(N, 4, dtype=torch.float64),
    }
    for _ in range(4):
        torch.testing.assert_close(both(G, tables), both.fn(G, tables))
    assert both._own[0].shortcut is not None
    other = {key: x + 1 for key, x in tables.items()}
    torch.testing.assert_close(both(G, other), both.fn(G, other))
    Collected.__new__ = staticmethod(lambda cls, first, second: tuple.__new__(cls, (first, first)))
    torch.testing.assert_close(both(G, tables), both.fn(G, tables))


class PerKind(torch.nn.Module):
    """A layer for each key of a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 3), "b": torch.nn.Linear(4, 3)})

    def forward(self, g: columba.Graph, tables: dict[Any, Any]) -> dict[Any, Any]:
        kinds = {k: layer(tables[k]) for k, layer in self.layers.items() if k in tables}
        edges = {k: v * 2.0 for k, v in tables.items() if k not in kinds}
        return {k: g.edges.sum(g.edges.src(v)) for k, v in [*kinds.items(), *edges.items()]}


@pytest.mark.slow
@pytest.mark.unoptimized
def test_dictionaries(long_ways: list[int]) -> None:
    """Other keys, another order of them, other values, other modules: what a shortcut was made for is looked at."""
    eager = PerKind().double()
    model = columba.compile(eager, backend="cpp")
    g = columba.Graph(torch.tensor([[0, 1, 2], [2, 2, 0]]), num_nodes=3)
    a, b, c = (torch.randn(3, 4, dtype=torch.float64) for _ in range(3))
    edge = ("a", "to", "b")
    calls: list[dict[Any, Any]] = [
        {"a": a, "b": b, edge: c},
        {edge: c, "b": b, "a": a},
        {"a": a, edge: c},
        {"a": a, edge: c, 1: b},
    ]
    calls += [
        {"a": a, edge: c, True: b},
        {"a": a, ("a", "to", 1): c},
        {"a": a, edge: 3.0 * c},
    ]

    def check(tables: dict[Any, Any]) -> None:
        expected, found = eager(g, tables), model(g, dict(tables))
        assert [(type(k), k) for k in found] == [(type(k), k) for k in expected]
        torch.testing.assert_close(found, expected)

    for tables in calls:
        for _ in range(3):
            check(tables)
        before = len(long_ways)
        check(tables)
        assert len(long_ways) == before
        check(calls[0])
    check({"a": a, edge: c, 1.0: b})
    layers = dict(eager.layers)
    for changed in ({"b": layers["b"], "a": layers["a"]}, {"a": layers["b"], "b": layers["b"]}, {"a": layers["a"]}):
        for module in (eager, model):
            module.layers._modules = dict(changed)
        check(calls[0])
    with pytest.raises(TypeError):
        model(g, {"a": a, "b": None, edge: None})
    check(calls[0])


def test_generators_that_are_collected_while_a_function_is_traced() -> None:
    """A generator that nobody needs any more is closed in the midst of a trace, which does not depend on whose it was."""

    class Reader:
        __slots__ = ("lines",)

        def read(self) -> Iterator[int]:
            yield from range(3)

    @columba.compile(backend="cpp")
    def summed(g: columba.Graph, h: Tensor) -> Tensor:
        gc.collect()
        return g.edges.sum(g.edges.src(h))

    lines = Reader().read()
    next(lines)
    circle: list[Any] = [lines]
    circle.append(circle)
    del lines, circle
    for _ in range(4):
        summed(G, torch.randn(N, 4, dtype=torch.float64))
    assert summed._own[0].shortcut is not None
