"""A vector that says which graph each node is of makes a graph a batch: norms, pooling and what follows are one program with the layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compiled import assert_same, leaf, randomized
from torch import Tensor, nn

import columba

pytestmark = pytest.mark.unoptimized


def batch_of(sizes: list[int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Node features, edges within graphs of these sizes, and the graph of each node."""
    generator = torch.Generator().manual_seed(seed)
    edges, start = [torch.zeros(2, 0, dtype=torch.int64)], 0
    for n in sizes:
        if n:
            edges.append(start + torch.randint(n, (2, 2 * n), generator=generator))
        start += n
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return leaf(start, 3, seed=seed), torch.cat(edges, 1), batch


def gathered(x: Tensor, index: Tensor) -> Tensor:
    return x.index_select(0, index)


def scattered(x: Tensor, index: Tensor, rows: int) -> Tensor:
    return x.new_zeros(rows, x.size(1)).scatter_add_(0, index.view(-1, 1).expand_as(x), x)


class Classifier(nn.Module):
    """A layer, a norm of each graph, another layer, a readout that attends, a property of each graph, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.score = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor, given: Tensor | None = None) -> Tensor:
        graphs = batch.max().item() + 1 if given is None else given.size(0)
        h = self.first(x + scattered(gathered(x, edge_index[0]), edge_index[1], x.size(0)))
        count = x.new_zeros(graphs).scatter_add_(0, batch, x.new_ones(batch.size(0))).clamp(min=1).view(-1, 1)
        h = (h - gathered(scattered(h, batch, graphs) / count, batch)).relu()
        h = self.second(h + scattered(gathered(h, edge_index[0]), edge_index[1], x.size(0)))
        if given is not None:
            h = h * given[batch]
        score = self.score(h)
        most = h.new_zeros(graphs, 1).scatter_reduce_(0, batch.view(-1, 1), score.detach(), "amax", include_self=False)
        score = (score - most[batch]).exp()
        alpha = score / scattered(score, batch, graphs)[batch]
        pooled = torch.cat([scattered(alpha * h, batch, graphs), scattered(h, batch, graphs) / count], -1)
        return self.head(pooled.relu()).log_softmax(-1)  # type: ignore[no-any-return]


def programs(function: Any) -> list[list[str]]:
    """The programs of each trace of a compiled function."""
    return [[str(part.program) for part in one.trace.parts] for one in function._own]


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_a_classifier_is_one_program(backend: str) -> None:
    eager = randomized(Classifier(), torch.float64)
    function = columba.compile(lambda *args: eager(*args), backend=backend)
    for n, sizes in enumerate(([3, 5, 2], [4, 1], [3, 5, 2], [2, 0, 3, 0, 1], [1, 2, 2, 2, 2, 7])):
        assert_same(function, eager, batch_of(sizes, n), tuple(eager.parameters()))
    x, edge_index, batch = batch_of([3, 4, 2])
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    assert_same(function, eager, (x, order.argsort()[edge_index], batch[order]), tuple(eager.parameters()))
    ((only,),) = programs(function)
    assert "graph:node->graph" in only
    assert "softmax(" in only


def test_rows_of_graphs_that_are_passed_in() -> None:
    """How many graphs there are follows from them, so that the last ones may be empty."""
    eager = randomized(Classifier(), torch.float64)
    function = columba.compile(lambda *args: eager(*args), backend="torch")
    for sizes in ([3, 5, 2], [4, 1], [2, 3, 0, 0], [3, 5, 2]):
        args = (*batch_of(sizes), leaf(len(sizes), 4, seed=3))
        assert_same(function, eager, args, tuple(eager.parameters()))
    ((only,),) = programs(function)
    assert ": graph[4] f64," in only.partition("{")[0]


def test_edges_between_graphs() -> None:
    """Then they are no batch, and what is summed by them moves along a graph of its own; a batch that comes later is one program again."""
    eager = randomized(Classifier(), torch.float64)
    function = columba.compile(lambda *args: eager(*args), backend="torch")
    x, edge_index, batch = batch_of([3, 5, 2])
    crossing = edge_index.clone()
    crossing[0, 0], crossing[1, 0] = 0, 9
    for edges in (edge_index, crossing, edge_index, crossing):
        assert_same(function, eager, (x, edges, batch), tuple(eager.parameters()))
    batch = batch.clone()
    for graph in (1, 0):  # written to
        batch[4] = graph
        assert_same(function, eager, (x, edge_index, batch), tuple(eager.parameters()))
    assert sorted(map(len, programs(function))) == [1, 4]


def test_clusters_beside_graphs() -> None:
    """One vector of a graph's nodes is its batch; another one is a graph of its own."""

    def both(x: Tensor, edge_index: Tensor, batch: Tensor, cluster: Tensor) -> Tensor:
        h = scattered(gathered(x, edge_index[0]), edge_index[1], x.size(0)).tanh()
        return scattered(h, batch, 3).sum(-1, keepdim=True) + scattered(h, cluster, 3)

    function = columba.compile(both, backend="torch")
    x, edge_index, batch = batch_of([3, 5, 2])
    assert_same(function, both, (x, edge_index, batch, batch.flip(0)))
    assert_same(function, both, (x, edge_index, batch, batch))


def test_as_graph_takes_a_batch() -> None:
    @columba.compile(backend="torch")
    def readout(x: Tensor, edge_index: Tensor, batch: Tensor, num_graphs: int | None = None) -> Tensor:
        g = columba.as_graph(edge_index, batch=batch, num_nodes=x.shape[0], num_graphs=num_graphs)
        return g.nodes.mean(g.edges.sum(g.edges.src(x)), to="graph")

    x, edge_index, batch = batch_of([3, 5, 2])
    for _ in range(2):
        assert_same(readout, readout.fn, (x, edge_index, batch))
        assert_same(readout, readout.fn, (x, edge_index, batch, 5))
    assert readout(x, edge_index, batch, 5).shape == (5, 3)
    batch[3] = 0
    with pytest.raises(ValueError, match="into different graphs"):
        readout(x, edge_index, batch)
    g = columba.as_graph(edge_index)
    with pytest.raises(ValueError, match="holds its types and its batch"):
        columba.as_graph(g, batch=batch)
