"""Markdown: tables, and generated sections of documents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

SECTION = re.compile(r"(?P<begin><!-- begin (?P<name>[\w ]+) -->\n).*?(?P<end><!-- end -->\n)", re.DOTALL)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; columns but the first are numbers."""
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join([' --- ', *(' ---: ' for _ in head[1:])])}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def fill(document: str, sections: Mapping[str, str]) -> str:
    """The document with what stands between ``<!-- begin NAME -->`` and ``<!-- end -->`` replaced by the section NAME.

    ValueError if the document has other sections than are given.
    """
    names = [m["name"] for m in SECTION.finditer(document)]
    if sorted(names) != sorted(sections):
        raise ValueError(f"the document has sections {', '.join(names)}; there are {', '.join(sections)}")
    return SECTION.sub(lambda m: f"{m['begin']}{sections[m['name']].rstrip()}\n{m['end']}", document)
