"""The walkthroughs of ``docs/extending.md``, applied to a copy of the source tree, as they stand there; and their commands are run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unoptimized

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FOLDERS = {"columba": "compiler", "ir": "ir", "codegen": "codegen", "runtime": "runtime"}
"""The folders of the package, by where they are imported from: the first, and inside it the others."""

BLOCK = re.compile(
    r"^(?:(New file|In) `(?P<path>[^`\n]+)`:\n\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)


def walkthrough(title: str) -> str:
    """The section of the document under a heading."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", DOCUMENT, re.DOTALL | re.MULTILINE)[1]


def edited(text: str, diff: str) -> str:
    """``text`` with each part of ``diff`` applied where the lines that it shows stand, which is in one place."""
    for part in re.split(r"^@@\n", diff, flags=re.MULTILINE):
        lines = part.splitlines(keepends=True)
        assert all(line[0] in " +-\n" for line in lines), part
        before = "".join(line[1:] or line for line in lines if line[0] != "+")
        after = "".join(line[1:] or line for line in lines if line[0] != "-")
        assert before, f"nothing to find the place by:\n{part}"
        assert f"\n{text}".count(f"\n{before}") == 1, f"occurs not once:\n{before}"
        text = f"\n{text}".replace(f"\n{before}", f"\n{after}")[1:]
    return text


def copy_tree(target: Path) -> None:
    """The product, its tests and its documents, importable as they stand in ``target``."""
    for folder in (*FOLDERS.values(), "docs", "tests"):
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__", "fuzz", "golden"))
    shutil.copy(ROOT / "pyproject.toml", target)
    package, *inner = FOLDERS
    (target / package).symlink_to(FOLDERS[package])
    for name in inner:
        (target / package / name).symlink_to(target / FOLDERS[name])


def apply(section: str, target: Path) -> list[list[str]]:
    """Writes the files of a walkthrough and edits others; returns its commands."""
    commands = []
    for block in BLOCK.finditer(section):
        if block["language"] == "console":
            commands += [shlex.split(line.removeprefix("$ ")) for line in block["text"].splitlines()]
        if block["path"] is None:
            continue
        path = target / block["path"]
        if block["language"] == "diff":
            path.write_text(edited(path.read_text(encoding="utf-8"), block["text"]), encoding="utf-8")
        else:
            assert not path.exists(), path
            path.write_text(block["text"], encoding="utf-8")
    return commands


TITLES = ("A pointwise function", "An operation", "A pass", "A backend")

RUN = """
import os, runpy, sys, traceback
import jinja2, networkx, numpy, pytest, torch, torch._dynamo, triton

def run(command):
    sys.argv = command[1:]
    if command[1:3] == ["-m", "pytest"]:
        return pytest.main(command[3:])
    runpy.run_path(command[1], run_name="__main__")
    return 0

for folder, commands in eval(sys.stdin.read()):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        continue
    status = 1
    with open(os.path.join(folder, "output"), "w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    try:
        os.chdir(folder)
        sys.path.insert(0, folder)
        status = max([run(command) for command in commands])
    except BaseException:
        traceback.print_exc()
    print("status", int(status), flush=True)
    os._exit(0)
"""
"""Runs the commands in each tree in a fork of one process that has imported what takes longer to import than they run."""


@pytest.mark.parametrize(
    "trees",
    [(TITLES,), tuple((title,) for title in TITLES)],
    ids=("in one tree", "each in its own"),
)
@pytest.mark.slow
def test_walkthroughs(trees: tuple[tuple[str, ...], ...], tmp_path: Path) -> None:
    jobs = []
    for n, titles in enumerate(trees):
        folder = tmp_path / str(n)
        copy_tree(folder)
        commands: list[list[str]] = []
        for title in titles:
            found = apply(walkthrough(title), folder)
            assert any("pytest" in command for command in found)
            assert all(command[0] == ".venv/bin/python" for command in found)
            commands += [command for command in found if command not in commands]
        jobs.append((str(folder), commands))
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", RUN], input=repr(jobs), env=environment, text=True, timeout=600, check=True)
    for titles, (folder, _) in zip(trees, jobs, strict=True):
        output = Path(folder, "output").read_text(encoding="utf-8")
        assert output.endswith("status 0\n"), f"{titles}\n{output[-8000:]}"
        assert len(re.findall(r"^\d+ passed", output, re.MULTILINE)) == len(titles), f"{titles}\n{output}"
