"""Machine rates: what a machine does in a second: measured once, in about half a second, and stored in the cache folder.

A GPU whose maker's figures are known (:mod:`columba.selection.chips`) is not measured.
"""

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
from columba.selection.chips import CHIPS, Chip, chip_of
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

CACHE_SPEED = 3.0
"""How many times faster than its memory a GPU's shared cache is taken to be. An assumption."""

CPU = torch.device("cpu")


def rates_of(chip: Chip) -> Rates:
    """A chip as the cost model sees machines."""
    fast = CACHE_SPEED * chip.bandwidth
    return Rates(chip.fp32, chip.fp32, chip.bandwidth, fast, chip.bandwidth, chip.launch, chip.cache)


def typical_rates(device: torch.device = CPU) -> Rates:
    """For choices that matter little: of a small machine, or of a GPU that many have."""
    return TYPICAL_RATES if device.type == "cpu" else rates_of(CHIPS["a100"])


def rates_key(device: torch.device = CPU) -> str:
    """The name under which the rates of this machine, or of a GPU of it, are kept."""
    if device.type == "cpu":
        identity = f"{VERSION}\n{cpu()}\n{torch.__version__}\n{torch.get_num_threads()}"
    else:
        found = torch.cuda.get_device_properties(device)
        identity = f"{VERSION}\n{found.name}\n{found.multi_processor_count}\n{found.total_memory}\n{torch.__version__}"
    return "rates-" + hashlib.sha256(identity.encode()).hexdigest()[:16]


_rates: dict[torch.device, Rates] = {}
"""What this process knows."""

_unknown: set[torch.device] = set()
"""The devices of which the cache folder knew none: it is not asked for every graph that comes."""


def forget_rates() -> None:
    """They are looked up again: the cache folder, or the machine, is another one."""
    _rates.clear()
    _unknown.clear()


def known_rates(device: torch.device = CPU) -> Rates | None:
    """The rates of this machine, or of a GPU of it, if they were measured before, or are published."""
    if device in _rates:
        return _rates[device]
    if device in _unknown or (_chip(device) is None and find(rates_key(device), ".json") is None):
        _unknown.add(device)
        return None
    return machine_rates(device)


def _chip(device: torch.device) -> Chip | None:
    return None if device.type == "cpu" else chip_of(torch.cuda.get_device_properties(device).name)


def machine_rates(device: torch.device = CPU) -> Rates:
    """The rates of this machine, or of a GPU of it: published, from the cache folder, or measured now, which takes about half a second."""
    if device not in _rates:
        _rates[device] = _looked_up(device)
    return _rates[device]


def _looked_up(device: torch.device) -> Rates:
    chip = _chip(device)
    if chip is not None:
        return rates_of(chip)
    key = rates_key(device)
    text = get_or_make(key, ".json", lambda: json.dumps(asdict(measure_rates(device))).encode())
    try:
        rates = {name: float(rate) for name, rate in json.loads(text).items()}
        if all(0 < rate < math.inf for rate in rates.values()):
            return Rates(**rates)
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    remove(key, ".json")
    return measure_rates(device)


def measure_rates(device: torch.device = CPU) -> Rates:
    """Measures a machine, or a GPU, with PyTorch's own operators: the best of many runs, in several rounds, so that a busy moment does no
    harm.

    Nothing is drawn from PyTorch's generators, and no mode of the caller's decides what is measured: the rates are stored for good.
    """
    of_cpu = device.type == "cpu"
    side, floats = (512, 1 << 16) if of_cpu else (4096, 1 << 24)
    far_rows = FAR_ROWS if of_cpu else 16 * FAR_ROWS
    with outside_modes(), torch.no_grad(), torch.autocast(device.type, enabled=False):
        like: dict[str, Any] = {"dtype": torch.float32, "device": device}
        generator = torch.Generator("cpu").manual_seed(0)
        a = torch.linspace(-1, 1, side * side, **like).view(side, side)
        big = torch.ones(far_rows * WIDTH, **like)
        x, y = torch.linspace(-2, 2, floats, **like), torch.empty(floats, **like)
        near, far = torch.ones(NEAR_ROWS, WIDTH, **like), big.view(far_rows, WIDTH)
        in_near = torch.randint(NEAR_ROWS, (far_rows >> 3,), generator=generator, device="cpu").to(device)
        in_far = torch.randperm(far_rows, generator=generator, device="cpu").to(
            device
        )  # all of them: what few picks leave in the cache would be found there again
        tiny = torch.ones(8, **like)
        embedding_bag = torch.nn.functional.embedding_bag
        many = 1 if of_cpu else 64  # launches of a GPU follow each other without the host's waiting
        work: dict[str, tuple[float, Callable[[], object]]] = {
            "products": (2.0 * side**3, lambda: a @ a),
            "pointwise": (10.0 * x.numel(), lambda: torch.exp(x, out=y)),
            "streamed": (4.0 * big.numel(), lambda: big.sum()),
            "near": (4.0 * len(in_near) * WIDTH, lambda: embedding_bag(in_near.view(-1, 16), near, mode="sum")),
            "far": (4.0 * len(in_far) * WIDTH, lambda: embedding_bag(in_far.view(-1, 16), far, mode="sum")),
            "start": (1.0 * many, lambda: [tiny + tiny for _ in range(many)]),
        }
        fastest = dict.fromkeys(work, float("inf"))
        for _ in range(4):
            for name, (_, call) in work.items():
                fastest[name] = min(fastest[name], best(call, device))
    rates = {name: amount / fastest[name] for name, (amount, _) in work.items()}
    if of_cpu:
        return Rates(**{**rates, "start": STARTS * fastest["start"], "cache": CACHE_BYTES})
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return Rates(**{**rates, "start": fastest["start"] / many, "cache": float(cache)})


STARTS = 3.0
"""Small PyTorch operations that take as long as starting the threads of a kernel."""


def best(call: Callable[[], object], device: torch.device = CPU, seconds: float = 0.02) -> float:
    """The shortest of the runs that fit the given time, at least three; each until the device is done."""
    wait = (lambda: None) if device.type == "cpu" else functools.partial(torch.cuda.synchronize, device)
    call()
    wait()
    found: list[float] = []
    begin = time.perf_counter()
    while len(found) < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        wait()
        found.append(time.perf_counter() - start)
    return min(found)
