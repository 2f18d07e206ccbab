"""The table of lowerings: for a class of PyG's layers, the function that says in our language what it computes.

PyG is named here, and never imported: whoever has one of its layers has imported it.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from columba.frontend.pyg.lowerings import film_conv, han_conv, heat_conv, hetero_conv, hgt_conv, rgat_conv, rgcn_conv


@dataclass(frozen=True)
class Lowering:
    """How one class of layers runs compiled.

    Attributes:
        name: of the class.
        module: where PyG defines it.
        function: takes the layer, and what its ``forward`` takes, and returns what that returns.
        covers: what of the layer's options and arguments it takes, for people.
        refuses: for what the layer's own ``forward`` runs, likewise.
        differs: where results are meant to be others than those of PyG, likewise.
    """

    name: str
    module: str
    function: Callable[..., Any]
    covers: str
    refuses: str = ""
    differs: str = ""

    def is_of(self, forward: Callable[..., Any]) -> bool:
        """Whether a function is the ``forward`` that PyG defines for the class."""
        code = getattr(forward, "__code__", None)
        return (
            code is not None
            and forward.__module__ == self.module
            and forward.__qualname__ == f"{self.name}.forward"
            and code.co_name == "forward"
        )


ALWAYS = '`flow="target_to_source"`, SparseTensor and sparse tensors, hooks on `message` or `propagate`, explanations'
"""What no lowering takes."""

LOWERINGS = (
    Lowering(
        "RGCNConv",
        "torch_geometric.nn.conv.rgcn_conv",
        rgcn_conv.rgcn_conv,
        "full weights, basis and block-diagonal decomposition; features, ids of nodes, or None; pairs; "
        "`aggr` sum, mean, max, min",
        "other aggregations",
        "an edge type that the layer has no weights for is an error, and not left out",
    ),
    Lowering(
        "FastRGCNConv",
        "torch_geometric.nn.conv.rgcn_conv",
        rgcn_conv.fast_rgcn_conv,
        "as RGCNConv, but for ids of nodes; `aggr` sum, mean",
        "ids of nodes, in whose place it takes the positions of nodes",
    ),
    Lowering(
        "RGATConv",
        "torch_geometric.nn.conv.rgat_conv",
        rgat_conv.rgat_conv,
        "all decompositions, `mod`, attention modes and mechanisms, `edge_attr`, dropout, attention weights; pairs; "
        "`aggr` sum, mean, max, min",
        "`size=`",
    ),
    Lowering(
        "HGTConv",
        "torch_geometric.nn.conv.hgt_conv",
        hgt_conv.hgt_conv,
        "all options; edge types in any order, and without edges",
        "SparseTensor edges of a type",
        "edge types have the weights of their names in whatever order `edge_index_dict` has them, where PyG takes the order for that of "
        "the metadata",
    ),
    Lowering(
        "FiLMConv",
        "torch_geometric.nn.conv.film_conv",
        film_conv.film_conv,
        "any `nn` and `act` that can be traced; pairs; `aggr` sum, mean, max, min",
        "other aggregations",
        "an edge type that the layer has no weights for is an error, and not left out",
    ),
    Lowering(
        "HEATConv",
        "torch_geometric.nn.conv.heat_conv",
        heat_conv.heat_conv,
        "all options, dropout",
        "hooks on the layer's inner modules",
    ),
    Lowering(
        "HANConv",
        "torch_geometric.nn.conv.han_conv",
        han_conv.han_conv,
        "all options, dropout, semantic attention weights; a program for each edge type",
        "SparseTensor edges of a type",
    ),
    Lowering(
        "HeteroConv",
        "torch_geometric.nn.conv.hetero_conv",
        hetero_conv.hetero_conv,
        "`aggr` sum, mean, min, max, cat, None; a program for each of its layers that is compiled, by whatever route",
    ),
)
"""All lowerings, in the order of documents."""

_BY_CLASS = {(one.module, one.name): one for one in LOWERINGS}

_INERT = {
    "__init__", "__doc__", "__module__", "__qualname__", "__annotations__", "__parameters__", "__firstlineno__", "__static_attributes__",
    "__repr__", "extra_repr", "reset_parameters", "collect", "edge_collect", "_orig_propagate", "_jinja_propagate", "_orig_edge_updater",
    "_jinja_edge_updater", "original_type", "options",
}  # fmt: skip
"""What a subclass may have of its own, and still compute what its base does."""

_GENERATED = ("propagate", "edge_updater")
"""What PyG generates for each class, in modules of their own."""


def lowering_of(kind: type) -> Lowering | None:
    """That of a class: of its own, or of the class that it is derived from without overriding anything that computes."""
    for one in kind.__mro__:
        found = _BY_CLASS.get((one.__module__, one.__qualname__))
        if found is not None:
            return None if any(_overrides(below, one) for below in kind.__mro__[: kind.__mro__.index(one)]) else found
    return None


def _overrides(below: type, base: type) -> bool:
    """Whether a class has something of its own in the place of what a base computes with."""
    return any(
        name not in _INERT
        and _is_method(base, name)
        and not (name in _GENERATED and getattr(value, "__module__", None) != below.__module__)
        and getattr(value, "fn", value) is not getattr(base, name)  # of a compiled class, the base's forward compiled
        for name, value in vars(below).items()
    )


@functools.lru_cache(maxsize=4096)
def _is_method(base: type, name: str) -> bool:
    return callable(getattr(base, name, None))


def is_layer(module: Any) -> bool:
    """Whether a module is one of PyG's message passing."""
    pyg = sys.modules.get("torch_geometric.nn.conv.message_passing")
    return pyg is not None and isinstance(module, pyg.MessagePassing)


def is_graph_layer(module: Any) -> bool:
    """Whether a module is a layer of Columba's or of PyG's, or message passing that somebody has written."""
    return type(module).__module__.startswith(("columba.nn.", "torch_geometric.nn.conv.")) or is_layer(module)


def has_result(module: Any) -> bool:
    """Whether a layer keeps what its message passing gave, so that nothing is left of that."""
    return getattr(module, "cached", False) is True and any(
        getattr(module, name, None) is not None for name in ("_cached_x", "_cached_h")
    )


def has_own_forwards(kind: type) -> bool:
    """Whether each module of a class has a ``forward`` of its own: PyG generates one for each ``Sequential``, and sets it on the module.

    And on the class, which has that of the last one.
    """
    pyg = sys.modules.get("torch_geometric.nn.sequential")
    return pyg is not None and issubclass(kind, pyg.Sequential)


def own_forward(module: Any) -> Callable[..., Any] | None:
    """The function that is the ``forward`` of this module alone."""
    own = object.__getattribute__(module, "__dict__").get("forward")
    return own.__func__ if isinstance(own, types.MethodType) and has_own_forwards(type(module)) else None
