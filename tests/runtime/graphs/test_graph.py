"""Graphs: what they refuse, what they print, and the index arrays that kernels read of them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from eager_graphs import bipartite_graph, square_graphs

import columba
from columba.ir.indices import Lookup, Order, Segments, Tiles
from columba.ir.spaces import IndexMap, Space, maps_from
from columba.runtime.graphs import checks, sorts
from columba.runtime.graphs.graph import Graph


@pytest.fixture(params=["in C++", "in PyTorch"], autouse=True)
def _checked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most graphs are checked by C++ where that is built, others, and all before, by PyTorch."""
    assert isinstance(sorts.sorts_for(torch.device("cpu"), edges=sorts.WORTH_BUILDING), sorts.NativeSorts)
    if request.param == "in PyTorch":
        monkeypatch.setattr(checks, "native_function", lambda name: None)


EDGES = torch.tensor([[0, 1, 2], [1, 2, 2]])
TYPES = torch.tensor([0, 1, 0])
GRAPHS = {**square_graphs(), "bipartite": bipartite_graph()}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Graph([[0], [1]]), TypeError, "edge_index must be a tensor, got list"),
        (lambda: Graph(EDGES.float()), TypeError, "edge_index must hold integer ids, got torch.float32"),
        (lambda: Graph(EDGES.bool()), TypeError, "integer ids, got torch.bool"),
        (lambda: Graph(EDGES.t()), ValueError, r"shape \[2, E\], got \[3, 2\]"),
        (lambda: Graph(EDGES[0]), ValueError, r"shape \[2, E\], got \[3\]"),
        (lambda: Graph(EDGES, num_nodes=2), ValueError, r"edge_index\[0\] holds 2 at edge 2, but there are 2 source"),
        (
            lambda: Graph(EDGES, num_nodes=(3, 2)),
            ValueError,
            r"edge_index\[1\] holds 2 at edge 1, but there are 2 dest",
        ),
        (lambda: Graph(EDGES - 1), ValueError, r"edge_index\[0\] holds -1 at edge 0"),
        (lambda: Graph(EDGES, num_nodes=(3, 3, 3)), ValueError, "a number or a pair"),
        (
            lambda: Graph(EDGES, TYPES[:2]),
            ValueError,
            r"edge_type must have shape \[3\], one relation an edge, got \[2\]",
        ),
        (lambda: Graph(EDGES, TYPES.double()), TypeError, "edge_type must hold integer ids"),
        (
            lambda: Graph(EDGES, TYPES, num_relations=1),
            ValueError,
            r"holds 1 at edge 1, but num_relations is 1 \(ids 0 to 0",
        ),
        (lambda: Graph(EDGES, -TYPES), ValueError, "edge_type holds -1 at edge 1"),
        (lambda: Graph(EDGES, TYPES.to("meta")), ValueError, "edge_type is on meta, edge_index on cpu; move them"),
        (lambda: Graph(EDGES, node_type=TYPES[:2]), ValueError, r"edge_index\[0\] holds 2 at edge 2"),
        (lambda: Graph(EDGES, num_nodes=4, node_type=TYPES), ValueError, r"node_type must have shape \[4\]"),
        (
            lambda: Graph(EDGES, node_type=TYPES, num_node_types=1),
            ValueError,
            "holds 1 at node 1, but num_node_types is 1",
        ),
        (lambda: Graph(EDGES, num_nodes=(3, 3), node_type=TYPES), ValueError, "needs node_type as a pair"),
        (lambda: Graph(EDGES, num_nodes=3, node_type=(TYPES, TYPES)), ValueError, "give num_nodes as a pair as well"),
        (lambda: Graph(EDGES, TYPES, relation_names=["r"]), ValueError, "relation_names has 1 names for 2 ids"),
        (lambda: Graph(EDGES, num_nodes=(3, 3)).num_nodes, ValueError, "it has num_src and num_dst"),
        (lambda: Graph(EDGES, num_nodes=(3, 3)).nodes, ValueError, "it has .src_nodes and .dst_nodes"),
        (lambda: Graph(EDGES).split_nodes(torch.zeros(3)), ValueError, "it has no node_slices"),
        (lambda: columba.as_graph(Graph(EDGES), TYPES), ValueError, "a Graph holds its types"),
        (
            lambda: columba.as_graph(Graph(EDGES, TYPES), num_relations=5),
            ValueError,
            "make the graph with num_relations=5",
        ),
        (lambda: columba.as_graph("edges"), TypeError, "expected a columba.Graph or an edge_index tensor, got str"),
    ],
)
def test_what_is_refused(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_changing_the_tensors_does_not_reach_the_graph() -> None:
    edges, types = EDGES.clone(), TYPES.clone()
    graph = Graph(edges, types)
    edges.zero_(), types.zero_()
    assert torch.equal(graph.edge_index, EDGES)
    assert torch.equal(graph.edge_type, TYPES)


def test_repr() -> None:
    graph = Graph(
        torch.tensor([[0, 0, 0, 1], [1, 2, 2, 2]]), torch.tensor([0, 0, 1, 0]), node_type=torch.tensor([0, 1, 0])
    )
    assert repr(graph) == "Graph(3 nodes, 4 edges, 2 relations, 2 node types)"
    graph.count(Space.SRC_REL)
    assert "3 src_rel pairs (75% of edges)" in repr(graph)
    assert repr(Graph(EDGES, num_nodes=(4, 3))) == "Graph(4 -> 3 nodes, 3 edges, 1 relation)"


@pytest.mark.parametrize("name", GRAPHS)
def test_copies_are_the_same_graph(name: str) -> None:
    graph = GRAPHS[name]
    assert graph.to("cpu") is graph
    other = pickle.loads(pickle.dumps(graph))
    assert torch.equal(other.edge_index, graph.edge_index)
    assert (other.num_relations, other.num_node_types) == (graph.num_relations, graph.num_node_types)
    assert other.count(Space.DST_REL) == graph.count(Space.DST_REL)
    assert repr(other.batch) == repr(graph.batch)
    assert other.num_graphs == graph.num_graphs


def test_the_same_tensors_give_the_same_graph() -> None:
    edges = EDGES.clone()
    first = columba.as_graph(edges, TYPES)
    assert columba.as_graph(edges, TYPES) is first
    assert columba.as_graph(edges, TYPES, num_nodes=9) is not first
    edges[0, 0] = 2  # in place: another graph
    assert columba.as_graph(edges, TYPES).edge_index[0, 0] == 2


# ------------------------------------------------------------------------------------------------ index arrays


def coarse_rows(graph: Graph, map: IndexMap) -> list[int]:
    """The coarse row of each fine row, by the definition of the map, in plain Python."""
    edges = list(zip(*graph.edge_index.tolist(), graph.edge_type.tolist(), strict=True))
    pairs = {
        Space.SRC_REL: sorted({(r, s) for s, _, r in edges}),
        Space.DST_REL: sorted({(r, d) for _, d, r in edges}),
    }
    types = graph.node_type if isinstance(graph.node_type, tuple) else (graph.node_type, graph.node_type)
    of_node = {"src": types[0].tolist(), "dst": types[1].tolist()}
    none = [0] * max(graph.num_src, graph.num_dst)
    batch = (none, none) if graph.batch is None else graph.batch
    graphs = dict(zip(("src", "dst"), (batch, batch) if isinstance(batch, torch.Tensor) else batch, strict=True))
    rows: list[dict[str, int]]
    if map.fine is Space.EDGE:
        rows = [
            {
                "src": s,
                "dst": d,
                "rel": r,
                "src_rel": pairs[Space.SRC_REL].index((r, s)),
                "dst_rel": pairs[Space.DST_REL].index((r, d)),
                "src_type": of_node["src"][s],
                "dst_type": of_node["dst"][d],
                "graph": int(graphs["src"][s]),
            }
            for s, d, r in edges
        ]
    elif map.fine in pairs:
        end = map.fine.value[:3]
        rows = [
            {end: n, "rel": r, f"{end}_type": of_node[end][n], "graph": int(graphs[end][n])} for r, n in pairs[map.fine]
        ]
    elif map.fine in (Space.SRC, Space.DST, Space.NODE):
        end = "dst" if map.fine is Space.DST else "src"
        rows = [{"ntype": t, "graph": int(g)} for t, g in zip(of_node[end], graphs[end], strict=False)]
    else:
        rows = [{} for _ in range(graph.count(map.fine))]
    return [row[map.name] if map.name != "one" else 0 for row in rows]


def maps_of(graph: Graph) -> list[IndexMap]:
    fine = [Space.EDGE, Space.SRC_REL, Space.DST_REL, Space.REL, Space.NTYPE, Space.GRAPH]
    fine += [Space.NODE] if graph.is_square else [Space.SRC, Space.DST]
    return [m for space in fine for m in maps_from(space, square=graph.is_square)]


@pytest.mark.parametrize("name", GRAPHS)
def test_index_arrays(name: str) -> None:
    graph = GRAPHS[name]
    for map in maps_of(graph):
        rows = coarse_rows(graph, map)
        order = sorted(range(len(rows)), key=rows.__getitem__)
        counts = [rows.count(n) for n in range(graph.count(map.coarse))]
        offsets = [sum(counts[:n]) for n in range(len(counts) + 1)]
        assert graph.index(Lookup(map)).tolist() == rows, map
        assert graph.index(Order(map)).tolist() == order, map
        assert graph.index(Segments(map)).tolist() == offsets, map
        tiles = graph.index(Tiles(map, 2)).view(3, -1).t().tolist()
        assert tiles == [
            [n, start, min(start + 2, offsets[n + 1])]
            for n in range(len(counts))
            for start in range(offsets[n], offsets[n + 1], 2)
        ], map
        for by in maps_of(graph):
            if by.fine is map.fine:
                sort = graph.index(Order(by)).tolist()
                assert graph.index(Lookup(map, by)).tolist() == [rows[k] for k in sort], (map, by)


def test_index_arrays_are_built_once_and_narrow() -> None:
    graph = square_graphs()["random"]
    array = graph.structure.index(Order(IndexMap("dst", Space.EDGE, Space.NODE)))
    assert graph.structure.index(Order(IndexMap("dst", Space.EDGE, Space.NODE))) is array
    assert array.dtype is graph.index_dtype is torch.int32
    assert Graph(EDGES, num_nodes=2**31).index_dtype is torch.int64


def test_both_ways_to_check_give_the_same_topology(monkeypatch: pytest.MonkeyPatch) -> None:
    native = sorts.native_function("narrow_ids")
    generator = torch.Generator().manual_seed(0)
    ends, types = torch.randint(9, (2, 50), generator=generator), torch.randint(4, (50,), generator=generator)
    for args in (
        {"num_nodes": 9},
        {"num_nodes": 20, "num_relations": 3, "num_node_types": 2},
        {"num_nodes": (9, 12)},
        {"num_nodes": 9, "edge_type": types},
        {"num_nodes": (9, 9), "edge_type": types, "num_relations": 7},
    ):
        found = []
        for function in (native, None):
            monkeypatch.setattr(checks, "native_function", lambda name, function=function: function)
            found.append(Graph(ends, **args).structure.topology)
        one, other = found
        for name, value in vars(other).items():
            same = (
                torch.equal(getattr(one, name), value)
                if isinstance(value, torch.Tensor)
                else getattr(one, name) == value
            )
            assert same, name
            assert not isinstance(value, torch.Tensor) or getattr(one, name).dtype is value.dtype is torch.int32
            assert not isinstance(value, torch.Tensor) or getattr(one, name).is_contiguous()


@pytest.mark.parametrize("wrong", [2**32 + 1, -(2**32), 2**31, -1, 9])
def test_ids_that_are_not_there_are_seen_before_they_are_narrowed(wrong: int) -> None:
    for row in (0, 1):
        ends = torch.zeros(2, 40, dtype=torch.int64)
        ends[row, 17] = wrong
        for nodes in (9, (9, 9)):
            with pytest.raises(ValueError, match=rf"edge_index\[{row}\] holds {wrong} at edge 17"):
                Graph(ends, num_nodes=nodes)
    types = torch.zeros(40, dtype=torch.int64)
    types[17] = wrong
    with pytest.raises(ValueError, match=f"edge_type holds {wrong} at edge 17"):
        Graph(torch.zeros(2, 40, dtype=torch.int64), types, num_nodes=9, num_relations=9)
    with pytest.raises(ValueError, match="num_relations is 0"):
        Graph(torch.zeros(2, 40, dtype=torch.int64), num_nodes=9, num_relations=0)
