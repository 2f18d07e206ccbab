"""The database of tuning records: what is stored is found again, and what is damaged is not trusted."""

from __future__ import annotations

import json
import sqlite3
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from columba.tuning.records import Case, Damaged, Records, RecordsError, Trial, TuningRecord, from_json, to_json

CASE = Case("Layer", "0123", "x,weight", "node<2^4", "f32", "a processor", "cpp")
DECISION = '{"passes": "", "price": 1.0, "schedules": {}}'
RECORD = TuningRecord(CASE, "columba 1", DECISION, 0.25, 0.5, "2026-01-01T00:00:00+00:00", True)
TRIAL = Trial("{}", DECISION, 0.25, 0.5, 0.01, "{}")


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "cache" / "tuning.sqlite3")


def test_nothing_is_made_by_looking(records: Records) -> None:
    assert records.all() == []
    assert records.find("0123", "x,weight", "a processor", "cpp") == []
    assert records.trials(CASE, "columba 1") == {}
    assert records.clear() == 0
    assert not records.path.exists()


def test_records_are_found_by_program_and_device(records: Records) -> None:
    larger = replace(RECORD, case=replace(CASE, graph="node<2^5"))
    others = [
        replace(RECORD, case=replace(CASE, **{f: "other"})) for f in ("program", "gradients", "device", "backend")
    ]
    records.save([RECORD, larger, *others])
    found = Records(records.path).find("0123", "x,weight", "a processor", "cpp")
    assert sorted(found, key=str) == sorted([RECORD, larger], key=str)
    assert len(records.all()) == 6


def test_a_newer_record_replaces_the_older_one(records: Records) -> None:
    newer = replace(RECORD, versions="columba 2", seconds=0.125, complete=False)
    records.save([RECORD])
    records.save([newer])
    assert records.all() == [newer]


def test_trials_are_kept_by_case_and_versions(records: Records) -> None:
    other = replace(TRIAL, candidate="other")
    records.save_trials(CASE, "columba 1", [TRIAL])
    records.save_trials(CASE, "columba 1", [other, replace(TRIAL, ratio=0.75)])
    found = records.trials(CASE, "columba 1")
    assert found == {("{}", DECISION): replace(TRIAL, ratio=0.75), ("{}", "other"): other}
    assert records.trials(CASE, "columba 2") == {}
    assert records.trials(replace(CASE, graph="another"), "columba 1") == {}
    records.forget_trials(CASE)
    assert records.trials(CASE, "columba 1") == {}


def test_clearing(records: Records) -> None:
    records.save([RECORD, replace(RECORD, case=replace(CASE, name="Other"))])
    records.save_trials(CASE, "columba 1", [TRIAL])
    assert records.clear() == 2
    assert records.all() == []
    assert records.trials(CASE, "columba 1") == {}


def execute(records: Records, statement: str, *values: Any) -> None:
    connection = sqlite3.connect(records.path)
    with connection:
        connection.execute(statement, values)
    connection.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("decision", DECISION.replace("1.0", "2.0")),
        ("seconds", 0.125),
        ("versions", "columba 2"),
        ("graph", "node<2^5"),
        ("complete", 0),
        ("checksum", "0" * 64),
        ("checksum", None),
        ("case_key", "0" * 64),
        ("made", None),
        ("seconds", "soon"),
    ],
)
def test_a_record_that_was_changed_is_damaged(records: Records, column: str, value: Any) -> None:
    records.save([RECORD])
    execute(records, f"update records set {column} = ?", value)
    (found,) = records.all()
    assert isinstance(found, Damaged)
    assert "checksum" in found.reason


@pytest.mark.parametrize("column", ["name", "versions", "made", "decision"])
@pytest.mark.parametrize("value", [b"\xff", b"text", None], ids=str)
def test_a_record_that_holds_no_text_is_damaged(records: Records, column: str, value: object) -> None:
    records.save([RECORD, replace(RECORD, case=replace(CASE, name="Sound"))])
    with sqlite3.connect(records.path) as connection:
        connection.execute(f"update records set {column} = ? where name = 'Layer'", (value,))
        connection.execute(
            f"update records set {column} = cast({column} as text) where name = 'Layer' and ? = x'ff'", (value,)
        )
    first, second = sorted(records.all(), key=lambda r: isinstance(r, Damaged))
    assert isinstance(first, TuningRecord)
    assert first.case.name == "Sound"
    assert isinstance(second, Damaged)


def test_a_trial_that_was_changed_is_forgotten(records: Records) -> None:
    records.save_trials(CASE, "columba 1", [TRIAL])
    execute(records, "update trials set ratio = 0.1")
    assert records.trials(CASE, "columba 1") == {}


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_file_that_is_no_database_is_moved_aside(records: Records, content: bytes) -> None:
    records.path.parent.mkdir(parents=True)
    records.path.write_bytes(content)
    with pytest.warns(RuntimeWarning, match=r"are damaged .* moved to tuning.sqlite3.damaged-1"):
        assert records.all() == []
    assert records.path.with_name("tuning.sqlite3.damaged-1").read_bytes() == content
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records.save([RECORD])
        assert records.all() == [RECORD]


def test_a_database_with_flipped_bytes_is_never_a_crash(records: Records) -> None:
    records.save([replace(RECORD, case=replace(CASE, graph=f"node<2^{n}")) for n in range(200)])
    content = bytearray(records.path.read_bytes())
    for at in range(4096, len(content), 512):
        content[at : at + 16] = b"\xff" * 16
    records.path.write_bytes(bytes(content))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = records.all()
        assert all(r.versions == RECORD.versions for r in found if isinstance(r, TuningRecord))
        records.save([RECORD])
        assert RECORD in records.all()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    records = Records(tmp_path / "file" / "tuning.sqlite3")
    with pytest.raises(RecordsError, match="cannot be used"):
        records.save([RECORD])


def test_many_writers(records: Records) -> None:
    """Threads with connections of their own stand for processes."""

    def write(n: int) -> None:
        mine = Records(records.path)
        for k in range(10):
            mine.save_trials(CASE, "columba 1", [replace(TRIAL, candidate=f"{n} {k}")])
        mine.save([replace(RECORD, case=replace(CASE, name=str(n)))])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(records.trials(CASE, "columba 1")) == 40
    assert sorted(r.case.name for r in records.all() if isinstance(r, TuningRecord)) == ["0", "1", "2", "3"]


# ------------------------------------------------------------------------------------------------ exported files


def test_exported_records_read_back() -> None:
    many = [RECORD, replace(RECORD, case=replace(CASE, name="Other"), complete=False)]
    assert from_json(to_json(many)) == many
    assert to_json(from_json(to_json(many))) == to_json(many)


def changed(**fields: Any) -> str:
    content = json.loads(to_json([RECORD]))
    content["records"][0].update(fields)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no columba tuning records"),
        ('{"kind": "something else"}', "no columba tuning records"),
        ('{"kind": "columba tuning records", "format": 99, "records": []}', "format 99"),
        ('{"kind": "columba tuning records", "format": 1}', "no list of records"),
        ('{"kind": "columba tuning records", "format": 1, "records": [7]}', "record 1 must have the fields"),
        (changed(more=1), "record 1 must have the fields"),
        (changed(case={}), "its case must have the fields"),
        (changed(decision=7), "decision must be a string"),
        (changed(seconds=-1.0), "seconds must be a positive number"),
        (changed(default="1"), "default must be a positive number"),
        (changed(complete=1), "complete must be true or false"),
        ("[" * 100_000, "nested too deeply"),
        (changed(versions="\ud800"), "record 1: versions has half of a surrogate pair in it"),
        (changed(case={**vars(CASE), "name": "\udfff"}), "record 1: name has half of a surrogate pair in it"),
        (changed(checksum="\ud800"), "record 1: checksum has half of a surrogate pair in it"),
        (changed(seconds=0.001), "record 1 (Layer): its checksum does not fit"),
    ],
)
def test_files_that_are_not_imported(text: str, message: str) -> None:
    with pytest.raises(RecordsError) as raised:
        from_json(text)
    assert message in str(raised.value)
