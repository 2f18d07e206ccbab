"""What of PyG is compiled: one list, which the tests run and the tables of ``docs/pyg.md`` are generated from.

A case makes a module and the arguments of a call. What is expected of it is part of the case, and the test holds it to that:

- ``GENERIC``: the layer's own ``forward`` is traced;
- ``LOWERING``: what Columba knows of the class is traced in its place;
- ``PARTLY``: some of it runs compiled, some in PyTorch, for the reason that is given;
- ``PYTORCH``: it runs as it was, for the reason that is given;
- ``NOT_RUN``: it needs what is not installed here.

    python -m tests.frontend.pyg.coverage_cases [NAME ...]     prints what is found of them
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

GENERIC, LOWERING, PARTLY, PYTORCH, NOT_RUN = "generic", "lowering", "partly", "PyTorch", "not run"

LAYERS, OTHERS = "layers", "others"

Call = tuple[nn.Module, tuple[Any, ...]]


@dataclass(frozen=True)
class Case:
    """One class.

    Attributes:
        name: the class, as ``torch_geometric.nn`` calls it, and where there is more than one case of it what it is given.
        table: ``LAYERS`` or ``OTHERS``.
        expected: what becomes of it.
        reason: why it is not compiled, or not all of it.
        make: gives a module and the arguments of a call.
    """

    name: str
    table: str
    expected: str
    reason: str
    make: Callable[[], Call]


CASES: dict[str, Case] = {}

NODES, EDGES, SIZE, RELATIONS = 10, 24, 4, 3


def case(name: str, expected: str, reason: str = "", table: str = LAYERS) -> Callable[[Callable[[], Call]], None]:
    """Registers a function that makes a module and arguments as a case."""
    if (expected in (GENERIC, LOWERING)) != (not reason):
        raise ValueError(f"{name}: what is not compiled, and nothing else, has a reason")

    def register(make: Callable[[], Call]) -> None:
        if name in CASES:
            raise ValueError(f"two cases are called {name}")
        CASES[name] = Case(name, table, expected, reason, make)

    return register


@functools.cache
def inputs() -> dict[str, Tensor]:
    """A graph with isolated nodes, self-loops, repeated edges and a relation that does not occur; features of all kinds."""
    g = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    edge_index = torch.randint(0, NODES - 1, (2, EDGES), generator=g)
    edge_index[:, 0] = edge_index[:, 1]  # twice
    edge_index[1, 2] = edge_index[0, 2]  # a self-loop
    edge_type = torch.randint(0, RELATIONS - 1, (EDGES,), generator=g).sort().values
    return {
        "x": normal(NODES, SIZE),
        "x_0": normal(NODES, SIZE),
        "edge_index": edge_index,
        "edge_type": edge_type,
        "edge_weight": torch.rand(EDGES, generator=g, dtype=torch.float64),
        "edge_attr": normal(EDGES, 3),
        "edge_attr_size": normal(EDGES, SIZE),
        "pseudo": torch.rand(EDGES, 2, generator=g, dtype=torch.float64),
        "node_type": torch.randint(0, 2, (NODES,), generator=g),
        "pos": normal(NODES, 3),
        "normal": normal(NODES, 3),
        "batch": torch.randint(0, 3, (NODES,), generator=g).sort().values,
        "history": normal(NODES, 3, SIZE),
    }


def given(*names: str) -> tuple[Tensor, ...]:
    return tuple(inputs()[name] for name in names)


def _mlp(*sizes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.ReLU(), nn.Linear(sizes[1], sizes[-1]))


def simple(
    name: str, *args: Any, takes: tuple[str, ...] = (), expected: str = GENERIC, reason: str = "", **kwargs: Any
) -> None:
    """A layer ``name(*args, **kwargs)`` that is called with ``x, edge_index`` and ``takes``; arguments that are functions make modules."""

    def make() -> Call:
        import torch_geometric.nn

        own = [a() if callable(a) else a for a in args]
        named = {k: v() if callable(v) else v for k, v in kwargs.items()}
        return getattr(torch_geometric.nn, name)(*own, **named), given("x", "edge_index", *takes)

    case(name, expected, reason)(make)


def not_run(name: str, needs: str) -> None:
    @case(name, NOT_RUN, f"needs {needs}")
    def _() -> Call:
        raise AssertionError("is not run")


# ------------------------------------------------------------------------------------------------ layers


@case("MessagePassing", GENERIC)
def _() -> Call:
    from torch_geometric.nn import MessagePassing

    class Own(MessagePassing):
        """A user's own layer."""

        def __init__(self) -> None:
            super().__init__(aggr="max")
            self.lin = nn.Linear(SIZE, SIZE)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=self.lin(x))

        def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
            return torch.tanh(x_i - x_j) * x_j

    return Own(), given("x", "edge_index")


simple("SimpleConv", aggr="mean", combine_root="sum")
simple("GCNConv", SIZE, SIZE, takes=("edge_weight",))
simple("ChebConv", SIZE, SIZE, K=3, takes=("edge_weight",))
simple("SAGEConv", SIZE, SIZE)
not_run("CuGraphSAGEConv", "pylibcugraphops, which is for CUDA alone")
simple("GraphConv", SIZE, SIZE, takes=("edge_weight",))
not_run("GravNetConv", "torch-cluster or pyg-lib for its nearest neighbours")
simple("GatedGraphConv", SIZE, 2, takes=("edge_weight",))
simple("ResGatedGraphConv", SIZE, SIZE, edge_dim=3, takes=("edge_attr",))
simple("GATConv", SIZE, SIZE, heads=2, edge_dim=3, takes=("edge_attr",))
not_run("CuGraphGATConv", "pylibcugraphops, which is for CUDA alone")
not_run("FusedGATConv", "dgNN, which is for CUDA alone")
simple("GATv2Conv", SIZE, SIZE, heads=2, edge_dim=3, takes=("edge_attr",))
simple("TransformerConv", SIZE, SIZE, heads=2, edge_dim=3, beta=True, takes=("edge_attr",))
simple("AGNNConv")
simple("TAGConv", SIZE, SIZE, takes=("edge_weight",))
simple("GINConv", lambda: _mlp(SIZE, 6, SIZE), train_eps=True)
simple("GINEConv", lambda: _mlp(SIZE, 6, SIZE), edge_dim=3, takes=("edge_attr",))
simple("ARMAConv", SIZE, SIZE, num_stacks=2, num_layers=2, takes=("edge_weight",))
simple("SGConv", SIZE, SIZE, K=2, takes=("edge_weight",))
simple("SSGConv", SIZE, SIZE, alpha=0.1, K=2, takes=("edge_weight",))
simple("APPNP", K=3, alpha=0.1, takes=("edge_weight",))
simple("MFConv", SIZE, SIZE, max_degree=4)
simple("RGCNConv", SIZE, SIZE, RELATIONS, takes=("edge_type",), expected=LOWERING)
simple("FastRGCNConv", SIZE, SIZE, RELATIONS, takes=("edge_type",), expected=LOWERING)
not_run("CuGraphRGCNConv", "pylibcugraphops, which is for CUDA alone")
simple("RGATConv", SIZE, SIZE, RELATIONS, heads=2, takes=("edge_type",), expected=LOWERING)


@case("SignedConv", GENERIC)
def _() -> Call:
    from torch_geometric.nn import SignedConv

    x, edge_index = given("x", "edge_index")
    return SignedConv(SIZE, SIZE, first_aggr=True), (x, edge_index[:, :12], edge_index[:, 12:])


@case("DNAConv", GENERIC)
def _() -> Call:
    from torch_geometric.nn import DNAConv

    return DNAConv(SIZE, heads=2), given("history", "edge_index", "edge_weight")


@case("PointNetConv", GENERIC)
def _() -> Call:
    from torch_geometric.nn import PointNetConv

    return PointNetConv(_mlp(SIZE + 3, 6, SIZE), _mlp(SIZE, 6, SIZE)), given("x", "pos", "edge_index")


simple("GMMConv", SIZE, SIZE, dim=2, kernel_size=3, takes=("pseudo",))
not_run("SplineConv", "torch-spline-conv or pyg-lib for its B-splines")
simple("NNConv", SIZE, SIZE, lambda: _mlp(3, 6, SIZE * SIZE), takes=("edge_attr",))
simple("CGConv", SIZE, dim=3, takes=("edge_attr",))
simple("EdgeConv", lambda: _mlp(2 * SIZE, 6, SIZE))
not_run("DynamicEdgeConv", "torch-cluster or pyg-lib for its nearest neighbours")
not_run("XConv", "torch-cluster or pyg-lib for its nearest neighbours")


@case("PPFConv", GENERIC)
def _() -> Call:
    from torch_geometric.nn import PPFConv

    return PPFConv(_mlp(SIZE + 4, 6, SIZE), _mlp(SIZE, 6, SIZE)), given("x", "pos", "normal", "edge_index")


simple("FeaStConv", SIZE, SIZE, heads=2)


@case("PointTransformerConv", GENERIC)
def _() -> Call:
    from torch_geometric.nn import PointTransformerConv

    return PointTransformerConv(SIZE, SIZE), given("x", "pos", "edge_index")


simple("HypergraphConv", SIZE, SIZE)
simple("LEConv", SIZE, SIZE, takes=("edge_weight",))


@case("PNAConv", GENERIC)
def _() -> Call:
    from torch_geometric.nn import PNAConv

    degrees = torch.tensor([1, 2, 3, 2, 1, 1])
    conv = PNAConv(
        SIZE, SIZE, ["mean", "min", "max", "std"], ["identity", "amplification", "attenuation"], degrees, edge_dim=3
    )
    return conv, given("x", "edge_index", "edge_attr")


simple("ClusterGCNConv", SIZE, SIZE, diag_lambda=0.5)
simple("GENConv", SIZE, SIZE, aggr="softmax", learn_t=True, edge_dim=3, norm="layer", takes=("edge_attr",))


@case("GCN2Conv", GENERIC)
def _() -> Call:
    from torch_geometric.nn import GCN2Conv

    return GCN2Conv(SIZE, alpha=0.2, theta=1.0, layer=2), given("x", "x_0", "edge_index", "edge_weight")


not_run("PANConv", "torch-sparse")


@case("WLConv", GENERIC)
def _() -> Call:
    from torch_geometric.nn import WLConv

    node_type, edge_index = given("node_type", "edge_index")
    return WLConv(), (node_type, edge_index)


simple("WLConvContinuous", takes=("edge_weight",))
simple("FiLMConv", SIZE, SIZE, num_relations=RELATIONS, takes=("edge_type",), expected=LOWERING)
simple("SuperGATConv", SIZE, SIZE, heads=2)


@case("FAConv", GENERIC)
def _() -> Call:
    from torch_geometric.nn import FAConv

    return FAConv(SIZE), given("x", "x_0", "edge_index", "edge_weight")


simple("EGConv", SIZE, SIZE, aggregators=["sum", "mean", "max"], num_heads=2)
simple("PDNConv", SIZE, SIZE, edge_dim=3, hidden_channels=4, takes=("edge_attr",))
simple("GeneralConv", SIZE, SIZE, in_edge_channels=3, attention=True, heads=2, takes=("edge_attr",))


def _typed() -> tuple[dict[str, Tensor], dict[tuple[str, str, str], Tensor]]:
    """Tables and edges of two node types; ``venue`` is named by no edge."""
    x, edge_index = given("x", "edge_index")
    between = edge_index[:, :14].remainder(torch.tensor([[6], [4]]))
    x_dict = {"paper": x[:6], "author": x[6:]}
    return x_dict, {
        ("paper", "written_by", "author"): between,
        ("author", "writes", "paper"): between.flip(0),
        ("paper", "cites", "paper"): edge_index[:, 14:].remainder(6),
    }


@case("HGTConv", LOWERING)
def _() -> Call:
    from torch_geometric.nn import HGTConv

    x_dict, edges = _typed()
    return HGTConv(SIZE, SIZE, (list(x_dict), list(edges)), heads=2), (x_dict, edges)


@case("HEATConv", LOWERING)
def _() -> Call:
    from torch_geometric.nn import HEATConv

    conv = HEATConv(SIZE, SIZE, 2, RELATIONS, edge_type_emb_dim=3, edge_dim=3, edge_attr_emb_dim=5, heads=2)
    return conv, given("x", "edge_index", "node_type", "edge_type", "edge_attr")


@case("HeteroConv", GENERIC)
def _() -> Call:
    from torch_geometric.nn import GATConv, GCNConv, HeteroConv, SAGEConv

    x_dict, edges = _typed()
    written, writes, cites = edges
    convs = {
        written: SAGEConv((SIZE, SIZE), SIZE),
        writes: GATConv((SIZE, SIZE), SIZE, add_self_loops=False),
        cites: GCNConv(SIZE, SIZE),
    }
    return HeteroConv(convs, aggr="sum"), (x_dict, edges)


@case("HANConv", LOWERING)
def _() -> Call:
    from torch_geometric.nn import HANConv

    x_dict, edges = _typed()
    return HANConv(SIZE, SIZE, (list(x_dict), list(edges)), heads=2), (x_dict, edges)


simple("LGConv", takes=("edge_weight",))


@case("PointGNNConv", GENERIC)
def _() -> Call:
    from torch_geometric.nn import PointGNNConv

    conv = PointGNNConv(_mlp(SIZE, 6, 3), _mlp(SIZE + 3, 6, SIZE), _mlp(SIZE, 6, SIZE))
    return conv, given("x", "pos", "edge_index")


@case("GPSConv", GENERIC)
def _() -> Call:
    from torch_geometric.nn import GPSConv, SAGEConv

    return GPSConv(SIZE, SAGEConv(SIZE, SIZE), heads=2), given("x", "edge_index", "batch")


simple("AntiSymmetricConv", SIZE)


@case("DirGNNConv", GENERIC)
def _() -> Call:
    from torch_geometric.nn import DirGNNConv, SAGEConv

    return DirGNNConv(SAGEConv(SIZE, SIZE)), given("x", "edge_index")


simple("MixHopConv", SIZE, SIZE, powers=[0, 1, 2], takes=("edge_weight",))


@case("MeshCNNConv", GENERIC)
def _() -> Call:
    from torch_geometric.nn import MeshCNNConv

    g = torch.Generator().manual_seed(5)
    sources = torch.stack([torch.randperm(NODES, generator=g) for _ in range(4)], 1).reshape(-1)
    edges = torch.stack([torch.arange(NODES).repeat_interleave(4), sources])
    return MeshCNNConv(SIZE, SIZE), (inputs()["x"], edges)


# ------------------------------------------------------------------------------------------------ models and the rest


def model(name: str, *args: Any, takes: tuple[str, ...] = (), **kwargs: Any) -> None:
    def make() -> Call:
        import torch_geometric.nn

        return getattr(torch_geometric.nn, name)(*args, **kwargs), given("x", "edge_index", *takes)

    case(name, GENERIC, table=OTHERS)(make)


model("GCN", SIZE, 6, 2, SIZE, norm="batch", jk="cat", takes=("edge_weight",))
model("GraphSAGE", SIZE, 6, 2, SIZE, norm="layer")
model("GAT", SIZE, 6, 2, SIZE, heads=2, v2=True, takes=())
model("GIN", SIZE, 6, 2, SIZE, norm="graph", jk="max")
model("PNA", SIZE, 6, 2, SIZE, aggregators=["mean", "max"], scalers=["identity"], deg=torch.tensor([1, 2, 3, 2]))
model("EdgeCNN", SIZE, 6, 2, SIZE)


@case("LightGCN", GENERIC, table=OTHERS)
def _() -> Call:
    from torch_geometric.nn import LightGCN

    return LightGCN(NODES, SIZE, 2), given("edge_index")


@case("JumpingKnowledge", GENERIC, table=OTHERS)
def _() -> Call:
    from torch_geometric.nn import GCN

    return GCN(SIZE, 6, 3, SIZE, jk="lstm"), given("x", "edge_index")


class Pooled(nn.Module):
    """A convolution, a normalization, and a pooling of the graphs of a batch."""

    def __init__(self, norm: str, pool: str) -> None:
        super().__init__()
        import torch_geometric.nn

        self.conv = torch_geometric.nn.GraphConv(SIZE, SIZE)
        self.norm = None if norm == "" else getattr(torch_geometric.nn, norm)(SIZE)
        self.pool = getattr(torch_geometric.nn, pool)
        self.with_batch = norm in ("GraphNorm", "LayerNorm", "InstanceNorm")

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        x = self.conv(x, edge_index)
        if self.norm is not None:
            x = self.norm(x, batch) if self.with_batch else self.norm(x)
        return self.pool(x.relu(), batch, 3)  # type: ignore[no-any-return]


for _name, _norm, _pool in (
    ("global_add_pool", "", "global_add_pool"),
    ("global_mean_pool", "", "global_mean_pool"),
    ("global_max_pool", "", "global_max_pool"),
    ("BatchNorm", "BatchNorm", "global_mean_pool"),
    ("GraphNorm", "GraphNorm", "global_mean_pool"),
    ("LayerNorm", "LayerNorm", "global_mean_pool"),
    ("InstanceNorm", "InstanceNorm", "global_mean_pool"),
):
    case(_name, GENERIC, table=OTHERS)(
        functools.partial(lambda n, p: (Pooled(n, p), given("x", "edge_index", "batch")), _norm, _pool)
    )


# ------------------------------------------------------------------------------------------------ what is found, and the tables


def made(one: Case) -> Call:
    """The module, in float64, with no parameter that was left as it lay in memory, and the arguments."""
    torch.manual_seed(11)
    module, args = one.make()
    module.double()
    return module, args


def found(one: Case, backend: str = "torch") -> tuple[str, str]:
    """What is compiled of a case, and why the rest is not."""
    import columba
    from columba.frontend import TraceError

    module, args = made(one)
    compiled = columba.compile(module, backend=backend)
    try:
        explanation = columba.explain(compiled, *args)
    except TraceError as e:
        return PYTORCH, str(e)
    if explanation.breaks:
        return PARTLY, "; ".join(map(str, explanation.breaks))
    return GENERIC, ""


def table(name: str) -> str:
    """One of the tables of ``docs/pyg.md``."""
    rows = ["| class | runs | |", "|---|---|---|"]
    rows += [f"| `{one.name}` | {one.expected} | {one.reason} |" for one in CASES.values() if one.table == name]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    import columba
    from tests.compared import compare

    for one in CASES.values():
        if one.expected == NOT_RUN or (len(sys.argv) > 1 and one.name not in sys.argv[1:]):
            continue
        module, args = made(one)
        try:
            compare(functools.partial(columba.compile, backend="torch"), module, *args)
            right = "right"
        except Exception as e:
            right = f"WRONG: {type(e).__name__}: {e}"
        outcome, why = found(one)
        print(f"{one.name:24} {outcome:12} {right}\n      {why}" if why else f"{one.name:24} {outcome:12} {right}")
