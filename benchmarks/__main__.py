"""``python -m benchmarks``: Columba and its peers on real and synthetic graphs; Markdown tables, pictures, and JSON lines in a file."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from benchmarks.ablation import forced
from benchmarks.cases import GRAPHS, LAYERS, SUITES, TINY, Case, cases
from benchmarks.device import DEVICES, NoDevice, require
from benchmarks.markdown import fill
from benchmarks.measure import PATIENCE, ROOT, PeerFailed, measure
from benchmarks.overheads import PARTS, TORCH_COMPILE, measure_overheads
from benchmarks.peers import PEERS
from benchmarks.plots import draw
from benchmarks.records import COLUMBA, MODES, Measurement, Record, append, load
from benchmarks.report import report as render
from benchmarks.report import sections
from benchmarks.tuning import tuning

RESULTS = Path(__file__).parent / "results"
DGL_PYTHON = ROOT / ".venv-dgl" / "bin" / "python"
COMPILED_ON = "aifb"
"""Where ``torch.compile`` of a peer is measured unless asked for: it takes minutes on graphs with hundreds of relations."""


class Words(click.ParamType):
    """Words out of some, or numbers, separated by commas."""

    name = "list"

    def __init__(self, known: Sequence[str] | None = None) -> None:
        self.known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if not isinstance(value, str):
            return tuple(value)
        words = [w.strip() for w in value.split(",") if w.strip()]
        for word in words:
            if self.known is None and not (word.isdigit() and int(word)):
                self.fail(f"{word!r} is not a positive number", param, ctx)
            if self.known is not None and word not in self.known:
                self.fail(f"{word!r} is not one of {', '.join(self.known)}", param, ctx)
        return tuple(words if self.known is not None else map(int, words))


@dataclass(frozen=True)
class Options:
    """What all commands share."""

    cases: list[Case]
    layers: Sequence[str]
    graphs: Sequence[str]
    peers: Sequence[str]
    keeps: Sequence[bool]
    rounds: int
    patience: float
    time_budget: float
    out: Path
    device: str
    markdown: Path | None


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--suite", type=click.Choice(list(SUITES)), default="standard", show_default=True, help="Which cases.")
@click.option("--layers", type=Words(LAYERS), default=",".join(LAYERS), show_default=True)
@click.option("--graphs", type=Words((*GRAPHS, TINY)), default="", help="Instead of the suite's.")
@click.option("--features", type=Words(), default="", help="Instead of the suite's, as in 32,64.")
@click.option("--heads", type=Words(), default="", help="Instead of the suite's, as in 1,4.")
@click.option(
    "--peers", type=Words(PEERS), default="", help="Only these beside Columba.  [default: all that fit the case]"
)
@click.option(
    "--keep",
    type=click.Choice(["no", "yes", "both"]),
    default="no",
    show_default=True,
    help="Peers keep freed memory (mallopt).",
)
@click.option("--rounds", default=7, help="Interleaved turns of each peer.", show_default=True)
@click.option("--patience", default=PATIENCE, help="Seconds after which a run is cut off.", show_default=True)
@click.option("--time-budget", default=180.0, help="Minutes after which no case is begun.", show_default=True)
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="cpu",
    show_default=True,
    help="Where layers run; cuda is ROCm, too. On a GPU Columba's backend is Triton.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON lines to append to.  [default: a new file in benchmarks/results]",
)
@click.option(
    "--markdown",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the report is written, beside the terminal.",
)
@click.pass_context
def main(
    context: click.Context,
    suite: str,
    layers: tuple[str, ...],
    graphs: tuple[str, ...],
    features: tuple[int, ...],
    heads: tuple[int, ...],
    peers: tuple[str, ...],
    keep: str,
    rounds: int,
    patience: float,
    time_budget: float,
    device: str,
    out: Path | None,
    markdown: Path | None,
) -> None:
    """Measures layers compiled by Columba and written otherwise.

    Real graphs are read from $COLUMBA_DATA. DGL is measured where `make .venv-dgl/.ready` has installed it.
    """
    try:
        require(device)
    except NoDevice as e:
        raise click.ClickException(str(e)) from e
    todo = cases(suite, layers=layers, graphs=graphs, features=features, heads=heads)
    keeps = {"no": [False], "yes": [True], "both": [False, True]}[keep]
    path = out or RESULTS / f"{datetime.now():%Y-%m-%d-%H%M%S}.jsonl"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that workers end, too
    options = Options(todo, layers, graphs, peers, keeps, rounds, patience, time_budget, path, device, markdown)
    context.obj = options
    if context.invoked_subcommand is None:
        _run(options, [(case, (COLUMBA, *(p for p in peers or _usual(case, device) if p != COLUMBA))) for case in todo])


@main.command()
@click.pass_obj
def ablation(options: Options) -> None:
    """The same cases under each recipe of benchmarks/recipes.py, and how near the cost model's choice is to the best of them."""
    _run(options, [(case, forced()) for case in options.cases])


@main.command()
@click.option("--parts", type=Words(PARTS), default=",".join(PARTS), show_default=True)
@click.option("--modes", type=Words(MODES), default=",".join(MODES), show_default=True, help="Of first calls.")
@click.option("--graph", type=click.Choice([*GRAPHS, TINY]), default="aifb", show_default=True, help="Of first calls.")
@click.pass_obj
def overheads(options: Options, parts: tuple[str, ...], modes: tuple[str, ...], graph: str) -> None:
    """Compiling from cold and from the cache, a call on a tiny graph, preparing a graph.

    First calls are taken of `--peers`."""
    console = _console(options)
    peers = options.peers or (COLUMBA, TORCH_COMPILE)
    found = []
    for overhead in measure_overheads(parts, options.layers, modes, peers, graph, options.patience):
        append(options.out, overhead)
        found.append(overhead)
        words = [overhead.what, overhead.layer, overhead.mode, overhead.peer, overhead.state, overhead.error]
        console.print(f"{' '.join(filter(None, words))}: {overhead.seconds * 1e3:.2f} ms")
    console.print(f"records: {options.out}")
    click.echo(render(Record(overheads=found)))


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--into",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A document whose sections are filled; may be given several times.",
)
@click.option("--images", type=click.Path(file_okay=False, path_type=Path), help="A folder for pictures.")
def report(files: tuple[Path, ...], into: tuple[Path, ...], images: Path | None) -> None:
    """Tables and pictures of what FILES hold: JSON lines of any number of runs, of which the last of each case and peer counts."""
    try:
        record = load(files)
        for document in into:
            document.write_text(fill(document.read_text(encoding="utf-8"), sections(record)), encoding="utf-8")
        if not into:
            click.echo(render(record))
    except ValueError as e:
        raise click.ClickException(str(e)) from e
    if images is not None:
        for path in draw(record, images):
            click.echo(f"wrote {path}", err=True)


main.add_command(tuning)


def _usual(case: Case, device: str) -> list[str]:
    """The peers that a case is measured with unless told otherwise. DGL, as it is installed here, has no kernels for a GPU."""
    without_dgl = device != "cpu" or not DGL_PYTHON.exists()
    slow = case.graph != COMPILED_ON or (case.features, case.heads) != (64, 1)
    return [p for p in PEERS[1:] if not (p.endswith("+compile") and slow) and not (p == "dgl" and without_dgl)]


def _console(options: Options) -> Console:
    console = Console(stderr=True)
    load_now = os.getloadavg()[0]
    if load_now > 0.5:
        console.print(f"[yellow]the machine is busy (load {load_now:.1f}): timings will be noisy")
    return console


def _run(options: Options, jobs: Sequence[tuple[Case, Sequence[str]]]) -> None:
    """Measures with a progress bar, writes every case to the record as soon as it is done, and prints a report."""
    console = _console(options)
    if options.device == "cpu" and not DGL_PYTHON.exists():
        console.print("DGL is not installed (make .venv-dgl/.ready) and not measured")
    pythons = {"dgl": str(DGL_PYTHON)} if DGL_PYTHON.exists() else {"dgl": sys.executable}
    end = time.monotonic() + 60 * options.time_budget
    done: list[Measurement] = []
    with Progress(console=console) as progress:
        task = progress.add_task("", total=len(jobs) * len(options.keeps))

        def tell(text: str) -> None:
            progress.update(task, description=text)

        for case, peers in jobs:
            for keep in options.keeps:
                if time.monotonic() > end:
                    console.print(f"[yellow]not begun after {options.time_budget:g} minutes: {case}")
                    continue
                try:
                    measured = measure(
                        case,
                        peers,
                        rounds=options.rounds,
                        keep=keep,
                        patience=options.patience,
                        pythons=pythons,
                        device=options.device,
                        tell=tell,
                    )
                    done.append(measured)
                    append(options.out, measured)
                except PeerFailed as e:
                    console.print(f"[red]{e}")
                finally:
                    progress.advance(task)
    console.print(f"records: {options.out}")
    if not done:
        raise click.ClickException("nothing was measured")
    text = render(Record(done))
    if options.markdown is not None:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(f"# Benchmarks, {datetime.now():%Y-%m-%d}\n\n{text}\n", encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
