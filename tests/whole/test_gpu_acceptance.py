"""``tools/gpu_acceptance.py``: what its report says of stages that fail, crash, hang or have no time; and that it runs without a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

STAGES = """
import json, os, sys, time

stage, file, *rest = sys.argv[1:]
options = dict(zip(rest[::2], rest[1::2]))
number, workers = map(int, options["--worker"].split("/"))
items = {
    "device": ["memory", "clock"],
    "matrix": ["right", "wrong", "crash", "after the crash", "another"],
    "hubs": ["hang"],
}[stage]
mine = [item for n, item in enumerate(items) if n % workers == number][int(options["--after"]):]
with open(file, "a", buffering=1) as out:
    def tell(line, what, **more):
        print(json.dumps({"line": line, "what": what, **more}), file=out, flush=True)
    for item in mine:
        tell("begun", item)
        if item == "crash":
            print("a word to the log", file=sys.stderr, flush=True)
            os.abort()
        if item == "hang":
            time.sleep(60)
        if stage == "device":
            tell("done", item, outcome="measured", kind="rates", values={"GB/s": 12.345, "of": "a card"})
        elif item == "wrong":
            tell("done", item, outcome="failed", why="off by 1")
        else:
            tell("done", item, outcome="passed")
"""
"""Stands for ``benchmarks.acceptance``: nothing is computed, and some of it goes wrong."""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_acceptance", ROOT / "tools" / "gpu_acceptance.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_acceptance", module)
    spec.loader.exec_module(module)
    clone = tmp_path / "clone"
    for folder in ("compiler", "ir", "codegen", "runtime", "tests", "benchmarks"):
        (clone / folder).mkdir(parents=True)
    (clone / "benchmarks" / "acceptance.py").write_text(STAGES)
    monkeypatch.setattr(module, "CLONE", clone)
    monkeypatch.setattr(module, "GRACE", 0.3)
    monkeypatch.chdir(tmp_path)
    return module


def run(tool: ModuleType, *arguments: str) -> tuple[int, dict[str, Any], str]:
    status = tool.main(["--device", "interpreter", "--minutes", "0.2", *arguments])
    folder = Path("acceptance")
    report = json.loads((folder / "acceptance.json").read_text())
    return status, {stage["name"]: stage for stage in report["stages"]}, (folder / "acceptance.md").read_text()


@pytest.mark.parametrize("workers", ["1", "3"])
def test_a_crash_ends_one_item_alone(tool: ModuleType, workers: str) -> None:
    status, stages, text = run(tool, "--stages", "device,matrix", "--workers", workers)
    assert status == 1
    assert stages["device"]["status"] == "passed"
    outcomes = {item["what"]: item["outcome"] for item in stages["matrix"]["items"]}
    wrong = {"wrong": "failed", "crash": "failed"}
    assert outcomes == {"right": "passed", "after the crash": "passed", "another": "passed", **wrong}
    assert "- failed: wrong: off by 1\n" in text
    assert "- failed: crash: ended with status -6: a word to the log\n" in text
    assert (
        "| rates | GB/s | of |\n| --- | ---: | ---: |\n| memory | 12.3 | a card |\n| clock | 12.3 | a card |\n" in text
    )


def test_a_stage_that_hangs_ends(tool: ModuleType) -> None:
    """What was reached before is reported; time that is over is no failure."""
    status, stages, text = run(tool, "--stages", "device,hubs", "--workers", "1", "--minutes", "0.03")
    assert status == 0
    assert stages["device"]["status"] == "passed"
    assert stages["hubs"]["status"] == "unfinished"
    assert "- unfinished: hang: killed 0 s after its time was over\n" in text


@pytest.mark.parametrize("wrong", [["--stages", "hub"], ["--minutes", "0"], ["--workers", "0"]])
def test_options_that_make_no_sense(tool: ModuleType, wrong: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        tool.main(wrong)


def test_without_a_gpu(tool: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "_no_gpu", lambda: "PyTorch finds none")
    assert tool.main([]) == 2
    assert "PyTorch finds none; --device interpreter or stand-in" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("device", ["interpreter", "stand-in"])
def test_it_runs_without_what_a_bare_machine_lacks(tmp_path: Path, device: str) -> None:
    """No package but those that PyTorch and the compiler itself need can be imported."""
    allowed = ("torch", "triton", "numpy", "networkx", "jinja2", "click", "rich", "filelock")
    needed = (
        "sympy",
        "mpmath",
        "typing_extensions",
        "fsspec",
        "markupsafe",
        "pygments",
        "markdown_it",
        "mdurl",
        "columba",
    )
    (tmp_path / "sitecustomize.py").write_text(
        f"""
import sys
from importlib import metadata
ALLOWED = {(*allowed, *needed)}
OTHERS = {{top for top in metadata.packages_distributions() if top not in ALLOWED}}
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OTHERS - set(sys.stdlib_module_names):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""
    )
    command = [
        sys.executable,
        str(ROOT / "tools" / "gpu_acceptance.py"),
        "--device",
        device,
        "--smallest",
        "--minutes",
        "4",
    ]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], env=environment, capture_output=True, text=True, check=False
    )
    report = (tmp_path / "out" / "acceptance.md").read_text()
    assert done.returncode == 0, done.stdout + done.stderr + report
    assert "unfinished" not in report
    assert "failed:" not in report
