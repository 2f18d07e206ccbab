"""RDF graphs with R-GCN's splits for entity classification."""

from __future__ import annotations

import contextlib
import csv
import gzip
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from columba.datasets.dataset import EntityClassification
from columba.runtime.graphs.convert import add_inverse_relations
from columba.runtime.graphs.graph import Graph

_URL = "https://data.dgl.ai/dataset/rdf/{name}-hetero.zip"
_SPLITS = ("trainingSet.tsv", "testSet.tsv")


def aifb(folder: str | PathLike[str] | None = None) -> EntityClassification:
    """AIFB: a research institute's staff and publications; the task is the research group of a person, one of four.

    Args:
        folder: with an N-Triples file (``*.nt`` or ``*.nt.gz``), ``trainingSet.tsv`` and ``testSet.tsv``. None: downloaded once into
            the user's cache folder.

    Raises:
        FileNotFoundError: a file is missing in ``folder``. ConnectionError: it could not be downloaded.
    """
    return rdf(_folder("aifb", folder), "person", "label_affiliation", name="aifb")


def mutag(folder: str | PathLike[str] | None = None) -> EntityClassification:
    """MUTAG: molecules of DL-Learner's carcinogenesis data; the task is whether one is mutagenic. Arguments as of :func:`aifb`."""
    return rdf(_folder("mutag", folder), "bond", "label_mutagenic", name="mutag")


def rdf(
    folder: str | PathLike[str],
    entity: str,
    label: str,
    *,
    name: str | None = None,
    relations: Sequence[str] | None = None,
) -> EntityClassification:
    """An RDF graph with labelled entities, in the files of R-GCN's benchmarks.

    Every predicate is a relation, and so is its inverse. Literals are nodes like any others.

    Args:
        folder: see :func:`aifb`.
        entity, label: the columns of the TSV files that hold an entity's IRI and its class.
        name: of the data set; None: the folder's.
        relations: IRIs of predicates, by id, as another such graph has them; None: in the order in which the statements name them.
    """
    folder = Path(folder)
    nodes: dict[str, int] = {}
    predicates: dict[str, int] = {}
    edges: dict[tuple[int, int, int], None] = {}
    for s, p, o in _statements(_find(folder)):
        head, tail = nodes.setdefault(s, len(nodes)), nodes.setdefault(o, len(nodes))
        edges[head, predicates.setdefault(p, len(predicates)), tail] = None
    splits = [_split(folder / file, entity, label) for file in _SPLITS]
    classes = sorted({c for split in splits for c in split.values()})
    for split in splits:
        for iri in split:
            nodes.setdefault(iri, len(nodes))  # an entity that no statement mentions is an isolated node
    table = torch.tensor(list(edges), dtype=torch.long).reshape(-1, 3)
    graph = Graph(
        torch.stack([table[:, 0], table[:, 2]]),
        table[:, 1],
        num_nodes=len(nodes),
        num_relations=len(predicates),
        relation_names=list(predicates),
    ).with_names(relations=relations)
    labels = torch.full((len(nodes),), -1)
    for split in splits:
        labels[_ids(split, nodes)] = torch.tensor([classes.index(c) for c in split.values()], dtype=torch.long)
    train, test = (_ids(split, nodes) for split in splits)
    return EntityClassification(name or folder.name, add_inverse_relations(graph), labels, train, test, tuple(classes))


def _ids(entities: Iterable[str], nodes: Mapping[str, int]) -> Tensor:
    return torch.tensor([nodes[iri] for iri in entities], dtype=torch.long)


def _find(folder: Path) -> Path:
    found = sorted([*folder.glob("*.nt"), *folder.glob("*.nt.gz")])
    if not found:
        raise FileNotFoundError(f"{folder} holds no N-Triples file (*.nt or *.nt.gz)")
    return found[0]


def _statements(path: Path) -> Iterator[tuple[str, str, str]]:
    """Subject, predicate and object of each statement, as N-Triples writes them; IRIs without their brackets."""
    try:
        from rdflib.plugins.parsers.ntriples import W3CNTriplesParser
    except ImportError as e:
        raise ImportError("reading RDF needs rdflib: pip install columba[datasets]") from e

    found: list[tuple[str, str, str]] = []

    class Sink:
        def triple(self, s: object, p: object, o: object) -> None:
            found.append(tuple(str(t) if type(t).__name__ == "URIRef" else t.n3() for t in (s, p, o)))  # type: ignore[attr-defined, arg-type]

    parser = W3CNTriplesParser(sink=Sink())  # type: ignore[arg-type]
    with contextlib.closing(gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")) as file:
        parser.parse(file)  # type: ignore[arg-type]
    yield from found


def _split(path: Path, entity: str, label: str) -> dict[str, str]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        missing = {entity, label} - set(rows.fieldnames or ())
        if missing:
            raise ValueError(
                f"{path} has no column {', '.join(sorted(missing))}; it has {', '.join(rows.fieldnames or ())}"
            )
        return {row[entity]: row[label] for row in rows}


# ------------------------------------------------------------------------------------------------ downloads


def _folder(name: str, folder: str | PathLike[str] | None) -> Path:
    if folder is not None:
        given = Path(folder)
        for file in _SPLITS:
            if not (given / file).exists():
                raise FileNotFoundError(
                    f"{given} holds no {file}; give the folder of {name}'s files, or None to download them"
                )
        return given
    import platformdirs  # which nothing else here needs

    target = Path(platformdirs.user_cache_dir("columba")) / "datasets" / name
    if not target.exists():
        _download(name, target)
    return target


def _download(name: str, target: Path) -> None:
    """Unpacks a dataset's archive beside ``target``, and moves it there when it is whole."""
    url = _URL.format(name=name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        archive = Path(temporary) / "archive.zip"
        try:
            with urllib.request.urlopen(url, timeout=60) as response, archive.open("wb") as file:
                shutil.copyfileobj(response, file)
        except (urllib.error.URLError, TimeoutError) as e:
            raise ConnectionError(
                f"could not download {url} ({e}); get {name}'s N-Triples file, {' and '.join(_SPLITS)} elsewhere, and give their folder"
            ) from e
        whole = Path(temporary) / name
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(whole)
        if not target.exists():
            whole.replace(target)
