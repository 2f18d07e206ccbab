"""The command line: each command that builds something in a process of its own, as people run it; the rest in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import columba
from columba.cli import main

pytestmark = pytest.mark.unoptimized

MODEL = """
import torch
import columba

def layer():
    graph = columba.Graph(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 1]))
    return columba.nn.RGCNConv(3, 2, 2), torch.randn(2, 3), graph

def nothing():
    return None
"""


def run(*args: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMBA_CACHE_DIR": str(folder / "cache"), "COLUMNS": "200"}
    command = [sys.executable, "-m", "columba.cli", *args]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_model.py").write_text(MODEL)
    return tmp_path


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Runs a command in this process, as if it were in that folder."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("COLUMBA_CACHE_DIR", str(folder / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    yield lambda *args: CliRunner().invoke(main, args)
    sys.modules.pop("my_model", None)


@pytest.mark.slow
def test_doctor_and_the_cache_of_what_it_built(folder: Path, here: Callable[..., Result]) -> None:
    result = run("doctor", folder=folder)
    assert result.returncode == 0, result.stderr
    assert "C++ compiler" in result.stdout
    assert "built and run" in result.stdout
    assert int(here("cache").stdout.split("\n")[1].split()[0]) >= 1
    assert "removed" in here("cache", "--clear").stdout
    assert "0 entries" in here("cache").stdout


def test_doctor_without_compiler(folder: Path, here: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(folder))
    result = here("doctor")
    assert result.exit_code == 1
    assert "missing" in result.stdout
    assert "install" in result.stdout


@pytest.mark.parametrize("target", [pytest.param("my_model:layer", marks=pytest.mark.slow), "my_model.py:layer"])
def test_explain(here: Callable[..., Result], target: str) -> None:
    result = here("explain", target)
    assert result.exit_code == 0, result.stderr
    titles = [line for line in result.stdout.splitlines() if line.startswith("===")]
    assert titles == [
        "=== Layers ===",
        "=== What runs ===",
        "=== Level 1: programs ===",
        "=== Level 2: plans ===",
        "=== Run by PyTorch ===",
        "=== Cost ===",
        "=== GPU ===",
        "=== Source ===",
    ]
    assert ": compiled, generic, program 1\n" in result.stdout
    assert "\ncpp kernels on cpu\n" in result.stdout
    assert "// backward" in result.stdout
    assert 'extern "C"' in result.stdout


def test_explain_one_level_of_inference(here: Callable[..., Result]) -> None:
    result = here("explain", "my_model:layer", "--level", "1", "--inference")
    assert result.exit_code == 0, result.stderr
    assert "program" in result.stdout
    assert "// backward" not in result.stdout
    assert "===" not in result.stdout


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("my_model", "expected MODULE:CALLABLE"),
        ("no_such_module:layer", "cannot import no_such_module"),
        ("my_model:missing", "has no callable 'missing'"),
        ("missing.py:layer", "there is no file missing.py"),
        ("my_model:nothing", "must return (model, *arguments), got NoneType"),
    ],
)
def test_explain_errors(target: str, message: str, here: Callable[..., Result]) -> None:
    result = here("explain", target)
    assert result.exit_code == 2
    assert message in result.stderr


def test_explain_names_inputs_as_the_code_does() -> None:
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2))

        def forward(self, g: columba.Graph, h: torch.Tensor, *more: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
            return g.edges.sum(g.edges.src(h * self.weight + more[0]) + f)

    graph = columba.Graph(torch.tensor([[0], [1]]))
    x = torch.ones(2, 2)
    layer = Layer()
    for target in (layer, layer.forward, columba.compile(layer), columba.compile(layer).forward):
        program = columba.explain(target, graph, x, x, f=torch.ones(1, 2)).compilation.traced
        assert [i.name for i in program.inputs] == ["h", "weight", "more_0", "f"]
        assert program.name == "Layer"


@pytest.mark.slow
def test_inspect_compiles_for_a_gpu_that_is_not_here(here: Callable[..., Result]) -> None:
    pytest.importorskip("triton")
    done = here("inspect", "my_model.py:layer", "--inference", "--json", "--target", "sm_80")
    assert done.exit_code == 0, done.stderr
    reports = json.loads(done.stdout)["functions"]
    assert reports
    for report in reports:
        assert report["target"] == "sm_80"
        assert report["spilled"] == 0
        assert 0 < report["registers"] <= 255
        assert 0 < report["occupancy"] <= 1


def test_inspect_names_the_architectures(here: Callable[..., Result]) -> None:
    done = here("inspect", "my_model.py:layer", "--target", "pascal")
    assert done.exit_code == 2
    assert "sm_90" in done.stderr
