"""How large a case is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from columba.ir.spaces import Space

FLOAT, ID = 4, 8
"""Bytes of a feature (fp32) and of an index."""


@dataclass(frozen=True)
class Sizes:
    """A graph's counts, and ``features`` in and out in all of ``heads`` together.

    Counts do not say which nodes a relation joins. Relations are taken to have equally many edges, and node types equally many nodes: a
    relation's ends are ``of_type`` nodes each.
    """

    nodes: int
    edges: int
    relations: int
    node_types: int
    features: int = 64
    heads: int = 1

    @classmethod
    def of(cls, counts: Mapping[Space, int], features: int = 64, heads: int = 1) -> Sizes:
        spaces = (Space.NODE, Space.EDGE, Space.REL, Space.NTYPE)
        return cls(*(counts[s] for s in spaces), features, heads)

    @property
    def of_relation(self) -> int:
        """Edges of a relation."""
        return self.edges // self.relations

    @property
    def of_type(self) -> int:
        """Nodes of a type."""
        return self.nodes // self.node_types

    def rows(self, count: int, width: int | None = None) -> int:
        """Bytes of ``count`` rows of ``width`` floats (None: of features)."""
        return FLOAT * count * (self.features if width is None else width)

    def products(self, count: int, depth: int | None = None, columns: int | None = None) -> int:
        """Operations of ``count`` rows times a matrix."""
        return 2 * count * (depth or self.features) * (columns or self.features)
