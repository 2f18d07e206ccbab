"""Partitioning of the joint program: the joint program cut in two: what runs forward, what runs backward, and what passes between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from columba.gradient.saving import Saving
from columba.ir.node import Node, rewrite, topological
from columba.ir.plan.planned import BackwardSource
from columba.ir.program.ops import Constant, Input, Value
from columba.ir.program.program import Program


@dataclass(frozen=True)
class Partition:
    """``forward`` returns the program's results, then what is saved; ``sources[i]`` says what backward input ``i`` is."""

    forward: Program
    backward: Program
    sources: tuple[BackwardSource, ...]


def partition(joint: Program, inputs: int, results: int, saving: Saving | None = None) -> Partition:
    """Cuts a joint program, whose first ``inputs`` inputs and ``results`` results are the forward ones.

    A forward value that the backward program reads is an input, or saved, or computed again from its operands: as ``saving`` says.
    """
    primals, grads = joint.inputs[:inputs], joint.inputs[inputs:]
    late: set[Node] = set(grads)
    for v in joint.body:
        if any(c in late for c in v.children):
            late.add(v)
    needed = _needed(joint.results[results:], late)
    saved = (saving or Saving()).choose(joint.results[:results], needed)

    names = _names(len(saved), {i.name for i in joint.inputs} | set(joint.result_names))
    forward_results = (*joint.results[:results], *(v for v in saved if v not in joint.results[:results]))
    forward_names = (*joint.result_names[:results], *names[: len(forward_results) - results])
    forward = Program(joint.name, primals, forward_results, forward_names)

    edge: dict[Node, Node] = {v: Input(f"saved_{v.op_name}_{n}", v.type) for n, v in enumerate(saved)}
    backward_results = rewrite(joint.results[results:], lambda node: node, edge)
    used = {v for v in topological(backward_results) if isinstance(v, Input)}
    sources: list[tuple[Input, BackwardSource]] = []
    sources += [(i, ("input", n)) for n, i in enumerate(primals) if i in used]
    sources += [(e, ("result", forward_results.index(v))) for v, e in edge.items() if e in used]  # type: ignore[arg-type, misc]
    by_name = {name: n for n, name in enumerate(joint.result_names[:results])}
    sources += [(g, ("grad", by_name[g.name.removeprefix("grad_")])) for g in grads if g in used]
    backward = Program(
        f"{joint.name}_backward", tuple(i for i, _ in sources), backward_results, joint.result_names[results:]
    )
    return Partition(forward, backward, tuple(s for _, s in sources))


def _needed(wanted: Sequence[Value], late: set[Node]) -> list[Value]:
    """What the backward program reads of what does not depend on gradients from outside, in a reproducible order."""
    found: dict[Value, None] = {v: None for v in wanted if v not in late}
    for v in topological(wanted):
        if v in late:
            found.update((c, None) for c in v.children if isinstance(c, Value) and c not in late)
    return [v for v in found if not isinstance(v, (Input, Constant))]


def _names(count: int, taken: set[str]) -> list[str]:
    names: list[str] = []
    n = 0
    while len(names) < count:
        if (name := f"saved_{n}") not in taken:
            names.append(name)
        n += 1
    return names
