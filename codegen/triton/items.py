"""The block graph: blocks of numbers that a kernel computes, as a graph, before it is written down.

An :class:`Item` is one expression over blocks. All blocks of a kernel have the same number of dimensions; one that does not vary
along a dimension has size 1 there, so that everything broadcasts. Items with the same text and operands are one object.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from columba.codegen.triton import prelude


@dataclass(frozen=True)
class Axis:
    """One dimension of a kernel's blocks.

    ``block`` lanes (a number, or the name of a compile-time parameter) stand for positions from ``start`` on (an expression; empty: 0),
    of which those below ``size`` count (None: all of them, or as many as a mask of its own says).
    """

    dim: int
    block: str
    size: int | None = None
    start: str = ""


@dataclass(frozen=True, eq=False)
class Item:
    """An expression: a format string and the operands that it reads.

    ``name`` is what it is called where it needs a name; items without one are always written in place. ``phase`` is the loop over
    members in which it is first known. ``axes`` are those along which it varies.
    """

    text: str
    args: tuple[Item, ...]
    axes: frozenset[Axis]
    name: str = ""
    phase: int = 0
    nested: bool = False  # written in place where it is read once
    masks: frozenset[Item] = field(default_factory=frozenset)  # it is 0 where these do not hold

    def __repr__(self) -> str:
        return f"<item {self.name}: {self.text}>"


class Items:
    """Makes items, equal ones once."""

    def __init__(self) -> None:
        self.made: dict[tuple[object, ...], Item] = {}

    def __call__(
        self,
        text: str,
        *args: Item,
        name: str = "",
        add: Iterable[Axis] = (),
        drop: Iterable[Axis] = (),
        phase: int | None = None,
        nested: bool = False,
        masks: frozenset[Item] = frozenset(),
    ) -> Item:
        axes = frozenset().union(*(a.axes for a in args)).union(add) - frozenset(drop)
        key = (text, args, axes)
        if key not in self.made:
            known = max((a.phase for a in args), default=0) if phase is None else phase
            self.made[key] = Item(text, args, axes, name, known, nested, masks)
        return self.made[key]

    def all_of(self, masks: Iterable[Item]) -> Item | None:
        """The conjunction of masks, in a fixed order."""
        parts = tuple(dict.fromkeys(masks))
        if not parts:
            return None
        if len(parts) == 1:
            return parts[0]
        return self(" & ".join(f"{{{n}:a}}" for n in range(len(parts))), *parts, name="mask", nested=True)


def below(roots: Iterable[Item]) -> list[Item]:
    """All items that the roots need, operands first."""
    order: dict[Item, None] = {}
    seen: set[Item] = set()
    stack = [(r, False) for r in reversed(list(roots))]
    while stack:
        item, expanded = stack.pop()
        if expanded:
            order[item] = None
        elif item not in seen:
            seen.add(item)
            stack.append((item, True))
            stack.extend((a, False) for a in reversed(item.args) if a not in seen)
    return list(order)


class Text(str):
    """An expression in Python; formatted with ``:a`` it comes in parentheses unless it binds tightly."""

    def __format__(self, spec: str) -> str:
        if spec != "a" or _is_atom(self):
            return str(self)
        return f"({self})"


def _is_atom(text: str) -> bool:
    if re.fullmatch(r"[\w.]+(e-\d+)?", text):
        return True
    head = re.match(r"[\w.]*[(\[]", text)
    if head is None:
        return False
    depth = 0
    for at, c in enumerate(text):
        depth += (c in "([") - (c in ")]")
        if depth == 0 and c in ")]":
            return at == len(text) - 1
    return False


RESERVED = frozenset(
    [
        "tl",
        "triton",
        "range",
        "max",
        "min",
        "sum",
        "abs",
        "pow",
        "float",
        "start",
        "longest",
        "depth",
        "left",
        "right",
        *prelude.functions(),
    ]
)
"""What variables are not called: functions of Python and of the prelude, and the variables of templates."""

LINE = 110
"""Longer expressions are cut by giving names to their parts."""


class BlockShape:
    """The dimensions of a kernel's blocks."""

    def __init__(self) -> None:
        self.rank = 0

    def see(self, items: Iterable[Item]) -> None:
        for item in items:
            for axis in item.axes:
                self.rank = max(self.rank, axis.dim + 1)

    def shape(self, axes: Iterable[Axis]) -> str:
        """The shape of a block along ``axes``, as a tuple."""
        sizes = ["1"] * self.rank
        for axis in axes:
            sizes[axis.dim] = axis.block
        return f"({', '.join(sizes)}{',' if self.rank == 1 else ''})"

    def at(self, dim: int) -> str:
        """The subscript that puts a vector along a dimension."""
        if self.rank == 1:
            return ""
        return f"[{', '.join(':' if d == dim else 'None' for d in range(self.rank))}]"

    @property
    def fields(self) -> dict[str, str]:
        return {f"at{d}": self.at(d) for d in range(self.rank)} | {"ones": self.shape(())}


class Writer:
    """Writes items down as statements, each once in the scope where it is first needed or in one around it."""

    def __init__(self, layout: BlockShape, taken: set[str], readers: dict[Item, int]) -> None:
        self.layout = layout
        self.taken = taken
        self.readers = readers
        self.lines: list[str] = []
        self.known: dict[Item, Text] = {}

    def inner(self) -> Writer:
        """The scope of a loop's body."""
        scope = Writer(self.layout, self.taken, self.readers)
        scope.known = dict(self.known)
        return scope

    def write(self, roots: Iterable[Item]) -> None:
        """Makes the roots known."""
        for root in roots:
            self._write(root)

    def read(self, root: Item) -> Text:
        """The root as an expression."""
        self._write(root)
        return self.known[root]

    def named(self, root: Item) -> Text:
        """The root as a variable."""
        text = self.read(root)
        if not re.fullmatch(r"\w+", text):
            text = self.known[root] = self._assign(root, text)
        return text

    def _write(self, root: Item) -> None:
        for item in below_unknown(root, self.known):
            text = Text(item.text.format(*(self.known[a] for a in item.args), **self.layout.fields))
            if item.name and not self._in_place(item, text):
                text = self._assign(item, text)
            self.known[item] = text

    def _in_place(self, item: Item, text: str) -> bool:
        return item.nested and self.readers.get(item, 0) <= 1 and len(text) <= LINE

    def _assign(self, item: Item, text: str) -> Text:
        name = self.fresh(item.name)
        self.lines.append(f"{name} = {text}")
        return Text(name)

    def fresh(self, name: str) -> str:
        """A name that nothing has yet."""
        name = f"{name}_value" if name in RESERVED else name
        found, n = name, 1
        while found in self.taken:
            n += 1
            found = f"{name}_{n}"
        self.taken.add(found)
        return found


def below_unknown(root: Item, known: dict[Item, Text]) -> list[Item]:
    """What has to be written for ``root``, operands first."""
    order: dict[Item, None] = {}

    def visit(item: Item) -> None:
        if item in known or item in order:
            return
        for a in item.args:
            visit(a)
        order[item] = None

    visit(root)
    return list(order)


def count_readers(roots: Sequence[Item]) -> dict[Item, int]:
    """How often each item is read."""
    found: dict[Item, int] = dict.fromkeys(roots, 0)
    for root in roots:
        found[root] += 1
    for item in below(roots):
        for a in item.args:
            found[a] = found.get(a, 0) + 1
    return found
