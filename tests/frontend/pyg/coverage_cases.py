"""The cases of :mod:`tests.frontend.pyg.coverage`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.frontend.pyg.coverage import (
    GENERIC,
    LOWERING,
    NOT_RUN,
    OTHERS,
    PARTLY,
    PYTORCH,
    SMALL,
    Call,
    Inputs,
    case,
)


def size(features: int) -> int:
    """Stands for the number of features among the arguments of :func:`simple`."""
    return features


def mlp(*sizes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.ReLU(), nn.Linear(sizes[1], sizes[-1]))


def simple(
    name: str, *args: Any, takes: tuple[str, ...] = (), expected: str = GENERIC, reason: str = "", **kwargs: Any
) -> None:
    """A layer ``name(*args, **kwargs)`` that is called with ``x, edge_index`` and ``takes``; arguments may be functions of the features."""

    def make(s: Inputs) -> Call:
        import torch_geometric.nn

        own = [a(s.features) if callable(a) else a for a in args]
        named = {k: v(s.features) if callable(v) else v for k, v in kwargs.items()}
        return getattr(torch_geometric.nn, name)(*own, **named), s.given("x", "edge_index", *takes)

    case(name, expected, reason)(make)


def not_run(name: str, needs: str) -> None:
    @case(name, NOT_RUN, f"needs {needs}")
    def _(s: Inputs) -> Call:
        raise AssertionError("is not run")


# ------------------------------------------------------------------------------------------------ layers


@case("MessagePassing", GENERIC)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import MessagePassing

    class Own(MessagePassing):
        """A user's own layer."""

        def __init__(self) -> None:
            super().__init__(aggr="max")
            self.lin = nn.Linear(s.features, s.features)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=self.lin(x))

        def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
            return torch.tanh(x_i - x_j) * x_j

    return Own(), s.given("x", "edge_index")


simple("SimpleConv", aggr="mean", combine_root="sum")
simple("GCNConv", size, size, takes=("edge_weight",))
simple("ChebConv", size, size, K=3, takes=("edge_weight",))
simple("SAGEConv", size, size)
not_run("CuGraphSAGEConv", "pylibcugraphops, which is for CUDA alone")
simple("GraphConv", size, size, takes=("edge_weight",))
not_run("GravNetConv", "torch-cluster or pyg-lib for its nearest neighbours")
simple("GatedGraphConv", size, 2, takes=("edge_weight",))
simple("ResGatedGraphConv", size, size, edge_dim=3, takes=("edge_attr",))
simple("GATConv", size, size, heads=2, edge_dim=3, takes=("edge_attr",))
not_run("CuGraphGATConv", "pylibcugraphops, which is for CUDA alone")
not_run("FusedGATConv", "dgNN, which is for CUDA alone")
simple("GATv2Conv", size, size, heads=2, edge_dim=3, takes=("edge_attr",))
simple("TransformerConv", size, size, heads=2, edge_dim=3, beta=True, takes=("edge_attr",))
simple("AGNNConv")
simple("TAGConv", size, size, takes=("edge_weight",))
simple("GINConv", lambda f: mlp(f, 6, f), train_eps=True)
simple("GINEConv", lambda f: mlp(f, 6, f), edge_dim=3, takes=("edge_attr",))
simple(
    "ARMAConv",
    size,
    size,
    num_stacks=2,
    num_layers=2,
    takes=("edge_weight",),
    expected=PARTLY,
    reason="stacks lie before the nodes",
)
simple("SGConv", size, size, K=2, takes=("edge_weight",))
simple("SSGConv", size, size, alpha=0.1, K=2, takes=("edge_weight",))
simple("APPNP", K=3, alpha=0.1, takes=("edge_weight",))
simple("MFConv", size, size, max_degree=4)
simple("RGCNConv", size, size, SMALL.relations, takes=("edge_type",), expected=LOWERING)
simple("FastRGCNConv", size, size, SMALL.relations, takes=("edge_type",), expected=LOWERING)
not_run("CuGraphRGCNConv", "pylibcugraphops, which is for CUDA alone")
simple("RGATConv", size, size, SMALL.relations, heads=2, takes=("edge_type",), expected=LOWERING)


@case("SignedConv", GENERIC)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import SignedConv

    x, edge_index = s.given("x", "edge_index")
    return SignedConv(s.features, s.features, first_aggr=True), (x, edge_index[:, :12], edge_index[:, 12:])


@case("DNAConv", GENERIC)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import DNAConv

    return DNAConv(s.features, heads=2), s.given("history", "edge_index", "edge_weight")


@case("PointNetConv", GENERIC)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import PointNetConv

    return PointNetConv(mlp(s.features + 3, 6, s.features), mlp(s.features, 6, s.features)), s.given(
        "x", "pos", "edge_index"
    )


simple("GMMConv", size, size, dim=2, kernel_size=3, takes=("pseudo",))
not_run("SplineConv", "torch-spline-conv or pyg-lib for its B-splines")
simple("NNConv", size, size, lambda f: mlp(3, 6, f * f), takes=("edge_attr",))
simple("CGConv", size, dim=3, takes=("edge_attr",))
simple("EdgeConv", lambda f: mlp(2 * f, 6, f))
not_run("DynamicEdgeConv", "torch-cluster or pyg-lib for its nearest neighbours")
not_run("XConv", "torch-cluster or pyg-lib for its nearest neighbours")


@case("PPFConv", GENERIC)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import PPFConv

    return PPFConv(mlp(s.features + 4, 6, s.features), mlp(s.features, 6, s.features)), s.given(
        "x", "pos", "normal", "edge_index"
    )


simple("FeaStConv", size, size, heads=2)


@case("PointTransformerConv", GENERIC)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import PointTransformerConv

    return PointTransformerConv(s.features, s.features), s.given("x", "pos", "edge_index")


simple("HypergraphConv", size, size)
simple("LEConv", size, size, takes=("edge_weight",))


@case("PNAConv", GENERIC)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import PNAConv

    degrees = torch.tensor([1, 2, 3, 2, 1, 1])
    conv = PNAConv(
        s.features,
        s.features,
        ["mean", "min", "max", "std"],
        ["identity", "amplification", "attenuation"],
        degrees,
        edge_dim=3,
    )
    return conv, s.given("x", "edge_index", "edge_attr")


simple("ClusterGCNConv", size, size, diag_lambda=0.5)
simple("GENConv", size, size, aggr="softmax", learn_t=True, edge_dim=3, norm="layer", takes=("edge_attr",))


@case("GCN2Conv", GENERIC)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import GCN2Conv

    return GCN2Conv(s.features, alpha=0.2, theta=1.0, layer=2), s.given("x", "x_0", "edge_index", "edge_weight")


not_run("PANConv", "torch-sparse")


@case("WLConv", PYTORCH, "colours are integers, which a loop in Python looks up in a dict")
def _(s: Inputs) -> Call:
    from torch_geometric.nn import WLConv

    node_type, edge_index = s.given("node_type", "edge_index")
    return WLConv(), (node_type, edge_index)


simple("WLConvContinuous", takes=("edge_weight",))
simple("FiLMConv", size, size, num_relations=SMALL.relations, takes=("edge_type",), expected=LOWERING)


@case("SuperGATConv", GENERIC)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import SuperGATConv

    conv = SuperGATConv(s.features, s.features, heads=2)
    return conv.eval(), s.given("x", "edge_index")  # in training it draws edges for its loss


@case("FAConv", GENERIC)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import FAConv

    return FAConv(s.features), s.given("x", "x_0", "edge_index")


simple("EGConv", size, size, aggregators=["sum", "mean", "max"], num_heads=2)
simple("PDNConv", size, size, edge_dim=3, hidden_channels=4, takes=("edge_attr",))
simple("GeneralConv", size, size, in_edge_channels=3, attention=True, heads=2, takes=("edge_attr",))


@case("HGTConv", LOWERING)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import HGTConv

    x_dict, edges = s.typed
    return HGTConv(s.features, s.features, (list(x_dict), list(edges)), heads=2), (x_dict, edges)


@case("HEATConv", LOWERING)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import HEATConv

    conv = HEATConv(
        s.features, s.features, 2, s.relations, edge_type_emb_dim=3, edge_dim=3, edge_attr_emb_dim=5, heads=2
    )
    return conv, s.given("x", "edge_index", "node_type", "edge_type", "edge_attr")


@case("HeteroConv", LOWERING)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import GATConv, GCNConv, HeteroConv, SAGEConv

    x_dict, edges = s.typed
    written, writes, cites = edges
    convs = {
        written: SAGEConv((s.features, s.features), s.features),
        writes: GATConv((s.features, s.features), s.features, add_self_loops=False),
        cites: GCNConv(s.features, s.features),
    }
    return HeteroConv(convs, aggr="sum"), (x_dict, edges)


@case("HANConv", LOWERING)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import HANConv

    x_dict, edges = s.typed
    return HANConv(s.features, s.features, (list(x_dict), list(edges)), heads=2), (x_dict, edges)


simple("LGConv", takes=("edge_weight",))


@case("PointGNNConv", GENERIC)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import PointGNNConv

    conv = PointGNNConv(mlp(s.features, 6, 3), mlp(s.features + 3, 6, s.features), mlp(s.features, 6, s.features))
    return conv, s.given("x", "pos", "edge_index")


@case("GPSConv", PARTLY, "nodes are padded to dense batches for attention over all pairs")
def _(s: Inputs) -> Call:
    from torch_geometric.nn import GPSConv, SAGEConv

    return GPSConv(s.features, SAGEConv(s.features, s.features), heads=2), s.given("x", "edge_index", "batch")


simple("AntiSymmetricConv", size)


@case("DirGNNConv", GENERIC)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import DirGNNConv, SAGEConv

    return DirGNNConv(SAGEConv(s.features, s.features)), s.given("x", "edge_index")


simple("MixHopConv", size, size, powers=[0, 1, 2], takes=("edge_weight",))


@case("MeshCNNConv", GENERIC)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import MeshCNNConv

    g = torch.Generator().manual_seed(5)
    sources = torch.stack([torch.randperm(s.nodes, generator=g) for _ in range(4)], 1).reshape(-1)
    edges = torch.stack([torch.arange(s.nodes).repeat_interleave(4), sources])
    return MeshCNNConv(s.features, s.features), (s.x, edges)


# ------------------------------------------------------------------------------------------------ models and the rest


def model(
    name: str, *args: Any, takes: tuple[str, ...] = (), expected: str = GENERIC, reason: str = "", **kwargs: Any
) -> None:
    def make(s: Inputs) -> Call:
        import torch_geometric.nn

        made = getattr(torch_geometric.nn, name)(s.features, s.features + 2, 2, s.features, *args, **kwargs)
        return made, s.given("x", "edge_index", *takes)

    case(name, expected, reason, OTHERS)(make)


model("GCN", norm="batch", jk="cat", takes=("edge_weight",))
model("GraphSAGE", norm="layer")
model("GAT", heads=2, v2=True)
model("GIN", norm="graph", jk="max")
model(
    "PNA",
    aggregators=["mean", "max"],
    scalers=["identity"],
    deg=torch.tensor([1, 2, 3, 2]),
)
model("EdgeCNN")


@case("LightGCN", GENERIC, table=OTHERS)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import LightGCN

    return LightGCN(s.nodes, s.features, 2), s.given("edge_index")


@case("JumpingKnowledge", PARTLY, '`mode="lstm"`: the LSTM runs in PyTorch; the other modes are compiled', OTHERS)
def _(s: Inputs) -> Call:
    from torch_geometric.nn import GCN

    return GCN(s.features, 6, 3, s.features, jk="lstm"), s.given("x", "edge_index")


class Pooled(nn.Module):
    """A convolution, a normalization, and a pooling of the graphs of a batch."""

    def __init__(self, features: int, norm: str, pool: str) -> None:
        super().__init__()
        import torch_geometric.nn

        self.conv = torch_geometric.nn.GraphConv(features, features)
        sizes = () if norm in ("MeanSubtractionNorm", "PairNorm") else (features,)
        self.norm = getattr(torch_geometric.nn, norm)(*sizes) if norm else None
        self.pool = getattr(torch_geometric.nn, pool)
        self.takes_batch = norm not in ("", "BatchNorm")

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        x = self.conv(x, edge_index)
        if self.norm is not None:
            x = self.norm(x, batch) if self.takes_batch else self.norm(x)
        return self.pool(x.relu(), batch, 3)  # type: ignore[no-any-return]


def pooled(name: str, norm: str, pool: str) -> None:
    @case(name, GENERIC, table=OTHERS)
    def _(s: Inputs) -> Call:
        return Pooled(s.features, norm, pool), s.given("x", "edges_in_batch", "batch")


for _pool in ("global_add_pool", "global_mean_pool", "global_max_pool"):
    pooled(_pool, "", _pool)
for _norm in ("BatchNorm", "GraphNorm", "InstanceNorm", "LayerNorm", "MeanSubtractionNorm", "PairNorm"):
    pooled(_norm, _norm, "global_mean_pool")
