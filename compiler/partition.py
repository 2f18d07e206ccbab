"""The joint program cut in two: what runs forward, what runs backward, and what passes between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from columba.ir.interop.ops import FeatureReduce, Input, Linear, OuterReduce, Reduce, Value
from columba.ir.interop.program import Program
from columba.ir.node import Node, rewrite, topological

KEPT = (Linear, OuterReduce, Reduce, FeatureReduce)
"""Operations whose results are saved. All others cost less to compute again than to keep."""

Source = tuple[Literal["input", "result", "grad"], int]
"""Where a backward input comes from: an input or a result of the forward program, or the gradient of a result, by position."""


@dataclass(frozen=True)
class Partition:
    """``forward`` returns the program's results, then what is saved; ``sources[i]`` says what backward input ``i`` is."""

    forward: Program
    backward: Program
    sources: tuple[Source, ...]


def partition(joint: Program, inputs: int, results: int) -> Partition:
    """Cuts a joint program, whose first ``inputs`` inputs and ``results`` results are the forward ones.

    A forward value that the backward program reads is an input, or saved if it is the result of a product or a reduction that
    the forward program computes, or else computed again from its operands.
    """
    primals, grads = joint.inputs[:inputs], joint.inputs[inputs:]
    late: set[Node] = set(grads)
    for v in joint.body:
        if any(c in late for c in v.children):
            late.add(v)
    early = set(topological(joint.results[:results]))
    saved = _saved(joint.results[results:], early, late)

    names = _names(len(saved), {i.name for i in joint.inputs} | set(joint.result_names))
    forward_results = (*joint.results[:results], *(v for v in saved if v not in joint.results[:results]))
    forward_names = (*joint.result_names[:results], *names[: len(forward_results) - results])
    forward = Program(joint.name, primals, forward_results, forward_names)

    edge: dict[Node, Node] = {v: Input(f"saved_{v.op_name}_{n}", v.type) for n, v in enumerate(saved)}
    backward_results = rewrite(joint.results[results:], lambda node: node, edge)
    used = {v for v in topological(backward_results) if isinstance(v, Input)}
    sources: list[tuple[Input, Source]] = []
    sources += [(i, ("input", n)) for n, i in enumerate(primals) if i in used]
    sources += [(e, ("result", forward_results.index(v))) for v, e in edge.items() if e in used]  # type: ignore[arg-type, misc]
    by_name = {name: n for n, name in enumerate(joint.result_names[:results])}
    sources += [(g, ("grad", by_name[g.name.removeprefix("grad_")])) for g in grads if g in used]
    backward = Program(
        f"{joint.name}_backward", tuple(i for i, _ in sources), backward_results, joint.result_names[results:]
    )
    return Partition(forward, backward, tuple(s for _, s in sources))


def _saved(wanted: Sequence[Value], early: set[Node], late: set[Node]) -> list[Value]:
    """The forward values to save, in a reproducible order."""
    found: dict[Value, None] = {}
    seen: set[Node] = set()
    stack: list[Node] = list(reversed(wanted))
    while stack:
        v = stack.pop()
        if v in seen:
            continue
        seen.add(v)
        if v not in late and v in early and isinstance(v, KEPT):
            found[v] = None
        else:
            stack.extend(reversed(v.children))
    return list(found)


def _names(count: int, taken: set[str]) -> list[str]:
    names: list[str] = []
    n = 0
    while len(names) < count:
        if (name := f"saved_{n}") not in taken:
            names.append(name)
        n += 1
    return names
