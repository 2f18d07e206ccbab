"""What tuning is worth: every case is tuned, and then measured once more beside the default, which had no part in the choice.

python -m benchmarks tuning --graphs aifb --layers rgcn --out tuning.jsonl
python -m benchmarks tuning --report tuning.jsonl
"""

from __future__ import annotations

import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
from rich.console import Console

import columba
from benchmarks.cases import LAYERS, Case, load_graph, make_input, make_layer
from columba.inspection.explain import tunable
from columba.runtime.dtypes import ir_dtype
from columba.runtime.program import Runnable
from columba.selection.rates import machine_rates
from columba.tuning.decisions import Decision, parse_decision
from columba.tuning.measure import Workload, compare
from columba.tuning.search import Outcome
from columba.tuning.space import default_decision

MODES = ("train", "infer")
GRAPHS = ("aifb", "mutag", "fb15k237")

CHECK_SECONDS, CHECK_ROUNDS = 8.0, 40
"""Of the measurement after tuning."""

BETTER = 0.95
"""The ratio to the default from which a case counts as clearly better."""


@dataclass(frozen=True)
class Tuned:
    """One case: what tuning came to, and what a later measurement says of it."""

    case: str
    mode: str
    default: float  #: milliseconds
    tuned: float
    ratio: float  #: the median of the rounds after tuning
    noise: float
    took: float  #: seconds of tuning
    candidates: int
    complete: bool
    decision: str


def tune_case(case: Case, mode: str, budget: float) -> Tuned:
    """Tunes one case from nothing, in a database of its own, and measures the winner again."""
    graph = load_graph(case.graph)
    layer, x = make_layer(case, graph), make_input(case, graph)
    x.requires_grad_(mode == "train")
    with torch.set_grad_enabled(mode == "train"):
        variants, _, _ = tunable(layer, x, graph)
        start = time.perf_counter()
        found = columba.tune(layer, x, graph, budget=budget, again=True)
        took = time.perf_counter() - start
    assert isinstance(found, Outcome)
    default = default_decision(variants, graph.counts())
    winner = parse_decision(found.record.decision)
    workload = Workload(variants.program, variants.wrt, graph)

    def built(decision: Decision) -> Runnable:
        return Runnable(decision.compile(variants.program, tuple(variants.wrt)).planned, ir_dtype(graph.index_dtype))

    rivals = {} if winner == default else {"tuned": built(winner)}
    measured, reference = compare(workload.run, built(default), rivals, CHECK_SECONDS, CHECK_ROUNDS if rivals else 3)
    before = statistics.median(t.total for t in reference)
    ratio, noise = (measured["tuned"].ratio, measured["tuned"].noise) if rivals else (1.0, 0.0)
    return Tuned(
        str(case),
        mode,
        1e3 * before,
        1e3 * ratio * before,
        ratio,
        noise,
        took,
        len(found.trials),
        found.record.complete,
        winner.label,
    )


def report(results: Sequence[Tuned]) -> str:
    """A Markdown table, and what it comes to."""
    head = ["case", "mode", "default, ms", "tuned, ms", "ratio", "seconds", "decision"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|---:|---:|---:|---:|---|"]
    for r in results:
        cells = (f"{r.default:.2f}", f"{r.tuned:.2f}", f"{r.ratio:.3f} ± {r.noise:.3f}", f"{r.took:.0f}", r.decision)
        lines.append("| " + " | ".join((r.case, r.mode, *cells)) + " |")
    better = sum(r.ratio <= BETTER for r in results)
    worst = max(results, key=lambda r: r.ratio - 2 * r.noise)
    mean = math.exp(statistics.fmean(math.log(r.ratio) for r in results))
    said = (
        f"{better} of {len(results)} cases are at least 5 % faster; {mean:.3f} times the default in the geometric mean; "
        f"at worst {worst.ratio:.3f} ± {worst.noise:.3f} ({worst.case}, {worst.mode}); "
        f"the longest took {max(r.took for r in results):.0f} s."
    )
    return "\n".join([*lines, "", said])


@click.command()
@click.option("--graphs", default=",".join(GRAPHS), show_default=True, help="Names, separated by commas.")
@click.option("--layers", default=",".join(LAYERS), show_default=True, help="Names, separated by commas.")
@click.option("--features", default=64, show_default=True, help="In and out.")
@click.option("--heads", default="1,4", show_default=True, help="Numbers, separated by commas; RGCN takes the first.")
@click.option(
    "--modes", default=",".join(MODES), show_default=True, help="train (forward and backward), infer, or both."
)
@click.option("--budget", default=45.0, show_default=True, help="Seconds of tuning for each case.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="JSON lines to append to.")
@click.option(
    "--report",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Measure nothing; a table of what was appended to FILE.",
)
def tuning(
    graphs: str,
    layers: str,
    features: int,
    heads: str,
    modes: str,
    budget: float,
    out: Path | None,
    files: Sequence[Path],
) -> None:
    """Tunes every case from nothing, and measures the winner beside the default once more.

    The measurement after tuning had no part in the choice. Records go to a database that is thrown away: `columba tune` is the command
    whose records later programs find. These options are the command's own; those of `python -m benchmarks` before it have no effect.
    Real graphs are read from $COLUMBA_DATA. Run it on an idle machine: about a minute a case.
    """
    if files:
        lines = [line for f in files for line in f.read_text().splitlines()]
        latest = {(r["case"], r["mode"]): Tuned(**r) for r in map(json.loads, lines)}
        click.echo(report(list(latest.values())))
        return
    console = Console(stderr=True)
    results = []
    sizes = [int(h) for h in heads.split(",")]
    todo = [
        (Case(layer, graph, features, h), mode)
        for graph in graphs.split(",")
        for layer in layers.split(",")
        for h in (sizes if layer != "rgcn" else sizes[:1])
        for mode in modes.split(",")
    ]
    with tempfile.TemporaryDirectory() as folder:
        machine_rates()
        os.environ["COLUMBA_CACHE_DIR"] = folder  # nothing is known, and nothing is kept
        for case, mode in todo:
            found = tune_case(case, mode, budget)
            results.append(found)
            console.print(f"{found.case} {found.mode}: {found.ratio:.3f} ± {found.noise:.3f} in {found.took:.0f} s")
            if out is not None:
                with out.open("a") as f:
                    f.write(json.dumps(asdict(found)) + "\n")
    click.echo(report(results))
