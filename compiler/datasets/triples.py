"""Knowledge graphs from text files of triples."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TextIO, TypeAlias, overload

import numpy as np
import torch
from torch import Tensor

from columba.datasets.dataset import Dataset
from columba.runtime.graphs.graph import Graph

AnyPath: TypeAlias = str | PathLike[str]


@overload
def triples(
    path: AnyPath,
    *,
    add_inverse: bool = ...,
    num_nodes: int | None = ...,
    num_relations: int | None = ...,
    relations: AnyPath | Sequence[Any] | None = ...,
) -> Dataset: ...
@overload
def triples(
    path: list[Any] | tuple[Any, ...],
    *,
    add_inverse: bool = ...,
    num_nodes: int | None = ...,
    num_relations: int | None = ...,
    relations: AnyPath | Sequence[Any] | None = ...,
) -> tuple[Dataset, ...]: ...


def triples(
    path: AnyPath | list[Any] | tuple[Any, ...],
    *,
    add_inverse: bool = True,
    num_nodes: int | None = None,
    num_relations: int | None = None,
    relations: AnyPath | Sequence[Any] | None = None,
) -> Dataset | tuple[Dataset, ...]:
    """A graph from a text file with one triple of ids a line: ``head tail relation``, as OpenKE writes them.

    Training, validation and test must agree in their ids, inverse ones included, which start at ``num_relations``: read them together
    (``train, valid, test = triples([...])``), or give the sizes of the whole data set.

    Args:
        path: the file, plain or gzipped (``.gz``). A first line with a single number, the count of triples, is checked and skipped. Or
            several files: a data set of each, all with the sizes that hold the ids of all.
        add_inverse: whether each edge gets one the other way, of relation ``r + num_relations``.
        num_nodes, num_relations: of the whole data set; None: one more than the largest id in the files, or as many as there are names.
        relations: the names of relations, by id; or OpenKE's file of them (``relation2id.txt``: their number, and a name and an id a line).

    Raises:
        FileNotFoundError: there is no such file. ValueError: a line is not three ids, the count is wrong, or an id is too large.
    """
    files = [Path(path)] if isinstance(path, (str, PathLike)) else [Path(p) for p in path]
    tables = [_read(file) for file in files]
    names = _names(Path(relations)) if isinstance(relations, (str, PathLike)) else relations
    if num_relations is None:
        num_relations = max([1, *(_count(table[:, 2]) for table in tables)]) if names is None else len(names)
    if num_nodes is None:
        num_nodes = max([0, *(_count(table[:, :2]) for table in tables)])
    made = []
    for file, table in zip(files, tables, strict=True):
        try:
            graph = Graph.from_triples(
                table[:, [0, 2, 1]],
                num_nodes=num_nodes,
                num_relations=num_relations,
                relations=names,
                add_inverse=add_inverse,
            )
        except ValueError as e:
            raise ValueError(f"{file}: {e}") from None
        made.append(Dataset(file.name.split(".")[0], graph))
    return made[0] if isinstance(path, (str, PathLike)) else tuple(made)


def _read(file: Path) -> Tensor:
    """``[T, 3]``: head, tail, relation."""
    with contextlib.closing(_open(file)) as lines:
        first = lines.readline().split()
        count = int(first[0]) if len(first) == 1 and first[0].isdecimal() else None
        rest = lines.read()
    text = rest if count is not None else " ".join(first) + "\n" + rest
    try:
        ids = np.array(text.split(), dtype=np.int64)
    except (ValueError, OverflowError) as e:
        raise ValueError(f"{file}: a triple is three integer ids, head tail relation ({e})") from None
    if len(ids) % 3 or (count is not None and len(ids) != 3 * count):
        expected = f"{3 * count} numbers ({count} triples)" if count is not None else "three numbers a line"
        raise ValueError(f"{file}: expected {expected}, got {len(ids)} numbers")
    return torch.from_numpy(ids.reshape(-1, 3))


def _open(file: Path) -> TextIO:
    return gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8")


def _count(ids: Tensor) -> int:
    return int(ids.max()) + 1 if ids.numel() else 0


def _names(file: Path) -> list[str]:
    """Names by id, from lines of a name and an id."""
    with contextlib.closing(_open(file)) as text:
        first, *lines = text.read().splitlines() or [""]
    found: dict[int, str] = {}
    for line in lines if first.strip().isdecimal() else [first, *lines]:
        name, _, number = line.rstrip().rpartition("\t") if "\t" in line else line.rstrip().rpartition(" ")
        if not name or not number.isdecimal():
            raise ValueError(f"{file}: expected a name and its id, got {line!r}")
        if int(number) in found:
            raise ValueError(f"{file}: id {number} is that of {found[int(number)]!r} and of {name!r}")
        found[int(number)] = name.strip()
    if sorted(found) != list(range(len(found))):
        raise ValueError(f"{file}: {len(found)} names need the ids 0 to {len(found) - 1}; the largest is {max(found)}")
    if first.strip().isdecimal() and int(first) != len(found):
        raise ValueError(f"{file}: expected {first.strip()} names, got {len(found)}")
    return [found[n] for n in range(len(found))]
