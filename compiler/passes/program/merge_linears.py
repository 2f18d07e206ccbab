"""Horizontal fusion of products: products of the same rows with several weights are one product with all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from columba.ir.node import Node, rewrite, topological, users
from columba.ir.program import build as b
from columba.ir.program.ops import Concat, Input, Lift, Linear, Pointwise, Slice, Value
from columba.ir.program.program import Program
from columba.ir.spaces import WEIGHT_SPACES, IndexMap
from columba.passes.pipeline import Pass


@dataclass(frozen=True)
class MergeLinears(Pass[Program]):
    """``linear(x, A), linear(x, B) --> y[:n], y[n:]`` with ``y = linear(x, [A B])``, whose rows of ``x`` are read once.

    Where a bias that the same map selects is added to each, one bias is added to all. Readers take their slices of the wide rows in
    place. Weights must be selected by the same map and shared by leading dimensions. It must not fire where one weight is computed
    from another's product, where a result would come to need the inputs of a weight that it did not need before (the results of a
    forward program must not wait for gradients), nor among products of weights.

    With ``wide=False`` products that fill a line of memory (:data:`LINE`) each stay apart.
    """

    wide: bool = True

    def run(self, program: Program) -> Program:
        while (group := _group(program, self.wide)) is not None:
            readers = users(program.results)
            replaced = _merged(group, [_biased(v, readers, set(program.results)) for v in group])
            program = program.with_results(rewrite(program.results, lambda node: node, replaced))
        return program


LINE = 64
"""Bytes. Rows that fill lines of their own gain nothing from lying side by side: whoever reads one of them skips the others."""


def _group(program: Program, wide: bool) -> list[Linear] | None:
    """The first products that can be one, in the program's order."""
    found: dict[tuple[Value, IndexMap], list[Linear]] = {}
    for v in program.body:
        if isinstance(v, Linear) and v.via is not None and v.shared and v.space not in WEIGHT_SPACES:
            if not wide and v.type.size * v.dtype.itemsize >= LINE:
                continue
            found.setdefault((v.x, v.via), []).append(v)
    for candidates in found.values():
        group = _independent(candidates)
        if len(group) > 1 and not _entangles(program, group):
            return group
    return None


def _independent(group: list[Linear]) -> list[Linear]:
    """Those of the products whose weights none of them computes."""
    members: set[Node] = set(group)
    return [v for v in group if not members & set(topological((v.w,)))]


def _entangles(program: Program, group: Sequence[Linear]) -> bool:
    """Whether a result would come to need inputs that it does not need now, such as gradients from outside."""
    weights = _inputs(v.w for v in group)
    for result in program.results:
        below = set(topological((result,)))
        if any(v in below for v in group) and any(i not in below for i in weights):
            return True
    return False


def _inputs(values: Iterable[Value]) -> list[Node]:
    return [v for v in topological(values) if isinstance(v, Input)]


def _biased(linear: Linear, readers: dict[Node, list[Node]], results: set[Value]) -> Pointwise | None:
    """The sum of a product and its bias, if only that is read."""
    only = readers[linear][0] if len(readers[linear]) == 1 and linear not in results else None
    if not isinstance(only, Pointwise) or only.function != "add" or only.shape != linear.shape:
        return None
    bias = _bias(only, linear)
    return only if isinstance(bias, Lift) and bias.via == linear.via and bias.shape == linear.shape[-1:] else None


def _bias(total: Pointwise, linear: Linear) -> Value:
    return total.args[1] if total.args[0] is linear else total.args[0]


def _merged(group: Sequence[Linear], sums: Sequence[Pointwise | None]) -> dict[Node, Node]:
    """Replacements for the products of a group, or for their sums with biases if all have one."""
    weights = [b.swap_last(v.w) if v.transpose else v.w for v in group]
    wide: Value = Linear(group[0].x, Concat(tuple(weights), 1), group[0].via)
    outputs: list[Value] = list(group)
    found = [s for s in sums if s is not None]
    if len(found) == len(group) and not _needs_any(found, group):
        biases = [_bias(s, v) for s, v in zip(found, group, strict=True)]
        joined = Concat(tuple(bias.x for bias in biases if isinstance(bias, Lift)), 0)
        assert group[0].via is not None
        wide = Pointwise((wide, b.lift(joined, group[0].via)), "add")
        outputs = list(found)
    axis = len(group[0].shape) - 1
    replaced: dict[Node, Node] = {}
    start = 0
    for value in outputs:
        stop = start + value.shape[-1]
        replaced[value] = Slice(wide, axis, start, stop)
        start = stop
    return replaced


def _needs_any(sums: Sequence[Pointwise], group: Sequence[Linear]) -> bool:
    """Whether a bias is computed from one of the products."""
    members: set[Node] = set(group)
    return any(members & set(topological((_bias(s, v),))) for s, v in zip(sums, group, strict=True))
