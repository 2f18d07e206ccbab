"""A weight that every row selects by its type, kept as one weight per type: the lazy lift of the eager language.

``e.rel(w)`` has the meaning of ``w[edge_type]``, a tensor with one weight per edge; for matrices that is what
exhausts memory. A :class:`Lifted` holds ``w`` and the index map that selects its rows. It behaves as the tensor
``[rows, ...]`` in every torch function:

* functions that act on the features of a row alone (views, pointwise functions) act on ``w`` and stay lazy;
* contractions of a matrix per row are computed segment by segment (:mod:`columba.runtime.eager.contractions`);
* everything else gathers ``w`` first (:meth:`Lifted.materialize`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from columba.ir.indices import Lookup, Segments
from columba.ir.spaces import IndexMap, Space
from columba.runtime.structure import GraphLike


class Lifted(Tensor):
    """The rows of ``base`` that the rows of a finer space select, not yet gathered.

    Args:
        base: ``[coarse rows, *features]``.
        map: the map from this value's space to the space of ``base``.
        graph: the graph whose map it is.
    """

    base: Tensor
    map: IndexMap
    graph: GraphLike

    @staticmethod
    def __new__(cls, base: Tensor, map: IndexMap, graph: GraphLike) -> Lifted:
        shape = (graph.count(map.fine), *base.shape[1:])
        return Tensor._make_wrapper_subclass(cls, shape, dtype=base.dtype, device=base.device)

    def __init__(self, base: Tensor, map: IndexMap, graph: GraphLike) -> None:
        self.base = base
        self.map = map
        self.graph = graph

    @property
    def space(self) -> Space:
        """The space of this value's rows."""
        return self.map.fine

    def materialize(self) -> Tensor:
        """The ordinary tensor ``[rows, *features]``."""
        return self.base.index_select(0, self.graph.structure.index(Lookup(self.map)))

    def selected(self) -> Tensor:
        """``base``, with ones in the rows that nothing selects where there may be gradients.

        What is computed from ``base`` has a gradient of 0 in these rows. Times what is infinite there it would be no number, and would
        reach other operands; the rows of ``w[types]`` that it stands for know nothing of them.
        """
        if not (self.base.is_floating_point() and torch.is_grad_enabled()):
            return self.base
        occurs = self.graph.structure.index(Segments(self.map)).diff() > 0
        return torch.where(occurs.view(-1, *[1] * (self.base.dim() - 1)), self.base, 1.0)

    def with_base(self, base: Tensor) -> Lifted:
        """The same lift of another tensor."""
        return Lifted(base, self.map, self.graph)

    def along_with(self, other: Lifted) -> bool:
        """Whether both select by the same map of the same graph."""
        return self.map == other.map and self.graph is other.graph

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Lifted(shape={list(self.shape)}, dtype={self.dtype}, of={list(self.base.shape)}, along={self.map})"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        rule = RULES.get(func)
        if rule is not None:
            result = rule(func, *args, **kwargs)
            if result is not NotImplemented:
                return result
        name = getattr(func, "__name__", "")
        if name == "__setitem__" or (name.endswith("_") and not name.endswith("__")):
            raise RuntimeError(
                f"{name} would change a lifted tensor in place: its rows are shared; write the operation out of place"
            )
        return func(*(gathered(a) for a in args), **{k: gathered(v) for k, v in kwargs.items()})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        # Autograd lies above this point: a gather here would lose the gradient, and quietly.
        raise RuntimeError(f"{func} reached a lifted tensor below torch's function protocol; pass x.materialize()")


def pointwise_rule(func: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Any:
    """Functions that broadcast: lazy if every tensor is lifted alike or is the same for all rows."""
    tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
    lifted = [t for t in tensors if isinstance(t, Lifted)]
    if not lifted:
        return NotImplemented  # inside a list, or some other unusual place
    first = lifted[0]
    for t in tensors:
        if isinstance(t, Lifted):
            alike = t.dim() == first.dim() and t.along_with(first)
        else:
            alike = t.dim() < first.dim() or (t.dim() == first.dim() and t.shape[0] == 1)
        if not alike:
            return NotImplemented
    if "out" in kwargs or kwargs.get("inplace"):
        return NotImplemented
    base_args = [a.selected() if isinstance(a, Lifted) else a for a in args]
    base_kwargs = {k: v.selected() if isinstance(v, Lifted) else v for k, v in kwargs.items()}
    return first.with_base(func(*base_args, **base_kwargs))


def _feature_rule(keeps_rows: Callable[..., bool]) -> Callable[..., Any]:
    """Functions of one tensor whose arguments mean the same for the base, if ``keeps_rows`` holds for them."""

    def rule(func: Callable[..., Tensor], x: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(x, Lifted) or not keeps_rows(x, *args, **kwargs):
            return NotImplemented
        return x.with_base(func(x.base, *args, **kwargs))

    return rule


def _reshape_rule(func: Callable[..., Tensor], x: Any, *shape: Any, **kwargs: Any) -> Any:
    sizes = list(shape[0]) if len(shape) == 1 and isinstance(shape[0], Sequence) else list(shape)
    if not isinstance(x, Lifted) or kwargs or not sizes or not all(isinstance(n, int) for n in sizes):
        return NotImplemented
    rows, features = sizes[0], sizes[1:]
    size = prod(x.shape[1:])
    if features.count(-1) == 1 and rows == x.shape[0]:
        known = -prod(features)
        if known == 0 or size % known:
            return NotImplemented
        features[features.index(-1)] = size // known
    if rows not in (x.shape[0], -1) or -1 in features or prod(features) != size or (rows == -1 and size == 0):
        return NotImplemented
    return x.with_base(func(x.base, (x.base.shape[0], *features)))


def _selects_features(x: Lifted, index: Any) -> bool:
    items = list(index) if isinstance(index, tuple) else [index]
    if any(not (item is None or item is Ellipsis or type(item) is int or isinstance(item, slice)) for item in items):
        return False
    if items and items[0] is Ellipsis:
        return sum(item is not None and item is not Ellipsis for item in items) < x.dim()
    return bool(items) and items[0] == slice(None)


def gathered(value: Any) -> Any:
    """``value`` with every lifted tensor in it materialized."""
    if isinstance(value, Lifted):
        return value.materialize()
    if type(value) in (list, tuple):
        return type(value)(gathered(v) for v in value)
    if type(value) is dict:
        return {k: gathered(v) for k, v in value.items()}
    return value


def _not_rows(x: Lifted, *dims: Any, **named: Any) -> bool:
    flat = [*dims, *named.values()]
    flat = list(flat[0]) if len(flat) == 1 and isinstance(flat[0], Sequence) else flat
    return bool(flat) and all(isinstance(d, int) and d not in (0, -x.dim()) for d in flat)


def _first_stays(x: Lifted, *dims: Any, **named: Any) -> bool:
    flat = [*dims, *named.values()]
    flat = list(flat[0]) if len(flat) == 1 and isinstance(flat[0], Sequence) else flat
    return bool(flat) and flat[0] in (0, -x.dim())


def _always(x: Lifted, *args: Any, **kwargs: Any) -> bool:
    return not args and not kwargs


def _first_not_rows(x: Lifted, *args: Any, **kwargs: Any) -> bool:
    dim = args[0] if args else kwargs.get("start_dim", kwargs.get("dim", 0))
    return _not_rows(x, dim)


def register(rule: Callable[..., Any], *names: str) -> None:
    """``rule(function, *args, **kwargs)`` now answers for the torch functions and tensor methods of these names.

    It returns ``NotImplemented`` where it does not apply; then the lifted arguments are gathered.
    """
    for name in names:
        RULES.update({getattr(home, name): rule for home in (torch, Tensor, F) if hasattr(home, name)})


def _getter(name: str) -> Callable[..., Any]:
    """What torch's protocol calls the reading of an attribute."""
    getter: Callable[..., Any] = getattr(Tensor, name).__get__
    return getter


RULES: dict[Callable[..., Any], Callable[..., Any]] = {
    _getter("mT"): _feature_rule(lambda x: x.dim() >= 3),
    _getter("requires_grad"): lambda func, x: x.base.requires_grad,
}
register(pointwise_rule, "add", "sub", "mul", "div", "true_divide", "neg", "abs", "square", "sqrt", "rsqrt", "pow")
register(
    pointwise_rule, "exp", "log", "tanh", "sigmoid", "relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "clamp"
)
register(pointwise_rule, "__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__neg__")
register(pointwise_rule, "__truediv__", "__rtruediv__", "__pow__", "__rpow__")
register(_reshape_rule, "view", "reshape")
register(_feature_rule(_not_rows), "transpose", "swapaxes", "squeeze")
register(_feature_rule(_first_not_rows), "flatten", "unflatten")
register(_feature_rule(_first_stays), "permute")
register(_feature_rule(_selects_features), "__getitem__")
register(_feature_rule(_always), "contiguous", "clone", "detach", "float", "double", "half", "bfloat16")
register(_feature_rule(lambda x, dim: dim not in (0, -x.dim() - 1)), "unsqueeze")
register(_feature_rule(lambda x, *to, **kw: len(to) == 1 and isinstance(to[0], torch.dtype) and not kw), "to")

_METADATA = {
    *map(_getter, ("shape", "dtype", "device", "ndim", "layout", "is_cuda")),
    *(getattr(Tensor, name) for name in ("size", "dim", "numel", "nelement", "is_floating_point", "is_complex")),
    *(torch.is_floating_point, torch.is_complex, torch.numel, Tensor.__len__),
}
