"""Examples run as written, and so do those in docstrings and in the README."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


MODULES = [m.name for m in pkgutil.walk_packages(columba.__path__, "columba.") if not m.name.endswith("__main__")]


@pytest.mark.unoptimized
def test_docstrings() -> None:
    attempted = 0
    for name in ["columba", *MODULES]:
        failed, tried = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
        assert not failed, name
        attempted += tried
    assert attempted > 30


EACH = """
import sys
for block in sys.argv[1:]:
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
"""


@pytest.mark.unoptimized
def test_readme() -> None:
    """Each block in a namespace of its own."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"```python\n(.*?)```\n+(?:```text\n(.*?)```)?", text, re.DOTALL)
    printed, expected = run("-c", EACH, *(block for block, _ in found)), "".join(output for _, output in found)
    assert expected
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", expected)
    numbers = [[float(n) for n in NUMBER.findall(text)] for text in (printed, expected)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.02)
