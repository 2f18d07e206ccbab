"""Emitted Triton source is what people have read: ``python -m tests.golden`` writes the files anew, for a review to look at."""

from __future__ import annotations

import ast
import difflib

import pytest
from golden.sources import FOLDER, names, source, stored_plan

pytest.importorskip("triton")


@pytest.mark.parametrize("name", names())
def test_source(name: str) -> None:
    wanted = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    found = source(stored_plan(name))
    difference = "\n".join(
        difflib.unified_diff(wanted.splitlines(), found.splitlines(), "golden", "emitted", lineterm="")
    )
    assert found == wanted, f"run python -m tests.golden if this is meant:\n{difference}"


@pytest.mark.parametrize("name", names())
def test_every_kernel_says_what_it_does(name: str) -> None:
    """A docstring in every kernel; its operations above it, unless it only puts parts of tiles together; names of buffers in it."""
    plan = stored_plan(name)
    text = source(plan)
    kernels = [f for f in ast.parse(text).body if isinstance(f, ast.FunctionDef) and f.name.startswith(plan.name)]
    assert kernels
    for kernel in kernels:
        assert ast.get_docstring(kernel), kernel.name
    for k in plan.kernels:
        assert f" {k.name}(" in text
    for buffer in (*plan.inputs, *plan.outputs):
        assert f"{buffer.name}_ptr" in text


def test_both_directions_of_all_layers() -> None:
    assert {f"{layer}_{part}" for layer in ("rgcn", "rgat", "hgt") for part in ("forward", "backward")} == set(names())
