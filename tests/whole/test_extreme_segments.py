"""Reductions over segments and products, at the ends of floating point: what one row holds reaches no other row's result."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from compiled import leaf
from torch import Tensor

import columba

inf, nan = math.inf, math.nan
MEMBERS = (0.0, 1.0, -1.0, inf, -inf, nan, 2.0**125)
TRIPLES = torch.tensor(list(itertools.product(MEMBERS, repeat=3)))
OWNERS = len(TRIPLES)
"""Each node but the last has three edges that come in, which hold a triple; the last has none."""


def graph() -> columba.Graph:
    into = torch.arange(OWNERS).repeat_interleave(3)
    return columba.Graph(torch.stack([into.flip(0), into]), into % 2, num_nodes=OWNERS + 1, num_relations=3)


def reductions(g: columba.Graph, *edges: Tensor) -> list[Tensor]:
    e = g.edges
    return [getattr(e, kind)(e(x)) for kind, x in zip(("sum", "mean", "max", "min"), edges, strict=True)]


def by_torch(*edges: Tensor) -> list[Tensor]:
    sum_, mean, largest, smallest = (x.view(OWNERS, 3, -1) for x in edges)
    return [sum_.sum(1), mean.mean(1), largest.amax(1), smallest.amin(1)]


@pytest.mark.parametrize(
    ("features", "backend"), [(1, "eager"), (1, "torch"), pytest.param(1, "cpp", marks=pytest.mark.slow), (5, "cpp")]
)
def test_reductions_give_what_torch_gives(features: int, backend: str) -> None:
    """``amax`` and ``amin`` share gradients evenly among ties, and give NaN to all members of what is NaN."""
    run = reductions if backend == "eager" else columba.compile(reductions, backend=backend)
    columns = torch.stack([TRIPLES.reshape(-1).roll(3 * i) for i in range(features)], 1)
    x, y = ([columns.clone().requires_grad_() for _ in range(4)] for _ in range(2))
    got, wanted = run(graph(), *x), by_torch(*y)
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a[OWNERS], torch.zeros(features))
        torch.testing.assert_close(a[:OWNERS], b, equal_nan=True)
    direction = torch.rand(OWNERS, features, generator=torch.Generator().manual_seed(0)) + 0.5
    found = torch.autograd.grad([a[:OWNERS] for a in got], x, [direction] * 4)
    expected = torch.autograd.grad(wanted, y, [direction] * 4)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)


@pytest.mark.parametrize("backend", ["eager", "torch", "cpp"])
def test_a_node_without_edges_poisons_nothing(backend: str) -> None:
    """Its mean is 0, and the norm of 0 has a gradient of 0, as in PyTorch: ``root`` and ``bias`` have that of the other nodes."""

    def layer(g: columba.Graph, h: Tensor, root: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        mean = g.edges.mean(g.edges.src(h))
        out = mean + g.nodes(h) @ root + bias
        return out.norm(dim=-1), F.normalize(out, dim=-1), out.std(-1), mean.norm(1, dim=-1), mean.norm(3, dim=-1)

    g = columba.Graph(torch.tensor([[0, 1], [1, 0]]), num_nodes=3)
    h = torch.tensor([[1.0, 2.0], [-3.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    grads = []
    for run in (layer, layer if backend == "eager" else columba.compile(layer, backend=backend)):
        root, bias = leaf(2, 2), torch.zeros(2, dtype=torch.float64, requires_grad=True)
        x = h.clone().requires_grad_()
        loss = sum((out[:2] ** 2).sum() for out in run(g, x, root, bias))
        grads.append(torch.autograd.grad(loss, (x, root, bias)))
    for a, b in zip(*grads, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(b, a)


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_gradients_at_the_ends(backend: str) -> None:
    """PyTorch's, written out."""

    def layer(g: columba.Graph, *xs: Tensor) -> list[Tensor]:
        a, b, c, d, e, f, h, k = (g.nodes(x) for x in xs)
        return [
            a.norm(dim=-1),
            F.relu6(b),
            c.amax(-1),
            d.max(-1).values,
            F.relu(e),
            torch.minimum(f[:, :1], f[:, 1:]),
            torch.logsumexp(h, -1),
            k.std(-1),
        ]

    rows: list[tuple[list[float], list[float], list[float]]] = [
        ([0.0, 0.0], [0.0], [0.0, 0.0]),
        ([0.0, 6.0], [0.0, 6.0], [0.0, 0.0]),
        ([nan, 1.0], [nan], [nan, nan]),
        ([3.0, 3.0], [3.0], [1.0, 0.0]),
        ([nan, -1.0], [nan, 0.0], [1.0, 0.0]),
        ([nan, 1.0], [nan], [1.0, 1.0]),
        ([inf, 1.0], [inf], [nan, 0.0]),
        ([5.0, 5.0], [0.0], [0.0, 0.0]),
    ]
    g = columba.Graph(torch.tensor([[0], [0]]), num_nodes=1)
    xs = [torch.tensor([row]).requires_grad_() for row, _, _ in rows]
    outs = columba.compile(layer, backend=backend)(g, *xs)
    grads = torch.autograd.grad(outs, xs, [torch.ones_like(y) for y in outs])
    for out, grad, (_, value, slope) in zip(outs, grads, rows, strict=True):
        torch.testing.assert_close(out.flatten(), torch.tensor(value), equal_nan=True)
        torch.testing.assert_close(grad.flatten(), torch.tensor(slope), equal_nan=True)
    empty = columba.compile(lambda g, x: torch.logsumexp(g.nodes(x), -1), backend=backend)
    assert empty(g, torch.full((1, 2), -inf)).item() == -inf


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_products_keep_rows_apart(backend: str) -> None:
    """A row or a relation's weight that is no number spoils what is computed from it, forward and backward, and nothing else."""
    n, r = 37, 3
    random = torch.Generator().manual_seed(2)
    relation = torch.randint(0, r - 1, (90,), generator=random)
    g = columba.Graph(torch.randint(0, n - 1, (2, 90), generator=random), relation, num_nodes=n, num_relations=r)

    def layer(g: columba.Graph, h: Tensor, k: Tensor, w: Tensor, a: Tensor, p: Tensor) -> tuple[Tensor, ...]:
        e = g.edges
        message = columba.linear(e.src(h), e.rel(w))
        score = (columba.linear(e.dst(k), e.rel(w)) * e.rel(a)).sum(-1)
        return e.sum(message), e.sum(F.leaky_relu(score)), g.nodes(k) @ p, g.dst_rel.sum(e.mean(message, to="dst_rel"))

    for place in ("h", "w"):
        results = []
        for run in (layer, columba.compile(layer, backend=backend)):
            h, k, w, a, p = (leaf(*s, seed=i) for i, s in enumerate([(n, 5), (n, 5), (r, 5, 7), (r, 7), (5, 3)]))
            with torch.no_grad():
                (h[7] if place == "h" else w[1])[:] = nan
                h[n - 1] = inf  # no edge has it
            outs = run(g, h, k, w, a, p)
            first = torch.ones(n, dtype=torch.float64)
            loss = (outs[0] + outs[3]).sum(), (outs[1] * first).sum(), outs[2].square().sum()
            results.append((outs, torch.autograd.grad(loss, (h, k, w, a, p))))
        for mine, theirs in zip(*results, strict=True):
            for wanted, got in zip(mine, theirs, strict=True):
                torch.testing.assert_close(got, wanted, equal_nan=True)
                assert wanted.isfinite().any()


UNREAD = {
    "node": torch.tensor([[0.5, -1.0], [1.0, 2.0], [-0.5, 1.5], [inf, nan], [nan, -inf]], dtype=torch.float64),
    "matrix": torch.tensor([[[1.0, 2.0], [0.5, -1.0]], [[inf, nan], [-inf, 0.0]], [[-1.0, 1.0], [2.0, 0.5]]], dtype=torch.float64),
    "vector": torch.tensor([[1.0, -2.0], [nan, inf], [0.5, 1.5]], dtype=torch.float64),
    "number": torch.tensor([2.0, inf, 3.0], dtype=torch.float64),
    "shared": torch.tensor([[0.5, 1.0], [-1.0, 2.0]], dtype=torch.float64),
}  # fmt: skip
"""Rows of nodes 3 and 4, which are at neither end of an edge, and of relation 1, which has none, are not finite."""


def unread(
    g: columba.Graph, node: Tensor, matrix: Tensor, vector: Tensor, number: Tensor, shared: Tensor
) -> list[Tensor]:
    """Everything that is computed at nodes or relations instead of edges, or before a sum instead of after it."""
    e = g.edges
    source, target = e.src(node), e.dst(node)
    of_both_ends = columba.linear(source, shared) + columba.linear(target, shared)
    on_vectors = (columba.linear(source, e.rel(matrix)) * e.rel(vector)).sum(-1)
    scaled = (target * columba.linear(source, e.rel(matrix.flip(1)))).sum(-1) * e.rel(number)
    of_weights = columba.linear(e.rel(vector), shared) * (e.rel(vector).exp() * e.rel(number).sqrt().unsqueeze(-1))
    per_edge = columba.linear(source * target, shared)
    return [
        of_both_ends,
        on_vectors,
        scaled,
        of_weights,
        F.silu(source).softmax(-1) / target.sqrt().abs().add(1),
        e.sum(per_edge),
    ]


def unread_by_torch(
    ends: Tensor, types: Tensor, node: Tensor, matrix: Tensor, vector: Tensor, number: Tensor, shared: Tensor
) -> list[Tensor]:
    source, target, w, v, n = node[ends[0]], node[ends[1]], matrix[types], vector[types], number[types]

    def times(x: Tensor, m: Tensor) -> Tensor:
        return (x.unsqueeze(-2) @ m).squeeze(-2)

    return [
        source @ shared + target @ shared,
        (times(source, w) * v).sum(-1),
        (target * times(source, w.flip(1))).sum(-1) * n,
        (v @ shared) * (v.exp() * n.sqrt().unsqueeze(-1)),
        F.silu(source).softmax(-1) / target.sqrt().abs().add(1),
        torch.zeros_like(node).index_add(0, ends[1], (source * target) @ shared),
    ]


@pytest.mark.parametrize("backend", ["eager", "torch", "cpp"])
def test_rows_that_no_edge_reads_reach_nothing(backend: str) -> None:
    """Gradients of 0 meet infinities and NaN in rows of nodes and relations without edges; the last result has an infinite one there."""
    ends, types = torch.tensor([[0, 1, 2, 1], [1, 2, 2, 0]]), torch.tensor([0, 2, 0, 2])
    g = columba.Graph(ends, types, num_nodes=5, num_relations=3)
    run = unread if backend == "eager" else columba.compile(unread, backend=backend)
    x, y = ([t.clone().requires_grad_() for t in UNREAD.values()] for _ in range(2))
    got, wanted = run(g, *x), unread_by_torch(ends, types, *y)
    directions = [torch.linspace(-1, 1, w.numel(), dtype=torch.float64).view(w.shape) for w in wanted]
    directions[-1][3:] = inf
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)
    found, expected = torch.autograd.grad(got, x, directions), torch.autograd.grad(wanted, y, directions)
    for name, a, b in zip(UNREAD, found, expected, strict=True):
        torch.testing.assert_close(a, b, msg=lambda said, name=name: f"{name}: {said}", equal_nan=True)
    assert torch.equal(found[0][3:], torch.zeros(2, 2, dtype=torch.float64))
    assert all(torch.equal(weight[1], torch.zeros_like(weight[1])) for weight in found[1:4])
