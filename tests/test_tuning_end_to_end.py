"""Tuning as people run it: the command and compiled models, in processes of their own, on the C++ backend."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")

MODEL = """
import sys
import torch
import columba
from columba.runtime.records import Records

torch.manual_seed(0)

class Sums(torch.nn.Module):
    def forward(self, g, h, w):
        return g.edges.sum(columba.linear(g.edges.src(h), g.edges.rel(w)))

def graph():
    ids = torch.randint(0, 40, (2, 300), generator=torch.Generator().manual_seed(0))
    return columba.Graph(ids, torch.arange(300) % 3, num_nodes=40, num_relations=3)

def model():
    return Sums(), graph(), torch.randn(40, 5), torch.randn(3, 5, 6)

def explained():
    found = columba.explain(*model())
    print("variant:", found.variant)
    print(found.costs)

def compared(dtype=torch.float64):
    layer, g, h, w = model()
    h, w = h.to(dtype).requires_grad_(), w.to(dtype).requires_grad_()
    compiled = columba.compile(layer)
    wanted, got = layer(g, h, w), compiled(g, h, w)
    torch.testing.assert_close(got, wanted)
    for a, b in zip(*(torch.autograd.grad(x.square().sum(), (h, w)) for x in (wanted, got))):
        torch.testing.assert_close(b, a)
    print("the same, by", columba.explain(compiled, g, h, w).variant)

def reporting():
    def report(step):
        if step.trial is not None:
            print("measured", flush=True)
    layer, *args = model()
    found = columba.tune(layer, *args, budget=60, report=report)
    print("resumed", found.resumed, "complete", found.record.complete)

if __name__ == "__main__":
    globals()[sys.argv[1]]()
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

    def python(self, function: str) -> str:
        return self.run("my_model.py", function)

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


TUNE = ("tune", "my_model:model", "--budget", "3s")

DECISION = {
    "passes": "aggregate_first,-sink_lifts",
    "price": 4.0,
    "schedules": {"forward": {"out_kernel": {"tile_rows": 7}}},
}
"""A decision that nobody would come to, so that it shows where it is followed."""


def plant(place: Place, decision: str, versions: str | None = None) -> None:
    """Writes a record for the model in training, as sound as any, with this decision."""
    script = f"""
import my_model, columba, torch
from columba.explain import tunable
from columba.runtime.records import Record, Records
from columba.tuning.cases import case_of, versions
layer, g, h, w = my_model.model()
h, w = h.double().requires_grad_(), w.double().requires_grad_()
variants, _, _ = tunable(layer, g, h, w)
case = case_of(variants.program, variants.wrt, g.counts(), g.device, "cpp")
Records().save([Record(case, {versions!r} or versions(), {decision!r}, 0.5, 1.0, "2026-01-01T00:00:00+00:00", True)])
"""
    place.run("-c", script)


def test_records_are_found_again_until_they_are_cleared(place: Place) -> None:
    assert "variant: tuned" not in place.python("explained")
    said = place.columba(*TUNE)
    assert "ms without tuning" in said
    assert "chosen by a tuning record of" in place.python("explained")
    assert "tuned already" in place.columba(*TUNE) or "had been measured before" in said
    listed = place.columba("tune", "--list")
    assert "Sums" in listed
    assert "used" in listed
    assert "wrote 1 record to records.json" in place.columba("tune", "--export", "records.json")
    assert "removed 1 record" in place.columba("tune", "--clear")
    assert "no records" in place.columba("tune", "--list")
    assert "variant: tuned" not in place.python("explained")
    assert "imported 1 record" in place.columba("tune", "--import", "records.json")
    assert "variant: tuned" in place.python("explained")


def test_tuned_programs_compute_the_same(place: Place) -> None:
    plant(place, json.dumps(DECISION))
    said = place.python("compared")
    assert "the same, by tuned: aggregate_first,-sink_lifts; a saved byte costs 4; tile_rows=7 for 1 kernel" in said


@pytest.mark.parametrize(
    ("decision", "versions", "message"),
    [
        (DECISION, "columba 0.0.1", "was made with columba 0.0.1"),
        ({**DECISION, "passes": "no_such_pass"}, None, "unknown pass 'no_such_pass'"),
        ({**DECISION, "schedules": {"forward": {"out_kernel": {"speed": 7}}}}, None, "has no field speed"),
    ],
)
def test_stale_and_senseless_records_are_ignored(
    place: Place, decision: dict[str, Any], versions: str | None, message: str
) -> None:
    plant(place, json.dumps(decision), versions)
    said = place.python("compared")
    assert "is ignored" in said
    assert message in said
    assert "the same, by" in said
    assert "by tuned" not in said


def test_a_tampered_record_and_a_damaged_database_are_ignored(place: Place) -> None:
    plant(place, json.dumps(DECISION))
    place.sql("update records set decision = replace(decision, '7', '8')")
    said = place.python("compared")
    assert "its checksum does not fit" in said
    assert "by tuned" not in said
    assert "ignored: its checksum" in place.columba("tune", "--list")
    place.database.write_bytes(b"no database any more" * 400)
    said = place.python("compared")
    assert "are damaged" in said
    assert "by tuned" not in said


def test_a_killed_run_goes_on_where_it_was(place: Place) -> None:
    process = place.start("my_model.py", "reporting")
    assert process.stdout is not None
    assert process.stdout.readline() == "measured\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    ((kept,),) = place.sql("select count(*) from trials")
    assert kept >= 1
    assert place.sql("select count(*) from records") == [(0,)]
    *measured, last = place.python("reporting").split("\n")[:-1]
    assert last.split()[0] == "resumed"
    assert int(last.split()[1]) >= kept
    assert last.endswith("complete True")
    assert len(measured) > kept
    assert "variant: tuned" in place.python("explained")


def test_two_tuners_at_once(place: Place) -> None:
    processes = [place.start("-m", "columba.cli", *TUNE) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "ms without tuning" in out
    assert place.sql("pragma integrity_check") == [("ok",)]
    assert place.sql("select count(*) from records") == [(1,)]
    assert "variant: tuned" in place.python("explained")


def test_what_the_command_refuses(place: Place) -> None:
    assert "give MODULE:CALLABLE, or one of" in place.columba("tune", fails=True)
    assert "no duration" in place.columba("tune", "my_model:model", "--budget", "soon", fails=True)
    (place.folder / "bad.json").write_text('{"kind": "something else"}')
    said = place.columba("tune", "--import", "bad.json", fails=True)
    assert "no columba tuning records; nothing was imported" in said
    assert "Traceback" not in said
