"""The cost model: work read from plans, rates of the machine, and the choice among variants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import columba
from columba.driver import compile_program
from columba.inspection.explain import variants_for
from columba.ir.counts import Counts
from columba.ir.plan.plan import Plan
from columba.ir.program.parsing import parse_program
from columba.ir.spaces import Space
from columba.nn import HGTConv, RGATConv, RGCNConv
from columba.nn.samples import sample
from columba.runtime import cache
from columba.selection import rates as rates_module
from columba.selection import variants as variants_module
from columba.selection.chips import CHIPS, chip_of
from columba.selection.cost import LinearCosts, formula_seconds, plan_seconds
from columba.selection.rates import Rates, forget_rates, known_rates, machine_rates, rates_of
from columba.selection.variants import Variants, parse_choices, recipe_of, recipes_for
from columba.selection.work import WorkFormula, kernel_work

pytestmark = pytest.mark.unoptimized

RATES = Rates(products=1e11, pointwise=1e10, streamed=3e10, near=6e10, far=2e10, start=1e-5, cache=2**24)


def graph(nodes: int, edges: int, relations: int, seed: int = 0) -> columba.Graph:
    generator = torch.Generator().manual_seed(seed)
    return columba.Graph(
        torch.randint(nodes, (2, edges), generator=generator),
        torch.randint(relations, (edges,), generator=generator),
        num_nodes=nodes,
        num_relations=relations,
        node_type=torch.randint(2, (nodes,), generator=generator),
        num_node_types=2,
    )


def test_work_of_a_product_and_of_a_sum() -> None:
    program = parse_program("""program f(%x: node[8] f32, %w: rel[8,4] f32) {
      %0: src_rel[8] f32 = lift(%x, via=src:src_rel->node)
      %1: src_rel[4] f32 = linear(%0, %w, via=rel:src_rel->rel, transpose=false)
      %2: edge[4] f32 = lift(%1, via=src_rel:edge->src_rel)
      %3: node[4] f32 = reduce(%2, via=dst:edge->node, op=sum)
      return out=%3
    }""")
    plan = compile_program(program).forward_plan
    counts = Counts({Space.NODE: 10, Space.EDGE: 100, Space.REL: 3, Space.SRC_REL: 20})
    product, total = (kernel_work(k, counts, 1e9) for k in plan.kernels)
    assert product.products == 2 * 20 * 8 * 4
    assert product.near == 20 * 8 * 4  # gathered rows of x
    assert product.streamed == 3 * 8 * 4 * 4 + 2 * 20 * 4 * 4 + 4 * 20 + 4 * 3  # weights, results, lookup, segments
    assert total.products == 0
    assert total.near == 100 * 4 * 4
    assert kernel_work(plan.kernels[1], counts, 0).far == total.near
    assert plan_seconds(plan, counts, RATES) == pytest.approx(RATES.seconds(product) + RATES.seconds(total))


def test_a_sum_for_each_set_of_near_tables_is_the_formula() -> None:
    """Tables of nodes and of pairs leave the cache one after the other, and come back to it."""
    node, pair, edge = Space.NODE, Space.SRC_REL, Space.EDGE
    formula = WorkFormula(
        {edge: 64.0}, {node: 3.0}, {edge: 8.0}, {(node, 256): {edge: 256.0}, (pair, 64): {edge: 64.0}}, 7
    )
    less = WorkFormula({}, {pair: 2.0}, {}, {(pair, 64): {node: 64.0}}, 1)
    costs, each = (
        LinearCosts({"more": formula, "less": less}, RATES),
        [2**14, 2**16, 2**16 + 1, 2**18, 2**18 + 1, 2**14],
    )
    for nodes in each:
        for pairs in each:
            counts = Counts({node: nodes, pair: pairs, edge: 10**6})
            wanted = 6.4e7 / 1e11 + 3 * nodes / 1e10 + 8e6 / 3e10 + 7e-5
            wanted += 2.56e8 / (6e10 if nodes <= 2**16 else 2e10) + 6.4e7 / (6e10 if pairs <= 2**18 else 2e10)
            other = 2 * pairs / 1e10 + 64 * nodes / (6e10 if pairs <= 2**18 else 2e10) + 1e-5
            assert costs.seconds(counts) == pytest.approx({"more": wanted, "less": other}, rel=1e-12)
            assert formula_seconds(formula, counts, RATES) == pytest.approx(wanted, rel=1e-12)
            assert formula_seconds(less, counts, RATES) == pytest.approx(other, rel=1e-12)
    assert len(costs.regimes) == 4


def variants(layer: Any, g: columba.Graph) -> Variants:
    x = torch.randn(g.num_nodes, layer.in_channels)
    with torch.no_grad():
        specialization, _ = type(columba.compile(layer, backend="cpp")).forward.specialize(layer, x, g)
    names = [i.name for i in specialization.trace.program.inputs]
    return Variants(specialization.trace.program, names, recipes_for({}))


def test_compaction_pays_where_pairs_repeat() -> None:
    repeating, single = graph(50, 20000, 2), graph(4000, 4000, 500)
    found = variants(RGATConv(32, 32, 500), single)
    costs = found.costs(repeating.counts(), RATES)
    assert found.best(repeating.counts(), RATES).endswith("compact_materialization")
    assert costs["plain"] > 2 * costs["compact_materialization"]
    assert set(costs) <= set(recipes_for({}))


def test_recipes_that_make_the_same_plans_are_one() -> None:
    program = parse_program("""program f(%x: node[8] f32) {
      %0: edge[8] f32 = lift(%x, via=src:edge->node)
      %1: node[8] f32 = reduce(%0, via=dst:edge->node, op=sum)
      return out=%1
    }""")
    assert len(Variants(program, ("x",), recipes_for({})).names()) == 1


QUICK = {("rgcn", "aggregate_first"), ("rgat", "-compact_materialization"), ("hgt", "-reorder_linear,-merge_linears")}
"""Each layer and each variant once; the others run with ``make test-all``."""


@pytest.mark.parametrize(
    ("kind", "passes"),
    [
        pytest.param(kind, passes, marks=() if (kind, passes) in QUICK else pytest.mark.slow)
        for kind in ("rgcn", "rgat", "hgt")
        for passes in ("aggregate_first", "-compact_materialization", "-reorder_linear,-merge_linears")
    ],
)
def test_forced_variants_compute_the_same(kind: str, passes: str) -> None:
    g = graph(9, 60, 3)
    torch.manual_seed(0)
    layer = {
        "rgcn": lambda: RGCNConv(6, 6, 3),
        "rgat": lambda: RGATConv(6, 3, 3, heads=2),
        "hgt": lambda: HGTConv(6, 6, 2, 3, heads=2),
    }[kind]().double()
    x = torch.randn(9, 6, dtype=torch.float64, requires_grad=True)
    wanted = [x, *layer.parameters()]
    expected = layer(x, g)
    result = columba.compile(layer, backend="cpp", passes=passes)(x, g)
    torch.testing.assert_close(result, expected, atol=1e-10, rtol=1e-10)
    for got, want in zip(
        torch.autograd.grad(result.sin().sum(), wanted), torch.autograd.grad(expected.sin().sum(), wanted), strict=True
    ):
        torch.testing.assert_close(got, want, atol=1e-10, rtol=1e-10)


def saved_bytes(explanation: columba.Explanation, g: columba.Graph) -> int:
    compilation, counts = explanation.compilation, g.counts()
    kept = compilation.forward_plan.outputs[compilation.results :]
    return counts.total(b.type for b in kept)


def test_a_memory_budget_is_kept() -> None:
    g = graph(40, 400, 3)
    layer = RGATConv(16, 16, 3)
    x = torch.randn(40, 16, requires_grad=True)
    free = columba.explain(columba.compile(layer, backend="cpp"), x, g)
    budget = saved_bytes(free, g) // 2
    limited = columba.compile(layer, backend="cpp", memory_budget=budget)
    assert budget > 0
    assert saved_bytes(columba.explain(limited, x, g), g) <= budget
    expected = torch.autograd.grad(layer(x, g).sum(), [x, *layer.parameters()])
    for got, want in zip(torch.autograd.grad(limited(x, g).sum(), [x, *layer.parameters()]), expected, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_explain_shows_what_was_chosen() -> None:
    g = graph(20, 100, 3)
    explanation = columba.explain(RGCNConv(8, 8, 3), torch.randn(20, 8), g)
    assert "*" in explanation.costs
    chosen = next(line for line in explanation.costs.splitlines() if line.startswith("*"))
    assert chosen.split()[-1] == explanation.variant
    for kernel in explanation.kernels:
        assert kernel.name in explanation.costs


@pytest.mark.parametrize(
    ("passes", "message"),
    [("no_such_pass", "unknown pass 'no_such_pass'"), ("-expand_softmax", "expand_softmax cannot be left out")],
)
def test_choices_that_cannot_be(passes: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        columba.compile(lambda g, h: h, passes=passes)


def test_choices_settle_alternatives() -> None:
    assert list(recipes_for({"aggregate_first": True})) == ["aggregate_first,compact_materialization"]
    assert len(recipes_for({"aggregate_first": False})) == 2
    both = parse_choices("aggregate_first,-compact_materialization")
    assert list(recipes_for(both)) == ["aggregate_first"]
    assert "reorder_linear" not in recipe_of({"reorder_linear": False}).level1


def test_negative_budget_and_two_ways_to_say_it() -> None:
    with pytest.raises(ValueError, match="memory_budget must not be negative"):
        columba.compile(lambda g, h: h, memory_budget=-1)
    with pytest.raises(ValueError, match="not both"):
        columba.compile(lambda g, h: h, passes="aggregate_first", recipe=recipe_of({}))


def test_rates_are_stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMBA_CACHE_DIR", str(tmp_path))
    forget_rates()
    first = machine_rates()
    (stored,) = tmp_path.glob("rates-*.json")
    assert json.loads(stored.read_bytes()[: -cache.TRAILER])["products"] == first.products
    forget_rates()
    assert machine_rates() == first
    stored.write_text("{")  # damaged: measured again
    forget_rates()
    assert machine_rates().products > 0
    forget_rates()


class _Properties:
    """What PyTorch says of a GPU."""

    multi_processor_count, total_memory = 132, 141 << 30

    def __init__(self, name: str) -> None:
        self.name = name


def test_a_gpu_decides_by_its_own_rates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Published ones where its name is known, and measured ones, once, where it is not."""
    monkeypatch.setenv("COLUMBA_CACHE_DIR", str(tmp_path))
    forget_rates()
    gpu, measured = torch.device("cuda"), []

    def measure(device: torch.device) -> Rates:
        measured.append(device)
        return rates_of(CHIPS["a100"])

    monkeypatch.setattr(rates_module, "measure_rates", measure)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: _Properties("NVIDIA H200"))
    assert known_rates(gpu) == machine_rates(gpu) == rates_of(CHIPS["h200"])
    assert not measured
    forget_rates()
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: _Properties("A card of tomorrow"))
    assert known_rates(gpu) is None
    assert machine_rates(gpu) == rates_of(CHIPS["a100"]) == known_rates(gpu)
    forget_rates()
    assert machine_rates(gpu) == rates_of(CHIPS["a100"])  # from the cache folder
    assert measured == [gpu]
    forget_rates()


@pytest.mark.parametrize(
    "name", ["NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3", "AMD Instinct MI300X", "NVIDIA B200"]
)
def test_names_that_pytorch_gives_chips(name: str) -> None:
    assert chip_of(name) is not None
    assert chip_of(name + " Laptop") is None


def test_what_is_fastest_on_a_gpu_need_not_be_on_the_cpu_beside_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Starting a kernel takes so long on the CPU here that what it does makes no difference."""
    monkeypatch.setenv("COLUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: _Properties("NVIDIA H200"))
    slow_starts = Rates(products=1e15, pointwise=1e15, streamed=1e15, near=1e12, far=1e12, start=1.0, cache=1 << 20)
    known = variants_module.known_rates
    monkeypatch.setattr(
        variants_module, "known_rates", lambda device: slow_starts if device.type == "cpu" else known(device)
    )
    forget_rates()
    model, x, g = sample("rgcn")
    variants, _ = variants_for(model, x, g)
    rows = {Space.NODE: 10**5, Space.EDGE: 10**6, Space.SRC_REL: 6 * 10**5, Space.DST_REL: 4 * 10**5}
    counts = Counts({**g.counts(), **rows})
    assert variants.choose(counts) == "compact_materialization"
    assert variants.choose(counts, torch.device("cuda")) == "aggregate_first,compact_materialization"
    forget_rates()


def test_plans_are_walked_once_whatever_graphs_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[str] = []
    walk = variants_module.plan_formula

    def noted(plan: Plan) -> WorkFormula:
        walked.append(str(plan))
        return walk(plan)

    monkeypatch.setattr(variants_module, "plan_formula", noted)
    monkeypatch.setattr(variants_module, "known_rates", lambda device: RATES)
    model, x, g = sample("rgcn", features=8)
    variants, _ = variants_for(model, x, g)
    for n in range(1, 20):
        rows = {Space.NODE: 50 * n, Space.EDGE: 900 * n, Space.SRC_REL: 300 * n, Space.DST_REL: 60 * n}
        variants.best(Counts({**g.counts(), **rows}), RATES)
    assert len(walked) == sum(len(variants.planned(name).plans) for name in variants.names())
    for name in variants.names():  # and the formula is the sum of the kernels
        plans, counts = variants.planned(name).plans, Counts({**g.counts(), Space.EDGE: 10**7})
        kernels = [RATES.seconds(kernel_work(k, counts, RATES.cache)) for plan in plans for k in plan.kernels]
        assert variants.costs(counts, RATES)[name] == pytest.approx(sum(kernels))
