"""Knowledge graphs from text files of triples."""

from __future__ import annotations

import contextlib
import gzip
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from columba.datasets.dataset import Dataset
from columba.runtime.convert import add_inverse_relations
from columba.runtime.graph import Graph


def triples(path: str | PathLike[str], *, add_inverse: bool = True) -> Dataset:
    """A graph from a text file with one triple of ids a line: ``head tail relation``, as OpenKE writes them.

    Args:
        path: the file, plain or gzipped (``.gz``). A first line with a single number, the count of triples, is checked and skipped.
        add_inverse: whether each edge gets one the other way, of relation ``r + num_relations``.

    Raises:
        FileNotFoundError: there is no such file. ValueError: a line is not three ids, or the count is wrong.
    """
    file = Path(path)
    compressed = file.suffix == ".gz"
    with contextlib.closing(
        gzip.open(file, "rt", encoding="utf-8") if compressed else file.open(encoding="utf-8")
    ) as lines:
        first = lines.readline().split()
        count = int(first[0]) if len(first) == 1 else None
        rest = lines.read()
    text = rest if count is not None else " ".join(first) + "\n" + rest
    try:
        ids = np.array(text.split(), dtype=np.int64)
    except ValueError as e:
        raise ValueError(f"{file}: a triple is three integer ids, head tail relation ({e})") from None
    if len(ids) % 3 or (count is not None and len(ids) != 3 * count):
        expected = f"{3 * count} numbers ({count} triples)" if count is not None else "three numbers a line"
        raise ValueError(f"{file}: expected {expected}, got {len(ids)} numbers")
    head, tail, relation = torch.from_numpy(ids.reshape(-1, 3)).unbind(1)
    graph = Graph(torch.stack([head, tail]), relation)
    name = file.name.split(".")[0]
    return Dataset(name, add_inverse_relations(graph) if add_inverse else graph)
