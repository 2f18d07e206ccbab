"""Layers whose weights belong to names refuse graphs that number them in another way."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import columba
from columba.nn import HGTConv, RGATConv, RGCNConv, TypedModule

NAMES = ["cites", "writes", "reads"]
EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])


def graph_of(names: list[str] | None, types: list[str] | None = None) -> columba.Graph:
    """Always the same three edges: 0 cites 1, 1 writes 2, 2 reads 0; nodes of types a, b, b."""
    order, kinds = names or NAMES, types or ["a", "b"]
    return columba.Graph(
        EDGES,
        torch.tensor([order.index(name) for name in NAMES]),
        node_type=torch.tensor([kinds.index(kind) for kind in "abb"]),
        num_relations=len(order),
        num_node_types=len(kinds),
        relation_names=names,
        node_type_names=types,
    )


class Scale(TypedModule):
    """Multiplies each edge by its relation's number."""

    def __init__(self, relations: list[str] | None = None) -> None:
        super().__init__(relations=relations)
        self.factor = nn.Parameter(torch.tensor([[1.0], [10.0], [100.0]]))

    def forward(self, graph: columba.Graph, h: Tensor) -> Tensor:
        e = columba.as_graph(graph, names=self.names).edges
        return e.sum(e.src(h) * e.rel(self.factor))


ONES = torch.ones(3, 1)
SCALED = [[100.0], [1.0], [10.0]]
WAYS: dict[str, Callable[[Any], Any]] = {
    "eager": lambda m: m,
    "torch": lambda m: columba.compile(m, backend="torch"),
    "cpp": lambda m: columba.compile(m, backend="cpp"),
}


@pytest.mark.parametrize("way", WAYS)
def test_other_orders_are_refused_and_can_be_converted(way: str) -> None:
    layer = WAYS[way](Scale(NAMES))
    first, other = graph_of(NAMES), graph_of(["writes", "cites", "reads"])
    for _ in range(4):  # the last calls take the shortest way that there is
        assert layer(first, ONES).tolist() == SCALED
        with pytest.raises(ValueError, match="relation 0 is 'writes' in this graph and 'cites' in the layer: the same"):
            layer(other, ONES)
    with pytest.raises(ValueError, match=r"graph\.with_names\(relations=layer\.relations\)"):
        layer(other, ONES)
    assert layer(other.with_names(relations=layer.relations), ONES).tolist() == SCALED
    assert layer(graph_of(None), ONES).tolist() == SCALED  # one without names is taken at its word
    with pytest.raises(
        ValueError, match="other relations than the layer: 'likes' only in the graph and 'reads' only in the layer"
    ):
        layer(columba.Graph(EDGES, relation_names=["cites", "writes", "likes"]), ONES)
    with pytest.raises(ValueError, match="other relations than the layer: 'likes' only in the graph"):
        layer(columba.Graph(EDGES, relation_names=[*NAMES, "likes"]), ONES)


@pytest.mark.parametrize("way", WAYS)
def test_the_first_named_graph_counts_where_no_names_are_given(way: str) -> None:
    layer = WAYS[way](Scale())
    assert layer.relations is None
    assert layer(graph_of(None), ONES).tolist() == SCALED
    assert layer.relations is None
    assert layer(graph_of(NAMES), ONES).tolist() == SCALED
    assert layer.relations == tuple(NAMES)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.copy(layer), layer):
        with pytest.raises(ValueError, match="the same relations in another order"):
            other(graph_of(["writes", "cites", "reads"]), ONES)
    layer.relations = ["writes", "cites", "reads"]
    for _ in range(4):
        assert layer(graph_of(["writes", "cites", "reads"]), ONES).tolist() == [[100.0], [10.0], [1.0]]
        with pytest.raises(ValueError, match="the same relations in another order"):
            layer(graph_of(NAMES), ONES)


def test_a_shortcut_for_a_graph_ends_when_the_layer_gets_other_names() -> None:
    layer = columba.compile(Scale(NAMES), backend="cpp")
    graph = graph_of(NAMES)
    for _ in range(4):
        assert layer(graph, ONES).tolist() == SCALED
    layer.relations = ["writes", "cites", "reads"]
    with pytest.raises(ValueError, match="the same relations in another order"):
        layer(graph, ONES)


@pytest.mark.parametrize("way", ["eager", "torch"])
@pytest.mark.parametrize("make", [RGCNConv, RGATConv])
def test_shipped_layers(make: Any, way: str) -> None:
    layer = make(2, 4, relations=NAMES)
    assert layer.num_relations == 3
    assert layer.weight.shape[0] == 3
    compiled = WAYS[way](layer)
    x = torch.randn(3, 2)
    expected = compiled(x, graph_of(NAMES))
    with pytest.raises(ValueError, match="the same relations in another order"):
        compiled(x, graph_of(["reads", "cites", "writes"]))
    torch.testing.assert_close(
        compiled(x, graph_of(["reads", "cites", "writes"]).with_names(relations=NAMES)), expected
    )
    graph = graph_of(None)
    torch.testing.assert_close(compiled(x, graph.edge_index, graph.edge_type), expected)
    with pytest.raises(TypeError, match=r"give num_relations, or the names of them all: relations=\[\.\.\.\]"):
        make(2, 4)
    with pytest.raises(ValueError, match="num_relations is 2, and relations lists 3 names"):
        make(2, 4, 2, relations=NAMES)
    with pytest.raises(ValueError, match="lists 2 names, the module has weights for 3"):
        layer.relations = NAMES[:2]


@pytest.mark.parametrize("way", ["eager", "torch"])
def test_hgt_knows_node_types_too(way: str) -> None:
    layer = HGTConv(2, 4, relations=NAMES, node_types=["a", "b"])
    assert (layer.num_relations, layer.num_node_types) == (3, 2)
    compiled = WAYS[way](layer)
    x = torch.randn(3, 2)
    expected = compiled(x, graph_of(NAMES, ["a", "b"]))
    other = graph_of(NAMES, ["b", "a"])
    with pytest.raises(ValueError, match="node type 0 is 'b' in this graph and 'a' in the layer"):
        compiled(x, other)
    torch.testing.assert_close(compiled(x, other.with_names(node_types=layer.node_types)), expected)
    assert RGCNConv(2, 4, relations=NAMES)(x, other).shape == (3, 4)  # has no weights for node types


def test_a_net_of_layers_is_checked_in_each() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = RGCNConv(2, 4, 3), RGCNConv(4, 4, relations=NAMES)

        def forward(self, x: Tensor, graph: columba.Graph) -> Tensor:
            return self.second(self.first(x, graph), graph)

    net = columba.compile(Net(), backend="torch")
    x = torch.randn(3, 2)
    net(x, graph_of(NAMES))
    assert net.first.relations == tuple(NAMES)
    net.second.relations = ["writes", "cites", "reads"]
    for names in (NAMES, ["writes", "cites", "reads"]):
        with pytest.raises(ValueError, match="the same relations in another order"):
            net(x, graph_of(names))


def test_weights_are_loaded_for_the_names_that_they_were_saved_for() -> None:
    layer = RGCNConv(2, 4, relations=NAMES)
    assert list(layer.state_dict()) == ["weight", "root", "bias"]
    buffer = io.BytesIO()
    torch.save(nn.Sequential(layer).state_dict(), buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    same, unknown, other = RGCNConv(2, 4, relations=NAMES), RGCNConv(2, 4, 3), RGCNConv(2, 4, relations=NAMES[::-1])
    for loaded in (same, unknown):
        nn.Sequential(loaded).load_state_dict(saved)
        assert loaded.relations == tuple(NAMES)
    with pytest.raises(RuntimeError, match=r"weights of 0 were saved for relations \['cites', 'writes', 'reads'\]"):
        nn.Sequential(other).load_state_dict(saved)
    other.relations = None
    nn.Sequential(other).load_state_dict(saved)
    assert other.relations == tuple(NAMES)
    saved._metadata.clear()  # as PyG's layers and others save weights
    nn.Sequential(RGCNConv(2, 4, relations=NAMES[::-1])).load_state_dict(saved)


def test_names_that_a_weights_only_load_cannot_read_stay_out_of_the_weights() -> None:
    layer = RGCNConv(2, 4, relations=[frozenset("a"), frozenset("b")])
    assert layer.state_dict()._metadata[""]["names"] == {}
    nested = RGCNConv(2, 4, relations=[("a", "r", "b"), (("a", "r", "b"), "inverse")])
    assert nested.state_dict()._metadata[""]["names"] == {"relations": nested.relations}


def test_a_call_that_the_sizes_refuse_leaves_no_names_behind() -> None:
    layer = RGCNConv(2, 4, 3)
    with pytest.raises(ValueError, match="2 relations|num_relations=2"):
        layer(torch.randn(3, 2), columba.Graph(EDGES, relation_names=["x", "y"]))
    assert layer.relations is None


def test_kinds_of_names() -> None:
    with pytest.raises(TypeError, match="TypeNames takes relations and node_types, not relation"):
        columba.TypeNames(relation=["a"])
    names = columba.TypeNames(relations=["a"])
    names.check(
        columba.Graph(EDGES, relation_names=["a"], node_type=torch.tensor([0, 1, 0]), node_type_names=["x", "y"])
    )
    with pytest.raises(ValueError, match="'b' only in the graph and 'a' only in the layer"):
        names.check(columba.Graph(EDGES, relation_names=["b"]))
