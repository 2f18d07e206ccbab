"""Datasets: what they hold, that they are the same every time, and that broken files are refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from columba import datasets
from columba.datasets import PUBLISHED, Statistics

STATEMENTS = """\
<http://x/ann> <http://x/knows> <http://x/bob> .
<http://x/bob> <http://x/knows> <http://x/cid> .
<http://x/bob> <http://x/name> "Bob\\u00e9"@en .
<http://x/ann> <http://x/knows> <http://x/bob> .
"""


def test_pycode_is_deterministic_and_hides_what_is_asked() -> None:
    first, second = datasets.pycode(["json"]), datasets.pycode(["json"])
    assert torch.equal(first.graph.edge_index, second.graph.edge_index)
    assert torch.equal(first.labels, second.labels)
    graph = first.graph
    assert graph.num_relations % 2 == 0
    assert ("body", "inverse") in graph.relation_names
    assert not set(first.train.tolist()) & set(first.test.tolist())
    asked = torch.cat([first.train, first.test])
    assert (first.labels[asked] >= 0).all()
    hidden = first.features[asked].unique()
    assert len(hidden) == 1  # of a hidden node the feature says nothing else
    syntax = int((graph.node_type == 0).sum())
    assert 0.07 < len(first.test) / syntax < 0.13
    assert 0 < first.majority_accuracy < 0.6


def test_pycode_with_the_relations_of_other_packages() -> None:
    names = datasets.pycode(["json", "argparse"]).graph.relation_names
    names = names[: len(names) // 2]
    part, whole = datasets.pycode(["json"], relations=names).graph, datasets.pycode(["json"]).graph
    assert part.relation_names[: len(names)] == names
    assert [part.relation_names[r] for r in part.edge_type] == [whole.relation_names[r] for r in whole.edge_type]


def test_pycode_of_no_package() -> None:
    with pytest.raises(ValueError, match="no Python package 'no_such_package'"):
        datasets.pycode(["no_such_package"])


@pytest.fixture
def rdf_folder(tmp_path: Path) -> Path:
    with gzip.open(tmp_path / "graph.nt.gz", "wt", encoding="utf-8") as file:
        file.write(STATEMENTS)
    (tmp_path / "trainingSet.tsv").write_text("person\tlabel\nhttp://x/ann\tred\nhttp://x/dan\tblue\n")
    (tmp_path / "testSet.tsv").write_text("person\tlabel\nhttp://x/bob\tred\n")
    return tmp_path


def test_rdf(rdf_folder: Path) -> None:
    data = datasets.rdf(rdf_folder, "person", "label")
    # ann, bob, cid, the literal, and dan, of whom no statement speaks; the doubled statement counts once, each has an inverse
    assert (data.graph.num_nodes, data.graph.num_edges, data.graph.num_relations) == (5, 6, 4)
    assert data.class_names == ("blue", "red")
    assert data.labels[data.train].tolist() == [1, 0]
    assert data.labels[data.test].tolist() == [1]


def test_rdf_with_the_relations_of_another_graph(rdf_folder: Path) -> None:
    names = ["http://x/likes", "http://x/name", "http://x/knows"]
    graph = datasets.rdf(rdf_folder, "person", "label", relations=names).graph
    assert graph.relation_names == (*names, *((name, "inverse") for name in names))
    assert graph.edge_type.tolist() == [2, 2, 1, 5, 5, 4]
    with pytest.raises(ValueError, match="does not list 'http://x/name'"):
        datasets.rdf(rdf_folder, "person", "label", relations=["http://x/knows"])


def test_rdf_errors(rdf_folder: Path) -> None:
    with pytest.raises(ValueError, match="has no column colour; it has person, label"):
        datasets.rdf(rdf_folder, "person", "colour")
    (rdf_folder / "testSet.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no testSet\.tsv"):
        datasets.aifb(rdf_folder)


def test_triples(tmp_path: Path) -> None:
    path = tmp_path / "train2id.txt"
    path.write_text("2\n0 1 0\n1 2 1\n")
    graph = datasets.triples(path).graph
    assert graph.edge_index.tolist() == [[0, 1, 1, 2], [1, 2, 0, 1]]
    assert graph.edge_type.tolist() == [0, 1, 2, 3]


def test_splits_of_triples_share_ids(tmp_path: Path) -> None:
    texts = {
        "train2id.txt": "2\n0 1 0\n1 2 2\n",
        "valid2id.txt": "1\n3 0 1\n",
        "test2id.txt": "0 1 0\n",
        "none.txt": "0\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    paths = [tmp_path / name for name in texts]
    train, valid, test, none = datasets.triples(paths)
    assert [d.name for d in (train, valid, test, none)] == ["train2id", "valid2id", "test2id", "none"]
    assert {(d.graph.num_nodes, d.graph.num_relations) for d in (train, valid, test, none)} == {(4, 6)}
    assert train.graph.edge_type.tolist() == [0, 2, 3, 5]
    assert valid.graph.edge_type.tolist() == [1, 4]
    assert test.graph.edge_type.tolist() == [0, 3]
    alone = datasets.triples(paths[2], num_nodes=4, num_relations=3).graph
    assert alone.edge_type.tolist() == [0, 3]
    assert (alone.num_nodes, alone.num_relations) == (4, 6)
    with pytest.raises(ValueError, match=r"train2id\.txt: edge_type holds 2 at edge 1, but num_relations is 2"):
        datasets.triples(paths, num_relations=2)
    with pytest.raises(ValueError, match=r"valid2id\.txt: edge_index\[0\] holds 3"):
        datasets.triples(paths, num_nodes=3)


def test_names_of_triples(tmp_path: Path) -> None:
    path, names = tmp_path / "test2id.txt", tmp_path / "relation2id.txt"
    path.write_text("0 1 0\n")
    names.write_text("3\n/film/genre\t1\nlikes a lot\t0\n/x\t2\n")
    for given in (names, ["likes a lot", "/film/genre", "/x"]):
        graph = datasets.triples(path, relations=given).graph
        assert graph.edge_type.tolist() == [0, 3]
        assert graph.relation_names[:4] == ("likes a lot", "/film/genre", "/x", ("likes a lot", "inverse"))
    for text, message in (
        ("1\na\t0\nb\t1\n", "expected 1 names, got 2"),
        ("a\t0\nb\t0\n", "id 0 is that of 'a' and of 'b'"),
        ("a\t0\nb\t2\n", "2 names need the ids 0 to 1; the largest is 2"),
        ("a\n", "expected a name and its id, got 'a'"),
    ):
        names.write_text(text)
        with pytest.raises(ValueError, match=message):
            datasets.triples(path, relations=names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3\n0 1 0\n", r"expected 9 numbers \(3 triples\), got 3"),
        ("0 1\n", "three numbers"),
        ("a b c\n", "integer ids"),
    ],
)
def test_broken_triples(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "triples.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        datasets.triples(path)


def test_mag10(tmp_path: Path) -> None:
    edges = {
        "citing": [[0, 1], [1, 2]],
        "writing": [[0, 3], [2, 0]],
        "written_by": [[2, 0], [0, 3]],
        "has": [[7000, 0], [0, 5]],
    }
    np.savez(tmp_path / "coo.npz", **{k: np.array(v) for k, v in edges.items()})
    graph = datasets.mag10(tmp_path).graph
    assert graph.node_type_names == ("paper", "author", "field")
    assert graph.node_slices == {"paper": slice(0, 7001), "author": slice(7001, 7005), "field": slice(7005, 7011)}
    assert ("paper", "has", "field") in graph.relation_names
    np.savez(tmp_path / "coo.npz", citing=np.array(edges["citing"]), writing=np.empty((2, 0)))
    names = [("author", "writing", "paper"), ("field", "of", "paper"), ("paper", "citing", "paper")]
    part = datasets.mag10(tmp_path, relations=names).graph
    assert part.edge_type.tolist() == [2, 2]
    assert part.node_slices == {"paper": slice(0, 3), "author": slice(3, 3), "field": slice(3, 3)}


PUBLISHED_NAMES = ["aifb", "mutag", "bgs", "am", "mag", "fb15k", "biokg", "wikikg2"]


def test_published_names() -> None:
    assert list(PUBLISHED) == PUBLISHED_NAMES


@pytest.mark.parametrize("name", PUBLISHED_NAMES)
def test_synthetic_matches_published_statistics(name: str) -> None:
    scale = 1.0 if name in ("aifb", "fb15k") else 0.05
    graph = datasets.synthetic(name, scale=scale).graph
    published = PUBLISHED[name].scaled(scale)
    assert (graph.num_nodes, graph.num_edges) == (published.nodes, published.edges)
    assert (graph.num_relations, graph.num_node_types) == (published.relations, published.node_types)
    sizes = graph.edge_type.bincount(minlength=graph.num_relations)
    assert sizes.min() >= 1
    assert (
        sizes.max() > (10 if graph.num_relations > 4 else 3) * sizes.double().median()
    )  # a few large relations, many small ones
    degrees = graph.edge_index[1].bincount(minlength=graph.num_nodes)
    assert degrees.max() > 10 * degrees.double().mean()  # hubs


def test_synthetic_relations_lead_from_one_type_to_one_type() -> None:
    graph = datasets.synthetic(Statistics(nodes=300, edges=2000, relations=9, node_types=4), seed=5).graph
    for relation in range(9):
        for end in range(2):
            nodes = graph.edge_index[end][graph.edge_type == relation]
            assert len(graph.node_type[nodes].unique()) == 1


def test_synthetic_seeds_and_errors() -> None:
    one, same, other = (datasets.synthetic("aifb", scale=0.01, seed=s).graph for s in (1, 1, 2))
    assert torch.equal(one.edge_index, same.edge_index)
    assert not torch.equal(one.edge_index, other.edge_index)
    with pytest.raises(ValueError, match="one of aifb, mutag"):
        datasets.synthetic("nothing")
    with pytest.raises(ValueError, match="every relation needs an edge"):
        datasets.synthetic(Statistics(nodes=3, edges=2, relations=0, node_types=1))
    with pytest.raises(ValueError, match="positive"):
        datasets.synthetic("aifb", scale=0)
