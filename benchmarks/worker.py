"""One peer on one case, in a process of its own: builds, then obeys commands on standard input.

Each command is a JSON object with ``do``: ``infer`` or ``train`` run ``warm`` times untimed, then ``runs`` times timed, and answer
``{"seconds": [s, ...]}``; ``check`` answers with fingerprints of the output and of all gradients; ``kernels`` with a hash of what Columba
generates in each mode; ``memory`` runs a training step and answers how far the process grew; ``limits`` measures the machine: sgemm
rate and read bandwidth.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import Case, load_graph, make_input, make_layer
from benchmarks.peers import build_peer
from columba.runtime.memory import scratch

LEAST_GROWTH = 2**20
"""The kernel counts resident pages for each thread apart and adds them up late: less than this cannot be told."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer")
    parser.add_argument("case", help="a Case as JSON")
    parser.add_argument("--keep", action="store_true", help="keep freed memory in the process (mallopt)")
    parser.add_argument("--memory", type=int, default=0, help="fail, rather than take more bytes than this")
    args = parser.parse_args()
    if args.memory:
        resource.setrlimit(resource.RLIMIT_DATA, (args.memory, args.memory))
    if args.keep:
        keep_freed_memory()
    worker = Worker(args.peer, Case(**json.loads(args.case)))
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
    def __init__(self, peer: str, case: Case) -> None:
        graph = load_graph(case.graph)
        layer = make_layer(case, graph)
        start = time.perf_counter()
        self.x = make_input(case, graph).requires_grad_()
        built = build_peer(peer, case, layer, graph)
        self.model, self.source = built.call, built.source
        self.ours, self.parameters = list(layer.parameters()), built.parameters
        self.out_grad = torch.randn(graph.num_nodes, case.features, generator=torch.Generator().manual_seed(2))
        self.about = {"prepare": time.perf_counter() - start, "comparable": built.comparable}

    def answer(self, do: str, warm: int = 0, runs: int = 1) -> dict[str, Any]:
        match do:
            case "infer":
                return {"seconds": turn(self.infer, warm, runs)}
            case "train":
                return {"seconds": turn(self.train, warm, runs)}
            case "check":
                return {"prints": self.check()}
            case "kernels":
                return {"infer": self.kernels(grad=False), "train": self.kernels(grad=True)}
            case "memory":
                return {"bytes": self.memory()}
            case "limits":
                return limits()
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
        """How far a training step raises the process's resident size, gradients included.

        Memory that was freed, and scratch memory that Columba keeps between calls, are given back before, so that both count."""
        self.train()
        for p in (self.x, *self.parameters):
            p.grad = None
        gc.collect()
        scratch.release()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # reset the high-water mark
        before = status("VmRSS")
        self.train()
        return max(status("VmHWM") - before, LEAST_GROWTH)


def fingerprint(t: Tensor) -> list[float]:
    flat = t.detach().double().flatten()
    weights = torch.linspace(-1, 1, flat.numel(), dtype=torch.float64)
    return [flat.abs().sum().item(), (flat * weights).sum().item()]


def turn(call: Callable[[], object], warm: int, runs: int) -> list[float]:
    for _ in range(warm):
        call()
    return [timed(call) for _ in range(runs)]


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def limits() -> dict[str, float]:
    """Floating-point operations a second of a large sgemm, and bytes a second of reading memory; best of several."""
    a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
    big = torch.ones(64 * 2**20)
    flops = max(2 * 1536**3 / timed(lambda: a @ b) for _ in range(5))
    bandwidth = max(big.numel() * 4 / timed(lambda: big.sum()) for _ in range(5))
    return {"flops": flops, "bandwidth": bandwidth}


if __name__ == "__main__":
    main()
