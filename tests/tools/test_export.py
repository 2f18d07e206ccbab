"""``torch.export``, AOTInductor, ``make_fx`` and fake tensors of compiled models; TorchScript and ONNX, which are refused."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx

import columba
from columba.calls.portable import portable
from columba.runtime import opaque

pytestmark = pytest.mark.unoptimized

RELATIONS = 3
CALL = torch.ops.columba.call.default


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.manual_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, of TorchScript and pytrees
        yield
    torch._dynamo.reset()


def edges(nodes: int, count: int) -> tuple[Tensor, Tensor]:
    return torch.randint(nodes, (2, count)), torch.randint(RELATIONS, (count,))


def graph(nodes: int = 5, count: int = 9) -> columba.Graph:
    return columba.Graph(*edges(nodes, count), num_nodes=nodes, num_relations=RELATIONS)


def features(nodes: int) -> Tensor:
    return torch.randn(nodes, 4, dtype=torch.float64)


class Net(nn.Module):
    """Two layers, of which the second is called with what the first gives, and PyTorch around them."""

    def __init__(self, graph: columba.Graph | None = None) -> None:
        super().__init__()
        self.before = nn.Linear(4, 4)
        self.first = columba.nn.RGATConv(4, 4, RELATIONS, heads=2)
        self.dropout = nn.Dropout(0.5)
        self.second = columba.nn.RGCNConv(8, 3, RELATIONS, num_bases=2)
        self.graph = graph
        self.double()

    def forward(self, x: Tensor, *graph: Tensor) -> Tensor:
        given = graph or (self.graph,)
        h = F.relu(self.first(self.before(x), *given))
        return self.second(self.dropout(h), *given)


class Around(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.head = nn.Linear(3, 2).double()

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        return self.head(self.inner(x, edge_index, edge_type)).log_softmax(-1)


ROWS: Any = {"x": {0: Dim.DYNAMIC}, "edge_index": {1: Dim.DYNAMIC}, "edge_type": {0: Dim.DYNAMIC}}


def assert_same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected)


LOADS = """
import sys, torch, columba
program, example = sys.argv[1:]
*args, expected = torch.load(example)
torch.testing.assert_close(torch.export.load(program).module()(*args), expected)
"""


def test_a_model_whose_graph_is_tensors(tmp_path: Path) -> None:
    """Other sizes, gradients, decompositions, and another process."""
    plain = Around(Net()).eval()
    model = copy.deepcopy(plain)
    model.inner = columba.compile(model.inner, backend="torch")
    program = torch.export.export(model, (features(5), *edges(5, 9)), dynamic_shapes=ROWS)
    assert [n.target for n in program.graph.nodes if "columba" in str(n.target)] == [CALL]
    decomposed = program.run_decompositions()
    for nodes, count in ((5, 9), (8, 30), (20, 4)):
        args = features(nodes), *edges(nodes, count)
        expected = plain(*args)
        assert_same(program.module()(*args), expected)
        assert_same(decomposed.module()(*args), expected)
    module, x = program.module(), args[0].requires_grad_()
    found = torch.autograd.grad(module(*args).square().sum(), [x, *module.parameters()])
    assert_same(found, torch.autograd.grad(plain(*args).square().sum(), [x, *plain.parameters()]))

    torch.export.save(program, tmp_path / "net.pt2")
    portable.cache_clear()
    assert_same(torch.export.load(tmp_path / "net.pt2").module()(*args), expected)


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
def test_in_another_process(strict: bool, tmp_path: Path) -> None:
    model = columba.compile(Net(), backend="cpp").eval()
    args = features(5), *edges(5, 9)
    program = torch.export.export(model, args, strict=strict)
    assert_same(program.module()(*args), model(*args))
    torch.export.save(program, tmp_path / "net.pt2")
    torch.save((*args, model(*args).detach()), tmp_path / "example.pt")
    run = [sys.executable, "-c", LOADS, str(tmp_path / "net.pt2"), str(tmp_path / "example.pt")]
    loaded = subprocess.run(run, capture_output=True, text=True, check=False)
    if not strict:
        assert not loaded.returncode, loaded.stderr
    else:
        assert "nothing is compiled as 'Net#" in loaded.stderr
        assert "exported by torch.export.export(..., strict=False)" in loaded.stderr


def test_a_graph_that_the_model_holds(tmp_path: Path) -> None:
    held = graph()
    plain = Net(held).eval()
    program = torch.export.export(columba.compile(plain, backend="torch"), (features(5),))
    torch.export.save(program, tmp_path / "net.pt2")
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    del program
    for _ in range(2):
        x = features(5)
        assert_same(loaded(x), plain(x))


class Nested(nn.Module):
    """Modules in a list, which share one: torch.export then gives a proxy of each module at each access."""

    def __init__(self) -> None:
        super().__init__()
        act = nn.ReLU()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4, dtype=torch.float64), act) for _ in range(2))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        e = columba.as_graph(edge_index, num_nodes=x.shape[0]).edges
        for block in self.blocks:
            x = e.sum(e.src(block(x)))
        return x


def test_shared_modules() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = columba.compile(Nested(), backend="torch", fullgraph=True)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.inner(x, edge_index) * 2  # type: ignore[no-any-return]

    model, getting = Around(), nn.Module.__getattr__
    args = features(5), edges(5, 9)[0]
    program = torch.export.export(model, args)
    assert nn.Module.__getattr__ is getting
    torch.testing.assert_close(program.module()(*args), model(*args))
    assert len(program.state_dict) == len(model.state_dict())


def test_dropout_is_drawn_at_every_call() -> None:
    model = columba.compile(Net(), backend="torch")
    args = features(5), *edges(5, 9)
    program = torch.export.export(model, args).module()
    torch.manual_seed(3)
    found = program(*args)
    torch.manual_seed(3)
    assert_same(found, model(*args))
    assert not torch.equal(program(*args), found)


def test_for_inference_only() -> None:
    """Exported where gradients are disabled."""
    model = columba.compile(Net(), backend="torch").eval()
    args = features(5), *edges(5, 9)
    with torch.no_grad():
        module = torch.export.export(model, args).module()
    found = module(*args)
    assert_same(found, model(*args))
    with pytest.raises(RuntimeError, match="it was compiled, or exported, without: where gradients were disabled"):
        found.sum().backward()


def test_buffers_are_written() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = columba.nn.RGCNConv(4, 4, RELATIONS)
            self.norm = nn.BatchNorm1d(4)
            self.double()

        def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
            return self.norm(self.layer(x, edge_index, edge_type))

    model = columba.compile(Normed(), backend="torch")
    before = copy.deepcopy(model.state_dict())
    module = torch.export.export(model, (features(5), *edges(5, 9)), dynamic_shapes=ROWS).module()
    assert_same(dict(model.state_dict()), dict(before))
    for nodes in (5, 7):
        args = features(nodes), *edges(nodes, 9)
        assert_same(module(*args), model(*args))
    assert_same(dict(module.named_buffers()), dict(model.named_buffers()))


def test_results_of_every_space() -> None:
    @columba.compile(backend="torch")
    def several(g: columba.Graph, h: Tensor) -> Any:
        e = g.edges
        return {"n": g.num_nodes, "e": e.src(h) * 2, "r": e.sum(e.src(h), to="rel"), "one": e.mean(e.src(h), to="one")}

    class Model(nn.Module):
        def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Any:
            return several(columba.as_graph(edge_index, edge_type, num_nodes=x.shape[0], num_relations=RELATIONS), x)

    class Layer(Model):
        def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Any:
            return columba.compile(self.inside, backend="torch")(x, edge_index, edge_type)

        def inside(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Any:
            g = columba.as_graph(edge_index, edge_type, num_nodes=x.shape[0], num_relations=RELATIONS)
            return several.fn(g, x)

    module = torch.export.export(Layer(), (features(5), *edges(5, 9)), dynamic_shapes=ROWS).module()
    for nodes in (5, 7):
        args = features(nodes), *edges(nodes, 2 * nodes)
        assert_same(module(*args), Model()(*args))
    with pytest.raises(ValueError, match=r"edge_index is a F.*; a graph needs ids that can be read"):
        torch.export.export(Model(), (features(5), *edges(5, 9)))


@pytest.mark.skipif(torch.__version__.startswith("2.9."), reason="of which Dynamo does not take modules as constants")
def test_strict_export_stays_in_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    model = columba.compile(Net(), backend="torch").eval()
    args = features(5), *edges(5, 9)
    module = torch.export.export(model, args, strict=True).module()
    assert_same(module(*args), model(*args))
    monkeypatch.setattr(opaque, "_calls", {})
    with pytest.raises(
        RuntimeError, match=r"nothing is compiled as 'Net#.* exported by torch.export.export\(..., strict=False\)"
    ):
        module(*args)


@pytest.mark.slow
def test_aot_inductor(tmp_path: Path) -> None:
    model = columba.compile(Net(), backend="cpp").eval()
    program = torch.export.export(
        model, (features(5), *edges(5, 9)), dynamic_shapes=(ROWS["x"], (ROWS["edge_index"], ROWS["edge_type"]))
    )
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "net.pt2"))
    run = torch._inductor.aoti_load_package(package)
    for nodes in (5, 9):
        args = features(nodes), *edges(nodes, 3 * nodes)
        assert_same(run(*args), model(*args))


def test_fake_tensors_and_make_fx() -> None:
    model, g, x = columba.compile(Net(graph()), backend="torch").eval(), graph(), features(5)
    x.requires_grad_()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = model(mode.from_tensor(x), g)
    assert fake.shape == (5, 3)
    assert fake.dtype is torch.float64
    for kind in ("real", "fake", "symbolic"):
        recorded = make_fx(lambda x: model(x, g), tracing_mode=kind, _allow_non_fake_inputs=True)(x)
        assert_same(recorded(x), model(x, g))
    assert_same(model(x, g), columba.compile(model, disable=True)(x, g))


def test_what_cannot_be_exported() -> None:
    observed = columba.compile(Net(), backend="torch")
    observed.first.register_forward_hook(lambda *_: None)
    args = features(5), *edges(5, 9)
    expected = [observed.eval()(*args) for _ in range(2)]
    with pytest.raises(RuntimeError, match="cannot be exported, .* hooks of inner modules observe its values"):
        torch.export.export(observed, args)
    assert_same(observed(*args), expected[0])

    holding = columba.compile(Net(graph()), backend="torch").eval()
    with pytest.raises(ValueError, match=r"has shape \[6, 4\], but is used with one row per row of space node"):
        torch.export.export(holding, (features(6),))
    x = features(5)
    assert_same(holding(x), columba.compile(holding, disable=True)(x))


def test_torchscript_and_onnx_are_refused(tmp_path: Path) -> None:
    model = columba.compile(Net(), backend="torch").eval()
    args = features(5), *edges(5, 9)
    with pytest.raises(RuntimeError, match=r"Net is compiled, which torch.jit.script cannot read; use torch.export"):
        torch.jit.script(model)
    with pytest.raises(RuntimeError, match=r"decorated is compiled, which torch.jit.script cannot read"):
        torch.jit.script(decorated)
    with pytest.raises(RuntimeError, match=r"is compiled, which torch.jit.trace cannot record"):
        torch.jit.trace(model, args)
    with pytest.raises(RuntimeError, match=r"that ONNX has no operators for. Save what torch.export.export gives"):
        torch.onnx.export(model, args, str(tmp_path / "net.onnx"), dynamo=False)
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # as in the exporter that is made of torch.export, which needs a package more
        patch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
        with pytest.raises(RuntimeError, match=r"that ONNX has no operators for"):
            torch.export.export(model, args)
    assert_same(model(*args), columba.compile(model, disable=True)(*args))


@columba.compile(backend="torch")
def decorated(g: columba.Graph, h: Tensor) -> Tensor:
    return g.edges.sum(g.edges.src(h))
