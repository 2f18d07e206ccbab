"""Examples run as written, and so do those in docstrings and in the README."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import columba

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def run(*command: str) -> str:
    env = {**os.environ, "COLUMNS": "120"}
    result = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
@pytest.mark.unoptimized
def test_quickstart_learns() -> None:
    losses = [float(x) for x in re.findall(r"loss (\d+\.\d+)", run("examples/quickstart.py"))]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["rgcn", "rgat", "hgt"])
def test_entity_classification(model: str) -> None:
    compare = "--compare" if model == "hgt" else "--no-compare"  # the others take long uncompiled
    options = ("--model", model, "--epochs", "4", "--hidden", "16", "--lr", "0.05", compare)
    out = run("examples/entity_classification.py", *options)
    accuracy = float(re.search(r"^test accuracy: (\d\.\d{4})$", out, re.MULTILINE)[1])
    majority = float(re.search(r"^majority class: (\d\.\d{4})$", out, re.MULTILINE)[1])
    assert accuracy > majority
    assert ("epoch, eager" in out) == (compare == "--compare")
    assert "peak memory" in out


def sampled() -> Any:
    spec = importlib.util.spec_from_file_location("sampled", ROOT / "examples/sampled.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["sampled"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_sampled_training_learns() -> None:
    out = run("examples/sampled.py", "--steps", "14", "--features", "16", "--hidden", "8", "--batch-size", "128")
    first, last, _ = map(float, re.search(r"^columba: loss (.*) to (.*), (.*) ms a step$", out, re.MULTILINE).groups())
    assert last < 0.9 * first


@pytest.mark.slow
def test_molecules_are_learned() -> None:
    out = run(
        "examples/molecules.py",
        "--steps",
        "40",
        "--molecules",
        "200",
        "--hidden",
        "16",
        "--batch-size",
        "16",
        "--compare",
    )
    losses = [list(map(float, pair)) for pair in re.findall(r"loss (\d+\.\d+) to (\d+\.\d+)", out)]
    assert len(losses) == 2
    assert all(last < 0.5 * first for first, last in losses)
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "epochs"),
    [("gcn", 60), ("gat", 60), ("hgt", 20), ("hetero_conv", 20), ("to_hetero", 10), ("han", 20), ("mutag_gin", 8)],
)
def test_pyg_examples_reach_the_same_accuracy(example: str, epochs: int) -> None:
    out = run("examples/pyg/compare.py", example, "--", "--epochs", str(epochs))
    theirs, ours = map(float, re.search(rf"^{example} +(\d\.\d+) +(\d\.\d+) ", out, re.MULTILINE).groups())
    assert ours == pytest.approx(theirs, abs=0.08)
    assert ours > 0.5


def test_pyg_examples_have_data() -> None:
    """With features and neighbours that tell of classes, splits that are apart, and edges that lead somewhere."""
    sys.path.insert(0, str(ROOT / "examples" / "pyg"))
    try:
        import planted
    finally:
        sys.path.remove(str(ROOT / "examples" / "pyg"))
    for data, target in ((planted.dblp(60), "author"), (planted.imdb(60), "movie"), (planted.mag(), "paper")):
        data.validate()
        assert all(edges.shape[1] for edges in data.edge_index_dict.values())
        masks = torch.stack([data[target][name] for name in ("train_mask", "val_mask", "test_mask")])
        assert masks.sum(0).tolist() == [1] * data[target].num_nodes
        assert data[target].y.unique().numel() >= 3
    cora = planted.cora(100)
    alike = (cora.y[cora.edge_index[0]] == cora.y[cora.edge_index[1]]).double().mean()
    assert alike > 0.7
    molecules = planted.molecules(40)
    assert {int(m.y) for m in molecules} == {0, 1}
    assert all((m.num_edges // 2 - m.num_nodes + 1 > 1) == bool(m.y) for m in molecules)


def test_sampled_blocks_are_parts_of_the_graph() -> None:
    example = sampled()
    torch.manual_seed(0)
    index, kinds = torch.randint(50, (2, 400)), torch.randint(3, (400,))
    nothing = torch.zeros(50)
    task = example.Task(index, kinds, 3, nothing, nothing, torch.arange(0, 50, 2))
    known = {tuple(e) for e in torch.cat([index, kinds[None]]).t().tolist()}
    degree = index[1].bincount(minlength=50)
    seeds = []
    for batch in example.Sampler(task, (4, 100), 7):
        seeds += batch.nodes[: batch.seeds].tolist()
        sizes = [(b.num_src, b.num_dst) for b in batch.blocks]
        assert sizes == [(len(batch.nodes), sizes[1][0]), (sizes[1][0], batch.seeds)]
        for block, fanout in zip(batch.blocks, (4, 100), strict=True):
            met = batch.nodes[block.edge_index]
            assert {tuple(e) for e in torch.cat([met, block.edge_type[None]]).t().tolist()} <= known
            counts = block.edge_index[1].bincount(minlength=block.num_dst)
            assert counts.tolist() == degree[batch.nodes[: block.num_dst]].clamp(max=fanout).tolist()
    assert sorted(seeds) == task.train.tolist()


def test_subgraphs_of_pyg_are_cut_into_blocks() -> None:
    # What NeighborLoader gives for the seeds 0, 1: nodes 2, 3 one step away, node 4 two steps; edges in the order in which they were met.
    index, kinds = torch.tensor([[2, 3, 1, 4, 2], [0, 0, 1, 2, 3]]), torch.arange(5)
    sub = SimpleNamespace(
        edge_index=index,
        edge_type=kinds,
        n_id=torch.arange(10, 15),
        batch_size=2,
        num_sampled_nodes=[2, 2, 1],
        num_sampled_edges=[3, 2],
    )
    batch = sampled().blocks_of(sub)
    assert [(b.num_src, b.num_dst, b.edge_index.tolist(), b.edge_type.tolist()) for b in batch.blocks] == [
        (5, 4, index.tolist(), [0, 1, 2, 3, 4]),
        (4, 2, index[:, :3].tolist(), [0, 1, 2]),
    ]
    assert (batch.nodes.tolist(), batch.seeds) == ([10, 11, 12, 13, 14], 2)


MODULES = [m.name for m in pkgutil.walk_packages(columba.__path__, "columba.") if not m.name.endswith("__main__")]


@pytest.mark.unoptimized
def test_docstrings() -> None:
    attempted = 0
    for name in ["columba", *MODULES]:
        module = importlib.import_module(name)
        if ">>>" not in Path(module.__file__).read_text(encoding="utf-8"):
            continue  # which takes doctest's search longer to find out than all examples take to run
        failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
        assert not failed, name
        attempted += tried
    assert attempted > 30


@pytest.mark.unoptimized
def test_readme(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block in a namespace of its own."""
    monkeypatch.setenv("COLUMNS", "120")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"```python\n(.*?)```\n+(?:```text\n(.*?)```)?", text, re.DOTALL)
    for block, _ in found:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    printed, expected = capsys.readouterr().out, "".join(output for _, output in found)
    assert expected
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", expected)
    numbers = [[float(n) for n in NUMBER.findall(text)] for text in (printed, expected)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.02)
