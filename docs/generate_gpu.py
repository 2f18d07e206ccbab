"""Writes the generated sections of ``gpu.md``: what plans take of GPUs on published graphs, beside PyG and DGL.

    python docs/generate_gpu.py                 rewrites the predictions (half a minute)
    python docs/generate_gpu.py --resources     compiles the kernels instead, for registers and memory (minutes; needs Triton)

A section stands between ``<!-- begin NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

# `benchmarks` is no part of the package: it is found through the path (E402).
from benchmarks.baselines import BASELINES, Sizes, run  # noqa: E402
from columba.datasets import PUBLISHED, statistics  # noqa: E402
from columba.datasets.statistics import published  # noqa: E402
from columba.driver import Compilation  # noqa: E402
from columba.inspection.explain import variants_for  # noqa: E402
from columba.inspection.inspection import choose  # noqa: E402
from columba.inspection.prediction import Prediction, predict  # noqa: E402
from columba.inspection.resources import KernelReport, reports  # noqa: E402
from columba.ir.spaces import Space  # noqa: E402
from columba.nn.samples import sample  # noqa: E402
from columba.selection.chips import CHIPS  # noqa: E402
from columba.selection.variants import Variants  # noqa: E402

PAGE = ROOT / "docs" / "gpu.md"
SECTION = re.compile(r"(?P<begin><!-- begin (?P<name>[\w ]+) -->\n).*?(?P<end><!-- end -->\n)", re.DOTALL)

MODELS = {"rgcn": ("rgcn", 1), "rgat": ("rgat", 1), "rgat 4": ("rgat", 4), "hgt": ("hgt", 1), "hgt 4": ("hgt", 4)}
"""Layer and heads, by the names of sections."""

CHIP = CHIPS["h100"]
"""For which variants are chosen."""

TARGETS = ("sm_80", "sm_90")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, all columns but the first right-aligned."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# ------------------------------------------------------------------------------------------------ predictions


@functools.cache
def variants(model: str, training: bool) -> Variants:
    layer, heads = MODELS[model]
    with torch.set_grad_enabled(training):
        found, _ = variants_for(*sample(layer, heads=heads))
    return found


def compiled(model: str, graph: str, training: bool) -> Compilation:
    return choose(variants(model, training), statistics(graph).counts(), CHIP)[1]


@functools.cache
def prediction(model: str, graph: str, training: bool) -> Prediction:
    return predict(compiled(model, graph, training), statistics(graph).counts())


def chips() -> str:
    head = ("chip", "kernels for", "fp32, Tflop/s", "TF32", "fp16, bf16", "fp64", "memory, GB", "GB/s", "cache, MB")
    rows = [
        (
            c.name,
            f"`{c.architecture}`",
            *(f"{rate / 1e12:.4g}" for rate in (c.fp32, c.tf32, c.half, c.fp64)),
            *(f"{size / 1e9:.0f}" for size in (c.memory, c.bandwidth)),
            f"{c.cache / 2**20:.0f}",
        )
        for c in CHIPS.values()
    ]
    sources = "".join(f"- {c.name}: {c.source}.\n" for c in CHIPS.values())
    return f"{table(head, rows)}\n{sources}"


def graphs() -> str:
    head = (
        "graph",
        "nodes",
        "types",
        "edges",
        "relations",
        "source pairs",
        "of edges",
        "destination pairs",
        "how known",
        "largest degree",
    )
    rows = []
    for name in PUBLISHED:
        found = published()[name]
        nodes, types, edges, relations = (found.rows[s] for s in (Space.NODE, Space.NTYPE, Space.EDGE, Space.REL))
        pairs = [f"{found.rows[s]:,}" for s in (Space.SRC_REL, Space.DST_REL)]
        share = f"{found.compaction(Space.SRC_REL):.0%}"
        rows.append(
            (
                name,
                f"{nodes:,}",
                str(types),
                f"{edges:,}",
                str(relations),
                pairs[0],
                share,
                pairs[1],
                found.pairs,
                f"{found.largest_degree:,}",
            )
        )
    notes = "".join(
        f"- {n}: {_sentence(published()[n].source)} {_sentence(published()[n].method)} Largest degree: {published()[n].degrees}.\n"
        for n in PUBLISHED
    )
    return f"{table(head, rows)}\n{notes}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def columba(model: str) -> str:
    """Time on every chip, and memory."""
    parts = []
    for title, training in (("inference", False), ("training step", True)):
        head = (
            f"{title}, ms",
            "kernels",
            "launches",
            "steps",
            "Gflop",
            "GB",
            *(c.name for c in CHIPS.values()),
            "peak, GB",
        )
        rows = []
        for graph in PUBLISHED:
            p = prediction(model, graph, training)
            times = [f"{p.seconds(c) * 1e3:.3g}" for c in CHIPS.values()]
            kernels = str(sum(c.launches > 0 for c in p.costs))
            launches, steps = str(sum(c.launches for c in p.costs)), str(sum(c.steps for c in p.costs))
            rows.append(
                (
                    graph,
                    kernels,
                    launches,
                    steps,
                    f"{p.flops / 1e9:.3g}",
                    _gigabytes(p.bytes),
                    *times,
                    _gigabytes(p.footprint.peak),
                )
            )
        parts.append(table(head, rows))
    return "\n".join(parts)


def beside(model: str) -> str:
    """Bytes moved and peak memory under each library, the same for inference and training."""
    layer, heads = MODELS[model]
    baselines = BASELINES[layer]
    head = (
        "GB moved; peak",
        *(f"{who}, {kind}" for kind in ("inference", "training") for who in ("Columba", *baselines)),
    )
    rows = []
    for graph in PUBLISHED:
        sizes = Sizes.of(statistics(graph).counts(), heads=heads)
        cells = []
        for training in (False, True):
            mine = prediction(model, graph, training)
            cells.append(f"{_gigabytes(mine.bytes)}; {_gigabytes(mine.footprint.peak)}")
            for baseline in baselines.values():
                theirs = run(baseline, sizes, training=training)
                cells.append(f"{_gigabytes(theirs.moved)}; {_gigabytes(theirs.peak)}")
        rows.append((graph, *cells))
    return table(head, rows)


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.0f}" if size >= 100e9 else f"{size / 1e9:.3g}"


def memory() -> str:
    """The most that any of the eight takes to train, and what that rests on."""
    peaks = {(m, g): prediction(m, g, True).footprint.peak for m in MODELS for g in PUBLISHED}
    (model, graph), most = max(peaks.items(), key=lambda item: item[1])
    counts = statistics(graph).without_compaction().counts()
    worst = predict(choose(variants(model, True), counts, CHIP)[1], counts).footprint.peak
    over = {
        name: sum(run(b, Sizes.of(statistics(g).counts(), heads=1), training=True).peak > 24e9 for g in PUBLISHED)
        for layers in BASELINES.values()
        for name, b in layers.items()
    }
    lines = ", ".join(f"{name}: {n}" for name, n in over.items())
    return (
        f"No case needs more than {most / 1e9:.1f} GB ({_title(model)} on {graph}), so all fit 24 GB. That number of pairs is "
        f"{published()[graph].pairs}; were there a pair for every edge, the most that there can be, it would be {worst / 1e9:.1f} GB.\n\n"
        f"Graphs of the eight on which a training step with one head needs more than 24 GB: {lines}.\n"
    )


def _title(model: str) -> str:
    layer, heads = MODELS[model]
    return layer.upper() + (f" with {heads} heads" if heads > 1 else "")


# ------------------------------------------------------------------------------------------------ binaries


def resources(model: str) -> str:
    """Registers and memory of every function, for each target side by side."""
    compilation = compiled(model, "fb15k", True)
    counts = statistics("fb15k").counts()
    found = [list(reports(compilation, counts, target)) for target in TARGETS]
    head = ["function"]
    for target in TARGETS:
        head += [
            f"{target}: registers",
            "spilled, B",
            "shared, B",
            "occupancy",
            "widest load, bits",
            "matrix instructions",
        ]
    rows = [(f"`{pair[0].kernel}`", *(cell for r in pair for cell in _cells(r))) for pair in zip(*found, strict=True)]
    return table(head, rows)


def _cells(r: KernelReport) -> Sequence[str]:
    share = "" if r.occupancy is None else f"{r.occupancy:.0%}"
    return str(r.registers), str(r.spilled), str(r.shared), share, str(r.widest_load), str(r.tensor_core_instructions)


# ------------------------------------------------------------------------------------------------ the page

PREDICTED: dict[str, Callable[[], str]] = {"chips": chips, "graphs": graphs, "memory": memory}
for _model in MODELS:
    PREDICTED[_model] = functools.partial(columba, _model)
    PREDICTED[f"{_model} beside"] = functools.partial(beside, _model)
COMPILED: dict[str, Callable[[], str]] = {
    f"{m} resources": functools.partial(resources, m) for m in ("rgcn", "rgat", "hgt")
}


def rendered(text: str, names: Sequence[str]) -> str:
    """The page with the sections of these names as they should be; others stay."""
    made = {**PREDICTED, **COMPILED}

    def section(m: re.Match[str]) -> str:
        return f"{m['begin']}{made[m['name']]()}{m['end']}" if m["name"] in names else m[0]

    return SECTION.sub(section, text)


def main() -> None:
    names = list(COMPILED if "--resources" in sys.argv[1:] else PREDICTED)
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8"), names), encoding="utf-8")


if __name__ == "__main__":
    main()
