"""The call of a module with another ``forward``: its hooks, as PyTorch runs them, around what is called in place of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import _WrappedHook
from torch.utils.hooks import BackwardHook

_globals: dict[str, Any] = vars(nn.modules.module)
_PRE, _POST = "_global_forward_pre_hooks", "_global_forward_hooks"
_BACKWARD = ("_global_backward_pre_hooks", "_global_backward_hooks")


def call_with(module: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``nn.Module._call_impl`` does, with another ``forward``: PyTorch takes it from the module, which others call meanwhile."""
    if not (
        module._forward_pre_hooks
        or module._forward_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or any(_globals[name] for name in (_PRE, _POST, *_BACKWARD))
    ):
        return forward(*args, **kwargs)
    call = _Call(module)
    try:
        return call.run(forward, args, kwargs)
    except Exception:
        call.run_always_called()
        raise


class _Call:
    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.ran: set[int] = set()
        self.handed: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self.result: Any = None

    def run(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = self.module
        full, legacy = module._get_backward_hooks() if module._backward_hooks or _globals[_BACKWARD[1]] else ([], [])
        before = module._get_backward_pre_hooks() if module._backward_pre_hooks or _globals[_BACKWARD[0]] else []
        args, kwargs = self._before(args, kwargs)
        backward = BackwardHook(module, full, before) if full or before else None  # type: ignore[no-untyped-call]
        if backward is not None:
            args = backward.setup_input_hook(args)
        self.handed, self.kwargs = args, kwargs
        self.result = forward(*args, **kwargs)
        self._after()
        if backward is not None:
            if not isinstance(self.result, (Tensor, tuple)):
                warnings.warn(
                    "For backward hooks to be called, module output should be a Tensor or a tuple of Tensors but received "
                    f"{type(self.result)}",
                    stacklevel=2,
                )
            self.result = backward.setup_output_hook(self.result)
        if legacy:
            self._legacy(legacy)
        return self.result

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        module = self.module
        self.handed, self.kwargs = args, kwargs
        for number, hook in (*_globals[_PRE].items(), *module._forward_pre_hooks.items()):
            if number in module._forward_pre_hooks_with_kwargs:
                changed = hook(module, args, kwargs)
                if changed is not None:
                    if not (isinstance(changed, tuple) and len(changed) == 2):
                        raise RuntimeError(
                            f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {changed}."
                        )
                    args, kwargs = changed
            else:
                changed = hook(module, args)
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)
            self.handed, self.kwargs = args, kwargs
        return args, kwargs

    def _after(self) -> None:
        for number, hook in (*_globals[_POST].items(), *self.module._forward_hooks.items()):
            if self._is_always_called(number):
                self.ran.add(number)
            changed = self._hooked(number, hook)
            if changed is not None:
                self.result = changed

    def _hooked(self, number: int, hook: Callable[..., Any]) -> Any:
        with_kwargs = self.module._forward_hooks_with_kwargs, _globals["_global_forward_hooks_with_kwargs"]
        if any(number in names for names in with_kwargs):
            return hook(self.module, self.handed, self.kwargs, self.result)
        return hook(self.module, self.handed, self.result)

    def _is_always_called(self, number: int) -> bool:
        return (
            number in self.module._forward_hooks_always_called
            or number in _globals["_global_forward_hooks_always_called"]
        )

    def _legacy(self, hooks: list[Any]) -> None:
        """The backward hooks of ``register_backward_hook``, on the node that made the first result."""
        tensor = self.result
        while not isinstance(tensor, Tensor):
            tensor = (
                next(v for v in tensor.values() if isinstance(v, Tensor)) if isinstance(tensor, dict) else tensor[0]
            )
        node = tensor.grad_fn
        if node is not None:
            for hook in hooks:
                node.register_hook(_WrappedHook(hook, self.module))  # type: ignore[no-untyped-call]
            self.module._maybe_warn_non_full_backward_hook(self.handed, self.result, node)

    def run_always_called(self) -> None:
        """After an exception: the hooks that are called even then, and were not yet."""
        for number, hook in (*_globals[_POST].items(), *self.module._forward_hooks.items()):
            if self._is_always_called(number) and number not in self.ran:
                try:
                    changed = self._hooked(number, hook)
                    if changed is not None:
                        self.result = changed
                except Exception as e:
                    kind = "global module" if number in _globals[_POST] else "module"
                    warnings.warn(
                        f"{kind} forward hook with ``always_call=True`` raised an exception that was silenced as another error was raised "
                        f"in forward: {e}",
                        stacklevel=2,
                    )
