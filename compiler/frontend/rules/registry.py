"""The table of rules, and what a rule is told about its call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from columba.frontend.counts import RowCount
from columba.frontend.errors import UnsupportedOperation
from columba.frontend.operands import Operand
from columba.frontend.record import Record
from columba.ir.program.ops import Value
from columba.ir.spaces import Space
from columba.ir.types import DType
from columba.runtime.dtypes import ir_dtype

TranslationRule = Callable[..., Any]
R = TypeVar("R", bound=TranslationRule)

RULES: dict[str, TranslationRule] = {}


INSTEAD: dict[str, str] = {
    **dict.fromkeys(
        ("fmod", "remainder", "mod", "rmod", "floor_divide", "floordiv", "rfloordiv"),
        "Where quotients are small, write x - torch.floor(x / y) * y (torch.trunc for fmod)",
    ),
    **dict.fromkeys(
        ("sort", "argsort", "msort", "kthvalue", "median", "quantile"),
        "Take a few of the largest or smallest features with torch.topk(x, k, dim=-1)",
    ),
    **dict.fromkeys(("flip", "fliplr"), "Join slices with torch.cat, or multiply with a 0-1 matrix"),
    **dict.fromkeys(("cumsum", "cumprod", "logcumsumexp"), "A running sum of features is x @ torch.ones(n, n).triu()"),
    **dict.fromkeys(
        ("gather", "index_select", "take_along_dim", "take"),
        "Choose features with slices, or with a product with a 0-1 matrix; rows with g.edges.src(x) and the other lifts",
    ),
    **dict.fromkeys(
        ("scatter", "scatter_add", "scatter_reduce", "index_add", "segment_reduce"),
        "Combine rows with the reductions of the graph: g.edges.sum/mean/max/min(x, to=...)",
    ),
}
"""What to do instead of functions that have no rule, by their names without underscores."""


def rule(*names: str) -> Callable[[R], R]:
    """Registers a rule under the names of the torch functions and methods that it is for."""

    def register(function: R) -> R:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


@dataclass(frozen=True)
class Call:
    """One recorded call under conversion, whose result has rows of ``space``.

    ``seed`` makes a fresh seed input and the next salt, for random numbers; ``rows`` says of which space a number is the number of rows, if
    it is one.
    """

    record: Record
    space: Space
    seed: Callable[[], tuple[Value, int]]
    rows: Callable[[RowCount], Space | None]

    @property
    def name(self) -> str:
        return self.record.op

    @property
    def where(self) -> str:
        return self.record.where

    @property
    def dtype(self) -> DType:
        """The dtype of the result."""
        return ir_dtype(self.record.meta.dtype)

    def unsupported(self, why: str, instead: str = "compute it outside the compiled function") -> UnsupportedOperation:
        return UnsupportedOperation(f"{self.where}: {self.name.strip('_')}: {why}; {instead}")

    def value(self, x: Any) -> Value:
        """The value of an operand, which must be a tensor."""
        if not isinstance(x, Operand):
            raise self.unsupported(f"a tensor is expected, got {x!r}")
        return x.value
