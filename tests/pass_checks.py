"""The check of passes of both levels: Before/Expected as text, and the same numbers and gradients on random and degenerate graphs.

Texts that begin with ``plan`` are level-2 plans, all others level-1 programs. What a program means, its gradients too, is said by
:mod:`columba.runtime.reference` and torch's autograd; what a plan means by :mod:`columba.runtime.plan_reference`, and autograd.
"""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Sequence

import torch
from eager_graphs import bipartite_graphs, square_graphs
from torch import Tensor

from columba.gradient.differentiate import differentiate
from columba.ir.plan.parsing import parse_plan
from columba.ir.plan.plan import Plan, plans_equal, spaces_of
from columba.ir.plan.verify import verify as verify_plan
from columba.ir.program.parsing import parse_program
from columba.ir.program.program import Program
from columba.ir.program.verify import verify as verify_program
from columba.ir.spaces import Space
from columba.ir.types import TensorType
from columba.passes.pipeline import Pipeline, parse_passes
from columba.runtime.dtypes import torch_dtype
from columba.runtime.graphs.graph import Graph
from columba.runtime.plan_reference import run_plan
from columba.runtime.reference import evaluate

Level = Program | Plan

TOLERANCE = {torch.float64: 1e-9, torch.bfloat16: 2.0**-6, torch.float16: 2.0**-9}
"""By the type in which numbers are compared: what summing in another order may change."""


def check(passes: str, before: str, expected: str, *, halves: bool = True) -> None:
    """``before`` becomes ``expected``, which a second run leaves as it is; both have the same values and gradients.

    Without ``halves``, for passes that round elsewhere, what is declared in 16 bits is computed in float64 as well.
    """
    program, wanted = parse(before), parse(expected)
    after = transformed(passes, program)
    assert str(after) == str(wanted)
    for settled in (after, wanted):
        assert transformed(passes, settled) is settled, "a second run must change nothing"
    same_meaning(passes, before, halves=halves)


def fires(passes: str, before: str) -> Level:
    """What ``before`` becomes, for tests that do not spell it out. All else is checked as :func:`check` does."""
    program = parse(before)
    after = transformed(passes, program)
    assert str(after) != str(program), f"{passes} must fire"
    assert transformed(passes, after) is after, "a second run must change nothing"
    same_meaning(passes, before)
    return after


def unchanged(passes: str, text: str) -> None:
    """The passes give back the very object that they were given. Of a program's joint program they may make what they like, if it means
    the same."""
    program = parse(text)
    assert transformed(passes, program) is program
    same_meaning(passes, text)


def parse(text: str) -> Level:
    """The program or plan that a text describes, verified."""
    text = textwrap.dedent(text).strip()
    return verify_plan(parse_plan(text)) if text.startswith("plan") else verify_program(parse_program(text))


def transformed(passes: str, program: Level) -> Level:
    """What passes make of a program or plan. It is verified after each; and its text says all of it."""
    after = Pipeline(parse_passes(passes), verify=True).run(program)
    again = parse(str(after))
    assert plans_equal(again, after) if isinstance(after, Plan) else again == after
    return after


# ------------------------------------------------------------------------------------------------ meaning


def same_meaning(passes: str, text: str, *, halves: bool = True) -> None:
    """Results and the gradients of all floating inputs agree: those of the reference, those of what the passes make of the program or
    plan, and, of a program, those of what they make of its joint program and of the joint program of what they made.

    What is declared ``f32`` is computed in float64; the passes see it as it is declared.
    """
    before = parse(text)
    candidates: dict[str, Level] = {}
    if (after := transformed(passes, before)) is not before:
        candidates["after"] = after
    if isinstance(before, Program):
        floats = [i.name for i in before.inputs if i.dtype.is_float]
        joint = differentiate(before, floats)
        if (changed := transformed(passes, joint)) is not joint:
            candidates["joint"] = changed
        if isinstance(after, Program) and after is not before:
            candidates["joint of after"] = differentiate(after, floats)
    if not candidates:
        return
    before, candidates = wide(before, halves), {name: wide(program, halves) for name, program in candidates.items()}
    for graph_name, graph in graphs(is_square(before)).items():
        for kind in INPUTS:
            inputs = inputs_for(before, graph, kind)
            wanted, directions = results_and_gradients(before, inputs, graph)
            for name, program in candidates.items():
                where = f"{name} on {graph_name} with {kind} inputs"
                if name == "after":
                    found, _ = results_and_gradients(program, inputs, graph)
                else:
                    found = evaluate(program, [*inputs, *(d for d in directions if d is not None)], graph)
                for n, (w, f) in enumerate(zip(wanted, found, strict=True)):
                    same_numbers(f, w, f"{where}, value {n}")


def same_numbers(found: Tensor, wanted: Tensor, where: str) -> None:
    """What is finite agrees, and what is not is not finite either: which of infinity and NaN it is, reassociation may change."""
    assert found.shape == wanted.shape, where
    assert found.dtype is wanted.dtype, where
    if wanted.is_floating_point():
        finite = wanted.isfinite()
        assert torch.equal(found.isfinite(), finite), f"{where}: what is finite differs\n{found}\nexpected\n{wanted}"
        found, wanted = found[finite], wanted[finite]
    tolerance = TOLERANCE.get(wanted.dtype, 0.0)
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance, msg=lambda m: f"{where}: {m}")


def results_and_gradients(
    program: Level, inputs: Sequence[Tensor], graph: Graph
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Results, then the gradients of floating inputs by autograd; and the gradients of the results from outside, None of those that
    are not floating."""
    leaves = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    results = (run_plan if isinstance(program, Plan) else evaluate)(program, leaves, graph)  # type: ignore[operator]
    directions = [_normal(r.shape, r.dtype, 100 + n) if r.is_floating_point() else None for n, r in enumerate(results)]
    used = [(r, d) for r, d in zip(results, directions, strict=True) if r.requires_grad]
    targets = [x for x in leaves if x.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(targets)
    if used:
        found = torch.autograd.grad([r for r, _ in used], targets, [d for _, d in used], allow_unused=True)
    gradients = [torch.zeros_like(x) if g is None else g for x, g in zip(targets, found, strict=True)]
    return [*(r.detach() for r in results), *gradients], directions


def wide(program: Level, halves: bool = True) -> Level:
    """The same with what is declared ``f32`` in float64; without ``halves``, all of it."""
    return parse(re.sub(r"\bf32\b" if halves else r"\b(?:f32|bf16|f16)\b", "f64", str(program)))


def is_square(program: Level) -> bool:
    """Whether it is about a graph with one set of nodes."""
    spaces = spaces_of(program) if isinstance(program, Plan) else {v.space for v in (*program.inputs, *program.body)}
    return not {Space.SRC, Space.DST} & set(spaces)


@functools.cache
def graphs(square: bool) -> dict[str, Graph]:
    return square_graphs() if square else bipartite_graphs()


INPUTS = ("normal", "small integer")
"""What inputs hold; of the small integers many are zero, and many equal."""


def inputs_for(program: Level, graph: Graph, kind: str = INPUTS[0]) -> list[Tensor]:
    """A tensor for each input of a program or plan."""
    return [value_for(i.type, graph, kind, n) for n, i in enumerate(program.inputs)]


def value_for(kind: TensorType, graph: Graph, inputs: str, seed: int) -> Tensor:
    """A tensor for an input of this type."""
    rows = () if kind.space is Space.ONE else (graph.count(kind.space),)
    values = _normal((*rows, *kind.shape), torch.float64, seed)
    dtype = torch_dtype(kind.dtype)
    if dtype is torch.bool:
        return values > 0
    return (values if inputs == "normal" and dtype.is_floating_point else (values * 1.5).round()).to(dtype)


def _normal(shape: Sequence[int], dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
