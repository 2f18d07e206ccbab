"""Graphs are never changed, are recognized by what their tensors hold, and are freed when nobody refers to them."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import columba
from columba.ir.indices import Lookup
from columba.ir.spaces import IndexMap, Space
from columba.runtime.graphs import from_tensors, sorts
from columba.runtime.graphs.from_tensors import Seen, as_graph

pytestmark = pytest.mark.unoptimized

EDGES = torch.tensor([[0, 1, 2, 2], [1, 2, 0, 1]])
TYPES = torch.tensor([0, 1, 0, 1])
H = torch.tensor([[1.0], [10.0], [100.0]])
SUMS = [[100.0], [101.0], [10.0]]
"""For every node, the sum of ``H`` at its neighbours."""


def neighbours(g: columba.Graph, h: Tensor) -> Tensor:
    return g.edges.sum(g.edges.src(h))


def by_tensors(h: Tensor, edge_index: Tensor, edge_type: Tensor | None = None) -> Tensor:
    g = as_graph(edge_index, edge_type, num_nodes=3, num_relations=2)
    return g.edges.sum(g.edges.src(h))


COMPILED = {backend: columba.compile(neighbours, backend=backend) for backend in ("cpp", "torch")}


# ------------------------------------------------------------------------------------------------ never changed


@pytest.mark.parametrize(
    "name",
    [
        "num_nodes",
        "num_edges",
        "num_relations",
        "edge_index",
        "edge_type",
        "node_type",
        "is_square",
        "node_slices",
        "edges",
    ],
)
def test_attributes_cannot_be_assigned_to(name: str) -> None:
    graph = columba.Graph(EDGES, TYPES)
    with pytest.raises(
        AttributeError, match=f"graph.{name} cannot be set: graphs are never changed.*columba.Graph\\(edge_index"
    ):
        setattr(graph, name, 5)
    with pytest.raises(AttributeError, match="never changed"):
        delattr(graph, name)
    assert graph.num_nodes == 3
    graph.note = "mine"  # type: ignore[attr-defined]  # what is not the graph's own is the user's
    assert copy.deepcopy(graph).note == "mine"  # type: ignore[attr-defined]


@pytest.mark.parametrize("backend", ["cpp", "torch", "eager"])
def test_writing_to_what_a_graph_hands_out_changes_nothing(backend: str) -> None:
    graph = columba.Graph(EDGES, TYPES, num_nodes=3, node_type=torch.tensor([0, 1, 1]), node_slices={"a": slice(0, 1)})
    source = Lookup(IndexMap("src", Space.EDGE, Space.NODE))
    with pytest.raises(AttributeError, match="never changed"):
        graph.edge_index += 10**7  # type: ignore[misc]
    for handed in (graph.edge_index, graph.edge_type, graph.node_type, graph.index(source)):
        handed.numpy()[...] = 10**7
        handed.data.add_(1)
    with pytest.raises(TypeError, match="does not support item assignment"):
        graph.node_slices["a"] = slice(0, 3)  # type: ignore[index]
    run = COMPILED.get(backend, neighbours)
    assert run(graph, H).tolist() == SUMS
    assert graph.edge_index.tolist() == EDGES.tolist()
    assert graph.edge_type.tolist() == [0, 1, 0, 1]
    assert graph.node_type.tolist() == [0, 1, 1]
    assert graph.index(source).tolist() == [0, 1, 2, 2]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))])
@pytest.mark.parametrize("bipartite", [False, True])
def test_copies(duplicate: Callable[[columba.Graph], columba.Graph], bipartite: bool) -> None:
    types = (torch.tensor([0, 1, 1]), torch.tensor([1, 0, 0])) if bipartite else torch.tensor([0, 1, 1])
    graph = columba.Graph(
        EDGES,
        TYPES,
        num_nodes=(3, 3) if bipartite else 3,
        num_relations=4,
        node_type=types,
        num_node_types=5,
        relation_names=list("abcd"),
        node_slices={"x": slice(0, 3)},
    )
    neighbours(graph, H)
    other = duplicate(graph)
    assert other is not graph
    assert (other.is_square, other.num_relations, other.num_node_types) == (not bipartite, 4, 5)
    assert other.relation_names == ("a", "b", "c", "d")
    assert other.node_slices == {"x": slice(0, 3)}
    assert other.edge_index.tolist() == EDGES.tolist()
    assert other.edge_type.tolist() == [0, 1, 0, 1]
    assert [t.tolist() for t in (other.node_type if bipartite else [other.node_type])] == (
        [[0, 1, 1], [1, 0, 0]] if bipartite else [[0, 1, 1]]
    )
    assert other.counts() == graph.counts()
    assert COMPILED["cpp"](other, H).tolist() == neighbours(other, H).tolist() == SUMS


def test_a_damaged_pickle_is_refused() -> None:
    state = columba.Graph(EDGES, TYPES).__getstate__()
    state["arguments"]["edge_index"][0][2] = 10**6
    graph = object.__new__(columba.Graph)
    with pytest.raises(ValueError, match=r"edge_index\[0\] holds 1000000 at edge 2, but there are 3 source nodes"):
        graph.__setstate__(state)


# ------------------------------------------------------------------------------------------------ freed


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _train(run: Callable[..., Tensor], graph: columba.Graph) -> None:
    h = H.clone().requires_grad_()
    run(graph, h).sum().backward()


def _fail(graph: columba.Graph) -> None:
    for run in (*COMPILED.values(), neighbours):
        try:
            run(graph, torch.zeros(7, 1))
        except ValueError:  # pytest.raises would keep the frames
            continue
        raise AssertionError("seven rows for three nodes")


def _typed(graph: columba.Graph) -> None:
    weight = torch.ones(2, 1, 4)
    columba.linear(graph.edges.src(H), graph.edges.rel(weight))
    graph.edges.rel(weight) * 2


def _interpreted(graph: columba.Graph) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _train(columba.compile(neighbours, backend="triton"), graph)


def _in_threads(graph: columba.Graph) -> None:
    threads = [threading.Thread(target=_train, args=(COMPILED["cpp"], graph)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


USES: dict[str, Callable[[columba.Graph], Any]] = {
    "nothing": lambda graph: None,
    "counts": lambda graph: graph.counts(),
    "eager": lambda graph: _train(neighbours, graph),
    "cpp": lambda graph: [_train(COMPILED["cpp"], graph) for _ in range(4)],
    "torch": lambda graph: [_train(COMPILED["torch"], graph) for _ in range(4)],
    "triton": _interpreted,
    "new trace": lambda graph: _train(columba.compile(neighbours, backend="cpp"), graph),
    "views": lambda graph: [repr(graph), graph.edges, graph.nodes, graph.src_rel, graph.dst_rel],
    "lifted": _typed,
    "failed": _fail,
    "explain": lambda graph: columba.explain(neighbours, graph, H),
    "copies": lambda graph: [copy.copy(graph), copy.deepcopy(graph), pickle.dumps(graph)],
    "threads": _in_threads,
    "no grad": torch.no_grad()(lambda graph: COMPILED["cpp"](graph, H)),
}


@pytest.mark.parametrize("use", USES)
def test_a_graph_is_freed_when_its_last_user_is(use: str, no_collector: None) -> None:
    graph = columba.Graph(EDGES, TYPES, num_nodes=3, num_relations=2)
    USES[use](graph)
    died, arrays = weakref.ref(graph), weakref.ref(graph.structure)
    del graph
    assert died() is None
    assert arrays() is None


def test_graphs_of_dead_tensors_are_freed(no_collector: None) -> None:
    graphs = []
    for n in range(50):
        edges = EDGES.clone()
        by_tensors(H, edges)
        graphs.append(weakref.ref(as_graph(edges, num_nodes=3, num_relations=2)))
        assert graphs[-1]() is not None, n
        del edges
    assert not [n for n, graph in enumerate(graphs) if graph() is not None]


# ------------------------------------------------------------------------------------------------ recognized by contents


def _through_numpy(t: Tensor, values: Tensor) -> None:
    t.numpy()[...] = values.numpy()


def _through_data(t: Tensor, values: Tensor) -> None:
    t.data.copy_(values)


def _through_set_data(t: Tensor, values: Tensor) -> None:
    t.data = values.clone()


def _through_dlpack(t: Tensor, values: Tensor) -> None:
    torch.from_dlpack(t.__dlpack__()).copy_(values)


def _under_inference(t: Tensor, values: Tensor) -> None:
    with torch.inference_mode():
        t.copy_(values)


def _through_memory(t: Tensor, values: Tensor) -> None:
    from ctypes import memmove

    memmove(t.data_ptr(), values.data_ptr(), values.nbytes)


def _counted(t: Tensor, values: Tensor) -> None:
    t.copy_(values)


WRITES = [
    _through_numpy,
    _through_data,
    _through_set_data,
    _through_dlpack,
    _under_inference,
    _through_memory,
    _counted,
]

MADE: dict[str, Callable[[Tensor], Tensor]] = {
    "owned": Tensor.clone,
    "numpy": lambda t: torch.from_numpy(np.array(t.numpy())),
    "shared": lambda t: t.clone().share_memory_(),
    "strided": lambda t: t.repeat_interleave(2, 1)[:, ::2] if t.dim() == 2 else t.repeat_interleave(2)[::2],
    "int32": lambda t: t.int(),
}


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("how", ["eager", "cpp"])
def test_writes_are_seen(made: str, write: Callable[[Tensor, Tensor], None], how: str) -> None:
    if made == "strided" and write is _through_memory:
        write = _through_numpy
    edges = MADE[made](EDGES)
    run = BY_TENSORS[how]
    for _ in range(4):  # the fourth call is recognized as straight-line code
        assert run(H, edges).tolist() == SUMS
    write(edges, EDGES.flip(0).to(edges.dtype))
    for _ in range(4):
        assert run(H, edges).tolist() == [[10.0], [100.0], [11.0]]


BY_TENSORS = {"eager": by_tensors, "cpp": columba.compile(by_tensors, backend="cpp")}


def test_edge_types_are_compared_too() -> None:
    types = TYPES.clone()
    conv = columba.compile(columba.nn.RGCNConv(1, 1, 2, aggr="sum", root_weight=False, bias=False), backend="cpp")
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1))
    for _ in range(4):
        assert conv(H, EDGES, types).tolist() == [[100.0], [201.0], [20.0]]
    types.numpy()[0] = 1
    for _ in range(4):
        assert conv(H, EDGES, types).tolist() == [[100.0], [202.0], [20.0]]


@pytest.mark.parametrize("built", [True, False])
def test_every_word_of_a_large_tensor_counts(built: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a checksum where its code is built, else by comparing with a copy."""
    if built:
        assert isinstance(sorts.sorts_for(torch.device("cpu")), sorts.NativeSorts)
    else:
        monkeypatch.setattr(from_tensors, "checksum_of", lambda address, size: None)
    edges = torch.arange(60_002).view(2, -1) % 1000
    seen = Seen(edges)
    assert (seen.checksum is not None) is built
    assert seen.is_still(edges)
    array = edges.numpy().reshape(-1)
    for at in (0, 1, 31, 32, 8191, 8192, 30_001, 59_999, 60_001):
        array[at] += 1
        assert not seen.is_still(edges), at
        array[at] -= 1
        assert seen.is_still(edges), at
    array[[5, 40_000]] = array[[40_000, 5]] + np.array([1, 0])
    assert not seen.is_still(edges)


def test_swapped_ids_change_a_checksum() -> None:
    assert isinstance(sorts.sorts_for(torch.device("cpu")), sorts.NativeSorts)
    edges = torch.arange(40_000)
    seen = Seen(edges)
    for a, b in ((0, 1), (0, 8), (3, 35), (7, 8199), (10_000, 30_000), (39_998, 39_999)):
        edges.data[[a, b]] = edges[[b, a]]
        assert not seen.is_still(edges), (a, b)
        edges.data[[a, b]] = edges[[b, a]]
    assert seen.is_still(edges)


def test_a_copy_becomes_a_checksum_when_that_is_built() -> None:
    edges = torch.arange(40_000)
    seen = Seen(edges)
    seen.checksum, seen.copy = None, edges.clone()
    assert seen.is_still(edges)
    assert seen.checksum is not None
    assert seen.copy is None
    assert seen.is_still(edges)
    edges.numpy()[17] = 0
    assert not seen.is_still(edges)
