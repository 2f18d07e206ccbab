"""``python -m benchmarks``: Columba and its peers on real and synthetic graphs; Markdown tables, and JSON lines in a file."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from benchmarks.ablation import ablation_table, forced
from benchmarks.cases import GRAPHS, LAYERS, Case, cases
from benchmarks.measure import ROOT, Measurement, PeerFailed, measure
from benchmarks.peers import COLUMBA, PEERS
from benchmarks.report import report

RESULTS = Path(__file__).parent / "results"
DGL_PYTHON = ROOT / ".venv-dgl" / "bin" / "python"
COMPILED_ON = (Case("rgcn", "aifb"), Case("rgat", "aifb"), Case("hgt", "aifb"))
"""Where ``torch.compile`` of a peer is measured unless asked for: it takes minutes on graphs with hundreds of relations."""


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--layer", "layers", multiple=True, type=click.Choice(LAYERS), default=LAYERS)
@click.option("--graph", "graphs", multiple=True, type=click.Choice(GRAPHS), default=GRAPHS)
@click.option("--peer", "peers", multiple=True, type=click.Choice(PEERS[1:]), help="Only these.  [default: all]")
@click.option("--rounds", default=7, help="Interleaved runs of each peer.", show_default=True)
@click.option("--quick", is_flag=True, help="Only 64 features with one head.")
@click.option(
    "--keep", type=click.Choice(["no", "yes", "both"]), default="no", help="Peers keep freed memory (mallopt)."
)
@click.option("--time-budget", default=40.0, help="Minutes after which no case is begun.", show_default=True)
@click.pass_context
def main(
    context: click.Context,
    layers: tuple[str, ...],
    graphs: tuple[str, ...],
    peers: tuple[str, ...],
    rounds: int,
    quick: bool,
    keep: str,
    time_budget: float,
) -> None:
    """Measures layers compiled by Columba and written otherwise.

    Real graphs are read from $COLUMBA_DATA. DGL is measured where `make .venv-dgl/.ready` has installed it.
    """
    todo = cases(layers, graphs, quick=quick)
    keeps = {"no": [False], "yes": [True], "both": [False, True]}[keep]
    context.obj = (todo, rounds, keeps, time_budget)
    if context.invoked_subcommand is None:
        jobs = [(case, k, (COLUMBA, *(peers or _usual(case)))) for case in todo for k in keeps]
        done = _run(jobs, rounds, time_budget)
        if done:
            click.echo(report(done))


@main.command()
@click.pass_obj
def ablation(options: tuple[list[Case], int, list[bool], float]) -> None:
    """The same cases under each named recipe of benchmarks/recipes.py."""
    todo, rounds, keeps, time_budget = options
    done = _run([(case, k, forced()) for case in todo for k in keeps], rounds, time_budget)
    if done:
        click.echo(ablation_table(done))


def _usual(case: Case) -> list[str]:
    """The peers that a case is measured with unless told otherwise."""
    return [
        p
        for p in PEERS[1:]
        if (not p.endswith("+compile") or case in COMPILED_ON) and (p != "dgl" or DGL_PYTHON.exists())
    ]


def _run(jobs: Sequence[tuple[Case, bool, Sequence[str]]], rounds: int, time_budget: float) -> list[Measurement]:
    """Measures with a progress bar and writes every case to the record as soon as it is done."""
    console = Console(stderr=True)
    load = os.getloadavg()[0]
    if load > 0.5:
        console.print(f"[yellow]the machine is busy (load {load:.1f}): timings will be noisy")
    if not DGL_PYTHON.exists():
        console.print("DGL is not installed (make .venv-dgl/.ready) and not measured")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now():%Y-%m-%d-%H%M%S}.jsonl"
    pythons = {"dgl": str(DGL_PYTHON)} if DGL_PYTHON.exists() else {"dgl": sys.executable}
    end = time.monotonic() + 60 * time_budget
    done: list[Measurement] = []
    with Progress(console=console) as progress, path.open("w", encoding="utf-8") as file:
        task = progress.add_task("", total=len(jobs))
        for n, (case, keep, peers) in enumerate(jobs):
            if time.monotonic() > end:
                left = ", ".join(dict.fromkeys(str(c) for c, *_ in jobs[n:]))
                console.print(f"[yellow]not begun after {time_budget:g} minutes: {left}")
                break
            tell = lambda text: progress.update(task, description=text)  # noqa: E731
            try:
                measured = measure(case, peers, rounds=rounds, keep=keep, pythons=pythons, tell=tell)
            except PeerFailed as e:
                console.print(f"[red]{e}")
                continue
            finally:
                progress.advance(task)
            done.append(measured)
            file.writelines(json.dumps(record) + "\n" for record in measured.records())
            file.flush()
    console.print(f"records: {path}")
    return done


if __name__ == "__main__":
    main()
