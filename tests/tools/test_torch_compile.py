"""``torch.compile`` around compiled functions and modules, which become operators of its graph, and inside of them."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

import columba
from columba.runtime import opaque

pytestmark = pytest.mark.unoptimized

RELATIONS = 3
CALL = torch.ops.columba.call.default


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(7)
    yield
    torch._dynamo.reset()


def edges(nodes: int, count: int) -> tuple[Tensor, Tensor]:
    return torch.randint(nodes, (2, count)), torch.randint(RELATIONS, (count,))


def graph(nodes: int = 5, count: int = 9) -> columba.Graph:
    return columba.Graph(*edges(nodes, count), num_nodes=nodes, num_relations=RELATIONS)


def features(nodes: int) -> Tensor:
    return torch.randn(nodes, 4, dtype=torch.float64, requires_grad=True)


class Net(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = columba.nn.RGATConv(4, 4, RELATIONS, heads=2)
        self.norm = nn.LayerNorm(8)
        self.dropout = nn.Dropout(dropout)
        self.second = columba.nn.RGCNConv(8, 3, RELATIONS)
        self.double()

    def forward(self, x: Tensor, *graph: Any) -> Tensor:
        return self.second(self.dropout(F.relu(self.norm(self.first(x, *graph)))), *graph)


class Around(nn.Module):
    """A model that holds compiled layers."""

    def __init__(self, backend: str = "torch") -> None:
        super().__init__()
        self.before = nn.Linear(4, 4)
        self.layer = columba.compile(columba.nn.RGCNConv(4, 4, RELATIONS), backend=backend)
        self.double()

    def forward(self, x: Tensor, *graph: Any) -> Tensor:
        h = F.relu(self.layer(self.before(x), *graph))
        return (self.layer(h, *graph) * h).sum(-1)


def assert_same(found: Any, expected: Any) -> None:
    for a, b in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        if isinstance(b, Tensor):
            torch.testing.assert_close(a, b)
        else:
            assert a == b


def gradients(out: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return torch.autograd.grad((out * weights).sum(), leaves)


def check(
    run: Callable[..., Tensor], expected: Callable[..., Tensor], x: Tensor, *args: Any, weights: Any = ()
) -> None:
    """Values and gradients."""
    weights = list(weights)
    found, wanted = run(x, *args), expected(x, *args)
    assert_same(found, wanted)
    assert_same(gradients(found, [x, *weights]), gradients(wanted, [x, *weights]))


def operators(counter: Any) -> list[Any]:
    """What is called in the graph compiled last."""
    return [n.target for n in counter.graphs[-1].graph.nodes if n.op == "call_function" and n.target != _GETITEM]


_GETITEM = __import__("operator").getitem


# ------------------------------------------------------------------------------------------------ around


@pytest.mark.parametrize(
    "backend",
    ["aot_eager", pytest.param("eager", marks=pytest.mark.slow), pytest.param("inductor", marks=pytest.mark.slow)],
)
def test_a_compiled_model_is_one_operator_for_graphs_of_all_sizes(backend: str) -> None:
    plain = Net()
    model = columba.compile(plain, backend="cpp")
    counter = CompileCounterWithBackend(backend)
    whole = torch.compile(model, fullgraph=True, backend=counter)
    for nodes, count in ((5, 9), (7, 20), (11, 3), (30, 50)):
        check(whole, plain, features(nodes), graph(nodes, count), weights=plain.parameters())
    assert counter.frame_count <= 2  # the second for sizes that are not fixed
    assert operators(counter) == [CALL]


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [True, None])
def test_compiled_layers_in_a_model(dynamic: bool | None) -> None:
    model = Around("cpp")
    plain = Around()
    plain.layer = columba.compile(plain.layer, disable=True)
    plain.load_state_dict(model.state_dict())
    counter = CompileCounterWithBackend("aot_eager")
    whole = torch.compile(model, fullgraph=True, backend=counter, dynamic=dynamic)
    for nodes in (5, 6, 9):
        x, g = features(nodes), graph(nodes, 3 * nodes)
        assert_same(whole(x, g), plain(x, g))
        found = gradients(whole(x, g), [x, *model.parameters()])
        assert_same(found, gradients(plain(x, g), [x, *plain.parameters()]))
    assert counter.frame_count == (1 if dynamic else 2)
    assert operators(counter).count(CALL) == 2


WEIGHT = torch.randn(RELATIONS, 4, 4, dtype=torch.float64, requires_grad=True)
HELD = graph()


@columba.compile(backend="torch")
def relational(g: columba.Graph, h: Tensor, power: int = 1) -> Tensor:
    return g.edges.sum(columba.linear(g.edges.src(h), g.edges.rel(WEIGHT))) ** power


@columba.compile(backend="torch")
def on_a_graph_held(h: Tensor) -> Tensor:
    return HELD.edges.sum(HELD.edges.src(h))


def test_functions_and_graphs_of_every_origin() -> None:
    """Arguments, globals, and what is enclosed."""
    enclosed = graph()

    def step(x: Tensor, g: columba.Graph) -> Tensor:
        return relational(g, x) + relational(enclosed, x, power=2) + on_a_graph_held(x)

    whole = torch.compile(step, fullgraph=True, backend="aot_eager")
    check(whole, step, features(5), graph(), weights=[WEIGHT])


def test_graphs_of_tensors() -> None:
    """Made by the layer, or by ``as_graph`` outside of it; written to in place."""
    layer = columba.compile(columba.nn.RGCNConv(4, 4, RELATIONS).double(), backend="torch")

    def by_layer(x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        return layer(x, edge_index, edge_type)

    def once(x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        g = columba.as_graph(edge_index, edge_type, num_nodes=x.shape[0], num_relations=RELATIONS)
        return layer(layer(x, g).relu(), g)

    for step in (by_layer, once):
        counter = CompileCounterWithBackend("eager")
        whole = torch.compile(step, fullgraph=True, backend=counter)
        for nodes in (5, 6, 9):
            x, (edge_index, edge_type) = features(nodes), edges(nodes, 3 * nodes)
            check(whole, step, x, edge_index, edge_type)
            edge_index[:, 0] = nodes - 1
            edge_type.zero_()
            check(whole, step, x, edge_index, edge_type)
        assert counter.frame_count <= 2


def test_as_graph_without_sizes() -> None:
    layer = columba.compile(columba.nn.RGCNConv(4, 4, RELATIONS).double(), backend="torch")

    def step(x: Tensor, edge_index: Tensor) -> Tensor:
        return layer(x, columba.as_graph(edge_index, num_relations=RELATIONS))

    whole = torch.compile(step, fullgraph=True, backend="eager")
    for last in (4, 3):
        edge_index = torch.tensor([[0, 1, last], [1, 2, 0]])
        check(whole, step, features(last + 1), edge_index)


def test_a_graph_made_inside_is_a_break_that_says_why() -> None:
    layer = columba.compile(columba.nn.RGCNConv(4, 4, RELATIONS).double(), backend="torch")
    edge_index, edge_type = edges(5, 9)

    def step(x: Tensor) -> Tensor:
        return layer(x, columba.Graph(edge_index, edge_type, num_nodes=5, num_relations=RELATIONS))

    with pytest.raises(
        torch._dynamo.exc.Unsupported, match=r"Graph is made inside of torch.compile.*use columba.as_graph"
    ):
        torch.compile(step, fullgraph=True, backend="eager")(features(5))
    check(torch.compile(step, backend="eager"), step, features(5))


@pytest.mark.slow
def test_what_a_trace_depends_on_is_guarded() -> None:
    model = columba.compile(Net(0.5), backend="torch").eval()
    g, x = graph(), features(5)
    whole = torch.compile(model, fullgraph=True, backend="eager")

    def check_now() -> None:
        for _ in range(2):
            state = torch.get_rng_state()
            found = whole(x, g)
            found_gradients = gradients(found, [x])
            torch.set_rng_state(state)
            expected = model(x, g)
            assert_same(found, expected)
            assert_same(found_gradients, gradients(expected, [x]))

    check_now()
    model.train()
    check_now()
    model.eval()
    check_now()
    model.first.negative_slope = 0.5
    check_now()
    model.second.weight = nn.Parameter(torch.ones_like(model.second.weight))
    check_now()
    with torch.no_grad():
        assert_same(whole(x, g), model(x, g))
        model.second.weight.mul_(2)
    with torch.inference_mode():
        assert_same(whole(x, g), model(x, g))
    check_now()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="has shape"):
        whole(features(6), g)
    check_now()


def test_objects_among_the_arguments() -> None:
    class Settings:
        power = 2

    settings = Settings()
    settings.factor = 3.0  # type: ignore[attr-defined]

    @columba.compile(backend="torch")
    def scaled(g: columba.Graph, h: Tensor, how: Settings, names: dict[str, float]) -> Tensor:
        return g.edges.sum(g.edges.src(h)) ** how.power * how.factor + names["x"]  # type: ignore[attr-defined]

    g, h = graph(), features(5)
    whole = torch.compile(scaled, fullgraph=True, backend="eager")
    for factor, power, names in (
        (3.0, 2, {"x": 1.0}),
        (5.0, 2, {"x": 1.0}),
        (5.0, 3, {"x": 1.0}),
        (5.0, 3, {"x": 2.0}),
    ):
        settings.factor, settings.power = factor, power  # type: ignore[attr-defined]
        assert_same(whole(g, h, settings, names), scaled(g, h, settings, names))


@pytest.mark.slow
def test_attributes_that_the_same_code_has_set() -> None:
    """Dynamo has read the assignment; Python has not run it yet."""
    model, g, x = columba.compile(Net(0.5), backend="torch"), graph(), features(5)

    def step(x: Tensor) -> Tensor:
        model.eval()
        out: Tensor = model(x, g)
        model.train()
        return out

    model.train()
    check(torch.compile(step, backend="eager"), step, x)
    assert any("the attribute 'training' of a Net has been set before" in reason for reason in counters["graph_break"])


def test_several_programs_and_graphs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = columba.nn.RGCNConv(4, 4, RELATIONS)
            self.second = columba.nn.RGCNConv(4, 4, RELATIONS)
            self.double()

        def forward(self, x: Tensor, g: columba.Graph, other: columba.Graph) -> Tensor:
            return self.second(self.first(x, g).cumsum(0).relu(), other)

    plain = Two()
    counter = CompileCounterWithBackend("aot_eager")
    whole = torch.compile(columba.compile(plain, backend="torch"), fullgraph=True, backend=counter)
    for nodes in (5, 7):
        check(whole, plain, features(nodes), graph(nodes), graph(nodes, 20), weights=plain.parameters())
    assert operators(counter) == [CALL]


@pytest.mark.slow
def test_autocast() -> None:
    model = columba.compile(Net().float(), backend="torch")
    g, x = graph(), torch.randn(5, 4)
    whole = torch.compile(model, fullgraph=True, backend="aot_eager")

    def inside(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(x, g)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(whole(x, g), model(x, g))
    assert_same(whole(x, g), model(x, g))
    for backend in ("eager", "aot_eager"):
        assert_same(torch.compile(inside, fullgraph=True, backend=backend)(x), inside(x))


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = columba.nn.RGCNConv(4, 4, RELATIONS)
        self.norm = nn.BatchNorm1d(4)
        self.double()

    def forward(self, x: Tensor, g: columba.Graph) -> Tensor:
        return self.norm(self.layer(x, g))


def test_buffers_are_written() -> None:
    model = columba.compile(Normed(), backend="torch")
    other = copy.deepcopy(model)
    whole = torch.compile(model, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        x, g = features(5), graph()
        assert_same(gradients(whole(x, g), [x]), gradients(other(x, g), [x]))
    assert_same(list(model.buffers()), list(other.buffers()))
    assert int(model.norm.num_batches_tracked) == 2


def test_functional_call() -> None:
    model = columba.compile(Net(), backend="torch")
    g, x = graph(), features(5)
    weights = {name: 2 * p.detach() for name, p in model.named_parameters()}

    def step(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        out: Tensor = torch.func.functional_call(model, weights, (x, g))
        return out

    for w in weights.values():
        w.requires_grad_()
    check(torch.compile(step, fullgraph=True, backend="eager"), step, x, weights, weights=weights.values())


def test_checkpoint_draws_the_same_again() -> None:
    model = columba.compile(Net(0.5), backend="torch")
    g, x = graph(), features(5)
    whole = torch.compile(lambda x: checkpoint(model, x, g, use_reentrant=False), fullgraph=True, backend="aot_eager")
    torch.manual_seed(3)
    found = gradients(whole(x), [x])
    torch.manual_seed(3)
    assert_same(found, gradients(model(x, g), [x]))


def test_results_of_all_kinds() -> None:
    @columba.compile(backend="torch")
    def several(g: columba.Graph, h: Tensor, w: Tensor) -> Any:
        e = g.edges
        m = e.sum(e.src(h))
        inner = (m[:, 1:], e.src(h) * 2, e.mean(e.src(h), to="one"))
        return {"m": m, "h": h, "n": g.num_nodes, "inner": inner, "r": e.sum(e.src(h), to="rel"), "w": w.t(), "s": "x"}

    counter = CompileCounterWithBackend("eager")
    whole = torch.compile(several, fullgraph=True, backend=counter)
    w = torch.randn(2, 3)
    for nodes in (5, 8, 13):
        g, h = graph(nodes, 2 * nodes), features(nodes)
        found = whole(g, h, w)
        assert_same(found, several(g, h, w))
        assert found["h"] is h
        assert found["n"] == nodes
    assert counter.frame_count == 2


def test_what_the_backward_pass_needs_lives_as_long_as_it_can_be_asked_for() -> None:
    gc.collect()  # what failed calls of other tests have left in cycles
    before = len(opaque._saved)
    model = columba.compile(Net(), backend="torch")
    for backend in ("aot_eager",):
        whole = torch.compile(model, fullgraph=True, backend=backend)
        x, g = features(5), graph()
        out = whole(x, g)
        assert len(opaque._saved) == before + 1
        out.sum().backward(retain_graph=True)
        out.sum().backward()
        del out
        assert len(opaque._saved) == before
        with torch.no_grad():
            whole(x, g)
        assert len(opaque._saved) == before


def test_unused_inputs_and_results() -> None:
    @columba.compile(backend="torch")
    def two(g: columba.Graph, h: Tensor, unused: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        return g.edges.sum(g.edges.src(h)), g.edges.max(g.edges.src(h * 2))

    g, h, unused = graph(), features(5), features(5)
    whole = torch.compile(two, fullgraph=True, backend="aot_eager")
    for n in (0, 1):
        args = (g, h, unused, torch.arange(3))
        found = torch.autograd.grad(whole(*args)[n].sum(), [h, unused], allow_unused=True)
        assert_same(found[0], torch.autograd.grad(two(*args)[n].sum(), [h])[0])
        assert found[1] is None or not found[1].any()


# ------------------------------------------------------------------------------------------------ breaks


class Breaks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = columba.nn.RGCNConv(4, 4, RELATIONS)
        self.second = columba.nn.RGCNConv(4, 4, RELATIONS)
        self.double()

    def forward(self, x: Tensor, g: columba.Graph) -> Tensor:
        h = self.first(x, g)
        return h if h.sum().item() > 1e9 else self.second(h, g)


def observed(module: nn.Module) -> nn.Module:
    module.first.register_forward_hook(lambda *_: None)
    return module


BREAKS = {
    "item": (lambda: columba.compile(Breaks(), backend="torch"), "item needs the values of a tensor"),
    "hooks": (lambda: observed(columba.compile(Net(), backend="torch")), "hooks of inner modules observe"),
    "pairs": (
        lambda: columba.compile(lambda x, g: g.edges.sum(g.edges.src(x), to="dst_rel"), backend="torch"),
        "number of rows of space dst_rel",
    ),
}


@pytest.mark.parametrize("name", ["item", *(pytest.param(n, marks=pytest.mark.slow) for n in ("hooks", "pairs"))])
def test_what_cannot_be_an_operator_is_a_break_that_says_why(name: str) -> None:
    make, why = BREAKS[name]
    model = make()  # type: ignore[no-untyped-call]
    x, g = features(5), graph()
    check(model, model, x, g)
    check(torch.compile(lambda x: model(x * 2, g) * 2, backend="eager"), lambda x: model(x * 2, g) * 2, x)
    assert any(why in reason for reason in counters["graph_break"])
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=why):
        torch.compile(model, fullgraph=True, backend="eager")(x, g)
    check(model, model, x, g)


def test_where_dynamo_has_other_insides(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in other versions of PyTorch."""

    def value(*_: Any) -> Any:
        raise AttributeError("no 'items'")

    model, x, g = columba.compile(Net(), backend="torch"), features(5), graph()
    monkeypatch.setattr("columba.calls.dynamo._Frame.value", value)
    check(torch.compile(model, backend="eager"), model, x, g)
    assert any(
        "does not become an operator of torch.compile's graph: AttributeError: no 'items'" in reason
        for reason in counters["graph_break"]
    )


# ------------------------------------------------------------------------------------------------ inside


def test_inside_a_compiled_model() -> None:
    """It runs as it is, between regions."""

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = columba.nn.RGCNConv(4, 4, RELATIONS)
            self.middle = torch.compile(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), backend="aot_eager")
            self.second = columba.nn.RGCNConv(4, 4, RELATIONS)
            self.double()

        def forward(self, x: Tensor, g: columba.Graph) -> Tensor:
            return self.second(self.middle(self.first(x, g)), g)

    plain = Inside()
    model = columba.compile(plain, backend="torch")
    for nodes in (5, 7):
        check(model, plain, features(nodes), graph(nodes), weights=plain.parameters())
    found = columba.explain(model, features(5), graph())
    assert [region.name for region in found.regions] == ["first", "second"]
    assert "is compiled by torch.compile, into kernels of its own" in found.breaks[0].reason


def test_inside_a_compiled_function() -> None:
    middle = torch.compile(nn.Linear(4, 4).double(), backend="eager")
    for step in (lambda g, x: g.edges.sum(middle(g.edges.src(x))), lambda g, x: g.edges.sum(g.edges.src(middle(x)))):
        with pytest.raises(columba.TraceError, match=r"is compiled by torch.compile, .* _orig_mod"):
            columba.compile(step, backend="torch")(graph(), features(5))
    inner = middle._orig_mod
    whole = columba.compile(lambda g, x: g.edges.sum(inner(g.edges.src(x))), backend="torch")
    g, x = graph(), features(5)
    assert_same(whole(g, x), g.edges.sum(inner(g.edges.src(x))))
