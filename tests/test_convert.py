"""Graphs from what others hold: the same edges, types and counts, and the way back."""

from __future__ import annotations

import networkx
import pytest
import torch
from torch_geometric.data import Data, HeteroData

import columba
from columba.runtime.convert import add_inverse_relations


def edges_of(graph: columba.Graph) -> list[tuple[int, int, int]]:
    return [(s, r, d) for (s, d), r in zip(graph.edge_index.t().tolist(), graph.edge_type.tolist(), strict=True)]


def hetero() -> HeteroData:
    data = HeteroData()
    data["paper"].num_nodes = 3
    data["author"].x = torch.randn(2, 4)
    data["author", "writes", "paper"].edge_index = torch.tensor([[0, 1, 1], [2, 0, 2]])
    data["paper", "cites", "paper"].edge_index = torch.tensor([[0], [1]])
    return data


def test_data() -> None:
    data = Data(edge_index=torch.tensor([[0, 1], [1, 1]]), edge_type=torch.tensor([0, 2]), num_nodes=4)
    data.node_type = torch.tensor([0, 1, 1, 0])
    graph = columba.Graph.from_pyg(data)
    assert edges_of(graph) == [(0, 0, 1), (1, 2, 1)]
    assert (graph.num_nodes, graph.num_relations, graph.num_node_types) == (4, 3, 2)


def test_data_without_edges_is_refused() -> None:
    with pytest.raises(TypeError, match="with an edge_index"):
        columba.Graph.from_pyg(Data(x=torch.ones(2, 2)))


def test_hetero_data_gives_types_ranges_of_ids() -> None:
    graph = columba.Graph.from_pyg(hetero())
    assert graph.node_type_names == ("paper", "author")
    assert graph.node_slices == {"paper": slice(0, 3), "author": slice(3, 5)}
    assert graph.relation_names == (("author", "writes", "paper"), ("paper", "cites", "paper"))
    assert edges_of(graph) == [(3, 0, 2), (4, 0, 0), (4, 0, 2), (0, 1, 1)]
    assert graph.node_type.tolist() == [0, 0, 0, 1, 1]


def test_rows_by_node_type_and_back() -> None:
    graph = columba.Graph.from_pyg(hetero())
    x = torch.arange(10.0).view(5, 2)
    parts = graph.split_nodes(x)
    assert parts["author"].tolist() == [[6.0, 7.0], [8.0, 9.0]]
    assert torch.equal(graph.cat_nodes(parts), x)


def test_an_id_too_large_does_not_become_a_node_of_another_type() -> None:
    data = hetero()
    data["paper", "cites", "paper"].edge_index = torch.tensor([[0], [3]])
    with pytest.raises(
        ValueError, match=r"edge_index\[1\] of .*cites.* holds 3 at edge 0, but there are 3 destination"
    ):
        columba.Graph.from_pyg(data)


def test_networkx() -> None:
    source = networkx.MultiDiGraph()
    source.add_node("b", kind="person")
    source.add_edge("b", "a", relation="likes")
    source.add_edge("b", "a", relation="hates")
    source.add_edge("a", "a", relation="likes")
    source.nodes["a"]["kind"] = "cat"
    graph = columba.Graph.from_networkx(source, node_type="kind")
    assert graph.relation_names == ("hates", "likes")
    assert sorted(edges_of(graph)) == [(0, 0, 1), (0, 1, 1), (1, 1, 1)]
    assert graph.node_type_names == ("cat", "person")
    assert graph.node_type.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (networkx.Graph([(0, 1)]), "undirected"),
        (networkx.DiGraph([(0, 1)]), "edge 0 -> 1 has no attribute 'relation'"),
    ],
)
def test_networkx_errors(graph: networkx.Graph, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        columba.Graph.from_networkx(graph)


class DGLGraph:
    """What of DGL's interface a conversion uses; DGL itself is no dependency of the tests."""

    def __init__(self, sizes: dict[str, int], edges: dict[tuple[str, str, str], list[list[int]]]) -> None:
        self.ntypes = list(sizes)
        self.canonical_etypes = list(edges)
        self._sizes, self._edges = sizes, edges
        self.edata: dict[str, torch.Tensor] = {}
        self.ndata: dict[str, torch.Tensor] = {}

    def num_nodes(self, kind: str | None = None) -> int:
        return sum(self._sizes.values()) if kind is None else self._sizes[kind]

    def edges(self, etype: tuple[str, str, str] | None = None) -> tuple[torch.Tensor, ...]:
        index = torch.tensor(self._edges[etype or self.canonical_etypes[0]])
        return index[0], index[1]


def test_dgl() -> None:
    relations = {("u", "r", "v"): [[0, 1], [0, 0]], ("v", "s", "u"): [[0], [1]]}
    graph = columba.Graph.from_dgl(DGLGraph({"u": 2, "v": 1}, relations))
    assert edges_of(graph) == [(0, 0, 2), (1, 0, 2), (2, 1, 1)]
    assert graph.node_slices == {"u": slice(0, 2), "v": slice(2, 3)}


def test_homogeneous_dgl_with_types() -> None:
    source = DGLGraph({"_N": 3}, {("_N", "_E", "_N"): [[0, 1], [1, 2]]})
    source.edata["_TYPE"] = torch.tensor([1, 0])
    graph = columba.Graph.from_dgl(source)
    assert edges_of(graph) == [(0, 1, 1), (1, 0, 2)]
    assert graph.num_nodes == 3


def test_triples() -> None:
    graph = columba.Graph.from_triples([[0, 1, 2], [2, 0, 1]], add_inverse=True)
    assert edges_of(graph) == [(0, 1, 2), (2, 0, 1), (2, 3, 0), (1, 2, 2)]
    with pytest.raises(ValueError, match=r"shape \[T, 3\]"):
        columba.Graph.from_triples([[0, 1]])


def test_inverse_relations_need_a_square_graph() -> None:
    with pytest.raises(ValueError, match="no inverse"):
        add_inverse_relations(columba.Graph(torch.tensor([[0], [1]]), num_nodes=(3, 2)))
