"""Rules of the source tree that no linter knows."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import networkx
import pytest

ROOT = Path(__file__).parents[2]
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


def test_tests_stand_where_the_product_does() -> None:
    """``tests/runtime/cpp`` tests ``runtime/cpp``. Beside the product's folders there are those for the whole, for whole models, and for
    PyTorch's tools."""
    packages = {p.parent for folder in FOLDERS.values() for p in (ROOT / folder).rglob("__init__.py")}
    inside = {
        p.relative_to(ROOT / "compiler") if p.is_relative_to(ROOT / "compiler") else p.relative_to(ROOT)
        for p in packages
    }
    folders = {p.parent.relative_to(ROOT / "tests") for p in (ROOT / "tests").rglob("test_*.py")}
    assert folders - inside <= {Path("whole"), Path("models"), Path("tools")}


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


def modules() -> dict[str, Path]:
    """The files of the product by the names of their modules."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(p for p in parts if p != "__init__")])] = path
    return found


def imports(source: str, known: set[str]) -> set[str]:
    """The modules that a source imports, wherever it does: inside functions and for type checkers, too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            named = [f"{node.module}.{a.name}" for a in node.names]
            found.update(name if name in known else str(node.module) for name in named)
    return found & known


def import_graph(sources: dict[str, str]) -> networkx.DiGraph:
    graph = networkx.DiGraph()
    for module, source in sources.items():
        package = module if module + ".x" in sources else module.rpartition(".")[0]
        graph.add_edges_from(
            (module, other) for other in imports(source, set(sources)) if other not in (module, package)
        )
    return graph


def test_no_modules_import_each_other() -> None:
    """Import cycles of any length, those that lazy imports and ``TYPE_CHECKING`` hide included."""
    graph = import_graph({name: path.read_text(encoding="utf-8") for name, path in modules().items()})
    assert graph.number_of_edges() > 500
    assert not [sorted(c) for c in networkx.strongly_connected_components(graph) if len(c) > 1]
    assert not list(networkx.selfloop_edges(graph))


def test_cycles_are_seen() -> None:
    sources = {
        "a": "def f():\n    from b import c",
        "b": "",
        "b.c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import d",
        "d": "import a",
    }
    cycles = networkx.strongly_connected_components(import_graph(sources))
    assert [sorted(c) for c in cycles if len(c) > 1] == [["a", "b.c", "d"]]
