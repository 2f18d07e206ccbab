"""Models that people make of PyG: what can be compiled of each is, and values and gradients are those of the uncompiled one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric import nn as pyg
from torch_geometric.data import Data
from torch_geometric.nn import models
from torch_geometric.utils import dropout_edge

import columba

pytestmark = pytest.mark.unoptimized

NODES, F = 40, 8
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(NODES, F, generator=GENERATOR, dtype=torch.float64)
EDGES = torch.randint(NODES, (2, 160), generator=GENERATOR)
WEIGHTS = torch.randn(160, 3, generator=GENERATOR, dtype=torch.float64)
BATCH = torch.arange(NODES) // 10
PAIRS = torch.randint(20, (2, 33), generator=GENERATOR)

MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[Any, ...]]]] = {}


def model(made: Callable[[], tuple[nn.Module, tuple[Any, ...]]]) -> None:
    MODELS[made.__name__] = made


class Of(nn.Module):
    """A forward, and the modules that it calls."""

    def __init__(self, forward: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *args: Any) -> Any:
        return self.function(self, *args)


@model
def deep_gcn() -> Any:
    def layer() -> nn.Module:
        conv = pyg.GENConv(16, 16, aggr="softmax", learn_t=True, num_layers=2, norm="layer")
        return pyg.DeepGCNLayer(conv, nn.LayerNorm(16), nn.ReLU(inplace=True), block="res+", dropout=0.0)

    def forward(self: Any, x: Tensor, edges: Tensor, weights: Tensor) -> Tensor:
        x, weights = self.nodes(x), self.edges(weights)
        x = self.layers[0].conv(x, edges, weights)
        for one in self.layers[1:]:
            x = one(x, edges, weights)
        return self.layers[0].act(self.layers[0].norm(x))

    layers = nn.ModuleList(layer() for _ in range(3))
    return Of(forward, nodes=nn.Linear(F, 16), edges=nn.Linear(3, 16), layers=layers), (X, EDGES, WEIGHTS)


@model
def autoencoder() -> Any:
    def forward(self: Any, x: Tensor, edges: Tensor) -> Tensor:
        return self.gae.decode(self.gae.encode(x, edges), edges)

    return Of(forward, gae=pyg.GAE(pyg.GCN(F, 16, 2, 8))), (X, EDGES)


@model
def variational_autoencoder() -> Any:
    """Keeps what the loss is made of on itself."""
    encoder = Of(
        lambda self, x, e: (self.mean(x, e), self.deviation(x, e)), mean=pyg.GCNConv(F, 8), deviation=pyg.GCNConv(F, 8)
    )

    def forward(self: Any, x: Tensor, edges: Tensor) -> Any:
        return self.vgae.encode(x, edges), self.vgae.kl_loss()

    return Of(forward, vgae=pyg.VGAE(encoder)).eval(), (X, EDGES)


@model
def u_net() -> Any:
    return pyg.GraphUNet(F, 16, 4, depth=2).eval(), (X, EDGES)


@model
def top_k_pooling() -> Any:
    def forward(self: Any, x: Tensor, edges: Tensor, batch: Tensor) -> Tensor:
        x, edges, _, batch, *_ = self.pool(self.first(x, edges).relu(), edges, None, batch)
        x = self.second(x, edges)
        return torch.cat([pyg.global_max_pool(x, batch), pyg.global_mean_pool(x, batch)], 1)

    modules = {"first": pyg.GraphConv(F, 16), "pool": pyg.TopKPooling(16, 0.8), "second": pyg.GraphConv(16, 8)}
    return Of(forward, **modules), (X, EDGES, BATCH)


@model
def attentive_fingerprints() -> Any:
    return pyg.AttentiveFP(F, 16, 4, edge_dim=3, num_layers=2, num_timesteps=2), (X, EDGES, WEIGHTS, BATCH)


@model
def linkx() -> Any:
    return pyg.LINKX(NODES, F, 16, 4, num_layers=2), (X, EDGES)


@model
def schnet() -> Any:
    def edges_of(positions: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        return EDGES, (positions[EDGES[0]] - positions[EDGES[1]]).norm(dim=-1)

    made = models.SchNet(16, 16, num_interactions=2, num_gaussians=8, interaction_graph=edges_of)
    kinds = torch.randint(10, (NODES,), generator=torch.Generator().manual_seed(1))
    return made, (kinds, X[:, :3].contiguous(), BATCH)


@model
def set_to_set() -> Any:
    def forward(self: Any, x: Tensor, edges: Tensor, batch: Tensor) -> Tensor:
        return self.pool(self.conv(x, edges), batch)

    mlp = nn.Sequential(nn.Linear(F, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16))
    return Of(forward, conv=pyg.GINConv(mlp), pool=pyg.Set2Set(16, 2)), (X, EDGES, BATCH)


@model
def attention_pooling() -> Any:
    def forward(self: Any, x: Tensor, edges: Tensor, weights: Tensor, batch: Tensor) -> Tensor:
        return self.pool(self.conv(x, edges, weights), batch)

    pool = pyg.AttentionalAggregation(nn.Linear(16, 1), nn.Linear(16, 8))
    return Of(forward, conv=pyg.GATv2Conv(F, 8, heads=2, edge_dim=3), pool=pool), (X, EDGES, WEIGHTS, BATCH)


@model
def sorted_pooling() -> Any:
    def forward(self: Any, x: Tensor, edges: Tensor, batch: Tensor) -> Tensor:
        return self.pool(self.conv(x, edges), batch)

    return Of(forward, conv=pyg.GCNConv(F, 8), pool=pyg.SortAggregation(k=4)), (X, EDGES, BATCH)


@model
def links_of_one_type() -> Any:
    def forward(self: Any, x: Tensor, edges: Tensor, pairs: Tensor) -> Tensor:
        x = self.conv(x, edges)
        return (self.out(x)[pairs[0]] * x[pairs[1]]).sum(-1)

    return Of(forward, conv=pyg.SAGEConv(F, 8), out=nn.Linear(8, 8)), (X, EDGES, PAIRS)


@model
def links_between_types() -> Any:
    def forward(self: Any, x: dict[str, Tensor], edges: Any, pairs: Tensor) -> Tensor:
        x = self.conv(x, edges)
        return (x["user"][pairs[0]] * x["item"][pairs[1]]).sum(-1)

    there, back = ("user", "rates", "item"), ("item", "rated by", "user")
    conv = pyg.HeteroConv({there: pyg.SAGEConv((-1, -1), 8), back: pyg.GATConv((-1, -1), 8, add_self_loops=False)})
    edges = {there: EDGES % 20, back: (EDGES % 20).flip(0)}
    return Of(forward, conv=conv), ({"user": X[:20, :5], "item": X[20:]}, edges, PAIRS)


@model
def rows_of_a_mask() -> Any:
    def forward(self: Any, x: Tensor, edges: Tensor, mask: Tensor) -> Tensor:
        return self.conv(x, edges)[mask].log_softmax(-1)

    return Of(forward, conv=pyg.GCNConv(F, 8)), (X, EDGES, BATCH > 1)


@model
def data() -> Any:
    def forward(self: Any, given: Data) -> Tensor:
        return self.second(self.first(given.x, given.edge_index).relu(), given.edge_index)

    return Of(forward, first=pyg.GCNConv(F, 8), second=pyg.GATConv(8, 4)), (Data(x=X, edge_index=EDGES),)


@model
def dropped_edges() -> Any:
    def forward(self: Any, x: Tensor, edges: Tensor) -> Tensor:
        return self.conv(x, dropout_edge(edges, p=0.3, training=True)[0])

    return Of(forward, conv=pyg.GCNConv(F, 8)), (X, EDGES)


@model
def embedded_nodes() -> Any:
    def forward(self: Any, ids: Tensor, edges: Tensor, weights: Tensor) -> Tensor:
        return self.conv(self.embedding(ids), edges, weights)

    conv = pyg.GINEConv(nn.Linear(F, 8), edge_dim=3)
    return Of(forward, embedding=nn.Embedding(20, F), conv=conv), (torch.arange(NODES) % 20, EDGES, WEIGHTS)


@model
def reversible() -> Any:
    """Frees what it is given, to compute it again."""
    return pyg.GroupAddRev(pyg.SAGEConv(4, 4), num_groups=2), (X, EDGES)


def results(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    return [t for value in found or () for t in results(value)]


QUICK = ("attentive_fingerprints", "sorted_pooling")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MODELS]
)
def test_as_eager(name: str) -> None:
    torch.manual_seed(0)
    eager, args = MODELS[name]()
    eager = eager.double()
    with torch.no_grad():
        eager(*copy.deepcopy(args))  # finds sizes of -1
    compiled = columba.compile(copy.deepcopy(eager), backend="torch")
    for seed in range(2):
        found = []
        for one in (eager, compiled):
            one.zero_grad()
            torch.manual_seed(seed)
            out = results(one(*copy.deepcopy(args)))
            values = [t.detach().clone() for t in out]  # GroupAddRev frees results in its backward pass
            torch.cat([t.flatten() for t in out]).square().sum().backward()
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in one.parameters()]
            found.append(values + grads)
        torch.testing.assert_close(found[1], found[0])
