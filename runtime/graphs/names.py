"""Names of relations and node types: what is a name, which id it gets, and whether a graph's are those that weights belong to."""

from __future__ import annotations

import enum
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from columba.runtime.structure import NamedGraph

Names = tuple[Any, ...]
"""Names by id."""

_ON_GRAPHS = {"relations": ("relation_names", "relation"), "node_types": ("node_type_names", "node type")}
"""For each kind of names the attribute of a graph that holds them, and what one is called."""


class TypeNames:
    """The relations, and the node types, that a layer's weights belong to, by id.

    A layer that keeps a weight for each relation means *its* relation r, whatever graph it is called with. It asks here, through
    :func:`columba.as_graph`; a graph without names is taken at its word.

    Args:
        relations, node_types: names by id; None: those of the first named graph that is checked. What is left out is not checked.

    >>> import torch
    >>> from columba import Graph
    >>> names = TypeNames(relations=["cites", "writes"])
    >>> names.check(Graph(torch.tensor([[0], [1]]), relation_names=["writes", "cites"]))
    Traceback (most recent call last):
    ...
    ValueError: relation 0 is 'writes' in this graph and 'cites' in the layer: ...
    """

    def __init__(self, **names: Sequence[Any] | None) -> None:
        unknown = names.keys() - _ON_GRAPHS.keys()
        if unknown:
            raise TypeError(f"TypeNames takes {' and '.join(_ON_GRAPHS)}, not {', '.join(sorted(unknown))}")
        self._names = {kind: listed(kind, given) for kind, given in names.items()}

    def __getitem__(self, kind: str) -> Names | None:
        """The names of a kind, ``"relations"`` or ``"node_types"``; None while they are not known."""
        return self._names[kind]

    def items(self) -> Iterable[tuple[str, Names | None]]:
        """The kinds that are checked, with their names."""
        return self._names.items()

    def check(self, graph: NamedGraph) -> None:
        """ValueError if the graph numbers relations or node types in another way than the layer."""
        for kind, known in self._names.items():
            found = getattr(graph, _ON_GRAPHS[kind][0])
            if found is not known and found is not None and known is not None and found != known:
                raise ValueError(_difference(kind, found, known))

    def remember(self, graph: NamedGraph) -> None:
        """The names of a graph that was checked, where none are known; they are then compared by identity."""
        for kind in self._names:
            found = getattr(graph, _ON_GRAPHS[kind][0])
            if found is not None:
                self._names[kind] = found

    def __repr__(self) -> str:
        return f"TypeNames({', '.join(f'{kind}={names}' for kind, names in self._names.items())})"


def _difference(kind: str, found: Names, known: Names) -> str:
    what = _ON_GRAPHS[kind][1]
    remedy = (
        f"Make the graph with {kind}=layer.{kind}, or convert it: graph.with_names({kind}=layer.{kind})\n"
        f"(The layer's are those that it was given, or of the first named graph that it met; layer.{kind} = ... sets others.)"
    )
    if set(found) == set(known):
        n = next(n for n, (a, b) in enumerate(zip(found, known, strict=True)) if a != b)
        return (
            f"{what} {n} is {found[n]!r} in this graph and {known[n]!r} in the layer: the same {what}s in another order, so that weights "
            f"would meet the wrong ones. {remedy}"
        )
    sides = (
        ("graph", [name for name in found if name not in set(known)]),
        ("layer", [name for name in known if name not in set(found)]),
    )
    only = " and ".join(f"{_few(names)} only in the {side}" for side, names in sides if names)
    return f"this graph has other {what}s than the layer: {only}. {remedy}"


def _few(names: Sequence[Any], most: int = 5) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


# ------------------------------------------------------------------------------------------------ what is a name


def as_name(label: Any) -> Any:
    """A label as a name: of NumPy's and PyTorch's scalars their value, of lists tuples.

    Raises:
        ValueError: each time that it is read it would be another name (NaN), or it cannot be looked up.
    """
    if type(label) is str:
        return label
    if isinstance(label, (Tensor, np.ndarray)):
        if label.ndim:
            raise ValueError(f"a {type(label).__name__} of shape {list(label.shape)} is no name; .tolist() makes one")
        return as_name(label.item())
    if isinstance(label, np.generic):
        return as_name(label.item()) if not isinstance(label.item(), np.generic) else label
    if isinstance(label, (list, tuple)) and not hasattr(label, "_fields"):
        return tuple(map(as_name, label))
    if isinstance(label, numbers.Number) and label != label:
        raise ValueError("NaN is no name: it equals nothing, so that every edge would get one of its own")
    try:
        hash(label)
    except TypeError:
        raise ValueError(f"{label!r} is no name: a {type(label).__name__} cannot be looked up") from None
    return label


def listed(kind: str, names: Iterable[Any] | None) -> Names | None:
    """Given names, by id.

    Raises:
        TypeError: one string. ValueError: something is no name, or stands there twice.
    """
    if names is None:
        return None
    if isinstance(names, (str, bytes)):
        raise TypeError(f"{kind} must be a list of names, got the string {names!r}")
    found: dict[Any, int] = {}
    for n, label in enumerate(names):
        try:
            name = as_name(label)
        except ValueError as e:
            raise ValueError(f"{kind}[{n}]: {e}") from None
        if name in found:
            raise ValueError(f"{kind} holds {name!r} twice, as {found[name]} and as {n}")
        found[name] = n
    return tuple(found)


def numbered(
    kind: str, labels: Sequence[Any], where: Callable[[int], str], given: Sequence[Any] | None
) -> tuple[Names, list[int]]:
    """The names among labels, and each label's id: as listed in ``given``, else sorted, whatever order they appear in.

    Args:
        kind: the argument that lists names.
        labels: one for each edge or node.
        where: says where the n-th stands.
        given: names by id, or None.

    Raises:
        ValueError: a label is no name, is not listed, equals one of another type (1 and True), or has no order; says where it stands.
    """
    wanted = listed(kind, given)
    first: dict[Any, Any] = {} if wanted is None else {name: name for name in wanted}
    found = []
    for n, label in enumerate(labels):
        try:
            name = as_name(label)
        except ValueError as e:
            raise ValueError(f"{where(n)}: {e}") from None
        if wanted is not None and name not in first:
            raise ValueError(f"{where(n)}: {name!r} is not in {kind}=[{_few(wanted)}]")
        same = first.setdefault(name, name)
        if same is not name and _types(same) != _types(name):
            raise ValueError(
                f"{where(n)}: {name!r} ({type(name).__name__}) would be the same as {same!r} ({type(same).__name__}), because Python "
                "holds them for equal; use labels of one type"
            )
        found.append(name)
    names = wanted if wanted is not None else _in_order(kind, first)
    ids = {name: n for n, name in enumerate(names)}
    return names, [ids[name] for name in found]


def selected(kind: str, found: Iterable[Any], given: Sequence[Any] | None) -> Names:
    """The names in the order of ``given``, which may list more than were found, or as they were found.

    Raises:
        ValueError: one that was found is not listed; names it.
    """
    wanted, names = listed(kind, given), listed(kind, found)
    assert names is not None
    if wanted is None:
        return names
    missing = [name for name in names if name not in set(wanted)]
    if missing:
        raise ValueError(f"{kind}=[{_few(wanted)}] does not list {_few(missing)}, which the graph has")
    return wanted


def _types(name: Any) -> Any:
    """What must agree in equal names: numbers of several classes are equal."""
    if isinstance(name, tuple):
        return tuple(map(_types, name))
    return type(name) if isinstance(name, numbers.Number) else None


def _in_order(kind: str, names: Mapping[Any, Any]) -> Names:
    try:
        return tuple(sorted(names, key=_place))
    except TypeError as e:
        raise ValueError(
            f"labels without an order of their own ({e}) would be numbered as they come; list them: {kind}=[...]"
        ) from None


def _place(name: Any) -> tuple[Any, ...]:
    """A key that sorts names of several types. Sets have ``<``, but no order."""
    match name:
        case None:
            return ("",)
        case enum.Enum():
            return ("enum", type(name).__qualname__, name.name)
        case bool() | int() | float():
            return ("number", name)
        case str():
            return ("str", name)
        case tuple():
            return ("tuple", tuple(map(_place, name)))
        case frozenset():
            raise TypeError("sets are not ordered")
    return (type(name).__qualname__, name)
