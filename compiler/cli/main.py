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
from rich.text import Text

import columba
from columba.cli.doctor import examine
from columba.cli.graphs import load_callable
from columba.cli.precompile import precompile_command
from columba.cli.tune import tune_command
from columba.datasets import statistics
from columba.inspection.explain import Explanation, explain
from columba.inspection.inspection import TARGETS, inspection
from columba.runtime.cache import cache_info, clear_cache
from columba.runtime.escape import plain
from columba.runtime.triton.aot import UnknownTarget
from columba.selection.chips import CHIPS, UnknownChip, chip


class _Main(click.Group):
    """Errors speak of files, and repeat what is in them."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as e:
            vars(e)["message"] = plain(e.message, lines=True)  # declared final, for all that it is not frozen
            raise


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
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
        table.add_row(mark, Text(plain(finding.what)), Text(plain(finding.found, lines=True)))
    console = Console()
    console.print(table)
    bad = [f for f in findings if f.ok is False]
    for finding in bad:
        click.echo(plain(f"\n{finding.what}: {finding.advice}", lines=True))
    sys.exit(1 if any(f.needed for f in bad) else 0)


@main.command("explain")
@click.argument("target", metavar="MODULE:CALLABLE")
@click.option(
    "--level",
    type=click.Choice(["all", "1", "2", "host", "cost", "gpu", "source"]),
    default="all",
    help="What to show.",
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
        click.echo(plain(_shown(explain(model, *args), level), lines=True))


@main.command("inspect")
@click.argument("target", metavar="MODULE:CALLABLE")
@click.option(
    "--target", "architecture", default=None, help=f"One of {', '.join(TARGETS)}; by default that of the chip."
)
@click.option("--chip", "chip_name", default="h100", show_default=True, help=f"One of {', '.join(CHIPS)}.")
@click.option(
    "--stats", default=None, metavar="FILE|NAME", help="Counts of another graph: a JSON file, or a published one."
)
@click.option("--inference", is_flag=True, help="Without gradients.")
@click.option("--predict", "only_predict", is_flag=True, help="Compile nothing: work, times and memory only.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object instead of tables.")
@click.option("--sass", is_flag=True, help="The machine code of every kernel, too.")
def inspect_command(
    target: str,
    architecture: str | None,
    chip_name: str,
    stats: str | None,
    inference: bool,
    only_predict: bool,
    as_json: bool,
    sass: bool,
) -> None:
    """Shows what a model takes of a GPU, which need not be there: registers and memory of its Triton kernels, what they compute and
    move, how long that takes at the chip's limits, and the most memory that a call, or a training step, needs.

    CALLABLE takes no arguments and returns what to compile, and what to call it with: (model, *args). With --stats the graph among
    the arguments only says how the model is called. columba.nn.samples has the shipped layers: columba.nn.samples:rgat.
    """
    model, *args = load_target(target)
    try:
        chosen = chip(chip_name)
    except UnknownChip as e:
        raise click.BadParameter(str(e), param_hint="--chip") from e
    try:
        given = None if stats is None else statistics(stats)
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint="--stats") from e
    wanted = None if only_predict else architecture or chosen.architecture
    try:
        with torch.set_grad_enabled(not inference):
            found = inspection(model, *args, chip=chosen, target=wanted, statistics=given)
    except UnknownTarget as e:
        raise click.BadParameter(str(e)) from e
    except KeyError as e:
        raise click.BadParameter(f"{stats}: {e.args[0]}", param_hint="--stats") from e
    click.echo(json.dumps(found.as_dict()) if as_json else plain(found.text, lines=True))
    if sass:
        for report in found.reports:
            click.echo(f"\n=== {report.kernel} ===\n{report.assembly}")


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
        case "gpu":
            return explanation.gpu()
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
    try:
        info = cache_info()
        if clear:
            click.echo(f"removed {clear_cache()} entries from {plain(info.folder)}")
            return
    except OSError as e:
        raise click.ClickException(str(e)) from e
    click.echo(f"{plain(info.folder)}\n{info.entries} entries, {info.bytes / 2**20:.1f} MiB")


main.add_command(precompile_command(load_target))
main.add_command(tune_command(load_target))
