"""After whatever went wrong, or another way, an ordinary call is bit for bit what it is in a fresh process.

Every disturbance meets a layer and a graph that have never been called, and then ones that have.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import disturbances
import pytest
from disturbances import DISTURBANCES, graph, layer, ordinary, random_states

pytestmark = pytest.mark.unoptimized


@pytest.fixture(scope="module")
def fresh() -> list[list[float]]:
    """What a process computes in which nothing else has happened."""
    run = subprocess.run([sys.executable, str(disturbances.__file__)], capture_output=True, text=True, check=False)
    assert not run.returncode, run.stderr
    found: list[list[float]] = json.loads(run.stdout)
    return found


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", DISTURBANCES)
def test_nothing_stays(name: str, fresh: list[list[float]]) -> None:
    module, g = layer(), graph()
    before = random_states()
    for _ in range(2):  # the first time nothing has been traced or built; the second time everything has
        DISTURBANCES[name](module, g)
        module.zero_grad()
        assert ordinary(module, g) == fresh
        assert ordinary(layer(), g) == fresh
        assert ordinary(module, graph()) == fresh
    assert random_states() == before


FIRST_CALLS = """
import random, sys
import numpy as np, torch, columba
from columba.selection import rates
from columba.cli import doctor
sys.path.insert(0, {folder!r})
from disturbances import random_states, features, graph, layer
before = random_states()
module, g = layer(), graph()
module(g, features()).sum().backward()
assert random_states() == before, "first call"
rates.machine_rates()
assert random_states() == before, "rates"
str(columba.explain(module.train(), g, features()))
assert random_states() == before, "explain"
if {all}:
    columba.tune(module, g, features(), budget=0.01)
    assert random_states() == before, "tune"
    next(iter(columba.inspect(module, g, features())))
    assert random_states() == before, "inspect"
doctor.examine()
assert random_states() == before, "doctor"
module(g, features())
assert random_states() != before, "dropout draws"
"""


@pytest.mark.slow
@pytest.mark.parametrize("everything", [False, True])
def test_first_calls_draw_no_random_numbers(everything: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an empty cache folder, where machines are measured and kernels built."""
    monkeypatch.setenv("COLUMBA_CACHE_DIR", str(tmp_path / "cache"))
    text = FIRST_CALLS.format(folder=str(Path(__file__).parents[1]), all=everything)
    run = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert not run.returncode, run.stderr
