"""``columba tune`` without a model: listing, clearing, exporting and importing records; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from columba.cli import main
from columba.cli.graphs import load_graph
from columba.tuning.cases import device_name, versions
from columba.tuning.decisions import BadDecision, Decision, parse_decision
from columba.tuning.records import Case, Records, TuningRecord, database, to_json

HERE = Case("Layer", "0123", "x", "node<2^4", "f32", device_name(torch.device("cpu")), "cpp")
DECISION = str(Decision("aggregate_first", 1.0, {("forward", "out_kernel"): {"pieces": 8}}))
MADE = "2026-01-01T00:00:00+00:00"
USED = TuningRecord(HERE, versions(), DECISION, 0.25, 0.5, MADE, True)
STALE = TuningRecord(Case(**{**vars(HERE), "name": "Old"}), "columba 0.0.1", DECISION, 0.25, 0.5, MADE, True)
FOREIGN = TuningRecord(Case(**{**vars(HERE), "device": "another CPU"}), versions(), DECISION, 0.25, 0.5, MADE, True)
SENSELESS = TuningRecord(Case(**{**vars(HERE), "name": "Odd"}), versions(), "{}", 0.25, 0.5, MADE, True)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("COLUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "250")
    return tmp_path


def tune(*args: str) -> Result:
    return CliRunner().invoke(main, ["tune", *args])


def test_list(cache: Path) -> None:
    assert "no records in" in tune("--list").output
    Records().save([USED, STALE, FOREIGN, SENSELESS])
    lines = tune("--list").output.splitlines()
    (used,) = [line for line in lines if line.rstrip().endswith("used")]
    assert "Layer" in used
    assert "250.000" in used
    text = "\n".join(lines)
    assert "ignored: made with columba 0.0.1" in text
    assert "for another CPU" in text
    assert "ignored: a decision has the fields" in text


EVIL = "\x1b]0;title\x07[/b][link=http://x]:smile:\r\u202e\n"


def test_names_of_others_are_shown_as_they_are(cache: Path) -> None:
    """Neither the markup of tables nor the escapes of terminals mean anything in them."""
    fields = {
        "name": EVIL,
        "graph": "[/]" + EVIL,
        "dtype": "[bold]",
        "device": EVIL,
        "backend": EVIL,
        "gradients": EVIL,
    }
    decision = json.dumps({"passes": "", "price": 1.0, "schedules": {"forward": {EVIL: {EVIL: 3}}}})
    evil = TuningRecord(Case(**{**vars(HERE), **fields}), EVIL, decision, 0.25, 0.5, EVIL, True)
    path = cache / "records.json"
    path.write_text(to_json([evil, TuningRecord(HERE, versions(), decision, 0.25, 0.5, MADE, True)]))
    assert "imported 2 records" in tune("--import", str(path)).output
    result = tune("--list")
    assert result.exit_code == 0
    shown = "".join(result.output.split())
    for text in ("[/b]", "[link=http://x]", ":smile:", "[bold]", "[/]"):
        assert text in shown
    assert {c for c in result.output if not c.isprintable()} == {"\n"}
    for number, text in enumerate(("{" * 5, evil.case.name, "[" * 5000)):
        path.write_text(
            to_json(
                [TuningRecord(Case(**{**vars(HERE), "name": f"{number}{EVIL}"}), EVIL, text, 0.25, 0.5, EVIL, True)]
            )
        )
        result = tune("--import", str(path))
        assert result.exit_code == 1
        assert "nothing was imported" in result.output
        assert {c for c in result.output if not c.isprintable()} <= {"\n"}
    assert len(Records().all()) == 2


def test_decisions_that_are_nested(cache: Path) -> None:
    nested: object = 1
    for _ in range(300):
        nested = {"kind": "degree", "cases": [[None, nested]]}
    for content in ({"passes": "", "price": 1.0, "schedules": {"forward": {"k": nested}}}, [nested]):
        with pytest.raises(BadDecision, match="nested too deeply"):
            parse_decision(json.dumps(content))
    with pytest.raises(BadDecision, match="nested too deeply"):
        parse_decision("[" * 100_000)


def test_export_clear_import(cache: Path) -> None:
    Records().save([USED, STALE])
    path = cache / "records.json"
    assert tune("--export", str(path)).output == f"wrote 2 records to {path}\n"
    assert "removed 2 records" in tune("--clear").output
    assert Records().all() == []
    said = tune("--import", str(path)).output
    assert f"imported 2 records from {path}; 1 of them, made with other versions, will be ignored" in said
    assert sorted(Records().all(), key=str) == sorted([USED, STALE], key=str)


def test_nothing_is_imported_of_a_file_with_a_bad_record(cache: Path) -> None:
    path = cache / "records.json"
    content = json.loads(to_json([USED, STALE]))
    content["records"][1]["seconds"] = 1e-9
    path.write_text(json.dumps(content))
    result = tune("--import", str(path))
    assert result.exit_code == 1
    assert "checksum does not fit what it says; nothing was imported" in result.output
    path.write_text(to_json([USED, SENSELESS]))
    result = tune("--import", str(path))
    assert result.exit_code == 1
    assert (
        "record 2 (Odd): a decision has the fields passes, price and schedules; nothing was imported" in result.output
    )
    assert Records().all() == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "give MODULE:CALLABLE, or one of"),
        (("--list", "--clear"), "give MODULE:CALLABLE, or one of"),
        (("m:f", "--list"), "give MODULE:CALLABLE, or one of"),
        (("m:f", "--budget", "soon"), "'soon' is no duration; write 30s or 2m"),
        (("m:f", "--budget", "0s"), "is no duration"),
        (("no_such_module:f",), "cannot import no_such_module"),
        (("m:f", "--graph", "nowhere"), "'nowhere' is neither"),
        (("m:f", "--graph", "am:x"), "am:x: could not convert"),
        (("--import", "missing.json"), "does not exist"),
    ],
)
def test_what_it_refuses(args: tuple[str, ...], message: str) -> None:
    result = tune(*args)
    assert result.exit_code == 2
    assert message in result.output


def test_a_database_that_cannot_be_written_is_named(cache: Path) -> None:
    (cache / "records.json").write_text(to_json([USED]))
    database().mkdir(parents=True)
    result = tune("--import", str(cache / "records.json"))
    assert result.exit_code == 1
    assert "cannot be used" in result.output


def test_graphs_by_name(cache: Path) -> None:
    published = load_graph("am:0.001")
    assert published.num_edges > 0
    triples = cache / "triples.txt"
    triples.write_text("0 1 0\n1 2 1\n")
    assert load_graph(str(triples)).num_nodes == 3
