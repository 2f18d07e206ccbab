"""What can be said of a model on a GPU and a graph that are not there."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import types
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from compiled import PAIRS

import columba
from benchmarks.cases import data_folder, load_graph
from columba.cli.main import main
from columba.codegen.triton import emit
from columba.datasets import PUBLISHED, published, statistics
from columba.inspection.explain import variants_for
from columba.inspection.footprint import footprint
from columba.inspection.inspection import choose, inspection
from columba.inspection.prediction import predict
from columba.inspection.roofline import Gather, KernelCost, plan_costs, total_seconds
from columba.ir.counts import Counts
from columba.ir.spaces import PAIR_SPACES, Space
from columba.ir.types import DType
from columba.nn.samples import sample
from columba.selection.chips import CHIPS, UnknownChip, chip

pytestmark = pytest.mark.unoptimized


RGCN = "columba.nn.samples:rgcn"


# ------------------------------------------------------------------------------------------------ chips


def test_chips() -> None:
    assert list(CHIPS) == ["a100", "h100", "h200", "b200", "mi300x", "rtx4090"]
    for c in CHIPS.values():
        assert c.source
        assert c.fp64 <= c.fp32 <= c.tf32 <= c.half
        assert c.cache < c.memory
        assert c.product_rate(DType.F32) == c.product_rate(DType.F32, "ieee") == c.fp32
        assert c.product_rate(DType.F32, "tf32") == c.tf32
        assert c.product_rate(DType.F32, "tf32x3") == (c.fp32 if c.name == "MI300X" else c.tf32 / 3)
        assert c.product_rate(DType.BF16) == c.half
        assert c.product_rate(DType.F64, "tf32") == c.fp64
    assert chip("RTX 4090") is CHIPS["rtx4090"]
    with pytest.raises(UnknownChip, match="a100, h100"):
        chip("voodoo")


# ------------------------------------------------------------------------------------------------ work and time


def test_a_kernel_takes_the_longer_of_arithmetic_and_bytes() -> None:
    c = chip("h100")
    busy = KernelCost("p", "k", DType.F32, 67e12, 0.0, 8.0, (), 1)
    assert busy.seconds(c) == pytest.approx(1.0 + c.launch)
    assert busy.seconds(c, "tf32") == pytest.approx(67 / 494.5, rel=1e-3)
    moving = KernelCost("p", "k", DType.F32, 0.0, 1.0, 3350e9, (Gather(1e9, 6700e9, 3350e9),), 2)
    assert moving.bytes == 6700e9
    assert moving.seconds(c) == pytest.approx(2.0, rel=1e-3)
    assert moving.seconds(c, cached=False) == pytest.approx(3.0, rel=1e-3)
    waiting = KernelCost("p", "k", DType.F32, 67e3, 0.0, 8.0, (), 2, steps=40)
    assert waiting.seconds(c) == pytest.approx(40 * 0.5e-6 + 2 * 3e-6)
    assert total_seconds([busy, waiting], c) == pytest.approx(busy.seconds(c) + waiting.seconds(c))
    assert total_seconds([waiting] * 3, c) == pytest.approx(3 * 26e-6)
    short = KernelCost("p", "k", DType.F32, 67e3, 0.0, 8.0, (), 2, steps=1)
    assert total_seconds([short] * 3, c) == pytest.approx(6 * 10e-6), "the host launches no faster"
    small = KernelCost("p", "k", DType.F32, 0.0, 0.0, 0.0, (Gather(1e6, 50e6, 1e6),), 1)
    assert small.moved(c) == small.bytes == 1e6


def test_compulsory_bytes_and_operations_of_a_layer() -> None:
    """RGCN in inference by hand: a product a (source, relation) pair, the root's product, and the sum over edges."""
    model, x, graph = sample("rgcn")
    with torch.no_grad():
        compilation = columba.explain(columba.compile(model, passes=PAIRS), x, graph).compilation
    nodes, edges, pairs, relations = 1000, 20000, 6000, 10
    counts = Counts(
        {
            Space.NODE: nodes,
            Space.EDGE: edges,
            Space.SRC_REL: pairs,
            Space.DST_REL: 5000,
            Space.REL: relations,
            Space.NTYPE: 2,
        }
    )
    costs = plan_costs(compilation.plans, counts)
    assert sum(c.products for c in costs) == 2 * 64 * 64 * (pairs + nodes)
    typed = max(costs, key=lambda c: c.products)
    row, weight = 4 * 64, 4 * 64 * 64
    features = row * (pairs + nodes) + weight * relations
    assert features < typed.bytes < 1.1 * features
    aggregation = max(costs, key=lambda c: c.moved(chip("rtx4090")) + c.bytes - c.products)
    assert aggregation.products == 0
    assert sum(g.moved for g in aggregation.gathers) > row * edges
    assert row * (pairs + 2 * nodes) < aggregation.bytes < 1.5 * row * (pairs + 2 * nodes)


def test_predictions_grow_with_the_graph_and_shrink_with_the_chip() -> None:
    model, x, graph = sample("rgat")
    small, large = (
        inspection(model, x, graph, statistics=statistics(name)).prediction for name in ("fb15k", "wikikg2")
    )
    for c in CHIPS.values():
        assert small.seconds(c) < large.seconds(c)
        assert large.seconds(c) <= large.seconds(c, cached=False)
    assert small.footprint.peak < large.footprint.peak
    assert large.seconds(chip("b200")) < large.seconds(chip("h200")) < large.seconds(chip("a100"))


def test_dtype_and_precision_decide_the_rate_of_products() -> None:
    counts = statistics("fb15k").counts()
    made = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        model, x, graph = sample("rgcn", dtype=dtype)
        compilation = columba.explain(columba.compile(model, passes=PAIRS, backend="triton"), x, graph).compilation
        made[dtype] = predict(compilation, counts)
    assert {c.dtype for c in made[torch.bfloat16].costs if c.products} == {DType.BF16}
    assert made[torch.bfloat16].bytes < 0.6 * made[torch.float32].bytes
    assert made[torch.float64].seconds(chip("rtx4090")) > 5 * made[torch.float32].seconds(chip("rtx4090"))


# ------------------------------------------------------------------------------------------------ statistics


def test_published_statistics() -> None:
    assert list(PUBLISHED) == ["aifb", "mutag", "bgs", "am", "mag", "fb15k", "biokg", "wikikg2"]
    for name, found in published().items():
        assert found.source, name
        assert found.method, name
        assert re.match("counted|estimated", found.degrees), name
        assert found.largest_degree is not None
        assert found.rows[Space.EDGE] / found.rows[Space.NODE] < found.largest_degree <= found.rows[Space.EDGE]
        edges, nodes, relations = (found.rows[s] for s in (Space.EDGE, Space.NODE, Space.REL))
        for space in PAIR_SPACES:
            assert relations <= found.rows[space] <= min(edges, nodes * relations), name
            assert found.compaction(space) == found.rows[space] / edges
            assert found.without_compaction().rows[space] == edges


@pytest.mark.parametrize("name", ["fb15k237", "mag10"])
def test_counted_statistics_are_those_of_the_graph(name: str) -> None:
    if not data_folder().is_dir():
        pytest.skip(f"{data_folder()} is not there")
    assert published()[name].pairs == "counted"
    assert load_graph(name).counts() == published()[name].counts()


def test_scaled_statistics_follow_from_the_graph() -> None:
    if not data_folder().is_dir():
        pytest.skip(f"{data_folder()} is not there")
    graph, found = load_graph("aifb"), published()["aifb"]
    assert found.pairs == "scaled"
    for space in PAIR_SPACES:
        assert found.compaction(space) == pytest.approx(graph.count(space) / graph.num_edges, rel=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "no object of counts"),
        ('{"edge": 3, "vertices": 4}', "unknown count 'vertices'"),
        ('{"edge": -3}', "must be a number of rows, got -3"),
        ('{"node": 3}', "number of edges is missing"),
        ('{"edge": 3, "pairs": "guessed"}', "pairs are 'guessed'"),
        ('{"edge": 3, "largest_degree": "many"}', "largest_degree must be a number of edges, got 'many'"),
    ],
)
def test_statistics_files_are_checked(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        statistics(path)


def test_statistics_must_exist() -> None:
    with pytest.raises(ValueError, match="no published graph and no file is called 'nothing'"):
        statistics("nothing")


# ------------------------------------------------------------------------------------------------ memory of published graphs


@pytest.mark.parametrize(
    ("layer", "heads"),
    [("rgcn", 1), ("rgat", 4), ("hgt", 4), *(pytest.param(n, 1, marks=pytest.mark.slow) for n in ("rgat", "hgt"))],
)
def test_no_published_graph_needs_more_than_24_gigabytes_to_train(layer: str, heads: int) -> None:
    """64 features in and out, float32: where published systems ran out of memory."""
    model, x, graph = sample(layer, heads=heads)
    variants, _ = variants_for(model, x, graph)
    for name in PUBLISHED:
        counts = statistics(name).counts()
        _, compilation = choose(variants, counts, chip("rtx4090"))
        found = footprint(compilation, counts)
        assert found.backward is not None
        assert found.peak < 24e9, name


# ------------------------------------------------------------------------------------------------ the command, and explain


def run(*args: str) -> str:
    done = CliRunner().invoke(main, ["inspect", *args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_command_predicts_without_compiling() -> None:
    text = run("columba.nn.samples:hgt", "--stats", "biokg", "--predict", "--chip", "mi300x")
    assert "µs, MI300X" in text
    assert "registers" not in text
    for c in CHIPS.values():
        assert c.name in text
    assert "none was measured" in text


def test_command_reports_everything_as_json(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    path.write_text(json.dumps({"node": 50, "edge": 400, "rel": 2, "ntype": 2, "src_rel": 90, "dst_rel": 80}))
    both = [json.loads(run(RGCN, "--stats", str(path), "--predict", "--json", *more)) for more in ([], ["--inference"])]
    training, inference = both
    assert training["counts"] == {
        "one": 1, "graph": 1, "node": 50, "edge": 400, "rel": 2, "ntype": 2, "src_rel": 90, "dst_rel": 80,
    }  # fmt: skip
    assert set(training["seconds"]) == set(training["seconds_uncached"]) == set(CHIPS)
    assert training["memory"]["peak"] > inference["memory"]["peak"] > 0
    assert training["flops"] == sum(k["product_flops"] + k["pointwise_flops"] for k in training["kernels"])
    assert training["bytes"] == sum(k["bytes"] for k in training["kernels"])
    for name in CHIPS:
        device = sum(k["seconds"][name] for k in training["kernels"])
        launches = sum(k["launches"] for k in training["kernels"])
        assert training["seconds"][name] == pytest.approx(max(device, launches * CHIPS[name].host))
    assert {k["plan"] for k in inference["kernels"]} == {"RGCNConv"}
    assert training["functions"] == []


@pytest.mark.slow
def test_command_compiles_for_the_chip_and_joins_both_tables() -> None:
    pytest.importorskip("triton")
    found = json.loads(run(RGCN, "--inference", "--stats", "fb15k", "--chip", "a100", "--json"))
    assert {f["target"] for f in found["functions"]} == {"sm_80"}
    kernels = {(k["plan"], k["kernel"]): k["launches"] for k in found["kernels"]}
    for key, launches in kernels.items():
        assert sum((f["plan"], f["step"]) == key for f in found["functions"]) == launches
    assert all(0 < f["occupancy"] <= 1 for f in found["functions"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chip", "voodoo"], "no chip 'voodoo' is known"),
        (["--stats", "nothing"], "no published graph and no file"),
        (["--target", "pascal"], "sm_90"),
    ],
)
def test_command_errors(options: list[str], message: str) -> None:
    done = CliRunner().invoke(main, ["inspect", RGCN, *options])
    assert done.exit_code == 2
    assert message in done.output


def test_command_names_a_missing_count(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    path.write_text('{"edges": 7}')
    done = CliRunner().invoke(main, ["inspect", RGCN, "--predict", "--stats", os.fspath(path)])
    assert done.exit_code == 2
    assert "rows is not given" in done.output


def test_explain_has_the_table() -> None:
    model, x, graph = sample("rgcn", features=16)
    explanation = columba.explain(model, x, graph)
    table = explanation.gpu("b200")
    assert table == predict(explanation.compilation, graph.counts_and_degrees()).table(chip("b200"))
    assert "=== GPU ===" in str(explanation)
    assert explanation.gpu("h100") in str(explanation)
    for kernel in explanation.kernels:
        assert kernel.name in table


# ------------------------------------------------------------------------------------------------ the page


def page_generator() -> types.ModuleType:
    path = Path(__file__).parents[2] / "docs" / "generate_gpu.py"
    spec = importlib.util.spec_from_file_location("generate_gpu", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_current() -> None:
    """One layer's tables, and what needs no compilation: the whole page takes half a minute to make."""
    module = page_generator()
    text = module.PAGE.read_text(encoding="utf-8")
    checked = ("chips", "graphs", "rgcn", "rgcn beside")
    assert module.rendered(text, checked) == text, "docs/gpu.md is out of date; run: python docs/generate_gpu.py"
    assert {m["name"] for m in module.SECTION.finditer(text)} == {*module.PREDICTED, *module.COMPILED}


def test_page_names_the_functions_that_are_compiled() -> None:
    """Binaries are too slow to make here; that they are of today's kernels is told by the names."""
    module = page_generator()
    text = module.PAGE.read_text(encoding="utf-8")
    section = next(m[0] for m in module.SECTION.finditer(text) if m["name"] == "rgcn resources")
    emitted = emit(module.compiled("rgcn", "fb15k", True).plans)
    names = [launch.function for steps in emitted.steps.values() for step in steps for launch in step.launches]
    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == names, (
        "docs/gpu.md is out of date; run: python docs/generate_gpu.py --resources"
    )
