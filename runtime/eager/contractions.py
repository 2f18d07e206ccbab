"""Contractions of a row's features with the weight that the row selects by its type.

The rows are sorted by type, each type's rows are multiplied with one product, and the order is restored. A weight
per row (see :mod:`columba.runtime.eager.lifted`) is never held.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from columba.ir.indices import Order, Segments
from columba.runtime.eager.lifted import RULES, Lifted, gathered, pointwise_rule, register
from columba.runtime.modes import numbers


def linear(x: Tensor, w: Tensor) -> Tensor:
    """Contracts the last feature dimension of ``x`` with the first feature dimension of ``w``.

    Args:
        x: ``[rows, *lead, K]``, floating point.
        w: one weight for all rows, ``[K, *out]``; or one weight per row ``[rows, K, *out]``, selected by type:
            ``e.rel(weight)``, ``n.type(weight)``, ``e.src(n.type(weight))``. Same dtype as ``x``.

    Returns:
        ``[rows, *lead, *out]``. No weight per row is ever held.

    Raises:
        TypeError: ``x`` or ``w`` is no tensor of floating point numbers, or their dtypes differ.
        ValueError: the contracted sizes or the numbers of rows differ.

    >>> from columba.runtime.graphs.graph import Graph
    >>> g = Graph(torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.tensor([0, 1, 1]))
    >>> x, weight = torch.randn(3, 4), torch.randn(2, 4, 5)
    >>> y = linear(g.edges.src(x), g.edges.rel(weight))
    >>> torch.allclose(y[1], x[1] @ weight[1], atol=1e-6)
    True
    """
    if has_torch_function((x, w)):
        result: Tensor = handle_torch_function(linear, (x, w), x, w)
        return result
    _check_linear(x, w)
    return _contract(x, w)


def _contract(x: Tensor, w: Tensor) -> Tensor:
    """``x [rows, *lead, K]`` times ``w [K, *out]``; a matmul, so that autocast knows what to do."""
    return torch.matmul(x, w.reshape(w.shape[0], prod(w.shape[1:]))).reshape(*x.shape[:-1], *w.shape[1:])


def _check_linear(x: Tensor, w: Tensor) -> None:
    for name, value in (("x", x), ("w", w)):
        if not isinstance(value, Tensor):
            raise TypeError(f"linear(x, w) expects tensors, got {type(value).__name__} for {name}")
        if not value.is_floating_point():
            raise TypeError(
                f"linear(x, w) expects floating point numbers, got {value.dtype} for {name}; "
                "embed integer ids (torch.nn.Embedding) or convert with .to(dtype)"
            )
    if x.dtype != w.dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"linear(x, w) expects one dtype, got x: {x.dtype} and w: {w.dtype}; convert one with .to(...)")
    features = w.shape[1:] if isinstance(w, Lifted) else w.shape
    if x.dim() < 2 or not features or x.shape[-1] != features[0]:
        raise ValueError(
            f"linear(x, w) contracts the last feature dimension of x {list(x.shape[1:])} with the first of "
            f"w {list(features)}: both must exist and be equal"
        )
    if isinstance(w, Lifted) and x.shape[0] != w.shape[0]:
        raise ValueError(
            f"linear(x, w) expects x and w in one space, got x {list(x.shape)} and w {list(w.shape)}, "
            f"which has one row per row of space {w.space}"
        )


def _linear_rule(func: Callable[..., Tensor], x: Tensor, w: Tensor) -> Tensor:
    _check_linear(x, w)
    if isinstance(x, Lifted) and not isinstance(w, Lifted):
        return x.with_base(_contract(x.selected(), w))
    assert isinstance(w, Lifted)
    if not isinstance(x, Lifted):
        return _by_segments(w, [x], lambda matrix, block: _contract(block, matrix))
    if not x.along_with(w):
        return func(x.materialize(), w)
    rows, lead, out = x.base.shape[0], x.shape[1:-1], w.shape[2:]
    left = x.selected().reshape(rows, prod(lead), x.shape[-1])
    product = torch.bmm(left, w.selected().reshape(rows, x.shape[-1], prod(out)))
    return x.with_base(product.reshape(rows, *lead, *out))


def _by_segments(weight: Lifted, rows: Sequence[Tensor], compute: Callable[..., Tensor]) -> Tensor:
    """``compute(weight of the segment, *blocks of the row tensors)`` for each type that occurs, in row order.

    Sorts the rows by type and restores their order after. Reads the segment sizes on the host.
    """
    order = weight.graph.structure.index(Order(weight.map))
    ends = numbers(weight.graph.structure.index(Segments(weight.map)))
    sizes = [end - start for start, end in itertools.pairwise(ends)]
    if not order.numel():
        none = weight.base[0] if weight.base.shape[0] else weight.base.new_zeros(weight.shape[1:])
        return compute(none, *rows)
    blocks = [row.index_select(0, order).split(sizes) for row in rows]
    # unbind, not indexing: its backward writes the gradient of all types once, not once for each type.
    matrices = weight.base.unbind(0)
    parts = [compute(matrices[i], *(block[i] for block in blocks)) for i, size in enumerate(sizes) if size]
    inverse = torch.empty_like(order).scatter(0, order.long(), torch.arange(len(order), device=order.device).to(order))
    return torch.cat(parts).index_select(0, inverse)


def _einsum_rule(func: Callable[..., Tensor], equation: Any, *operands: Any) -> Any:
    tensors = list(operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands)
    if not isinstance(equation, str) or "->" not in equation or "." in equation:
        return NotImplemented
    left, out = equation.replace(" ", "").split("->")
    terms = left.split(",")
    if len(terms) != len(tensors) or any(t.dim() != len(term) for t, term in zip(tensors, terms, strict=True)):
        return NotImplemented
    weight = _widest(terms, tensors)
    row = terms[weight][0]
    with_rows = [i for i, term in enumerate(terms) if row in term]
    if any(term.find(row) != 0 or term.count(row) != 1 for term in [out, *(terms[i] for i in with_rows)]):
        return NotImplemented
    lifted: Lifted = tensors[weight]
    if all(isinstance(tensors[i], Lifted) and lifted.along_with(tensors[i]) for i in with_rows):
        return lifted.with_base(func(equation, *(t.selected() if isinstance(t, Lifted) else t for t in tensors)))
    others = "".join(term for i, term in enumerate(terms) if i != weight)
    if set(terms[weight]) <= set(others) or any(tensors[i].shape[0] != lifted.shape[0] for i in with_rows):
        return NotImplemented  # gathered, it is no larger than what it meets
    tensors = [gathered(t) if i != weight else t for i, t in enumerate(tensors)]
    with_rows.remove(weight)
    shared = ",".join([terms[weight][1:], *(term for i, term in enumerate(terms) if i != weight)]) + "->" + out

    def compute(matrix: Tensor, *blocks: Tensor) -> Tensor:
        block = dict(zip(with_rows, blocks, strict=True))
        return torch.einsum(shared, matrix, *(block.get(i, t) for i, t in enumerate(tensors) if i != weight))

    return _by_segments(lifted, [tensors[i] for i in with_rows], compute)


def _widest(terms: Sequence[str], tensors: Sequence[Tensor]) -> int:
    """Which lifted operand would cost most if it were gathered."""
    lifted = [i for i, t in enumerate(tensors) if isinstance(t, Lifted) and terms[i]]
    return max(lifted, key=lambda i: prod(tensors[i].shape[1:]))


def _matmul_rule(func: Callable[..., Tensor], input: Tensor, other: Tensor) -> Any:
    if isinstance(input, Lifted) and isinstance(other, Lifted) and not input.along_with(other):
        return NotImplemented
    ranks = input.dim(), other.dim()
    if isinstance(input, Lifted) and ranks[0] == 2:
        # A vector per row: a shared matrix or vector on its right acts on each row alone.
        return (
            input.with_base(func(input.selected(), other))
            if ranks[1] <= 2 and type(other) is not Lifted
            else NotImplemented
        )
    if any(isinstance(t, Lifted) and t.dim() < 3 for t in (input, other)):
        return NotImplemented
    lazy = pointwise_rule(func, input, other)
    if lazy is not NotImplemented or ranks[0] != ranks[1] or input.shape[0] != other.shape[0]:
        return lazy
    if isinstance(other, Lifted):
        return _by_segments(other, [input], lambda matrix, block: torch.matmul(block, matrix))
    assert isinstance(input, Lifted)
    return _by_segments(input, [other], lambda matrix, block: torch.matmul(matrix, block))


RULES[linear] = _linear_rule
register(_einsum_rule, "einsum")
register(_matmul_rule, "matmul", "__matmul__", "bmm")
