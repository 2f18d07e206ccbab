"""``HeteroConv``: a layer for each edge type, and what arrives at a node type put together.

Its layers run as they do anywhere else, each along a graph of its own. What PyG puts together along a dimension before the nodes is put
together along one of each node's own, or added one by one, which is the same, and can be part of a program.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from columba.frontend.pyg.cases import NotLowered

_EXTREMES: dict[Any, Any] = {"min": torch.min, "max": torch.max}


def hetero_conv(conv: Any, *args_dict: Any, **kwargs_dict: Any) -> dict[Any, Any]:
    if conv.aggr not in (None, "cat", "sum", "mean", *_EXTREMES):
        raise NotLowered(f"aggr={conv.aggr!r}")
    if any(not name.endswith("_dict") for name in kwargs_dict):
        raise NotLowered("a keyword argument does not end with '_dict'")
    found: dict[Any, list[Tensor]] = {}
    for edge_type, inner in conv.convs.items():
        taken = [_taken(table, edge_type) for table in args_dict]
        named = {name[: -len("_dict")]: _taken(table, edge_type) for name, table in kwargs_dict.items()}
        if not any(of_edges for of_edges, _ in (*taken, *named.values())):
            continue
        args = [value for _, value in taken if value is not _MISSING]
        kwargs = {name: value for name, (_, value) in named.items() if value is not _MISSING}
        found.setdefault(edge_type[-1], []).append(inner(*args, **kwargs))
    return {kind: _joined(parts, conv.aggr) for kind, parts in found.items()}


_MISSING = object()


def _taken(table: Any, edge_type: Any) -> tuple[bool, Any]:
    """What a table has for an edge type, or for its ends, and whether it is the former."""
    source, *_, target = edge_type
    if edge_type in table:
        return True, table[edge_type]
    if source == target and source in table:
        return False, table[source]
    if source in table or target in table:
        return False, (table.get(source), table.get(target))
    return False, _MISSING


def _joined(parts: list[Tensor], aggr: str | None) -> Tensor:
    if aggr is None:
        return torch.stack(parts, dim=1)
    if len(parts) == 1:
        return parts[0]
    if aggr == "cat":
        return torch.cat(parts, dim=-1)
    if aggr in ("sum", "mean"):
        total = sum(parts[1:], parts[0])
        return total if aggr == "sum" else total / len(parts)
    return _EXTREMES[aggr](torch.stack(parts, dim=1), dim=1)[0]  # type: ignore[no-any-return]
