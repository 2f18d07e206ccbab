"""The benchmarks' harness: peers agree, wrong peers are found out, reports say what was measured."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import cases
from benchmarks.__main__ import main
from benchmarks.ablation import ablation_table, distances, forced, verdict
from benchmarks.markdown import fill
from benchmarks.measure import PeerFailed, compare
from benchmarks.peers import LIBRARIES, applies, build_peer
from benchmarks.recipes import RECIPES
from benchmarks.records import Measurement, Overhead, Record, Result, append, geometric_mean, load
from benchmarks.report import memory_ratios, report, roofline_ratios, sections, time_ratios
from benchmarks.roofline import work
from benchmarks.tuning import Tuned
from columba import Graph, datasets
from columba.datasets import Statistics


@pytest.fixture(scope="module")
def graph() -> Graph:
    return datasets.synthetic(Statistics(nodes=60, edges=400, relations=7, node_types=3)).graph


@pytest.mark.parametrize("layer", cases.LAYERS)
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("peer", ["compact", "folded", "plain", "pyg", "pyg-fast"])
def test_peers_that_claim_so_compute_the_same(layer: str, heads: int, peer: str, graph: Graph) -> None:
    case = cases.Case(layer, "none", features=16, heads=heads)
    if not applies(peer, case):
        pytest.skip("has no such layer")
    if peer.startswith("pyg"):
        pytest.importorskip("torch_geometric")
    model = cases.make_layer(case, graph)
    built = build_peer(peer, case, model, graph)
    x = cases.make_input(case, graph).requires_grad_()
    weight = torch.randn(graph.num_nodes, 16, generator=torch.Generator().manual_seed(2))
    wanted = model(x, graph)
    expected = torch.autograd.grad((wanted * weight).sum(), [x, *model.parameters()])
    got = built.call(x)
    assert got.shape == wanted.shape
    if not built.comparable:
        assert peer in LIBRARIES
        return
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
    shared = [n for n, p in enumerate(model.parameters()) if any(p is q for q in built.parameters)]
    found = torch.autograd.grad((got * weight).sum(), [x, *(list(model.parameters())[n] for n in shared)])
    for e, f in zip([expected[0], *(expected[n + 1] for n in shared)], found, strict=True):
        torch.testing.assert_close(f, e, atol=1e-4, rtol=1e-4)


def test_a_peer_with_other_results_is_refused() -> None:
    compare([[4.0, 1.0], []], [[4.001, 1.0], [9.0, 9.0]])
    with pytest.raises(PeerFailed, match="tensor 1"):
        compare([[4.0, 1.0], [2.0, 0.5]], [[4.0, 1.0], [2.0, 0.6]])
    with pytest.raises(PeerFailed, match="tensor 0"):
        compare([[4.0, 1.0]], [[float("nan"), 1.0]])


OURS = {"infer": 0.010, "train": 0.030}


def _measurement(layer: str, edges: int) -> Measurement:
    case = cases.Case(layer, "aifb")
    beside = {"beside": OURS, "beside_bytes": 10_000_000}
    ours = Result("columba", OURS, bytes=10_000_000, **beside)
    theirs = Result("compact", {"infer": 0.040, "train": 0.090}, bytes=40_000_000, **beside)
    pyg = Result(
        "pyg",
        {"infer": 0.5, "train": 60.0},
        at_least=["train"],
        comparable=False,
        error="took more than 60 s",
        **beside,
    )
    roofline = {"infer": 0.008, "train": 0.02}
    return Measurement(case, False, edges, {"flops": 1e11, "bandwidth": 2e10}, roofline, [ours, theirs, pyg])


def test_ratios_are_of_what_was_measured() -> None:
    found = [_measurement("rgcn", 200_000), _measurement("rgat", 1_000)]
    assert time_ratios(found, "compact", "infer") == pytest.approx([4, 4])
    assert roofline_ratios(found, "train") == pytest.approx([1.5])
    assert memory_ratios(found, libraries=False) == pytest.approx([0.25, 0.25])
    assert memory_ratios(found, libraries=True) == []
    assert geometric_mean([2, 8]) == pytest.approx(4)


def test_the_report_says_what_was_cut_off_and_what_was_not_compared() -> None:
    text = report(Record([_measurement("rgcn", 200_000)]))
    assert "| RGCN, AIFB | 8.0 | 10.0 | 1.25 | 40.0 (4.00) |" in text
    assert ">60,000.0 (>2000.00)" in text
    assert "outputs not compared: pyg (rgcn)" in text
    assert "took more than 60 s" in text
    assert "100 GFLOP/s" in text


def test_runs_of_one_case_are_merged_and_ratios_stay_those_of_their_run() -> None:
    first, second = _measurement("rgcn", 200_000), _measurement("rgcn", 200_000)
    faster = {"infer": 0.005, "train": 0.010}
    second.roofline = {"infer": 0.004, "train": 0.008}
    second.results = [Result("columba", faster, beside=faster), Result("dgl", {"infer": 0.5}, beside=faster)]
    for order in ([first, second], [second, first]):  # what is beside hand-written peers counts
        (merged,) = Record(order).cases()
        assert {r.peer for r in merged.results} == {"columba", "compact", "pyg", "dgl"}
        assert time_ratios([merged], "compact", "infer") == pytest.approx([4])
        assert time_ratios([merged], "dgl", "infer") == pytest.approx([100])
        assert merged.of("columba").seconds == OURS
        assert merged.roofline == first.roofline
    later = _measurement("rgcn", 200_000)
    later.results = [Result("columba", faster, beside=faster), Result("compact", {"infer": 0.01}, beside=faster)]
    (merged,) = Record([first, second, later]).cases()
    assert merged.of("columba").seconds == faster
    assert time_ratios([merged], "compact", "infer") == pytest.approx([2])


def _ablation(seconds: list[float]) -> Measurement:
    results = [Result(p, {"infer": s}) for p, s in zip(forced(), seconds, strict=True)]
    return Measurement(cases.Case("rgcn", "aifb"), False, 1, {}, {}, results)


def test_the_ablation_names_the_best_recipe_and_how_near_the_choice_is() -> None:
    measured = _ablation([0.013, 0.015, 0.010, 0.014, 0.012, 0.011])
    text = ablation_table([measured])
    assert "| 13.0 | 15.0 | 10.0* | 14.0 | 12.0 | 11.0 | 1.30 |" in text
    assert "in 0 of 1 (0 %" in text
    assert "which is over 1.20" in text
    assert distances([measured], "train") == {}
    assert "in 1 of 1 (100 %" in verdict([_ablation([0.0104, 0.015, 0.010, 0.014, 0.012, 0.011])])


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    written = [_measurement("hgt", 5), Overhead("small call", "hgt", "infer", "columba", 2.5e-5, beside=5e-5)]
    for item in written:
        append(path, item)
    record = load([path])
    assert record == Record([written[0]], [written[1]])
    path.write_text(path.read_text() + '{"kind": "case"}\n')
    with pytest.raises(ValueError, match="records.jsonl:3"):
        load([path])


def test_only_the_sections_that_there_are_can_be_filled() -> None:
    text = fill("a\n<!-- begin x -->\nold\n<!-- end -->\nb\n", {"x": "new"})
    assert text == "a\n<!-- begin x -->\nnew\n<!-- end -->\nb\n"
    assert fill(text, {"x": "new", "y": ""}) == text
    with pytest.raises(ValueError, match="sections x"):
        fill(text, {"y": ""})


def test_suites() -> None:
    found = cases.cases("standard")
    assert len(found) == len(set(found)) == 40
    assert {c.graph for c in found} == set(cases.GRAPHS)
    assert {(c.features, c.heads) for c in found} == {(f, h) for f in (32, 64, 128) for h in (1, 4)}
    assert all(c.heads == 1 for c in found if c.layer == "rgcn")
    assert cases.cases("quick", layers=["hgt"], graphs=["am"]) == [cases.Case("hgt", "am")]
    assert cases.cases(graphs=["tiny"], layers=["rgat"], features=[8], heads=[2]) == [cases.Case("rgat", "tiny", 8, 2)]


def _run(*args: str) -> str:
    result = CliRunner().invoke(main, args, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_from_the_command_to_the_document(tmp_path: Path) -> None:
    """Real processes on a graph of no interest: they agree, and table, JSON lines and pictures come out."""
    records, document = tmp_path / "records.jsonl", tmp_path / "document.md"
    common = ("--out", str(records), "--graphs", "tiny", "--features", "8", "--heads", "1", "--rounds", "1")
    text = _run(*common, "--layers", "rgcn", "--peers", "compact")
    assert "RGCN, tiny" in text
    (measured,) = load([records]).measurements
    assert [r.peer for r in measured.results] == ["columba", "compact"]
    for result in measured.results:
        assert not result.error
        assert result.comparable
        assert result.bytes > 0
        assert set(result.seconds) == set(result.beside) == {"infer", "train"}
        assert all(len(runs) == 3 for runs in result.runs.values())
    assert measured.limits["flops"] > 0
    assert "PyTorch" in measured.machine

    document.write_text("".join(f"<!-- begin {name} -->\n<!-- end -->\n" for name in sections(Record())))
    pytest.importorskip("matplotlib")
    _run("report", str(records), "--into", str(document), "--images", str(tmp_path))
    assert "| RGCN, tiny, 8 features |" in document.read_text()
    for name in ("speedup", "memory"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_ablation_and_overheads_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.ablation.RECIPES", {n: RECIPES[n] for n in ("chosen", "none", "both")})
    monkeypatch.setattr("benchmarks.overheads.STARTS", 1)
    records = tmp_path / "records.jsonl"
    common = ("--out", str(records), "--graphs", "tiny", "--features", "8", "--heads", "1", "--layers", "rgat")
    text = _run(*common, "--rounds", "1", "ablation")
    assert "at most 1.05 times" in text
    (measured,) = load([records]).ablations()
    assert [r.peer for r in measured.results] == ["columba:chosen", "columba:none", "columba:both"]
    assert not any(r.error for r in measured.results)
    assert measured.of("columba:none").same_as != {"infer": "columba:both", "train": "columba:both"}
    text = _run(*common, "--peers", "columba", "overheads", "--graph", "tiny", "--modes", "infer")
    found = load([records]).overheads
    assert {o.what for o in found} == {"first call", "small call", "preparation"}
    assert {o.state for o in found if o.what == "first call"} == {"cold", "cached"}
    assert not any(o.error for o in found)
    assert "Columba, cold" in text


def test_the_document_shows_what_its_record_holds() -> None:
    """``benchmarks report`` has been run as docs/performance.md says."""
    docs = Path(__file__).parents[2] / "docs"
    shown = sections(load([docs / "performance.jsonl"]))
    for document in (docs.parent / "README.md", docs / "performance.md"):
        text = document.read_text(encoding="utf-8")
        assert fill(text, shown) == text
    text = (docs / "performance.md").read_text(encoding="utf-8")
    for image in re.findall(r"\]\((images/[^)]+)\)", text):
        assert (docs / image).stat().st_size < 200_000


@pytest.mark.parametrize("layer", cases.LAYERS)
def test_training_needs_thrice_the_products(layer: str, graph: Graph) -> None:
    case = cases.Case(layer, "none", features=16)
    infer, train = (work(case, graph, training=t) for t in (False, True))
    assert train.flops == 3 * infer.flops
    assert train.bytes == 2 * infer.bytes


@pytest.mark.parametrize("command", ["ablation", "overheads", "report", "tuning"])
def test_commands_say_what_they_do(command: str) -> None:
    help_text = _run("--help")
    assert re.search(rf"^  {command} +\w", help_text, re.MULTILINE)
    assert f"main {command} [OPTIONS]" in _run(command, "--help")


def test_the_table_of_tuning(tmp_path: Path) -> None:
    """The last record of a case counts; what is 5 % faster, the mean and the worst case are named."""
    records = tmp_path / "tuning.jsonl"
    cases_of = [("a", "train", 1.0, 0.0), ("a", "train", 0.8, 0.01), ("b", "infer", 1.25, 0.02)]
    tuned = [Tuned(c, mode, 10.0, 10 * ratio, ratio, noise, 30, 12, True, "x") for c, mode, ratio, noise in cases_of]
    records.write_text("".join(json.dumps(asdict(t)) + "\n" for t in tuned))
    text = _run("tuning", "--report", str(records))
    assert "| a | train | 10.00 | 8.00 | 0.800 ± 0.010 | 30 | x |" in text
    assert "1 of 2 cases are at least 5 % faster; 1.000 times the default" in text
    assert "at worst 1.250 ± 0.020 (b, infer)" in text
