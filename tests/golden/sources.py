"""Emitted Triton source that people have read, for plans that are stored beside it.

Plans are stored as text, so that a golden file changes only when code generation does. ``python -m tests.golden`` writes the sources
anew; ``python -m tests.golden --plans`` writes the plans as well, from the layers as they compile today.
"""

from __future__ import annotations

from pathlib import Path

import torch

import columba
from columba import nn
from columba.codegen.triton import emit
from columba.ir.plan.parsing import parse_plan
from columba.ir.plan.plan import Plan
from columba.runtime.graphs.graph import Graph

FOLDER = Path(__file__).parent / "triton"
SIZE, HEADS, RELATIONS, NODE_TYPES = 64, 4, 5, 3
PASSES = "-aggregate_first,compact_materialization"

LAYERS = {
    "rgcn": lambda: nn.RGCNConv(SIZE, SIZE, RELATIONS),
    "rgat": lambda: nn.RGATConv(SIZE, SIZE // HEADS, RELATIONS, heads=HEADS),
    "hgt": lambda: nn.HGTConv(SIZE, SIZE, NODE_TYPES, RELATIONS, heads=HEADS),
}


def names() -> list[str]:
    """The golden files that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.plan"))


def stored_plan(name: str) -> Plan:
    return parse_plan((FOLDER / f"{name}.plan").read_text(encoding="utf-8"))


def source(plan: Plan) -> str:
    """What is emitted for a plan, with one newline at its end."""
    return emit([plan]).source.rstrip("\n") + "\n"


def plans_of_layers() -> dict[str, Plan]:
    """Plans of the layers, forward and backward, by the names of golden files."""
    graph = Graph(
        torch.tensor([[0, 1, 2], [1, 2, 0]]),
        torch.tensor([0, 1, 4]),
        num_relations=RELATIONS,
        node_type=torch.tensor([0, 1, 2]),
    )
    found = {}
    for name, layer in LAYERS.items():
        x = torch.randn(graph.num_nodes, SIZE, requires_grad=True)
        compiled = columba.compile(layer(), backend="triton", passes=PASSES)
        plans = columba.explain(compiled, x, graph).compilation.plans
        found |= {f"{name}_{part}": plan for part, plan in zip(("forward", "backward"), plans, strict=True)}
    return found


def write(*, plans: bool) -> None:
    """Writes golden files; ``plans``: and the plans that they are of."""
    if plans:
        for name, plan in plans_of_layers().items():
            (FOLDER / f"{name}.plan").write_text(f"{plan}\n", encoding="utf-8")
    for name in names():
        (FOLDER / f"{name}.py").write_text(source(stored_plan(name)), encoding="utf-8")
