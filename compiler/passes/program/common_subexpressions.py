"""Common subexpression elimination: values that say the same thing become one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from columba.ir.node import Node, rewrite
from columba.ir.program.program import Program
from columba.passes.pipeline import Pass


@dataclass(frozen=True)
class CommonSubexpressions(Pass[Program]):
    """``f(x), f(x) --> y, y`` with ``y = f(x)``.

    Every operation of level 1 is a function of its operands and data (random numbers too: their salt is data), so this
    always holds. Inputs are never merged.
    """

    def run(self, program: Program) -> Program:
        first: dict[Any, Node] = {}

        def rule(node: Node) -> Node:
            key = (type(node), tuple(map(id, node.children)), tuple(node.data.items()))
            return first.setdefault(key, node)

        return program.with_results(rewrite(program.results, rule, {i: i for i in program.inputs}))
