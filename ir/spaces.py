"""Index spaces of a typed graph, and the maps between them.

Every tensor of a relational GNN has one leading dimension that counts something in the graph: nodes,
edges, relations, ... That something is the tensor's *space*. Spaces are connected by *index maps*, each from a
finer space to a coarser one; data moves along a map by ``lift`` (coarse to fine, a gather) or by ``reduce``
(fine to coarse, a segment reduction), and in no other way.

A *square* graph has one set of nodes: its endpoints both live in :attr:`Space.NODE`. A *bipartite* graph (a
sampled block, one edge type of a heterogeneous graph) has two: :attr:`Space.SRC` and :attr:`Space.DST`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


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

    def __str__(self) -> str:
        return self.value


NODE_SPACES = (Space.SRC, Space.DST, Space.NODE)
PAIR_SPACES = (Space.SRC_REL, Space.DST_REL)


@dataclass(frozen=True)
class IndexMap:
    """A function from the rows of a ``fine`` space to the rows of a ``coarse`` one.

    ``name`` is one of ``src``, ``dst``, ``rel``, ``src_rel``, ``dst_rel``, ``ntype``, ``one``. In a square graph
    the maps ``src`` and ``dst`` have the same ends, ``edge -> node``, and only the name tells them apart.
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
    table["rel", Space.EDGE] = (Space.REL,)
    for node in NODE_SPACES:
        table["ntype", node] = (Space.NTYPE,)
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


def maps_from(fine: Space, *, square: bool = True) -> tuple[IndexMap, ...]:
    """All maps that leave ``fine``, finest target first."""
    names = ("src_rel", "dst_rel", "src", "dst", "rel", "ntype", "one")
    return tuple(index_map(name, fine, square=square) for name in names if (name, fine) in _COARSE_OF)


Path = tuple[IndexMap, ...]
"""Maps to follow one after the other; the empty path stays where it is."""


def paths(fine: Space, coarse: Space, *, square: bool = True) -> tuple[Path, ...]:
    """All paths from ``fine`` to ``coarse``, shortest first. Two paths may reach different rows."""
    if fine is coarse:
        return ((),)
    found: list[Path] = []
    for step in maps_from(fine, square=square):
        if step.coarse is Space.ONE and coarse is not Space.ONE:
            continue
        found.extend((step, *rest) for rest in paths(step.coarse, coarse, square=square))
    return tuple(sorted(found, key=len))


def path_target(at: Space, path: Path) -> Space:
    """The space that ``path`` leads to from ``at``; checks that each step starts where the last one ended."""
    for step in path:
        if step.fine is not at:
            raise ValueError(f"map {step} does not leave space {at}")
        at = step.coarse
    return at


def normalize_path(path: Path) -> Path:
    """The shortest path that reaches the same rows: ``edge->src_rel->src`` is ``edge->src``.

    >>> pair = index_map("src_rel", Space.EDGE)
    >>> normalize_path((pair, index_map("src", Space.SRC_REL))) == (index_map("src", Space.EDGE),)
    True
    """
    if path and path[-1].coarse is Space.ONE:
        return (IndexMap("one", path[0].fine, Space.ONE),)
    steps: list[IndexMap] = []
    for step in path:
        if steps and steps[-1].coarse in PAIR_SPACES and steps[-1].fine is Space.EDGE:
            steps[-1] = IndexMap(step.name, Space.EDGE, step.coarse)
        else:
            steps.append(step)
    return tuple(steps)
