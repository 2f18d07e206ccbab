"""``columba precompile``: compiles a model's kernels for GPUs that need not be here, into caches that can be shipped with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from columba.inspection.ahead import jobs_for
from columba.inspection.inspection import TARGETS
from columba.runtime.escape import plain
from columba.runtime.triton.aot import UnknownTarget
from columba.runtime.triton.functions import TritonNotFound
from columba.runtime.triton.precompile import PrecompileError, precompile

CACHES = {"TRITON_CACHE_DIR": "triton", "COLUMBA_CACHE_DIR": "columba"}
"""The variables that say where caches are, and the folder of each in the one that is shipped."""


def precompile_command(load_target: Callable[[str], Sequence[Any]]) -> click.Command:
    """The command, given what loads ``MODULE:CALLABLE``."""

    @click.command("precompile")
    @click.argument("target", metavar="MODULE:CALLABLE")
    @click.option(
        "--target", "architectures", multiple=True, required=True, help=f"One of {', '.join(TARGETS)}; may be repeated."
    )
    @click.option("--inference", is_flag=True, help="Only what runs without gradients.")
    @click.option("--tf32", is_flag=True, help="Also for products of float32 that round to TF32.")
    @click.option(
        "--cache",
        type=click.Path(file_okay=False, path_type=Path),
        help="A folder for the caches, to ship; without it, this machine's caches are filled.",
    )
    @click.option("--jobs", type=click.IntRange(1), help="Processes that compile; by default one for each core.")
    def command(
        target: str,
        architectures: Sequence[str],
        inference: bool,
        tf32: bool,
        cache: Path | None,
        jobs: int | None,
    ) -> None:
        """Compiles the Triton kernels of a model for GPUs that need not be here, so that a first call there compiles nothing.

        CALLABLE takes no arguments and returns what to compile, and what to call it with: (model, *args). Kernels depend on dtypes and
        on the sizes of features, not on the graph. All variants of all plans are compiled, for training and for inference.
        """
        if cache is not None:
            for variable, folder in CACHES.items():
                (cache / folder).mkdir(parents=True, exist_ok=True)
                os.environ[variable] = str((cache / folder).resolve())
        model, *args = load_target(target)
        precisions = ("ieee", "tf32") if tf32 else ("ieee",)
        try:
            wanted = jobs_for(model, args, architectures, precisions, training=not inference)
            columns = (TextColumn("compiling"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
                bar = progress.add_task("", total=len(wanted))
                count = precompile(wanted, jobs, lambda done: progress.update(bar, completed=done))
        except UnknownTarget as e:
            raise click.BadParameter(str(e), param_hint="--target") from e
        except (PrecompileError, TritonNotFound) as e:
            raise click.ClickException(str(e)) from e
        click.echo(f"compiled {count} kernels for {', '.join(architectures)}, PyTorch {torch.__version__}")
        if cache is not None:
            shown = " ".join(f"{variable}={plain(str(cache / folder))}" for variable, folder in CACHES.items())
            click.echo(f"ship {plain(str(cache))}, and run with {shown}")

    return command
