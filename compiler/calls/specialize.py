"""From what ``columba.compile`` was given to what runs compiled: functions, methods, module classes, modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from columba.calls.function import CompiledFunction
from columba.calls.module import CompiledModule, compiled_module, plain_module
from columba.calls.options import Options

F = TypeVar("F", bound=Callable[..., Any])
M = TypeVar("M", bound=nn.Module)


def compiled(target: Any, options: Options) -> Any:
    """``target``, compiled; TypeError where it is nothing that can be. See :func:`columba.compile`."""
    if isinstance(target, nn.Module):
        return compiled_module(target, options)
    if isinstance(target, type):
        if not issubclass(target, nn.Module):
            raise TypeError(
                f"columba.compile takes functions, methods, and nn.Module classes or instances, not the class {target.__name__}"
            )
        forward = CompiledFunction(getattr(target.forward, "fn", target.forward), options)
        forward.__set_name__(target, "forward")
        forward.is_model = True
        target.forward = forward  # type: ignore[method-assign, assignment]
        return target
    if isinstance(target, CompiledFunction):
        return CompiledFunction(target.fn, options)
    if callable(target):
        return CompiledFunction(target, options)
    raise TypeError(
        f"columba.compile takes functions, methods, and nn.Module classes or instances, not {type(target).__name__}"
    )


def uncompiled(target: Any) -> Any:
    """``target`` as it is; of what is compiled already, what it was made of."""
    if isinstance(target, CompiledFunction):
        return target.fn
    return plain_module(target) if isinstance(target, CompiledModule) else target
