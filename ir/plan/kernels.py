"""Level 2: buffers, and the kernels that fill them.

What happens to one row is written with the operations of level 1, restricted so that a kernel can carry it out:

* leaves are :class:`Load`\\ s (a row of a buffer, direct or through one index map), constants, degrees and random numbers;
* in a :class:`Traversal`, ``Lift`` and ``Reduce`` go along the traversal's own map only, between a member and its owner;
* a :class:`Gemm` has one :class:`Product`, which its stores read; a :class:`GemmReduce` sums outer products.

Anything else is a :class:`HostCall`. :mod:`columba.ir.plan.verify` states the rules, one function each.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, fields
from typing import Any

from columba.ir.hashing import hash_once
from columba.ir.node import CHILD, topological
from columba.ir.program.ops import VIEWS, Cast, Value, operation
from columba.ir.program.program import Program
from columba.ir.spaces import IndexMap, Space
from columba.ir.types import DType, Shape, TensorType

ROLES = ("input", "output", "temporary")


@hash_once
@dataclass(frozen=True)
class Buffer:
    """A dense row-major array ``[rows of the space, *shape]``; a plan's buffers have distinct names.

    Its rows stand in the order of the space or, with ``order``, sorted along that map.
    """

    name: str
    type: TensorType
    role: str
    order: IndexMap | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"buffer {self.name}: unknown role {self.role!r}; one of {', '.join(ROLES)}")
        if self.order is not None and self.order.fine is not self.type.space:
            raise ValueError(f"buffer {self.name}: rows of {self.type.space} cannot be sorted along {self.order}")

    def __str__(self) -> str:
        return f"@{self.name}"


@operation("load")
@dataclass(frozen=True, eq=False, repr=False)
class Load(Value):
    """At each row of ``at``, the row of ``buffer`` that ``via`` leads to (None: the same row)."""

    buffer: Buffer
    via: IndexMap | None
    at: Space

    def _infer(self) -> TensorType:
        fine, coarse = (self.at, self.at) if self.via is None else (self.via.fine, self.via.coarse)
        if fine is not self.at or coarse is not self.buffer.type.space:
            raise TypeError(
                f"load: {self.via} does not lead from {self.at} to {self.buffer.type.space}, where {self.buffer} is"
            )
        return self.buffer.type.with_space(self.at)


@operation("product")
@dataclass(frozen=True, eq=False, repr=False)
class Product(Value):
    """Level 1's ``linear`` with its weight in a buffer: ``x [*lead, K]`` times ``w [K, N]`` or ``[*lead, K, N]``.

    The weight is taken to the type of ``x`` as it is read. ``via`` selects the matrix of each row; None: one matrix a row. With
    ``transpose`` the weight is stored ``N, K``. ``matrix`` is the shape under which the weight's elements are read, if that is not its own,
    ``rounded`` a type of 16 bits to which they are rounded first.
    """

    x: Value = field(metadata=CHILD)
    w: Buffer
    via: IndexMap | None
    transpose: bool
    matrix: Shape | None = None
    rounded: DType | None = None

    def _infer(self) -> TensorType:
        shape = self.weight_shape
        if math.prod(shape) != self.w.type.size:
            raise TypeError(f"product: weight {self.w} {self.w.type} has no elements for {list(shape)}")
        n = shape[-2] if self.transpose else shape[-1]
        k = shape[-1] if self.transpose else shape[-2]
        want = self.x.space if self.via is None else self.via.coarse
        if self.w.type.space is not want or k != self.x.shape[-1] or shape[:-2] not in ((), self.x.shape[:-1]):
            raise TypeError(f"product: {self.x.type} and weight {self.w} {self.w.type} do not fit")
        return self.x.type.with_shape((*self.x.shape[:-1], n))

    @property
    def shared(self) -> bool:
        """Whether one matrix serves all leading dimensions."""
        return len(self.weight_shape) == 2

    @property
    def factors(self) -> DType:
        """The type of the numbers that are multiplied: where numbers of 16 bits are taken to 32 for a product of 32 bits, theirs."""
        x: Value = self.x
        while isinstance(x, VIEWS):
            x = x.x
        narrow = self.rounded or self.w.type.dtype
        widened = isinstance(x, Cast) and x.x.dtype is narrow and narrow.is_half and self.dtype is DType.F32
        return narrow if widened else self.dtype

    @property
    def weight_shape(self) -> Shape:
        return self.w.type.shape if self.matrix is None else self.matrix


@dataclass(frozen=True)
class Store:
    """Writes the row that ``value`` gives to the same row of ``buffer``; every row is written exactly once."""

    buffer: Buffer
    value: Value

    def __post_init__(self) -> None:
        if self.buffer.type != self.value.type:
            raise TypeError(f"store: {self.buffer} is {self.buffer.type}, the value is {self.value.type}")


def limited(default: int, low: int, high: int) -> Any:
    """A field of a schedule, with the least and the greatest value that it may have."""
    return field(default=default, metadata={"range": (low, high)})


class Schedule:
    """What all schedules share: their fields are integers within stated ranges, and change how a kernel runs but never its results.

    (But for the order of sums: a kernel that is cut elsewhere adds up in another order, the same in every run.)
    """

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            low, high = f.metadata["range"]
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{type(self).__name__}: {f.name} is an integer from {low} to {high}, not {value!r}")

    @property
    def changes(self) -> dict[str, int]:
        """The fields that are not what they are by default."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}  # type: ignore[arg-type]


@dataclass(frozen=True)
class TraversalSchedule(Schedule):
    """How a traversal runs.

    ``split``: owners whose members are many are cut into tiles of at most this many members, whose partial sums a second
    phase adds up in order (0: an owner is never cut). Only a traversal with one phase of reductions can be cut.
    ``scratch``: member values of up to this many elements are kept between phases instead of being computed again.
    ``ahead``: gathered rows are fetched this many members before they are used (0: not at all), ``lines`` cache lines of each.
    ``pieces``: the owners are cut into this many pieces a thread; more than one are handed out as threads become free.
    ``threads``: the most threads that work on the kernel (0: all).
    ``scatter``: 1 to walk the members as they are stored, and to add each to its owner (0: owner by owner). Only sums can be.
    """

    split: int = limited(0, 0, 1 << 24)
    scratch: int = limited(16, 0, 1024)
    ahead: int = limited(8, 0, 256)
    lines: int = limited(4, 1, 32)
    pieces: int = limited(1, 1, 1024)
    threads: int = limited(0, 0, 1024)
    scatter: int = limited(0, 0, 1)


@dataclass(frozen=True)
class GemmSchedule(Schedule):
    """How a matrix product, or a sum of outer products, runs.

    ``tile_rows``: rows are cut into tiles of at most this many rows of one segment. ``threads``: the most threads that work on the
    kernel (0: all). ``ahead``, ``lines``: as of a :class:`TraversalSchedule`, for operands that are computed from gathered rows.
    """

    tile_rows: int = limited(512, 1, 8192)
    threads: int = limited(0, 0, 1024)
    ahead: int = limited(8, 0, 256)
    lines: int = limited(4, 1, 32)


class _Values:
    """What all kernels share: the values below their roots, and the buffers that these read, found once."""

    @functools.cached_property
    def values(self: Any) -> tuple[Value, ...]:
        return tuple(v for v in topological(roots_of(self)) if isinstance(v, Value))

    @functools.cached_property
    def reads(self: Any) -> tuple[Buffer, ...]:
        found: dict[Buffer, None] = {}
        for value in self.values:
            if isinstance(value, Load):
                found[value.buffer] = None
            if isinstance(value, Product):
                found[value.w] = None
        if isinstance(self, HostCall):
            found.update(dict.fromkeys(self.args))
        return tuple(found)


@dataclass(frozen=True)
class Traversal(_Values):
    """For each row of ``owner``: compute, over its members if there is a ``via`` (members -> owner), and store.

    Owner-level values are in space ``owner``; member-level values in ``via.fine``. ``Reduce`` combines an owner's members;
    ``Lift`` hands an owner's value to them. A value that depends on a reduction of members and is needed by members again
    starts another phase over them. Stores are at either level.
    """

    name: str
    owner: Space
    via: IndexMap | None
    stores: tuple[Store, ...]
    schedule: TraversalSchedule = field(default_factory=TraversalSchedule)


@dataclass(frozen=True)
class Gemm(_Values):
    """For each row: one matrix product, and what the stores make of it. Rows run sorted along the product's map."""

    name: str
    stores: tuple[Store, ...]
    schedule: GemmSchedule = field(default_factory=GemmSchedule)


@dataclass(frozen=True)
class GemmReduce(_Values):
    """Level 1's ``outer_reduce``: per coarse row of ``via``, the sum over its rows of outer products of ``x`` and ``y``.

    ``x [*lead, K]`` and ``y [*lead, N]`` are values of one space; ``out`` is ``[*lead, K, N]`` or, if ``shared``, ``[K, N]``.
    Deterministic: partial sums are of a fixed cut of the rows and are added in order. Coarse rows without rows get 0.
    """

    name: str
    x: Value
    y: Value
    via: IndexMap
    shared: bool
    out: Buffer
    schedule: GemmSchedule = field(default_factory=GemmSchedule)


@dataclass(frozen=True)
class HostCall(_Values):
    """A small level-1 program that PyTorch runs: products of weights, and the unusual.

    ``args`` are the buffers of ``program.inputs``, ``results`` those of ``program.results``, in order.
    """

    name: str
    program: Program
    args: tuple[Buffer, ...]
    results: tuple[Buffer, ...]


Kernel = Traversal | Gemm | GemmReduce | HostCall


def product_of(kernel: Gemm) -> Product:
    """The one product of a GEMM kernel."""
    found = {v: None for v in values_of(kernel) if isinstance(v, Product)}
    if len(found) != 1:
        raise TypeError(f"gemm {kernel.name}: needs exactly one product, has {len(found)}")
    return next(iter(found))


def roots_of(kernel: Kernel) -> tuple[Value, ...]:
    """The values that a kernel stores or sums."""
    match kernel:
        case Traversal() | Gemm():
            return tuple(store.value for store in kernel.stores)
        case GemmReduce():
            return (kernel.x, kernel.y)
        case HostCall():
            return ()


def values_of(kernel: Kernel) -> list[Value]:
    """All row values of a kernel, operands first."""
    return list(kernel.values)


def reads(kernel: Kernel) -> tuple[Buffer, ...]:
    """The buffers that a kernel reads, each once, in order of first use."""
    return kernel.reads


def writes(kernel: Kernel) -> tuple[Buffer, ...]:
    """The buffers that a kernel writes."""
    match kernel:
        case Traversal() | Gemm():
            return tuple(store.buffer for store in kernel.stores)
        case GemmReduce():
            return (kernel.out,)
        case HostCall():
            return kernel.results
