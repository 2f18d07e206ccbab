"""Calls under autocast, where a function is not one whose operands alone are cast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from columba.frontend.recorded import meta_tensor
from columba.frontend.trees import mapped
from columba.runtime.autocast import Autocast


class AutocastInside(BaseException):
    """Traced code has switched autocast on, of which nothing was known when the trace began."""


class UnderAutocast:
    """A function that is called under autocast, whatever PyTorch then does in it."""

    def __init__(self, function: Callable[..., Any], found: Autocast) -> None:
        self.function, self.found = function, found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self.found.enabled():
            return self.function(*args, **kwargs)

    def meta(self, args: Any, kwargs: Any) -> Any:
        """The result for meta tensors, as one or several of them: what PyTorch says for tensors of the device that hold no data."""
        from torch._subclasses.fake_tensor import FakeTensorMode  # which takes a while to import, and is rarely needed

        def fake(x: Any) -> Any:
            return torch.empty(x.shape, dtype=x.dtype, device=self.found.device) if isinstance(x, Tensor) else x

        with torch.no_grad(), FakeTensorMode():
            args, kwargs = mapped(fake, (args, kwargs))
            result = self(*args, **kwargs)
        return mapped(lambda x: meta_tensor(x.shape, x.dtype) if isinstance(x, Tensor) else x, result)


def contracts(args: Sequence[Any]) -> bool:
    """Whether an einsum sums over something that two of its operands have, which PyTorch then does by a product of matrices."""
    equation = args[0]
    if not isinstance(equation, str) or "->" not in equation:
        return True
    terms, out = equation.replace(" ", "").split("->")
    operands = args[1] if len(args) == 2 and isinstance(args[1], (tuple, list)) else args[1:]
    sizes = {
        c: n
        for term, x in zip(terms.split(","), operands, strict=False)
        for c, n in zip(term, x.meta.shape, strict=False)
    }
    return any(terms.count(c) > 1 and c not in out and sizes.get(c, 2) != 1 for c in set(terms) - {","})
