"""Graphs by name, on the command line."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from columba.datasets import PUBLISHED, synthetic, triples
from columba.runtime.graphs.graph import Graph

FORMS = (
    f"a published graph's statistics ({', '.join(PUBLISHED)}), with a scale if wanted (am:0.1); "
    "a file of triples of ids; or MODULE:CALLABLE"
)


def load_graph(spec: str) -> Graph:
    """The graph that ``spec`` names, in one of the :data:`FORMS`."""
    name, _, rest = spec.partition(":")
    if name in PUBLISHED:
        try:
            return synthetic(name, scale=float(rest or 1)).graph
        except ValueError as e:
            raise click.BadParameter(f"{spec}: {e}") from e
    if Path(spec).is_file():
        try:
            return triples(spec).graph
        except (ValueError, OSError) as e:
            raise click.BadParameter(f"{spec}: {e}") from e
    if not rest:
        raise click.BadParameter(f"{spec!r} is neither {FORMS}")
    made = load_callable(spec)()
    if not isinstance(made, Graph):
        raise click.BadParameter(f"{spec} must return a columba.Graph, got {type(made).__name__}")
    return made


def load_callable(spec: str) -> Callable[[], Any]:
    """The function that ``MODULE:CALLABLE`` names; MODULE is a dotted name or a path to a .py file."""
    module_name, separator, name = spec.partition(":")
    if not separator or not name:
        raise click.BadParameter(f"expected MODULE:CALLABLE, got {spec!r}")
    sys.path.insert(0, "")
    try:
        if module_name.endswith(".py"):
            path = Path(module_name)
            if not path.is_file():
                raise click.BadParameter(f"there is no file {module_name}")
            sys.path.insert(0, str(path.resolve().parent))
            module_name = path.stem
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        raise click.BadParameter(f"cannot import {module_name}: {e}") from e
    found: object = getattr(module, name, None)
    if not callable(found):
        raise click.BadParameter(f"{module_name} has no callable {name!r}")
    return found
