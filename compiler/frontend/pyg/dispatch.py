"""The call of a layer that has a lowering: which runs while a function is traced, in place of the layer's ``forward``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from columba.frontend.errors import TraceError, fail
from columba.frontend.pyg.cases import NotLowered, check_no_hooks
from columba.frontend.pyg.registry import Lowering, lowering_of
from columba.frontend.record import current


def lowered(owner: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    """What is traced of a module's ``forward``: where the module has a lowering, that, with ``forward`` for what it does not cover."""
    check_no_hooks(owner)
    lowering = lowering_of(getattr(type(owner), "original_type", type(owner)))
    if lowering is None or not lowering.is_of(forward):
        return forward
    return _either(lowering, forward)


def forward_of(module: nn.Module) -> Callable[..., Any] | None:
    """The lowering of a module that traced code calls, bound to it; None where it has none.

    What the module would be called by is read from it, and so are its hooks: a trace depends on both.
    """
    check_no_hooks(module)
    lowering = lowering_of(getattr(type(module), "original_type", type(module)))
    if lowering is None:
        return None
    forward: Any = module.forward
    function = getattr(forward, "__func__", None)
    compiled = getattr(function, "compiled", None)
    function = function if compiled is None else compiled.current()
    for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        getattr(module, name)
    if function is None or not lowering.is_of(function):
        return None
    return functools.partial(_either(lowering, function), module)


@functools.cache
def _either(lowering: Lowering, forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def run(conv: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = current()
        if recorder is not None:
            recorder.modules.take(conv, "lowering")
        try:
            return lowering.function(conv, *args, **kwargs)
        except NotLowered as e:
            why = str(e)
        if recorder is not None:
            recorder.modules.take(conv, "generic", why)
        try:
            return forward(conv, *args, **kwargs)
        except TraceError as e:
            e.args = (f"{e} (this {lowering.name} is not lowered: {why})",)
            raise
        except (ValueError, TypeError, LookupError) as e:  # of symbols, perhaps: that shows when it runs in Python
            raise fail(
                f"{type(e).__name__} in its own forward: {e} (this {lowering.name} is not lowered: {why})"
            ) from e

    return run
