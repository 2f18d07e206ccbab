"""``columba tune``: measures, shows what was tried, and looks after the records."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from columba.api import tune
from columba.cli.graphs import FORMS, load_graph
from columba.runtime.backends import BACKENDS
from columba.runtime.escape import plain
from columba.runtime.graphs.graph import Graph
from columba.tuning.cases import device_name, versions
from columba.tuning.decisions import BadDecision, parse_decision
from columba.tuning.records import Damaged, Records, RecordsError, Trial, TuningRecord, database, from_json, to_json
from columba.tuning.search import Outcome, Step, TuningError

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


BUSY = 0.5
"""The load of a core from which times mean little."""


class Seconds(click.ParamType):
    """A duration: ``30s``, ``2m``, or seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|)", str(value))
        seconds = float(match[1]) * (60 if match[2] == "m" else 1) if match else 0.0
        if seconds <= 0:
            self.fail(f"{value!r} is no duration; write 30s or 2m", param, ctx)
        return seconds


def tune_command(load_target: Callable[[str], Sequence[Any]]) -> click.Command:
    """The command; ``load_target`` finds a model and its arguments."""

    @click.command("tune")
    @click.argument("target", metavar="[MODULE:CALLABLE]", required=False)
    @click.option("--graph", metavar="GRAPH", help=f"Instead of the graph among the arguments: {FORMS}.")
    @click.option("--dtype", type=click.Choice(list(DTYPES)), help="Converts the model and its arguments first.")
    @click.option("--budget", type=Seconds(), default="30s", show_default=True, help="How long it may take.")
    @click.option(
        "--target",
        "backend",
        type=click.Choice(["auto", *BACKENDS]),
        default="auto",
        help="What makes the kernels.",
    )
    @click.option("--inference", is_flag=True, help="Without gradients.")
    @click.option("--again", is_flag=True, help="Measure although there is a record.")
    @click.option("--list", "do_list", is_flag=True, help="Show the records.")
    @click.option("--clear", "do_clear", is_flag=True, help="Remove all records.")
    @click.option(
        "--export", "export", type=click.Path(dir_okay=False, path_type=Path), help="Write the records to a file."
    )
    @click.option(
        "--import",
        "import_",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Add the records of a file that was exported.",
    )
    def command(
        target: str | None,
        graph: str | None,
        dtype: str | None,
        budget: float,
        backend: str,
        inference: bool,
        again: bool,
        do_list: bool,
        do_clear: bool,
        export: Path | None,
        import_: Path | None,
    ) -> None:
        """Measures what is fastest for a model on a graph on this machine, and records it; columba.compile uses the records by itself.

        CALLABLE takes no arguments and returns what to tune, and what to call it with: (model, *args). Interrupted, the command goes
        on at the next call. Without MODULE:CALLABLE, it looks after the records.
        """
        jobs = [
            job
            for job, wanted in (("list", do_list), ("clear", do_clear), ("export", export), ("import", import_))
            if wanted
        ]
        if len(jobs) + (target is not None) != 1:
            raise click.UsageError("give MODULE:CALLABLE, or one of --list, --clear, --export and --import")
        try:
            if do_list:
                list_records()
            elif do_clear:
                click.echo(f"removed {_count(Records().clear(), 'record')} from {plain(database())}")
            elif export is not None:
                export_records(export)
            elif import_ is not None:
                import_records(import_)
            elif target is not None:
                given = None if graph is None else load_graph(graph)
                with torch.set_grad_enabled(not inference):
                    run(_converted(load_target(target), dtype), given, budget, backend, again)
        except (RecordsError, TuningError) as e:
            raise click.ClickException(str(e)) from e

    return command


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _converted(made: Sequence[Any], dtype: str | None) -> Sequence[Any]:
    """The model and the floating point tensors among its arguments in another dtype."""
    if dtype is None:
        return made
    wanted = DTYPES[dtype]
    return [
        x.to(wanted) if isinstance(x, torch.nn.Module) or (isinstance(x, torch.Tensor) and x.is_floating_point()) else x
        for x in made
    ]


# ------------------------------------------------------------------------------------------------ tuning


def run(made: Sequence[Any], graph: Graph | None, budget: float, backend: str, again: bool) -> None:
    """Tunes, with a progress bar on the terminal, and shows what was tried."""
    model, *args = made
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > BUSY * cores:
        click.echo(
            f"the machine is busy (load {load:.1f} on {cores} cores): what is measured now may not hold", err=True
        )
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("tracing", total=1.0)

            def report(step: Step) -> None:
                progress.update(bar, completed=step.used, description=plain(step.what))

            found = tune(model, *args, budget=budget, target=backend, graph=graph, again=again, report=report)
    except KeyboardInterrupt:
        click.echo("\ninterrupted; what was measured is kept, and the next run goes on from there", err=True)
        raise SystemExit(130) from None
    programs = found if isinstance(found, tuple) else (found,)
    for n, one in enumerate(programs, 1):
        if len(programs) > 1:
            record = one if isinstance(one, TuningRecord) else one.record
            click.echo(plain(f"program {n} of {len(programs)}: {record.case.name} on {record.case.graph}"))
        if isinstance(one, TuningRecord):
            click.echo(plain(f"tuned already, on {one.made} (--again measures again): {_summary(one)}"))
        else:
            _show(one)


def _show(found: Outcome) -> None:
    table = Table(box=None, pad_edge=False)
    for column, justify in (("ms", "right"), ("times the default", "right"), ("", "left"), ("candidate", "left")):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for label, trial in found.trials:
        table.add_row(*_cells(trial, found.record), Text(plain(label)))
    Console(width=max(120, Console().width)).print(table)
    if found.resumed:
        click.echo(f"{_count(found.resumed, 'candidate')} had been measured before")
    if not found.record.complete:
        click.echo("the budget did not suffice for all candidates: another run goes on with the rest")
    click.echo(plain(_summary(found.record)))


def _cells(trial: Trial, winner: TuningRecord) -> tuple[str, str, str]:
    own = f"{trial.ratio:.3f} ± {trial.noise:.3f}"
    return f"{trial.seconds * 1e3:.3f}", own, "*" if trial.candidate == winner.decision else ""


def _summary(record: TuningRecord) -> str:
    label = parse_decision(record.decision).label
    gain = record.default / record.seconds
    times = f"{record.seconds * 1e3:.3f} ms, {record.default * 1e3:.3f} ms without tuning"
    return f"{label}: {times}" + (f", {gain:.2f} times as fast" if gain > 1 else "")


# ------------------------------------------------------------------------------------------------ records


def list_records() -> None:
    """A table of all records, and whether they count here."""
    records = Records().all()
    if not records:
        click.echo(f"no records in {plain(database())}")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("program", "gradients", "graph", "dtype", "backend", "ms", "without", "decision", "made", "state"):
        table.add_column(column, overflow="fold")
    for r in records:
        if isinstance(r, Damaged):
            table.add_row(Text(plain(r.what)), *[""] * 8, Text(plain(f"ignored: {r.reason}")))
            continue
        cells = (
            r.case.name,
            r.case.gradients or "none",
            r.case.graph,
            r.case.dtype,
            r.case.backend,
            f"{r.seconds * 1e3:.3f}",
            f"{r.default * 1e3:.3f}",
            _label(r),
            r.made,
            _state(r),
        )
        table.add_row(*(Text(plain(cell)) for cell in cells))
    Console(width=max(160, Console().width)).print(table)


def _label(record: TuningRecord) -> str:
    try:
        return parse_decision(record.decision).label
    except BadDecision:
        return ""


def _state(record: TuningRecord) -> str:
    try:
        parse_decision(record.decision)
    except BadDecision as e:
        return f"ignored: {e}"
    if record.versions != versions():
        return f"ignored: made with {record.versions}"
    if record.case.backend == "cpp" and record.case.device != device_name(torch.device("cpu")):
        return f"for {record.case.device}"
    return "used"


def export_records(path: Path) -> None:
    """Writes all sound records to a file."""
    found = Records().all()
    sound = [r for r in found if isinstance(r, TuningRecord)]
    try:
        path.write_text(to_json(sound), encoding="utf-8")
    except OSError as e:
        raise RecordsError(f"cannot write {path}: {e.strerror}") from e
    left = len(found) - len(sound)
    click.echo(
        f"wrote {_count(len(sound), 'record')} to {plain(path)}" + (f"; {left} damaged left out" if left else "")
    )


def import_records(path: Path) -> None:
    """Adds the records of a file, all or none."""
    try:
        records = from_json(path.read_text(encoding="utf-8", errors="replace"))
        for number, record in enumerate(records, 1):
            try:
                parse_decision(record.decision)
            except BadDecision as e:
                raise RecordsError(f"record {number} ({record.case.name}): {e}") from e
    except OSError as e:
        raise RecordsError(f"cannot read {path}: {e.strerror}") from e
    except RecordsError as e:
        raise RecordsError(f"{path}: {e}; nothing was imported") from e
    Records().save(records)
    stale = sum(r.versions != versions() for r in records)
    note = f"; {stale} of them, made with other versions, will be ignored" if stale else ""
    click.echo(f"imported {_count(len(records), 'record')} from {plain(path)}{note}")
