"""Side effects of traced code that cannot be kept: they would happen once, while it is traced, and not at every call."""

from __future__ import annotations

import builtins
import contextlib
import gc
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import nn
from torch.autograd.function import Function
from torch.nn.modules._functions import BackwardHookFunction
from torch.utils.hooks import BackwardHook

from columba.frontend.errors import TraceError, fail

_CALLING = nn.Module._call_impl.__code__.co_filename
_REMEDY = (
    "return it instead, and keep it outside (hooks on the compiled module itself, and on modules outside of it, run at every call on "
    "real tensors)"
)


@contextlib.contextmanager
def no_printing(is_tracing: Callable[[], bool]) -> Iterator[None]:
    """Within, ``print`` is refused to code that is traced, in the thread that traces it."""
    original = builtins.print

    def refused(*args: Any, **kwargs: Any) -> None:
        if not is_tracing():
            return original(*args, **kwargs)
        raise fail(
            "print(...) inside a compiled function would run once, on tensors without values, and not at every call; print outside what is "
            "returned, or leave columba.compile away while debugging"
        )

    builtins.print = refused
    try:
        yield
    finally:
        builtins.print = original


def check_nothing_escaped(alive: Callable[[], Sequence[Any]]) -> None:
    """TraceError if traced tensors outlive the trace: something that is no result keeps them."""
    if not alive():
        return
    gc.collect()
    kept = alive()
    if kept:
        record = kept[0].record
        holder = _holder(kept)
        raise TraceError(f"{record.where}: {record} is kept {holder} beyond the call; {_REMEDY}")


def _holder(kept: Any) -> str:
    """What keeps a traced tensor, in words."""
    for holder in gc.get_referrers(kept[0]):
        if holder is kept or isinstance(holder, types.FrameType):
            continue
        for owner in gc.get_referrers(holder):
            attributes = getattr(owner, "__dict__", None)
            if attributes is not None and attributes is holder:
                name = next((k for k, v in attributes.items() if v is kept[0]), "?")
                return f"in attribute {name!r} of this {type(owner).__name__}"
        return f"in a {'variable' if isinstance(holder, types.CellType) else type(holder).__name__}"
    return "somewhere"


def check_gradient_mode(were_on: bool) -> None:
    """For traced code that has switched gradients on or off: off, its results have none; TraceError where that does not say it all."""
    if not were_on:
        raise fail(
            "torch.enable_grad inside a compiled function that is called without gradients is not supported: call it with gradients enabled"
        )
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, BackwardHook):
            raise fail(
                f"{hooked(owner.module)} is called inside a compiled function, where no gradient of its own passes through it; "
                "hook the compiled module itself, or its results (out.register_hook(...)), or leave columba.compile away while hooking"
            )
        kind = frame.f_locals.get("cls")
        if isinstance(kind, type) and issubclass(kind, Function) and kind is not BackwardHookFunction:
            raise fail(
                f"the torch.autograd.Function {kind.__name__} cannot be traced: compiled programs have gradients of their own; apply it "
                "outside the compiled function"
            )
        frame = frame.f_back


def hooked(module: nn.Module) -> str:
    """The backward hooks of a module, named."""
    hooks = [*module._backward_hooks.values(), *module._backward_pre_hooks.values()]
    names = ", ".join(getattr(h, "__qualname__", type(h).__name__) for h in hooks)
    return f"{type(module).__name__} has a backward hook ({names or 'a global one'}), and"


def check_no_legacy_hooks() -> None:
    """TraceError if a module that PyTorch is calling looks for the node of autograd that its backward hook belongs to."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_locals.get("self")
        if frame.f_code.co_filename == _CALLING and isinstance(module, nn.Module):
            if frame.f_locals.get("non_full_backward_hooks"):
                raise fail(
                    f"{hooked(module)} is called inside a compiled function, where no gradient of its own passes through it; hook the "
                    "compiled module itself, or its results"
                )
            return
        if "/torch/" not in frame.f_code.co_filename and "columba" not in (frame.f_globals.get("__name__") or ""):
            return
        frame = frame.f_back


_SPELLED = {
    "__bool__": "a condition on a tensor", "__index__": "a tensor as an index", "__float__": "float(x)", "__int__": "int(x)",
    "__len__": "len(x)", "__contains__": "in",
}  # fmt: skip


def needs_values(name: str) -> TraceError:
    """The error for a function that needs the values of a tensor."""
    return fail(
        f"{_SPELLED.get(name, name)} needs the values of a tensor, which are not known while the function is traced; "
        "use torch.where for choices between tensors, and compute what decides control flow outside the compiled function"
    )


def in_place(name: str) -> TraceError:
    """The error for a function that changes a tensor."""
    return fail(
        f"{name} changes a tensor in place, which a compiled function cannot; use the form that returns a new one"
    )


def changed_since(name: str) -> TraceError:
    """The error for the use of a view whose memory has been changed."""
    return fail(
        f"{name} has changed a tensor in place that shares memory with the one which is used here; inside a compiled function, use the "
        "form that returns a new tensor"
    )
