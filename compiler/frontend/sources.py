"""Where the tensors of a trace are found again at every call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import CellType
from typing import Any

import torch
from torch import Tensor, nn

from columba.frontend.snapshot import Same

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Argument:
    """Part of an argument: a path of keys into ``(args, kwargs)``, and the parameter's name for messages."""

    path: tuple[Any, ...]
    parameter: str

    def fetch(self, call: Arguments) -> Any:
        value: Any = call
        for key in self.path:
            value = value[key]
        return value

    def __str__(self) -> str:
        return self.parameter + "".join(f"[{k!r}]" for k in self.path[2:])


@dataclass(frozen=True)
class Attribute:
    """A parameter, buffer or plain tensor attribute, by its path from the module that is called, which it does not keep alive."""

    owner: Same
    path: str

    @classmethod
    def of(cls, owner: nn.Module, path: str) -> Attribute:
        return cls(Same(owner), path)

    def fetch(self, call: Arguments) -> Any:
        *modules, name = self.path.split(".")
        module: nn.Module = self.owner.value
        for part in modules:
            module = module._modules[part]  # type: ignore[assignment]
        for place in (module._parameters, module._buffers, module.__dict__):
            if name in place:
                return place[name]
        return getattr(module, name)

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Global:
    """A global variable of the traced function."""

    variables: dict[str, Any]
    name: str

    def fetch(self, call: Arguments) -> Any:
        return self.variables[self.name]

    def __hash__(self) -> int:
        return hash((id(self.variables), self.name))

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Closure:
    """A variable of an enclosing function."""

    cell: CellType
    name: str

    def fetch(self, call: Arguments) -> Any:
        return self.cell.cell_contents

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Captured:
    """A tensor that came from nowhere that could be looked up again: always this one."""

    tensor: Tensor

    def fetch(self, call: Arguments) -> Any:
        return self.tensor

    def __hash__(self) -> int:
        return id(self.tensor)

    def __str__(self) -> str:
        return "captured"


@dataclass(frozen=True)
class Seed:
    """A fresh seed for random numbers at every call, drawn from PyTorch's default generator: on a GPU the GPU's own."""

    def fetch(self, call: Arguments, device: torch.device | None = None) -> Any:
        return torch.randint(2**62, (), device=device)

    def __str__(self) -> str:
        return "seed"


Source = Argument | Attribute | Global | Closure | Captured | Seed


def walk(value: Any, path: tuple[Any, ...], visit: Callable[[Any, tuple[Any, ...]], Any]) -> Any:
    """``value`` with ``visit`` applied to whatever is no tuple, list or dict."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(walk(v, (*path, n), visit) for n, v in enumerate(value)))
    if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
        return type(value)(walk(v, (*path, n), visit) for n, v in enumerate(value))
    if type(value) is dict:
        return {k: walk(v, (*path, k), visit) for k, v in value.items()}
    return visit(value, path)
