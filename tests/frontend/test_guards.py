"""What a trace depends on is noticed when it changes; and what cannot be compiled is refused with a message that helps."""

from __future__ import annotations

import copy
import pickle
import re
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compiled import assert_same, leaf
from eager_graphs import RELATIONS, bipartite_graph, square_graphs
from torch import Tensor, nn
from torch.nn.utils import parametrize

import columba
from columba.calls.function import CompiledFunction

pytestmark = pytest.mark.unoptimized

GRAPHS = square_graphs()
G = GRAPHS["random"]
N = G.num_nodes
SCALE = 2.0


def traces_of(function: CompiledFunction, owner: Any = None) -> int:
    return len(function._own if owner is None else function._of_modules[owner])


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(RELATIONS, 3, 3, dtype=torch.float64))
        self.bias: nn.Parameter | None = None
        self.slope = 0.1
        self.options = {"power": 1, "names": ["a"]}
        self.config = types.SimpleNamespace(scale=1.0)
        self.inner = nn.ModuleList([nn.Linear(3, 3, dtype=torch.float64)])
        self.register_buffer("shift", torch.ones(3, dtype=torch.float64))

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        e = g.edges
        out = e.sum(F.leaky_relu(columba.linear(e.src(h), e.rel(self.weight)), self.slope))
        for module in self.inner:
            out = module(out)
        out = out * self.config.scale * SCALE ** self.options["power"] + self.shift
        if self.bias is not None:
            out = out + self.bias
        return out * 3 if self.training else out


CHANGES: dict[str, Callable[[Layer], Any]] = {
    "attribute": lambda m: setattr(m, "slope", 0.5),
    "in a dict": lambda m: m.options.update(power=2),
    "in an object": lambda m: setattr(m.config, "scale", 0.3),
    "training mode": lambda m: m.eval(),
    "parameter that was None": lambda m: setattr(m, "bias", nn.Parameter(torch.ones(3, dtype=torch.float64))),
    "parameter's values": lambda m: m.weight.data.mul_(2),
    "replaced parameter": lambda m: setattr(
        m, "weight", nn.Parameter(torch.randn(RELATIONS, 3, 3, dtype=torch.float64))
    ),
    "replaced buffer": lambda m: setattr(m, "shift", torch.full((3,), 7.0, dtype=torch.float64)),
    "longer list of modules": lambda m: m.inner.append(nn.Linear(3, 3, dtype=torch.float64)),
    "replaced module": lambda m: (
        m.inner.__setitem__(0, nn.Linear(3, 5, dtype=torch.float64)) or setattr(m, "shift", torch.ones(5).double())
    ),
    "hook": lambda m: m.inner[0].register_forward_hook(lambda module, args, out: out * 2),
    "parametrization": lambda m: parametrize.register_parametrization(m.inner[0], "weight", nn.Softplus()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_a_module_are_noticed(change: str) -> None:
    torch.manual_seed(0)
    module = Layer()
    compiled = columba.compile(module, backend="torch")
    h = leaf(N, 3)
    assert_same(compiled, module, [G, h], list(module.parameters()))
    before = module(G, h)
    CHANGES[change](module)
    after = module(G, h)
    assert before.shape != after.shape or not torch.allclose(before, after)
    assert_same(compiled, module, [G, h], list(module.parameters()))


def test_globals_and_enclosing_variables_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    factor, table = 2.0, torch.ones(3, dtype=torch.float64)

    @columba.compile(backend="torch")
    def layer(g: columba.Graph, h: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(h)) * factor * SCALE * table

    h = torch.ones(N, 3, dtype=torch.float64)
    first = layer(G, h)
    factor = 3.0
    torch.testing.assert_close(layer(G, h), first * 1.5)
    monkeypatch.setitem(globals(), "SCALE", 4.0)
    torch.testing.assert_close(layer(G, h), first * 3)
    table = torch.full((3,), 2.0, dtype=torch.float64)
    torch.testing.assert_close(layer(G, h), first * 6)


def test_what_does_not_matter_does_not_retrace() -> None:
    module = Layer()
    compiled = columba.compile(module, backend="torch")
    function = type(compiled).forward
    for graph in GRAPHS.values():
        assert_same(compiled, module, [graph, leaf(graph.num_nodes, 3)])
    module.unrelated = 5
    compiled(G, leaf(N, 3))
    assert traces_of(function, compiled) == 1


IDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "embedding": lambda w, ids: F.embedding(ids, w),
    "rows of a table": lambda w, ids: w[ids],
    "one-hot": lambda w, ids: F.one_hot(ids, 5).double() @ w,
    "several columns": lambda w, ids: sum(F.embedding(c, w) for c in torch.stack([ids, 4 - ids], 1).unbind(1)),
    "as numbers": lambda w, ids: F.embedding(ids.int().unsqueeze(-1).long().select(-1, 0), w),
    "sums of ids": lambda w, ids: F.embedding(ids + 4 - 2 * ids, w),
}
"""Features of nodes that PyTorch makes of ids."""


@pytest.mark.parametrize("how", IDS)
def test_ids_of_any_number_of_nodes_do_not_retrace(how: str) -> None:
    """Ids have a row for each node because of what is made of them; a batch of other graphs has others."""

    def layer(g: columba.Graph, ids: Tensor, w: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(IDS[how](w, ids)))

    compiled = columba.compile(layer, backend="torch")
    for graph in GRAPHS.values():
        if graph.num_nodes != 1:  # one row could stand for all of another tensor: that is another trace
            assert_same(compiled, layer, [graph, torch.arange(graph.num_nodes) % 5, leaf(5, 3)])
    assert traces_of(compiled) == 1
    with pytest.raises(ValueError, match=f"one row per row of space node.*the graph has {N} nodes"):
        compiled(G, torch.zeros(N + 1, dtype=torch.long), leaf(5, 3))


def test_a_table_of_another_size_retraces() -> None:
    """What is not carried to the rows is guarded in all of its dimensions."""

    def layer(g: columba.Graph, ids: Tensor, w: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(F.embedding(ids, w) / w.sum(0).numel())) * w.shape[0]

    compiled = columba.compile(layer, backend="torch")
    for rows in (5, 7, 5):
        assert_same(compiled, layer, [G, torch.arange(N) % 5, leaf(rows, 3)])
    assert traces_of(compiled) == 2

    def counted(g: columba.Graph, ids: Tensor, w: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(F.embedding(ids, w) * ids.shape[0]))

    compiled = columba.compile(counted, backend="torch")
    for name in ("random", "hub", "random"):
        assert_same(compiled, counted, [GRAPHS[name], torch.arange(GRAPHS[name].num_nodes) % 5, leaf(5, 3)])
    assert traces_of(compiled) == 2


@pytest.mark.parametrize(
    "second", [leaf(N, 4), leaf(N, 3, dtype=torch.float32), leaf(N, 3, 2)], ids=["width", "dtype", "rank"]
)
def test_shapes_and_dtypes_retrace(second: Tensor) -> None:
    def layer(g: columba.Graph, h: Tensor) -> Tensor:
        return g.edges.mean(g.edges.src(h) * h.shape[-1])

    compiled = columba.compile(layer, backend="torch")
    for h in (leaf(N, 3), second, leaf(N, 3)):
        assert_same(compiled, layer, [G, h])
    assert traces_of(compiled) == 2


def test_python_arguments_retrace() -> None:
    def layer(g: columba.Graph, h: Tensor, *, mode: str = "sum", power: float = 1) -> dict[str, Any]:
        return {"out": getattr(g.edges, mode)(g.edges.src(h)) ** power, "mode": mode, "rows": h.shape[0]}

    compiled = columba.compile(layer, backend="torch")
    h = leaf(N, 3)
    for kwargs in ({}, {"mode": "max"}, {"power": 2}, {"mode": "max"}):
        wanted, got = layer(G, h, **kwargs), compiled(G, h, **kwargs)
        torch.testing.assert_close(got["out"], wanted["out"])
        assert got["mode"] == wanted["mode"]
        assert got["rows"] == N


def test_a_number_of_rows_in_arithmetic_is_guarded() -> None:
    def layer(g: columba.Graph, h: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(h)) / g.num_nodes + h.shape[0] * 2

    compiled = columba.compile(layer, backend="torch")
    for graph in (G, GRAPHS["hub"], G):
        assert_same(compiled, layer, [graph, leaf(graph.num_nodes, 3)])
    assert traces_of(compiled) == 2


def test_sizes_of_one_do_not_mislead() -> None:
    def layer(g: columba.Graph, h: Tensor, b: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(h)) + b

    compiled = columba.compile(layer, backend="torch")
    one = GRAPHS["one_node"]
    for graph, rows in ((one, 1), (G, 1), (G, N), (one, 1)):
        assert_same(compiled, layer, [graph, leaf(graph.num_nodes, 3), leaf(rows, 3)])


def test_arguments_that_were_the_same_tensor() -> None:
    def layer(g: columba.Graph, a: Tensor, b: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(a) * g.edges.dst(b))

    compiled = columba.compile(layer, backend="torch")
    x, y = leaf(N, 3), leaf(N, 3, seed=1)
    for args in ((x, x), (x, y)):
        torch.testing.assert_close(compiled(G, *args), layer(G, *args))


def test_graphs_may_be_square_or_bipartite() -> None:
    def layer(g: columba.Graph, a: Tensor, b: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(a) * g.edges.dst(b)) + g.dst_nodes(b)

    compiled = columba.compile(layer, backend="torch")
    both = bipartite_graph()
    for graph in (G, both, G):
        assert_same(compiled, layer, [graph, leaf(graph.num_src, 3), leaf(graph.num_dst, 3)])


def test_graphs_that_are_no_arguments() -> None:
    graph = G

    def layer(h: Tensor) -> Tensor:
        return graph.edges.sum(graph.edges.src(h)) / graph.num_nodes

    compiled = columba.compile(layer, backend="torch")
    for graph in (G, GRAPHS["hub"]):
        assert_same(compiled, layer, [leaf(graph.num_nodes, 3)])


class NamesAMethod(nn.Module):
    """A text in its code is the name of a method of ``nn.Module``."""

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return g.edges.sum(g.edges.src(h))


def test_texts_may_name_what_a_class_inherits() -> None:
    assert_same(columba.compile(NamesAMethod(), backend="torch"), NamesAMethod(), [G, leaf(N, 3)])


class Decorated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3, dtype=torch.float64))

    @columba.compile(backend="torch")
    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(h @ self.weight))


@columba.compile(backend="torch")
class DecoratedClass(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3, dtype=torch.float64))

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(h @ self.weight))


@pytest.mark.parametrize("kind", [Decorated, DecoratedClass, lambda: columba.compile(Decorated(), backend="torch")])
def test_compiled_modules_are_modules(kind: Callable[[], nn.Module]) -> None:
    module = kind()
    h = leaf(N, 3)
    wanted = G.edges.sum(G.edges.src(h @ module.weight))
    torch.testing.assert_close(module(G, h), wanted)
    assert list(module.state_dict()) == ["weight"]
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(other(G, h), wanted)
        assert other.weight is not module.weight
    doubled = torch.func.functional_call(module, {"weight": 2 * module.weight}, (G, h))
    torch.testing.assert_close(doubled, 2 * wanted)


def test_an_instance_shares_its_state() -> None:
    module = Decorated()
    compiled = columba.compile(module, backend="torch")
    assert compiled.weight is module.weight
    compiled.eval()
    assert not module.training


# ------------------------------------------------------------------------------------------------ errors


def _unsupported(g: columba.Graph, h: Tensor) -> Tensor:
    return g.edges.sum(torch.cumsum(g.edges.src(h), -1))


def _control_flow(g: columba.Graph, h: Tensor) -> Tensor:
    m = g.edges.sum(g.edges.src(h))
    return m if m.sum() > 0 else -m


def _branch(g: columba.Graph, h: Tensor) -> Tensor:
    m = g.edges.sum(g.edges.src(h))
    return m if g.nodes.max(m).amax() > 0 else -m


def _loop(g: columba.Graph, h: Tensor) -> Tensor:
    m = g.edges.sum(g.edges.src(h))
    for _ in range(g.nodes.max(m).amax()):
        m = m * 2
    return m


def _item(g: columba.Graph, h: Tensor) -> Tensor:
    return g.edges.sum(g.edges.src(h)) * h.max().item()


def _mixes(g: columba.Graph, h: Tensor) -> Tensor:
    m = g.edges.sum(g.edges.src(h))
    return m - m.max(0).values


def _instance_norm(g: columba.Graph, h: Tensor) -> Tensor:
    return F.instance_norm(g.edges.sum(g.edges.src(h)).unsqueeze(-1).expand(-1, -1, 2))


def _contradiction(g: columba.Graph, h: Tensor) -> Tensor:
    return g.edges.src(h) + g.edges(h)


def _two_spaces(g: columba.Graph, h: Tensor) -> Tensor:
    return g.edges.src(h) + g.edges.sum(g.edges.src(h))


def _in_place(g: columba.Graph, h: Tensor) -> Tensor:
    h += 1
    return g.edges.sum(g.edges.src(h))


def _two_graphs(g: columba.Graph, h: Tensor, other: columba.Graph) -> Tensor:
    return g.edges.sum(g.edges.src(h)) + other.edges.sum(other.edges.src(h))


def _row_index(g: columba.Graph, h: Tensor) -> Tensor:
    return g.edges.sum(g.edges.src(h))[0]


def _no_graph(h: Tensor) -> Tensor:
    return h * 2


def _nothing(g: columba.Graph, h: Tensor) -> Tensor:
    return h * 2


def _wrong_map(g: columba.Graph, h: Tensor) -> Tensor:
    return g.dst_rel.src(h)


ERRORS: dict[str, tuple[Callable[..., Any], type[Exception], str]] = {
    "unsupported": (_unsupported, columba.UnsupportedOperation, "cumsum.*not supported.*compute it outside"),
    "control flow": (_control_flow, columba.TraceError, "mixes the rows|values of a tensor"),
    "branch": (_branch, columba.TraceError, "a condition on a tensor needs the values of a tensor.*torch.where"),
    "loop": (_loop, columba.TraceError, "a tensor as an index needs the values of a tensor.*torch.where"),
    "item": (_item, columba.TraceError, "item needs the values of a tensor.*torch.where"),
    "mixes": (_mixes, columba.TraceError, "mixes the rows.*g.nodes.sum/mean"),
    "instance norm": (_instance_norm, columba.UnsupportedOperation, "instance_norm"),
    "contradiction": (_contradiction, columba.TraceError, "lives in space.*but also in.*declare it"),
    "two spaces": (_two_spaces, columba.TraceError, "lives in space edge.*lives in node.*lift one"),
    "in place": (_in_place, columba.TraceError, "in place"),
    "row index": (_row_index, columba.TraceError, "mixes the rows"),
    "nothing": (_nothing, columba.TraceError, "returns nothing that it computes on the graph"),
    "wrong map": (_wrong_map, ValueError, "no single source node; use g.src_rel.src"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_line_and_a_way_out(name: str) -> None:
    function, kind, message = ERRORS[name]
    with pytest.raises(kind, match=re.compile(message, re.DOTALL)) as caught:
        columba.compile(function, backend="torch")(G, torch.randn(N, 3))
    if name != "nothing":
        first = function.__code__.co_firstlineno
        assert re.search(r"test_guards\.py:(\d+)", str(caught.value))
        lines = [int(n) for n in re.findall(r"test_guards\.py:(\d+)", str(caught.value))]
        assert any(first < line < first + 5 for line in lines)


def test_more_than_one_graph_or_none() -> None:
    h = torch.randn(N, 3)
    with pytest.raises(ValueError, match=r"h has shape \[9, 3\].*the graph has 6 nodes"):
        columba.compile(_two_graphs)(G, h, GRAPHS["hub"])
    torch.testing.assert_close(columba.compile(_two_graphs, backend="torch")(G, h, G), _two_graphs(G, h, G))
    with pytest.raises(columba.TraceError, match="uses no columba.Graph"):
        columba.compile(_no_graph)(h)


def test_wrong_rows_and_dtypes() -> None:
    conv = columba.compile(columba_nn_rgat(), backend="torch")
    with pytest.raises(ValueError, match=rf"shape \[{N + 1}, 3\].*space node.*{N} nodes"):
        conv(torch.randn(N + 1, 3), G)
    with pytest.raises(TypeError, match="one dtype"):
        conv(torch.randn(N, 3, dtype=torch.float64), G)
    with pytest.raises(ValueError, match="contracts the last feature dimension"):
        conv(torch.randn(N, 4), G)
    many = columba.Graph(G.edge_index, G.edge_type, num_nodes=N, num_relations=RELATIONS + 2)
    with pytest.raises(ValueError, match=f"{RELATIONS + 2} relations, the layer has weights for {RELATIONS}"):
        conv(torch.randn(N, 3), many)


def columba_nn_rgat() -> nn.Module:
    from columba.nn import RGATConv

    return RGATConv(3, 4, RELATIONS)


def test_a_tensor_that_is_kept() -> None:
    class Keeps(nn.Module):
        def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
            self.kept = g.edges.src(h)
            return g.edges.sum(self.kept)

    with pytest.raises(columba.TraceError, match="self.kept"):
        columba.compile(Keeps(), fullgraph=True)(G, torch.randn(N, 3))


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="unknown backend 'gpu'"):
        columba.compile(_no_graph, backend="gpu")


def test_traces_do_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("columba.calls.function.MOST_TRACES", 3)
    scaled = columba.compile(lambda g, h, by: g.edges.sum(g.edges.src(h) * by), backend="torch")
    graph, h = columba.Graph(torch.tensor([[0, 1], [1, 0]])), torch.ones(2, 1)
    for by in range(6):
        assert scaled(graph, h, float(by)).tolist() == [[by], [by]]
    assert len(scaled._own) == 3
    assert scaled(graph, h, 0.0).tolist() == [[0.0], [0.0]]
