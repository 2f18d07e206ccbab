"""Sparse matrices while a function is traced: the tensors that they are made of, in place of each operation on them one on these.

A matrix that is passed in stands for its integers, which are structure as ``edge_index`` is, and for its values, which are a feature of
edges. A product of it with rows is then a gather, a product with the values, and a scatter, which are raised as others are
(:mod:`columba.frontend.raising`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from columba.frontend.errors import TraceError, UnsupportedOperation, fail, location
from columba.frontend.record import Recorder, RecordingMode, SymbolicTensor
from columba.frontend.recorded import Symbol
from columba.frontend.sources import Component, Source
from columba.frontend.sparse_parts import COMPRESSED, LAYOUTS, index_parts, is_coalesced, is_sparse
from columba.frontend.structure import is_integer
from columba.frontend.trees import mapped
from columba.runtime import autocast


class SymbolicMatrix(Symbol):
    """Stands for a sparse matrix while a function is traced.

    Attributes:
        kind: its layout.
        places: its integers: the two tensors of a compressed layout, or the one of ``torch.sparse_coo``.
        entries: its values ``[nnz, ...]``.
        sizes: of all its dimensions, each a number or that of a call.
        coalesced: whether its entries are sorted, and there is one at each place.
    """

    kind: torch.layout
    places: tuple[Tensor, ...]
    entries: Tensor
    sizes: tuple[Any, ...]
    coalesced: bool

    @staticmethod
    def __new__(
        cls,
        kind: torch.layout,
        places: tuple[Tensor, ...],
        entries: Tensor,
        sizes: Sequence[Any],
        coalesced: bool = True,
    ) -> SymbolicMatrix:
        shape = tuple(map(int.__int__, sizes))
        made: SymbolicMatrix = Tensor._make_wrapper_subclass(
            cls, shape, dtype=entries.dtype, device=torch.device("cpu")
        )
        made.kind, made.places, made.entries, made.sizes, made.coalesced = (
            kind,
            places,
            entries,
            tuple(sizes),
            coalesced,
        )
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    __torch_function__ = SymbolicTensor.__torch_function__

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise _refused(str(func))

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"<traced matrix {list(map(int.__int__, self.sizes))} {self.kind}>"


# ------------------------------------------------------------------------------------------------ matrices that are passed in


def symbolic_matrix(recorder: Recorder, matrix: Tensor, source: Source) -> SymbolicMatrix:
    """What stands for a matrix that later calls find at a source."""
    kind, coalesced = matrix.layout, is_coalesced(matrix)
    if kind not in LAYOUTS or matrix.dim() - matrix.dense_dim() != 2:
        raise TraceError(
            f"{source} is a sparse tensor ({kind}, of shape {list(matrix.shape)}), which compiled code does not take; it takes matrices of "
            "the layouts torch.sparse_coo, torch.sparse_csr and torch.sparse_csc"
        )
    if not coalesced and matrix.requires_grad:
        raise TraceError(
            f"{source} requires gradients and is not coalesced, which compiled code does not take; pass {source}.coalesce()"
        )

    def part(name: str) -> SymbolicTensor:
        found = Component(source, name, kind, coalesced)
        return SymbolicTensor(recorder.new_input(found.fetch_from(matrix), found))

    places = tuple(map(part, index_parts(kind)))
    entries, sizes, others = part("values"), part("sizes"), matrix.shape[2:]
    with RecordingMode(recorder):
        counts = [sizes[dim].item() for dim in range(2)]
        recorder.compare_counts(*counts)  # type: ignore[arg-type]  # as many rows as columns are the same nodes
        return SymbolicMatrix(kind, places, entries, (*counts, *others), coalesced)


def _matrices(recorder: Recorder, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """A call in which those that the function has found stand for their parts, too."""

    def symbolic(x: Any) -> Any:
        if not isinstance(x, Tensor) or isinstance(x, Symbol) or not is_sparse(x):
            return x
        source = recorder.sources.get(id(x))
        if source is None:
            raise fail(
                f"a sparse tensor of shape {list(x.shape)} comes from where later calls cannot find it again; pass it as an argument"
            )
        known = recorder.matrices.get(id(x))
        if known is None:
            known = recorder.matrices[id(x)] = x, symbolic_matrix(recorder, x, source)
        return known[1]

    return mapped(symbolic, (args, kwargs))  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------------ calls


def is_of_matrices(name: str, tensors: Sequence[Tensor]) -> bool:
    """Whether a call takes or makes a sparse matrix."""
    return name in _MAKERS or any(isinstance(x, SymbolicMatrix) or is_sparse(x) for x in tensors)


def call(recorder: Recorder, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call with sparse matrices, as calls with their parts.

    Raises:
        UnsupportedOperation: there is no such form of it.
    """
    args, kwargs = _matrices(recorder, args, kwargs)
    with RecordingMode(recorder):
        if name in _MAKERS:
            return _MAKERS[name](*args, **kwargs)
        first: Any = args[0] if args else None
        if name == "__get__":
            attribute = getattr(getattr(func, "__self__", None), "__name__", "")
            return _attribute(recorder, first, attribute)
        if name in _PRODUCTS:
            if autocast.state():
                raise fail(
                    "a product with a sparse matrix under autocast is not compiled; leave it to PyTorch, outside"
                )
            return _PRODUCTS[name](*args, **kwargs)
        if not isinstance(first, SymbolicMatrix):
            raise _refused(name)
        if name in _OF_PARTS:
            return _part(first, name)
        rule = _RULES.get(name)
        if rule is None:
            raise _refused(name)
        return rule(first, *args[1:], **kwargs)


def _refused(name: str) -> TraceError:
    return UnsupportedOperation(
        f"{location()}: {name.strip('_')} is not supported on sparse matrices. Compiled are products of one with the rows of a tensor, "
        "conversions among layouts, and what its indices and values are used for; compute others outside the compiled function."
    )


def _attribute(recorder: Recorder, x: SymbolicMatrix, name: str) -> Any:
    match name:
        case "layout":
            return x.kind
        case "shape":
            return x.sizes
        case "dtype":
            return x.entries.dtype
        case "device":
            return x.entries.device
        case "ndim":
            return len(x.sizes)
        case "requires_grad":
            return recorder.grad
        case "is_sparse" | "is_sparse_csr":
            return x.kind is (torch.sparse_csr if name == "is_sparse_csr" else torch.sparse_coo)
        case "is_cuda" | "is_quantized" | "is_meta" | "is_nested" | "is_mkldnn" | "is_xpu" | "is_mps":
            return False
        case "is_cpu":
            return True
        case "grad" | "grad_fn":
            return None
        case "T":
            return transposed(x)
    raise _refused(name)


# ------------------------------------------------------------------------------------------------ parts and layouts


_OF_PARTS = {"indices", "values", "_indices", "_values", *(name for names in COMPRESSED.values() for name in names)}


def _part(x: SymbolicMatrix, name: str) -> Tensor:
    plain = name.lstrip("_") if x.kind is torch.sparse_coo else name
    if plain == name and not x.coalesced:
        raise RuntimeError(f"{location()}: Cannot get {name} on an uncoalesced tensor, please call .coalesce() first")
    names = index_parts(x.kind)
    if plain not in (*names, "values"):
        raise RuntimeError(f"{location()}: {name} expected another sparse tensor layout but got {x.kind}")
    return x.entries if plain == "values" else x.places[names.index(plain)]


def _expanded(pointers: Tensor) -> Tensor:
    """For each entry, its row: of where those of each row begin. Written as PyG's ``ptr2index`` is, so that both are one."""
    rows = torch.arange(pointers.numel() - 1, dtype=pointers.dtype, device=pointers.device)
    return rows.repeat_interleave(pointers.diff(), output_size=None)


def rows_and_columns(x: SymbolicMatrix) -> tuple[Tensor, Tensor]:
    """Where each entry stands."""
    if x.kind is torch.sparse_coo:
        return x.places[0][0], x.places[0][1]
    long, short = _expanded(x.places[0]), x.places[1]
    return (long, short) if x.kind is torch.sparse_csr else (short, long)


def _with_entries(x: SymbolicMatrix, entries: Tensor) -> SymbolicMatrix:
    return SymbolicMatrix(x.kind, x.places, entries, x.sizes, x.coalesced)


def transposed(x: SymbolicMatrix) -> SymbolicMatrix:
    rows, columns, *others = x.sizes
    sizes = (columns, rows, *others)
    if x.kind is torch.sparse_coo:
        return SymbolicMatrix(x.kind, (x.places[0].flip(0),), x.entries, sizes, coalesced=False)
    other = torch.sparse_csc if x.kind is torch.sparse_csr else torch.sparse_csr
    return SymbolicMatrix(other, x.places, x.entries, sizes)


def _transpose(x: SymbolicMatrix, a: int, b: int) -> SymbolicMatrix:
    if {a % len(x.sizes), b % len(x.sizes)} != {0, 1}:
        raise _refused("transpose")
    return transposed(x)


def _in_order(x: SymbolicMatrix, by_row: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and values of all entries, sorted, those at one place put together."""
    rows, columns = rows_and_columns(x)
    key = rows.long() * x.sizes[1] + columns if by_row else columns.long() * x.sizes[0] + rows
    if bool((key[1:] > key[:-1]).all()):
        return rows, columns, x.entries
    order = key.argsort(stable=True)
    rows, columns, entries = rows[order], columns[order], x.entries.index_select(0, order)
    key = key[order]
    first = torch.cat([torch.ones_like(key[:1], dtype=torch.bool), key[1:] > key[:-1]])
    if bool(first.all()):
        return rows, columns, entries
    group = first.cumsum(0) - 1
    size: Any = (group.max().item() + 1, *entries.shape[1:])
    total = entries.new_zeros(size).index_add(0, group, entries)
    return rows[first], columns[first], total


def coalesce(x: SymbolicMatrix) -> SymbolicMatrix:
    if x.kind is not torch.sparse_coo:
        raise RuntimeError(f"coalesce expected sparse coordinate tensor layout but got {x.kind}")
    if x.coalesced:
        return x
    rows, columns, entries = _in_order(x)
    places = x.places[0] if entries is x.entries else torch.stack([rows, columns])
    return SymbolicMatrix(x.kind, (places,), entries, x.sizes)


def _mark_coalesced(x: SymbolicMatrix, value: bool) -> SymbolicMatrix:
    if not value or not x.coalesced:
        raise fail(
            "a sparse matrix that is not coalesced is marked as if it were, which would change it for everybody who has it; pass "
            "adj.coalesce()"
        )
    return x


def _compressed(x: SymbolicMatrix, kind: torch.layout) -> SymbolicMatrix:
    if x.kind is kind:
        return x
    by_row = kind is torch.sparse_csr
    is_sorted = x.kind is torch.sparse_coo and x.coalesced and by_row
    rows, columns, entries = (*rows_and_columns(x), x.entries) if is_sorted else _in_order(x, by_row)
    long, short = (rows, columns) if by_row else (columns, rows)
    pointers = torch._convert_indices_from_coo_to_csr(long.long(), x.sizes[0 if by_row else 1])
    return SymbolicMatrix(kind, (pointers, short), entries, x.sizes)


def _to_layout(x: SymbolicMatrix, *args: Any, layout: torch.layout | None = None) -> SymbolicMatrix:
    kind = layout or torch.sparse_coo
    if args or kind not in LAYOUTS:
        raise _refused("to_sparse")
    if kind is not torch.sparse_coo:
        return _compressed(x, kind)
    return x if x.kind is kind else coalesce(_places_of(x))


def _places_of(x: SymbolicMatrix) -> SymbolicMatrix:
    return SymbolicMatrix(torch.sparse_coo, (torch.stack(rows_and_columns(x)),), x.entries, x.sizes, coalesced=False)


def _to(x: SymbolicMatrix, *args: Any, **kwargs: Any) -> SymbolicMatrix:
    others: Any = [a.entries if isinstance(a, SymbolicMatrix) else a for a in args]
    entries = x.entries.to(*others, **kwargs)
    return x if entries is x.entries else _with_entries(x, entries)


def _casts(name: str) -> Callable[[SymbolicMatrix], SymbolicMatrix]:
    return lambda x: _with_entries(x, getattr(x.entries, name)())


def _copied(x: SymbolicMatrix, **kwargs: Any) -> SymbolicMatrix:
    """With tensors of its own, which may then be written to."""
    places = tuple(place.clone() for place in x.places)
    return SymbolicMatrix(x.kind, places, x.entries.clone(), x.sizes, x.coalesced)


def _scaled(name: str) -> Callable[..., SymbolicMatrix]:
    def rule(x: SymbolicMatrix, factor: Any) -> SymbolicMatrix:
        if not isinstance(x, SymbolicMatrix) or isinstance(factor, SymbolicMatrix):
            raise _refused(name)
        if isinstance(factor, Tensor) and factor.dim():
            raise _refused(name)
        return _with_entries(x, getattr(x.entries, name)(factor))

    return rule


def _size(x: SymbolicMatrix, dim: int | None = None) -> Any:
    return x.sizes if dim is None else x.sizes[dim]


# ------------------------------------------------------------------------------------------------ matrices that the function makes


def _of_places(indices: Any, values: Any, size: Any = None, *, is_coalesced: bool | None = None, **kwargs: Any) -> Any:
    if not isinstance(indices, Tensor) or not isinstance(values, Tensor) or indices.dim() != 2:
        raise _refused("sparse_coo_tensor")
    if size is None:
        size = (*(indices[n].max().item() + 1 for n in range(2)), *values.shape[1:])
    return _made(torch.sparse_coo, (indices,), values, size, kwargs, bool(is_coalesced))


def _of_pointers(kind: torch.layout) -> Callable[..., SymbolicMatrix]:
    pointers_name, indices_name = COMPRESSED[kind]

    def make(*args: Any, **kwargs: Any) -> SymbolicMatrix:
        names = (pointers_name, indices_name, "values", "size")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        pointers, indices, values, size = (given.pop(name, None) for name in names)
        if size is None:
            raise _refused(f"{str(kind)[6:]}_tensor without its size")
        return _made(kind, (pointers, indices), values, size, given, True)

    return make


def _made(
    kind: torch.layout, places: tuple[Any, ...], values: Any, size: Any, options: dict[str, Any], coalesced: bool
) -> SymbolicMatrix:
    if not all(isinstance(x, Tensor) and is_integer(x.dtype) for x in places) or not isinstance(values, Tensor):
        raise _refused(f"a tensor of layout {kind}, made of these arguments,")
    dtype = options.get("dtype")
    entries = values if dtype is None else values.to(dtype)
    return SymbolicMatrix(kind, places, entries, size, coalesced)


_MAKERS: dict[str, Callable[..., Any]] = {
    "sparse_coo_tensor": _of_places,
    "sparse_csr_tensor": _of_pointers(torch.sparse_csr),
    "sparse_csc_tensor": _of_pointers(torch.sparse_csc),
}


# ------------------------------------------------------------------------------------------------ products


def product(a: Any, b: Any, reduce: str = "sum") -> Tensor:
    """A matrix times the rows of a tensor ``[columns, F]``, or ``[columns]``; ``reduce`` may also be mean, amax, or amin."""
    if isinstance(b, SymbolicMatrix):
        two = isinstance(a, SymbolicMatrix)
        raise _refused(
            f"a product of {'two sparse matrices' if two else 'rows with a matrix, in place of adj.t() @ x,'}"
        )
    if b.dim() not in (1, 2) or len(a.sizes) != 2 or (reduce != "sum" and (b.dim() != 2 or a.kind is torch.sparse_coo)):
        raise _refused("such a product")
    if a.entries.dtype is not b.dtype:
        raise RuntimeError(f"{location()}: expected m1 and m2 to have the same dtype: {a.entries.dtype} != {b.dtype}")
    if b.shape[0] != a.sizes[1]:
        raise RuntimeError(
            f"{location()}: mat1 and mat2 shapes cannot be multiplied ({int(a.sizes[0])}x{int(a.sizes[1])} and {list(b.shape)})"
        )
    rows, columns = rows_and_columns(a)
    factors = a.entries if b.dim() == 1 else a.entries.view(-1, 1)
    terms = factors * b.index_select(0, columns)
    start = b.new_zeros((a.sizes[0], *b.shape[1:]))
    if reduce in ("sum", "mean"):
        total = start.index_add(0, rows, terms)
        if reduce == "sum":
            return total
        ones = torch.ones(columns.shape[0], dtype=b.dtype)
        count = torch.zeros(a.sizes[0], dtype=b.dtype).index_add(0, rows, ones)
        return total / count.clamp(min=1).view(-1, 1)
    kind = _REDUCTIONS.get(reduce)
    if kind is None:
        raise RuntimeError(f"{location()}: unknown reduction {reduce!r}")
    return start.scatter_reduce(0, rows.view(-1, 1).expand_as(terms), terms, kind, include_self=False)


_REDUCTIONS = {"max": "amax", "amax": "amax", "min": "amin", "amin": "amin"}


def _product_and(x: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * x + alpha * product(a, b)


_PRODUCTS: dict[str, Callable[..., Tensor]] = {
    **dict.fromkeys(("matmul", "__matmul__", "mm", "mv", "spmm", "_sparse_mm"), product),
    **dict.fromkeys(("addmm", "_sparse_addmm"), _product_and),
    "__rmatmul__": lambda a, b: product(b, a),
}

_RULES: dict[str, Callable[..., Any]] = {
    "size": _size,
    "dim": lambda x: len(x.sizes),
    "ndimension": lambda x: len(x.sizes),
    "sparse_dim": lambda x: 2,
    "dense_dim": lambda x: len(x.sizes) - 2,
    "_nnz": lambda x: x.entries.shape[0],
    "is_coalesced": lambda x: x.coalesced,
    "is_floating_point": lambda x: x.entries.is_floating_point(),
    "coalesce": coalesce,
    "_coalesced_": _mark_coalesced,
    "to_sparse": _to_layout,
    "to_sparse_coo": _to_layout,
    "to_sparse_csr": lambda x: _compressed(x, torch.sparse_csr),
    "to_sparse_csc": lambda x: _compressed(x, torch.sparse_csc),
    "t": transposed,
    "transpose": _transpose,
    "detach": lambda x: _with_entries(x, x.entries.detach()),
    "clone": _copied,
    "to": _to,
    "type_as": lambda x, other: _with_entries(x, x.entries.to(other.dtype)),
    **{name: _casts(name) for name in ("float", "double", "half", "bfloat16")},
    **{name: _scaled(name) for name in ("mul", "div", "__mul__", "__rmul__", "__truediv__")},
}
