"""Structure: what a function computes of integer tensors alone, such as ``edge_index``.

Where rows go is said by integers: sources and destinations of edges, the graph of each node, masks of edges that are dropped. What is
computed of those alone (edges with self-loops added, degrees, a symmetric normalization) is the same as long as they are, and says
how many rows there are. So such calls are carried out while the function is traced, on the tensors of that call, and written down as
:class:`Call`; :mod:`columba.frontend.preparation` makes of them what later calls run, once for each graph.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from columba.frontend.counts import Extent, RowCount, Scalar
from columba.frontend.errors import fail
from columba.frontend.recorded import Record
from columba.frontend.trees import leaves, mapped

CREATION = {"arange", "eye", "full", "ones", "tensor", "zeros"}
"""Functions that make a tensor of numbers alone."""

_NEW: dict[str, Callable[..., Tensor]] = {
    "new_zeros": torch.zeros,
    "new_empty": torch.zeros,
    "new_ones": torch.ones,
    "new_full": torch.full,
}
"""Methods that ask a tensor for nothing but its dtype and its device; what is in memory that nobody has written to is 0."""

RANDOM = {
    "bernoulli", "dropout", "multinomial", "normal", "poisson", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like",
    "randperm", "feature_dropout", "alpha_dropout",
}  # fmt: skip

_SIZES_FROM_DATA = {
    "nonzero",
    "unique",
    "unique_consecutive",
    "masked_select",
    "bincount",
    "repeat_interleave",
    "argwhere",
}

GIVE_NUMBERS = {
    "item",
    "__int__",
    "__index__",
    "__bool__",
    "__float__",
    "tolist",
    "equal",
    "allclose",
    "is_nonzero",
}
"""Functions that give values of tensors to Python."""


@dataclass(frozen=True)
class Call:
    """A call of which all tensors are structure: records stand for them in its arguments."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass
class Structure:
    """What one trace has found out about its integers.

    Attributes:
        values: what records have at the traced call.
        calls: how those that are no inputs are computed.
        read: values that Python has asked for, and the trace depends on.
        depends_on_data: whether sizes were taken from values of tensors.
        chosen_by: the integers by which rows were chosen of which a record's are computed, one for one, if that is so.
    """

    values: dict[Record, Any] = field(default_factory=dict)
    calls: dict[Record, Call] = field(default_factory=dict)
    read: dict[Record, Any] = field(default_factory=dict)
    depends_on_data: bool = False
    chosen_by: Callable[[Record, Structure], Record | None] = lambda record, structure: None

    def clear(self) -> None:
        self.values.clear()
        self.calls.clear()
        self.read.clear()

    def meet(self, record: Record, tensor: Tensor) -> None:
        """Notes an input, if it is one of integers or of truth values, and more than a number."""
        with torch._C.DisableTorchFunction():
            if (
                tensor.dim()
                and not tensor.dtype.is_floating_point
                and not tensor.dtype.is_complex
                and _is_plain(tensor)
            ):
                self.values[record] = tensor

    def is_index(self, record: Record) -> bool:
        """Whether a record holds integers, one a row."""
        value = self.values.get(record)
        return isinstance(value, Tensor) and value.dim() == 1 and is_integer(value.dtype)

    def call(self, recorder: Any, function: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Call | None:
        """The call, if it is one on structure alone."""
        if name in RANDOM:
            return None
        operands = _records((args, kwargs))
        if name == "zeros_like" and len(args) == 1 and operands[0] not in self.values and operands[0].meta.dim():
            meta = operands[0].meta
            size = (RowCount(meta.shape[0], operands[0], recorder), *meta.shape[1:])
            return Call(torch.zeros, (size,), {"dtype": kwargs.get("dtype") or meta.dtype})
        if name in _NEW and len(operands) == 1 and args and args[0] is operands[0]:
            size, kwargs = args[1:], dict(kwargs)
            kwargs.setdefault("dtype", args[0].meta.dtype)
            if name != "new_full" and size and not isinstance(size[0], (tuple, list)):
                size = (size,)
            return Call(_NEW[name], tuple(size), kwargs)
        if not operands:
            return Call(function, args, kwargs) if name in CREATION else None
        if not all(o in self.values for o in operands):
            return None
        self.depends_on_data |= name in _SIZES_FROM_DATA or (name == "__getitem__" and _masks(args[1]))
        return Call(function, args, kwargs)

    def sizes_given(self, record: Record) -> tuple[Any, ...]:
        """The sizes that a tensor of numbers alone was made with, among them numbers of rows; of others none."""
        call = self.calls.get(record)
        if call is None or call.function not in (torch.zeros, torch.ones):
            return ()
        sizes = call.args[0] if len(call.args) == 1 else call.args
        return tuple(sizes) if isinstance(sizes, (tuple, list)) else (sizes,)

    def run(self, call: Call) -> Any:
        """What it gives at the traced call."""

        def actual(x: Any) -> Any:
            if isinstance(x, RowCount):
                return int.__int__(x)
            if isinstance(x, slice):
                return slice(actual(x.start), actual(x.stop), actual(x.step))
            return self.values[x] if isinstance(x, Record) else x

        args, kwargs = mapped(actual, (call.args, call.kwargs))
        with torch._C.DisableTorchFunction(), torch.no_grad():
            return call.function(*args, **kwargs)

    def number(self, recorder: Any, name: str, record: Record, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What Python gets when it asks for values."""
        value = self.values[record]
        if name in ("item", "__int__", "__index__") and isinstance(value, Tensor) and is_integer(value.dtype):
            count = RowCount(int(value), Scalar(record), recorder)
            if name != "item":  # Python takes the number out
                recorder.fix_count(count)
            return count if name == "item" else int(value)
        with torch._C.DisableTorchFunction():
            others = mapped(lambda x: self.values.get(x, x) if isinstance(x, Record) else x, (args, kwargs))
            if any(isinstance(x, Record) for x in leaves(others)):
                raise fail(f"{name} needs the values of a tensor, which are not known while the function is traced")
            for operand in _records((args, kwargs)):
                self.read[operand] = self.values[operand]
            self.read[record] = value
            return getattr(value, name)(*others[0], **others[1])

    def arithmetic(self, recorder: Any, name: str, count: RowCount, other: Any) -> RowCount | None:
        """A number that follows from one that a tensor holds; None if it does not follow so."""
        function = _ARITHMETIC.get(name)
        if function is None or type(other) not in (int, RowCount) or (function is _over and not int.__int__(other)):
            return None
        with torch._C.DisableTorchFunction():
            held = self._held(recorder, count)
            operand = self._held(recorder, other) if isinstance(other, RowCount) else other
            if held is None or operand is None:
                return None
            record = recorder.structural(Call(function, (held, operand), {}), name.strip("_"))
            return RowCount(int(self.values[record]), Scalar(record), recorder)

    def _held(self, recorder: Any, count: RowCount) -> Record | None:
        """A tensor that holds a number, where that is held by one, or is a size of one of integers."""
        match count.of:
            case Scalar(record):
                return record
            case Record() as record if record in self.values:
                dim = 0
            case (Record() as record, "numel") if record in self.values and record.meta.dim() == 1:
                dim = 0
            case Extent(record, dim) if record in self.values:
                pass
            case Record() as record if (index := self.chosen_by(record, self)) is not None:
                record, dim = index, 0
            case _:
                return None
        return recorder.structural(Call(size_of, (record, dim), {}), "size")

    def check_index(self, name: str, args: tuple[Any, ...]) -> None:
        """IndexError, as PyTorch's, where integers lead out of the table whose rows they choose."""
        table, index = (
            (args[0], args[-1]) if name in ("index_select", "__getitem__") and len(args) > 1 else (None, None)
        )
        if not isinstance(table, Record) or not isinstance(index, Record) or not self.is_index(index):
            return
        dim = args[1] if name == "index_select" else 0
        if not isinstance(dim, int) or not -table.meta.dim() <= dim < table.meta.dim():
            return
        value, rows = self.values[index], table.meta.shape[dim]
        least = 0 if name == "index_select" else -rows
        if value.numel() and not (least <= int(value.min()) and int(value.max()) < rows):
            raise IndexError(f"index out of range: the tensor has {rows} rows")


def size_of(x: Tensor, dim: int) -> Tensor:
    return torch.tensor(x.shape[dim], device="cpu")


def _times(x: Tensor, n: int | Tensor) -> Tensor:
    return x * n


def _less_from(x: Tensor, n: int | Tensor) -> Tensor:
    return n - x


def _over(x: Tensor, n: int | Tensor) -> Tensor:
    return torch.div(x, n, rounding_mode="floor")


_ARITHMETIC: dict[str, Callable[..., Tensor]] = {
    "__add__": torch.add, "__radd__": torch.add, "__sub__": torch.sub, "__rsub__": _less_from, "__mul__": _times, "__rmul__": _times,
    "__floordiv__": _over,
}  # fmt: skip

ON_NUMBERS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.add: operator.add,
    torch.sub: operator.sub,
    _less_from: lambda x, n: n - x,
    _times: operator.mul,
    _over: operator.floordiv,
}
"""What arithmetic gives of the numbers that tensors hold."""


def _records(tree: Any) -> list[Record]:
    return [x for x in leaves(tree) if isinstance(x, Record)]


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor's values can be looked at."""
    return (
        tensor.layout is torch.strided
        and not tensor.is_meta
        and type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__
    )


def _masks(index: Any) -> bool:
    return any(x.meta.dtype in (torch.bool, torch.uint8) for x in _records(index))


def numbers_of(mask: Tensor) -> Tensor:
    """The numbers of the rows that a mask ``[rows]`` holds."""
    return mask.nonzero().squeeze(1)


def is_integer(dtype: torch.dtype) -> bool:
    return not dtype.is_floating_point and not dtype.is_complex and dtype is not torch.bool
