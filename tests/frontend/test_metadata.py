"""The front end's own rules for shapes and dtypes say what PyTorch's meta device says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import columba
from columba.frontend.metadata import RULES, infer
from columba.ir.pointwise import POINTWISE

DTYPES = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16, "i64": torch.int64, "bool": torch.bool}


def meta(*shape: int, dtype: str = "f32") -> Tensor:
    return torch.empty(shape, dtype=DTYPES[dtype], device="meta")


X, Y, V, M, S = meta(5, 4, 8), meta(5, 1, 8), meta(8), meta(8, 6), meta()
I = meta(5, dtype="i64")  # noqa: E741

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Call:
    return function, args, kwargs


TABLE = {f: getattr(torch, n, None) or getattr(F, n) for n, f in POINTWISE.items() if not f.scalars and not f.internal}
UNARY = [
    *(function for f, function in TABLE.items() if f.arity == 1),
    F.relu6, F.hardtanh, F.leaky_relu, F.elu, F.selu, F.softplus, F.logsigmoid, F.mish, F.softsign, Tensor.__neg__, Tensor.__abs__,
    torch.ceil, torch.trunc, torch.frac, torch.nan_to_num, torch.atan, torch.tan, torch.sinh, torch.cosh, F.hardsigmoid, F.hardswish,
    F.celu, F.hardshrink, F.tanhshrink,
]  # fmt: skip
BINARY = [
    *(function for f, function in TABLE.items() if f.arity == 2),
    Tensor.__add__, Tensor.__rsub__, Tensor.__mul__, Tensor.__truediv__, Tensor.__rtruediv__, Tensor.__pow__, Tensor.__rpow__,
    Tensor.__lt__,
]  # fmt: skip
OPERANDS = [
    X,
    Y,
    V,
    S,
    2,
    0.5,
    True,
    meta(5, 4, 8, dtype="f64"),
    meta(8, dtype="bf16"),
    meta(dtype="f64"),
    meta(8, dtype="i64"),
    I,
]
CALLS: list[Call] = [
    *(call(f, x) for f in UNARY for x in (X, S, meta(3, dtype="bf16"), meta(0, 4), meta(3, dtype="i64"))),
    *(call(f, a, b) for f in BINARY for a in (X, V, S, meta(8, dtype="i64"), meta(5, 4, 8, dtype="f64")) for b in OPERANDS),
    call(torch.add, X, Y, alpha=2.0), call(F.leaky_relu, X, 0.1), call(F.gelu, X, approximate="tanh"), call(torch.clamp, X, min=0.0),
    call(torch.clamp, X, 0, 1), call(torch.clamp, X, min=Y), call(F.dropout, X, 0.5, True), call(F.dropout, X, 0.5, False),
    call(torch.where, X > 0, X, Y), call(torch.where, meta(4, 1, dtype="bool"), X, 0.0), call(torch.where, X > 0, X, S),
    call(torch.where, X > 0, 1.0, 2.0), call(torch.where, X > 0, meta(8, dtype="f64"), V), call(torch.where, I, S, S),
    call(torch.zeros_like, X), call(torch.ones_like, X), call(torch.ones_like, X, dtype=torch.float64), call(torch.zeros_like, I),
    *(call(f, X, **k) for f in (torch.sum, torch.mean) for k in ({}, {"dim": -1}, {"dim": (0, 2), "keepdim": True})),
    call(torch.sum, X, dtype=torch.float64),
    call(torch.sum, I), call(torch.sum, X, 1, True), call(torch.sum, S), call(torch.sum, X, dim=()), call(torch.sum, X, dim=[]),
    call(torch.amax, X), call(torch.amax, X, -1), call(torch.amin, X, (0, 1), True), call(torch.amax, meta(0, 3), 0),
    call(torch.amax, I, 0),
    call(torch.logsumexp, X, -1), call(torch.logsumexp, X, (1, 2), keepdim=True),
    call(F.softmax, X, -1), call(torch.softmax, X, 0), call(F.log_softmax, X, dim=1), call(torch.softmax, X, 1, dtype=torch.float64),
    call(torch.softmax, S, 0), call(torch.softmax, X, 3), call(F.softmax, X),
    call(Tensor.var, X), call(Tensor.var, X, False), call(Tensor.std, X, (0, 1), keepdim=True), call(torch.std, X, dim=-1, correction=0),
    call(torch.var, S, 0), call(Tensor.std, X, 4),
    call(F.layer_norm, X, (8,)), call(F.layer_norm, X, (4, 8), meta(4, 8), meta(4, 8)), call(F.layer_norm, X, (8,), meta(4)),
    call(F.normalize, X, dim=-1), call(F.normalize, X), call(F.normalize, V, dim=1),
    call(Tensor.norm, X, 2, -1), call(Tensor.norm, X, p=float("inf"), dim=-1, keepdim=True), call(Tensor.norm, X),
    call(torch.linalg.vector_norm, X, 3, -1), call(torch.linalg.vector_norm, X, dim=(1, 2), keepdim=True),
    call(torch.cat, [X, Y], 1), call(torch.cat, (X, X)), call(torch.cat, [X, Y]), call(torch.cat, [X, meta(5, 4, 8, dtype="f64")], -1),
    call(torch.cat, [X, meta(0)], 0), call(torch.stack, [X, X]), call(torch.stack, [X, X], -1), call(torch.stack, [X, Y], 1),
    call(F.linear, X, meta(3, 8)), call(F.linear, X, meta(3, 8), meta(3)), call(F.linear, V, meta(3, 8)), call(F.linear, X, V),
    call(F.linear, X, meta(3, 7)), call(F.linear, X, meta(3, 8), meta(1)), call(F.linear, X, meta(3, 8, dtype="f64")),
    *(
        call(torch.matmul, a, b)
        for a in (X, V, meta(4, 8), meta(2, 1, 3, 8), S)
        for b in (M, V, meta(5, 8, 2), meta(7, 1, 8, 2), meta(4), meta(5, 1, 8))
    ),
    call(torch.mm, meta(4, 8), M), call(torch.mm, X, M), call(torch.bmm, X, meta(5, 8, 2)), call(torch.bmm, X, meta(4, 8, 2)),
    call(torch.mv, meta(4, 8), V), call(torch.mv, meta(4, 8), meta(4)), call(Tensor.__matmul__, X, M), call(Tensor.__rmatmul__, M, X),
    call(torch.einsum, "ehi,ehij->ehj", X, meta(5, 4, 8, 3)), call(torch.einsum, "ehi,hij->jeh", X, meta(4, 8, 3)),
    call(torch.einsum, "ehi->he", X), call(torch.einsum, "ehi,ehi->eh", [X, X]), call(torch.einsum, "ehi,xhi->ehi", X, Y),
    call(torch.einsum, "ehi,ei->eh", X, meta(5, 7)), call(torch.einsum, "ehi,hi->", X, meta(4, 8)), call(torch.einsum, "...i,i->...", X, V),
    call(torch.einsum, "ii->i", meta(3, 3)), call(torch.einsum, "ehi,ehi", X, X),
    call(F.embedding, I, M), call(F.embedding, meta(2, 3, dtype="i64"), M, 0), call(F.embedding, X, M),
]  # fmt: skip


def said_by_torch(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        result = function(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError, IndexError) as e:
        return type(e)
    return tuple(result.shape), result.dtype


def test_rules_say_what_torch_says() -> None:
    answered = set()
    for function, args, kwargs in CALLS:
        name = function.__name__
        found = infer(name, args, kwargs)
        if found is None:
            continue
        answered.add(name)
        shape, dtype = found
        assert (tuple(shape), dtype) == said_by_torch(function, args, kwargs), (name, args, kwargs)
    missing = {name for name in RULES if name not in answered}
    aliases = {
        "negative",
        "absolute",
        "subtract",
        "multiply",
        "divide",
        "true_divide",
        "concat",
        "concatenate",
        "rsub",
        "clip",
        "clamp_min",
        "clamp_max",
        "logsigmoid",
        "arctan",
        "fix",
    }
    assert not {n for n in missing if not n.startswith("__")} - aliases


def test_what_is_not_contiguous_is_left_to_torch() -> None:
    assert infer("relu", (meta(4, 8).t(),), {}) is None
    assert infer("cat", ([X.transpose(1, 2), X.transpose(1, 2)],), {}) is None


@pytest.mark.slow
def test_tracing_a_layer_imports_nothing_heavy() -> None:
    """A process that compiles the shipped layers does not load what only torch.compile needs."""
    text = """
import sys, torch, columba
g = columba.Graph(torch.tensor([[0, 1, 2], [1, 2, 2]]), torch.tensor([0, 1, 0]), node_type=torch.tensor([0, 0, 1]))
for layer in (columba.nn.RGCNConv(4, 4, 2), columba.nn.RGATConv(4, 4, 2), columba.nn.HGTConv(4, 4, 2, 2)):
    columba.compile(layer, backend="torch")(torch.randn(3, 4), g).sum().backward()
print(*(m for m in ("torch._dynamo", "sympy", "torch._inductor", "triton") if m in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_dtypes_that_the_meta_device_does_not_mind() -> None:
    """Operands that PyTorch refuses to combine are refused by a compiled function, with the same kind of error."""
    single, double = torch.ones(3, 3), torch.ones(3, 3, dtype=torch.float64)
    norm = torch.nn.BatchNorm1d(3)
    refused: list[Callable[[Tensor, Tensor], Tensor]] = [
        F.linear,
        lambda x, w: F.linear(x, w.float(), w[0]),
        torch.matmul,
        lambda x, w: x @ w[0],
        lambda x, w: torch.addmm(w, x, x),
        lambda x, w: torch.zeros(3, 3).index_add(0, torch.arange(3), w),
        lambda x, w: F.layer_norm(x, (3,), w[0]),
        lambda x, w: F.batch_norm(x, None, None, w[0], None, True),
        lambda x, w: F.batch_norm(w, norm.running_mean, norm.running_var),
        lambda x, w: F.linear(x.long(), w),
    ]
    taken: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda x, w: F.batch_norm(x.bfloat16(), None, None, w[0].float(), None, True),
        torch.mul,
        torch.maximum,
    ]
    graph = columba.Graph(torch.tensor([[0, 1, 2], [1, 2, 0]]))
    for function in (*refused, *taken):

        def of_graph(g: columba.Graph, x: Tensor, w: Tensor, function: Any = function) -> Tensor:
            return g.edges.sum(g.edges.src(function(x, w)))

        fast = columba.compile(of_graph, backend="torch")
        if function in taken:
            assert fast(graph, single, double).dtype == of_graph(graph, single, double).dtype
        else:
            for call in (of_graph, fast):
                with pytest.raises(RuntimeError, match="dtype|scalar type"):
                    call(graph, single, double)
