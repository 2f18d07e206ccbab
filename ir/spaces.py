"""Index spaces of a typed graph, and the maps between them.

Every tensor of a relational GNN has one leading dimension that counts something in the graph: nodes,
edges, relations, ... That something is the tensor's *space*. Spaces are connected by *index maps*, each from a
finer space to a coarser one; data moves along a map by ``lift`` (coarse to fine, a gather) or by ``reduce``
(fine to coarse, a segment reduction), and in no other way.

A graph may be a *batch* of graphs, side by side: :attr:`Space.GRAPH` has a row for each. Both ends of an edge are nodes of the same
one, which is why ``graph`` after ``src`` and after ``dst`` is one map.

A *square* graph has one set of nodes: its endpoints both live in :attr:`Space.NODE`. A *bipartite* graph (a
sampled block, one edge type of a heterogeneous graph) has two: :attr:`Space.SRC` and :attr:`Space.DST`.

Edges of a *hypergraph* (triplets, faces, pairs of edges that are stored side by side) have more ends than two: ``src2``, ``src3``, ... and
``dst2``, ``dst3``, ... lead from them to further nodes as ``src`` and ``dst`` do.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import Enum

from columba.ir.hashing import hash_once


class Space(str, Enum):
    """What one row of a tensor stands for."""

    SRC = "src"  #: source node of a bipartite graph
    DST = "dst"  #: destination node of a bipartite graph
    NODE = "node"  #: node of a square graph
    EDGE = "edge"  #: edge, in the order in which the user listed them
    REL = "rel"  #: edge type (relation)
    NTYPE = "ntype"  #: node type
    SRC_REL = "src_rel"  #: distinct (source, relation) pair that occurs, sorted by relation, then source
    DST_REL = "dst_rel"  #: distinct (destination, relation) pair that occurs, sorted by relation, then destination
    ONE = "one"  #: the whole graph: a plain tensor, of which there is one
    GRAPH = "graph"  #: graph of a batch; the last one, since kernels know spaces by their number

    __hash__ = str.__hash__  # Enum's own is in Python

    def __str__(self) -> str:
        return self.value


NODE_SPACES = (Space.SRC, Space.DST, Space.NODE)
PAIR_SPACES = (Space.SRC_REL, Space.DST_REL)

TYPE_SPACES = (Space.REL, Space.NTYPE)
"""What selects a weight: edge types and node types."""

WEIGHT_SPACES = (*TYPE_SPACES, Space.ONE)
"""Spaces with few rows, whose tensors are weights."""


MOST_ENDS = 8
"""How many sources, and how many destinations, an edge has at most."""

FURTHER_ENDS = tuple(f"{end}{n}" for end in ("src", "dst") for n in range(2, MOST_ENDS + 1))
"""The maps from edges to their ends after the first source and the first destination."""


@hash_once
@dataclass(frozen=True)
class IndexMap:
    """A function from the rows of a ``fine`` space to the rows of a ``coarse`` one.

    ``name`` is one of ``src``, ``dst``, ``rel``, ``src_rel``, ``dst_rel``, ``ntype``, ``src_type``, ``dst_type``,
    ``graph``, ``one``, or one of :data:`FURTHER_ENDS`, of whose types there are maps, too. In a square graph the maps ``src`` and
    ``dst`` have the same ends, ``edge -> node``, and only the name tells them apart. The maps are closed under composition
    (:func:`compose`): one step reaches everything.
    """

    name: str
    fine: Space
    coarse: Space

    def __post_init__(self) -> None:
        if self.coarse not in _COARSE_OF.get((self.name, self.fine), ()):
            raise ValueError(f"no index map {self.name!r} from {self.fine} to {self.coarse}")

    def __str__(self) -> str:
        return f"{self.name}:{self.fine}->{self.coarse}"


def _coarse_table() -> dict[tuple[str, Space], tuple[Space, ...]]:
    table: dict[tuple[str, Space], tuple[Space, ...]] = {}
    for end, pair in (("src", Space.SRC_REL), ("dst", Space.DST_REL)):
        nodes = (Space(end), Space.NODE)
        table[end, Space.EDGE] = nodes
        table[end, pair] = nodes
        table[pair.value, Space.EDGE] = (pair,)
        table["rel", pair] = (Space.REL,)
        table[f"{end}_type", Space.EDGE] = (Space.NTYPE,)
        table[f"{end}_type", pair] = (Space.NTYPE,)
    for end in FURTHER_ENDS:
        table[end, Space.EDGE] = (Space(end[:3]), Space.NODE)
        table[f"{end}_type", Space.EDGE] = (Space.NTYPE,)
    table["rel", Space.EDGE] = (Space.REL,)
    for node in NODE_SPACES:
        table["ntype", node] = (Space.NTYPE,)
    for fine in (Space.EDGE, *PAIR_SPACES, *NODE_SPACES):
        table["graph", fine] = (Space.GRAPH,)
    for space in Space:
        if space is not Space.ONE:
            table["one", space] = (Space.ONE,)
    return table


_COARSE_OF = _coarse_table()


def index_map(name: str, fine: Space, *, square: bool = True) -> IndexMap:
    """The map called ``name`` that leaves ``fine``, in a square or in a bipartite graph.

    >>> str(index_map("src", Space.EDGE))
    'src:edge->node'
    >>> str(index_map("src", Space.EDGE, square=False))
    'src:edge->src'
    """
    options = _COARSE_OF.get((name, fine))
    if not options:
        raise ValueError(f"no index map {name!r} leaves space {fine}")
    return IndexMap(name, fine, options[-1] if square else options[0])


@functools.cache
def maps_from(fine: Space, *, square: bool = True, further: bool = False) -> tuple[IndexMap, ...]:
    """All maps that leave ``fine``, finest target first; those to further ends only where asked for, since few graphs have some."""
    ends = ("src", "dst", *(FURTHER_ENDS if further else ()))
    names = ("src_rel", "dst_rel", *ends, "graph", "rel", "ntype", *(f"{end}_type" for end in ends), "one")
    return tuple(index_map(name, fine, square=square) for name in names if (name, fine) in _COARSE_OF)


def compose(first: IndexMap, second: IndexMap) -> IndexMap:
    """The one map that does ``first`` and then ``second``.

    >>> str(compose(index_map("src_rel", Space.EDGE), index_map("src", Space.SRC_REL)))
    'src:edge->node'
    >>> str(compose(index_map("dst", Space.EDGE), index_map("ntype", Space.NODE)))
    'dst_type:edge->ntype'
    >>> compose(index_map("src", Space.EDGE), index_map("graph", Space.NODE)) == index_map("graph", Space.EDGE)
    True
    """
    if first.coarse is not second.fine:
        raise ValueError(f"map {second} does not leave the space that {first} reaches")
    if second.name == "ntype":
        return IndexMap(f"{first.name}_type", first.fine, Space.NTYPE)
    return IndexMap(second.name, first.fine, second.coarse)


def factor(whole: IndexMap, first: IndexMap) -> IndexMap | None:
    """The map ``m`` with ``compose(first, m) == whole``, or None if there is none (``first`` itself needs no ``m``).

    >>> edge_to = lambda name: index_map(name, Space.EDGE)
    >>> str(factor(edge_to("rel"), edge_to("src_rel")))
    'rel:src_rel->rel'
    >>> factor(edge_to("dst"), edge_to("src_rel")) is None
    True
    """
    if whole.fine is not first.fine or whole == first:
        return None
    for name in (whole.name, "ntype"):
        for coarse in _COARSE_OF.get((name, first.coarse), ()):
            step = IndexMap(name, first.coarse, coarse)
            if coarse is whole.coarse and compose(first, step) == whole:
                return step
    return None
