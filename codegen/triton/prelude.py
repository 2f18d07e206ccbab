"""The functions that kernels call: those of ``prelude.py.jinja``, of which a source file has the ones that it needs."""

from __future__ import annotations

import functools
import re

from columba.codegen.templates import text


@functools.cache
def functions() -> dict[str, str]:
    """The text of every function by its name, in the order of the file."""
    blocks = re.split(r"\n\n\n", text("columba.codegen.triton", "prelude.py.jinja").strip())
    return {re.search(r"def (\w+)", b).group(1): b for b in blocks}  # type: ignore[union-attr]


def needed_by(body: str) -> str:
    """The functions that ``body`` calls, and those that they call."""
    by_name = functions()
    needed: set[str] = set()
    waiting = [body]
    while waiting:
        words = set(re.findall(r"\b(\w+)\(", waiting.pop()))
        new = [n for n in by_name if n in words and n not in needed]
        needed.update(new)
        waiting += [by_name[n].split(":\n", 1)[1] for n in new]
    return "\n\n\n".join(text for name, text in by_name.items() if name in needed)
