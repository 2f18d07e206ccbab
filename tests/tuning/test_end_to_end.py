"""Tuning as people run it: the command and compiled models, in processes of their own, on the C++ backend."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "tuning.md"

pytestmark = [
    pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler"),
    pytest.mark.unoptimized,
]

MODEL = """
import contextlib
import functools
import sqlite3
import sys
import torch
import columba
from columba.inspection.explain import tunable
from columba.tuning.records import TuningRecord, Records, database
from columba.tuning import search
from columba.tuning.cases import case_of, versions

DECISION = '{"passes": "aggregate_first,-sink_lifts", "price": 4.0, "schedules": {"forward": {"out_kernel": {"pieces": 7}}}}'
torch.manual_seed(0)

class Sums(torch.nn.Module):
    def forward(self, g, h, w):
        return g.edges.sum(columba.linear(g.edges.src(h), g.edges.rel(w)))

def graph():
    ids = torch.randint(0, 40, (2, 300), generator=torch.Generator().manual_seed(0))
    return columba.Graph(ids, torch.arange(300) % 3, num_nodes=40, num_relations=3)

def model():
    return Sums(), graph(), torch.randn(40, 5), torch.randn(3, 5, 6)

def plant(decision, made_with=None):
    # as sound as any
    layer, g, h, w = training()
    ((variants, _),), _ = tunable(layer, g, h, w)
    case = case_of(variants.program, variants.wrt, g.counts(), g.device, "cpp")
    record = TuningRecord(case, made_with or versions(), decision, 0.5, 1.0, "2026-01-01T00:00:00+00:00", True)
    Records().save([record])

def training():
    layer, g, h, w = model()
    return layer, g, h.double().requires_grad_(), w.double().requires_grad_()

def compared():
    layer, g, h, w = training()
    compiled = columba.compile(layer)
    wanted, got = layer(g, h, w), compiled(g, h, w)
    torch.testing.assert_close(got, wanted)
    for a, b in zip(*(torch.autograd.grad(x.square().sum(), (h, w)) for x in (wanted, got))):
        torch.testing.assert_close(b, a)
    print("the same, by", columba.explain(compiled, g, h, w).variant)

def planted():
    plant(DECISION)
    compared()

def ignored():
    plant(DECISION, "columba 0.0.1")
    compared()
    for name, other in (("sink_lifts", "no_such_pass"), ("pieces", "speed")):
        plant(DECISION.replace(name, other))
        compared()
    plant(DECISION)
    with contextlib.closing(sqlite3.connect(database())) as connection:
        connection.execute("update records set decision = replace(decision, '7', '8')")
        connection.commit()
    compared()
    database().write_bytes(b"no database any more" * 400)
    compared()

def reporting():
    def report(step):
        if step.trial is not None:
            print("known" if step.known else "measured", flush=True)
    found = columba.tune(*model(), budget=60, report=report)
    print("complete", found.record.complete)
    print(columba.explain(*model()).variant)

def autotuned():
    search.tune_variants = functools.partial(search.tune_variants, budget=2.0)
    layer, *args = model()
    compiled = columba.compile(layer, autotune=True)
    torch.testing.assert_close(compiled(*args), layer(*args), atol=1e-4, rtol=1e-4)
    print(columba.explain(layer, *args).variant)

if __name__ == "__main__":
    for name in sys.argv[1:]:
        globals()[name]()
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that the tests of this module share, so that kernels are built once."""
    return tmp_path_factory.mktemp("cache")


class Place:
    """A folder with a model, and a cache without records."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        (folder / "my_model.py").write_text(MODEL)
        for left in cache.glob("tuning.*"):
            left.unlink()
        self.env = {**os.environ, "COLUMBA_CACHE_DIR": str(cache), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
        self.database = cache / "tuning.v1.sqlite3"

    def start(self, *command: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, *command], cwd=self.folder, env=self.env, stdout=pipe, stderr=pipe, text=True
        )

    def columba(self, *args: str, fails: bool = False) -> str:
        return self.run("-m", "columba.cli", *args, fails=fails)

    def python(self, *functions: str) -> str:
        return self.run("my_model.py", *functions)

    def run(self, *command: str, fails: bool = False) -> str:
        """Both outputs of a command."""
        process = self.start(*command)
        out, err = process.communicate(timeout=120)
        assert (process.returncode != 0) == fails, out + err
        return out + err

    def sql(self, statement: str) -> list[Any]:
        connection = sqlite3.connect(self.database)
        with connection:
            found = connection.execute(statement).fetchall()
        connection.close()
        return found


@pytest.fixture
def place(tmp_path: Path, kernels: Path) -> Place:
    return Place(tmp_path, kernels)


TUNE = ("tune", "my_model:model", "--budget")


@pytest.mark.slow
def test_records_are_found_again_in_a_new_process(place: Place) -> None:
    assert "ms without tuning" in place.columba(*TUNE, "2s")
    said = place.columba("explain", "my_model:model", "--level", "cost")
    assert "* tuned: " in said
    assert "chosen by a tuning record of" in said


@pytest.mark.slow
def test_tuned_programs_compute_the_same_and_records_that_cannot_be_trusted_are_ignored(place: Place) -> None:
    said = place.python("planted", "ignored")
    assert "the same, by tuned: aggregate_first,-sink_lifts; a saved byte costs 4; pieces=7 for 1 kernel" in said
    assert said.count("the same, by") == 6
    assert said.count("by tuned") == 1
    for message in (
        "is ignored: it was made with columba 0.0.1",
        "is ignored: unknown pass 'no_such_pass'",
        "is ignored: the schedule of kernel out_kernel has no field speed",
        "is ignored: its checksum does not fit what it says",
        "are damaged (file is not a database); they were moved to tuning.v1.sqlite3.damaged-1",
    ):
        assert message in said


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(place: Place) -> None:
    process = place.start("my_model.py", "reporting")
    assert process.stdout is not None
    assert process.stdout.readline() == "measured\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    ((kept,),) = place.sql("select count(*) from trials")
    assert kept >= 1
    assert place.sql("select count(*) from records") == [(0,)]
    *trials, last, variant = place.python("reporting").split("\n")[:-1]
    assert trials.count("known") >= kept
    assert "measured" in trials
    assert last == "complete True"
    assert variant.startswith("tuned: ")


@pytest.mark.slow
def test_the_example_of_the_document_runs(place: Place) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    place.run("-c", example.replace("tempfile.mkdtemp()", repr(str(place.cache))))


@pytest.mark.slow
def test_two_tuners_at_once(place: Place) -> None:
    processes = [place.start("-m", "columba.cli", *TUNE, "1s") for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "ms without tuning" in out
    assert place.sql("pragma integrity_check") == [("ok",)]
    assert place.sql("select count(*) from records") == [(1,)]


@pytest.mark.slow
def test_autotune(place: Place) -> None:
    assert place.python("autotuned").startswith("tuned: ")
    assert place.sql("select count(*) from records") == [(1,)]
