"""Layers of PyTorch Geometric that have a lowering, wherever they are called: what is compiled stays the layer."""

from __future__ import annotations

import ast
import copy
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pyg_layers import compare, drawn, floats, relational_graphs, traces, typed_edges
from torch import Tensor, nn
from torch_geometric.nn import FiLMConv, HANConv, HGTConv, RGATConv, RGCNConv

import columba
from columba.frontend.pyg import LOWERINGS, lowering_of

N, R = 7, 3
GRAPHS = relational_graphs(N, R)


class Derived(RGCNConv):
    """Overrides nothing that computes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.note = "mine"

    def __repr__(self) -> str:
        return "Derived()"


class Doubled(RGCNConv):
    def message(self, x_j: Tensor, edge_type_ptr: Any) -> Tensor:
        return 2 * x_j


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = RGCNConv(6, 5, R)
        self.second = Derived(5, 4, R)
        self.checks = False

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        h = self.first(x, edge_index, edge_type).relu()
        if self.checks and h.isnan().any():
            raise ValueError("diverged")
        return self.second(h, edge_index, edge_type).log_softmax(-1)


def calls() -> list[tuple[Tensor, Tensor, Tensor]]:
    return [(floats(N, 6, seed=n), *graph) for n, graph in enumerate(GRAPHS)]


def test_pyg_is_not_imported() -> None:
    for file in Path(str(columba.frontend.pyg.__file__)).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", ())] if isinstance(node, ast.Import) else []
            assert not any("torch_geometric" in name for name in (*names, getattr(node, "module", None) or ""))


def test_classes() -> None:
    """By the exact class, or one that is derived from it and overrides nothing; every lowering stands for a class that there is."""
    assert lowering_of(Derived) is lowering_of(RGCNConv) is not None
    assert lowering_of(Doubled) is None
    assert lowering_of(nn.Linear) is None
    for one in LOWERINGS:
        kind = getattr(sys.modules[one.module], one.name)
        assert lowering_of(kind) is one
        assert one.is_of(kind.forward)


def test_whole_model() -> None:
    compiled = compare(drawn(Model()), *calls())
    assert len(traces(compiled)) == 1
    assert len(columba.explain(compiled, *calls()[0]).regions) == 1


class Sum(nn.Module):
    """Layers of several kinds on one graph, and so one program."""

    def __init__(self) -> None:
        super().__init__()
        kinds = RGCNConv(6, 4, R, num_bases=2), RGATConv(6, 2, R, heads=2), FiLMConv(6, 4, R)
        self.layers = nn.ModuleList(kinds)

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        return sum((layer(x, edge_index, edge_type) for layer in self.layers), torch.zeros(()))


@pytest.mark.unoptimized
def test_kernels() -> None:
    compare(drawn(Sum()), *calls(), backend="cpp")


def test_regions() -> None:
    """A model that runs in Python calls what is compiled of its layers."""
    model = drawn(Model())
    model.checks = True  # type: ignore[assignment]
    compiled = compare(model, *calls(), fullgraph=False)
    explanation = columba.explain(compiled, *calls()[0])
    assert [region.name for region in explanation.regions] == ["first", "second"]
    assert type(model.first) is RGCNConv


def test_class_is_compiled() -> None:
    kind = type("Here", (RGCNConv,), {"__module__": __name__})
    before = drawn(kind(6, 4, R))
    expected = [before(*call) for call in calls()]
    after = columba.compile(kind, backend="torch", fullgraph=True)(6, 4, R).double()
    after.load_state_dict(before.state_dict())
    for call, wanted in zip(calls(), expected, strict=True):
        torch.testing.assert_close(after(*call), wanted)
    assert len(traces_of_class(kind, after)) == 1


def traces_of_class(kind: Any, module: nn.Module) -> list[Any]:
    return list(vars(kind)["forward"]._of_modules.get(module, ()))


def test_stays_the_layer() -> None:
    conv = drawn(RGCNConv(6, 4, R))
    compiled = compare(conv, *calls())
    assert isinstance(compiled, RGCNConv)
    assert repr(compiled) == repr(conv)
    assert [p is q for p, q in zip(compiled.parameters(), conv.parameters(), strict=True)] == [True] * 3
    assert list(compiled.state_dict()) == list(conv.state_dict())
    for other in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
        assert other.weight is not conv.weight
        torch.testing.assert_close(other(*calls()[0]), conv(*calls()[0]))


def test_hooks() -> None:
    """On the layer itself, and on one that is called inside, of both kinds."""
    seen: list[Any] = []
    model = drawn(Model())
    compiled = columba.compile(model, backend="torch", fullgraph=True)
    handle = model.first.register_forward_hook(lambda m, args, out: seen.append(out.detach().clone()))
    for call in calls():
        torch.testing.assert_close(compiled(*call), model(*call))
    assert len(seen) == 2 * len(calls())
    for one, other in zip(seen[::2], seen[1::2], strict=True):
        torch.testing.assert_close(one, other)
    handle.remove()
    model.second.register_forward_pre_hook(lambda m, args: (args[0] * 3, *args[1:]))
    model.register_forward_hook(lambda m, args, out: out + 1)
    for call in (*calls(), *calls()):
        torch.testing.assert_close(compiled(*call), model(*call))


def test_changed_layers() -> None:
    """What the lowering takes for granted is looked at in every call: message passing that changes is not missed."""
    conv, call = drawn(RGCNConv(6, 4, R)), calls()[0]
    compiled = columba.compile(conv, backend="torch")
    torch.testing.assert_close(compiled(*call), conv(*call))
    handle = conv.register_message_forward_hook(lambda m, args, out: 2 * out)
    torch.testing.assert_close(compiled(*call), conv(*call))
    handle.remove()
    conv.message = lambda x_j, edge_type_ptr: 3 * x_j
    torch.testing.assert_close(compiled(*call), conv(*call))
    del conv.message
    conv.aggr = "sum"
    conv.aggr_module = RGCNConv(1, 1, 1, aggr="sum").aggr_module
    torch.testing.assert_close(compiled(*call), conv(*call))


def test_class_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, call = drawn(Model()), calls()[0]
    layer, whole = columba.compile(model.first, backend="torch"), columba.compile(model, backend="torch")
    before = whole(*call)
    layer(*call)
    monkeypatch.setattr(RGCNConv, "message", lambda self, x_j, edge_type_ptr: 2 * x_j)
    torch.testing.assert_close(layer(*call), model.first(*call))
    torch.testing.assert_close(whole(*call), model(*call))
    monkeypatch.undo()
    torch.testing.assert_close(whole(*call), before)
    monkeypatch.setattr(RGCNConv, "forward", lambda self, x, edge_index, edge_type: x[:, : self.out_channels] * 2)
    torch.testing.assert_close(layer(*call), model.first(*call))
    torch.testing.assert_close(whole(*call), model(*call))


def test_sparse_after_dense() -> None:
    """A sparse edge_index in the place of a dense one is the error that PyG gives, not a graph of other edges."""
    conv, (x, edges, types) = drawn(RGCNConv(6, 4, R)), calls()[0]
    compiled = columba.compile(conv, backend="torch")
    torch.testing.assert_close(compiled(x, edges, types), conv(x, edges, types))
    adjacency = torch.sparse_coo_tensor(edges, torch.ones(edges.shape[1]), (N, N), check_invariants=True).coalesce()
    with pytest.raises(NotImplementedError):
        conv(x, adjacency, types)
    with pytest.raises(NotImplementedError):
        compiled(x, adjacency, types)


class Around(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = columba.compile(inner, backend="torch", fullgraph=True)

    def forward(self, *args: Any) -> Any:
        return self.inner(*args)


TYPES = ["author", "paper", "term"], [("author", "writes", "paper"), ("paper", "by", "author")]
SIZES = {"author": 4, "paper": 6, "term": 2}
TABLES = {kind: floats(n, 5) for kind, n in SIZES.items()}, typed_edges(TYPES[1], SIZES, 9)


@pytest.mark.parametrize(
    ("layer", "args"),
    [
        pytest.param(RGCNConv(6, 4, R), calls()[0], marks=pytest.mark.slow),
        pytest.param(RGCNConv(N, 4, R), (torch.arange(N), *GRAPHS[0]), marks=pytest.mark.slow),
        (HGTConv(5, 4, TYPES), TABLES),
        pytest.param(HANConv(5, 4, TYPES), TABLES, marks=pytest.mark.slow),
    ],
    ids=["features", "ids", "one typed graph", "graphs"],
)
def test_within_torch_compile(layer: nn.Module, args: Any) -> None:
    """One operator of PyTorch's graph; results that are None (a type that nothing leads to) stay so."""
    module = Around(drawn(layer))
    around = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(around(*args), layer(*args))
    torch.testing.assert_close(torch.export.export(module, args).module()(*args), layer(*args))


def test_exported_for_all_sizes() -> None:
    module, dynamic = Around(drawn(HGTConv(5, 4, TYPES))), torch.export.Dim.DYNAMIC
    shapes = {kind: {0: dynamic} for kind in SIZES}, {name: {1: dynamic} for name in TYPES[1]}
    program = torch.export.export(module, TABLES, dynamic_shapes=(shapes,)).module()
    sizes = {"author": 7, "paper": 3, "term": 5}
    other = {kind: floats(n, 5) for kind, n in sizes.items()}, typed_edges(TYPES[1], sizes, 11)
    torch.testing.assert_close(program(*other), module.inner(*other))
