"""Modules whose weights belong to named relations and node types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from columba.runtime.graphs.names import TypeNames


class TypedModule(nn.Module):
    """A module that knows what its relations and node types are called, and refuses graphs that number them in another way.

    Its names are those that it was given, or of the first named graph that :func:`columba.as_graph` was called with for it. They are
    copied and pickled with the module, and stand in the *metadata* of its ``state_dict``, so that no key is added: loading the weights
    of other relations, or of the same in another order, is an error.

    Args:
        relations, node_types: names by id; None: not known yet. A kind that is left out is never checked.

    >>> import torch
    >>> from columba import Graph, as_graph
    >>> class Scale(TypedModule):
    ...     def __init__(self, relations):
    ...         super().__init__(relations=relations)
    ...         self.factor = torch.nn.Parameter(torch.ones(len(relations), 1))
    ...
    ...     def forward(self, graph, h):
    ...         e = as_graph(graph, names=self.names).edges
    ...         return e.sum(e.src(h) * e.rel(self.factor))
    >>> layer = Scale(["cites", "writes"])
    >>> graph = Graph(torch.tensor([[0], [1]]), relation_names=["writes", "cites"])
    >>> layer(graph.with_names(relations=layer.relations), torch.tensor([[2.0], [3.0]])).tolist()
    [[0.0], [2.0]]
    """

    names: TypeNames

    def __init__(self, **names: Sequence[Any] | None) -> None:
        super().__init__()
        self.names = TypeNames(**names)

    @property
    def relations(self) -> tuple[Any, ...] | None:
        """The names of relations, by id; None while they are not known. They can be set: the weights then belong to other names."""
        return self._named("relations")

    @relations.setter
    def relations(self, names: Sequence[Any] | None) -> None:
        self._rename(relations=names)

    @property
    def node_types(self) -> tuple[Any, ...] | None:
        """The names of node types, as :attr:`relations`."""
        return self._named("node_types")

    @node_types.setter
    def node_types(self, names: Sequence[Any] | None) -> None:
        self._rename(node_types=names)

    def _named(self, kind: str) -> tuple[Any, ...] | None:
        try:
            return self.names[kind]
        except KeyError:  # PyTorch's tools ask whether a module has what its class defines
            raise AttributeError(f"{type(self).__name__} has no {kind}") from None

    def _rename(self, **names: Sequence[Any] | None) -> None:
        for kind, given in names.items():
            count = getattr(self, f"num_{kind}", None)
            if count is not None and given is not None and len(given) != count:
                raise ValueError(f"{kind} lists {len(given)} names, the module has weights for {count}")
        self.names = TypeNames(**{**dict(self.names.items()), **names})

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        metadata = getattr(destination, "_metadata", {}).get(prefix[:-1])
        if metadata is not None:
            metadata["names"] = {kind: names for kind, names in self.names.items() if names and _is_plain(names)}

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: Any,
        unexpected_keys: Any,
        error_msgs: list[str],
    ) -> None:
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        known = dict(self.names.items())
        for kind, saved in local_metadata.get("names", {}).items():
            if known.get(kind) is None and kind in known:
                self._rename(**{kind: saved})
            elif kind in known and known[kind] != saved:
                error_msgs.append(
                    f"the weights of {prefix[:-1] or type(self).__name__} were saved for {kind} {list(saved)}, and would be loaded for "
                    f"{list(known[kind] or ())}; make the module with the {kind} that they were saved for, or, if the weights are meant "
                    f"for these, set {kind} = None before loading and the names afterwards"
                )


def named_count(kind: str, count: int | None, names: Sequence[Any] | None) -> int:
    """The number of relations or node types, given as such or as names.

    Raises:
        TypeError: neither is given. ValueError: they do not agree.
    """
    if count is None and names is None:
        raise TypeError(f"give num_{kind}, or the names of them all: {kind}=[...]")
    if names is None:
        assert count is not None
        return count
    if count is not None and count != len(names):
        raise ValueError(f"num_{kind} is {count}, and {kind} lists {len(names)} names")
    return len(names)


def _is_plain(name: Any) -> bool:
    """Whether ``torch.load(weights_only=True)`` reads a name."""
    return all(map(_is_plain, name)) if type(name) is tuple else type(name) in (str, int, float, bool, bytes)
