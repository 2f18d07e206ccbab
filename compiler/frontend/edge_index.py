"""``torch_geometric.EdgeIndex``, which traced code sees as the tensor that it is: sorts and caches of it are what graphs have anyway."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor


def is_edge_index(value: Any) -> bool:
    """Whether a tensor is of the class, or of one that is derived from it."""
    module = sys.modules.get("torch_geometric.edge_index")
    return module is not None and isinstance(value, module.EdgeIndex)


DATA = "_data"
"""The attribute that is the plain tensor."""


def data_of(value: Any) -> Tensor:
    return value._data  # type: ignore[no-any-return]
