"""Immutable expression nodes, their traversal and their rebuilding. Knows nothing of graphs or tensors.

A program is a directed acyclic graph of nodes. A node's *children* are the fields that hold nodes (or tuples of
nodes); all other fields are *data*. Nodes compare by identity, so a value that is used twice is one object; two
nodes say the same thing if :func:`structurally_equal` holds.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from typing_extensions import Self

_known_fields: dict[type[Node], tuple[tuple[str, ...], tuple[str, ...]]] = {}


def _field_names(cls: type[Node]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the child fields and of the data fields of a node class."""
    known = _known_fields.get(cls)
    if known is None:
        children = [f.name for f in dataclasses.fields(cls) if f.metadata.get("child")]
        data = [f.name for f in dataclasses.fields(cls) if f.init and not f.metadata.get("child")]
        known = _known_fields[cls] = tuple(children), tuple(data)
    return known


CHILD = {"child": True}
"""The metadata of a dataclass field that holds a node or a tuple of nodes: ``x: Node = field(metadata=CHILD)``."""


@dataclass(frozen=True, eq=False, repr=False)
class Node:
    """Base of all expression nodes; subclasses are frozen dataclasses that validate themselves when made."""

    @functools.cached_property
    def children(self) -> tuple[Node, ...]:
        found: list[Node] = []
        for name in _field_names(type(self))[0]:
            value = getattr(self, name)
            if isinstance(value, tuple):
                found.extend(value)
            else:
                found.append(value)
        return tuple(found)

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()}>"

    @property
    def data(self) -> dict[str, Any]:
        """The fields that are not nodes."""
        return {name: getattr(self, name) for name in _field_names(type(self))[1]}

    def with_children(self, children: Sequence[Node]) -> Self:
        """The same operation on other children; the same object if all children are the same objects."""
        if all(a is b for a, b in zip(self.children, children, strict=True)):
            return self
        rest = list(children)
        fields: dict[str, Any] = self.data
        for name in _field_names(type(self))[0]:
            value = getattr(self, name)
            if isinstance(value, tuple):
                fields[name], rest = tuple(rest[: len(value)]), rest[len(value) :]
            else:
                fields[name] = rest.pop(0)
        return type(self)(**fields)


N = TypeVar("N", bound=Node)


def topological(roots: Iterable[Node]) -> list[Node]:
    """All nodes that the roots need, each once, children before parents, in a reproducible order."""
    order: list[Node] = []
    seen: set[int] = set()
    for root in roots:
        stack: list[tuple[Node, bool]] = [(root, False)]
        while stack:
            node, expanded = stack.pop()
            if expanded:
                order.append(node)
                continue
            if id(node) in seen:
                continue
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((c, False) for c in reversed(node.children) if id(c) not in seen)
    return order


def users(roots: Sequence[Node]) -> dict[Node, list[Node]]:
    """For every node that the roots need, the nodes that read it, once per reading."""
    found: dict[Node, list[Node]] = {}
    for node in topological(roots):
        found.setdefault(node, [])
        for c in node.children:
            found[c].append(node)
    return found


def rewrite(
    roots: Sequence[N],
    rule: Callable[[Node], Node],
    known: Mapping[Node, Node] | None = None,
    origins: dict[Node, Node] | None = None,
) -> tuple[N, ...]:
    """Rebuilds the graph bottom-up: ``rule`` sees each node with its children already rewritten.

    Returns the same objects where nothing changed. ``known`` maps nodes to replacements decided beforehand, below
    which nothing is visited. ``origins``, if given, collects for each new node the old one that it replaces.
    """
    done: dict[int, Node] = {id(old): new for old, new in (known or {}).items()}
    for root in roots:
        stack: list[tuple[Node, bool]] = [(root, False)]
        while stack:
            node, expanded = stack.pop()
            if id(node) in done:
                continue
            if not expanded:
                stack.append((node, True))
                stack.extend((c, False) for c in reversed(node.children) if id(c) not in done)
                continue
            rebuilt = node.with_children([done[id(c)] for c in node.children])
            if origins is not None:
                origins.setdefault(rebuilt, node)
            done[id(node)] = rule(rebuilt)
            if origins is not None:
                origins.setdefault(done[id(node)], node)
    return tuple(done[id(root)] for root in roots)  # type: ignore[misc]


def value_numbers(roots: Sequence[Node], numbers: dict[Any, int] | None = None) -> dict[Node, int]:
    """Numbers that are equal for exactly the nodes that say the same thing.

    Pass the same ``numbers`` for two graphs to compare them with each other.
    """
    numbers = {} if numbers is None else numbers
    found: dict[Node, int] = {}
    for node in topological(roots):
        key = (type(node), tuple(found[c] for c in node.children), tuple(node.data.items()), _arity(node))
        found[node] = numbers.setdefault(key, len(numbers))
    return found


def _arity(node: Node) -> tuple[int, ...]:
    """How the flat list of children splits into fields."""
    fields = (getattr(node, name) for name in _field_names(type(node))[0])
    return tuple(len(value) if isinstance(value, tuple) else -1 for value in fields)


def structurally_equal(a: Sequence[Node], b: Sequence[Node]) -> bool:
    """Whether two lists of roots describe the same computations, in time linear in their size."""
    if len(a) != len(b):
        return False
    numbers: dict[Any, int] = {}
    left, right = value_numbers(a, numbers), value_numbers(b, numbers)
    return all(left[x] == right[y] for x, y in zip(a, b, strict=True))
