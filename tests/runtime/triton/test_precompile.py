"""Caches that are filled ahead of time: what launches ask for is there, and what fails says which kernel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gpu_stand_in
import pytest
import torch
from click.testing import CliRunner

import columba
from columba.cli import main
from columba.inspection.ahead import jobs_for
from columba.nn import RGCNConv
from columba.runtime.triton.precompile import Job, PrecompileError, precompile

pytest.importorskip("triton")

MODEL = """
import torch
import columba

def layer():
    graph = columba.Graph(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 1]))
    return columba.nn.RGCNConv(8, 8, 2), torch.randn(2, 8), graph
"""


@pytest.mark.slow
def test_a_shipped_cache_has_all_that_calls_ask_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shipped_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    for variable in ("TRITON_CACHE_DIR", "COLUMBA_CACHE_DIR"):  # which the command sets for the rest of its process
        monkeypatch.setenv(variable, str(tmp_path / "other"))
    arguments = ["precompile", "shipped_model.py:layer", "--target", "sm_90", "--cache", "shipped", "--jobs", "1"]
    result = CliRunner().invoke(main, [*arguments, "--inference"])
    assert result.exit_code == 0, result.output
    cache = tmp_path / "shipped" / "triton"
    binaries = sorted(cache.rglob("*.cubin"))
    assert f"compiled {len(binaries)} kernels for sm_90" in result.output
    assert "TRITON_CACHE_DIR=shipped/triton COLUMBA_CACHE_DIR=shipped/columba" in result.output
    assert not (tmp_path / "other").exists()

    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))
    seen = gpu_stand_in.install(monkeypatch)
    layer = columba.compile(RGCNConv(8, 8, 3), backend="triton").requires_grad_(False)
    for nodes, edges in ((1, 1), (40, 60), (40, 900), (5, 900)):
        ends = torch.arange(2 * edges).view(2, edges) * 7 % nodes
        graph = columba.Graph(ends, torch.arange(edges) % 3, num_nodes=nodes, num_relations=3)
        layer(torch.randn(nodes, 8), graph)
    assert seen.launches
    assert sorted(cache.rglob("*.cubin")) == binaries


def jobs(targets: tuple[str, ...] = ("sm_90",)) -> list[Job]:
    graph = columba.Graph(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 1]))
    return jobs_for(RGCNConv(4, 4, 2), (torch.randn(2, 4), graph), targets)


def test_jobs_are_those_of_calls_with_gradients_and_without() -> None:
    """Each once, for each architecture; products once for each precision."""
    graph = columba.Graph(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 1]))
    arguments = (RGCNConv(4, 4, 2), (torch.randn(2, 4), graph))
    inference = jobs_for(*arguments, ["sm_90"], training=False)
    both = jobs_for(*arguments, ["sm_90"])
    assert len(set(both)) == len(both)
    assert set(inference) < set(both)
    names = {job.launch.function for job in both}
    assert any("backward" in name for name in names)
    assert len(jobs_for(*arguments, ["sm_90", "gfx942"])) == 2 * len(both)
    products = [job for job in both if job.launch.dot is not None]
    assert len(jobs_for(*arguments, ["sm_90"], ("ieee", "tf32"))) == len(both) + len(products)
    split = columba.compile(RGCNConv(4, 4, 2), backend="triton", fp32_precision="tf32x3")
    assert {j.precision for j in jobs_for(split, arguments[1], ["sm_90"]) if j.launch.dot is not None} == {"tf32x3"}


@pytest.mark.parametrize(
    ("workers", "plant", "message"),
    [
        (1, "    nobody_knows_this(1)\n", "nobody_knows_this is not defined"),
        pytest.param(2, "    nobody_knows_this(1)\n", "nobody_knows_this is not defined", marks=pytest.mark.slow),
        pytest.param(2, None, "ended with status -6", marks=pytest.mark.slow),
    ],
    ids=("error here", "error", "crash"),
)
def test_what_fails_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: str | None,
    message: str,
    workers: int,
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    first, *others = jobs()
    if plant is None:
        source = first.source + "\nimport os\nos.abort()\n"
    else:
        head, body = first.source.split(f"def {first.launch.function}(", 1)
        signature, rest = body.split("):\n", 1)
        source = f"{head}def {first.launch.function}({signature}):\n{plant}{rest}"
    wanted = rf"(?s)kernel {first.launch.function} .*does not compile for sm_90: .*{message}"
    with pytest.raises(PrecompileError, match=wanted):
        precompile([replace(first, source=source), *others[:1]], workers)


def test_nothing_to_compile() -> None:
    assert precompile([]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--target", "sm_9x"], "unknown GPU architecture 'sm_9x'"), ([], "Missing option '--target'")],
)
def test_command_line_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    (tmp_path / "shipped_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["precompile", "shipped_model.py:layer", *arguments])
    assert result.exit_code == 2
    assert message in result.output
