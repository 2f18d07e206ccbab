"""Machine rates: what a machine does in a second: measured once, in about half a second, and stored in the cache folder."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from columba.runtime.build import cpu
from columba.runtime.cache import find, get_or_make, remove
from columba.runtime.modes import outside_modes
from columba.selection.work import Work

VERSION = 2
"""Of the stored rates; raised when what is measured changes."""


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
