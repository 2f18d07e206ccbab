"""The pass manager, and that every pass is tested by the one check."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from columba.ir.program.parsing import parse_program
from columba.passes.pipeline import Pass, Pipeline, discover, parse_passes


def test_pass_spelling_round_trips() -> None:
    text = "canonicalize,compact_materialization{pairs=False},sink_lifts{small=8,flops=2}"
    assert str(parse_passes(text)) == text


def test_unknown_passes_are_named() -> None:
    with pytest.raises(ValueError, match=r"unknown pass 'no_such'.*canonicalize"):
        parse_passes("canonicalize,no_such")


def test_pipeline_times_and_reports_each_pass() -> None:
    seen: list[str] = []
    pipeline = Pipeline(parse_passes("canonicalize,common_subexpressions"), on_pass=lambda p, a, b: seen.append(p.name))
    pipeline.run(parse_program("program p(%a: node[1] f32) { return out=%a }"))
    assert seen == ["canonicalize", "common_subexpressions"] == list(pipeline.seconds)


# ------------------------------------------------------------------------------------------------ tests of passes

FOLDER = Path(__file__).parent
PASSES = {name: p for name, p in discover().items() if p.__module__.startswith("columba.")}


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_is_checked(name: str) -> None:
    """A pass has a file of its own, where its module is in the product, which gives ``pass_checks.check`` a Before and an Expected."""
    path = file_of(PASSES[name])
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "pass_checks" for a in n.names
    }
    assert "check" in imported
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name in imported], "no weaker copy"
    checked = [n.args for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "check"]
    assert any(
        len(args) == 3 and ast.literal_eval(args[0]) == name for args in checked if isinstance(args[0], ast.Constant)
    )


def test_files_are_about_passes() -> None:
    assert {p.relative_to(FOLDER) for p in FOLDER.glob("*/test_*.py")} == {
        file_of(p).relative_to(FOLDER) for p in PASSES.values()
    }


def file_of(p: type[Pass[Any]]) -> Path:
    """``columba.passes.plan.sort_rows`` is tested in ``plan/test_sort_rows.py``."""
    *_, level, module = p.__module__.split(".")
    assert module == p.name
    return FOLDER / level / f"test_{p.name}.py"
