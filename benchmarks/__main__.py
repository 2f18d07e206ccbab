"""``python -m benchmarks``: Columba and its peers on real and synthetic graphs; a Markdown table, and JSON lines in a file."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from benchmarks.cases import GRAPHS, LAYERS, cases
from benchmarks.measure import PeerFailed, measure
from benchmarks.peers import PEERS
from benchmarks.report import report

RESULTS = Path(__file__).parent / "results"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--layer", "layers", multiple=True, type=click.Choice(LAYERS), default=LAYERS)
@click.option("--graph", "graphs", multiple=True, type=click.Choice(GRAPHS), default=GRAPHS)
@click.option("--peer", "peers", multiple=True, type=click.Choice(PEERS[1:]), default=PEERS[1:])
@click.option("--rounds", default=7, help="Interleaved runs of each peer.", show_default=True)
@click.option("--quick", is_flag=True, help="Only 64 features with one head.")
@click.option(
    "--keep", type=click.Choice(["no", "yes", "both"]), default="no", help="Peers keep freed memory (mallopt)."
)
def main(
    layers: tuple[str, ...], graphs: tuple[str, ...], peers: tuple[str, ...], rounds: int, quick: bool, keep: str
) -> None:
    """Measures layers compiled by Columba and written otherwise.

    Real graphs are read from $COLUMBA_DATA.
    """
    console = Console(stderr=True)
    load = os.getloadavg()[0]
    if load > 0.5:
        console.print(f"[yellow]the machine is busy (load {load:.1f}): timings will be noisy")
    todo = [
        (c, k)
        for c in cases(layers, graphs, quick=quick)
        for k in {"no": [False], "yes": [True], "both": [False, True]}[keep]
    ]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now():%Y-%m-%d-%H%M%S}.jsonl"
    done = []
    with Progress(console=console) as progress, path.open("w", encoding="utf-8") as file:
        task = progress.add_task("", total=len(todo))
        for case, kept in todo:
            try:
                measured = measure(
                    case,
                    (PEERS[0], *peers),
                    rounds=rounds,
                    keep=kept,
                    tell=lambda text: progress.update(task, description=text),
                )
            except PeerFailed as e:
                console.print(f"[red]{e}")
                continue
            finally:
                progress.advance(task)
            done.append(measured)
            file.writelines(json.dumps(record) + "\n" for record in measured.records())
            file.flush()
    if done:
        click.echo(report(done))
    console.print(f"records: {path}")


if __name__ == "__main__":
    main()
