"""Pytrees: arguments as trees of tuples, lists and dictionaries.

What :mod:`torch.utils._pytree` does, without its bookkeeping for the containers that arguments are made of. Any other container that
PyTorch knows (named tuples, ordered dictionaries, registered classes) goes its way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils import _pytree


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with ``function`` of each leaf in its place.

    >>> mapped(lambda n: n + 1, ((1, [2]), {"x": 3}))
    ((2, [3]), {'x': 4})
    """
    kind = type(tree)
    if kind is tuple:
        return tuple([mapped(function, x) for x in tree])
    if kind is list:
        return [mapped(function, x) for x in tree]
    if kind is dict:
        return {k: mapped(function, x) for k, x in tree.items()}
    return _pytree.tree_map(function, tree) if _is_container(tree) else function(tree)


def leaves(tree: Any) -> list[Any]:
    """The leaves of a tree, in order.

    >>> leaves(((1, [2]), {"x": 3}))
    [1, 2, 3]
    """
    found: list[Any] = []
    _collect(tree, found)
    return found


def contents(tree: Any) -> list[tuple[Any, list[Any]]]:
    """The lists and dictionaries of a tree, each with what it holds now, keys included.

    >>> contents(([1], 2))
    [([1], [1])]
    """
    kind = type(tree)
    if kind is dict:
        found = [(tree, [*tree, *tree.values()])]
    else:
        found = [(tree, [*tree])] if kind is list else []
    parts = tree.values() if kind is dict else tree if kind in (list, tuple) else ()
    return found + [one for part in parts for one in contents(part)]


def _collect(tree: Any, found: list[Any]) -> None:
    kind = type(tree)
    if kind is tuple or kind is list:
        for x in tree:
            _collect(x, found)
    elif kind is dict:
        for x in tree.values():
            _collect(x, found)
    elif _is_container(tree):
        found.extend(_pytree.tree_leaves(tree))
    else:
        found.append(tree)


def _is_container(tree: Any) -> bool:
    """Whether PyTorch may know how to take a value apart: its class is registered, or it is a named tuple."""
    return type(tree) in _pytree.SUPPORTED_NODES or isinstance(tree, tuple)
