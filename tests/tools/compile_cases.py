"""``torch.compile`` and ``torch.export``, and what they took the place of."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx

import columba
from tests.tools.cases import REFUSED, case
from tests.tools.layers import G, X, assert_equal, model

COMPILE = "torch.compile and export"
RELATIONS = G.num_relations
ROWS: Any = ({0: Dim.DYNAMIC}, {1: Dim.DYNAMIC}, {0: Dim.DYNAMIC})


def compiled(backend: str) -> None:
    torch._dynamo.reset()
    plain = model()
    whole = torch.compile(columba.compile(plain), fullgraph=True, backend=backend)
    assert_equal(whole(G, X), plain(G, X))
    found, wanted = (torch.autograd.grad(m(G, X).square().sum(), [X, *plain.parameters()]) for m in (whole, plain))
    assert_equal(found, wanted)
    torch._dynamo.reset()


@case(
    COMPILE,
    '`torch.compile` around compiled functions, layers and models, `fullgraph=True`, `backend="aot_eager"`',
    note="each is one operator of its graph; graphs of other sizes cost one more compilation at most",
    slow=True,
)
def torch_compile_aot() -> None:
    compiled("eager")
    compiled("aot_eager")


@case(COMPILE, '`torch.compile`, `backend="inductor"`', slow=True)
def torch_compile_inductor() -> None:
    compiled("inductor")


@case(COMPILE, "`columba.as_graph` inside of `torch.compile`")
def as_graph_inside() -> None:
    torch._dynamo.reset()
    layer = columba.compile(columba.nn.RGCNConv(4, 4, RELATIONS).double())

    def step(x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        graph = columba.as_graph(edge_index, edge_type, num_nodes=x.shape[0], num_relations=RELATIONS)
        return layer(layer(x, graph).relu(), graph)

    args = torch.randn(G.num_nodes, 4, dtype=torch.float64), G.edge_index, G.edge_type
    assert_equal(torch.compile(step, fullgraph=True, backend="eager")(*args), step(*args))


@case(
    COMPILE,
    "a `columba.Graph` made inside of `torch.compile`, `fullgraph=True`",
    REFUSED,
    message="columba: a columba.Graph is made inside of torch.compile, which reads ids of tensors; use columba.as_graph(...)",
    note="Without `fullgraph`, a graph break",
)
def graph_inside() -> None:
    torch._dynamo.reset()
    edges, types = G.edge_index, G.edge_type
    torch.compile(lambda x: columba.Graph(edges, types).edges.src(x), fullgraph=True, backend="eager")(X)


@case(COMPILE, "a module that is `torch.compile`d, inside of a compiled model", note="as it is, between the programs")
def torch_compile_within() -> None:
    torch._dynamo.reset()

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = columba.nn.RGCNConv(4, 4, RELATIONS)
            self.middle = torch.compile(nn.Linear(4, 4), backend="eager")
            self.second = columba.nn.RGCNConv(4, 4, RELATIONS)
            self.double()

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.middle(self.first(x, G)), G)

    plain, x = Inside(), torch.randn(G.num_nodes, 4, dtype=torch.float64)
    assert_equal(columba.compile(plain)(x), plain(x))


@case(
    COMPILE,
    "a module that is `torch.compile`d, inside of a compiled function",
    REFUSED,
    message="what is called here is compiled by torch.compile, into kernels of its own. Call what it was made of",
)
def torch_compile_within_a_function() -> None:
    middle = torch.compile(nn.Linear(4, 4).double(), backend="eager")
    columba.compile(lambda g, x: g.edges.sum(middle(g.edges.src(x))))(G, torch.randn(G.num_nodes, 4).double())


def layer_and_tensors() -> tuple[nn.Module, tuple[Tensor, ...]]:
    layer = columba.nn.RGCNConv(4, 4, RELATIONS).double()
    return layer, (torch.randn(G.num_nodes, 4, dtype=torch.float64), G.edge_index, G.edge_type)


@case(
    COMPILE,
    "`torch.export.export`, `save`, `load`",
    note="the graph as tensors, or held by the model; the operator holds the program, so that any process that imports columba runs it",
)
def torch_export() -> None:
    plain, args = layer_and_tensors()
    program = torch.export.export(columba.compile(plain), args, dynamic_shapes=ROWS)
    other = (torch.cat([args[0], args[0]]), torch.cat([args[1], args[1] + 1], 1), torch.cat([args[2], args[2]]))
    assert_equal(program.module()(*other), plain(*other))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    assert_equal(torch.export.load(file).module()(*other), plain(*other))


@case(COMPILE, "`torch.export.export(strict=True)`", note="in its own process only", slow=True)
def strict_export() -> None:
    plain, args = layer_and_tensors()
    program = torch.export.export(columba.compile(plain), args, dynamic_shapes=ROWS, strict=True)
    assert_equal(program.module()(*args), plain(*args))


@case(COMPILE, "AOTInductor: `torch._inductor.aoti_compile_and_package`", note="called from Python", slow=True)
def aot_inductor() -> None:
    plain, args = layer_and_tensors()
    program = torch.export.export(columba.compile(plain), args, dynamic_shapes=ROWS)
    with tempfile.TemporaryDirectory() as folder:
        package = torch._inductor.aoti_compile_and_package(program, package_path=str(Path(folder) / "layer.pt2"))
        assert_equal(torch._inductor.aoti_load_package(package)(*args), plain(*args))


@case(COMPILE, "`make_fx`, `FakeTensorMode`")
def fake_tensors() -> None:
    plain, (x, *_) = layer_and_tensors()
    layer = columba.compile(plain)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert layer(mode.from_tensor(x), G).shape == (G.num_nodes, 4)
    assert_equal(make_fx(lambda x: layer(x, G))(x)(x), plain(x, G))


@case(COMPILE, "`torch.jit.trace`", REFUSED, message="is compiled, which torch.jit.trace cannot record")
def jit_trace() -> None:
    plain, args = layer_and_tensors()
    torch.jit.trace(columba.compile(plain), args)


@case(
    COMPILE,
    "`torch.jit.script`",
    REFUSED,
    message="is compiled, which torch.jit.script cannot read; use torch.export.export in its place",
)
def jit_script() -> None:
    torch.jit.script(columba.compile(layer_and_tensors()[0]))


@case(
    COMPILE,
    "`torch.onnx.export`",
    REFUSED,
    message="runs kernels that ONNX has no operators for. Save what torch.export.export gives",
)
def onnx() -> None:
    plain, args = layer_and_tensors()
    torch.onnx.export(columba.compile(plain), args, io.BytesIO(), dynamo=False)
