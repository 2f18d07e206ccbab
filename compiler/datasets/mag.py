"""A tenth of ogbn-mag's structure."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from columba.datasets.dataset import Dataset
from columba.runtime.graphs.convert import heterogeneous
from columba.runtime.graphs.graph import Graph

_KINDS = {
    "citing": ("paper", "citing", "paper"),
    "cited": ("paper", "cited", "paper"),
    "writing": ("author", "writing", "paper"),
    "written_by": ("paper", "written_by", "author"),
}
_FIELDS = 6001


def mag10(folder: str | PathLike[str], *, relations: Sequence[Any] | None = None) -> Dataset:
    """Papers, authors and fields of study, six relations, from ``coo.npz`` in ``folder``: a ``[2, E]`` array for each relation.

    Whether ``has`` leads from papers to fields or back is told by the ids: fields stay below 6,001.

    Args:
        folder: where ``coo.npz`` is.
        relations: triples (source, relation, destination), by id; None: in the order of the file.
    """
    with np.load(Path(folder) / "coo.npz") as arrays:
        edges = {name: torch.from_numpy(arrays[name].astype(np.int64)) for name in arrays.files}
    kinds = {name: _KINDS.get(name) or _with_field(name, index) for name, index in edges.items()}
    sizes = {"paper": 0, "author": 0, "field": 0}
    for name, index in edges.items():
        for end, kind in ((0, kinds[name][0]), (1, kinds[name][2])):
            sizes[kind] = max(sizes[kind], int(index[end].max()) + 1 if index.numel() else 0)
    by_kind = {kinds[name]: index for name, index in edges.items()}
    return Dataset("mag10", heterogeneous(Graph, sizes, by_kind, relations=relations))


def _with_field(name: str, index: torch.Tensor) -> tuple[str, str, str]:
    to_fields = not index.numel() or int(index[1].max()) < _FIELDS
    return ("paper", name, "field") if to_fields else ("field", name, "paper")
