"""Generated statements that give back what they have computed once nothing uses it any more."""

from __future__ import annotations

import re
from collections.abc import Sequence

_COMPUTED = re.compile(r"\b(?:outputs|r|t)\d+\b")
_ASSIGNED = re.compile(r"\s*((?:outputs|r|t)\d+) = ")


def freed_after_use(lines: Sequence[str]) -> list[str]:
    """Statements with each variable that they assign deleted after its last use: what PyTorch computes between programs may be large.

    The last one, which returns, needs none of that.

    >>> freed_after_use(["t1 = f(x)", "t2 = g(t1, t0)", "outputs0 = h(t2)", "r3 = outputs0[0]", "return r3 + x"])
    ['t1 = f(x)', 't2 = g(t1, t0)', 'del t1', 'outputs0 = h(t2)', 'del t2', 'r3 = outputs0[0]', 'del outputs0', 'return r3 + x']
    """
    assigned = {match[1] for line in lines if (match := _ASSIGNED.match(line))}
    last = {name: n for n, line in enumerate(lines) for name in _COMPUTED.findall(line) if name in assigned}
    found: list[str] = []
    for n, line in enumerate(lines):
        found.append(line)
        done = [name for name, at in last.items() if at == n]
        if done and n + 1 < len(lines):
            indent = line[: len(line) - len(line.lstrip())]
            found.append(f"{indent}del {', '.join(done)}")
    return found
