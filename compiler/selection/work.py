"""The work model: what a kernel computes, and the bytes it moves by the way in which they are reached, from its text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from columba.ir.counts import Counts
from columba.ir.indices import Lookup, Order, Segments
from columba.ir.plan.kernels import (
    Buffer,
    Gemm,
    GemmReduce,
    HostCall,
    Kernel,
    Load,
    Product,
    Traversal,
    values_of,
    writes,
)
from columba.ir.plan.plan import index_arrays
from columba.ir.pointwise import POINTWISE
from columba.ir.program.ops import FeatureReduce, Linear, OuterReduce, Pointwise, Reduce, Slice, Uniform, Value
from columba.ir.spaces import Space

INDEX_BYTES = 4

WRITE = 2
"""Bytes that move for a byte written: a line of memory is read before it is written."""


@dataclass(frozen=True)
class Work:
    """What a kernel does: floating-point operations, and bytes by the way in which they are reached.

    ``near`` bytes are gathered from tables that fit the last cache, ``far`` bytes from larger ones.
    """

    products: float = 0.0
    pointwise: float = 0.0
    streamed: float = 0.0
    near: float = 0.0
    far: float = 0.0
    kernels: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.products + other.products,
            self.pointwise + other.pointwise,
            self.streamed + other.streamed,
            self.near + other.near,
            self.far + other.far,
            self.kernels + other.kernels,
        )


def kernel_work(kernel: Kernel, counts: Counts, cache: float) -> Work:
    """The work of one kernel on a graph with these counts; tables of up to ``cache`` bytes count as near."""
    if isinstance(kernel, HostCall):
        return _host_work(kernel, counts)
    count = _Count(kernel, counts, cache)
    values = values_of(kernel)
    total = Work(kernels=1)
    narrowed = narrowed_loads(values)
    for v in values:
        total += count.value(v, narrowed)
    for buffer in writes(kernel):
        total += Work(streamed=WRITE * count.bytes(buffer))
    if isinstance(kernel, GemmReduce):
        lead = kernel.x.type.size // kernel.x.shape[-1]
        total += Work(products=2.0 * counts[kernel.x.space] * lead * kernel.x.shape[-1] * kernel.y.shape[-1])
    for array in index_arrays(kernel):
        if isinstance(array, (Lookup, Order)):
            total += Work(streamed=INDEX_BYTES * counts[array.map.fine])
        elif isinstance(array, Segments):
            total += Work(streamed=INDEX_BYTES * counts[array.map.coarse])
    return total


class _Count:
    """The work of single values of a kernel."""

    def __init__(self, kernel: Traversal | Gemm | GemmReduce, counts: Counts, cache: float) -> None:
        self.counts, self.cache = counts, cache
        self.walk = kernel.via if isinstance(kernel, (Traversal, GemmReduce)) else None
        self.owner = kernel.owner if isinstance(kernel, Traversal) else None

    def bytes(self, buffer: Buffer) -> float:
        return float(self.counts.bytes(buffer.type))

    def value(self, v: Value, narrowed: Mapping[Value, int]) -> Work:
        rows = self.counts[v.space]
        match v:
            case Pointwise():
                return Work(pointwise=float(rows * v.type.size * POINTWISE[v.function].flops))
            case FeatureReduce():
                return Work(pointwise=float(rows * v.x.type.size))
            case Reduce():
                return Work(pointwise=float(self.counts[v.x.space] * v.x.type.size))
            case Uniform():
                return Work(pointwise=10.0 * rows * v.type.size)
            case Product():
                return Work(products=2.0 * rows * v.x.type.size * v.shape[-1], streamed=self.bytes(v.w))
            case Load():
                return self._load(v, rows, narrowed.get(v, v.type.size))
        return Work()

    def _load(self, v: Load, rows: int, size: int) -> Work:
        moved = float(rows * size * v.dtype.itemsize)
        table = self.bytes(v.buffer)
        member = self.walk is not None and v.at is self.walk.fine and v.at is not self.owner
        if v.via is None and not member:
            return Work(streamed=moved)
        if v.buffer.type.space is Space.ONE:
            return Work()
        return Work(near=moved) if table <= self.cache else Work(far=moved)


def narrowed_loads(values: list[Value]) -> dict[Value, int]:
    """For loads of which only slices are read: the elements that are."""
    read: dict[Value, set[tuple[int, int, int, int]]] = {}
    whole: set[Value] = set()
    for v in values:
        for c in v.children:
            if isinstance(c, Load) and isinstance(v, Slice):
                read.setdefault(c, set()).add((v.axis, v.start, v.stop, v.type.size))
            elif isinstance(c, Load):
                whole.add(c)
    return {v: min(v.type.size, sum(s[-1] for s in slices)) for v, slices in read.items() if v not in whole}


def _host_work(kernel: HostCall, counts: Counts) -> Work:
    """PyTorch runs operation by operation."""
    total = Work()
    for v in kernel.program.body:
        rows = counts[v.space]
        moved = 2.0 * counts.bytes(v.type)
        total += Work(streamed=moved, kernels=1)
        if isinstance(v, Linear):
            total += Work(products=2.0 * rows * v.x.type.size * v.shape[-1])
        if isinstance(v, OuterReduce):
            total += Work(products=2.0 * counts[v.x.space] * v.x.type.size * v.y.shape[-1])
    return total
