"""The eager meaning of lifts, reductions, softmax and linear, against loops over edges."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from eager_graphs import NODE_TYPES, RELATIONS, bipartite_graph, square_graphs
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from columba.ir.spaces import Space
from columba.runtime.eager.views import Lifted, NodeView, PairView, linear
from columba.runtime.graphs.graph import Graph

GRAPHS = {**square_graphs(), "bipartite": bipartite_graph()}
KINDS = ("sum", "mean", "max", "min")


@pytest.fixture(params=GRAPHS)
def graph(request: pytest.FixtureRequest) -> Graph:
    torch.manual_seed(1)
    return GRAPHS[request.param]


def rows_of(graph: Graph, name: str) -> list[int]:
    """For each edge, its row of the space that the map ``name`` leads to."""
    src, dst = graph.edge_index.tolist()
    rel = graph.edge_type.tolist()
    if name in ("src", "dst", "rel"):
        return {"src": src, "dst": dst, "rel": rel}[name]
    pairs = list(zip(rel, src if name == "src_rel" else dst, strict=True))
    order = sorted(set(pairs))
    return [order.index(pair) for pair in pairs]


def count_of(graph: Graph, name: str) -> int:
    if name in ("src", "dst"):
        return graph.num_src if name == "src" else graph.num_dst
    return graph.num_relations if name == "rel" else len(set(rows_of(graph, name)))


def reduced(x: Tensor, rows: list[int], count: int, kind: str) -> Tensor:
    out = []
    for row in range(count):
        members = [x[i] for i, r in enumerate(rows) if r == row]
        if not members:
            out.append(torch.zeros(x.shape[1:], dtype=x.dtype))
            continue
        stacked = torch.stack(members)
        functions = {"sum": stacked.sum, "mean": stacked.mean, "max": stacked.amax, "min": stacked.amin}
        out.append(functions[kind](0))
    return torch.stack(out) if out else x.new_zeros((0, *x.shape[1:]))


def randn(*shape: int, grad: bool = False) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=grad)


def same_with_gradients(got: Tensor, expected: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    torch.manual_seed(2)
    weight = torch.randn_like(expected)
    found = torch.autograd.grad(
        (got * weight).sum(), inputs, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    wanted = (expected * weight).sum() + sum((0 * i).sum() for i in inputs)
    for a, b in zip(found, torch.autograd.grad(wanted, inputs, retain_graph=True), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["src", "dst", "rel", "src_rel", "dst_rel"])
@pytest.mark.parametrize("features", [(), (2, 3)])
def test_lifts(graph: Graph, name: str, features: tuple[int, ...]) -> None:
    x = randn(count_of(graph, name), *features, grad=True)
    lifted = getattr(graph.edges, name)(x)
    same_with_gradients(lifted + 0, x[torch.tensor(rows_of(graph, name), dtype=torch.long)], x)


@pytest.mark.parametrize("to", ["dst", "src", "dst_rel", "src_rel", "rel"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("features", [(), (2, 3)])
def test_edge_reductions(graph: Graph, kind: str, to: str, features: tuple[int, ...]) -> None:
    x = randn(graph.num_edges, *features, grad=True)
    got = getattr(graph.edges, kind)(x, to=to)
    same_with_gradients(got, reduced(x, rows_of(graph, to), count_of(graph, to), kind), x)


@pytest.mark.parametrize("kind", KINDS)
def test_reductions_to_one(graph: Graph, kind: str) -> None:
    x = randn(graph.num_edges, 3, grad=True)
    got = getattr(graph.edges, kind)(x, to="one")
    same_with_gradients(got, reduced(x, [0] * graph.num_edges, 1, kind)[0], x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["src", "dst"])
def test_pairs(graph: Graph, kind: str, end: str) -> None:
    view: PairView = getattr(graph, f"{end}_rel")
    pairs = sorted(set(zip(graph.edge_type.tolist(), rows_of(graph, end), strict=True)))
    rels, ends = [p[0] for p in pairs], [p[1] for p in pairs]
    x, w = randn(count_of(graph, end), 3, grad=True), randn(RELATIONS, 3, grad=True)
    lifted = getattr(view, end)(x) * view.rel(w)
    by_hand = x[torch.tensor(ends, dtype=torch.long)] * w[torch.tensor(rels, dtype=torch.long)]
    same_with_gradients(lifted, by_hand, x, w)
    same_with_gradients(getattr(view, kind)(lifted), reduced(by_hand, ends, count_of(graph, end), kind), x, w)
    same_with_gradients(getattr(view, kind)(lifted, to="rel"), reduced(by_hand, rels, RELATIONS, kind), x, w)
    same_with_gradients(getattr(view, kind)(lifted, to="one"), reduced(by_hand, [0] * len(pairs), 1, kind)[0], x, w)


@pytest.mark.parametrize("kind", KINDS)
def test_nodes(graph: Graph, kind: str) -> None:
    for view, types in zip(node_views(graph), node_types(graph), strict=True):
        x, w = randn(len(types), 2, grad=True), randn(NODE_TYPES, 2, grad=True)
        same_with_gradients(x * view.type(w), x * w[types], x, w)
        same_with_gradients(getattr(view, kind)(x), reduced(x, [0] * len(types), 1, kind)[0], x)


def node_views(graph: Graph) -> list[NodeView]:
    return [graph.nodes] if graph.is_square else [graph.src_nodes, graph.dst_nodes]


def node_types(graph: Graph) -> list[Tensor]:
    return [graph.node_type] if graph.is_square else list(graph.node_type)


@pytest.mark.parametrize("by", ["dst", "src", "dst_rel", "src_rel"])
@pytest.mark.parametrize("features", [(), (2,)])
def test_softmax_and_degree(graph: Graph, by: str, features: tuple[int, ...]) -> None:
    x = randn(graph.num_edges, *features, grad=True)
    rows = rows_of(graph, by)
    by_hand = [x[i].exp() / sum(x[j].exp() for j, r in enumerate(rows) if r == rows[i]) for i in range(len(rows))]
    expected = torch.stack(by_hand) if by_hand else x * 1
    same_with_gradients(graph.edges.softmax(x, by=by), expected, x)
    degrees = torch.tensor([float(rows.count(r)) for r in rows])
    assert torch.equal(graph.edges.degree(by), degrees)
    assert graph.edges.degree(by, dtype=torch.float64).dtype is torch.float64


def test_softmax_does_not_overflow() -> None:
    g = Graph(torch.tensor([[0, 1, 0], [1, 1, 0]]))
    got = g.edges.softmax(torch.tensor([1e4, 1e4, -1e4]))
    assert got.tolist() == [0.5, 0.5, 1.0]


@pytest.mark.parametrize("kind", ["max", "min"])
def test_ties_share_the_gradient(kind: str) -> None:
    g = Graph(torch.tensor([[0, 1, 2, 3], [0, 0, 0, 1]]))
    # Ties at zero, and zero itself, are what an implementation that starts from zeros gets wrong.
    x = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(getattr(g.edges, kind)(x).sum(), x)
    assert torch.allclose(grad, torch.tensor([1 / 3, 1 / 3, 1 / 3, 1.0], dtype=torch.float64))


def test_second_derivatives() -> None:
    g = GRAPHS["random"]
    x = randn(g.num_edges, 2, grad=True)
    for kind in KINDS:
        assert torch.autograd.gradgradcheck(lambda x, kind=kind: getattr(g.edges, kind)(x).sin(), x)
    assert torch.autograd.gradgradcheck(lambda x: g.edges.softmax(x), x)
    h, w = randn(g.num_nodes, 2, grad=True), randn(RELATIONS, 2, 3, grad=True)
    assert torch.autograd.gradgradcheck(lambda h, w: linear(g.edges.src(h), g.edges.rel(w)).sin(), (h, w))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_dtypes_accumulate_in_float32(dtype: torch.dtype) -> None:
    g = Graph(torch.stack([torch.zeros(5000, dtype=torch.long), torch.zeros(5000, dtype=torch.long)]))
    ones = torch.ones(5000, 1, dtype=dtype)
    assert g.edges.sum(ones).item() == torch.tensor(5000.0).to(dtype).item()
    assert g.edges.mean(ones).item() == 1
    assert g.edges.softmax(ones).sum().item() == pytest.approx(1, rel=0.02)
    assert {g.edges.sum(ones).dtype, g.edges.softmax(ones).dtype, g.edges.max(ones).dtype} == {dtype}


def test_integers_lift_and_reduce() -> None:
    g = Graph(torch.tensor([[0, 1, 2], [1, 1, 2]]))
    ids = torch.tensor([10, 20, 30])
    assert g.edges.sum(g.edges.src(ids)).tolist() == [0, 30, 30]
    assert g.edges.max(g.edges.src(ids)).tolist() == [0, 20, 30]


def test_declaring_is_the_identity(graph: Graph) -> None:
    e, x = graph.edges, randn(graph.num_edges, 2)
    assert e(x) is x
    pairs = randn(count_of(graph, "src_rel"))
    assert graph.src_rel(pairs) is pairs
    for view, types in zip(node_views(graph), node_types(graph), strict=True):
        assert view(types) is types


# Each function of (w, full): w is the lifted weight [E, 3, 4], full the same gathered; x is [E, 3]. And whether the
# result stays lazy, which is what keeps a weight per edge out of memory.
LIFTED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], bool]] = {
    "transpose": (lambda w, x: w.transpose(1, 2), True),
    "negative_transpose": (lambda w, x: w.transpose(-1, -2), True),
    "row_transpose": (lambda w, x: w.transpose(0, 2), False),
    "mT": (lambda w, x: w.mT, True),
    "permute": (lambda w, x: w.permute(0, 2, 1), True),
    "row_permute": (lambda w, x: w.permute(1, 0, 2), False),
    "view": (lambda w, x: w.view(w.shape[0], 12), True),
    "view_split": (lambda w, x: w.view((w.shape[0], 3, 2, 2)), True),
    "view_first": (lambda w, x: w.view(-1, 12), True),
    "reshape_flat": (lambda w, x: w.reshape(w.numel()), False),
    "flatten": (lambda w, x: w.flatten(1), True),
    "flatten_named": (lambda w, x: w.flatten(start_dim=1), True),
    "unflatten": (lambda w, x: w.unflatten(2, (2, 2)), True),
    "unsqueeze": (lambda w, x: w.unsqueeze(1), True),
    "unsqueeze_last": (lambda w, x: w.unsqueeze(-1), True),
    "unsqueeze_first": (lambda w, x: w.unsqueeze(0), False),
    "squeeze": (lambda w, x: w[:, :1].squeeze(1), True),
    "index": (lambda w, x: w[:, 1], True),
    "slice": (lambda w, x: w[..., 1:3], True),
    "index_none": (lambda w, x: w[:, None], True),
    "rows": (lambda w, x: w[:2], False),
    "advanced_index": (lambda w, x: w[:, [0, 2]], False),
    "affine": (lambda w, x: 1 - 2 * w / 3 + 1, True),
    "divide": (lambda w, x: 1 / (w * w + 1), True),
    "unary": (lambda w, x: F.leaky_relu(torch.tanh(-w), 0.1).exp(), True),
    "itself": (lambda w, x: w * w, True),
    "shared": (lambda w, x: w * torch.arange(4.0, dtype=w.dtype), True),
    "row_tensor": (lambda w, x: w * x.unsqueeze(-1), False),
    "where": (lambda w, x: torch.where(w > 0, w, 0.1 * w), False),
    "sum": (lambda w, x: w.sum(-1), False),
    "softmax": (lambda w, x: w.softmax(-1), False),
    "cat": (lambda w, x: torch.cat([w, x.unsqueeze(-1)], dim=-1), False),
    "layer_norm": (lambda w, x: F.layer_norm(w, (4,)), False),
    "to": (lambda w, x: w.double().to(torch.float64), True),
    "einsum": (lambda w, x: torch.einsum("ei,eij->ej", x, w), False),
    "einsum_swapped": (lambda w, x: torch.einsum("eij,ei->ej", w, x), False),
    "einsum_lead": (lambda w, x: torch.einsum("ehi, eij -> ejh", x.unsqueeze(1).expand(-1, 2, -1), w), False),
    "einsum_three": (lambda w, x: torch.einsum("ei,eij,ej->e", x, w, torch.ones_like(w[:, 0] + 0)), False),
    "einsum_shared": (lambda w, x: torch.einsum("eij,jk->eik", w, torch.ones(4, 2, dtype=w.dtype)), True),
    "einsum_vector": (lambda w, x: torch.einsum("ei,ei->e", x, w[:, :, 1]), False),
    "einsum_rows": (lambda w, x: torch.einsum("ei,eij->j", x, w), False),
    "einsum_alike": (lambda w, x: torch.einsum("eij,eij->e", w, w), True),
    "einsum_implicit": (lambda w, x: torch.einsum("ei,eij", x, w), False),
    "matmul": (lambda w, x: x.unsqueeze(1) @ w, False),
    "matmul_right": (lambda w, x: w.mT @ x.unsqueeze(-1), False),
    "bmm": (lambda w, x: torch.bmm(x.unsqueeze(1), w), False),
    "matmul_shared": (lambda w, x: torch.ones(2, 3, dtype=w.dtype) @ w, True),
    "matmul_vectors": (lambda w, x: w[:, :, 0] @ torch.ones(3, 5, dtype=w.dtype), True),
    "matmul_alike": (lambda w, x: w @ w.mT, True),
}


@pytest.mark.parametrize("case", LIFTED)
@pytest.mark.parametrize("which", ["random", "no_edges", "one_node", "bipartite"])
def test_lifted_weights_act_as_tensors(case: str, which: str) -> None:
    torch.manual_seed(1)
    function, lazy = LIFTED[case]
    g = GRAPHS[which]
    weight, x = randn(RELATIONS, 3, 4, grad=True), randn(g.num_edges, 3, grad=True)
    got = function(g.edges.rel(weight), x)
    assert isinstance(got, Lifted) == lazy
    same_with_gradients(
        got.materialize() if isinstance(got, Lifted) else got, function(weight[g.edge_type], x), weight, x
    )


def test_a_lifted_weight_describes_itself() -> None:
    g = GRAPHS["random"]
    w = g.edges.rel(torch.zeros(RELATIONS, 3, 4, requires_grad=True))
    assert (w.shape, w.ndim, len(w), w.size(-1), w.numel()) == ((24, 3, 4), 3, 24, 4, 288)
    assert (w.dtype, w.device, w.requires_grad) == (torch.float32, torch.device("cpu"), True)
    assert repr(w) == "Lifted(shape=[24, 3, 4], dtype=torch.float32, of=[5, 3, 4], along=rel:edge->rel)"
    with pytest.raises(RuntimeError, match="mul_ would change a lifted tensor in place"):
        w.mul_(2)
    with pytest.raises(RuntimeError, match="in place"):
        w[0] = 1


@pytest.mark.parametrize("features", [(4,), (2, 4)])
@pytest.mark.parametrize("out", [(), (3,), (2, 3)])
def test_linear(graph: Graph, features: tuple[int, ...], out: tuple[int, ...]) -> None:
    e = graph.edges
    x, w, one = randn(graph.num_edges, *features, grad=True), randn(RELATIONS, 4, *out, grad=True), randn(4, *out)
    by_hand = [torch.tensordot(x[i], w[r], dims=1) for i, r in enumerate(graph.edge_type.tolist())]
    expected = torch.stack(by_hand) if by_hand else torch.tensordot(x, w[0], dims=1)
    same_with_gradients(linear(x, e.rel(w)), expected, x, w)
    same_with_gradients(linear(x, one), torch.tensordot(x, one, dims=1), x)
    z = randn(RELATIONS, *features, grad=True)
    per_relation = linear(e.rel(z), e.rel(w))
    assert isinstance(per_relation, Lifted)
    same_with_gradients(per_relation.materialize(), linear(z[graph.edge_type], e.rel(w)), z, w)
    same_with_gradients(linear(e.rel(z), one) + 0, torch.tensordot(z[graph.edge_type], one, dims=1), z)


def test_node_types_seen_from_edges(graph: Graph) -> None:
    source, types = node_views(graph)[0], node_types(graph)[0]
    h, w = randn(graph.num_src, 3, grad=True), randn(NODE_TYPES, 3, 2, grad=True)
    lifted = graph.edges.src(source.type(w))
    assert isinstance(lifted, Lifted)
    src = graph.edge_index[0].long()
    same_with_gradients(lifted.materialize(), w[types][src], w)
    same_with_gradients(linear(graph.edges.src(h), lifted), graph.edges.src(linear(h, source.type(w))), h, w)
    pair_weight = graph.edges.src_rel(graph.src_rel.rel(w[[0, 1, 2, 0, 1]]))
    assert isinstance(pair_weight, Lifted)
    assert pair_weight.map.name == "rel"


class Largest(TorchDispatchMode):
    """Records the most elements that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, list | tuple) else [result]:
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return result


@pytest.mark.parametrize("form", ["linear", "einsum", "matmul"])
def test_no_weight_per_edge_is_held(form: str) -> None:
    edges, size = 400, 16
    g = Graph(torch.randint(0, 20, (2, edges)), torch.randint(0, 4, (edges,)))
    x, weight = torch.randn(20, size, requires_grad=True), torch.randn(4, size, size, requires_grad=True)
    e = g.edges
    with Largest() as largest:
        w = e.rel(torch.tanh(weight)).mT
        if form == "linear":
            y = linear(e.src(x), w)
        elif form == "einsum":
            y = torch.einsum("ei,eij->ej", e.src(x), w)
        else:
            y = (e.src(x).unsqueeze(1) @ w).squeeze(1)
        e.sum(y).sum().backward()
    assert largest.elements <= edges * size


G = GRAPHS["random"]
B = GRAPHS["bipartite"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: G.edges.src(torch.zeros(5, 2)), ValueError, r"e.src expects one row per source node \(N=9\), got a t"),
        (lambda: G.edges.src(torch.zeros(24, 2)), ValueError, r"shape \[24, 2\]; edge tensors need no lift"),
        (lambda: B.edges.dst(torch.zeros(5)), ValueError, r"e.dst expects one row per destination node \(num_dst=3\)"),
        (lambda: G.edges.src(torch.zeros(())), ValueError, r"got a tensor of shape \[\]"),
        (lambda: G.edges.rel(torch.zeros(4, 2)), ValueError, r"e.rel expects one row per relation \(R=5\)"),
        (lambda: G.nodes.type(torch.zeros(4)), ValueError, r"n.type expects one row per node type \(T=3\)"),
        (lambda: G.edges.src([1.0]), TypeError, "got list, which is no tensor"),
        (lambda: G.edges(torch.zeros(9)), ValueError, r"e expects one row per edge \(E=24\)"),
        (lambda: G.edges.sum(torch.zeros(9)), ValueError, r"e.sum expects one row per edge .* lift a tensor"),
        (lambda: G.edges.sum(torch.zeros(24), to="edge"), ValueError, "e.sum reduces to one of 'dst', 'src', .*'edge'"),
        (
            lambda: G.dst_rel.sum(torch.zeros(1), to="src"),
            ValueError,
            "dst_rel.sum reduces to one of 'dst', 'rel', 'graph', 'o",
        ),
        (lambda: G.dst_rel.src(torch.zeros(9)), ValueError, "no single source node; use g.src_rel.src"),
        (lambda: G.edges.softmax(torch.zeros(24), by="rel"), ValueError, "expects one of 'dst', 'src', 'dst_rel'"),
        (lambda: G.edges.degree("node"), ValueError, r"e.degree\(..., of=...\) expects one of"),
        (
            lambda: G.edges.softmax(torch.zeros(24, dtype=torch.long)),
            TypeError,
            "floating point numbers, got torch.int",
        ),
        (lambda: G.edges.mean(torch.zeros(24, dtype=torch.long)), TypeError, "e.mean expects floating point numbers"),
        (
            lambda: G.edges.mean(torch.zeros(24).bool()),
            TypeError,
            "e.mean expects floating point numbers, got torch.bool",
        ),
        (lambda: G.edges.sum(torch.zeros(24) * 1j), TypeError, "e.sum expects real numbers, got torch.complex64"),
        (lambda: G.edges.src(torch.zeros(9, device="meta")), ValueError, r"on meta for a graph on cpu; .* graph.to\("),
        (lambda: G.edges.src(G.dst_rel.rel(torch.zeros(5))), ValueError, "expects one row per source node"),
        (lambda: G.edges(B.edges.rel(torch.zeros(5))), ValueError, "expects one row per edge"),
        (lambda: linear(torch.zeros(3, 4), torch.zeros(5, 2)), ValueError, r"dimension of x \[4\] .* of w \[5, 2\]"),
        (lambda: linear(torch.zeros(9, 4), G.edges.rel(torch.zeros(5, 4, 2))), ValueError, "in one space, got x"),
        (lambda: linear(torch.zeros(24, 4), G.edges.rel(torch.zeros(5, 3, 2))), ValueError, r"of w \[3, 2\]"),
        (lambda: linear(torch.zeros(3, 4).double(), torch.zeros(4, 2)), TypeError, "one dtype, got x: torch.float64"),
        (lambda: linear(torch.zeros(3, 4).long(), torch.zeros(4, 2)), TypeError, "embed integer ids"),
        (lambda: linear(torch.zeros(3, 4), 2.0), TypeError, r"linear\(x, w\) expects tensors, got float for w"),
        (lambda: linear(3, G.edges.rel(torch.zeros(5, 4, 2))), TypeError, "got int for x"),
        (lambda: PairView(G, Space.EDGE), ValueError, "edge is no space of pairs"),
        (lambda: NodeView(G, Space.EDGE), ValueError, "edge is no space of nodes"),
    ],
)
def test_errors_say_what_to_do(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_lift_from_another_graph_is_rejected() -> None:
    other = square_graphs()["random"]
    with pytest.raises(ValueError, match="got one row per edge of another graph"):
        G.edges.sum(other.edges.rel(torch.zeros(RELATIONS)))
