"""Rules of the source tree that no linter knows."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"columba": "compiler", "columba.ir": "ir", "columba.codegen": "codegen", "columba.runtime": "runtime"}
SOURCES = sorted(
    p
    for folder in (*FOLDERS.values(), "tests", "examples", "benchmarks", "docs")
    for p in (ROOT / folder).rglob("*.py")
    if "golden" not in p.parts  # emitted, and compared with what is emitted now
)


def test_modules_are_small() -> None:
    sizes = {p.relative_to(ROOT): len(p.read_text(encoding="utf-8").splitlines()) for p in SOURCES}
    assert not {p: n for p, n in sizes.items() if n > 600}


def setuptools_table() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_every_package_is_installed() -> None:
    """A folder that pyproject.toml does not list works in a clone and is missing from a wheel."""
    listed = setuptools_table()["packages"]
    found = set()
    for package, folder in FOLDERS.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join([package, *init.parent.relative_to(ROOT / folder).parts]))
    assert set(listed) == found


@pytest.mark.parametrize("package", FOLDERS)
def test_packages_are_importable_and_typed(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert (ROOT / FOLDERS[package] / "__init__.py").read_text(encoding="utf-8").startswith('"""')


def test_templates_and_headers_are_installed() -> None:
    data = setuptools_table()["package-data"]
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".jinja", ".h", ".cpp", ".typed"):
                name = ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
                assert any(path.match(pattern) for pattern in data.get(name, [])), path
