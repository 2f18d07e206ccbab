"""The tools of PyTorch that are tried on compiled code: one list, which the tests run and ``docs/pytorch.md`` is generated from.

Each file ``*_cases.py`` beside this one registers cases with :func:`case`. A case is a function that uses a tool and checks what comes out;
what is expected of it is part of the case, and the test holds it to that:

- ``WORKS``: it ends without an error, and nothing is said about kernels that were not used.
- ``THROUGH_PYTORCH``: the values are right, but PyTorch's operators computed them; Columba said so, once.
- ``REFUSED``: it ends in an error whose message holds ``message``, which the table shows.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORKS = "works"
THROUGH_PYTORCH = "runs through PyTorch"
REFUSED = "refused"

SECTIONS = ("Derivatives", "torch.compile and export", "Precision and memory", "Training", "Distributed", "Inspection")
"""The parts of the table, in its order."""


@dataclass(frozen=True)
class Case:
    """One use of a tool.

    Attributes:
        section: the part of the table.
        tool: what the table calls it, in Markdown.
        outcome: what is expected.
        note: a few words for the table: on what, or how far.
        message: of a refusal, as it is said, from its first to its last word; may leave out what differs from call to call as ``...``.
        slow: whether trying it takes so long that the quick suite leaves it out.
        run: uses the tool. ``AssertionError`` if values are wrong.
    """

    section: str
    tool: str
    outcome: str
    note: str
    message: str
    slow: bool
    run: Callable[[], Any]

    @property
    def name(self) -> str:
        return self.run.__name__


CASES: dict[str, Case] = {}


def case(
    section: str, tool: str, outcome: str = WORKS, note: str = "", message: str = "", slow: bool = False
) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Registers a function without arguments as a case."""
    if section not in SECTIONS:
        raise ValueError(f"no such section: {section!r}; one of {', '.join(SECTIONS)}")
    if (outcome == REFUSED) != bool(message):
        raise ValueError("a refusal, and nothing else, has a message")

    def register(run: Callable[[], Any]) -> Callable[[], Any]:
        if run.__name__ in CASES:
            raise ValueError(f"two cases are called {run.__name__}")
        CASES[run.__name__] = Case(section, tool, outcome, note, message, slow, run)
        return run

    return register


@functools.cache
def all_cases() -> tuple[Case, ...]:
    """All cases, section by section, in the order in which they are written."""
    for path in sorted(Path(__file__).parent.glob("*_cases.py")):
        importlib.import_module(f"tests.tools.{path.stem}")
    return tuple(one for section in SECTIONS for one in CASES.values() if one.section == section)


def table() -> str:
    """The tables of ``docs/pytorch.md``."""
    parts = []
    for section in SECTIONS:
        rows = [one for one in all_cases() if one.section == section]
        if rows:
            lines = [
                f"### {section}\n",
                "| tool | |",
                "|---|---|",
                *(f"| {one.tool} | {_outcome(one)} |" for one in rows),
            ]
            parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _outcome(one: Case) -> str:
    said = f": {one.message}" if one.message else ""
    return f"{one.outcome}{said}{f'. {one.note}' if said and one.note else f': {one.note}' if one.note else ''}"
