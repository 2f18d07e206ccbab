"""``columba.explain`` says of each layer of a model what is compiled, by which route, and why not what is not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, HeteroConv, MessagePassing, RGATConv, RGCNConv, SAGEConv, WLConv

import columba
from columba.frontend.errors import TraceError

pytestmark = pytest.mark.unoptimized

X = torch.randn(6, 4)
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0], [1, 2, 3, 4, 5, 0, 3]])
TYPES = torch.tensor([0, 1, 0, 1, 0, 1, 0])


def lines(explanation: columba.Explanation) -> list[str]:
    """One for each layer, without the reasons."""
    return [str(layer).splitlines()[0] for layer in explanation.layers]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relational = RGATConv(4, 8, num_relations=2)
        self.norm = nn.LayerNorm(8)
        self.conv = GATConv(8, 4, heads=2)
        self.out = nn.Linear(8, 2)

    def forward(self, x: Tensor, edges: Tensor, types: Tensor) -> Tensor:
        x = self.norm(self.relational(x, edges, types)).relu()
        return self.out(self.conv(x, edges))


class Sorting(Net):
    def forward(self, x: Tensor, edges: Tensor, types: Tensor) -> Tensor:
        x = torch.cumsum(self.relational(x, edges, types), 0)
        return self.out(self.conv(x, edges))


class Printing(Net):
    def forward(self, x: Tensor, edges: Tensor, types: Tensor) -> Tensor:
        x = self.relational(x, edges, types)
        print(end="")
        return self.conv(x, edges)


def test_routes_and_programs() -> None:
    net = columba.compile(Net())
    found = columba.explain(net, X, EDGES, TYPES)
    programs = len(found.regions)
    assert lines(found)[0].startswith("relational (RGATConv): compiled, lowering, program")
    assert [layer.name for layer in found.layers] == ["relational", "norm", "conv", "out"]
    assert [layer.route for layer in found.layers] == ["lowering", "generic", "generic", "generic"]
    assert all(layer.runs == "compiled" and not layer.reasons for layer in found.layers)
    assert {n for layer in found.layers for n in layer.programs} == set(range(programs))
    assert "=== Layers ===\nrelational (RGATConv): compiled" in str(found)
    other = columba.explain(copy.deepcopy(net), X, EDGES, TYPES)
    assert other.layers == found.layers  # of another model that runs on the same programs


def test_the_model_itself_is_a_layer() -> None:
    (layer,) = columba.explain(RGCNConv(4, 8, 2), X, EDGES, TYPES).layers
    assert (layer.name, layer.kind, layer.runs, layer.route) == ("", "RGCNConv", "compiled", "lowering")
    assert str(layer) == "RGCNConv: compiled, lowering, program 1"
    (layer,) = columba.explain(SAGEConv(4, 8), X, EDGES).layers
    assert (layer.route, layer.programs) == ("generic", (0,))


def test_why_it_was_not_lowered() -> None:
    (layer,) = columba.explain(RGCNConv(4, 8, 2, aggr="std"), X, EDGES, TYPES).layers
    assert layer.route != "lowering"
    assert layer.reasons[-1] == "not lowered: aggr='std'" or "aggr='std'" in layer.reasons[0]


def test_what_runs_between_programs_belongs_to_no_layer() -> None:
    found = columba.explain(Sorting(), X, EDGES, TYPES)
    assert [layer.runs for layer in found.layers] == ["compiled"] * 3
    (only,) = found.breaks
    assert "cumsum" in only.reason
    assert [layer.programs for layer in found.layers[:2]] == [(0,), (1,)]


def test_layers_of_regions_and_those_in_pytorch() -> None:
    found = columba.explain(Printing(), X, EDGES, TYPES)
    assert lines(found) == [
        "relational (RGATConv): compiled, lowering, program 1",
        "conv (GATConv): compiled, generic, program 2",
    ]


def test_layers_within_layers() -> None:
    conv = HeteroConv({("a", "to", "a"): GATConv(4, 4), ("a", "of", "a"): SAGEConv(4, 4)})
    edges = {("a", "to", "a"): EDGES, ("a", "of", "a"): EDGES.flip(0)}
    found = columba.explain(conv, {"a": X}, edges)
    assert [(layer.kind, layer.route) for layer in found.layers] == [
        ("HeteroConv", "lowering"),
        ("GATConv", "generic"),
        ("SAGEConv", "generic"),
    ]
    assert all(layer.runs == "compiled" for layer in found.layers)


class Colours(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.colours, self.conv = WLConv(), GATConv(4, 4)

    def forward(self, colours: Tensor, x: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        return self.colours(colours, edges), self.conv(x, edges)


class OfSequences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = SAGEConv(4, 4, aggr="lstm"), GATConv(4, 4)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.last(self.conv(x, edges), edges)


def test_layers_that_pytorch_runs() -> None:
    first, second = columba.explain(Colours(), torch.tensor([0, 1, 0, 1, 2, 2]), X, EDGES).layers
    assert (first.name, first.runs, first.route, first.programs) == ("colours", "PyTorch", "", ())
    assert "nothing with features" in first.reasons[0]
    assert (second.name, second.runs) == ("conv", "compiled")
    in_order = EDGES[:, EDGES[1].argsort()]
    first, second = columba.explain(OfSequences(), X, in_order).layers
    assert (first.name, first.kind) == ("conv", "SAGEConv")
    assert first.runs == "partly"
    assert "lstm" in first.reasons[0]
    assert (second.name, second.runs) == ("last", "compiled")


class Peeking(MessagePassing):
    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.propagate(edges, x=x)

    def message(self, x_j: Tensor) -> Tensor:
        return x_j * x_j.abs().max().item()


class OnlyPeeking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = Peeking(), nn.Linear(4, 2)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.out(self.conv(x, edges))


def test_models_of_which_nothing_is_compiled(caplog: pytest.LogCaptureFixture) -> None:
    model = OnlyPeeking()
    layer, inner = columba.explain(model, X, EDGES).layers
    assert (layer.name, layer.runs) == ("conv", "PyTorch")
    assert (inner.name, inner.kind, inner.runs) == ("conv.aggr_module", "SumAggregation", "compiled")
    assert "item" in layer.reasons[0]
    wanted = model(X, EDGES)
    with pytest.raises(TraceError, match=r"strict=True.*item"):
        columba.compile(copy.deepcopy(model), strict=True)(X, EDGES)
    torch.testing.assert_close(columba.compile(model)(X, EDGES), wanted)
    assert caplog.text.count("Peeking runs in PyTorch") == 1  # for the class
