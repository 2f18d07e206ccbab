"""Rows that more than two tensors of integers choose, or sum, move along edges with as many ends: triplets, faces, hyperedges."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compiled import assert_same, leaf
from torch import Tensor, nn

import columba
from columba.ir.indices import Lookup
from columba.ir.spaces import MOST_ENDS, Space, index_map

pytestmark = pytest.mark.unoptimized


def ids(count: int, *limits: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(n, (count,), generator=generator) for n in limits]


def angles(x: Tensor, w: Tensor, i: Tensor, j: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Triplets, as in geometry: what three points say of each other goes to two of them, and some is normalized there."""
    a, b = x[i] - x[j], x[k] - x[j]
    message = (a * b).sum(-1, keepdim=True).tanh() * (x[j] @ w)
    least = x.new_zeros(x.shape).scatter_reduce_(0, k.view(-1, 1).expand(-1, 4), a, "amin", include_self=False)
    return x.new_zeros(x.shape).index_add_(0, i, message), x.new_zeros(x.shape).index_add_(0, j, message * least[k])


def preferences(users: Tensor, items: Tensor, who: Tensor, this: Tensor, that: Tensor) -> tuple[Tensor, Tensor]:
    """Two tables: who prefers this one to that one."""
    margin = (users[who] * (items[this] - items[that])).sum(-1).sigmoid().unsqueeze(-1)
    of_users = users.new_zeros(users.shape).index_add_(0, who, margin * items[this])
    return of_users, items.new_zeros(items.shape).index_add_(0, that, margin * users[who])


def three_tables(x: Tensor, y: Tensor, z: Tensor, i: Tensor, j: Tensor, k: Tensor) -> Tensor:
    """The third one is chosen from by PyTorch."""
    return x.new_zeros(x.shape).index_add_(0, i, x[i] * y[j] * z[k])


def many(x: Tensor, *ends: Tensor) -> Tensor:
    message = x[ends[0]]
    for n, end in enumerate(ends):
        message = message * x[end].cos() + n
    return x.new_zeros(x.shape).index_add_(0, ends[1], message) * x.new_zeros(x.shape).index_add(0, ends[-1], message)


def of_graphs(x: Tensor, i: Tensor, j: Tensor, k: Tensor, batch: Tensor) -> Tensor:
    """Triplets of graphs side by side, and a sum over the nodes of each."""
    h = x + x.new_zeros(x.shape).index_add_(0, i, x[j] * x[k])
    return h.new_zeros(int(batch.max()) + 1, 4).index_add_(0, batch, h)


def _angles(nodes: int, count: int) -> tuple[Any, ...]:
    return leaf(nodes, 4), leaf(4, 4, seed=1), *ids(count, nodes, nodes, nodes, seed=count)


def _preferences(nodes: int, count: int) -> tuple[Any, ...]:
    return leaf(nodes, 4), leaf(nodes + 2, 4, seed=1), *ids(count, nodes, nodes + 2, nodes + 2, seed=count)


def _three_tables(nodes: int, count: int) -> tuple[Any, ...]:
    sizes = (nodes, nodes + 1, nodes + 2)
    return *(leaf(n, 4, seed=n) for n in sizes), *ids(count, *sizes, seed=count)


def _many(nodes: int, count: int) -> tuple[Any, ...]:
    return leaf(nodes, 4), *ids(count, *(nodes,) * (2 * MOST_ENDS + 3), seed=count)


def _of_graphs(nodes: int, count: int) -> tuple[Any, ...]:
    found = torch.stack(ids(count, nodes, nodes, nodes, seed=count))
    batch = torch.arange(nodes) * 3 // nodes
    found = found[:, (batch[found[0]] == batch[found[1]]) & (batch[found[0]] == batch[found[2]])]
    return leaf(nodes, 4), *found, batch


CASES = {angles: _angles, preferences: _preferences, three_tables: _three_tables, many: _many, of_graphs: _of_graphs}
ALL_MOVE = (angles, preferences, of_graphs)


@pytest.mark.parametrize("function", CASES)
def test_values_and_gradients(function: Callable[..., Any]) -> None:
    compiled = columba.compile(function, backend="torch", fullgraph=True)
    for nodes, count in ((6, 40), (6, 40), (9, 91), (5, 60), (4, 0)):
        assert_same(compiled, function, CASES[function](nodes, count))  # type: ignore[operator]
    if function in ALL_MOVE:
        assert all(len(one.trace.parts) == 1 and not one.trace.replayed for one in compiled._own)


def test_kernels() -> None:
    compiled = columba.compile(angles, backend="cpp", fullgraph=True)
    x, w, *ends = _angles(6, 40)
    for n in range(3):
        ends[2][n] = 5 - ends[2][n]  # the same tensors, other triplets
        assert_same(compiled, angles, (x, w, *ends))
    assert_same(compiled, angles, _angles(9, 91))
    (only,) = compiled._own
    (part,) = only.trace.parts
    assert "src2:edge->node" in str(part.program)
    for wrong in (-7, 6):
        ends[1][3] = wrong
        with pytest.raises((IndexError, RuntimeError)):
            compiled(x, w, *ends)


def test_a_batch_of_which_only_two_ends_are_in_one_graph() -> None:
    compiled = columba.compile(of_graphs, backend="torch", fullgraph=True)
    x, i, j, k, batch = _of_graphs(9, 91)
    assert_same(compiled, of_graphs, (x, i, j, k, batch))
    assert_same(compiled, of_graphs, (x, i, j, k.flip(0), batch))  # another trace: these are no graphs side by side


def test_graphs() -> None:
    graph = columba.Graph(torch.tensor([[0, 1, 2], [1, 2, 0]]), batch=torch.tensor([0, 0, 0]), num_nodes=3)
    third = torch.tensor([[2, 2, 1], [0, 0, 0]])
    found = graph.with_further_ends(("src2", "dst2"), third)
    for one in (found, pickle.loads(pickle.dumps(found)), found.to("cpu")):
        for name, wanted in zip(("src2", "dst2"), third, strict=True):
            assert one.index(Lookup(index_map(name, Space.EDGE))).tolist() == wanted.tolist()
    assert not graph.structure.topology.further
    with pytest.raises(ValueError, match=r"edge_index \(dst2\) holds 3 at edge 1"):
        graph.with_further_ends(("dst2",), torch.tensor([[0, 3, 0]]))
    with pytest.raises(ValueError, match=r"shape \[1, 2\], wanted \[1, 3\]"):
        graph.with_further_ends(("dst2",), torch.tensor([[0, 2]]))
    apart = columba.Graph(torch.tensor([[0, 2], [1, 3]]), batch=torch.tensor([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="ends of an edge into different graphs"):
        apart.with_further_ends(("src2",), torch.tensor([[2, 2]]))


class Angles(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(leaf(4, 4, seed=1).detach())

    def forward(self, x: Tensor, i: Tensor, j: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return angles(x, self.weight, i, j, k)


def test_inside_torch_compile_and_torch_export() -> None:
    model = Angles()
    inner = columba.compile(model, backend="torch", fullgraph=True)

    def step(*args: Tensor) -> Tensor:
        return torch.cat(inner(*args)).relu()

    def wanted(*args: Tensor) -> Tensor:
        return torch.cat(model(*args)).relu()

    whole = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)
    x, _, *ends = _angles(6, 40)
    rows = torch.export.Dim("rows")
    shapes = ({0: torch.export.Dim.DYNAMIC}, {0: rows}, {0: rows}, {0: rows})
    program = torch.export.export(inner, (x, *ends), dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for nodes, count in ((6, 40), (9, 91)):
        x, _, *ends = _angles(nodes, count)
        assert_same(whole, wanted, (x, *ends), tuple(model.parameters()))
        torch.testing.assert_close(loaded(x, *ends), model(x, *ends))
