"""The benchmarks' harness: peers agree, wrong peers are found out, reports say what was measured."""

from __future__ import annotations

import pytest
import torch

from benchmarks import cases
from benchmarks.ablation import ablation_table, forced
from benchmarks.measure import Measurement, PeerFailed, Result, compare, geometric_mean
from benchmarks.peers import LIBRARIES, applies, build_peer
from benchmarks.report import memory_ratios, report, roofline_ratios, time_ratios
from benchmarks.roofline import work
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


def _measurement(layer: str, edges: int) -> Measurement:
    case = cases.Case(layer, "aifb")
    ours = Result(case, "columba", False, {"infer": 0.010, "train": 0.030}, bytes=10_000_000)
    theirs = Result(case, "compact", False, {"infer": 0.040, "train": 0.090}, bytes=40_000_000)
    pyg = Result(
        case,
        "pyg",
        False,
        {"infer": 0.5, "train": 60.0},
        at_least=["train"],
        comparable=False,
        error="took more than 60 s",
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
    text = report([_measurement("rgcn", 200_000)])
    assert "| rgcn 64 aifb | 8.0 | 10.0 | 1.25 | 40.0 (4.00) | 500.0 (50.00) |" in text
    assert ">60000.0 (>2000.00)" in text
    assert "outputs not compared: pyg (rgcn)" in text
    assert "took more than 60 s" in text
    assert "100 GFLOP/s" in text


def test_the_ablation_names_the_best_recipe() -> None:
    case = cases.Case("rgcn", "aifb")
    results = [Result(case, p, False, {"infer": 0.01 + 0.001 * n}) for n, p in enumerate(reversed(forced()))]
    text = ablation_table([Measurement(case, False, 1, {}, {}, results)])
    assert "10.0*" in text
    assert "within 5 % of the best on 0 of 1 cases" in text


@pytest.mark.parametrize("layer", cases.LAYERS)
def test_training_needs_thrice_the_products(layer: str, graph: Graph) -> None:
    case = cases.Case(layer, "none", features=16)
    infer, train = (work(case, graph, training=t) for t in (False, True))
    assert train.flops == 3 * infer.flops
    assert train.bytes == 2 * infer.bytes
