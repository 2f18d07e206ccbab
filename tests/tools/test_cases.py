"""Every tool of the table in docs/pytorch.md does what the table says."""

from __future__ import annotations

import re
import warnings

import pytest

from columba.runtime import warn
from tests.tools.cases import REFUSED, THROUGH_PYTORCH, Case, all_cases

pytestmark = pytest.mark.unoptimized


@pytest.mark.parametrize(
    "case", [pytest.param(one, id=one.name, marks=[pytest.mark.slow] * one.slow) for one in all_cases()]
)
def test_case(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warn, "_warned", set())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if case.outcome == REFUSED:
            with pytest.raises(Exception, match=".*".join(map(re.escape, case.message.split("...")))):
                case.run()
        else:
            case.run()
    said = {str(w.message) for w in caught if "PyTorch's operators" in str(w.message)}
    assert bool(said) == (case.outcome == THROUGH_PYTORCH), said
