"""Use-def chains during rewriting: who reads a value, asked while the program is being rewritten."""

from __future__ import annotations

from collections.abc import Callable

from columba.ir.node import Node, rewrite, users
from columba.ir.program.ops import Value
from columba.ir.program.program import Program

RewriteRule = Callable[[Node, Callable[[Value], bool]], Node]
"""(node, ``once``) -> replacement, where ``once(value)`` says that one operation alone reads the value, and no result is it."""


class Rewriter:
    """Rewrites a program bottom-up, and knows of each rewritten node what it was and who read it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.users = users(program.results)
        self.results = set(program.results)
        self.origins: dict[Node, Node] = {}

    def original(self, node: Node) -> Node:
        """The node of the program as it was."""
        return self.origins.get(node, node)

    def readers(self, node: Node) -> list[Node]:
        """Who read it in the program as it was."""
        return self.users.get(self.original(node), [])

    def is_result(self, node: Node) -> bool:
        return self.original(node) in self.results

    def once(self, node: Node) -> bool:
        """Whether one operation alone reads it, and no result is it."""
        return not self.is_result(node) and len(self.readers(node)) == 1

    def run(self, rule: Callable[[Node], Node]) -> Program:
        """The program with ``rule`` applied to each node, whose operands are rewritten already."""
        return self.program.with_results(rewrite(self.program.results, rule, origins=self.origins))


def rewrite_with_readers(program: Program, rule: RewriteRule) -> Program:
    """Rewrites bottom-up with a rule that may ask whether a value has another reader, until it changes nothing.

    Of values that the rule itself has made, nobody knows the readers before the next round.
    """

    def once_over(program: Program) -> Program:
        rewriter = Rewriter(program)
        return rewriter.run(lambda node: rule(node, rewriter.once))

    return settled(program, once_over)


def settled(program: Program, step: Callable[[Program], Program]) -> Program:
    """What ``step`` makes of a program, applied until it gives back the object that it is given.

    One round does not see what it has made itself: a rule meets each node once, with its operands rewritten.
    """
    while (after := step(program)) is not program:
        program = after
    return program
