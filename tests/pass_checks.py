"""Checks of level-1 passes: Before/Expected texts, and the same numbers before and after on random and degenerate graphs."""

from __future__ import annotations

import functools
import textwrap

import torch
from eager_graphs import square_graphs
from torch import Tensor

from columba.gradient.differentiate import differentiate
from columba.ir.program.parsing import parse_program
from columba.ir.program.program import Program
from columba.ir.spaces import Space
from columba.passes.pipeline import Pipeline, parse_passes
from columba.runtime.dtypes import torch_dtype
from columba.runtime.graphs.graph import Graph
from columba.runtime.reference import evaluate


def transformed(passes: str, program: Program) -> Program:
    return Pipeline(parse_passes(passes), verify=True).run(program)


def run(passes: str, text: str) -> str:
    return str(transformed(passes, parse_program(text)))


def check(passes: str, before: str, expected: str) -> None:
    """The text that comes out, that a second run changes nothing, and that it computes the same, gradients included."""
    expected = str(parse_program(textwrap.dedent(expected)))
    assert run(passes, before) == expected
    assert run(passes, expected) == expected, "a second run must change nothing"
    same_meaning(passes, before)


def unchanged(passes: str, text: str) -> None:
    program = parse_program(text)
    assert transformed(passes, program) is program


def same_meaning(passes: str, text: str) -> None:
    """Results, and results of the joint program with all gradients, agree in float64 on random and degenerate graphs."""
    program = parse_program(text.replace("f32", "f64"))
    floats = [i.name for i in program.inputs if i.dtype.is_float]
    for before in (program, differentiate(program, floats)):
        after = transformed(passes, before)
        for name, graph in graphs().items():
            inputs = random_inputs(before, graph)
            wanted, found = evaluate(before, inputs, graph), evaluate(after, inputs, graph)
            for result, w, f in zip(before.result_names, wanted, found, strict=True):
                torch.testing.assert_close(f, w, atol=1e-9, rtol=1e-9, msg=lambda m, n=name, r=result: f"{n}, {r}: {m}")


@functools.cache
def graphs() -> dict[str, Graph]:
    return square_graphs()


def random_inputs(program: Program, graph: Graph) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for i in program.inputs:
        rows = () if i.space is Space.ONE else (graph.count(i.space),)
        values = torch.randn((*rows, *i.shape), generator=generator, dtype=torch.float64)
        inputs.append((values * 8 if not i.dtype.is_float else values).to(torch_dtype(i.dtype)))
    return inputs
