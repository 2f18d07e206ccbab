"""Rows chosen and summed by integer tensors, in ordinary PyTorch, are lifts and reductions of graphs that those tensors make."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compiled import assert_same, leaf, randomized
from torch import Tensor, nn

import columba
from columba.frontend import preparation

pytestmark = pytest.mark.unoptimized


def edges(nodes: int, count: int, seed: int = 0, sources: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    ends = [torch.randint(n, (count,), generator=generator) for n in (sources or nodes, nodes)]
    return torch.stack(ends) if count else torch.zeros(2, 0, dtype=torch.int64)


def traces_of(function: Any) -> list[Any]:
    return function._own  # type: ignore[no-any-return]


def programs_of(function: Any) -> list[str]:
    (only,) = traces_of(function)
    return [str(part.program) for part in only.trace.parts]


class Attention(nn.Module):
    """Relational attention as it is written without any library."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, 4, 6))
        self.att = nn.Parameter(torch.empty(2, 6))

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        src, dst = edge_index
        w = self.weight[edge_type]
        message = torch.bmm(x[src].unsqueeze(1), w).squeeze(1)
        target = torch.bmm(x.index_select(0, dst).unsqueeze(1), w).squeeze(1)
        score = F.leaky_relu((message * self.att[0]).sum(-1) + (target * self.att[1]).sum(-1), 0.2)
        most = score.new_zeros(x.size(0)).scatter_reduce_(0, dst, score.detach(), "amax", include_self=False)
        score = (score - most[dst]).exp()
        total = torch.zeros(x.shape[0], dtype=score.dtype).index_add_(0, dst, score) + 1e-16
        alpha = score / total.index_select(0, dst)
        out = x.new_zeros(x.size(0), 6)
        return out.scatter_add_(0, dst.view(-1, 1).expand_as(message), alpha.unsqueeze(-1) * message)


def test_attention_written_with_indices() -> None:
    eager = randomized(Attention(), torch.float64)
    forward = columba.compile(Attention.forward, backend="torch")
    for nodes, count in ((6, 20), (6, 20), (9, 31), (3, 0), (7, 1)):
        types = torch.randint(3, (count,), generator=torch.Generator().manual_seed(count))
        for _ in range(2):
            args = (leaf(nodes, 4), edges(nodes, count, nodes), types)
            assert_same(lambda *a: forward(eager, *a), eager, args, tuple(eager.parameters()))
    assert len(traces_of(forward)) <= 3  # without edges, and with one, which could stand for many
    text = str(traces_of(forward)[0].trace.program)
    assert "softmax(" in text
    assert "%self_weight, via=rel:edge->rel, transpose=false" in text  # no matrix for each edge


def test_kernels_of_attention_written_with_indices() -> None:
    eager = randomized(Attention(), torch.float64)
    model = columba.compile(copy.deepcopy(eager), backend="cpp", fullgraph=True)
    x, index, types = leaf(6, 4), edges(6, 20), torch.arange(20) % 3
    for _ in range(4):
        assert_same(model, eager, (x, index, types))
    index[0, 0] = 5 - index[0, 0]  # the same tensor, other edges
    for _ in range(3):
        assert_same(model, eager, (x, index, types))
    again = pickle.loads(pickle.dumps(model))
    assert_same(again, eager, (x, index, types))


def normalized(edge_index: Tensor, nodes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Self-loops, and what is symmetrically normalized."""
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    loops = torch.arange(0, nodes).view(1, -1).repeat(2, 1)
    edge_index = torch.cat([edge_index, loops], dim=1)
    row, col = edge_index[0], edge_index[1]
    weight = torch.ones(edge_index.size(1), dtype=dtype)
    degree = torch.zeros(nodes, dtype=dtype).scatter_add_(0, col, weight)
    scale = degree.pow_(-0.5)
    scale.masked_fill_(scale == float("inf"), 0)
    return edge_index, scale[row] * weight * scale[col]


def two_layers(x: Tensor, edge_index: Tensor, w: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    found = edge_index
    for weight in (w, v):
        found, norm = normalized(edge_index, x.size(0), x.dtype)
        h = x @ weight
        message = norm.view(-1, 1) * h[found[0]]
        x = torch.zeros(x.size(0), message.size(1), dtype=x.dtype).index_add(0, found[1], message)
        x += 1
        x = x.relu_()
    return x, found.double()


def test_structure_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    run = preparation.Preparation._run
    monkeypatch.setattr(preparation.Preparation, "_run", lambda self, *args: (runs.append(1), run(self, *args))[1])
    function = columba.compile(two_layers, backend="cpp")
    w, v = leaf(4, 5, seed=1), leaf(5, 5, seed=2)
    index = edges(6, 17)
    for _ in range(4):
        assert_same(function, two_layers, (leaf(6, 4), index, w, v))
    assert len(runs) == 1
    assert len(programs_of(function)) == 1  # both layers move along one graph
    assert len(runs) == 1
    index[:, 3] = 2
    for _ in range(3):
        assert_same(function, two_layers, (leaf(6, 4), index, w, v))
    for nodes, count in ((9, 30), (4, 0), (2, 3)):
        assert_same(function, two_layers, (leaf(nodes, 4), edges(nodes, count), w, v))
    assert len(runs) == 5
    assert len(traces_of(function)) == 1
    del index
    assert len(preparation._prepared.known) <= 64


def test_two_sides() -> None:
    @columba.compile(backend="torch")
    def across(users: Tensor, items: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        src, dst = edge_index[0], edge_index[1]
        to_items = torch.zeros_like(items).index_add_(0, dst, users[src])
        to_users = users.new_zeros(users.shape).scatter_add_(0, src.view(-1, 1).expand(-1, 3), items[dst])
        return to_items + items, to_users * users

    for users, items in ((5, 7), (4, 4), (6, 2)):
        index = edges(items, 15, sources=users)
        for _ in range(2):
            assert_same(across, across.fn, (leaf(users, 3), leaf(items, 3, seed=1), index))
    assert len(traces_of(across)) == 1


def test_pooling_and_pairs() -> None:
    @columba.compile(backend="torch")
    def scores(x: Tensor, edge_index: Tensor, batch: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]]).tanh()
        graphs = batch.max().item() + 1
        count = torch.zeros(graphs, dtype=x.dtype).index_add(0, batch, torch.ones(batch.numel(), dtype=x.dtype))
        mean = torch.zeros(graphs, x.size(1), dtype=x.dtype).index_add(0, batch, h) / count.clamp(min=1).view(-1, 1)
        most = h.new_zeros(graphs, x.size(1)).scatter_reduce_(
            0, batch.view(-1, 1).expand_as(h), h, "amax", include_self=False
        )
        return mean, most, (h[pairs[0]] * h[pairs[1]]).sum(-1)

    for nodes, count in ((8, 20), (8, 20), (5, 9)):
        batch = torch.arange(nodes) // 3
        args = (leaf(nodes, 3), edges(nodes, count), batch, edges(nodes, 6, 4))
        assert_same(scores, scores.fn, args)
    assert len(traces_of(scores)) == 1


def test_rows_that_a_mask_drops() -> None:
    def dropped(x: Tensor, edge_index: Tensor, weight: Tensor, keep: Tensor) -> Tensor:
        edge_index, weight = edge_index[:, keep], weight[keep]
        return torch.zeros_like(x).index_add(0, edge_index[1], weight.view(-1, 1) * x[edge_index[0]])

    function = columba.compile(dropped, backend="torch")
    for seed in range(4):
        keep = torch.rand(12, generator=torch.Generator().manual_seed(seed)) < 0.6
        weight = torch.rand(12, dtype=torch.float64, requires_grad=True)
        assert_same(function, dropped, (leaf(5, 2), edges(5, 12), weight, keep))
    assert len(traces_of(function)) == 1


def test_what_is_returned_is_the_callers() -> None:
    @columba.compile(backend="torch")
    def function(x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        index, norm = normalized(edge_index, x.size(0), x.dtype)
        return torch.zeros_like(x).index_add(0, index[1], norm.view(-1, 1) * x[index[0]]), index, norm

    index = edges(5, 9)
    wanted = function.fn(leaf(5, 2), index)
    for _ in range(3):
        got = function(leaf(5, 2), index)
        torch.testing.assert_close(got, wanted)
        got[1].zero_()
        got[2].zero_()


def test_values_that_python_asks_for_are_depended_on() -> None:
    @columba.compile(backend="torch")
    def choosing(x: Tensor, edge_index: Tensor) -> Tensor:
        h = torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]])
        if bool((edge_index[0] == edge_index[1]).any()):
            return h * 2
        return h - int(edge_index[0].max())

    plain, looped = torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.tensor([[0, 1, 1], [1, 2, 1]])
    for index in (plain, looped, plain, plain.flip(1), plain[:, :2], looped):
        for _ in range(2):
            assert_same(choosing, choosing.fn, (leaf(4, 2), index))
    plain[0, 0] = 1
    assert_same(choosing, choosing.fn, (leaf(4, 2), plain))


def test_indices_out_of_range() -> None:
    @columba.compile(backend="torch")
    def function(x: Tensor, edge_index: Tensor) -> Tensor:
        return torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]])

    good, bad = torch.tensor([[0, 1], [1, 2]]), torch.tensor([[0, 5], [1, 2]])
    with pytest.raises(IndexError, match="out of range"):
        function(leaf(3, 2), bad)
    for _ in range(2):
        assert_same(function, function.fn, (leaf(3, 2), good))
        with pytest.raises(IndexError, match="out of range"):
            function(leaf(3, 2), bad)
    assert_same(function, function.fn, (leaf(6, 2), bad))
    negative = torch.tensor([[-1, 0], [0, 1]])
    for index in (negative, good, negative):  # counted from the end
        assert_same(function, function.fn, (leaf(3, 2), index))


def test_ties_and_nothing_to_take_the_maximum_of() -> None:
    """Where a maximum is 0, PyTorch counts the 0 that it was to leave out (``include_self=False``) among those that share the gradient."""

    def largest(x: Tensor, edge_index: Tensor) -> Tensor:
        m = x[edge_index[0]]
        return x.new_zeros(x.shape).scatter_reduce_(
            0, edge_index[1].view(-1, 1).expand_as(m), m, "amax", include_self=False
        )

    x = torch.tensor(
        [[1.0, -2.0], [1.0, float("-inf")], [float("inf"), 0.5], [-0.5, -1.0]], dtype=torch.float64, requires_grad=True
    )
    index = torch.tensor([[0, 1, 2, 3, 3], [1, 1, 0, 0, 2]])
    assert_same(columba.compile(largest, backend="cpp"), largest, (x, index))


# ------------------------------------------------------------------------------------------------ in place


def test_changes_of_computed_tensors() -> None:
    g = columba.Graph(torch.tensor([[0, 1, 2], [1, 1, 0]]))

    def changed(g: columba.Graph, x: Tensor, b: Tensor) -> Tensor:
        h = g.edges.sum(g.edges.src(x))
        h += b
        h.mul_(2).clamp_(min=-1)
        other = h * 3
        h.sub_(1)
        return nn.ReLU(inplace=True)(h + other)

    for backend in ("torch", "cpp"):
        assert_same(columba.compile(changed, backend=backend), changed, (g, leaf(3, 2), leaf(2, seed=1)))


def test_results_that_go_to_out_and_to_parts_of_memory() -> None:
    """As PyG's ``cumsum`` does it for the first places of the nodes of each graph, for TopKPooling and dense batches."""

    def taken(x: Tensor, counts: Tensor, index: Tensor) -> Tensor:
        starts = counts.new_empty(counts.numel() + 1)
        starts.narrow(0, 0, 1).zero_()
        torch.cumsum(counts, 0, out=starts.narrow(0, 1, counts.numel()))
        starts.select(0, -1).fill_(0)
        rows = x[starts[index]]
        total = torch.zeros(x.size(0), x.size(1), dtype=x.dtype).index_add_(0, index, rows)
        return F.leaky_relu_(total - x, 0.3)

    compiled = columba.compile(taken, backend="torch")
    for counts, n in (([1, 2, 1], 6), ([1, 2, 1], 6), ([3, 0, 2, 1], 8)):
        index = torch.randint(len(counts), (11,), generator=torch.Generator().manual_seed(n))
        assert_same(compiled, taken, (leaf(n, 2), torch.tensor(counts), index))
    assert len(traces_of(compiled)) == 1

    @columba.compile(backend="torch")
    def added(x: Tensor, index: Tensor) -> Tensor:
        total = torch.zeros_like(x).index_add_(0, index, x[index])
        return torch.add(total, 1, out=torch.empty_like(total))

    index = torch.tensor([0, 2, 2])
    with pytest.raises(columba.TraceError, match="in place"):
        added(leaf(3, 2), index)
    with torch.no_grad():
        torch.testing.assert_close(added(torch.ones(3, 2), index), torch.tensor([[2.0], [1.0], [3.0]]).expand(3, 2))


def test_what_has_no_form_that_gives_a_new_tensor() -> None:
    g = columba.Graph(torch.tensor([[0, 1, 2], [1, 1, 0]]))
    for change in (lambda h: h.bernoulli_(0.5), lambda h: h.requires_grad_(), lambda h: h.uniform_()):

        @columba.compile(backend="torch")
        def function(g: columba.Graph, x: Tensor, change: Any = change) -> Tensor:
            return change(g.edges.sum(g.edges.src(x)))

        with pytest.raises(columba.TraceError, match="in place"):
            function(g, leaf(3, 2))

    def copied(g: columba.Graph, x: Tensor) -> Tensor:
        h = g.edges.sum(g.edges.src(x))
        h.copy_(x)
        return h

    x = torch.tensor([[-0.0, 0.0], [1.0, -2.0], [float("inf"), -3.0]], dtype=torch.float64, requires_grad=True)
    found = columba.compile(copied, backend="torch")
    assert_same(found, copied, (g, x))
    assert torch.equal(found(g, x).signbit(), x.signbit())


def test_views_of_what_is_changed() -> None:
    g = columba.Graph(torch.tensor([[0, 1, 2], [1, 1, 0]]))

    @columba.compile(backend="torch")
    def stale(g: columba.Graph, x: Tensor) -> Tensor:
        h = g.edges.sum(g.edges.src(x))
        wide = h.view(-1, 1, 2)
        h += 1
        return wide + 1

    with pytest.raises(columba.TraceError, match="add_ has changed a tensor in place that shares memory"):
        stale(g, leaf(3, 2))

    @columba.compile(backend="torch")
    def passed_in(g: columba.Graph, x: Tensor) -> Tensor:
        x.view(-1, 2).mul_(2)
        return g.edges.sum(g.edges.src(x))

    with pytest.raises(columba.TraceError, match="mul_ changes a tensor in place"):
        passed_in(g, leaf(3, 2).detach())
