"""Batches: several graphs side by side in one, where they come from, what they refuse, and that nothing loses them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

import columba
from columba import Graph
from columba.ir.spaces import Space

NONE = torch.empty(2, 0, dtype=torch.long)
EDGES = torch.tensor([[0, 3, 2], [3, 0, 2]])
BATCH = torch.tensor([2, 0, 1, 2])
"""Not in order; of four graphs the last has no nodes."""


def shuffled(**more: Any) -> Graph:
    return Graph(EDGES, torch.tensor([1, 0, 1]), batch=BATCH, num_graphs=4, **more)


NAMED = {"relation_names": ["bond", "ring"], "node_type_names": ["C", "O"], "node_type": torch.tensor([0, 1, 0, 0])}


def test_sizes() -> None:
    graph = shuffled()
    assert graph.batch.tolist() == [2, 0, 1, 2]
    assert graph.batch.dtype is torch.int64
    assert repr(graph) == "Graph(4 nodes, 3 edges, 2 relations, a batch of 4 graphs)"
    assert (graph.num_graphs, graph.count(Space.GRAPH), graph.counts()[Space.GRAPH]) == (4, 4, 4)
    assert Graph(NONE, num_nodes=3, batch=torch.tensor([0, 2, 1], dtype=torch.int8)).num_graphs == 3
    alone = Graph(EDGES)
    assert (alone.num_graphs, alone.batch, alone.ptr.tolist()) == (1, None, [0, 4])
    empty = Graph(NONE, num_nodes=0, batch=torch.empty(0, dtype=torch.long), num_graphs=0)
    assert (empty.num_graphs, empty.ptr.tolist()) == (0, [0])


def test_the_vector_is_copied() -> None:
    batch = BATCH.clone()
    graph = Graph(EDGES, batch=batch)
    batch.zero_(), graph.batch.zero_()
    assert graph.batch.tolist() == [2, 0, 1, 2]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: Graph(EDGES, batch=torch.tensor([2, 0, 1, 1])),
            ValueError,
            "edge 0 leads from node 0 of graph 2 to node 3 of graph 1: batch puts its ends into different graphs",
        ),
        (
            lambda: Graph(EDGES, num_nodes=(4, 4), batch=(BATCH, torch.tensor([2, 0, 0, 2]))),
            ValueError,
            "edge 2 leads from node 2 of graph 1 to node 2 of graph 0",
        ),
        (
            lambda: Graph(EDGES, batch=BATCH[:3]),
            ValueError,
            r"batch must have shape \[4\], one graph a node, got \[3\]",
        ),
        (lambda: Graph(EDGES, batch=BATCH.float()), TypeError, "batch must hold integer ids"),
        (lambda: Graph(EDGES, batch=[2, 0, 1, 2]), TypeError, "batch must be a tensor, got list"),
        (lambda: Graph(EDGES, batch=BATCH.to("meta")), ValueError, "batch is on meta, edge_index on cpu"),
        (lambda: Graph(EDGES, batch=BATCH - 1), ValueError, "batch holds -1 at node 1"),
        (lambda: Graph(EDGES, batch=BATCH, num_graphs=2), ValueError, "batch holds 2 at node 0, but num_graphs is 2"),
        (lambda: Graph(EDGES, batch=(BATCH, BATCH)), ValueError, "batch is a pair, but the graph has one set"),
        (lambda: Graph(EDGES, num_nodes=(4, 4), batch=BATCH), ValueError, "a bipartite graph needs batch as a pair"),
        (
            lambda: Graph(EDGES, num_graphs=2),
            ValueError,
            "num_graphs is 2, but batch, the graph of each node, is not given",
        ),
        (lambda: shuffled().ptr, ValueError, "nodes are not sorted by graph, so that they are no ranges"),
        (lambda: Graph(EDGES, num_nodes=(4, 4)).ptr, ValueError, "a bipartite graph has no ptr"),
        (lambda: columba.batch([]), ValueError, "batch needs at least one graph"),
        (lambda: columba.batch([Graph(EDGES), EDGES]), TypeError, "got Tensor at 1; columba.Graph.from_pyg converts"),
        (lambda: columba.batch([Graph(EDGES, num_nodes=(4, 4))]), ValueError, "batch takes square graphs"),
        (lambda: columba.unbatch(Graph(EDGES, num_nodes=(4, 4))), ValueError, "unbatch takes square graphs"),
        (
            lambda: columba.batch([Graph(EDGES), Graph(EDGES, num_relations=3)]),
            ValueError,
            "graph 1 has num_relations=3, graph 0 1; make both with the same num_relations=",
        ),
        (
            lambda: columba.batch([shuffled(**NAMED), shuffled(**NAMED).with_names(relations=["ring", "bond"])]),
            ValueError,
            r"graph 1 has relations \['ring', 'bond'\], graph 0 has \['bond', 'ring'\]; graph.with_names\(relations=...\)",
        ),
        (
            lambda: columba.batch([shuffled(**NAMED), shuffled(node_type=BATCH % 2, relation_names=["bond", "ring"])]),
            ValueError,
            r"graph 1 has node_types without names, graph 0 has \['C', 'O'\]",
        ),
        (
            lambda: columba.batch([Graph(EDGES), Graph(EDGES, node_type=BATCH * 0)]),
            ValueError,
            "graph 1 has node types, graph 0 has none",
        ),
    ],
)
def test_what_is_refused(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("bipartite", [False, True])
def test_nothing_loses_the_graphs(bipartite: bool) -> None:
    batch = (BATCH, torch.tensor([2, 0, 1, 2, 0])) if bipartite else BATCH
    graph = Graph(EDGES, torch.tensor([1, 0, 1]), num_nodes=(4, 5) if bipartite else 4, batch=batch, num_graphs=4)
    others = [copy.copy(graph), copy.deepcopy(graph), pickle.loads(pickle.dumps(graph)), graph.to("cpu")]
    others += [graph.with_names(relations=["a", "b"])]
    if not bipartite:
        others.append(columba.runtime.graphs.convert.add_inverse_relations(graph))
    for other in others:
        assert other.num_graphs == 4
        assert [t.tolist() for t in (other.batch if bipartite else [other.batch])] == [
            t.tolist() for t in (batch if bipartite else [batch])
        ]
    meta = graph.to("meta")
    assert (meta.num_graphs, (meta.batch[1] if bipartite else meta.batch).device.type) == (4, "meta")


def test_join_and_take_apart() -> None:
    one = Graph(torch.tensor([[1, 0], [0, 2]]), torch.tensor([1, 0]), **{**NAMED, "node_type": torch.tensor([1, 0, 1])})
    none = Graph(NONE, num_nodes=0, num_relations=2, **{**NAMED, "node_type": torch.empty(0, dtype=torch.long)})
    joined = columba.batch(g for g in (one, none, shuffled(**NAMED)))
    assert joined.batch.tolist() == [0, 0, 0, 4, 2, 3, 4]  # a batch joins in with each of its graphs
    assert joined.num_graphs == 6
    assert joined.edge_index.tolist() == [[1, 0, 3, 6, 5], [0, 2, 6, 3, 5]]
    assert joined.edge_type.tolist() == [1, 0, 1, 0, 1]
    assert joined.node_type.tolist() == [1, 0, 1, 0, 1, 0, 0]
    assert (joined.relation_names, joined.node_type_names) == (("bond", "ring"), ("C", "O"))
    parts = columba.unbatch(joined)
    assert [g.num_nodes for g in parts] == [3, 0, 1, 1, 2, 0]
    assert [g.edge_index.tolist() for g in parts] == [
        [[1, 0], [0, 2]],
        [[], []],
        [[], []],
        [[0], [0]],
        [[0, 1], [1, 0]],
        [[], []],
    ]
    assert [g.edge_type.tolist() for g in parts] == [[1, 0], [], [], [1], [1, 0], []]
    assert [g.node_type.tolist() for g in parts] == [[1, 0, 1], [], [1], [0], [0, 0], []]
    assert {(g.relation_names, g.node_type_names, g.num_graphs) for g in parts} == {(("bond", "ring"), ("C", "O"), 1)}
    again = columba.batch(parts)
    assert again.ptr.tolist() == [0, 3, 3, 4, 5, 7, 7]
    assert [g.edge_index.tolist() for g in columba.unbatch(again)] == [g.edge_index.tolist() for g in parts]
    assert [g.num_nodes for g in columba.unbatch(Graph(EDGES))] == [4]


def test_batches_of_pyg() -> None:
    from torch_geometric.data import Batch, Data, HeteroData

    sizes = (2, 1, 3)
    molecules = [
        Data(edge_index=torch.tensor([[0], [n - 1]]), edge_type=torch.tensor([n % 2]), num_nodes=n) for n in sizes
    ]
    molecules.append(Data(edge_index=NONE, edge_type=NONE[0], num_nodes=0))
    graph = Graph.from_pyg(Batch.from_data_list(molecules), num_relations=2)
    assert graph.batch.tolist() == [0, 0, 1, 2, 2, 2]
    assert (graph.num_graphs, graph.ptr.tolist()) == (4, [0, 2, 3, 6, 6])
    assert Graph.from_pyg(molecules[0]).num_graphs == 1
    assert Graph.from_pyg(Data(edge_index=EDGES, num_nodes=4, batch=BATCH)).batch.tolist() == [2, 0, 1, 2]

    hetero = HeteroData()
    hetero["paper"].num_nodes, hetero["author"].num_nodes = 2, 1
    hetero["author", "writes", "paper"].edge_index = torch.tensor([[0, 0], [0, 1]])
    graph = Graph.from_pyg(Batch.from_data_list([hetero, hetero]))
    assert graph.batch.tolist() == [0, 0, 1, 1, 0, 1]  # papers, then authors
    assert graph.edge_index.tolist() == [[4, 4, 5, 5], [0, 1, 2, 3]]
    assert Graph.from_pyg(hetero).num_graphs == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g.nodes.sum(torch.zeros(4), to="dst"), "n.sum reduces to one of 'graph', 'one', not to 'dst'"),
        (
            lambda g: g.nodes.softmax(torch.zeros(4), by="one"),
            r"n.softmax\(..., by=...\) expects one of 'graph', not 'one'",
        ),
        (lambda g: g.nodes.degree("ntype"), r"n.degree\(..., of=...\) expects one of 'graph', not 'ntype'"),
        (
            lambda g: g.edges.sum(torch.zeros(3), to="src_type"),
            "e.sum reduces to one of .*'graph', 'one', not to 'src_type'",
        ),
        (lambda g: g.edges.softmax(torch.zeros(3), by="one"), r"e.softmax\(..., by=...\) expects one of .*, not 'one'"),
        (lambda g: g.dst_rel.src(torch.zeros(4)), "has no single source node; use g.src_rel.src"),
    ],
)
def test_eager_and_traced_code_are_refused_alike(call: Callable[[Graph], Any], message: str) -> None:
    graph = shuffled()
    with pytest.raises(ValueError, match=message):
        call(graph)
    with pytest.raises(ValueError, match=message):
        columba.compile(lambda g, x: (call(g), g.nodes.sum(x)), backend="torch")(graph, torch.zeros(4))


def test_what_traced_code_says() -> None:
    graph = shuffled()

    def rows(g: Graph, x: torch.Tensor) -> torch.Tensor:
        return g.nodes.graph(x)

    with pytest.raises(ValueError, match=r"has shape \[4, 2\], but is used with .* graph has 7 graphs \(num_graphs\)"):
        columba.compile(rows, backend="torch")(
            Graph(NONE, num_nodes=1, batch=BATCH[1:2], num_graphs=7), torch.zeros(4, 2)
        )
    with pytest.raises(ValueError, match=r"n.graph expects one row per graph of the batch \(num_graphs=4\), got"):
        rows(graph, torch.zeros(3, 2))
    with pytest.raises(columba.TraceError, match=r"x lives in space node .*, but also in graph .*: g.graphs\(x\) or"):
        columba.compile(lambda g, x: g.nodes.sum(g.nodes.graph(x) + g.nodes(x)), backend="torch")(graph, torch.zeros(4))
    with pytest.raises(columba.TraceError, match="graph.batch is not available inside a compiled function"):
        columba.compile(lambda g, x: g.nodes.sum(x) + g.batch.sum(), backend="torch")(graph, torch.zeros(4))
    with pytest.raises(TypeError, match="give the graph where PyG's function takes the vector batch"):
        columba.nn.global_add_pool(torch.zeros(4), BATCH)
