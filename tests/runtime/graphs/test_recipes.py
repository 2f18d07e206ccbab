"""Index arrays that are made together, by one call into C++: the same as each by itself, by PyTorch."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

import columba
from columba.ir.indices import Hubs, IndexArray, Lookup, Order, Segments, Tiles, TileStarts
from columba.ir.spaces import PAIR_SPACES, Space, index_map, maps_from
from columba.runtime.graphs import recipes, sorts
from columba.runtime.graphs.index_arrays import IndexArrays
from columba.runtime.graphs.recipes import Preparation, prepare
from columba.runtime.graphs.sorts import NativeSorts, Pairs, TorchSorts
from columba.runtime.structure import ArraysInPlace, located, taken

pytestmark = pytest.mark.unoptimized

FIELDS = ("node", "relation", "of_edge", "order", "segments")


def native() -> NativeSorts:
    found = sorts.sorts_for(torch.device("cpu"))
    assert isinstance(found, NativeSorts)
    return found


def random_graph(rng: random.Random) -> columba.Graph:
    """Of any kind: without edges, nodes that none leads to, relations of which there is none, with more pairs than fit a table."""
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    edges = rng.choice([0, 1, 7, 200])
    nodes, others = rng.choice([1, 5, 400]), rng.choice([1, 6])
    relations = rng.choice([1, 3, 50])
    is_square, typed, graphs = rng.random() < 0.6, rng.random() < 0.5, rng.choice([None, 1, 3])
    sizes = (nodes, nodes) if is_square else (nodes, others)
    ends = torch.stack([torch.randint(n, (edges,), generator=generator) for n in sizes])
    ids: dict[str, object] = {}
    if typed:
        types = [torch.randint(2, (n,), generator=generator) for n in sizes]
        ids |= {"node_type": types[0] if is_square else tuple(types), "num_node_types": 4}
    if graphs is not None:
        of = [torch.arange(n) * graphs // n for n in sizes]
        ends = ends[:, of[0][ends[0]] == of[1][ends[1]]]
        ids |= {"batch": of[0] if is_square else tuple(of), "num_graphs": graphs + 1}
    relation = torch.randint(max(1, relations - 1), (ends.shape[1],), generator=generator)
    graph = columba.Graph(
        ends,
        relation,
        num_nodes=nodes if is_square else sizes,
        num_relations=relations,
        **ids,  # type: ignore[arg-type]
    )
    if rng.random() < 0.5:
        return graph
    further = [torch.randint(n, (ends.shape[1],), generator=generator) for n in sizes]
    if graphs is not None:  # ends are of one graph of the batch
        further = list(ends)
    return graph.with_further_ends(("src2", "dst2"), torch.stack(further))


def all_arrays(graph: columba.Graph) -> list[IndexArray]:
    ends = (Space.NODE,) if graph.is_square else (Space.SRC, Space.DST)
    found: list[IndexArray] = []
    for fine in (Space.EDGE, *PAIR_SPACES, *ends):
        maps = list(maps_from(fine, square=graph.is_square))
        for name in graph.structure.topology.further if fine is Space.EDGE else ():
            maps += [index_map(n, fine, square=graph.is_square) for n in (name, f"{name}_type")]
        for m in maps:
            tiles = Tiles(m, 7), Tiles(m, 64, least=4)
            found += [Lookup(m), Order(m), Segments(m), *tiles, *map(TileStarts, tiles), Hubs(m, ((math.inf, 9),))]
            found += [Lookup(m, other) for other in maps]
            found += [Order(m, other) for other in maps if other != m]
    return found


def assert_same(got: Tensor, wanted: Tensor, what: object) -> None:
    assert got.dtype is wanted.dtype, what
    assert got.is_contiguous(), what
    assert got.tolist() == wanted.tolist(), what


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_they_are_the_same_as_each_by_itself(dtype: torch.dtype) -> None:
    """Whatever is asked for at once, and whatever a graph has already."""
    rng = random.Random(0)
    for _ in range(12):
        topology = (graph := random_graph(rng)).structure.topology.to(dtype)
        ours, oracle = IndexArrays(topology, native()), IndexArrays(topology, TorchSorts())
        known = all_arrays(graph)
        for count in (1, 3, 20, len(known)):
            wanted = rng.sample(known, count)
            if rng.random() < 0.3:
                ours.count(rng.choice(PAIR_SPACES))
            if rng.random() < 0.3:
                ours.index(rng.choice(known))
            for array, made in zip(wanted, prepare(ours, wanted), strict=True):
                assert_same(made, oracle.index(array), (graph, array))
                assert made is ours.index(array)
        for space in PAIR_SPACES:
            assert ours.count(space) == oracle.count(space)
            for name in FIELDS:
                assert_same(getattr(ours.pairs(space), name), getattr(oracle.pairs(space), name), (graph, name))


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(threads: int) -> None:
    generator, before = torch.Generator().manual_seed(0), torch.get_num_threads()
    ends = torch.randint(3_000, (2, 40_000), generator=generator)
    relation = torch.randint(5, (40_000,), generator=generator)
    graph = columba.Graph(ends, relation, num_nodes=3_000, num_relations=5)
    arrays = [a for a in all_arrays(graph) if not isinstance(a, Hubs)]
    oracle = IndexArrays(graph.structure.topology, TorchSorts())
    torch.set_num_threads(threads)
    try:
        made = prepare(IndexArrays(graph.structure.topology, native()), arrays)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, oracle.index(array)) for a, array in zip(made, arrays, strict=True))


def test_one_call_makes_them_and_a_kind_of_graphs_is_noted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = NativeSorts._call

    def counted(self: NativeSorts, function: str, *args: Tensor | int | None) -> int:
        calls.append(function)
        return real(self, function, *args)

    monkeypatch.setattr(NativeSorts, "_call", counted)
    by_dst, pair = index_map("dst", Space.EDGE), index_map("src_rel", Space.EDGE)
    wanted = [Lookup(pair, by_dst), Segments(by_dst), Tiles(by_dst, 16), Order(pair, by_dst)]
    recipes._recipe.cache_clear()
    for nodes in (5, 6, 9):
        structure = IndexArrays(
            columba.Graph(torch.tensor([[0, 1, 1], [1, 2, 4]]), num_nodes=nodes).structure.topology, native()
        )
        prepare(structure, wanted)
        assert calls == ["count_pairs"], (
            "how many pairs there are says how long arrays are; one more call makes them all"
        )
        calls.clear()
    assert recipes._recipe.cache_info().misses == 1


def test_arrays_are_known_by_place_until_somebody_asks_for_tensors() -> None:
    """Of one program, of another that reads some of the same arrays, and of one that finds all of its own there."""
    by_dst, by_src, pair = (index_map(name, Space.EDGE) for name in ("dst", "src", "src_rel"))
    first = Preparation([Order(by_dst), Tiles(by_dst, 2), Lookup(pair, by_dst), Lookup(by_src)])
    second = Preparation([Segments(by_src), Lookup(pair, by_dst), Segments(by_dst), Lookup(pair)])
    third = Preparation([Lookup(pair), Order(by_dst)])
    for nodes, is_dense in ((5, True), (7, True), (2_000, False), (2_001, False)):
        relation = torch.tensor([0, 2, 0, 0])
        graph = columba.Graph(torch.tensor([[0, 1, 1, 1], [1, 2, 4, 4]]), relation, num_nodes=nodes, num_relations=3)
        structure = IndexArrays(graph.structure.topology, native())
        oracle = IndexArrays(graph.structure.topology, TorchSorts())
        made = [preparation(structure) for preparation in (first, second, third, first)]
        assert set(structure._built) == {Lookup(by_src)}, "the sources, which the second follows from"
        assert list(structure._pair_spaces) == ([] if is_dense else [Space.SRC_REL])
        assert len(structure.prepared) == 2, "what is there already is not made again"
        for index, preparation in zip(made, (first, second, third, first), strict=True):
            assert isinstance(index, ArraysInPlace)
            places, lengths = located(index)
            for n, array in enumerate(preparation.arrays):
                assert_same(index[n], oracle.index(array), array)
                assert (places[n], lengths[n]) == (index[n].data_ptr(), index[n].numel())
            some = taken(index, (1, 0))
            assert located(some) == ([places[1], places[0]], [lengths[1], lengths[0]])
            assert [x.data_ptr() for x in some] == [places[1], places[0]]
            assert [x.data_ptr() for x in index[:2]] == list(places[:2])
        for name in FIELDS:
            assert_same(getattr(structure.pairs(Space.SRC_REL), name), getattr(oracle.pairs(Space.SRC_REL), name), name)
        assert {Segments(by_dst), Order(by_dst), Tiles(by_dst, 2)} < set(structure.built)
    assert [len(p.ways) for p in (first, second, third)] == [4, 2, 2], (
        "as many as there are states of a graph to begin with"
    )


def test_only_what_is_asked_for_and_what_it_follows_from_is_made() -> None:
    structure = IndexArrays(columba.Graph(torch.tensor([[0, 1], [1, 0]])).structure.topology, native())
    by_dst = index_map("dst", Space.EDGE)
    prepare(structure, [Segments(by_dst)])
    assert set(structure.built) == {Segments(by_dst), Lookup(by_dst)}
    assert not structure.pair_spaces


def test_pytorch_makes_them_where_there_is_no_compiler() -> None:
    structure = IndexArrays(columba.Graph(torch.tensor([[0, 1], [1, 0]])).structure.topology, TorchSorts())
    by_dst = index_map("dst", Space.EDGE)
    assert [a.tolist() for a in prepare(structure, [Segments(by_dst), Order(by_dst)])] == [[0, 1, 2], [1, 0]]


def test_counting_pairs_makes_none() -> None:
    """But where a table of all that there may be would be larger than what sorting them takes."""
    few = IndexArrays(columba.Graph(torch.tensor([[0, 1, 1], [1, 0, 0]])).structure.topology, native())
    assert few.count(Space.SRC_REL) == 2
    assert not few.pair_spaces
    graph = columba.Graph(torch.tensor([[0, 1, 1], [1, 0, 0]]), num_nodes=2_000, num_relations=3)
    many = IndexArrays(graph.structure.topology, native())
    assert many.count(Space.SRC_REL) == 2
    assert isinstance(many.pair_spaces[Space.SRC_REL], Pairs)


@pytest.mark.parametrize("edges", [0, 3, 40_000])
def test_pairs_of_both_ends_are_counted_together(edges: int) -> None:
    """By one call, of which each end may say that it would have to sort; what is known is not counted again."""
    generator = torch.Generator().manual_seed(edges)
    ends = torch.stack([torch.randint(n, (edges,), generator=generator) for n in (700_000, 9)])
    relation = torch.randint(4, (edges,), generator=generator)
    topology = columba.Graph(ends, relation, num_nodes=(700_000, 9), num_relations=5).structure.topology
    wanted = [len(set(zip(ids.tolist(), relation.tolist(), strict=True))) for ids in ends]
    assert native().count_both_pairs(topology) == (None, wanted[1]), (
        "700,000 nodes of 5 relations are many for so few edges"
    )
    structure = IndexArrays(topology, native())
    structure.count_pairs()
    assert structure.known_pairs(Space.SRC_REL) is None
    assert [structure.count(space) for space in PAIR_SPACES] == wanted
    structure.count_pairs()
    small = columba.Graph(ends % 9, relation, num_nodes=9, num_relations=5)
    oracle = IndexArrays(small.structure.topology, TorchSorts())
    assert [small.counts()[space] for space in PAIR_SPACES] == [oracle.count(space) for space in PAIR_SPACES]


def test_no_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    found = native()
    monkeypatch.setattr(found, "library", {**found.library, ("prepare", torch.int32): lambda *args: 1})
    structure = IndexArrays(columba.Graph(torch.tensor([[0, 1], [1, 0]])).structure.topology, found)
    with pytest.raises(MemoryError, match="no memory to prepare a graph"):
        prepare(structure, [Segments(index_map("dst", Space.EDGE))])
    assert not structure.built
