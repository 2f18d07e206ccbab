"""The documents say what the compiler does today, and their code runs."""

from __future__ import annotations

import doctest
import importlib.util
import re
import types
from pathlib import Path

import pytest

pytestmark = pytest.mark.unoptimized

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def generator() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("generate_documents", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_sections_are_current() -> None:
    stale = generator().stale()
    assert not stale, f"{', '.join(p.name for p in stale)} out of date; run: python docs/generate.py"


def test_every_section_is_used() -> None:
    module = generator()
    text = "".join((DOCS / name).read_text(encoding="utf-8") for name in module.DOCUMENTS)
    assert {m["name"] for m in module.SECTION.finditer(text)} == set(module.SECTIONS)


def test_language_examples() -> None:
    """Python blocks run in one session; interactive ones show what they show."""
    path = DOCS / "language.md"
    text = path.read_text(encoding="utf-8")
    session: dict[str, object] = {"__name__": "session"}
    ran = []
    for block in re.finditer(r"```(python|pycon)\n(.*?)```", text, re.DOTALL):
        line = text[: block.start(2)].count("\n")
        ran.append(block[1])
        if block[1] == "python":
            exec(compile("\n" * line + block[2], str(path), "exec"), session)
            continue
        example = doctest.DocTestParser().get_doctest(block[2], session, "language.md", str(path), line)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        runner.run(example, clear_globs=False)
        assert not runner.failures, f"{path}:{line}"
    assert ran.count("python") > 5
    assert ran.count("pycon") > 2


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        *(
            f"docs/{n}.md"
            for n in (
                "architecture",
                "extending",
                "gpu",
                "index",
                "language",
                "performance",
                "pyg",
                "pytorch",
                "tuning",
            )
        ),
    ],
)
def test_links_lead_somewhere(name: str) -> None:
    path = ROOT / name
    prose = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)", prose):
        assert target.startswith("https://") or (path.parent / target).exists(), target
