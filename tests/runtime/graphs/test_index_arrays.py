"""The index arrays of graphs: what they hold, and that C++ and PyTorch make the same ones."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from eager_graphs import bipartite_graph, square_graphs
from torch.utils._python_dispatch import TorchDispatchMode

import columba
from columba.ir.indices import Hubs, IndexArray, Lookup, Order, Segments, Tiles, TileStarts
from columba.ir.spaces import PAIR_SPACES, Space, index_map, maps_from
from columba.runtime.graphs import index_arrays, sorts
from columba.runtime.graphs.index_arrays import IndexArrays
from columba.runtime.graphs.sorts import NativeSorts, TorchSorts


def _large(edges: int, nodes: int, relations: int, seed: int = 0) -> columba.Graph:
    """Enough edges for several threads; a hub, and relations of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.randint(nodes, (2, edges), generator=generator)
    ends[1, : edges // 3] = 5
    relation = (torch.rand(edges, generator=generator) ** 4 * relations).long()
    return columba.Graph(ends, relation, num_nodes=nodes, num_relations=relations)


GRAPHS = {
    **square_graphs(),
    "bipartite": bipartite_graph(),
    "large": _large(60_000, 3_000, 300),
    "sparse": _large(40_000, 100_000, 3),
    "one relation": _large(40_001, 77, 1),
}


def all_arrays(graph: columba.Graph) -> Iterator[IndexArray]:
    ends = (Space.NODE,) if graph.is_square else (Space.SRC, Space.DST)
    for fine in (Space.EDGE, *PAIR_SPACES, *ends):
        maps = maps_from(fine, square=graph.is_square)
        for m in maps:
            yield from (
                Lookup(m),
                Order(m),
                Segments(m),
                Tiles(m, 1),
                Tiles(m, 7),
                Tiles(m, 4096),
                Tiles(m, 64, least=4),
            )
            yield from (TileStarts(Tiles(m, 7)), TileStarts(Tiles(m, 64, least=4)), Hubs(m, ((3.0, 2), (math.inf, 9))))
            yield from (Lookup(m, other) for other in maps)
            yield from (Order(m, other) for other in maps if other != m)


def native() -> NativeSorts:
    found = sorts.sorts_for(torch.device("cpu"))
    assert isinstance(found, NativeSorts)
    return found


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("name", GRAPHS)
def test_both_implementations_make_the_same_arrays(name: str, dtype: torch.dtype) -> None:
    topology = GRAPHS[name].structure.topology.to(dtype)
    ours, oracle = IndexArrays(topology, native()), IndexArrays(topology, TorchSorts())
    for array in all_arrays(GRAPHS[name]):
        got, wanted = ours.index(array), oracle.index(array)
        assert got.dtype is wanted.dtype is dtype, array
        assert got.is_contiguous(), array
        assert torch.equal(got, wanted), array
    for space in PAIR_SPACES:
        assert ours.pairs(space).count == oracle.pairs(space).count


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads: int) -> None:
    graph, before = GRAPHS["large"], torch.get_num_threads()
    oracle = IndexArrays(graph.structure.topology, TorchSorts())
    torch.set_num_threads(threads)
    try:
        ours = IndexArrays(graph.structure.topology, native())
        assert all(torch.equal(ours.index(a), oracle.index(a)) for a in all_arrays(graph))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", GRAPHS)
def test_arrays_are_what_they_are_called(name: str) -> None:
    graph = GRAPHS[name]
    fines = (Space.EDGE, *PAIR_SPACES)
    for fine in fines:
        for m in maps_from(fine, square=graph.is_square):
            lookup, order = graph.index(Lookup(m)).long(), graph.index(Order(m)).long()
            segments, tiles = graph.index(Segments(m)), graph.index(Tiles(m, 5)).view(3, -1)
            assert len(lookup) == graph.count(fine)
            assert torch.equal(order, torch.sort(lookup, stable=True).indices)
            assert torch.equal(segments.diff().long(), torch.bincount(lookup, minlength=graph.count(m.coarse)))
            owner, start, stop = tiles.long()
            starts = graph.index(TileStarts(Tiles(m, 5)))
            assert torch.equal(starts.diff().long(), torch.bincount(owner, minlength=graph.count(m.coarse)))
            assert graph.structure.largest_degree(m) == int(segments.diff().max() if len(segments) > 1 else 0)
            rows = torch.cat(
                [torch.arange(a, b) for a, b in zip(start.tolist(), stop.tolist(), strict=True)][:500] or [start]
            )
            assert torch.equal(rows, torch.arange(len(rows)))
            assert torch.equal(lookup[order[start]], owner)
            assert not len(stop) or int((stop - start).max()) <= 5


def test_pairs_are_sorted_by_relation_then_node() -> None:
    graph = GRAPHS["large"]
    pairs = graph.structure.pairs(Space.SRC_REL)
    wanted = torch.unique(graph.edge_type * graph.num_nodes + graph.edge_index[0], return_inverse=True)
    assert torch.equal(pairs.relation.long() * graph.num_nodes + pairs.node, wanted[0])
    assert torch.equal(pairs.of_edge.long(), wanted[1])


def test_only_what_is_asked_for_is_built() -> None:
    graph = columba.Graph(torch.tensor([[0, 1], [1, 0]]))
    dst = maps_from(Space.EDGE)[3]
    assert str(dst) == "dst:edge->node"
    graph.index(Segments(dst))
    assert set(graph.structure.built) == {Segments(dst), Lookup(dst)}


def test_without_a_compiler_pytorch_sorts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    sorts._library.cache_clear()
    graph = columba.Graph(torch.tensor([[0, 1, 1], [1, 0, 0]]))
    assert graph.count(Space.SRC_REL) == 2
    assert isinstance(graph.structure.sorts, TorchSorts)
    sorts._library.cache_clear()


def test_the_tensors_of_a_graph_stay_its_own() -> None:
    edge_index, edge_type = torch.tensor([[0, 1], [1, 0]], dtype=torch.int32), torch.tensor([0, 0], dtype=torch.int32)
    graph = columba.Graph(edge_index, edge_type)
    lookups = [graph.index(Lookup(m)).clone() for m in maps_from(Space.EDGE)]
    edge_index.zero_(), edge_type.fill_(7)
    assert graph.edge_index.tolist() == [[0, 1], [1, 0]]
    assert all(torch.equal(a, graph.index(Lookup(m))) for a, m in zip(lookups, maps_from(Space.EDGE), strict=True))


@pytest.mark.parametrize(
    ("edges", "sizes", "message"),
    [
        ([[0, 5], [1, 0]], {"num_nodes": 3}, r"edge_index\[0\] holds 5 at edge 1, but there are 3 source nodes"),
        ([[0, 1], [1, -2]], {"num_nodes": 3}, r"edge_index\[1\] holds -2 at edge 1"),
        ([[0, -1], [1, 2]], {}, r"edge_index\[0\] holds -1 at edge 1"),
        ([[0, 1], [1, 3]], {"num_nodes": (2, 3)}, r"edge_index\[1\] holds 3 at edge 1, but there are 3 destination"),
    ],
)
def test_ids_out_of_range(edges: list[list[int]], sizes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        columba.Graph(torch.tensor(edges), **sizes)


class _Waits(TorchDispatchMode):
    """Counts what would wait for a GPU: numbers read from tensors, and results whose sizes the data say."""

    sizes_from_data = ("nonzero", "masked_select", "_unique2", "unique_dim", "bincount")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        unsized = name == "repeat_interleave" and kwargs.get("output_size") is None
        by_mask = name == "index" and any(t is not None and t.dtype is torch.bool for t in args[1])
        if name in (*self.sizes_from_data, "_local_scalar_dense") or unsized or by_mask:
            self.seen.append(name)
        return func(*args, **kwargs)


def test_pytorch_waits_for_the_device_only_where_a_length_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each pair space, once for each table of tiles, once for the largest degree along a map."""
    monkeypatch.setattr(index_arrays, "outside_modes", contextlib.nullcontext)  # the mode is to see what is done
    graph = GRAPHS["large"]
    graph.counts()  # the graph's own, made by its own sorts
    arrays = IndexArrays(graph.structure.topology, TorchSorts())
    with _Waits() as waits:
        for space in PAIR_SPACES:
            arrays.pairs(space)
    assert waits.seen == ["_local_scalar_dense"] * len(PAIR_SPACES)
    with _Waits() as waits:
        others = [a for a in all_arrays(graph) if not isinstance(a, Tiles | Hubs)]
        for array in others:
            arrays.index(array)
    assert not waits.seen
    with _Waits() as waits:
        arrays.index(Tiles(others[0].map, 7))
    assert waits.seen == ["_local_scalar_dense"]
    by_dst = index_map("dst", Space.EDGE)
    for hubs, waiting in ((Hubs(by_dst, ((math.inf, 9),)), 2), (Hubs(by_dst, ((math.inf, 1 << 20),)), 0)):
        with _Waits() as waits:
            arrays.index(hubs)
        assert waits.seen == ["_local_scalar_dense"] * waiting
