"""Cases that once failed, as the fuzzer shrank them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.campaign import outcome
from fuzz.case import Case

CASES = sorted((Path(__file__).parents[1] / "fuzz" / "regressions").glob("*.txt"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_regression(path: Path) -> None:
    found = outcome(Case.parse(path.read_text()))
    assert found is None, found
