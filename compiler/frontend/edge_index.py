"""``torch_geometric.EdgeIndex``, which traced code sees as the tensor that it is: sorts and caches of it are what graphs have anyway."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor


def is_edge_index(value: Any) -> bool:
    """Whether a tensor is of the class, or of one that is derived from it."""
    module = sys.modules.get("torch_geometric.edge_index")
    return module is not None and isinstance(value, module.EdgeIndex)


def data_of(value: Any) -> Tensor:
    """The plain tensor.

    Raises:
        TypeError: there is more to it than that, which layers read: sizes that differ.
    """
    if not is_edge_index(value):
        raise TypeError("is no EdgeIndex")
    rows, columns = value.sparse_size()
    if rows != columns:
        raise TypeError(
            f"an EdgeIndex with sparse_size=({rows}, {columns}) is not compiled, since layers take numbers of nodes from it; pass "
            "edge_index.as_tensor(), and sizes where the layer has such an argument"
        )
    return value._data  # type: ignore[no-any-return]
