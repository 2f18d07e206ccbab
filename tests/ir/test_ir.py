"""Both levels of the IR: text that parses back, verifiers, and one definition for every operation."""

from __future__ import annotations

import dataclasses
import re

import networkx as nx
import pytest
import torch
from compiled import PAIRS
from custom_layers import CUSTOM_LAYERS
from eager_graphs import NODE_TYPES, RELATIONS, square_graphs

import columba
from columba import nn
from columba.codegen import templates
from columba.codegen.cpp import scalars
from columba.codegen.triton.scalars import CALLS, INFIX
from columba.driver import Compilation
from columba.gradient.differentiate import GRADIENTS_ONLY, POINTWISE_RULES, RULES
from columba.ir.node import structurally_equal
from columba.ir.plan.kernels import HostCall, Load, Product, Traversal
from columba.ir.plan.parsing import parse_plan
from columba.ir.plan.plan import plans_equal
from columba.ir.plan.verify import verify as verify_plan
from columba.ir.pointwise import POINTWISE
from columba.ir.program.ops import OPS, Input, Lift, Linear, Pointwise, Reduce, Value
from columba.ir.program.parsing import ParseError, parse_program
from columba.ir.program.program import Program
from columba.ir.program.verify import VerificationError, verify
from columba.ir.spaces import Space, index_map
from columba.ir.types import DType, TensorType
from columba.runtime.reference import FUNCTIONS, MEANINGS

G = square_graphs()["random"]

LAYERS = {
    "rgcn": lambda: nn.RGCNConv(4, 6, RELATIONS),
    "rgcn sum bases": lambda: nn.RGCNConv(4, 6, RELATIONS, num_bases=2, aggr="sum"),
    "rgcn blocks": lambda: nn.RGCNConv(4, 6, RELATIONS, num_blocks=2),
    "rgcn max": lambda: nn.RGCNConv(4, 6, RELATIONS, aggr="max"),
    "rgat": lambda: nn.RGATConv(4, 3, RELATIONS, heads=2),
    "rgat wide": lambda: nn.RGATConv(20, 20, RELATIONS, heads=2),
    "hgt": lambda: nn.HGTConv(4, 6, NODE_TYPES, RELATIONS, heads=2),
    **{s.name: s for s in CUSTOM_LAYERS},
}


def compilation(name: str) -> Compilation:
    made = LAYERS[name]
    if callable(made):
        layer = columba.compile(made(), passes=PAIRS)
        return columba.explain(layer, torch.randn(G.num_nodes, layer.in_channels, requires_grad=True), G).compilation
    module = made.build(RELATIONS, NODE_TYPES)
    inputs = [t.requires_grad_() for t in made.inputs(G, torch.float32)]
    return columba.explain(columba.compile(module, passes=PAIRS), G, *inputs).compilation


@pytest.mark.parametrize("name", LAYERS)
def test_text_parses_back(name: str) -> None:
    c = compilation(name)
    for program in (c.traced, c.forward, c.joint, c.backward):
        again = parse_program(str(program))
        assert str(again) == str(program)
        assert again.name == program.name
        assert structurally_equal(again.results, program.results)
        assert [i.type for i in again.inputs] == [i.type for i in program.inputs]
        verify(again)
    for plan in (c.forward_plan, c.backward_plan):
        again = parse_plan(str(plan))
        assert str(again) == str(plan)
        assert plans_equal(again, plan)
        verify_plan(again)


@pytest.mark.parametrize("name", LAYERS)
def test_compiling_twice_gives_the_same_source(name: str) -> None:
    torch.manual_seed(0)
    first = compilation(name).source()
    torch.manual_seed(0)
    assert compilation(name).source() == first


def test_the_fused_softmax_is_one_traversal() -> None:
    c = compilation("rgat wide")
    softmax = [k for k in c.forward_plan.kernels if isinstance(k, Traversal) and k.via == index_map("dst", Space.EDGE)]
    assert len(softmax) == 1
    edge_sized = [b for plan in c.plans for b in plan.buffers if b.type.space is Space.EDGE and b.type.size >= 3]
    assert not edge_sized


def test_a_program_is_a_networkx_graph() -> None:
    graph = compilation("rgat").traced.to_networkx()
    assert nx.is_directed_acyclic_graph(graph)
    assert any(data.get("op") == "softmax" or "softmax" in str(data) for _, data in graph.nodes(data=True))


# ------------------------------------------------------------------------------------------------ completeness


def test_every_operation_has_a_gradient_and_a_meaning() -> None:
    operations = set(OPS.values()) - {Input}
    assert operations - set(MEANINGS) - {Load, Product} == set()
    assert {o.op_name for o in operations - set(RULES)} - {"load", "product"} <= {"constant", "degree", "uniform"}


def test_every_pointwise_function_has_a_gradient_a_meaning_and_a_spelling() -> None:
    assert set(POINTWISE) == set(FUNCTIONS)
    boolean = {name for name, f in POINTWISE.items() if f.result == "bool"}
    assert set(POINTWISE) - set(POINTWISE_RULES) <= boolean | {"detach"}
    prelude = "".join(templates.text("columba.codegen.cpp", name) for name in ("prelude.h", "functions.h"))
    for name, f in POINTWISE.items():
        if name in GRADIENTS_ONLY:  # they are gone before kernels are made
            continue
        spelled = scalars.spell(name, ["a", "b", "c"][: f.arity], tuple(1.0 for _ in f.scalars), DType.F32)
        assert "a" in spelled
        assert name in scalars.SPELLINGS or re.search(rf"\bcb_{name}\(", prelude), f"prelude.h has no cb_{name}"
        assert name in (*INFIX, *CALLS, "pow_scalar"), f"codegen/triton/scalars.py has no {name}"


# ------------------------------------------------------------------------------------------------ broken programs

H = Input("h", TensorType(Space.NODE, (4,), DType.F32))
W = Input("w", TensorType(Space.REL, (4, 3), DType.F32))
SRC, DST, REL = (index_map(name, Space.EDGE) for name in ("src", "dst", "rel"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Lift(W, SRC), r"lift: src:edge->node needs a value in node, got rel\[4,3\] f32"),
        (lambda: Reduce(H, DST, "sum"), "reduce: dst:edge->node needs a value in edge"),
        (lambda: Reduce(Lift(H, SRC), DST, "median"), "unknown operation 'median'"),
        (lambda: Pointwise((H, Lift(H, SRC)), "add"), "add: operands must share one space"),
        (lambda: Pointwise((H,), "add"), "add: takes 2 operands, got 1"),
        (lambda: Pointwise((H,), "frobnicate"), "unknown pointwise function 'frobnicate'"),
        (lambda: Linear(Lift(H, SRC), Lift(W, REL), REL), "linear: weight must be in rel"),
        (lambda: Linear(Lift(H, SRC), W, REL, transpose=True), "has 4 features, the weight takes 3"),
    ],
)
def test_ill_typed_operations_cannot_be_made(make: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()  # type: ignore[operator]


def _broken(value: Value) -> Value:
    """The value with a type that its operands do not give it."""
    object.__setattr__(value, "type", dataclasses.replace(value.type, shape=(9,)))
    return value


def test_the_verifier_names_the_operation() -> None:
    stray = Input("stray", H.of)
    with pytest.raises(VerificationError, match="%stray is read but is no parameter"):
        verify(Program("p", (H,), (Pointwise((H, stray), "add"),), ("out",)))
    broken = Reduce(_broken(Pointwise((Lift(H, SRC),), "relu")), DST, "sum")
    with pytest.raises(
        VerificationError, match=r"pointwise says edge\[9\] f32, its operands give edge\[4\] f32(.|\n)*relu"
    ):
        verify(Program("p", (H,), (broken,), ("out",)))
    other = Input("x", TensorType(Space.SRC, (4,), DType.F32))
    with pytest.raises(VerificationError, match="both the nodes of a square graph and those of a bipartite one"):
        verify(Program("p", (H, other), (H, other), ("a", "b")))


def test_the_verifier_of_plans_names_the_kernel() -> None:
    plan = compilation("rgat").forward_plan
    kernels = [k for k in plan.kernels if not isinstance(k, HostCall)]
    with pytest.raises(ValueError, match="read|written"):
        verify_plan(dataclasses.replace(plan, kernels=tuple(reversed(kernels))))
    with pytest.raises(ValueError, match=kernels[0].name):
        verify_plan(dataclasses.replace(plan, kernels=(*plan.kernels, kernels[0])))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("program p(%h: node[4] f32) {\n  %0: node[4] f32 = frob(%h)\n  return out=%0\n}", "frob"),
        (
            "program p(%h: node[4] f32) {\n  %0: node[5] f32 = pointwise(%h, function=relu, scalars=[])\n  return out=%0\n}",
            "5",
        ),
        ("program p(%h: house[4] f32) {\n  return out=%h\n}", "house"),
        ("program p(%h: node[4] f32) {\n  return out=%1\n}", "%1"),
        ("program p(%h: node[4] f32) {\n  return out=%h ; \n}", "line 2: unexpected text '; "),
        ("program p(%h: node[4x] f32) {\n  return out=%h\n}", "line 1: unexpected text '4x"),
        ("program p(%h: node[4] f32) {\n  return out=%h\n} ~", "line 3: unexpected text '~'"),
        ("program p(%h: node[4] f32) {\n  return out=%h", "line 2: expected"),
    ],
)
def test_text_that_is_no_program(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse_program(text)
