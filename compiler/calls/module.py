"""Compiled instances of modules: a class made of the original's, with a compiled ``forward``, that shares the original's state."""

from __future__ import annotations

import copy
import functools
import types
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from columba.calls.function import NO_SCRIPT, Forward
from columba.calls.options import Options
from columba.calls.specialization import Specialization
from columba.frontend import Bound, pyg

M = TypeVar("M", bound=nn.Module)


class CompiledModule:
    """Mixed into the class of a compiled instance; ``original_type`` is the class it was made from."""

    original_type: type[nn.Module]
    options: Options

    def __prepare_scriptable__(self) -> Any:
        """What ``torch.jit.script`` asks for."""
        raise RuntimeError(f"columba: {self.original_type.__name__} is compiled, which {NO_SCRIPT}")

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As the original class says, but for the class itself, which no name leads to."""
        reduced = super().__reduce_ex__(protocol)
        if isinstance(reduced, str):
            return reduced
        make, args, *rest = reduced
        return _restore, (self.options, *map(self._of_original, (make, *args))), *rest

    def _of_original(self, part: Any) -> Any:
        """The original class for the compiled one, and its class methods."""
        if part is type(self):
            return self.original_type
        bound = isinstance(part, types.MethodType) and part.__self__ is type(self)
        return types.MethodType(part.__func__, self.original_type) if bound else part


_originals: weakref.WeakKeyDictionary[nn.Module, weakref.ref[nn.Module]] = weakref.WeakKeyDictionary()
"""The module that each compiled one was made of."""


class _Forward(Forward):
    """``forward`` of a compiled instance: what the original's class has, as it is at each call."""

    def following(self, owner: nn.Module | None) -> tuple[type, nn.Module | None] | None:
        known = None if owner is None else _originals.get(owner)
        return self.kind, None if known is None else known()

    def specialize(self, *args: Any, **kwargs: Any) -> tuple[Specialization, Bound]:
        owner, _ = self._split(args)
        known = None if owner is None else _originals.get(owner)
        original = None if known is None else known()
        if original is None or _original_type(original) is self.kind:
            return super().specialize(*args, **kwargs)
        assert owner is not None
        kind: Any = _original_type(original)
        owner.__class__ = _compiled_type(kind, self.options)  # as the original's was swapped
        return type(owner).forward.specialize(*args, **kwargs)  # type: ignore[attr-defined, no-any-return]


class _OwnForward(_Forward):
    """``forward`` of a compiled instance of a class whose modules have one each: it comes before that, which it runs."""

    def __set__(self, owner: nn.Module, function: Any) -> None:
        owner.__dict__["forward"] = function
        self._of_modules.pop(owner, None)

    def __delete__(self, owner: nn.Module) -> None:
        del owner.__dict__["forward"]
        self._of_modules.pop(owner, None)


def _set_state(self: Any, state: Any) -> None:
    """As the original class does, which may set ``forward`` again."""
    kind, self.__class__ = type(self), self.original_type
    try:
        self.__setstate__(state)
    finally:
        self.__class__ = kind


def _original_type(module: nn.Module) -> type[nn.Module]:
    return module.original_type if isinstance(module, CompiledModule) else type(module)


@functools.cache
def _compiled_type(original: Any, options: Options) -> type[nn.Module]:
    members = {
        "original_type": original,
        "options": options,
        "forward": (_OwnForward if pyg.has_own_forwards(original) else _Forward)(original, options),
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
    }
    if pyg.has_own_forwards(original):
        members["__setstate__"] = _set_state
    if hasattr(original, "__deepcopy__"):
        members["__deepcopy__"] = _deep_copied
    return type(original.__name__, (CompiledModule, original), members)


def _deep_copied(self: Any, memo: dict[int, Any]) -> nn.Module:
    """As the original class copies its modules, which may look at their class."""
    return compiled_module(copy.deepcopy(plain_module(self), memo), self.options)


def compiled_module(module: M, options: Options) -> M:
    """A module of a compiled class that shares the original's state."""
    if "forward" in module.__dict__ and pyg.own_forward(module) is None:
        raise TypeError(
            f"columba.compile: this {type(module).__name__} has a forward of its own, set on the instance; compile the class, or remove it"
        )
    kind: Any = _compiled_type(_original_type(module), options)  # type: ignore[arg-type]
    compiled: Any = object.__new__(
        kind
    )  # that of a class itself may do more: torch.fx.GraphModule's makes another class
    compiled.__dict__ = module.__dict__
    _originals[compiled] = weakref.ref(module)
    return compiled  # type: ignore[no-any-return]


def plain_module(compiled: Any) -> nn.Module:
    """A module of the original class that shares a compiled one's state."""
    plain = object.__new__(_original_type(compiled))
    plain.__dict__ = compiled.__dict__
    return plain


def _restore(options: Options, make: Callable[..., nn.Module], *args: Any) -> nn.Module:
    """A compiled module for pickle and copy to fill; ``make(*args)`` gives one of the original class."""
    return compiled_module(make(*args), options)
