"""One peer on one case, in a process of its own: builds, then obeys commands on standard input.

Each command is a JSON object with ``do``: ``infer`` or ``train`` run ``warm`` times untimed, then ``runs`` times timed, and answer
``{"seconds": [s, ...]}``; ``check`` answers with fingerprints of the output and of all gradients; ``kernels`` with a hash of what Columba
generates in each mode; ``memory`` runs a training step and answers how far the process grew, or what tensors took on a GPU; ``limits``
measures the device: sgemm rate and read bandwidth. Times on a GPU include waiting for it.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import Case, load_graph, make_input, make_layer
from benchmarks.device import DEVICES, growth, require, wait_for
from benchmarks.peers import build_peer
from columba.runtime.cpp.memory import pooled, scratch

LEAST_GROWTH = 2**20
"""The kernel counts resident pages for each thread apart and adds them up late: less than this cannot be told."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer")
    parser.add_argument("case", help="a Case as JSON")
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    parser.add_argument("--keep", action="store_true", help="keep freed memory in the process (mallopt)")
    parser.add_argument("--memory", type=int, default=0, help="fail, rather than take more bytes than this")
    args = parser.parse_args()
    require(args.device)
    if args.memory and args.device == "cpu":  # GPU drivers reserve addresses far beyond what they use
        resource.setrlimit(resource.RLIMIT_DATA, (args.memory, args.memory))
    if args.keep:
        keep_freed_memory()
    worker = Worker(args.peer, Case(**json.loads(args.case)), args.device)
    print(json.dumps({"ready": True, **worker.about}), flush=True)
    for line in sys.stdin:
        print(json.dumps(worker.answer(**json.loads(line))), flush=True)


def keep_freed_memory() -> None:
    """Raises glibc's mmap and trim thresholds: freed buffers are used again without page faults."""
    libc = ctypes.CDLL(None)
    m_trim_threshold, m_mmap_threshold = -1, -3
    libc.mallopt(m_mmap_threshold, 2**30)
    libc.mallopt(m_trim_threshold, 2**31 - 1)


class Worker:
    def __init__(self, peer: str, case: Case, device: str = "cpu") -> None:
        self.device = device
        graph = load_graph(case.graph).to(device)
        layer = make_layer(case, graph).to(device)
        wait_for(device)
        start = time.perf_counter()
        self.x = make_input(case, graph).to(device).requires_grad_()
        with torch.device(device):
            built = build_peer(peer, case, layer, graph)
        wait_for(device)
        self.model, self.source = built.call, built.source
        self.ours, self.parameters = list(layer.parameters()), built.parameters
        out_grad = torch.randn(graph.num_nodes, case.features, generator=torch.Generator().manual_seed(2))
        self.out_grad = out_grad.to(device)
        self.about = {"prepare": time.perf_counter() - start, "comparable": built.comparable}

    def answer(self, do: str, warm: int = 0, runs: int = 1) -> dict[str, Any]:
        match do:
            case "infer":
                return {"seconds": turn(self.infer, warm, runs, self.device)}
            case "train":
                return {"seconds": turn(self.train, warm, runs, self.device)}
            case "check":
                return {"prints": self.check()}
            case "kernels":
                return {"infer": self.kernels(grad=False), "train": self.kernels(grad=True)}
            case "memory":
                return {"bytes": self.memory()}
            case "limits":
                return limits(self.device)
            case _:
                raise ValueError(f"unknown command {do!r}")

    def infer(self) -> Tensor:
        with torch.no_grad():
            return self.model(self.x)

    def train(self) -> Tensor:
        """Forward and backward; gradients of the input and of all parameters."""
        for p in (self.x, *self.parameters):
            p.grad = None
        out = self.model(self.x)
        out.backward(self.out_grad)
        return out

    def check(self) -> list[list[float]]:
        """Sums that pin down the output and every gradient, in an order common to all peers."""
        out = self.train().detach()
        tensors = [out, self.x.grad, *(p.grad for p in self.ours)]
        return [[] if t is None else fingerprint(t) for t in tensors]

    def kernels(self, *, grad: bool) -> str:
        assert self.source is not None, "only Columba's kernels are known"
        with torch.set_grad_enabled(grad):
            return hashlib.sha256(self.source(self.x).encode()).hexdigest()

    def memory(self) -> int:
        """How far a training step raises the process's resident size, or the memory that tensors take on a GPU; gradients included.

        Memory that was freed, and what Columba keeps between calls for temporaries and saved values, is given back before, so that
        both count."""
        self.train()
        for p in (self.x, *self.parameters):
            p.grad = None
        gc.collect()
        if self.device != "cpu":
            return growth(self.train)
        scratch.release()
        pooled.release()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # reset the high-water mark
        before = status("VmRSS")
        self.train()
        return max(status("VmHWM") - before, LEAST_GROWTH)


def fingerprint(t: Tensor) -> list[float]:
    flat = t.detach().double().flatten()
    weights = torch.linspace(-1, 1, flat.numel(), dtype=torch.float64, device=flat.device)
    return [flat.abs().sum().item(), (flat * weights).sum().item()]


def turn(call: Callable[[], object], warm: int, runs: int, device: str) -> list[float]:
    for _ in range(warm):
        call()
    return [timed(call, device) for _ in range(runs)]


PROCESSOR_TIME = "COLUMBA_BENCHMARK_PROCESSOR_TIME"
"""If this is set, runs are timed by what processors did for this process: with one thread, a measure that other work hardly touches."""


def timed(call: Callable[[], object], device: str) -> float:
    clock = time.process_time if os.environ.get(PROCESSOR_TIME) else time.perf_counter
    wait_for(device)
    start = clock()
    call()
    wait_for(device)
    return clock() - start


def status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def limits(device: str) -> dict[str, float]:
    """Floating-point operations a second of a large sgemm, and bytes a second of reading memory; best of several."""
    side, floats = (1536, 64 * 2**20) if device == "cpu" else (8192, 512 * 2**20)
    a, b = torch.randn(side, side, device=device), torch.randn(side, side, device=device)
    big = torch.ones(floats, device=device)
    flops = max(2 * side**3 / timed(lambda: a @ b, device) for _ in range(5))
    bandwidth = max(4 * floats / timed(lambda: big.sum(), device) for _ in range(5))
    return {"flops": flops, "bandwidth": bandwidth}


if __name__ == "__main__":
    main()
