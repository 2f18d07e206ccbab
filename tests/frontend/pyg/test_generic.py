"""Layers of PyG without a lowering: their own ``forward``, traced as it stands."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compiled import assert_same, leaf, randomized
from torch import Tensor, nn

import columba
from columba.frontend.sources import Prepared

pytestmark = pytest.mark.unoptimized

pyg = pytest.importorskip("torch_geometric.nn")


def edges(nodes: int, count: int, seed: int = 0) -> Tensor:
    return torch.randint(nodes, (2, count), generator=torch.Generator().manual_seed(seed))


def edges_within(batch: Tensor, count: int, seed: int = 0) -> Tensor:
    """Edges both ends of which are nodes of one graph."""
    found = edges(len(batch), count, seed)
    return found[:, batch[found[0]] == batch[found[1]]]


def traces_of(model: nn.Module) -> list[Any]:
    return type(model).forward._of_modules[model]  # type: ignore[attr-defined, no-any-return]


class Molecules(nn.Module):
    """Two kinds of layers, a norm and a readout of each graph of a batch."""

    def __init__(self, pool: Callable[..., Tensor]) -> None:
        super().__init__()
        self.first = pyg.GINConv(
            nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Linear(6, 6))
        )
        self.second = pyg.GCNConv(6, 6)
        self.norm = pyg.GraphNorm(6)
        self.pool = pool

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        x = F.relu(self.first(x, edge_index))
        x = self.norm(self.second(x, edge_index), batch)
        return self.pool(x, batch)


@pytest.mark.parametrize("pool", [pyg.global_mean_pool, pyg.global_max_pool], ids=["mean", "max"])
def test_batches_of_any_size_are_one_trace(pool: Callable[..., Tensor]) -> None:
    eager = randomized(Molecules(pool), torch.float64)
    model = columba.compile(copy.deepcopy(eager), backend="torch", fullgraph=True)
    for nodes, count, graphs in ((9, 40, 3), (9, 40, 3), (14, 61, 5), (5, 18, 2)):
        batch = torch.arange(nodes) * graphs // nodes
        args = (leaf(nodes, 4, seed=nodes), edges_within(batch, count, nodes), batch)
        assert_same(model, eager, args)
        torch.testing.assert_close(list(model.buffers()), list(eager.buffers()))
    (only,) = traces_of(model)
    assert len(only.trace.parts) == 2  # GCNConv adds loops: norm and readout move along its graph


NORMS: dict[str, Callable[[], nn.Module]] = {
    "LayerNorm": lambda: pyg.LayerNorm(4),
    "PairNorm": pyg.PairNorm,
    "MeanSubtractionNorm": pyg.MeanSubtractionNorm,
    "GraphNorm": lambda: pyg.GraphNorm(4),
    "DiffGroupNorm": lambda: pyg.DiffGroupNorm(4, 3),
    "InstanceNorm": lambda: pyg.InstanceNorm(4),
    "InstanceNorm with statistics": lambda: pyg.InstanceNorm(4, affine=True, track_running_stats=True),
    "GraphSizeNorm": pyg.GraphSizeNorm,
    "MessageNorm": lambda: pyg.MessageNorm(learn_scale=True),
}


class BetweenLayers(nn.Module):
    """All nodes are one graph to a norm that is not told of a batch."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.second = pyg.GraphConv(4, 4), norm, pyg.SAGEConv(4, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.first(x, edge_index)
        h = self.norm(x, h) if isinstance(self.norm, pyg.MessageNorm) else self.norm(h)
        return self.second(h.relu(), edge_index)


@pytest.mark.parametrize("name", NORMS)
def test_norms_of_all_nodes_are_part_of_the_program(name: str) -> None:
    eager = randomized(BetweenLayers(NORMS[name]()), torch.float64)
    model = columba.compile(copy.deepcopy(eager), backend="torch", fullgraph=True)
    for nodes, count in ((6, 15), (9, 20)):
        assert_same(model, eager, (leaf(nodes, 4), edges(nodes, count)))
        torch.testing.assert_close(list(model.buffers()), list(eager.buffers()))
    (only,) = traces_of(model)
    assert len(only.trace.parts) == 1
    model.eval(), eager.eval()
    assert_same(model, eager, (leaf(6, 4), edges(6, 15)))


def test_a_model_is_one_program() -> None:
    eager = randomized(pyg.GCN(4, 6, 3, dropout=0.0), torch.float64)
    model = columba.compile(eager, backend="cpp", fullgraph=True)
    assert [id(p) for p in model.parameters()] == [id(p) for p in eager.parameters()]
    index = edges(7, 20)
    for _ in range(4):
        assert_same(model, eager, (leaf(7, 4), index), tuple(eager.parameters()))
    (only,) = traces_of(model)
    assert len(only.trace.parts) == 1
    assert only.shortcut is not None
    assert (
        sum(isinstance(guard.source, Prepared) for _, guard in only.trace.tensors) == 2
    )  # edges with loops, and their weights


def test_a_recurrent_network_runs_between_programs() -> None:
    eager = randomized(pyg.GCN(4, 6, 3, 4, jk="lstm"), torch.float64)
    model = columba.compile(copy.deepcopy(eager), backend="torch")
    for nodes, count in ((6, 15), (9, 20), (6, 15)):
        assert_same(model, eager, (leaf(nodes, 4), edges(nodes, count)))
    (only,) = traces_of(model)  # of any number of nodes
    assert len(only.trace.parts) == 1
    assert ["'lstm' is not supported" in why for _, why in only.trace.breaks] == [True]


class Mean(pyg.MessagePassing):
    """A layer of somebody's own."""

    def __init__(self) -> None:
        super().__init__(aggr=["mean", "std", "softmax"])
        self.lin = nn.Linear(3, 4)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        alpha = self.edge_updater(edge_index, x=x)
        return self.propagate(edge_index, x=x, alpha=alpha, edge_attr=edge_attr)

    def edge_update(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return torch.sigmoid((x_i * x_j).sum(-1, keepdim=True))

    def message(self, x_j: Tensor, alpha: Tensor, edge_attr: Tensor, size_i: int) -> Tensor:
        return alpha * (x_j + self.lin(edge_attr)) / size_i

    def update(self, inputs: Tensor, x: Tensor) -> Tensor:
        return torch.cat([inputs, x], -1)


def test_layers_of_ones_own_and_what_changes_them() -> None:
    eager = randomized(Mean(), torch.float64)
    model = columba.compile(eager, backend="torch")
    args = (leaf(5, 4), edges(5, 12), leaf(12, 3, seed=1))

    def check() -> None:
        for _ in range(2):
            assert_same(model, eager, args, tuple(eager.parameters()))

    check()
    handles = [
        eager.register_message_forward_hook(lambda module, inputs, out: out * 2),
        eager.register_propagate_forward_pre_hook(
            lambda module, inputs: (*inputs[:2], {**inputs[2], "x": inputs[2]["x"] + 1})
        ),
    ]
    check()
    for handle in handles:
        handle.remove()
    check()
    eager.message = lambda x_j, alpha, edge_attr, size_i: 3 * x_j  # type: ignore[method-assign]
    check()
    del eager.message
    check()
    assert len(traces_of(model)) >= 2


def test_both_sides_of_a_bipartite_graph() -> None:
    eager = randomized(pyg.GATConv((4, 3), 5, heads=2, add_self_loops=False), torch.float64)
    model = columba.compile(eager, backend="torch", fullgraph=True)
    for users, items, count in ((6, 4, 15), (5, 5, 9), (3, 7, 9)):
        index = torch.stack([torch.randint(users, (count,)), torch.randint(items, (count,))])
        assert_same(model, eager, ((leaf(users, 4), leaf(items, 3, seed=1)), index), tuple(eager.parameters()))
    eager = randomized(pyg.SAGEConv((4, 3), 5), torch.float64)
    model = columba.compile(eager, backend="torch", fullgraph=True)
    index = torch.tensor([[0, 5, 2], [1, 1, 3]])
    for _ in range(2):
        assert_same(
            lambda x, i: model((x, None), i, size=(6, 4)),
            lambda x, i: eager((x, None), i, size=(6, 4)),
            (leaf(6, 4), index),
        )


def test_attention_weights_and_loops_of_a_call() -> None:
    eager = randomized(pyg.GATConv(4, 3, heads=2, edge_dim=2), torch.float64)
    model = columba.compile(eager, backend="torch", fullgraph=True)
    for nodes, count in ((6, 14), (6, 14), (4, 9)):
        args = (leaf(nodes, 4), edges(nodes, count), leaf(count, 2, seed=2))
        wanted, (index, alpha) = eager(*args, return_attention_weights=True)
        out, (found, weights) = model(*args, return_attention_weights=True)
        torch.testing.assert_close((out, weights), (wanted, alpha))
        assert torch.equal(found, index)
        assert_same(model, eager, args)


def test_sparse_adjacencies_run_as_they_were() -> None:
    eager = pyg.SAGEConv(4, 3)
    model = columba.compile(eager, backend="torch")
    x, index = torch.randn(4, 4), torch.tensor([[0, 1, 2], [1, 2, 3]])
    adjacency = torch.sparse_coo_tensor(index.flip(0), torch.ones(3), (4, 4), check_invariants=True).to_sparse_csr()
    for _ in range(2):
        torch.testing.assert_close(model(x, adjacency), eager(x, index))
        torch.testing.assert_close(model(x, index), eager(x, index))


def test_strict(caplog: pytest.LogCaptureFixture) -> None:
    """A layer that runs in PyTorch is an error, what is no layer is not; without it there is one warning."""

    class Model(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            print(end="")
            return self.layer(x, edge_index)

    class Printing(pyg.SAGEConv):
        def message(self, x_j: Tensor) -> Tensor:
            print(end="")
            return x_j

    args = torch.randn(4, 4), edges(4, 9)
    columba.compile(Model(pyg.SAGEConv(4, 3)), backend="torch", strict=True)(*args)
    for model in (Model(Printing(4, 3)), Printing(4, 3)):
        with pytest.raises(
            columba.TraceError, match="Printing runs in PyTorch, which strict=True makes an error.*print"
        ):
            columba.compile(model, backend="torch", strict=True)(*args)
        for _ in range(2):
            columba.compile(model, backend="torch")(*args)
    assert sum("Printing runs in PyTorch" in r.getMessage() for r in caplog.records) == 1


def test_no_tensor_of_mesh_cnn_holds_all_edges() -> None:
    """It takes gathered rows apart by fours, and fills a tensor by fours: nothing of that is left to PyTorch, for meshes of all sizes."""
    eager = randomized(pyg.MeshCNNConv(5, 3), torch.float32)
    model = columba.compile(copy.deepcopy(eager), backend="torch", fullgraph=True)
    for nodes in (6, 9, 4):
        neighbours = edges(nodes, 4 * nodes, nodes)[0]
        given = torch.stack([torch.arange(nodes).repeat_interleave(4), neighbours])
        for index in (given, given.flip(0), edges(nodes, 4 * nodes)):
            args = leaf(nodes, 5, dtype=torch.float32), index
            assert_same(model, eager, args)
    (only,) = traces_of(model)
    assert not only.trace.replayed
    assert all("src3:edge->node" in str(part.program) for part in only.trace.parts)
