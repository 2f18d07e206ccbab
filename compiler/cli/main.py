"""The commands, each a few lines over what the package offers."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

import columba
from columba.cli.doctor import examine
from columba.cli.graphs import load_callable
from columba.cli.tune import tune_command
from columba.explain import Explanation, explain
from columba.inspection import TARGETS, KernelReport, inspect
from columba.runtime.cache import cache_info, clear_cache
from columba.runtime.triton_aot import UnknownTarget


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(columba.__version__, prog_name="columba")
def main() -> None:
    """Compiles relational graph neural networks written in PyTorch."""


@main.command()
def doctor() -> None:
    """Says what this machine has, and what is missing; exit status 1 if kernels cannot be built."""
    findings = examine()
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        mark = {True: "[green]ok[/]", False: "[red]missing[/]", None: ""}[finding.ok]
        table.add_row(mark, finding.what, finding.found)
    console = Console()
    console.print(table)
    bad = [f for f in findings if f.ok is False]
    for finding in bad:
        console.print(f"\n{finding.what}: {finding.advice}")
    sys.exit(1 if any(f.needed for f in bad) else 0)


@main.command("explain")
@click.argument("target", metavar="MODULE:CALLABLE")
@click.option(
    "--level", type=click.Choice(["all", "1", "2", "host", "cost", "source"]), default="all", help="What to show."
)
@click.option("--inference", is_flag=True, help="Without gradients.")
@click.option("--passes", default="", help="Passes to force and to forbid: aggregate_first,-reorder_linear")
def explain_command(target: str, level: str, inference: bool, passes: str) -> None:
    """Shows a model at every stage of the compilation.

    CALLABLE takes no arguments and returns what to explain, and what to call it with: (model, *args). MODULE is a dotted name or a
    path to a .py file.
    """
    model, *args = load_target(target)
    if passes:
        try:
            model = columba.compile(model, passes=passes)
        except ValueError as e:
            raise click.BadParameter(str(e), param_hint="--passes") from e
    with torch.set_grad_enabled(not inference):
        click.echo(_shown(explain(model, *args), level))


@main.command("inspect")
@click.argument("target", metavar="MODULE:CALLABLE")
@click.option("--target", "architecture", default="sm_90", show_default=True, help=f"One of {', '.join(TARGETS)}.")
@click.option("--inference", is_flag=True, help="Without gradients.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line instead of a table.")
@click.option("--sass", is_flag=True, help="The machine code of every kernel, too.")
def inspect_command(target: str, architecture: str, inference: bool, as_json: bool, sass: bool) -> None:
    """Shows what a model's Triton kernels take of a GPU, which need not be there.

    CALLABLE takes no arguments and returns what to compile, and what to call it with: (model, *args).
    """
    model, *args = load_target(target)
    try:
        with torch.set_grad_enabled(not inference):
            reports = list(inspect(model, *args, target=architecture))
    except UnknownTarget as e:
        raise click.BadParameter(str(e)) from e
    if as_json:
        for report in reports:
            click.echo(json.dumps(report.as_dict()))
    else:
        Console(width=max(160, Console().width)).print(_inspection_table(reports))
    if sass:
        for report in reports:
            click.echo(f"\n=== {report.kernel} ===\n{report.assembly}")


def _inspection_table(reports: Sequence[KernelReport]) -> Table:
    table = Table(box=None, pad_edge=False)
    columns = ("registers", "spilled", "shared", "warps", "occupancy", "widest load", "matrix instructions")
    table.add_column("kernel", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    for r in reports:
        share = "" if r.occupancy is None else f"{r.occupancy:.0%}"
        load = f"{r.widest_load} bits" if r.widest_load else ""
        matrix = str(r.tensor_core_instructions or "")
        cells = (str(r.registers), str(r.spilled), str(r.shared), str(r.warps), share, load, matrix)
        table.add_row(r.kernel, *cells)
    return table


def _shown(explanation: Explanation, level: str) -> str:
    match level:
        case "1":
            return explanation.level1
        case "2":
            return explanation.level2
        case "host":
            return "\n".join(explanation.host_calls) or "nothing is run by PyTorch"
        case "cost":
            return explanation.costs
        case "source":
            return explanation.source
    return str(explanation)


def load_target(spec: str) -> Sequence[Any]:
    """What ``MODULE:CALLABLE`` returns: a model and its arguments."""
    name = spec.rpartition(":")[2]
    made = load_callable(spec)()
    if not isinstance(made, (tuple, list)) or not made or not callable(made[0]):
        raise click.BadParameter(f"{name}() must return (model, *arguments), got {type(made).__name__}")
    return made


@main.command()
@click.option("--clear", is_flag=True, help="Remove all built kernels.")
def cache(clear: bool) -> None:
    """Shows where built kernels are kept, and how many."""
    info = cache_info()
    if clear:
        click.echo(f"removed {clear_cache()} entries from {info.folder}")
        return
    click.echo(f"{info.folder}\n{info.entries} entries, {info.bytes / 2**20:.1f} MiB")


main.add_command(tune_command(load_target))
