"""Shape inference: shapes and dtypes of results, by rules of our own for the functions that layers call most.

PyTorch's meta device knows them all. Its kernels for most functions are written in Python, though, and the first of them that runs
imports a good second's worth of modules (``torch._dynamo``, ``sympy``) that nothing else here needs. So what is common is answered here,
where it is simple: floating point operands that are contiguous. For everything else, and for every error, :func:`infer` returns None,
and PyTorch is asked, which then also words the message.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from columba.frontend.casts import UnderAutocast
from columba.frontend.structure import RANDOM
from columba.frontend.trees import leaves
from columba.ir.pointwise import POINTWISE

Meta = tuple[Sequence[int], torch.dtype]
"""The shape and dtype of a result."""

MetadataRule = Callable[..., Meta | None]

RULES: dict[str, MetadataRule] = {}
"""By the name of the torch function: ``(*args, **kwargs)``, with meta tensors in place of tensors, to what the result is."""


def infer(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Meta | None:
    """What the torch function called ``name`` returns for these arguments; None where PyTorch has to say."""
    rule = RULES.get(name)
    if rule is None or not all(_is_simple(x) for x in (*args, *kwargs.values())):
        return None
    try:
        return rule(*args, **kwargs)
    except (TypeError, RuntimeError, ValueError, IndexError, KeyError):  # arguments that PyTorch knows what to say of
        return None


def on_meta(func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What PyTorch says that a function gives for meta tensors and numbers: nothing is computed, and no random number drawn."""
    if isinstance(func, UnderAutocast):
        return func.meta(args, kwargs)
    check_dtypes(name, (*args, *kwargs.values()))
    if "device" in kwargs or (name in RANDOM and not any(isinstance(x, Tensor) for x in leaves((args, kwargs)))):
        kwargs = {**kwargs, "device": "meta"}  # which torch.normal takes, though torch.device does not give it one
    with torch.no_grad(), torch.device("meta"):
        return func(*args, **kwargs)


def check_dtypes(name: str, operands: Sequence[Any]) -> None:
    """RuntimeError for operands of several dtypes where a function takes those of one, which the meta device does not mind."""
    if name not in _OF_ONE_DTYPE and name not in _NORMALIZATIONS:
        return
    tensors = [x for x in operands if isinstance(x, Tensor)]
    if name == "index_add":
        del tensors[1:2]  # where they are added
    dtypes = list(dict.fromkeys(x.dtype for x in tensors))
    if name in _NORMALIZATIONS and dtypes[0] in (torch.bfloat16, torch.float16):
        dtypes = [dtype for dtype in dtypes if dtype is not torch.float32]  # of parameters
    if len(dtypes) > 1:
        raise RuntimeError(f"{name}: operands must have the same dtype, but got {' and '.join(map(str, dtypes))}")


_OF_ONE_DTYPE = {
    "linear", "mm", "mv", "matmul", "__matmul__", "__rmatmul__", "addmm", "addmv", "dot", "bmm", "baddbmm", "addbmm", "index_add",
}  # fmt: skip
_NORMALIZATIONS = {"layer_norm", "group_norm", "batch_norm"}


def _is_simple(x: Any) -> bool:
    if isinstance(x, Tensor):
        return x.is_contiguous()
    return all(_is_simple(part) for part in x) if isinstance(x, (tuple, list)) else True


def _rule(*names: str) -> Callable[[MetadataRule], MetadataRule]:
    def register(rule: MetadataRule) -> MetadataRule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def _floating(*tensors: Any) -> bool:
    """Whether these are tensors of one floating point dtype."""
    return all(isinstance(t, Tensor) and t.is_floating_point() and t.dtype is tensors[0].dtype for t in tensors)


def _dimensions(rank: int, dims: Sequence[int]) -> list[int]:
    """Dimensions counted from the front, each once; ValueError if one does not exist."""
    found = [d + rank if d < 0 else d for d in dims]
    if len(set(found)) != len(found) or any(not 0 <= d < rank for d in found):
        raise ValueError(f"no such dimensions: {dims}")
    return found


# ------------------------------------------------------------------------------------------------ of each number

_UNARY = (
    *(name for name, f in POINTWISE.items() if f.arity == 1 and f.result != "bool" and not f.scalars and not f.internal),
    "__neg__", "negative", "__abs__", "absolute", "relu6", "hardtanh", "leaky_relu", "elu", "selu", "gelu", "softplus", "logsigmoid",
    "log_sigmoid", "mish", "softsign", "clamp", "clip", "clamp_min", "clamp_max", "dropout", "ceil", "trunc", "fix", "frac",
    "nan_to_num", "atan", "arctan", "tan", "sinh", "cosh", "hardsigmoid", "hardswish", "celu", "hardshrink", "tanhshrink",
)  # fmt: skip
"""Functions of one tensor and of numbers, whose result is like the tensor."""

_ARITHMETIC = (
    *(f"__{r}{name}__" for r in ("", "r") for name in ("add", "sub", "mul", "truediv", "pow")),
    "add", "sub", "subtract", "rsub", "mul", "multiply", "div", "divide", "true_divide", "pow",
)  # fmt: skip
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_OF_TENSORS = [
    n for n, f in POINTWISE.items() if f.arity == 2 and f.result != "bool" and n not in _ARITHMETIC and not f.internal
]
"""Functions of two tensors that take no number in place of one."""


@_rule(*_UNARY)
def _unary(input: Any, *numbers: Any, **options: Any) -> Meta | None:
    plain = all(isinstance(n, (int, float, str, type(None))) for n in (*numbers, *options.values()))
    return (input.shape, input.dtype) if plain and _floating(input) else None


def _broadcast(operands: Sequence[Any]) -> Meta | None:
    """The shape and dtype of tensors and numbers combined; None if they are not of numbers alone."""
    tensors = [x for x in operands if isinstance(x, Tensor)]
    if not tensors or not all(isinstance(x, (Tensor, int, float)) for x in operands):
        return None
    probe = tensors[0]
    shape = functools.reduce(torch._C._infer_size, (t.shape for t in tensors))
    result = probe.dtype
    for other in (*tensors[1:], *(x for x in operands if not isinstance(x, Tensor))):
        result = torch.result_type(probe, other)
        if result is not probe.dtype or (isinstance(other, Tensor) and other.dim() > probe.dim()):
            if len(operands) > 2:
                return None  # dtypes of three: PyTorch decides
            probe = torch.empty(shape, dtype=result, device="meta")
    return shape, result


@_rule(*_ARITHMETIC)
def _arithmetic(input: Any, other: Any, alpha: Any = 1) -> Meta | None:
    found = _broadcast((input, other))
    return found if found is not None and found[1].is_floating_point else None


@_rule(*_OF_TENSORS)
def _of_tensors(input: Any, other: Any) -> Meta | None:
    return _arithmetic(input, other) if isinstance(input, Tensor) and isinstance(other, Tensor) else None


@_rule(*_COMPARISONS, *(f"__{name}__" for name in _COMPARISONS))
def _comparison(input: Any, other: Any) -> Meta | None:
    found = _broadcast((input, other))
    return None if found is None else (found[0], torch.bool)


@_rule("where")
def _where(condition: Any, input: Any, other: Any) -> Meta | None:
    if condition.dtype is not torch.bool:
        return None
    found = _broadcast((input, other))
    return None if found is None else (torch._C._infer_size(condition.shape, torch.Size(found[0])), found[1])


@_rule("zeros_like", "ones_like")
def _like(input: Any) -> Meta:
    return input.shape, input.dtype


# ------------------------------------------------------------------------------------------------ over dimensions


@_rule("sum", "mean")
def _reduction(
    input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, axis: Any = None
) -> Meta | None:
    dim = dim if axis is None else axis
    if not _floating(input) or not (dtype is None or dtype.is_floating_point):
        return None
    rank = input.dim()
    dims = range(rank) if dim is None or dim == () or dim == [] else (dim,) if isinstance(dim, int) else dim
    reduced = _dimensions(rank, tuple(dims))
    kept = [1 if d in reduced else n for d, n in enumerate(input.shape) if keepdim or d not in reduced]
    return kept, dtype or input.dtype


@_rule("amax", "amin", "logsumexp")
def _extremum(input: Any, dim: Any = (), keepdim: bool = False) -> Meta | None:
    return _reduction(input, dim, keepdim) if 0 not in input.shape else None


@_rule("norm")
def _norm(input: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Meta | None:
    """The meta device refuses the norm p = inf of tensors without rows."""
    known = 0 not in input.shape if dim is None else 0 not in input.shape[1:]
    return _reduction(input, dim, keepdim, dtype=dtype) if known else None


@_rule("linalg_vector_norm")
def _vector_norm(x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Meta | None:
    return _norm(x, ord, dim, keepdim, dtype=dtype)


@_rule("var", "std")
def _var(
    input: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None
) -> Meta | None:
    return _reduction(input, None if isinstance(dim, bool) else dim, keepdim)


@_rule("softmax", "log_softmax")
def _softmax(input: Any, dim: int, _stacklevel: int = 3, dtype: Any = None) -> Meta | None:
    _dimensions(max(input.dim(), 1), (dim,))
    return (input.shape, input.dtype) if dtype is None and _floating(input) else None


@_rule("layer_norm")
def _layer_norm(
    input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Meta | None:
    shape = tuple(normalized_shape)
    parts = [p for p in (weight, bias) if p is not None]
    fits = tuple(input.shape[-len(shape) :]) == shape and all(tuple(p.shape) == shape for p in parts)
    return (input.shape, input.dtype) if shape and fits and _floating(input, *parts) else None


@_rule("normalize")
def _normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Meta | None:
    _dimensions(input.dim(), (dim,))
    return (input.shape, input.dtype) if _floating(input) else None


@_rule("cat", "concat", "concatenate")
def _cat(tensors: Any, dim: int = 0) -> Meta | None:
    first = tensors[0]
    (along,) = _dimensions(first.dim(), (dim,))
    others = [[n for d, n in enumerate(t.shape) if d != along] for t in tensors]
    if not _floating(*tensors) or any(o != others[0] for o in others):
        return None
    return [sum(t.shape[along] for t in tensors) if d == along else n for d, n in enumerate(first.shape)], first.dtype


@_rule("stack")
def _stack(tensors: Any, dim: int = 0) -> Meta | None:
    first = tensors[0]
    (along,) = _dimensions(first.dim() + 1, (dim,))
    if not _floating(*tensors) or any(t.shape != first.shape for t in tensors):
        return None
    return [*first.shape[:along], len(tensors), *first.shape[along:]], first.dtype


# ------------------------------------------------------------------------------------------------ products


@_rule("linear")
def _linear(input: Any, weight: Any, bias: Any = None) -> Meta | None:
    wide = input.dim() >= 1 and weight.dim() == 2 and input.shape[-1] == weight.shape[1]
    if not wide or not _floating(input, weight, *([] if bias is None else [bias])):
        return None
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        return None
    return (*input.shape[:-1], weight.shape[0]), input.dtype


@_rule("mm")
def _mm(input: Any, mat2: Any) -> Meta | None:
    return _matmul(input, mat2) if input.dim() == mat2.dim() == 2 else None


@_rule("mv")
def _mv(input: Any, vec: Any) -> Meta | None:
    return _matmul(input, vec) if (input.dim(), vec.dim()) == (2, 1) else None


@_rule("bmm")
def _bmm(input: Any, mat2: Any) -> Meta | None:
    batched = input.dim() == mat2.dim() == 3 and input.shape[0] == mat2.shape[0]
    return _matmul(input, mat2) if batched else None


@_rule("matmul", "__matmul__")
def _matmul(input: Any, other: Any) -> Meta | None:
    return _product(input, other) if _floating(input, other) else None


@_rule("__rmatmul__")
def _rmatmul(input: Any, other: Any) -> Meta | None:
    return _product(other, input) if _floating(input, other) else None


def _product(x: Tensor, y: Tensor) -> Meta | None:
    if not x.dim() or not y.dim() or x.shape[-1] != y.shape[max(y.dim() - 2, 0)]:
        return None
    batch = torch._C._infer_size(x.shape[:-2], y.shape[:-2])
    return (*batch, *x.shape[-2:-1], *(y.shape[-1:] if y.dim() > 1 else ())), x.dtype


@_rule("einsum")
def _einsum(equation: Any, *operands: Any) -> Meta | None:
    tensors = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else list(operands)
    terms, out = equation.replace(" ", "").split("->")
    letters = terms.split(",")
    if "." in equation or not _floating(*tensors):
        return None
    sizes: dict[str, int] = {}
    for term, t in zip(letters, tensors, strict=True):
        for letter, n in zip(term, t.shape, strict=True):
            if sizes.setdefault(letter, n) != n:
                return None
    return ([sizes[c] for c in out], tensors[0].dtype) if len(set(out)) == len(out) else None


@_rule("embedding")
def _embedding(
    input: Any,
    weight: Any,
    padding_idx: Any = None,
    max_norm: Any = None,
    norm_type: Any = 2.0,
    *flags: bool,
    **named: Any,
) -> Meta | None:
    if max_norm is not None or weight.dim() != 2 or input.dtype not in (torch.int32, torch.int64):
        return None
    return (*input.shape, weight.shape[1]), weight.dtype
