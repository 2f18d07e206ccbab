"""Parts of sparse matrices: the integers that say where a matrix has values, those values, and its sizes.

PyTorch gives a new tensor each time that it is asked for a part, over the same memory. What is remembered of a graph is found by the
identity of its tensors, so a part stays the same tensor here, for as long as its matrix lives and has the same memory.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

COMPRESSED = {
    torch.sparse_csr: ("crow_indices", "col_indices"),
    torch.sparse_csc: ("ccol_indices", "row_indices"),
}
"""Layouts with one range of entries for each row or column, and what their two tensors of integers are called."""

LAYOUTS = {torch.sparse_coo, *COMPRESSED}


def index_parts(layout: torch.layout) -> tuple[str, ...]:
    """The names of the tensors of integers of a layout."""
    return COMPRESSED.get(layout, ("indices",))


def is_sparse(tensor: Tensor) -> bool:
    return tensor.layout is not torch.strided


def is_coalesced(matrix: Tensor) -> bool:
    """Whether each place has one value, and they are sorted."""
    return matrix.layout is not torch.sparse_coo or matrix.is_coalesced()


def part_of(matrix: Any, name: str, layout: torch.layout, coalesced: bool) -> Tensor:
    """A part of a matrix, the same tensor as long as it is the same memory; values that have a gradient are those of each call.

    Args:
        matrix: the matrix.
        name: as in :data:`COMPRESSED`, or ``"indices"``, ``"values"``, ``"sizes"``.
        layout: that it must have.
        coalesced: whether it must be coalesced, or must not.

    Raises:
        TypeError: it is of another kind.
    """
    if not isinstance(matrix, Tensor) or matrix.layout is not layout or is_coalesced(matrix) is not coalesced:
        raise TypeError(f"is not a matrix of layout {layout}, {'' if coalesced else 'not '}coalesced")
    if not coalesced and matrix.requires_grad:
        raise TypeError("has a gradient, and is not coalesced")
    parts = _known.get(matrix)
    if parts is None:
        with _lock:
            parts = _known.setdefault(matrix, {})
    known = parts.get(name)
    if name == "sizes":
        shape = matrix.shape
        if known is None or known[0] != shape:
            known = parts[name] = shape, torch.tensor(shape[:2], device="cpu")
        return known[1]  # type: ignore[no-any-return]
    now: Tensor = getattr(matrix, name if coalesced or name not in ("indices", "values") else f"_{name}")()
    if now.requires_grad:
        return now
    if known is None or known.data_ptr() != now.data_ptr() or known.shape != now.shape or known.dtype is not now.dtype:
        known = parts[name] = now
    return known  # type: ignore[no-any-return]


_known: WeakIdKeyDictionary = WeakIdKeyDictionary()
_lock = threading.Lock()
