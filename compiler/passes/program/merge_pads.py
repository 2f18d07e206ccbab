"""Concatenation: a sum of parts, each in its place among zeros, is the parts side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from columba.ir.node import Node
from columba.ir.program.ops import Concat, Pad, Pointwise, Value
from columba.ir.program.program import Program
from columba.passes.pipeline import Pass
from columba.passes.program.rewriting import rewrite_with_readers


@dataclass(frozen=True)
class MergePads(Pass[Program]):
    """``pad(a, 0) + pad(b, len a) --> concat(a, b)``, in sums of any length and order: the gradient of what is read by slices.

    It must not fire where the parts overlap or leave gaps, or for steps.
    """

    def run(self, program: Program) -> Program:
        return rewrite_with_readers(program, _rule)


def _rule(node: Node, once: Callable[[Value], bool]) -> Node:
    if not isinstance(node, Pointwise) or node.function != "add":
        return node
    pads = _terms(node, once, root=True)
    if pads is None or len({(p.axis, p.size) for p in pads}) > 1:
        return node
    pads.sort(key=lambda p: p.start)
    end = 0
    for p in pads:
        if p.start != end or p.step != 1:
            return node
        end += p.x.shape[p.axis]
    return Concat(tuple(p.x for p in pads), pads[0].axis) if end == pads[0].size else node


def _terms(value: Value, once: Callable[[Value], bool], *, root: bool = False) -> list[Pad] | None:
    """The terms of a sum, if all are pads."""
    if isinstance(value, Pad):
        return [value]
    if not isinstance(value, Pointwise) or value.function != "add" or not (root or once(value)):
        return None
    found: list[Pad] = []
    for arg in value.args:
        terms = _terms(arg, once)
        if terms is None:
            return None
        found += terms
    return found
