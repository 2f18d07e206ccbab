"""Recording: the function runs once on symbolic tensors, and every torch function it calls is written down."""

from __future__ import annotations

import operator
import sys
import threading
import weakref
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from columba.frontend.casts import AutocastInside, UnderAutocast, contracts
from columba.frontend.counts import Extent, RowCount, depend_on_parts
from columba.frontend.decompositions import DECOMPOSITIONS, SEGMENTS
from columba.frontend.edge_index import data_of, is_edge_index
from columba.frontend.effects import changed_since, check_gradient_mode, check_no_legacy_hooks, in_place, needs_values
from columba.frontend.errors import TraceError, UnsupportedOperation, fail, location
from columba.frontend.gradients import has_gradient, may_have_gradient
from columba.frontend.layers import ModuleCalls
from columba.frontend.metadata import infer, on_meta
from columba.frontend.over_rows import needs_rows, undone
from columba.frontend.recorded import Record as Record
from columba.frontend.recorded import Symbol
from columba.frontend.recorded import meta_tensor as meta_tensor
from columba.frontend.sources import PlainIndex, Source, is_of_argument
from columba.frontend.structure import GIVE_NUMBERS, Call, Structure, numbers_of
from columba.frontend.trees import leaves, mapped
from columba.runtime import autocast
from columba.runtime.modes import disguise


class SymbolicTensor(Symbol):
    """Stands for a tensor while a function is traced."""

    @staticmethod
    def __new__(cls, record: Record) -> SymbolicTensor:
        m = record.meta
        made = torch.Tensor._make_wrapper_subclass(cls, m.shape, dtype=m.dtype, device=torch.device("cpu"))
        made.record = record
        return made

    def __init__(self, record: Record) -> None:
        pass

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        recorder = current()
        if recorder is None:
            raise TraceError(
                "a symbolic tensor is used after its function was traced; do not keep tensors of a compiled function in "
                "attributes or globals, return them"
            )
        return recorder.call(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise fail(f"{func} needs the values of a tensor, which a traced function does not have")

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"<traced tensor {list(self.record.meta.shape)} {self.record.meta.dtype}>"

    def __iter__(self) -> Any:
        return iter(self.unbind(0))


_state = threading.local()


def current() -> Recorder | None:
    """The recorder of the trace that runs in this thread, if one does."""
    return getattr(_state, "recorder", None)


def is_tracing() -> bool:
    """Whether a compiled function is being traced in this thread."""
    return current() is not None


_QUERIES = {
    "dtype", "device", "requires_grad", "is_leaf", "layout", "is_cuda", "is_cpu", "is_sparse", "is_quantized", "is_meta", "grad_fn",
    "ndim", "itemsize", "is_nested", "is_mkldnn", "is_xpu", "is_mps", "grad",
}  # fmt: skip
_LAYOUT = {"layout", "is_sparse"}
"""Of an input these are its own, which is guarded; of a result they are those of a tensor that is not sparse."""

_SAME = {
    "is_floating_point", "is_complex", "element_size", "get_device", "is_signed", "is_contiguous", "dim", "ndimension", "storage_offset",
}  # fmt: skip
_NEEDS_VALUES = {
    "item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__", "__len__", "nonzero", "__contains__", "equal",
    "allclose", "is_nonzero", "unique", "bincount", "masked_select", "__array__", "data_ptr",
}  # fmt: skip
_SIZES = ("size", "numel", "nelement")
_OF_TENSORS = {*_SIZES, *_SAME, *GIVE_NUMBERS, "__len__"}
"""What Python gets of a tensor, which is that of each call where the tensor is."""
_HOOKS = {"register_hook", "register_post_accumulate_grad_hook", "retain_grad"}


@dataclass
class Recorder:
    """What one trace writes down. ``language`` has what functions of the language do on symbolic tensors; ``device`` is the kind of device
    whose autocast counts, None where none is active, and ``known`` has the torch functions whose operands it leaves alone unless it lists
    them. ``writes`` are the values that buffers get once a call has succeeded, ``several`` must have more than one row."""

    language: Mapping[Any, Callable[..., Any]] = field(default_factory=dict)
    sources: dict[int, Source] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    inputs: dict[int, Record] = field(default_factory=dict)
    fixed: dict[Any, int] = field(default_factory=dict)
    graphs: list[Any] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)
    real: dict[Record, Tensor] = field(default_factory=dict)
    symbols: list[weakref.ref[SymbolicTensor]] = field(default_factory=list)
    measured: set[Record] = field(default_factory=set)
    exact: set[Record] = field(default_factory=set)
    gradients: dict[Record, bool] = field(default_factory=dict)
    node_types: list[tuple[int, tuple[Any, ...]]] = field(default_factory=list)
    layer_sizes: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    phases: list[Any] = field(default_factory=list)
    writes: dict[Record, Record] = field(default_factory=dict)
    several: list[Record] = field(default_factory=list)
    casts: dict[tuple[Record, torch.dtype], Record] = field(default_factory=dict)
    hook_guards: list[Any] = field(default_factory=list)
    structure: Structure = field(default_factory=Structure)
    modules: ModuleCalls = field(default_factory=ModuleCalls)
    stale: dict[Record, str] = field(default_factory=dict)
    positive: set[Any] = field(default_factory=set)
    between: set[Record] = field(default_factory=set)
    copies: set[Record] = field(default_factory=set)
    same: dict[tuple[Any, Any], None] = field(default_factory=dict)
    less: dict[tuple[Any, Any], None] = field(default_factory=dict)
    device: str | None = None
    known: Container[str] = ()
    change: Callable[..., Any] = lambda recorder, func, name, args, kwargs: _refuse(name)
    sparse: Callable[..., Any] = lambda recorder, func, name, args, kwargs: _refuse(name)
    is_sparse: Callable[[str, Sequence[Tensor]], bool] = lambda name, tensors: False
    matrices: dict[int, tuple[Tensor, Any]] = field(default_factory=dict)
    diagnose: Callable[[Record], None] = lambda record: None
    grad: bool = field(default_factory=torch.is_grad_enabled)

    def close(self) -> None:
        """Lets go of the call that was traced: records refer to the recorder, and must not keep that call's tensors, graph and modules."""
        self.sources.clear()
        self.inputs.clear()
        self.graphs.clear()
        self.real.clear()
        self.casts.clear()
        self.matrices.clear()
        self.symbols.clear()
        self.structure.clear()
        self.modules = ModuleCalls()
        self.diagnose = lambda record: None

    def number(self, graph: Any) -> int:
        """The number of a real graph among those that the function uses, in the order in which it met them."""
        numbers = self.numbers
        return numbers.setdefault(id(graph), len(numbers))

    def fix_count(self, count: RowCount) -> None:
        """The trace depends on this count's value."""
        self.fixed[count.of] = int.__int__(count)

    def compare_counts(self, a: RowCount, b: RowCount) -> None:
        """The trace depends on which of two counts is larger, or on their being equal."""
        if a.of == b.of:
            return
        first, second = int.__int__(a), int.__int__(b)
        if first == second:
            self.same[a.of, b.of] = None
        else:
            self.less[(a.of, b.of) if first < second else (b.of, a.of)] = None

    def compare_with(self, count: RowCount, n: int) -> None:
        """The trace depends on a count's being less than a number, greater, or equal to it."""
        value = int.__int__(count)
        if value == n:
            self.fix_count(count)
        else:
            self.less[(count.of, n) if value < n else (n, count.of)] = None

    # -------------------------------------------------------------------------------------------- values

    def add(self, record: Record) -> SymbolicTensor:
        """What stands for a record from now on: where the traced code has switched gradients off, for its value without one."""
        record.number = len(self.records)
        self.records.append(record)
        if torch.is_grad_enabled() != self.grad and may_have_gradient(record) and record not in self.structure.values:
            check_gradient_mode(self.grad)
            return self.add(Record("detach", (record,), {}, record.meta, record.where, Tensor.detach))
        made = SymbolicTensor(record)
        self.symbols.append(weakref.ref(made))
        return made

    def alive(self) -> list[SymbolicTensor]:
        """The symbolic tensors that somebody still holds."""
        return [tensor for ref in self.symbols if (tensor := ref()) is not None]

    def input(self, tensor: Tensor) -> Record:
        """The record of a real tensor that the function meets."""
        if id(tensor) not in self.inputs:
            source = self.sources.get(id(tensor))
            if source is not None and is_edge_index(tensor):
                self.inputs[id(tensor)] = self.edge_index(tensor, source)
                return self.inputs[id(tensor)]
            if source is None and (why := disguise(tensor)) is not None:
                raise fail(
                    f"a tensor that the function did not get as an argument {why}, and would be kept: pass it in"
                )
            if source is None:
                raise fail(
                    f"a tensor of shape {list(tensor.shape)} comes from where later calls cannot find it again (torch.from_numpy, "
                    "torch.Tensor(...), an iterator, a C function); pass it as an argument, keep it in an attribute, a list or a dict, or "
                    "make it with torch.tensor(...)"
                )
            self.inputs[id(tensor)] = self.new_input(tensor, source)
        return self.inputs[id(tensor)]

    def new_input(self, tensor: Tensor, source: Source) -> Record:
        """A record for a real tensor, one for each source that it has."""
        with torch._C.DisableTorchFunction():  # asking is not what the function asks, and would make a second record
            shape, dtype = tensor.shape, tensor.dtype
        meta = meta_tensor(shape, dtype)
        record = Record("input", (), {}, meta, location(), source=source)
        self.add(record)
        self.real[record] = tensor
        self.structure.meet(record, tensor)
        return record

    def edge_index(self, tensor: Tensor, source: Source) -> Record:
        """The record of the tensor that an ``EdgeIndex`` is."""
        try:
            return self.new_input(data_of(tensor), PlainIndex(source))
        except TypeError as e:
            raise fail(str(e)) from e

    def of_argument(self, value: Any) -> SymbolicTensor | None:
        """What stands for a tensor that an object holds which was passed in."""
        source = self.sources.get(id(value)) if isinstance(value, Tensor) else None
        if not isinstance(value, Tensor) or source is None or not is_of_argument(source):
            return None
        return SymbolicTensor(self.input(value))

    def structural(self, call: Call, name: str) -> Record:
        """The record of a call on structure, which is carried out."""
        value = self.structure.run(call)
        record = Record(name, call.args, call.kwargs, meta_tensor(value.shape, value.dtype), location(), call.function)
        self.structure.values[record], self.structure.calls[record] = value, call
        self.add(record)
        return record

    def operand(self, x: Any) -> Any:
        """An argument as it is recorded: tensors become records."""
        if isinstance(x, SymbolicTensor):
            if x.record in self.stale:
                raise changed_since(self.stale[x.record])
            return x.record
        if isinstance(x, Symbol):
            raise fail(
                "a sparse matrix is used, or returned, where compiled code takes only its indices and its values"
            )
        if isinstance(x, Tensor):
            return self.input(x)
        return x.item() if isinstance(x, numpy.generic) else x  # to PyTorch a number as any other

    # -------------------------------------------------------------------------------------------- calls

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a torch function gives during the trace."""
        if func is torch._C._set_grad_enabled:  # which torch.no_grad calls
            return func(*args)
        name = getattr(func, "__name__", str(func))
        profile = sys.getprofile()
        sys.setprofile(None)  # what PyTorch does to find shapes is not what the function does
        try:
            with torch._C.DisableTorchFunctionSubclass():
                return self._call(func, name, args, kwargs)
        finally:
            sys.setprofile(profile)

    def _call(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in self.language:
            return self.language[func](self, *args, **kwargs)
        tensors = [x for x in leaves((args, kwargs)) if isinstance(x, Tensor)]
        if self.is_sparse(name, tensors):
            return self.sparse(self, func, name, args, kwargs)
        if name in DECOMPOSITIONS and _is_torch(func):
            return self._decomposed(DECOMPOSITIONS[name], name, args, kwargs)
        if name in SEGMENTS and self._is_by_structure(args, kwargs):
            return self._decomposed(SEGMENTS[name], name, args, kwargs)
        symbolic = [x for x in tensors if isinstance(x, SymbolicTensor)]
        if tensors and not symbolic and all(x.is_meta and id(x) not in self.sources for x in tensors):
            return func(*args, **kwargs)  # what a record says about itself
        if name == "__get__":
            return self._property(func, args)
        if name in ("__set__", "__delete__"):
            raise fail("attributes of a traced tensor cannot be set")
        if name in _OF_TENSORS and args and (stand_in := self.of_argument(args[0])) is not None:
            args = stand_in, *args[1:]
            symbolic = [stand_in, *symbolic]
        if name in _SAME and symbolic:
            self.measured.add(symbolic[0].record)
            return getattr(symbolic[0].record.meta, name)(*args[1:], **kwargs)
        if name in _SIZES and symbolic:
            return self._size(name, symbolic[0].record, *args[1:], **kwargs)
        if name == "__len__" and symbolic:
            return self._length(symbolic[0].record)
        if name in GIVE_NUMBERS and symbolic and symbolic[0].record in self.structure.values:
            others = mapped(self.operand, (args[1:], kwargs))
            return self.structure.number(self, name, symbolic[0].record, *others)
        if name in _NEEDS_VALUES and symbolic and not all(x.record in self.structure.values for x in symbolic):
            raise needs_values(name)
        if name in _HOOKS and symbolic:
            raise fail(
                f"{name} of a computed tensor: inside a compiled function gradients do not pass through it one operation at a time; "
                f"return it, and call {name} on the result"
            )
        if self._mutates(name, kwargs) and any(isinstance(x, Tensor) for x in leaves((args, kwargs))):
            return self.change(self, func, name, args, kwargs)
        return self._record(func, name, args, kwargs)

    def _is_by_structure(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the first of a call's operands are rows, and all others structure."""
        first, *others = (
            x.record if isinstance(x, SymbolicTensor) else None for x in leaves((args, kwargs)) if isinstance(x, Tensor)
        )
        values = self.structure.values
        return first not in values and bool(others) and all(x in values for x in others)

    def _decomposed(
        self, function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A call recorded as the calls that it is made of."""
        cast = self._autocast(None, name, *mapped(self.operand, (args, kwargs)))[1:]
        args, kwargs = mapped(lambda x: SymbolicTensor(x) if isinstance(x, Record) else x, cast)
        with RecordingMode(self):
            return function(*args, **kwargs)

    def _mutates(self, name: str, kwargs: dict[str, Any]) -> bool:
        dunder = name.startswith("__")
        in_place = (name.endswith("_") and not dunder) or (dunder and name.startswith("__i") and name[3:] in _IN_PLACE)
        return in_place or name == "__setitem__" or bool(kwargs.get("inplace")) or kwargs.get("out") is not None

    def _property(self, func: Any, args: tuple[Any, ...]) -> Any:
        x = args[0]
        attribute = getattr(func.__self__, "__name__", "")
        if not isinstance(x, SymbolicTensor):
            return self._property_of_real(func, attribute, x)
        if attribute == "shape":
            return self._size("size", x.record)
        if attribute in ("T", "mT", "H", "mH"):
            name = "mT" if attribute[0] == "m" else "t"
            return self._record(_TRANSPOSES[name], name, (x,), {})
        if attribute == "grad_fn":
            check_no_legacy_hooks()
        if attribute in ("grad_fn", "grad"):
            return None
        if attribute == "requires_grad":
            return self.grad and has_gradient(x.record)
        if attribute == "device":
            return torch.device("cpu")
        if attribute == "data":
            raise fail(".data bypasses gradients; use the tensor itself")
        if attribute in _QUERIES:
            self.measured.add(x.record)
            return getattr(self.real.get(x.record, x.record.meta) if attribute in _LAYOUT else x.record.meta, attribute)
        raise UnsupportedOperation(f"{location()}: attribute {attribute!r} of a traced tensor")

    def _property_of_real(self, func: Any, attribute: str, x: Tensor) -> Any:
        """Of a tensor that the function found: what it asks for is guarded."""
        if attribute in ("T", "mT", "H", "mH"):
            name = "mT" if attribute[0] == "m" else "t"
            return self._record(_TRANSPOSES[name], name, (x,), {})
        if id(x) not in self.sources or attribute not in ("shape", "dtype", "requires_grad", "data", "ndim"):
            return func(x)
        record = self.input(x)
        if attribute == "data":
            return self._record(Tensor.detach, "detach", (x,), {})
        if attribute == "shape":
            return self._size("size", record)
        if attribute == "requires_grad":
            self.gradients[record] = x.requires_grad
        if attribute == "ndim":
            self.measured.add(record)
        return func(x)

    def _size(self, name: str, record: Record, dim: int | None = None) -> Any:
        self.measured.add(record)
        sizes: list[int] = list(record.meta.shape)
        if sizes:
            sizes[0] = RowCount(sizes[0], record, self)
        for place, given in enumerate(self.structure.sizes_given(record)[1:], 1):
            if isinstance(given, RowCount):
                sizes[place] = given
        if len(sizes) == 2 and record in self.structure.values:  # edges side by side, or integers that are features
            sizes[1] = RowCount(sizes[1], Extent(record, 1), self)
        if name != "size":
            total = record.meta.numel()
            return RowCount(total, record if len(sizes) == 1 else (record, "numel"), self) if sizes else total
        return (
            torch.Size(sizes)
            if dim is None and not any(isinstance(n, RowCount) for n in sizes)
            else tuple(sizes)
            if dim is None
            else sizes[dim]
        )

    def _length(self, record: Record) -> int:
        """What ``len`` gives, on which the trace then depends."""
        count = self._size("size", record, 0)
        if isinstance(count, RowCount):
            self.fix_count(count)
        return int.__int__(count)

    def _record(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "type_as":  # of the other tensor only the dtype matters
            return self._record(Tensor.to, "to", (args[0], args[1].dtype), kwargs)
        first = args[1] if name in ("__getitem__", "set_items") else None
        first = first[0] if isinstance(first, tuple) and first else first
        for bounds in leaves((args, kwargs)):
            if isinstance(bounds, slice) and bounds is not first:  # of features; of rows it is that of each call
                for bound in (bounds.start, bounds.stop, bounds.step):
                    if isinstance(bound, RowCount):
                        self.fix_count(bound)
        args, kwargs = mapped(self.operand, (args, kwargs))
        func, args, kwargs = self._autocast(func, name, args, kwargs)
        if name in ("__getitem__", "set_items"):
            args = self._chosen(args)
        call = self.structure.call(self, func, name, args, kwargs)
        self.structure.check_index(name, args)
        try:
            if call is not None:
                value = self.structure.run(call)
                meta = mapped(lambda x: meta_tensor(x.shape, x.dtype) if isinstance(x, Tensor) else x, value)
            else:
                meta = self._meta(func, name, args, kwargs)
        except (TraceError, NotImplementedError):
            raise
        except (RuntimeError, TypeError, IndexError, ValueError) as e:
            if name in _NEEDS_VALUES:  # of a tensor that was found
                raise needs_values(name) from e
            self.diagnose(Record(name, args, kwargs, meta_tensor((), torch.float32), location(), func))
            raise type(e)(f"{location()}: {e}") from e
        where = location()
        if isinstance(meta, Tensor):
            record = Record(name, args, kwargs, meta, where, func)
            if call is None and (same := undone(record)) is not None:
                record = Record("expand_as", (same, same), {}, meta, where, Tensor.expand_as)
            if needs_rows(record):
                self.positive.add(record.operands[0])
            if call is not None:
                self.structure.values[record], self.structure.calls[record] = value, call
            return self.add(record)
        if isinstance(meta, (tuple, list)) and meta and all(isinstance(m, Tensor) for m in meta):
            depend_on_parts(self, name, args, kwargs, len(meta))
            whole = Record(name, args, kwargs, meta[0], where, func)
            whole.number = len(self.records)
            self.records.append(whole)
            parts = [self.add(Record("part", (whole, n), {}, m, where, operator.getitem)) for n, m in enumerate(meta)]
            if call is not None:
                self.structure.values[whole], self.structure.calls[whole] = value, call
                for n, part in enumerate(parts):
                    self.structure.values[part.record] = value[n]
                    self.structure.calls[part.record] = Call(operator.getitem, (whole, n), {})
            return type(meta)(parts)  # of torch.return_types as well
        for operand in leaves((args, kwargs)):
            if isinstance(operand, Record):
                self._fix_shape(operand)
        return meta

    def record(self, func: Any, name: str, args: tuple[Any, ...]) -> Any:
        """What a call gives that is written down as it is."""
        return self._record(func, name, args, {})

    def _chosen(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """An index with the rows that a mask of structure chooses by their numbers: how many they are is then known."""
        table, index = args[0], args[1]
        first = index[0] if isinstance(index, tuple) and index else index
        values = self.structure.values
        mask = values.get(first) if isinstance(first, Record) else None
        if mask is None or mask.dtype is not torch.bool or mask.dim() != 1 or table in values:
            return args
        if mask.shape[0] != table.meta.shape[0]:
            raise IndexError(f"the mask has {mask.shape[0]} rows, what it is of {table.meta.shape[0]}")
        rows = self.structural(Call(numbers_of, (first,), {}), "nonzero")
        self.structure.depends_on_data = True
        return table, (rows, *index[1:]) if isinstance(index, tuple) else rows, *args[2:]

    # -------------------------------------------------------------------------------------------- autocast

    def autocast_operand(self, record: Record, name: str) -> Record:
        """The operand of a function of the language as autocast gives it."""
        args = self._autocast(None, name, (record,), {})[1]
        return args[0]  # type: ignore[no-any-return]

    def _autocast(self, func: Any, name: str, args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
        """A call as autocast makes it: with casts written down, or, for functions that nobody here knows, as one that runs under it."""
        if self.device is None and autocast.state():
            raise AutocastInside
        found = None if self.device is None else autocast.active(self.device)
        if found is None or not any(
            isinstance(x, Record) and autocast.is_eligible(x.meta.dtype) for x in leaves((args, kwargs))
        ):
            return func, args, kwargs
        dtype = found.dtype_for(name, kwargs)
        if name == "einsum" and found.device == "cpu" and not contracts(args):
            dtype = None
        if dtype is not None:
            args, kwargs = mapped(lambda x: self._cast(x, dtype), (args, kwargs))
        elif func is not None and name not in self.known:
            func = UnderAutocast(func, found)
        return func, args, kwargs

    def _cast(self, x: Any, dtype: torch.dtype) -> Any:
        if not isinstance(x, Record) or x.meta.dtype is dtype or not autocast.is_eligible(x.meta.dtype):
            return x
        if (x, dtype) not in self.casts:
            self.casts[x, dtype] = self._record(Tensor.to, "to", (SymbolicTensor(x), dtype), {}).record
        return self.casts[x, dtype]

    def _fix_shape(self, record: Record) -> None:
        """The trace depends on all sizes of a value, and so on those of what it is computed from."""
        pending = [record]
        while pending:
            one = pending.pop()
            if one not in self.exact:
                self.exact.add(one)
                pending += one.operands

    def _meta(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Shape and dtype of the result, as a meta tensor: by our own rules, or, where there is none, from PyTorch."""

        def to_meta(x: Any) -> Any:
            if isinstance(x, Record):
                return x.meta
            if isinstance(x, RowCount):
                return int.__int__(x)
            if isinstance(x, slice):
                return slice(to_meta(x.start), to_meta(x.stop), to_meta(x.step))
            return x

        args, kwargs = mapped(to_meta, (args, kwargs))
        known = infer(name, args, kwargs) if _is_torch(func) else None
        if known is not None:
            return meta_tensor(*known)
        try:
            return on_meta(func, name, args, kwargs)
        except NotImplementedError as e:
            why = f"{resolve_name(func) or func} cannot be traced ({e}); compute it outside the compiled function"
            raise UnsupportedOperation(f"{location()}: {why}") from e


_TRANSPOSES: dict[str, Callable[[Tensor], Tensor]] = {"mT": lambda x: x.mT, "t": lambda x: x.t()}
_IN_PLACE = {
    "add__", "sub__", "mul__", "truediv__", "floordiv__", "mod__", "pow__", "matmul__", "and__", "or__", "xor__",
}  # fmt: skip


def _is_torch(func: Any) -> bool:
    """Whether a function is PyTorch's own, so that its name says what it does."""
    module = getattr(func, "__module__", None)
    return module is None or module.split(".")[0] == "torch"


def _refuse(name: str) -> Any:
    raise in_place(name)


class RecordingMode(TorchFunctionMode):
    """Sends every torch function called in its scope to a recorder."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.recorder.call(func, args, kwargs or {})

    def __enter__(self) -> Any:
        self.outer = current()
        _state.recorder = self.recorder
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        _state.recorder = self.outer
        super().__exit__(*exception)
