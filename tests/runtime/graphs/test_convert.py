"""Graphs from what others hold: the same edges, types and counts, and the way back."""

from __future__ import annotations

import copy
import enum
import pickle
from typing import Any

import networkx
import numpy as np
import pytest
import torch
import torch_geometric.transforms as T
from torch_geometric.data import Batch, Data, HeteroData

import columba
from columba.runtime.graphs.convert import add_inverse_relations


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


# ------------------------------------------------------------------------------------------------ ids that follow lists of names

WRITES, CITES, READS = ("author", "writes", "paper"), ("paper", "cites", "paper"), ("author", "reads", "paper")


def test_ids_do_not_depend_on_the_order_in_which_data_was_filled() -> None:
    other = HeteroData()
    other["author"].num_nodes = 2
    other["paper"].num_nodes = 3
    other["paper", "cites", "paper"].edge_index = torch.tensor([[0], [1]])
    other["author", "writes", "paper"].edge_index = torch.tensor([[0, 1, 1], [2, 0, 2]])
    for data in (hetero(), other):
        graph = columba.Graph.from_pyg(data, relations=[WRITES, list(CITES)], node_types=["paper", "author"])
        assert graph.relation_names == (WRITES, CITES)
        assert graph.node_slices == {"paper": slice(0, 3), "author": slice(3, 5)}
        assert edges_of(graph) == [(3, 0, 2), (4, 0, 0), (4, 0, 2), (0, 1, 1)]
        assert graph.node_type.tolist() == [0, 0, 0, 1, 1]


def test_what_is_listed_and_missing_keeps_its_id() -> None:
    data = HeteroData()
    data["author"].num_nodes = 2
    data["paper"].num_nodes = 3
    data[CITES].edge_index = torch.tensor([[0], [1]])
    graph = columba.Graph.from_pyg(
        data, relations=[READS, WRITES, CITES], node_types=["venue", "paper", "field", "author"]
    )
    assert edges_of(graph) == [(0, 2, 1)]
    assert (graph.num_relations, graph.num_node_types) == (3, 4)
    assert graph.node_type.tolist() == [1, 1, 1, 3, 3]
    assert graph.node_slices["field"] == slice(3, 3)
    x = torch.arange(5.0)
    parts = graph.split_nodes(x)
    assert {name: part.tolist() for name, part in parts.items()} == {
        "venue": [],
        "paper": [0.0, 1.0, 2.0],
        "field": [],
        "author": [3.0, 4.0],
    }
    assert torch.equal(graph.cat_nodes({"author": parts["author"], "paper": parts["paper"]}), x)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"relations": [WRITES]}, r"does not list \('paper', 'cites', 'paper'\), which the graph has"),
        ({"node_types": ["author"]}, "does not list 'paper'"),
        (
            {"relations": [WRITES, CITES, WRITES]},
            r"relations holds \('author', 'writes', 'paper'\) twice, as 0 and as 2",
        ),
        ({"relations": [WRITES, CITES, "reads"]}, "triples"),
        ({"num_relations": 3}, "list them in relations="),
    ],
)
def test_lists_that_do_not_fit(lists: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        columba.Graph.from_pyg(hetero(), **lists)


def test_one_string_is_no_list_of_names() -> None:
    with pytest.raises(TypeError, match="relations must be a list of names, got the string 'ab'"):
        columba.Graph(torch.tensor([[0], [1]])).with_names(relations="ab")


def test_rows_that_do_not_fit_node_types() -> None:
    graph = columba.Graph.from_pyg(hetero())
    with pytest.raises(ValueError, match="one row for each of 5 nodes"):
        graph.split_nodes(torch.ones(4, 2))
    author, paper = torch.ones(2, 1), torch.ones(3, 1)
    for parts, message in (
        ({"author": author}, "no rows for the 3 nodes of type 'paper'"),
        ({"author": paper, "paper": paper}, r"parts\['author'\] must have one row for each of 2 nodes"),
        ({"author": author, "paper": paper, "venue": author}, "no node type 'venue'"),
    ):
        with pytest.raises(ValueError, match=message):
            graph.cat_nodes(parts)
    assert graph.cat_nodes({"author": 2 * author, "paper": paper}).flatten().tolist() == [1, 1, 1, 2, 2]


def test_edges_of_sparse_matrices() -> None:
    expected = columba.Graph.from_pyg(hetero())
    for layout in (torch.sparse_csr, torch.sparse_coo):
        graph = columba.Graph.from_pyg(T.ToSparseTensor(layout=layout)(hetero()))
        assert graph.relation_names == expected.relation_names
        assert sorted(edges_of(graph)) == sorted(edges_of(expected))
    data = Data(edge_index=torch.tensor([[2, 0, 1], [1, 2, 0]]), edge_type=torch.tensor([5, 6, 7]), num_nodes=3)
    assert sorted(edges_of(columba.Graph.from_pyg(T.ToSparseTensor()(data)))) == [(0, 6, 2), (1, 7, 0), (2, 5, 1)]


def test_an_edge_type_without_edges_does_not_vanish() -> None:
    data = hetero()
    data["author", "reads", "paper"].edge_attr = torch.ones(2, 1)
    with pytest.raises(ValueError, match=r"edge type \('author', 'reads', 'paper'\) has no edge_index"):
        columba.Graph.from_pyg(data)
    data["author", "reads", "paper"].edge_index = torch.empty(2, 0, dtype=torch.long)
    assert columba.Graph.from_pyg(data).num_relations == 3
    data["author", "knows", "person"].edge_index = torch.empty(2, 0, dtype=torch.long)
    assert columba.Graph.from_pyg(data).node_type_names[-1] == "person"


def test_batches_and_samples_of_hetero_data() -> None:
    graph = columba.Graph.from_pyg(Batch.from_data_list([hetero(), hetero()]), relations=[CITES, WRITES])
    assert edges_of(graph) == [(0, 0, 1), (3, 0, 4), (6, 1, 2), (7, 1, 0), (7, 1, 2), (8, 1, 5), (9, 1, 3), (9, 1, 5)]
    empty = hetero()
    empty["author"].x = torch.empty(0, 4)
    empty[WRITES].edge_index = torch.empty(2, 0, dtype=torch.long)
    graph = columba.Graph.from_pyg(empty)
    assert edges_of(graph) == [(0, 1, 1)]
    assert graph.relation_names == (WRITES, CITES)
    layer = columba.nn.HGTConv(4, 4, relations=graph.relation_names, node_types=graph.node_type_names)
    assert layer(graph.cat_nodes({"paper": torch.ones(3, 4)}), graph).shape == (3, 4)


def test_homogeneous_data_keeps_names_or_gets_them() -> None:
    data = hetero()
    del data["author"].x
    data["author"].num_nodes = 2
    flat = data.to_homogeneous()
    graph = columba.Graph.from_pyg(flat, relations=[CITES, READS, WRITES])
    assert sorted(edges_of(graph)) == [(0, 0, 1), (3, 2, 2), (4, 2, 0), (4, 2, 2)]
    assert graph.node_type_names == ("paper", "author")
    ids = Data(edge_index=torch.tensor([[0], [1]]), edge_type=torch.tensor([1]), num_nodes=2)
    assert columba.Graph.from_pyg(ids, num_relations=5).num_relations == 5
    assert columba.Graph.from_pyg(ids, relations=["a", "b", "c"]).relation_names == ("a", "b", "c")
    with pytest.raises(ValueError, match="lists 1 names, and the graph, which has none, has 2 ids"):
        columba.Graph.from_pyg(ids, relations=["a"])


def multigraph(*edges: tuple[str, str, Any]) -> networkx.MultiDiGraph:
    graph = networkx.MultiDiGraph()
    graph.add_nodes_from("abc")
    for u, v, label in edges:
        graph.add_edge(u, v, relation=label)
    return graph


def test_networkx_with_a_relation_missing() -> None:
    whole = multigraph(("a", "b", "hates"), ("a", "b", "knows"), ("b", "a", "likes"))
    part = whole.edge_subgraph([("a", "b", 1), ("b", "a", 0)])
    names = ["likes", "hates", "knows", "owns"]
    assert sorted(edges_of(columba.Graph.from_networkx(whole, relations=names))) == [(0, 1, 1), (0, 2, 1), (1, 0, 0)]
    graph = columba.Graph.from_networkx(part, relations=names)
    assert sorted(edges_of(graph)) == [(0, 2, 1), (1, 0, 0)]
    assert graph.relation_names == tuple(names)
    with pytest.raises(ValueError, match=r"'relation' of edge 'a' -> 'b': 'knows' is not in relations=\['likes'\]"):
        columba.Graph.from_networkx(part, relations=["likes"])


def test_networkx_nodes_without_edges_and_types_that_no_node_has() -> None:
    source = multigraph(("a", "b", "r"))
    networkx.set_node_attributes(source, {"a": "x", "b": "z", "c": "x"}, "kind")
    graph = columba.Graph.from_networkx(source, node_type="kind", node_types=["y", "z", "x"])
    assert (graph.num_nodes, graph.node_type.tolist(), graph.num_node_types) == (3, [2, 1, 2], 3)
    with pytest.raises(ValueError, match=r"'kind' of node 'a': 'x' is not in node_types=\['z'\]"):
        columba.Graph.from_networkx(source, node_type="kind", node_types=["z"])
    with pytest.raises(ValueError, match="which attribute of nodes"):
        columba.Graph.from_networkx(source, node_types=["z"])
    source.nodes["b"]["kind"] = None
    with pytest.raises(ValueError, match="node 'b' has no attribute 'kind'"):
        columba.Graph.from_networkx(source, node_type="kind")
    assert columba.Graph.from_networkx(multigraph()).num_nodes == 3


class Colour(enum.Enum):
    RED = 2
    BLUE = 1


@pytest.mark.parametrize(
    ("labels", "names", "ids"),
    [
        ([torch.tensor(3), torch.tensor(1), torch.tensor(3)], (1, 3), [1, 0, 1]),
        ([np.int64(3), 1, np.array(3)], (1, 3), [1, 0, 1]),
        ([np.str_("b"), "a", "b"], ("a", "b"), [1, 0, 1]),
        (["1", 1, "a"], (1, "1", "a"), [1, 0, 2]),
        ([["b", 1], ("a", 2), ("b", 1)], (("a", 2), ("b", 1)), [1, 0, 1]),
        ([Colour.RED, Colour.BLUE, "z"], (Colour.BLUE, Colour.RED, "z"), [1, 0, 2]),
    ],
)
def test_networkx_labels_in_every_order(labels: list[Any], names: tuple[Any, ...], ids: list[int]) -> None:
    edges = list(zip("abc", "bca", labels, strict=True))
    graph = columba.Graph.from_networkx(multigraph(*edges))
    assert graph.relation_names == names
    assert list(map(type, graph.relation_names)) == list(map(type, names))
    assert [r for _, r, _ in edges_of(graph)] == ids
    backwards = columba.Graph.from_networkx(multigraph(*reversed(edges)))
    assert backwards.relation_names == names
    assert sorted(edges_of(backwards)) == sorted(edges_of(graph))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["r", float("nan")], "'relation' of edge 'b' -> 'c': NaN is no name"),
        (["r", torch.tensor(float("nan"))], "edge 'b' -> 'c': NaN is no name"),
        (["r", np.float32("nan")], "edge 'b' -> 'c': NaN is no name"),
        (["r", torch.tensor([1, 2])], r"edge 'b' -> 'c': a Tensor of shape \[2\] is no name"),
        (["r", {"x": 1}], r"edge 'b' -> 'c': \{'x': 1\} is no name: a dict cannot be looked up"),
        ([1, True], r"edge 'b' -> 'c': True \(bool\) would be the same as 1 \(int\)"),
        ([1, 1.0], r"edge 'b' -> 'c': 1\.0 \(float\) would be the same as 1 \(int\)"),
        ([frozenset("a"), frozenset("b")], r"list them: relations=\[\.\.\.\]"),
        ([1j, 2j], "labels without an order of their own"),
        (["r", None], "edge 'b' -> 'c' has no attribute 'relation'.*or relation='key'"),
    ],
)
def test_networkx_labels_that_are_no_names(labels: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        columba.Graph.from_networkx(multigraph(*zip("ab", "bc", labels, strict=True)))


def test_labels_without_an_order_can_be_listed() -> None:
    sets = [frozenset("a"), frozenset("b")]
    for edges in (list(zip("ab", "bc", sets, strict=True)), list(zip("ab", "bc", reversed(sets), strict=True))):
        graph = columba.Graph.from_networkx(multigraph(*edges), relations=sets)
        assert [r for _, r, _ in edges_of(graph)] == [sets.index(label) for _, _, label in edges]


def test_networkx_keys() -> None:
    source = networkx.MultiDiGraph([("a", "b", "likes"), ("a", "b", "hates"), ("b", "a", "likes")])
    graph = columba.Graph.from_networkx(source, "key", relations=["likes", "knows", "hates"])
    assert edges_of(graph) == [(0, 0, 1), (0, 2, 1), (1, 0, 0)]
    source.edges["a", "b", "hates"]["key"] = "x"
    with pytest.raises(ValueError, match="edge 'a' -> 'b' has an attribute that is called 'key' beside its key"):
        columba.Graph.from_networkx(source, "key")
    simple = networkx.DiGraph()
    simple.add_edge("a", "b", key="likes")  # has no keys: an attribute as any other
    assert columba.Graph.from_networkx(simple, "key").relation_names == ("likes",)


def test_dgl_names() -> None:
    relations = {("u", "r", "v"): [[0, 1], [0, 0]], ("v", "s", "u"): [[0], [1]]}
    names = [("v", "s", "u"), ("v", "t", "v"), ("u", "r", "v")]
    graph = columba.Graph.from_dgl(DGLGraph({"u": 2, "v": 1}, relations), relations=names, node_types=["v", "w", "u"])
    assert edges_of(graph) == [(0, 0, 2), (1, 2, 0), (2, 2, 0)]
    assert graph.node_type.tolist() == [0, 2, 2]
    with pytest.raises(ValueError, match=r"does not list \('v', 's', 'u'\)"):
        columba.Graph.from_dgl(DGLGraph({"u": 2, "v": 1}, relations), relations=names[1:])
    single = columba.Graph.from_dgl(DGLGraph({"u": 3}, {("u", "r", "u"): [[0], [2]]}))
    assert (single.relation_names, single.node_type_names) == ((("u", "r", "u"),), ("u",))
    flat = DGLGraph({"_N": 3}, {("_N", "_E", "_N"): [[0, 1], [1, 2]]})
    flat.edata["_TYPE"] = torch.tensor([1, 0])
    assert columba.Graph.from_dgl(flat, num_relations=4).num_relations == 4
    assert columba.Graph.from_dgl(flat, relations=["a", "b", "c"]).relation_names == ("a", "b", "c")
    flat.is_block = True
    with pytest.raises(ValueError, match="a DGL block"):
        columba.Graph.from_dgl(flat)


def test_names_by_id_can_be_changed() -> None:
    graph = columba.Graph.from_pyg(hetero())
    other = graph.with_names(relations=[CITES, READS, WRITES], node_types=["author", "paper"])
    assert edges_of(other) == [(3, 2, 2), (4, 2, 0), (4, 2, 2), (0, 0, 1)]
    assert other.node_type.tolist() == [1, 1, 1, 0, 0]
    assert other.node_slices == graph.node_slices
    block = columba.Graph(
        torch.tensor([[2], [1]]),
        num_nodes=(3, 2),
        node_type=(torch.tensor([0, 1, 1]), torch.tensor([1, 0])),
        node_type_names=["a", "b"],
    )
    assert [t.tolist() for t in block.with_names(node_types=["b", "a"]).node_type] == [[1, 0, 0], [0, 1]]
    with pytest.raises(ValueError, match="does not list 'b'"):
        block.with_names(node_types=["a", "c"])


def test_names_survive() -> None:
    graph = columba.Graph.from_pyg(hetero())
    for other in (pickle.loads(pickle.dumps(graph)), copy.deepcopy(graph), graph.to("cpu")):
        assert other.relation_names == (WRITES, CITES)
        assert other.node_type_names == ("paper", "author")
        assert other.node_slices == graph.node_slices
    both = add_inverse_relations(graph)
    assert both.relation_names == (WRITES, CITES, (WRITES, "inverse"), (CITES, "inverse"))
    assert both.node_slices == graph.node_slices
    assert columba.Graph(torch.tensor([[0], [1]]), relation_names=["a", "b"]).num_relations == 2
    with pytest.raises(ValueError, match="relation_names holds 'a' twice"):
        columba.Graph(torch.tensor([[0], [1]]), relation_names=["a", "a"])


# ------------------------------------------------------------------------------------------------ splits


def test_splits_of_triples_number_inverses_alike() -> None:
    train = columba.Graph.from_triples(
        [[0, 0, 1], [1, 2, 3]], num_nodes=5, num_relations=3, relations=["r", "s", "t"], add_inverse=True
    )
    test = columba.Graph.from_triples(np.array([[0, 0, 1]]), num_nodes=5, num_relations=3, add_inverse=True)
    assert edges_of(train) == [(0, 0, 1), (1, 2, 3), (1, 3, 0), (3, 5, 1)]
    assert edges_of(test) == [(0, 0, 1), (1, 3, 0)]
    assert (train.num_nodes, train.num_relations) == (test.num_nodes, test.num_relations) == (5, 6)
    assert train.relation_names == ("r", "s", "t", ("r", "inverse"), ("s", "inverse"), ("t", "inverse"))
    empty = columba.Graph.from_triples([], num_nodes=5, num_relations=3, add_inverse=True)
    assert (empty.num_nodes, empty.num_edges, empty.num_relations) == (5, 0, 6)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_relations": 2}, "edge_type holds 2 at edge 1, but num_relations is 2"),
        ({"num_nodes": 3}, r"edge_index\[1\] holds 3 at edge 1, but there are 3"),
        ({"relations": ["r", "s"]}, "relation_names has 2 names for 3 ids"),
    ],
)
def test_triples_outside_of_the_given_sizes(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        columba.Graph.from_triples([[0, 0, 1], [1, 2, 3]], **sizes)


def test_triples_of_strings() -> None:
    with pytest.raises(ValueError, match="triples must be integers"):
        columba.Graph.from_triples([["a", "r", "b"]])


def test_node_types_that_only_edges_name() -> None:
    data = HeteroData()
    data["paper"].num_nodes = 4
    data["author", "writes", "paper"].edge_index = torch.tensor([[0, 6], [0, 3]])
    data["venue", "prints", "paper"].edge_index = torch.empty(2, 0, dtype=torch.long)
    graph = columba.Graph.from_pyg(data)
    assert graph.node_slices == {"paper": slice(0, 4), "author": slice(4, 11), "venue": slice(11, 11)}
    assert graph.edge_index.tolist() == [[4, 10], [0, 3]]
    assert "author" not in data.node_types  # the data is left as it is
