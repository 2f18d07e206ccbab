"""Functionalization: a function that changes a tensor in place is recorded as the one that gives a new tensor.

Whoever holds the tensor sees the new value from then on. Who holds a view of the same memory would see it, too; such a view counts as
*stale*, and using one afterwards is an error. Of structure, which is computed once, what the tensor is a slice of is made anew instead.
Only what the traced function has computed is changed so: a call's tensors belong to others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from columba.frontend.effects import in_place
from columba.frontend.errors import fail
from columba.frontend.gradients import has_gradient
from columba.frontend.record import Record, Recorder, RecordingMode, SymbolicTensor
from columba.frontend.structure import RANDOM
from columba.frontend.trees import leaves
from columba.frontend.views import viewed


def change(
    recorder: Recorder, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """Records a call that changes its first argument, or ``out``, which stands for the new value afterwards.

    Raises:
        TraceError: the tensor is not one that the function has computed, or its shape would change.
    """
    target = kwargs.get("out")
    if target is None:
        target = args[0] if args else kwargs.get("input")
    if not isinstance(target, SymbolicTensor):
        raise in_place(name)
    if kwargs.get("out") is not None and recorder.grad and target.record not in recorder.structure.values:
        raise in_place(name)  # and an error in PyTorch, where it has a gradient
    old = target.record
    shared = _shared(recorder, old)
    if any(record.source is not None for record in shared):
        raise in_place(name)
    if recorder.grad and not torch.is_grad_enabled() and has_gradient(old):
        raise fail(
            f"{name} changes under torch.no_grad what has a gradient, which would stay that of the old value; make a new tensor instead"
        )
    with RecordingMode(recorder):
        new = _new_value(func, name, target, args, kwargs)
        if not isinstance(new, SymbolicTensor) or new.record.meta.shape != old.meta.shape:
            raise in_place(name)
        if new.record.meta.dtype is not old.meta.dtype:
            new = new.to(old.meta.dtype)
        if new.record in recorder.structure.values:
            new = _replaced(recorder, old, new)
    for record in shared:
        recorder.stale[record] = name
    target.record = new.record
    return target


def _replaced(recorder: Recorder, old: Record, new: SymbolicTensor) -> SymbolicTensor:
    """The new value of a slice, as a slice of the new value of what it was a slice of, which whoever had the old one then has."""
    base = viewed(old) if old.op in _PLACES else None
    if base is None:
        return new
    take, places = _PLACES[old.op], old.args[1:]
    whole = _replaced(recorder, base, set_places(SymbolicTensor(base), take, places, new))  # type: ignore[arg-type]
    for tensor in recorder.alive():
        if tensor.record is base:
            tensor.record = whole.record
    return take(whole, *places)  # type: ignore[no-any-return]


_PLACES: dict[str, Callable[..., Any]] = {
    "__getitem__": Tensor.__getitem__,
    "narrow": Tensor.narrow,
    "select": Tensor.select,
}
"""Functions that give a part of a tensor's memory."""


def _new_value(
    func: Callable[..., Any], name: str, target: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if kwargs.get("out") is not None:
        return func(*args, **{k: v for k, v in kwargs.items() if k != "out"})
    if kwargs.get("inplace"):
        return func(*args, **{**kwargs, "inplace": False})
    if name == "__setitem__":
        return set_items(*args)
    plain = getattr(Tensor, name[:-1], None) or (getattr(F, name[:-1]) if name in _ACTIVATIONS else None)
    if name == "copy_":
        return torch.where(torch.zeros_like(target) == 0, args[1], target)  # a sum would lose the sign of 0
    if name in ("zero_", "fill_"):
        return torch.full_like(target, args[1] if len(args) > 1 else 0)
    if not callable(plain) or name.startswith("__") or name[:-1] in RANDOM:  # which draw from something else
        raise in_place(name)
    return plain(*args, **kwargs)


_ACTIVATIONS = ("celu_", "elu_", "hardtanh_", "leaky_relu_", "selu_", "threshold_")
"""Of :mod:`torch.nn.functional`, which tensors do not have as methods."""


def set_items(x: Tensor, index: Any, value: Any) -> Tensor:
    """``x`` with other items at an index."""
    if torch.overrides.has_torch_function((x,)):
        return torch.overrides.handle_torch_function(set_items, (x,), x, index, value)  # type: ignore[no-any-return]
    result = x.clone()
    result[index] = value
    return result


def set_places(x: Tensor, take: Callable[..., Tensor], places: tuple[Any, ...], value: Tensor) -> Tensor:
    """``x`` with another value of ``take(x, *places)``."""
    if torch.overrides.has_torch_function((x,)):
        return torch.overrides.handle_torch_function(set_places, (x,), x, take, places, value)  # type: ignore[no-any-return]
    result = x.clone()
    take(result, *places).copy_(value)
    return result


def write_into_fresh(computed: Sequence[Record], kept: Iterable[Record]) -> None:
    """What PyTorch computes writes into the memory of what was made for that, as the function itself did, instead of into a copy.

    Args:
        computed: all that PyTorch computes in a call, in order.
        kept: what is used by anything else.
    """
    times = Counter(computed)
    uses = Counter(x for record in computed for x in leaves((record.args, record.kwargs)) if isinstance(x, Record))
    uses.update(kept)
    for record in computed:
        whole = record.args[0] if record.op in _INTO else None
        if (
            isinstance(whole, Record)
            and whole.op in (*_FRESH, *_INTO)
            and not whole.kwargs.get("requires_grad")
            and times[record] == times[whole] == uses[whole] == 1
        ):
            record.function = _INTO[record.op]


def _items_into(x: Tensor, index: Any, value: Any) -> Tensor:
    x[index] = value
    return x


def _places_into(x: Tensor, take: Callable[..., Tensor], places: tuple[Any, ...], value: Tensor) -> Tensor:
    take(x, *places).copy_(value)
    return x


_INTO: dict[str, Callable[..., Tensor]] = {"set_items": _items_into, "set_places": _places_into}
"""What writes into its first argument, in the place of :func:`set_items` and :func:`set_places`, which copy it."""

_FRESH = (
    "clone",
    *(
        f"{prefix}{name}{suffix}"
        for name in ("empty", "full", "ones", "zeros")
        for prefix, suffix in (("", ""), ("", "_like"), ("new_", ""))
    ),
)
"""Functions that give memory that nobody else has."""


def _shared(recorder: Recorder, record: Record) -> list[Record]:
    """What may share memory with a value, and it."""
    base = _base(record)
    return [
        other for other in recorder.records if other is base or (viewed(other) is not None and _base(other) is base)
    ]


def _base(record: Record) -> Record:
    while (x := viewed(record)) is not None:
        record = record.operands[0] if record.op == "part" else x
    return record
