"""The benchmark of PyG's layers: what it measures, and how it tells."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch_geometric.nn import GCNConv, HGTConv

from benchmarks import pyg_worker
from benchmarks.pyg import Measurement, Result, cases, report
from benchmarks.pyg_worker import PygCase, Worker, build
from benchmarks.worker import PROCESSOR_TIME, timed
from tests.frontend.pyg.coverage import SMALL


def test_cases() -> None:
    found = cases([], ["aifb", "random"])
    assert [str(c) for c in found[:4]] == ["RGCNConv aifb", "FastRGCNConv aifb", "RGATConv aifb", "HGTConv aifb"]
    assert PygCase("GCNConv") in found
    assert PygCase("RGCNConv") not in found
    assert cases(["GATConv"], ["aifb", "random"]) == [PygCase("GATConv")]
    assert cases(["HANConv"], ["dblp", "paths", "small"]) == [PygCase("HANConv", "paths"), PygCase("HANConv", "small")]
    assert PygCase("HeteroConv of SAGEConv", "dblp") in cases([], ["random", "dblp"])


def test_processor_time_is_what_the_process_itself_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROCESSOR_TIME, raising=False)
    assert timed(lambda: time.sleep(0.05), "cpu") >= 0.05
    monkeypatch.setenv(PROCESSOR_TIME, "1")
    assert timed(lambda: time.sleep(0.05), "cpu") < 0.05


def test_models_are_the_same_in_every_process() -> None:
    """Each model runs on its graphs, and has results that are compared."""
    for case in cases([], ["small", "paths"]):
        (a, args), (b, others) = build(case), build(case)
        torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=0, atol=0)
        torch.testing.assert_close(args, others, rtol=0, atol=0)
    prints = Worker("eager", PygCase("to_hetero of GATConv", "small")).answer("check")["prints"]
    assert len(prints) == 1 + 4 + 7 * 2 * 5  # the result, tables, and of each layer two weights, two vectors and a bias
    assert all(len(p) == 2 for p in prints)


def test_layers_are_the_same_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyg_worker, "HOMOGENEOUS", replace(SMALL, dtype=torch.float32))
    for case, kind in ((PygCase("GCNConv"), GCNConv), (PygCase("HGTConv", "tiny", features=8), HGTConv)):
        (a, args), (b, others) = build(case), build(case)
        assert isinstance(a, kind)
        torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=0, atol=0)
        torch.testing.assert_close(args, others, rtol=0, atol=0)
    worker = Worker("eager", PygCase("GCNConv"))
    prints = worker.answer("check")["prints"]
    assert len(prints) == 1 + 2 + 2  # the result, x and edge_weight, weight and bias
    assert all(len(p) == 2 for p in prints)
    assert Worker("eager", PygCase("GCNConv")).answer("check")["prints"] == prints
    assert len(worker.answer("train", warm=1, runs=3)["seconds"]) == 3
    assert worker.answer("memory")["bytes"] > 0


def measured(case: PygCase, eager: dict[str, float], ours: dict[str, float], **more: Any) -> Measurement:
    results = [Result("eager", eager, 400), Result("columba", ours, 100, runs="compiled", **more)]
    return Measurement(case, results)


def test_report() -> None:
    text = report(
        [
            measured(PygCase("RGCNConv", "aifb"), {"infer": 1.0, "train": 8.0}, {"infer": 0.1, "train": 0.4}),
            measured(PygCase("GCNConv"), {"infer": 0.02, "train": 0.08}, {"infer": 0.01, "train": 0.04}),
            measured(PygCase("GATConv"), {"infer": 0.01, "train": 0.18}, {"infer": 0.02, "train": 0.02}),
            measured(PygCase("SAGEConv"), {"infer": 0.01}, {}, error="differs in tensor 0"),
            measured(PygCase("HANConv", "small"), {"infer": 0.01}, {"infer": 0.002}),
        ],
        ("eager", "columba"),
    )
    assert "| RGCNConv aifb | 100.00 | 400.00 | 10.00 | 20.00 | 4.00 |  |" in text
    assert "| GATConv random | 20.00 | 20.00 | 0.50 | 9.00 | 4.00 | slower than eager (inference) |" in text
    assert "| SAGEConv random |  |  |  |  | 4.00 | columba: differs in tensor 0 |" in text
    assert "| geometric mean |  |  | 1.00 | 4.24 | 4.00 |  |" in text
    assert "### Heterogeneous models\n" in text
    assert "| HANConv small | 2.00 |  | 5.00 |  | 4.00 |  |" in text
