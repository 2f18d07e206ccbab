"""Who reads a value, asked while the program is being rewritten."""

from __future__ import annotations

from collections.abc import Callable

from columba.ir.node import Node, rewrite, users
from columba.ir.program.ops import Value
from columba.ir.program.program import Program

Rule = Callable[[Node, Callable[[Value], bool]], Node]
"""(node, ``once``) -> replacement, where ``once(value)`` says that one operation alone reads the value, and no result is it."""


def rewrite_with_readers(program: Program, rule: Rule) -> Program:
    """Rewrites bottom-up with a rule that may ask whether a value has another reader in the program as it was."""
    readers = users(program.results)
    results = set(program.results)
    origins: dict[Node, Node] = {}

    def once(value: Value) -> bool:
        old = origins.get(value, value)
        return old not in results and len(readers.get(old, ())) == 1

    return program.with_results(rewrite(program.results, lambda node: rule(node, once), origins=origins))
