"""Preparations that C++ computes in one call: the values, shapes and strides that PyTorch computes, or PyTorch is asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import columba
from columba.frontend import preparation
from columba.frontend.preparation import Preparation
from columba.frontend.steps import Number, Size, Step, Value
from columba.frontend.structure import numbers_of
from columba.runtime.graphs import sorts

EDGES = Value(0)
COUNT = Number(0)
ALL = slice(None)


@pytest.fixture(autouse=True)
def _native() -> None:
    assert isinstance(sorts.sorts_for(torch.device("cpu"), edges=sorts.WORTH_BUILDING), sorts.NativeSorts)


class Steps:
    """A preparation of ``edge_index``, in the making."""

    def __init__(self, inputs: int = 1) -> None:
        self.steps: list[Step] = []
        self.inputs = inputs

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Value:
        self.steps.append(Step(function, args, kwargs))
        return Value(self.inputs + len(self.steps) - 1)

    def preparation(self, *kept: Value) -> Preparation:
        numbers = frozenset(value.number - self.inputs for value in kept)
        return Preparation((None,) * self.inputs, (), tuple(self.steps), torch.device("cpu"), numbers)  # type: ignore[arg-type]


def with_self_loops(steps: Steps, edges: Value = EDGES, count: Any = COUNT) -> Value:
    """What ``remove_self_loops`` and ``add_self_loops`` compute."""
    source, destination = steps(Tensor.__getitem__, edges, 0), steps(Tensor.__getitem__, edges, 1)
    kept = steps(Tensor.__getitem__, edges, (ALL, steps(Tensor.__ne__, source, destination)))
    loops = steps(Tensor.repeat, steps(Tensor.view, steps(torch.arange, 0, count), 1, -1), 2, 1)
    return steps(torch.cat, [kept, loops], dim=1)


def normalized(steps: Steps, edges: Value, dtype: torch.dtype) -> Value:
    """What ``gcn_norm`` computes of them."""
    zeros, ones = steps(torch.zeros, (COUNT,), dtype=dtype), steps(torch.ones, (Size(edges.number, 1),), dtype=dtype)
    row, column = steps(Tensor.__getitem__, edges, 0), steps(Tensor.__getitem__, edges, 1)
    degree = steps(Tensor.scatter_add, zeros, 0, steps(Tensor.expand_as, column, ones), ones)
    root = steps(Tensor.pow, degree, -0.5)
    root = steps(Tensor.masked_fill, root, steps(Tensor.__eq__, root, math.inf), 0)
    weight = steps(
        torch.mul, steps(torch.mul, steps(Tensor.__getitem__, root, row), ones), steps(Tensor.__getitem__, root, column)
    )
    return steps(Tensor.view, weight, -1, 1)


def edge_indices() -> Iterator[tuple[int, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for nodes, edges in ((1, 0), (5, 0), (1, 7), (4, 1), (9, 40), (300, 1_000), (70, 9_000)):
        yield nodes, torch.randint(nodes, (2, edges), generator=generator)
    yield 6, torch.arange(6).repeat(2, 1)  # nothing but self-loops
    yield 6, torch.stack([torch.arange(5), torch.arange(1, 6)])  # none
    yield 50, torch.randint(50, (3, 200), generator=generator)[::2]  # rows that stand apart
    sparse = torch.randint(400, (2, 5_000), generator=generator)
    sparse[1, ::97] = sparse[0, ::97]  # few among many
    yield 400, sparse


def agree(prepared: Preparation, *tensors: Tensor, counts: tuple[int, ...] = (), natively: bool = True) -> None:
    """It gives what PyTorch computes, in tensors of the same shapes and strides; computed in C++, or not."""
    prepared._run(tensors, counts)  # which shows how it is done from now on
    found, expected = prepared._run(tensors, counts), prepared.compute(tensors, counts)
    assert (prepared.program is not None and prepared.program(tensors, counts) is not None) is natively
    assert len(found) == len(expected)
    for n, (one, other) in enumerate(zip(found, expected, strict=True)):
        if n in prepared.kept:
            assert one.dtype is other.dtype
            assert one.shape == other.shape
            if one.numel() > 1:
                assert one.stride() == other.stride()
            torch.testing.assert_close(one, other, rtol=1e-6, atol=0, equal_nan=True)
            assert (
                not one.is_floating_point()
                or one.dtype is torch.float32
                or torch.allclose(one, other, 1e-14, 0, equal_nan=True)
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_self_loops_and_normalizations(dtype: torch.dtype) -> None:
    steps = Steps()
    edges = with_self_loops(steps)
    end, weight = steps(Tensor.__getitem__, edges, 1), normalized(steps, edges, dtype)
    prepared = steps.preparation(edges, end, weight)
    for nodes, edge_index in edge_indices():
        agree(prepared, edge_index, counts=(nodes,))


def test_degrees_of_edges_as_they_are() -> None:
    steps = Steps()
    zeros, ones = steps(torch.zeros, COUNT), steps(torch.ones, Size(0, 1))
    degree = steps(Tensor.scatter_add, zeros, 0, steps(Tensor.__getitem__, EDGES, 1), ones)
    mean = steps(Tensor.view, steps(Tensor.clamp, degree, min=1), (-1, 1))
    prepared = steps.preparation(mean, degree)
    for nodes, edge_index in edge_indices():
        agree(prepared, edge_index, counts=(nodes,))


def test_what_is_kept_may_be_a_view_of_what_was_given() -> None:
    steps = Steps()
    row = steps(Tensor.__getitem__, EDGES, 1)
    column = steps(Tensor.view, row, -1, 1)
    edge_index = torch.randint(9, (2, 30))
    prepared = steps.preparation(row, column)
    agree(prepared, edge_index)
    assert prepared._run((edge_index,), ())[0].data_ptr() == edge_index[1].data_ptr()


INTEGERS = torch.tensor([3, -1, 0, 2**62, -(2**63), 2**63 - 1, 7, 7])
FLOATS = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1e-42, 3e38, 2.5])
COMPARISONS = (Tensor.eq, Tensor.ne, Tensor.lt, Tensor.le, Tensor.gt, Tensor.ge, torch.eq, torch.lt)
SUMS = (Tensor.add, Tensor.sub, Tensor.mul, torch.mul, Tensor.__rsub__)
QUOTIENTS = (Tensor.div, Tensor.__rdiv__, torch.true_divide)


@pytest.mark.parametrize("values", [INTEGERS, FLOATS, FLOATS.double()], ids=["int64", "float32", "float64"])
def test_pointwise(values: Tensor) -> None:
    is_float = values.is_floating_point()
    number = 2.5 if is_float else 7
    one, other = Value(0), Value(1)
    steps = Steps(2)
    kept = [
        steps(f, one, x)
        for f in (*COMPARISONS, *SUMS)
        for x in (other, number)
        if f is not Tensor.__rsub__ or x is number
    ]
    kept += [
        steps(Tensor.clamp, one, number),
        steps(torch.clamp, one, max=number),
        steps(Tensor.clamp, one, min=number),
    ]
    kept += [steps(Tensor.bitwise_not, steps(Tensor.eq, one, number))]
    kept += [steps(Tensor.masked_fill, one, steps(Tensor.ne, one, other), number)]
    if is_float:
        kept += [
            steps(f, one, x) for f in QUOTIENTS for x in (number, other) if f is not Tensor.__rdiv__ or x is number
        ]
        kept += [steps(Tensor.pow, one, -0.5), steps(Tensor.eq, one, math.inf)]
    prepared = steps.preparation(*kept)
    agree(prepared, values, values.flip(0))
    agree(prepared, values[:0], values[:0])
    agree(prepared, values, values[:1], natively=False)  # which PyTorch repeats


def test_choices_and_orders() -> None:
    steps = Steps(2)
    mask, table = steps(Tensor.gt, Value(1), 3), steps(Tensor.mul, Value(1), 10)
    numbers = steps(numbers_of, mask)
    kept = [
        numbers,
        steps(Tensor.index_select, table, 0, numbers),
        steps(Tensor.__getitem__, table, numbers),
        steps(Tensor.__getitem__, table, mask),
        steps(Tensor.flip, EDGES, [0]),
        steps(torch.cat, [table, numbers, table]),
        steps(Tensor.__getitem__, steps(Tensor.flip, EDGES, (0,)), -1),
    ]
    prepared = steps.preparation(*kept)
    for seed in range(4):
        torch.manual_seed(seed)
        agree(prepared, torch.randint(9, (2, 5 * seed)), torch.randint(8, (11 * seed,)))


def test_indices_from_the_end_and_out_of_range() -> None:
    steps = Steps(2)
    prepared = steps.preparation(steps(Tensor.__getitem__, Value(0), Value(1)))
    table = torch.arange(5) * 10
    agree(prepared, table, torch.tensor([-1, -5, 0, 4]))
    for wrong in (5, -6):
        with pytest.raises(IndexError, match="out of bounds"):
            prepared._run((table, torch.tensor([0, wrong])), ())
    agree(prepared, table, torch.tensor([1]))

    steps = Steps(2)
    prepared = steps.preparation(steps(Tensor.index_select, Value(0), 0, Value(1)))
    agree(prepared, table, torch.tensor([1]))
    with pytest.raises(IndexError, match="out of range"):
        prepared._run((table, torch.tensor([-1])), ())

    steps = Steps(2)
    prepared = steps.preparation(steps(Tensor.scatter_add, Value(0), 0, Value(1), Value(1)))
    agree(prepared, table, torch.tensor([1, 1, 4]))
    for wrong in (5, -1):
        with pytest.raises(IndexError, match="out of bounds"):
            prepared._run((table, torch.tensor([wrong])), ())


def test_other_tensors_go_to_pytorch() -> None:
    steps = Steps()
    prepared = steps.preparation(with_self_loops(steps))
    edge_index = torch.randint(9, (2, 30))
    agree(prepared, edge_index, counts=(9,))
    for other in (edge_index.to(torch.int32), torch.randint(9, (30, 2)).T, torch.randint(9, (2, 60))[:, ::2]):
        agree(prepared, other, counts=(9,), natively=False)
    agree(prepared, edge_index, counts=(9,))


def test_steps_that_cpp_does_not_know_go_to_pytorch() -> None:
    for step in (
        lambda steps, row: steps(torch.unique, row),
        lambda steps, row: steps(Tensor.add, row, 0.5),
        lambda steps, row: steps(Tensor.add, row, row, alpha=2),
        lambda steps, row: steps(Tensor.pow, steps(Tensor.to, row, torch.float32), -0.5),
        lambda steps, row: steps(Tensor.__getitem__, row, slice(0, 2)),
        lambda steps, row: steps(torch.arange, 1, COUNT),
    ):
        steps = Steps()
        prepared = steps.preparation(step(steps, steps(Tensor.__getitem__, EDGES, 0)))
        agree(prepared, torch.randint(9, (2, 30)), counts=(9,), natively=False)


def test_another_default_dtype() -> None:
    steps = Steps()
    prepared = steps.preparation(steps(torch.ones, COUNT))
    agree(prepared, torch.zeros(2, 3, dtype=torch.int64), counts=(4,))
    torch.set_default_dtype(torch.float64)
    try:
        agree(prepared, torch.zeros(2, 3, dtype=torch.int64), counts=(4,))
        assert prepared._run((torch.zeros(2, 3, dtype=torch.int64),), (4,))[0].dtype is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    agree(prepared, torch.zeros(2, 3, dtype=torch.int64), counts=(4,))


def test_layers_of_pyg_and_writes_to_their_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Self-loops and normalizations of PyG are such programs; what is written to ``edge_index`` is seen."""
    nn = pytest.importorskip("torch_geometric.nn")
    ran = list[bool]()
    run = Preparation._in_one_call

    def noted(self: Preparation, *args: Any) -> Any:
        found = run(self, *args)
        ran.append(found is not None)
        return found

    monkeypatch.setattr(preparation.Preparation, "_in_one_call", noted)
    torch.manual_seed(0)
    x, edge_index = torch.randn(40, 8), torch.randint(40, (2, 200))
    for layer in (nn.GCNConv(8, 4), nn.SAGEConv(8, 4)):
        args = (x, edge_index)
        compiled = columba.compile(layer, backend="torch")
        ran.clear()
        for _ in range(3):
            for _ in range(3):  # the same graph again goes by the shortcut
                torch.testing.assert_close(compiled(*args), layer(*args))
            edge_index[:, :7] = torch.randint(40, (2, 7))
            edge_index.numpy()[1, 9] = edge_index[0, 9]  # which PyTorch does not count
        assert ran[-1]


def test_what_gives_back_its_argument_is_still_compared() -> None:
    """``long()`` of integers of 64 bits is the caller's own tensor: others may write to it."""

    class Mean(torch.nn.Module):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            source, destination = edge_index.long().contiguous()
            sums = x.new_zeros(x.shape).index_add_(0, destination, x[source])
            return sums / x.new_zeros(len(x)).index_add_(0, destination, torch.ones(len(source))).clamp(min=1)[:, None]

    torch.manual_seed(0)
    layer = Mean()
    compiled = columba.compile(layer, backend="torch")
    x, edge_index = torch.randn(40, 8), torch.randint(40, (2, 3_000))
    for number in range(4):
        for _ in range(3):
            torch.testing.assert_close(compiled(x, edge_index), layer(x, edge_index))
        edge_index.numpy()[number % 2, ::7] = number


def test_masks_and_sizes_of_memory_that_is_not_there() -> None:
    steps = Steps()
    prepared = steps.preparation(steps(torch.ones, COUNT))
    edge_index = torch.zeros(2, 3, dtype=torch.int64)
    agree(prepared, edge_index, counts=(4,))
    with pytest.raises((RuntimeError, IndexError), match="memory|invalid|overflow"):
        prepared._run((edge_index,), (2**60,))
    steps = Steps(2)
    mask = steps(Tensor.eq, Value(1), 0)
    prepared = steps.preparation(
        steps(Tensor.__getitem__, EDGES, (ALL, mask)), steps(Tensor.__getitem__, Value(1), mask)
    )
    for share in (0.0, 0.01, 0.5, 1.0):
        agree(prepared, torch.randint(9, (2, 500)), (torch.rand(500) < share).long())


def test_room_for_edges_that_a_mask_drops_is_let_go() -> None:
    steps = Steps()
    source, destination = steps(Tensor.__getitem__, EDGES, 0), steps(Tensor.__getitem__, EDGES, 1)
    kept = steps(Tensor.__getitem__, EDGES, (ALL, steps(Tensor.__eq__, source, destination)))
    prepared = steps.preparation(kept, steps(Tensor.__getitem__, kept, 1))
    edge_index = torch.stack([torch.arange(1_000), torch.arange(1_000).flip(0)])
    edge_index[:, ::100] = 7
    agree(prepared, edge_index)
    results = prepared._run((edge_index,), ())
    whole, row = (results[n] for n in sorted(prepared.kept))
    assert whole.untyped_storage().nbytes() == whole.numel() * 8
    assert row.data_ptr() == whole[1].data_ptr()
