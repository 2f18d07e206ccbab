"""``EdgeIndex`` in place of ``edge_index``, and models that take a whole ``Data``, ``Batch`` or ``HeteroData``."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from compiled import assert_same, leaf, randomized
from torch import Tensor, nn

import columba

pyg = pytest.importorskip("torch_geometric.nn")
from torch_geometric import EdgeIndex  # noqa: E402
from torch_geometric.data import Batch, Data, HeteroData  # noqa: E402

pytestmark = pytest.mark.unoptimized


def edges(nodes: int, count: int, seed: int = 0) -> Tensor:
    return torch.randint(nodes, (2, count), generator=torch.Generator().manual_seed(seed))


def traces_of(model: nn.Module) -> list[Any]:
    return type(model).forward._of_modules[model]  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("layer", [lambda: pyg.GCNConv(4, 3), lambda: pyg.SAGEConv(4, 3)], ids=["GCNConv", "SAGEConv"])
def test_edge_index_in_any_order(layer: Any) -> None:
    """It is the tensor that it is, sorted or not, and with what it has cached; what is written to it counts."""
    eager = randomized(layer(), torch.float64)
    model = columba.compile(copy.deepcopy(eager), backend="torch", fullgraph=True, strict=True)
    for nodes, order in ((5, None), (6, "row"), (7, "col")):
        index = EdgeIndex(edges(nodes, 12, nodes), sparse_size=(nodes, nodes))
        if order is not None:
            index = index.sort_by(order).values
            index.fill_cache_()
        for _ in range(2):
            plain = index.as_tensor().clone()
            assert_same(lambda x, i=index: model(x, i), lambda x, i=plain: eager(x, i), (leaf(nodes, 4),))
            index.as_tensor()[0, 3] = 0
    assert len(traces_of(model)) == 1
    assert_same(model, eager, (leaf(5, 4), edges(5, 9)))


def test_sizes_of_an_edge_index() -> None:
    """Where they differ they are numbers of nodes that a layer reads: it runs as it was, between others that it is compiled for."""
    eager = randomized(pyg.GraphConv((4, 4), 3), torch.float64)
    model = columba.compile(copy.deepcopy(eager), backend="torch")
    index = torch.tensor([[0, 1, 2, 3, 1], [0, 1, 1, 0, 0]])
    square, tall = (EdgeIndex(index, sparse_size=size) for size in ((4, 4), (4, 2)))
    x = leaf(4, 4)
    for given in (square, tall, square, tall):
        torch.testing.assert_close(model((x, None), given), eager((x, None), given))
    with pytest.raises(columba.TraceError, match=r"sparse_size=\(4, 2\) is not compiled"):
        columba.compile(eager, backend="torch", fullgraph=True)((x, None), tall)


class Molecules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = pyg.GCNConv(4, 4), pyg.SAGEConv(4, 4)

    def forward(self, data: Data) -> Tensor:
        x = self.first(data.x, data.edge_index).relu()
        x = self.second(x, edge_index=data.edge_index)
        return pyg.global_add_pool(x, data.batch) / data.num_nodes


@pytest.mark.parametrize("is_sorted", [False, True])
def test_batches(is_sorted: bool) -> None:
    """One trace for batches of any number of nodes and edges, of another one for another number of graphs."""
    eager = randomized(Molecules(), torch.float64)
    model = columba.compile(copy.deepcopy(eager), backend="torch", fullgraph=True)
    for seed in (0, 0, 3, 5):
        graphs = []
        for n in range(3):
            index: Tensor = edges(4 + n, 8 + seed, seed + n)
            if is_sorted:
                index = EdgeIndex(index, sparse_size=(4 + n, 4 + n)).sort_by("col").values
            graphs.append(Data(x=leaf(4 + n, 4, seed=seed + n).detach(), edge_index=index))
        batch = Batch.from_data_list(graphs)
        for _ in range(3):
            out, wanted = model(batch), eager(batch)
            torch.testing.assert_close(out, wanted)
            grads, theirs = (
                torch.autograd.grad(o.square().sum(), tuple(m.parameters())) for o, m in ((out, model), (wanted, eager))
            )
            torch.testing.assert_close(grads, theirs)
            batch.x = batch.x + 1
        batch.edge_index = batch.edge_index[:, 1:]
        torch.testing.assert_close(model(batch), eager(batch))
    assert len(traces_of(model)) <= 2


class Papers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cites, self.writes = pyg.SAGEConv(4, 3), pyg.SAGEConv((2, 4), 3)

    def forward(self, data: HeteroData) -> Tensor:
        x, index = data.x_dict, data.edge_index_dict
        cited = self.cites(x["paper"], index["paper", "cites", "paper"])
        return cited + self.writes((x["author"], x["paper"]), data["author", "writes", "paper"].edge_index)


def test_heterogeneous_data() -> None:
    eager = randomized(Papers(), torch.float64)
    model = columba.compile(copy.deepcopy(eager), backend="torch")
    for papers, authors in ((5, 3), (6, 4)):
        data = HeteroData()
        data["paper"].x, data["author"].x = leaf(papers, 4).detach(), leaf(authors, 2).detach()
        data["paper", "cites", "paper"].edge_index = edges(papers, 11)
        data["author", "writes", "paper"].edge_index = torch.stack([edges(authors, 7, 1)[0], edges(papers, 7, 2)[0]])
        for _ in range(2):
            torch.testing.assert_close(model(data), eager(data))
    assert len(traces_of(model)) == 1
