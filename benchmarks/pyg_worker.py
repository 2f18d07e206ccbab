"""A layer of PyG as one peer runs it, in a process of its own, obeying commands as :mod:`benchmarks.worker` does.

Peers are ``eager``, the layer as PyG has it; ``torch.compile``; and ``columba``, ``columba.compile`` of the very same layer.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import FastRGCNConv, HGTConv, RGATConv, RGCNConv

import columba
from benchmarks.cases import Case as GraphCase
from benchmarks.cases import load_graph, make_input
from benchmarks.pyg_models import HETEROGENEOUS, load, model
from benchmarks.typed_edges import TypedEdges
from benchmarks.worker import LEAST_GROWTH, fingerprint, keep_freed_memory, status, turn
from columba.runtime.cpp.memory import pooled, scratch
from tests.compared import tensors, what_runs
from tests.frontend.pyg.coverage import Inputs, all_cases, made

PEERS = ("eager", "torch.compile", "columba")

RELATIONAL = ("RGCNConv", "FastRGCNConv", "RGATConv", "HGTConv")

HOMOGENEOUS = Inputs(10_000, 100_000, 64, 8, 500, torch.float32)
"""The graph of the layers of the coverage table."""


@dataclass(frozen=True)
class PygCase:
    """A layer or model of PyG, and a graph: one of :data:`benchmarks.cases.GRAPHS`; ``random``, :data:`HOMOGENEOUS`; or one of
    :data:`benchmarks.pyg_models.HETEROGENEOUS`."""

    layer: str
    graph: str = "random"
    features: int = 64
    heads: int = 1

    def __str__(self) -> str:
        return f"{self.layer} {self.graph}"


def build(case: PygCase) -> tuple[nn.Module, tuple[Any, ...]]:
    """The layer and the arguments of a call, the same in every process."""
    if case.graph == "random":
        return made(next(one for one in all_cases() if one.name == case.layer), HOMOGENEOUS)
    if case.graph in HETEROGENEOUS:
        return model(case.layer, load(case.graph))
    torch.manual_seed(0)
    graph, f = load_graph(case.graph), case.features
    x = make_input(GraphCase("", case.graph, f, case.heads), graph)
    if case.layer == "HGTConv":
        kinds = TypedEdges(graph)
        triples = [kinds.triple(r) for r in kinds.relations]
        conv = HGTConv(f, f, (list(kinds.names), triples), heads=case.heads)
        tables = dict(zip(kinds.names, x.split(kinds.sizes), strict=True))
        return conv, (tables, dict(zip(triples, kinds.edges, strict=True)))
    order = torch.argsort(graph.edge_type, stable=True)  # as PyG's layers have it fastest
    edges = graph.edge_index[:, order].contiguous(), graph.edge_type[order]
    if case.layer == "RGATConv":
        return RGATConv(f, f // case.heads, graph.num_relations, heads=case.heads), (x, *edges)
    kind = {"RGCNConv": RGCNConv, "FastRGCNConv": FastRGCNConv}[case.layer]
    return kind(f, f, graph.num_relations, is_sorted=True), (x, *edges)


class Worker:
    def __init__(self, peer: str, case: PygCase) -> None:
        self.layer, args = build(case)
        self.args = _trained(args)
        self.leaves = [t for _, t in tensors("", self.args) if t.requires_grad] + list(self.layer.parameters())
        self.cotangent: Tensor | None = None
        start = time.perf_counter()
        self.call: Any = self.layer
        if peer == "columba":
            self.call = columba.compile(self.layer)
        elif peer == "torch.compile":
            self.call = torch.compile(self.layer)
        self.infer()
        out = self.train()
        self.about = {"prepare": time.perf_counter() - start, "comparable": True, "elements": out.numel()}
        if peer == "columba":
            self.about["runs"], self.about["why"] = what_runs(self.call, self.args, {})

    def answer(self, do: str, warm: int = 0, runs: int = 1) -> dict[str, Any]:
        match do:
            case "infer":
                return {"seconds": turn(self.infer, warm, runs, "cpu")}
            case "train":
                return {"seconds": turn(self.train, warm, runs, "cpu")}
            case "check":
                return {"prints": self.check()}
            case "memory":
                return {"bytes": self.memory()}
            case _:
                raise ValueError(f"unknown command {do!r}")

    def infer(self) -> None:
        with torch.no_grad():
            self.call(*self.args)

    def train(self) -> Tensor:
        """Forward and backward; gradients of all inputs of floats and of all parameters."""
        for leaf in self.leaves:
            leaf.grad = None
        outs = [t for _, t in tensors("", self.call(*self.args)) if t.is_floating_point()]
        out = outs[0].flatten() if len(outs) == 1 else torch.cat([t.flatten() for t in outs])
        if out.requires_grad:
            if self.cotangent is None:  # making it is no part of a step
                generator = torch.Generator().manual_seed(2)
                self.cotangent = torch.randn(out.shape, generator=generator, dtype=out.dtype)
            out.backward(self.cotangent)
        return out

    def check(self) -> list[list[float]]:
        found = [self.train().detach(), *(leaf.grad for leaf in self.leaves)]
        return [[] if t is None else fingerprint(t) for t in found]

    def memory(self) -> int:
        """How far a training step raises the process's resident size, as :meth:`benchmarks.worker.Worker.memory`."""
        self.train()
        for leaf in self.leaves:
            leaf.grad = None
        gc.collect()
        scratch.release()
        pooled.release()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        self.train()
        return max(status("VmHWM") - before, LEAST_GROWTH)


def _trained(x: Any) -> Any:
    """Nested arguments with tensors of floats that require gradients."""
    if isinstance(x, Tensor):
        return x.clone().requires_grad_() if x.is_floating_point() else x
    if isinstance(x, dict):
        return {k: _trained(v) for k, v in x.items()}
    return tuple(_trained(v) for v in x) if isinstance(x, tuple) else x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("case", help="a PygCase as JSON")
    parser.add_argument("--device", choices=("cpu",), default="cpu")
    parser.add_argument("--keep", action="store_true", help="keep freed memory in the process (mallopt)")
    parser.add_argument("--memory", type=int, default=0, help="fail, rather than take more bytes than this")
    args = parser.parse_args()
    if args.memory:
        resource.setrlimit(resource.RLIMIT_DATA, (args.memory, args.memory))
    if args.keep:
        keep_freed_memory()
    worker = Worker(args.peer, PygCase(**json.loads(args.case)))
    print(json.dumps({"ready": True, **worker.about}), flush=True)
    for line in sys.stdin:
        print(json.dumps(worker.answer(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
