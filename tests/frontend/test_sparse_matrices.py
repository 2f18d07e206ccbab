"""Sparse matrices of PyTorch in traced functions: structure and values, and products along the graph that they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compiled import assert_same, leaf
from torch import Tensor, nn

import columba

pytestmark = pytest.mark.unoptimized

LAYOUTS = [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc]


def places(rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows and columns of about a third of all entries, sorted by row; of the last row none."""
    chosen = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < 0.35
    chosen[-1] = False
    chosen[0, 0] = True
    row, column = chosen.nonzero().unbind(1)
    return row, column


def matrix(layout: torch.layout, row: Tensor, column: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A matrix of a layout, without a sort where PyTorch needs none: values may have a gradient."""
    if layout is torch.sparse_coo:
        return torch.sparse_coo_tensor(
            torch.stack([row, column]), values, shape, is_coalesced=True, check_invariants=False
        )
    long, short, n = (row, column, shape[0]) if layout is torch.sparse_csr else (column, row, shape[1])
    order = long.argsort(stable=True)
    pointers = torch.nn.functional.pad(long.bincount(minlength=n).cumsum(0), (1, 0))
    return torch.sparse_compressed_tensor(
        pointers, short[order], values[order], shape, layout=layout, check_invariants=True
    )


def dense(row: Tensor, column: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.zeros(shape, dtype=values.dtype).index_put((row, column), values, accumulate=True)


def products(adj: Tensor, x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    h = torch.tanh(x @ weight)
    return adj @ h, adj.t() @ y, torch.mv(adj, x[:, 0]), torch.addmm(y, adj, x, beta=2), (3 * adj).mm(x)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_products(layout: torch.layout) -> None:
    """One trace for matrices of any size, with gradients of their values, which PyTorch lacks for some layouts: dense ones have them."""
    compiled = columba.compile(products, backend="torch", fullgraph=True)
    for rows, columns in ((5, 7), (6, 3), (5, 7)):
        row, column = places(rows, columns, seed=rows)
        args = (leaf(len(row)), leaf(columns, 4, seed=1), leaf(rows, 4, seed=2), leaf(4, 4, seed=3))

        def call(
            f: Any,
            make: Any,
            values: Tensor,
            *others: Tensor,
            r: Tensor = row,
            c: Tensor = column,
            n: int = rows,
            m: int = columns,
        ) -> Any:
            return f(make(r, c, values, (n, m)), *others)

        assert_same(
            lambda *a, call=call: call(compiled, lambda *m: matrix(layout, *m), *a),
            lambda *a, call=call: call(products, dense, *a),
            args,
        )
    assert len(compiled._own) <= 2  # with more rows than columns, and with fewer


def test_reductions_over_entries() -> None:
    """As ``torch.sparse.mm`` has them, of products; 0 where there is no entry. Equal maxima share the gradient."""

    def f(adj: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.sparse.mm(adj, x, reduce) for reduce in ("mean", "amax", "amin", "sum"))

    compiled = columba.compile(f, backend="torch", fullgraph=True)
    row, column = places(5, 4)
    adj = matrix(torch.sparse_csr, row, column, torch.rand(len(row), dtype=torch.float64) - 0.5, (5, 4))
    assert_same(compiled, f, (adj, leaf(4, 3)))
    found = compiled(adj, torch.tensor([[float("nan")], [float("inf")], [-float("inf")], [0.0]], dtype=torch.float64))
    assert all(t[0].isnan().all() for t in found)  # row 0 has an entry in column 0
    assert not any(t[-1].any() for t in found)
    ones = torch.sparse_csr_tensor(torch.tensor([0, 2, 2]), torch.tensor([0, 1]), torch.ones(2).double(), (2, 2))
    x = torch.full((2, 1), 3.0, dtype=torch.float64, requires_grad=True)
    out = compiled(ones, x)[1]
    assert out.tolist() == [[3.0], [0.0]]
    out.sum().backward()
    assert torch.equal(x.grad, torch.full((2, 1), 0.5, dtype=torch.float64))


def test_what_is_written_to_a_matrix_counts() -> None:
    compiled = columba.compile(lambda adj, x: adj @ x, backend="torch", fullgraph=True)
    for layout in LAYOUTS:
        row, column = places(5, 5)
        adj = matrix(layout, row, column, torch.rand(len(row), dtype=torch.float64), (5, 5))
        x = torch.randn(5, 2, dtype=torch.float64)

        def check(adj: Tensor = adj, x: Tensor = x) -> None:
            for _ in range(4):  # the last by what the ones before have left
                torch.testing.assert_close(compiled(adj, x), adj @ x)

        check()
        adj.values().mul_(2)
        check()
        index = (
            adj.indices()
            if layout is torch.sparse_coo
            else adj.col_indices()
            if layout is torch.sparse_csr
            else adj.row_indices()
        )
        index[..., -1] = 4
        check()
        adj.values().detach().numpy()[:] = 3.0  # which no version counts
        index.numpy()[..., -1] = 3
        check()
        small = matrix(layout, *places(5, 5, seed=1), torch.ones(len(places(5, 5, seed=1)[0])).double(), (5, 5))
        check(small)
        check()


def test_what_is_not_coalesced() -> None:
    places_ = torch.tensor([[2, 0, 2, 1], [1, 0, 1, 2]])

    def f(adj: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sorted = adj.coalesce()
        return adj @ x, sorted.values() * 2, sorted.to_sparse_csr() @ x

    compiled = columba.compile(f, backend="torch", fullgraph=True)
    x = leaf(3, 2)
    for values in (torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([4.0, 3.0, 0.5, 1.0])):
        adj = torch.sparse_coo_tensor(places_, values.double(), (3, 3))
        assert_same(compiled, f, (adj, x))
        assert_same(compiled, f, (adj.coalesce(), x))
    with_gradient = torch.sparse_coo_tensor(places_, torch.ones(4).double().requires_grad_(), (3, 3))
    with pytest.raises(columba.TraceError, match=r"adj requires gradients and is not coalesced.*pass adj.coalesce\(\)"):
        compiled(with_gradient, x)


class Holder(nn.Module):
    """A model that has its matrix."""

    def __init__(self, adj: Tensor) -> None:
        super().__init__()
        self.register_buffer("adj", adj)
        self.lin = nn.Linear(3, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        pointers = self.adj.crow_indices()
        return torch.relu(self.adj @ self.lin(x)) / pointers.diff().clamp(min=1).view(-1, 1)


def test_a_matrix_of_a_module() -> None:
    row, column = places(4, 4)
    first, second = (
        matrix(torch.sparse_csr, row, column, torch.rand(len(row), dtype=torch.float64), (4, 4)) for _ in range(2)
    )
    model = Holder(first)
    compiled = columba.compile(model, backend="torch", fullgraph=True)
    for adj in (first, first, second, second, first):
        model.adj = adj
        assert_same(compiled, model, (leaf(4, 3),), tuple(model.parameters()))


def test_matrices_that_are_made_inside() -> None:
    """Of integers and weights that are passed in."""

    def f(index: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        return torch.sparse_coo_tensor(index, weight.exp(), (x.shape[0], x.shape[0])) @ x

    compiled = columba.compile(f, backend="torch", fullgraph=True)
    for nodes in (4, 6):
        index = torch.randint(nodes, (2, 9), generator=torch.Generator().manual_seed(0))
        assert_same(compiled, f, (index, leaf(9), leaf(nodes, 3)))
    assert len(compiled._own) == 1


def test_copies_are_written_to() -> None:
    def f(adj: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        ones = adj.clone()
        ones.values().fill_(1.0)
        return adj @ x, ones @ x

    row, column = places(4, 4)
    adj = matrix(torch.sparse_csr, row, column, torch.rand(len(row)).double(), (4, 4))
    assert_same(columba.compile(f, backend="torch", fullgraph=True), f, (adj, leaf(4, 2)))


def test_what_is_refused() -> None:
    row, column = places(4, 4)
    adj = matrix(torch.sparse_csr, row, column, torch.ones(len(row)).double(), (4, 4))
    x = leaf(4, 3)
    refused = {
        "to_dense is not supported on sparse matrices": lambda adj, x: adj.to_dense() @ x,
        "a sparse matrix is used, or returned": lambda adj, x: (adj, adj @ x),
        "a product of rows with a matrix": lambda adj, x: x.t() @ adj,
        "a product of two sparse matrices is not supported": lambda adj, x: (adj @ adj) @ x,
    }
    for message, f in refused.items():
        with pytest.raises(columba.TraceError, match=rf"test_sparse_matrices.py:\d+.*{message}"):
            columba.compile(f, fullgraph=True)(adj, x)
    compiled = columba.compile(lambda adj, x: adj @ x, backend="torch", fullgraph=True)
    with pytest.raises(RuntimeError, match="same dtype: torch.float64 != torch.float32"):
        compiled(adj, x.float())
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        compiled(adj, leaf(5, 3))
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(columba.TraceError, match="under autocast"):
        compiled(adj, x)


# ------------------------------------------------------------------------------------------------ structure of other kinds


def test_segments() -> None:
    """Rows between pointers, also between none of them, as PyTorch has them."""

    def f(x: Tensor, ptr: Tensor) -> tuple[Tensor, ...]:
        kinds = [torch.segment_reduce(x, kind, offsets=ptr, axis=0) for kind in ("sum", "amax", "amin")]
        mean = torch.segment_reduce(x, "mean", offsets=ptr, axis=0, initial=0)
        largest = torch.where(kinds[1].isinf(), 0.0, kinds[1]).detach()
        shares = (x - largest.repeat_interleave(ptr.diff(), dim=0)).exp()
        return *kinds, mean, shares

    compiled = columba.compile(f, backend="torch", fullgraph=True)
    for pointers in ([0, 2, 2, 5], [0, 0, 1, 3, 6]):
        ptr = torch.tensor(pointers)
        assert_same(compiled, f, (leaf(pointers[-1], 2), ptr))
    assert len(compiled._own) == 1


def test_cut_gradients() -> None:
    def f(x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        out = torch.zeros_like(x).index_add(0, index[1], x[index[0]])
        return out.detach() * out, out.detach() * 2

    compiled = columba.compile(f, backend="torch", fullgraph=True)
    args = (leaf(4, 2), torch.tensor([[0, 1, 2, 2], [1, 1, 3, 0]]))
    assert_same(compiled, f, args)
    assert [t.requires_grad for t in compiled(*args)] == [True, False]


def test_lengths_and_slices_of_structure() -> None:
    """The length that Python was told is that of each call, and what is written to a slice is written to all of a tensor."""

    def f(x: Tensor, index: Tensor) -> Tensor:
        key = index.new_empty(index.shape[1] + 1)
        key[0] = -1
        key[1:] = index[1]
        key[1:].mul_(2).add_(1)
        key[1:] = key[1:] // 2
        return torch.zeros_like(x).index_add(0, key[1:], x[index[0]]) * len(index[0])

    compiled = columba.compile(f, backend="torch", fullgraph=True)
    for edges in (4, 4, 6, 5):
        index = torch.randint(3, (2, edges), generator=torch.Generator().manual_seed(edges))
        assert_same(compiled, f, (leaf(3, 2), index))


def test_counts_that_are_compared_with_numbers() -> None:
    def f(x: Tensor, index: Tensor) -> Tensor:
        scale = 2.0 if index.shape[1] > 5 else 3.0
        return torch.zeros_like(x).index_add(0, index[1], x[index[0]]) * scale

    compiled = columba.compile(f, backend="torch", fullgraph=True)
    for edges in (4, 3, 6, 9, 5, 6):
        assert_same(compiled, f, (leaf(3, 2), torch.randint(3, (2, edges))))
    assert len(compiled._own) == 3  # fewer, more, and as many
