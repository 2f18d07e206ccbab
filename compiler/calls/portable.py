"""Programs as text that any process can call: what the operator of an exported model is called with.

The text holds the program, in the form that the IR is printed in, the options with which it is compiled, and how its graph is made of
tensors. A process that meets it parses and compiles it, once, and finds its kernels in the cache like those of any other program.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from columba.calls.flat import Made, NotFlat
from columba.calls.options import Options
from columba.calls.specialization import Kernels
from columba.frontend.sources import Seed
from columba.ir.program.parsing import parse_program
from columba.ir.program.program import Program
from columba.ir.spaces import Space
from columba.runtime import opaque
from columba.runtime.dtypes import torch_dtype
from columba.runtime.reference import evaluate

PREFIX = "columba program, form 1: "


def text_of(program: Program, options: Options, graph: Made, seeds: Sequence[int]) -> str:
    """The text of a program.

    Args:
        program: what is computed.
        options: how it is compiled.
        graph: how its graph is made of the tensors and sizes that it is called with.
        seeds: the inputs that are random numbers, by their positions; they are not passed.
    """
    if options.recipe is not None:
        raise NotFlat("it is compiled with recipe=, an object that no text stands for; say passes= instead")
    chosen = {f.name: getattr(options, f.name) for f in dataclasses.fields(options) if f.name != "recipe"}
    form = {"options": chosen, "graph": [graph.tensors, graph.options], "seeds": list(seeds), "program": str(program)}
    return PREFIX + json.dumps(form)


class Portable:
    """What such a text says, compiled."""

    def __init__(self, text: str) -> None:
        form = json.loads(text.removeprefix(PREFIX))
        self.program = parse_program(form["program"])
        self.options = Options(**form["options"])
        self.graph = Made(*_tuples(form["graph"]))
        self.seeds = set(form["seeds"])
        self.kernels = Kernels(self.program, self.options)

    def run(self, tensors: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        graph = self.graph.graph(tensors, sizes)
        given = iter(tensors)
        inputs = [
            Seed().fetch(((), {}), graph.device) if n in self.seeds else next(given)
            for n in range(len(self.program.inputs))
        ]
        for x, wanted in zip(inputs, self.program.inputs, strict=True):
            space = wanted.type.space
            if space is not Space.ONE and x.shape[0] != graph.count(space):
                raise ValueError(
                    f"columba: input {wanted.name} of {self.program.name} has {x.shape[0]} rows, and the graph {graph.count(space)} "
                    f"(space {space})"
                )
        backend = self.kernels.backend(graph, inputs)
        runnable = None if backend is None else self.kernels.usable(graph, inputs, backend)
        return evaluate(self.program, inputs, graph.structure) if runnable is None else runnable(inputs, graph)

    def fake(self, tensors: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        rows = rows_in(self.program, self.seeds, tensors)
        edges, *_ = self.graph.tensors
        rows.setdefault(Space.EDGE, tensors[edges].shape[1])
        options = dict(self.graph.sized(sizes))
        nodes = options["num_nodes"]
        known = zip((Space.SRC, Space.DST), nodes, strict=True) if isinstance(nodes, tuple) else [(Space.NODE, nodes)]
        others = (Space.REL, "num_relations"), (Space.NTYPE, "num_node_types"), (Space.GRAPH, "num_graphs")
        for space, n in (*known, *((space, options.get(name)) for space, name in others)):
            if n is not None:
                rows.setdefault(space, n)
        return [self._empty(value.type, rows, tensors[edges].device) for value in self.program.results]

    def _empty(self, kind: Any, rows: dict[Space, Any], device: torch.device) -> Tensor:
        shape: tuple[Any, ...] = tuple(kind.shape)
        if kind.space is not Space.ONE:
            n = rows.get(kind.space)
            if n is None:
                n = torch.library.get_ctx().new_dynamic_size()
            shape = (n, *shape)
        return torch.empty(shape, dtype=torch_dtype(kind.dtype), device=device)


def rows_in(program: Program, seeds: Any, tensors: Sequence[Tensor]) -> dict[Space, Any]:
    """The rows of each space of which an input has some."""
    given = iter(tensors)
    rows: dict[Space, Any] = {}
    for n, wanted in enumerate(program.inputs):
        if n not in seeds:
            x = next(given)
            if wanted.type.space is not Space.ONE:
                rows.setdefault(wanted.type.space, x.shape[0])
    return rows


def _tuples(x: Any) -> Any:
    return tuple(map(_tuples, x)) if isinstance(x, list) else x


portable = functools.lru_cache(maxsize=256)(Portable)
opaque.register_maker(PREFIX, portable)
