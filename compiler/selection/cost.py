"""What a plan costs on a graph and a machine: operations and bytes of every kernel, and the seconds that they take at measured rates.

The work of a kernel follows from its text: products at the rate of a matrix product, other operations at the rate of a pointwise
function, rows read or written in order at the bandwidth of memory, rows gathered at the rate of a gather from a table of that size. The
rates are this machine's, measured once in about half a second and stored in the cache folder.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

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
from columba.ir.plan.plan import Plan, index_arrays
from columba.ir.pointwise import POINTWISE
from columba.ir.program.ops import FeatureReduce, Linear, OuterReduce, Pointwise, Reduce, Slice, Uniform, Value
from columba.ir.spaces import Space
from columba.runtime.build import cpu
from columba.runtime.cache import find, get_or_make, remove
from columba.runtime.modes import outside_modes

INDEX_BYTES = 4

WRITE = 2
"""Bytes that move for a byte written: a line of memory is read before it is written."""

VERSION = 2
"""Of the stored rates; raised when what is measured changes."""


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


@dataclass(frozen=True)
class Rates:
    """What a machine does in a second: operations, and bytes; and what starting a kernel takes, in seconds."""

    products: float
    pointwise: float
    streamed: float
    near: float
    far: float
    start: float
    cache: float

    def seconds(self, work: Work) -> float:
        """The time of some work, as if nothing overlapped."""
        return (
            work.products / self.products
            + work.pointwise / self.pointwise
            + work.streamed / self.streamed
            + work.near / self.near
            + work.far / self.far
            + work.kernels * self.start
        )


def plan_seconds(plan: Plan, counts: Counts, rates: Rates) -> float:
    """The predicted time of a plan."""
    return sum(rates.seconds(kernel_work(k, counts, rates.cache)) for k in plan.kernels)


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


# ------------------------------------------------------------------------------------------------ this machine

NEAR_ROWS, FAR_ROWS, WIDTH = 1 << 13, 1 << 18, 64
"""Tables of 2 MiB and of 64 MiB, in rows of 256 bytes."""

CACHE_BYTES = float(1 << 24)
"""What a table may take and still count as near: half of a usual last-level cache, which others use too."""


TYPICAL_RATES = Rates(
    products=1e11, pointwise=1.5e10, streamed=1.5e10, near=1.5e10, far=5e9, start=5e-6, cache=float(1 << 24)
)
"""Of a small machine: for choices that matter little."""


def rates_key() -> str:
    """The name under which this machine's rates are kept."""
    identity = f"{VERSION}\n{cpu()}\n{torch.__version__}\n{torch.get_num_threads()}"
    return "rates-" + hashlib.sha256(identity.encode()).hexdigest()[:16]


def known_rates() -> Rates | None:
    """This machine's rates, if they were measured before."""
    return machine_rates() if find(rates_key(), ".json") is not None else None


@functools.cache
def machine_rates() -> Rates:
    """This machine's rates: from the cache folder, or measured now, which takes about half a second."""
    text = get_or_make(rates_key(), ".json", lambda: json.dumps(asdict(measure_rates())).encode())
    try:
        rates = {name: float(rate) for name, rate in json.loads(text).items()}
        if all(0 < rate < math.inf for rate in rates.values()):
            return Rates(**rates)
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    remove(rates_key(), ".json")
    return measure_rates()


def measure_rates() -> Rates:
    """Measures the machine with PyTorch's own operators: the best of many runs, in several rounds, so that a busy moment does no harm.

    Nothing is drawn from PyTorch's generators, and no mode of the caller's decides what is measured: the rates are stored for good.
    """
    with outside_modes(), torch.no_grad(), torch.autocast("cpu", enabled=False):
        like: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
        generator = torch.Generator("cpu").manual_seed(0)
        a = torch.linspace(-1, 1, 512 * 512, **like).view(512, 512)
        big = torch.ones(FAR_ROWS * WIDTH, **like)
        x, y = torch.linspace(-2, 2, 1 << 16, **like), torch.empty(1 << 16, **like)
        near, far = torch.ones(NEAR_ROWS, WIDTH, **like), big.view(FAR_ROWS, WIDTH)
        in_near = torch.randint(NEAR_ROWS, (1 << 15,), generator=generator, device="cpu")
        in_far = torch.randperm(
            FAR_ROWS, generator=generator, device="cpu"
        )  # all of them: what few picks leave in the cache would be found there again
        tiny = torch.ones(8, **like)
        embedding_bag = torch.nn.functional.embedding_bag
        work: dict[str, tuple[float, Callable[[], object]]] = {
            "products": (2.0 * 512**3, lambda: a @ a),
            "pointwise": (10.0 * x.numel(), lambda: torch.exp(x, out=y)),
            "streamed": (4.0 * big.numel(), lambda: big.sum()),
            "near": (4.0 * len(in_near) * WIDTH, lambda: embedding_bag(in_near.view(-1, 16), near, mode="sum")),
            "far": (4.0 * len(in_far) * WIDTH, lambda: embedding_bag(in_far.view(-1, 16), far, mode="sum")),
            "start": (1.0, lambda: tiny + tiny),
        }
        fastest = dict.fromkeys(work, float("inf"))
        for _ in range(4):
            for name, (_, call) in work.items():
                fastest[name] = min(fastest[name], best(call))
    rates = {name: amount / fastest[name] for name, (amount, _) in work.items()}
    return Rates(**{**rates, "start": STARTS * fastest["start"], "cache": CACHE_BYTES})


STARTS = 3.0
"""Small PyTorch operations that take as long as starting the threads of a kernel."""


def best(call: Callable[[], object], seconds: float = 0.02) -> float:
    """The shortest of the runs that fit the given time, at least three."""
    call()
    found: list[float] = []
    begin = time.perf_counter()
    while len(found) < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)
