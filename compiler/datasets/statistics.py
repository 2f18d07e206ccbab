"""Counts of published graphs, for what can be said of a graph without having it.

``statistics.json`` holds them, each with where it is from and how its numbers of pairs were found: ``counted`` on the graph itself,
``scaled`` from a graph of the same data, a ``bound`` from above, or ``estimated`` from graphs of the same kind.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

from columba.ir.counts import Counts
from columba.ir.spaces import Space

KINDS = ("counted", "scaled", "bound", "estimated")
"""How the numbers of pairs of a graph may be known."""

NAMES = {
    "nodes": Space.NODE,
    "edges": Space.EDGE,
    "relations": Space.REL,
    "node_types": Space.NTYPE,
    "graphs": Space.GRAPH,
    **{space.value: space for space in Space},
}
"""What counts may be called in a file: words, or names of spaces."""


@dataclass(frozen=True)
class GraphStatistics:
    """Rows of the spaces of a graph.

    Attributes:
        name: of the graph.
        rows: by space; ``one`` may be left out.
        pairs: one of :data:`KINDS`.
        source, method: who published the counts, and how the numbers of pairs follow.
        largest_degree: the most edges that lead to or leave from one node, where that is known; ``degrees``: how. ``largest_relation``:
            the most edges of one relation.
    """

    name: str
    rows: Mapping[Space, int]
    pairs: str = "counted"
    source: str = ""
    method: str = ""
    largest_degree: int | None = None
    largest_relation: int | None = None
    degrees: str = ""

    def counts(self) -> Counts:
        """Rows of every space that the graph has, as :meth:`columba.Graph.counts` gives them."""
        return Counts({Space.GRAPH: 1, **self.rows}, self.largest_degree, self.largest_relation)

    def compaction(self, space: Space) -> float:
        """Pairs for each edge."""
        return self.rows[space] / max(1, self.rows[Space.EDGE])

    def without_compaction(self) -> GraphStatistics:
        """As if every edge had a pair of its own: the most that there can be."""
        edges = self.rows[Space.EDGE]
        rows = {**self.rows, Space.SRC_REL: edges, Space.DST_REL: edges}
        return replace(self, rows=rows, pairs="bound", method="pairs: one for each edge")


@functools.cache
def published() -> Mapping[str, GraphStatistics]:
    """All graphs in ``statistics.json``, by name."""
    text = resources.files("columba.datasets").joinpath("statistics.json").read_text(encoding="utf-8")
    return {name: _parse(name, entry) for name, entry in json.loads(text).items()}


def statistics(name_or_file: str | PathLike[str]) -> GraphStatistics:
    """The statistics of a published graph, or those in a JSON file: an object of counts, by the names of spaces.

    Raises:
        ValueError: there is neither a published graph nor a file of that name, or the file does not hold counts.

    >>> statistics("biokg").rows[Space.EDGE]
    4762678
    """
    name = str(name_or_file)
    if name in published():
        return published()[name]
    path = Path(name_or_file)
    if not path.is_file():
        raise ValueError(f"no published graph and no file is called {name!r}; published: {', '.join(published())}")
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as e:
        raise ValueError(f"{name} is not JSON: {e}") from None
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply to be an object of counts") from None
    if not isinstance(entry, dict):
        raise ValueError(f"{name} holds no object of counts")
    return _parse(path.stem, entry)


def _parse(name: str, entry: Mapping[str, Any]) -> GraphStatistics:
    texts = {key: entry[key] for key in ("pairs", "source", "method", "degrees") if key in entry}
    if texts.get("pairs", "counted") not in KINDS:
        raise ValueError(f"{name}: pairs are {texts['pairs']!r}; one of {', '.join(KINDS)}")
    largest = {key: entry[key] for key in ("largest_degree", "largest_relation") if key in entry}
    for key, edges in largest.items():
        if not isinstance(edges, int) or edges < 0:
            raise ValueError(f"{name}: {key} must be a number of edges, got {edges!r}")
    rows: dict[Space, int] = {}
    for key, count in entry.items():
        if key in texts or key in largest:
            continue
        if key not in NAMES:
            raise ValueError(f"{name}: unknown count {key!r}; one of {', '.join(NAMES)}")
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"{name}: {key} must be a number of rows, got {count!r}")
        rows[NAMES[key]] = count
    if Space.EDGE not in rows:
        raise ValueError(f"{name}: the number of edges is missing")
    return GraphStatistics(name, rows, **largest, **texts)
