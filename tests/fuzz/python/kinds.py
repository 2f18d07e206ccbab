"""What a value of a random program is: the rows that it has, and its features."""

from __future__ import annotations

import re
from dataclasses import dataclass

ROWS = ("node", "src", "dst", "edge", "src_rel", "dst_rel", "rel", "ntype", "graph")
"""Spaces with rows, by the names that the language gives them; ``one`` is a plain tensor."""


@dataclass(frozen=True)
class Kind:
    """Its space, its feature dimensions (all dimensions of a plain tensor), and whether it holds truth values."""

    space: str
    shape: tuple[int, ...] = ()
    is_bool: bool = False

    @property
    def rank(self) -> int:
        """Feature dimensions."""
        return len(self.shape)

    @property
    def has_rows(self) -> bool:
        return self.space != "one"

    def shaped(self, *shape: int) -> Kind:
        return Kind(self.space, shape, self.is_bool)

    def __str__(self) -> str:
        return f"{self.space}[{','.join(map(str, self.shape))}]"

    @classmethod
    def parse(cls, text: str) -> Kind:
        """The inverse of ``str``."""
        found = re.fullmatch(r"(\w+)\[([\d,]*)\]", text)
        assert found is not None, text
        return cls(found[1], tuple(int(n) for n in found[2].split(",") if n))


@dataclass(frozen=True)
class Value:
    """A name in the program, and what it stands for. ``weight`` is a plain tensor that may have a row per relation or type."""

    name: str
    kind: Kind
    is_input: bool = False
    is_weight: bool = False

    def __str__(self) -> str:
        return self.name
